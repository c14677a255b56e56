//! Comparison operators.

use super::{Code, Context, FesError, Reference};
use crate::format::gml::resolve_rid;
use crate::format::xml::Element;
use crate::model::value::parse_instant;
use crate::model::{PropertyType, Value};
use crate::query::filter::{CompareOp, Filter, LikePattern, Operand};

enum Expression<'e> {
    Reference(Reference, &'e Element),
    Literal(&'e Element),
}

impl Context<'_> {
    pub(super) fn comparison(&self, e: &Element) -> Result<Filter, FesError> {
        let op = match &*e.local {
            "PropertyIsEqualTo" => CompareOp::Equal,
            "PropertyIsNotEqualTo" => CompareOp::NotEqual,
            "PropertyIsLessThan" => CompareOp::Less,
            "PropertyIsLessThanOrEqualTo" | "PropertyIsLessThanEqualTo" => CompareOp::LessOrEqual,
            "PropertyIsGreaterThan" => CompareOp::Greater,
            "PropertyIsGreaterThanOrEqualTo" | "PropertyIsGreaterThanEqualTo" => CompareOp::GreaterOrEqual,
            "PropertyIsLike" => return self.like(e),
            "PropertyIsNull" | "PropertyIsNil" => return self.null(e),
            "PropertyIsBetween" => return self.between(e),
            local => return Err(FesError::not_supported(e, format!("the operator '{local}' is not supported"))),
        };
        let [left, right] = &e.children[..] else { return Err(FesError::parsing(e, "needs two operands")) };
        let match_case = match_case(e)?;
        let compare = |op, left, right| Filter::Compare { op, left, right, match_case };
        match (self.expression(left)?, self.expression(right)?) {
            (Expression::Reference(Reference::Id, _), Expression::Literal(id))
            | (Expression::Literal(id), Expression::Reference(Reference::Id, _)) => self.compare_id(e, op, id),
            (Expression::Reference(r, at), Expression::Literal(l)) => {
                let (operand, kind) = self.comparable(r, at)?;
                Ok(compare(op, operand, Operand::Literal(literal(l, kind)?)))
            }
            (Expression::Literal(l), Expression::Reference(r, at)) => {
                let (operand, kind) = self.comparable(r, at)?;
                Ok(compare(mirrored(op), operand, Operand::Literal(literal(l, kind)?)))
            }
            (Expression::Reference(a, at_a), Expression::Reference(b, at_b)) => {
                let ((left, a), (right, b)) = (self.comparable(a, at_a)?, self.comparable(b, at_b)?);
                if class(a) != class(b) {
                    let message = format!(
                        "'{}' and '{}' do not compare: {} and {}",
                        at_a.trimmed(),
                        at_b.trimmed(),
                        a.name(),
                        b.name()
                    );
                    return Err(FesError::invalid(at_b.trimmed(), message));
                }
                Ok(compare(op, left, right))
            }
            (Expression::Literal(a), Expression::Literal(b)) => {
                let numbers = (literal(a, PropertyType::Number), literal(b, PropertyType::Number));
                let (a, b) = match numbers {
                    (Ok(a), Ok(b)) => (a, b),
                    _ => (literal(a, PropertyType::String)?, literal(b, PropertyType::String)?),
                };
                Ok(compare(op, Operand::Literal(a), Operand::Literal(b)))
            }
        }
    }

    fn compare_id(&self, e: &Element, op: CompareOp, id: &Element) -> Result<Filter, FesError> {
        // The id of a feature of another type is no feature's here.
        let ids = Filter::ids(resolve_rid(id.trimmed(), &self.ft.name, self.is_type));
        match op {
            CompareOp::Equal => Ok(ids),
            CompareOp::NotEqual => Ok(Filter::Not(Box::new(ids))),
            _ => Err(FesError::not_supported(e, "ids can only be compared for equality")),
        }
    }

    fn expression<'e>(&self, e: &'e Element) -> Result<Expression<'e>, FesError> {
        match &*e.local {
            "ValueReference" | "PropertyName" => Ok(Expression::Reference(self.reference(e)?, e)),
            "Literal" => Ok(Expression::Literal(e)),
            "Function" => {
                let name = e.attribute("name").unwrap_or_default();
                Err(FesError::not_supported(e, format!("the function '{name}' is not supported")))
            }
            "Add" | "Sub" | "Mul" | "Div" => Err(FesError::not_supported(e, "arithmetic is not supported")),
            local => Err(FesError::parsing(e, format!("'{local}' is not an expression"))),
        }
    }

    /// A property as an operand, with its type.
    fn comparable(&self, r: Reference, at: &Element) -> Result<(Operand, PropertyType), FesError> {
        match r {
            Reference::Property(slot) => Ok((Operand::Property(slot), self.ft.properties[slot].kind)),
            Reference::Id => Ok((Operand::Id, PropertyType::String)),
            Reference::Geometry => Err(FesError::invalid(at.trimmed(), "a geometry cannot be compared with a value")),
            Reference::BoundedBy => Err(FesError::new(
                Code::OperationProcessingFailed,
                at.trimmed(),
                "gml:boundedBy cannot be compared with a value",
            )),
        }
    }

    fn null(&self, e: &Element) -> Result<Filter, FesError> {
        let [operand] = &e.children[..] else { return Err(FesError::parsing(e, "needs one operand")) };
        match self.expression(operand)? {
            Expression::Reference(Reference::Geometry | Reference::BoundedBy, _) => {
                Ok(Filter::IsNull(Operand::Geometry))
            }
            Expression::Reference(r, at) => Ok(Filter::IsNull(self.comparable(r, at)?.0)),
            Expression::Literal(l) => Err(FesError::parsing(l, "a property is expected here")),
        }
    }

    fn between(&self, e: &Element) -> Result<Filter, FesError> {
        let [value, low, high] = &e.children[..] else {
            return Err(FesError::parsing(e, "needs an expression, a LowerBoundary and an UpperBoundary"));
        };
        if &*low.local != "LowerBoundary" || &*high.local != "UpperBoundary" {
            return Err(FesError::parsing(e, "needs an expression, a LowerBoundary and an UpperBoundary"));
        }
        let Expression::Reference(r, at) = self.expression(value)? else {
            return Err(FesError::parsing(value, "a property is expected here"));
        };
        let (value, kind) = self.comparable(r, at)?;
        let bound = |b: &Element| match &b.children[..] {
            [inner] => match self.expression(inner)? {
                Expression::Literal(l) => Ok(Operand::Literal(literal(l, kind)?)),
                Expression::Reference(r, at) => {
                    let (operand, other) = self.comparable(r, at)?;
                    match class(other) == class(kind) {
                        true => Ok(operand),
                        false => Err(FesError::invalid(at.trimmed(), format!("is of type {}", other.name()))),
                    }
                }
            },
            _ => Err(FesError::parsing(b, "needs one expression")),
        };
        Ok(Filter::Between { value, low: bound(low)?, high: bound(high)? })
    }

    fn like(&self, e: &Element) -> Result<Filter, FesError> {
        let [value, pattern] = &e.children[..] else { return Err(FesError::parsing(e, "needs two operands")) };
        let (Expression::Reference(r, at), Expression::Literal(pattern)) =
            (self.expression(value)?, self.expression(pattern)?)
        else {
            return Err(FesError::parsing(e, "needs a property and a literal"));
        };
        let (value, kind) = self.comparable(r, at)?;
        if kind != PropertyType::String {
            let message = format!("PropertyIsLike needs text, '{}' is of type {}", at.trimmed(), kind.name());
            return Err(FesError::invalid(at.trimmed(), message));
        }
        let any = e.attribute("wildCard").unwrap_or("*");
        let one = e.attribute("singleChar").unwrap_or("?");
        let escape = e.attribute("escapeChar").or(e.attribute("escape")).unwrap_or("\\");
        let pattern = LikePattern::parse(&literal_text(pattern)?, any, one, escape);
        Ok(Filter::Like { value, pattern, match_case: match_case(e)? })
    }
}

