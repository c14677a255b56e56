//! Comparison operators.

use super::{Code, Context, FesError, Reference};
use crate::format::gml::resolve_rid;
use crate::format::xml::Element;
use crate::model::value::parse_instant;
use crate::model::{PropertyType, Value};
use crate::query::filter::{CompareOp, Filter, LikePattern, Operand};
use crate::query::function::Function;

enum Expression<'e> {
    /// What has a type: a property, or what a function makes.
    Typed(Operand, PropertyType, &'e Element),
    /// Takes the type of what it is held against.
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
        // Every property has one value, of which any is all (FES 2.0, 7.7.3.4).
        if let Some(action) = e.attribute("matchAction").filter(|a| !matches!(a.trim(), "Any" | "All" | "One")) {
            return Err(FesError::parsing(e, format!("matchAction '{action}' is not Any, All or One")));
        }
        let compare = |op, left, right| Filter::Compare { op, left, right, match_case };
        match (self.expression(left)?, self.expression(right)?) {
            (Expression::Typed(Operand::Id, ..), Expression::Literal(id))
            | (Expression::Literal(id), Expression::Typed(Operand::Id, ..)) => self.compare_id(e, op, id),
            (Expression::Typed(operand, kind, _), Expression::Literal(l)) => {
                Ok(compare(op, operand, Operand::Literal(literal(l, kind)?)))
            }
            (Expression::Literal(l), Expression::Typed(operand, kind, _)) => {
                Ok(compare(mirrored(op), operand, Operand::Literal(literal(l, kind)?)))
            }
            (Expression::Typed(left, kind, _), right) => Ok(compare(op, left, held_against(right, kind)?)),
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
            "ValueReference" | "PropertyName" => {
                let (operand, kind) = self.comparable(e)?;
                Ok(Expression::Typed(operand, kind, e))
            }
            "Literal" => Ok(Expression::Literal(e)),
            "Function" => self.call(e),
            "Add" => self.arithmetic(e, Function::Add),
            "Sub" => self.arithmetic(e, Function::Subtract),
            "Mul" => self.arithmetic(e, Function::Multiply),
            "Div" => self.arithmetic(e, Function::Divide),
            local => Err(FesError::parsing(e, format!("'{local}' is not an expression"))),
        }
    }

    /// A property as an operand, with its type.
    fn comparable(&self, at: &Element) -> Result<(Operand, PropertyType), FesError> {
        match self.reference(at)? {
            Reference::Property(slot) => Ok((Operand::Property(slot), self.ft.properties[slot].kind)),
            Reference::Id => Ok((Operand::Id, PropertyType::String)),
            Reference::Standard => Ok((Operand::Literal(Value::Null), PropertyType::String)),
            Reference::Geometry => Err(FesError::invalid(at.trimmed(), "a geometry cannot be compared with a value")),
            Reference::BoundedBy => Err(FesError::new(
                Code::OperationProcessingFailed,
                at.trimmed(),
                "gml:boundedBy cannot be compared with a value",
            )),
        }
    }

    /// Filter 1.1, 8: of numbers.
    fn arithmetic<'e>(&self, e: &'e Element, function: Function) -> Result<Expression<'e>, FesError> {
        let [_, _] = &e.children[..] else { return Err(FesError::parsing(e, "needs two operands")) };
        let arguments = e.children.iter().map(|c| held_against(self.expression(c)?, PropertyType::Number));
        let arguments = arguments.collect::<Result<_, _>>()?;
        Ok(Expression::Typed(Operand::Call { function, arguments }, PropertyType::Number, e))
    }

    fn call<'e>(&self, e: &'e Element) -> Result<Expression<'e>, FesError> {
        let name = e.attribute("name").unwrap_or_default();
        let Some(signature) = Function::named(name.rsplit_once(':').map_or(name, |(_, local)| local)) else {
            let message = format!("line {}: the function '{name}' is not supported", e.line);
            return Err(FesError::new(Code::InvalidParameterValue, name, message));
        };
        if e.children.len() != signature.arguments.len() {
            let message = format!("the function '{name}' takes {} arguments", signature.arguments.len());
            return Err(FesError::parsing(e, message));
        }
        let mut arguments = Vec::new();
        for (argument, kind) in e.children.iter().zip(signature.arguments) {
            match kind {
                Some(kind) => arguments.push(held_against(self.expression(argument)?, *kind)?),
                None if self.reference(argument)? == Reference::Geometry => {}
                None => {
                    let message = format!("'{}' is not a geometry, which {name} takes", argument.trimmed());
                    return Err(FesError::invalid(argument.trimmed(), message));
                }
            }
        }
        let operand = Operand::Call { function: signature.function, arguments };
        Ok(Expression::Typed(operand, signature.returns, e))
    }

    fn null(&self, e: &Element) -> Result<Filter, FesError> {
        let [operand] = &e.children[..] else { return Err(FesError::parsing(e, "needs one operand")) };
        if matches!(&*operand.local, "ValueReference" | "PropertyName")
            && matches!(self.reference(operand)?, Reference::Geometry | Reference::BoundedBy)
        {
            return Ok(Filter::IsNull(Operand::Geometry));
        }
        match self.expression(operand)? {
            Expression::Typed(operand, ..) => Ok(Filter::IsNull(operand)),
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
        let Expression::Typed(value, kind, _) = self.expression(value)? else {
            return Err(FesError::parsing(value, "a property is expected here"));
        };
        let bound = |b: &Element| match &b.children[..] {
            [inner] => held_against(self.expression(inner)?, kind),
            _ => Err(FesError::parsing(b, "needs one expression")),
        };
        Ok(Filter::Between { value, low: bound(low)?, high: bound(high)? })
    }

    fn like(&self, e: &Element) -> Result<Filter, FesError> {
        let [value, pattern] = &e.children[..] else { return Err(FesError::parsing(e, "needs two operands")) };
        let (Expression::Typed(value, kind, at), Expression::Literal(pattern)) =
            (self.expression(value)?, self.expression(pattern)?)
        else {
            return Err(FesError::parsing(e, "needs a property and a literal"));
        };
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

/// An expression that is compared with something of `kind`, or given to a function that takes it.
fn held_against(expression: Expression<'_>, kind: PropertyType) -> Result<Operand, FesError> {
    match expression {
        Expression::Literal(l) => Ok(Operand::Literal(literal(l, kind)?)),
        Expression::Typed(operand, of, _) if class(of) == class(kind) => Ok(operand),
        Expression::Typed(_, of, at) => {
            let name = at.attribute("name").unwrap_or(at.trimmed());
            let name = if name.is_empty() { &*at.local } else { name };
            let message =
                format!("line {}: '{name}' is of type {}, where {} is needed", at.line, of.name(), kind.name());
            Err(FesError::invalid(name, message))
        }
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
pub fn class(kind: PropertyType) -> PropertyType {
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
fn literal(l: &Element, kind: PropertyType) -> Result<Value, FesError> {
    let text = literal_text(l)?;
    value_of(&text, kind).map_err(|what| FesError::invalid(&text, format!("line {}: {what}", l.line)))
}

/// Wider than the property's own form where a comparison has a meaning: a fraction beside integers, an instant beside days.
pub fn value_of(text: &str, kind: PropertyType) -> Result<Value, String> {
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