fn match_case(e: &Element) -> Result<bool, FesError> {
    match e.attribute("matchCase").map(str::trim) {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(FesError::parsing(e, format!("matchCase '{other}' is not true or false"))),
    }
}

fn mirrored(op: CompareOp) -> CompareOp {
    match op {
        CompareOp::Equal | CompareOp::NotEqual => op,
        CompareOp::Less => CompareOp::Greater,
        CompareOp::LessOrEqual => CompareOp::GreaterOrEqual,
        CompareOp::Greater => CompareOp::Less,
        CompareOp::GreaterOrEqual => CompareOp::LessOrEqual,
    }
}

/// Types of one class compare with each other.
fn class(kind: PropertyType) -> PropertyType {
    match kind {
        PropertyType::Int32 | PropertyType::Int64 => PropertyType::Number,
        PropertyType::Date => PropertyType::DateTime,
        other => other,
    }
}

fn literal_text(l: &Element) -> Result<String, FesError> {
    match l.children.first() {
        None => Ok(l.text.clone()),
        Some(child) => Err(FesError::parsing(child, "text is expected here")),
    }
}

/// A literal as a value that compares with properties of `kind`.
pub(super) fn literal(l: &Element, kind: PropertyType) -> Result<Value, FesError> {
    let text = literal_text(l)?;
    value_of(&text, kind).map_err(|what| FesError::invalid(&text, format!("line {}: {what}", l.line)))
}

/// Wider than the property's own form where a comparison has a meaning: a fraction beside integers, an instant beside days.
pub(super) fn value_of(text: &str, kind: PropertyType) -> Result<Value, String> {
    let trimmed = text.trim();
    let parsed = match kind {
        PropertyType::Int32 | PropertyType::Int64 => {
            PropertyType::Int64.parse(trimmed).or_else(|e| PropertyType::Number.parse(trimmed).map_err(|_| e))
        }
        PropertyType::Date if trimmed.len() > 10 && trimmed.as_bytes()[10] == b'T' => {
            parse_instant(trimmed).map(Value::DateTime).ok_or_else(|| format!("'{trimmed}' is not a date"))
        }
        _ => kind.parse(text),
    }?;
    match parsed {
        Value::Null => Err(format!("a literal of type {} is expected, not an empty one", kind.name())),
        value => Ok(value),
    }
}
