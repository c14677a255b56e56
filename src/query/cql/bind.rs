//! What an expression means for a feature type.

use std::sync::Arc;

use super::{Context, CqlError, Expr, Kind};
use crate::format::gml::resolve_rid;
use crate::model::crs::{CrsRef, Transform};
use crate::model::{Geometry, PropertyType, Rect, Value};
use crate::query::distance::Near;
use crate::query::fes::{Reference, class, measured, resolve_reference, value_of};
use crate::query::filter::{CompareOp, Filter, LikePattern, Operand, SpatialLiteral, SpatialOp};
use crate::query::function::Function;
use crate::query::temporal::relation;

/// A value of a known type, or a literal that takes its type from what it is held against.
enum Bound<'e> {
    Typed(Operand, PropertyType),
    Literal(&'e Expr),
}

type Result<T> = std::result::Result<T, CqlError>;

impl Context<'_> {
    pub(super) fn predicate(&self, e: &Expr) -> Result<Filter> {
        let (name, arguments) = match &e.kind {
            Kind::Bool(true) => return Ok(Filter::All),
            Kind::Bool(false) => return Ok(Filter::ids([])),
            Kind::Call(name, arguments) => (name.as_str(), arguments.as_slice()),
            _ => return self.truth_of(e),
        };
        match (name, arguments) {
            ("and", all) => {
                let parts = all.iter().map(|a| self.predicate(a)).collect::<Result<Vec<_>>>()?;
                Ok(parts.into_iter().fold(Filter::All, Filter::and))
            }
            ("or", all) => Ok(Filter::Or(all.iter().map(|a| self.predicate(a)).collect::<Result<_>>()?)),
            ("not", [inner]) => Ok(Filter::Not(self.predicate(inner)?.into())),
            ("ids", all) => self.ids(all),
            ("isnull", [of]) => self.is_null(of),
            ("like" | "ilike", [value, pattern]) => self.like(value, pattern, name == "like"),
            ("between", [value, low, high]) => {
                let Bound::Typed(value, kind) = self.bound(value)? else {
                    return Err(value.error("a property is expected here"));
                };
                Ok(Filter::Between { value, low: self.against(low, kind)?, high: self.against(high, kind)? })
            }
            ("in", [value, list @ ..]) => {
                let equal = list.iter().map(|item| self.compare(CompareOp::Equal, value, item));
                Ok(Filter::Or(equal.collect::<Result<_>>()?))
            }
            ("bbox", [of, west, south, east, north, crs @ ..]) => {
                self.geometry_of(of)?;
                let mut edges = [0.0; 4];
                for (edge, number) in edges.iter_mut().zip([west, south, east, north]) {
                    *edge = self.number(number)?;
                }
                let crs = match crs {
                    [] => self.crs.clone(),
                    [Expr { kind: Kind::Text(text), at }] => {
                        CrsRef::parse(text).map_err(|e| CqlError { at: *at, what: e.to_string() })?
                    }
                    [wrong, ..] => return Err(wrong.error("a CRS in quotes is expected here")),
                };
                Ok(Filter::Bbox(self.rect(edges, &crs, e)?))
            }
            ("dwithin" | "beyond", [of, to, distance, unit]) => {
                self.geometry_of(of)?;
                let Kind::Text(unit_name) = &unit.kind else { return Err(unit.error("a unit is expected here")) };
                let distance = self.number(distance)?;
                let (limit, measure) = measured(distance, unit_name, self.target).map_err(|what| unit.error(what))?;
                let near = Filter::Near(Near::new(self.geometry(to)?, limit, measure).into());
                Ok(if name == "dwithin" { near } else { Filter::Not(near.into()) })
            }
            (_, [left, right]) if comparison(name).is_some() => {
                self.compare(comparison(name).unwrap_or(CompareOp::Equal), left, right)
            }
            (_, [left, right]) if spatial(name).is_some() => {
                self.spatial(spatial(name).unwrap_or(SpatialOp::Intersects), left, right)
            }
            (_, [property, time]) if name.starts_with("t_") => self.temporal(&name[2..], property, time, e),
            _ => self.truth_of(e),
        }
    }

    /// A value as a predicate: a property or function that is true or false.
    fn truth_of(&self, e: &Expr) -> Result<Filter> {
        match self.bound(e)? {
            Bound::Typed(left, PropertyType::Boolean) => Ok(Filter::Compare {
                op: CompareOp::Equal,
                left,
                right: Operand::Literal(Value::Bool(true)),
                match_case: true,
            }),
            Bound::Typed(_, kind) => {
                Err(e.error(format!("a predicate is expected here, not a value of type {}", kind.name())))
            }
            Bound::Literal(_) => Err(e.error("a predicate is expected here")),
        }
    }

    fn bound<'e>(&self, e: &'e Expr) -> Result<Bound<'e>> {
        let (name, arguments) = match &e.kind {
            Kind::Property(name) => {
                return match self.reference(name, e)? {
                    Reference::Property(slot) => {
                        Ok(Bound::Typed(Operand::Property(slot), self.ft.properties[slot].kind))
                    }
                    Reference::Id => Ok(Bound::Typed(Operand::Id, PropertyType::String)),
                    Reference::Standard => Ok(Bound::Typed(Operand::Literal(Value::Null), PropertyType::String)),
                    Reference::Geometry | Reference::BoundedBy => {
                        Err(e.error("a geometry cannot be compared with a value"))
                    }
                };
            }
            Kind::Call(name, arguments) => (name, arguments),
            Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) => return Ok(Bound::Literal(e)),
            Kind::Geometry(_) | Kind::Box(_) | Kind::Period(..) => {
                return Err(e.error("a single value is expected here"));
            }
        };
        let operator = match &**name {
            "+" => Some(Function::Add),
            "-" => Some(Function::Subtract),
            "*" => Some(Function::Multiply),
            "/" => Some(Function::Divide),
            _ => None,
        };
        if let Some(function) = operator {
            let arguments = arguments.iter().map(|a| self.against(a, PropertyType::Number)).collect::<Result<_>>()?;
            return Ok(Bound::Typed(Operand::Call { function, arguments }, PropertyType::Number));
        }
        // CQL2's way to compare without regard to case.
        if name == "casei" && arguments.len() == 1 {
            let arguments = vec![self.against(&arguments[0], PropertyType::String)?];
            return Ok(Bound::Typed(Operand::Call { function: Function::Lower, arguments }, PropertyType::String));
        }
        let signature = Function::named(name).ok_or_else(|| e.error(format!("there is no function '{name}'")))?;
        if arguments.len() != signature.arguments.len() {
            let n = signature.arguments.len();
            return Err(e.error(format!("{} takes {n} arguments, not {}", signature.name, arguments.len())));
        }
        let mut bound = Vec::new();
        for (argument, kind) in arguments.iter().zip(signature.arguments) {
            match kind {
                Some(kind) => bound.push(self.against(argument, *kind)?),
                None => self.geometry_of(argument)?,
            }
        }
        Ok(Bound::Typed(Operand::Call { function: signature.function, arguments: bound }, signature.returns))
    }

    fn reference(&self, name: &str, e: &Expr) -> Result<Reference> {
        resolve_reference(name, self.ft).map_err(|wrong| e.error(wrong.message))
    }

    /// An expression that is compared with something of `kind`, or given to a function that takes it.
    fn against(&self, e: &Expr, kind: PropertyType) -> Result<Operand> {
        match self.bound(e)? {
            Bound::Literal(l) => literal(l, kind).map(Operand::Literal),
            Bound::Typed(operand, of) if class(of) == class(kind) => Ok(operand),
            Bound::Typed(_, of) => {
                Err(e.error(format!("this is of type {}, where {} is needed", of.name(), kind.name())))
            }
        }
    }

    fn compare(&self, op: CompareOp, left: &Expr, right: &Expr) -> Result<Filter> {
        let compare = |left, right| Filter::Compare { op, left, right, match_case: true };
        match (self.bound(left)?, self.bound(right)?) {
            (Bound::Typed(operand, kind), _) => Ok(compare(operand, self.against(right, kind)?)),
            (_, Bound::Typed(operand, kind)) => Ok(compare(self.against(left, kind)?, operand)),
            _ => {
                let of = |kind| Ok((literal(left, kind)?, literal(right, kind)?));
                let (left, right): (Value, Value) =
                    of(PropertyType::Number).or_else(|_: CqlError| of(PropertyType::String))?;
                Ok(compare(Operand::Literal(left), Operand::Literal(right)))
            }
        }
    }

    fn ids(&self, all: &[Expr]) -> Result<Filter> {
        let id = |e: &Expr| match &e.kind {
            Kind::Text(text) => resolve_rid(text, &self.ft.name, self.is_type)
                .ok_or_else(|| e.error(format!("'{text}' is not the id of a feature of type '{}'", self.ft.name))),
            _ => Err(e.error("an id in quotes is expected here")),
        };
        all.iter().map(id).collect::<Result<Vec<_>>>().map(Filter::ids)
    }

    fn is_null(&self, e: &Expr) -> Result<Filter> {
        if let Kind::Property(name) = &e.kind
            && self.reference(name, e)? == Reference::Geometry
        {
            return Ok(Filter::IsNull(Operand::Geometry));
        }
        match self.bound(e)? {
            Bound::Typed(operand, _) => Ok(Filter::IsNull(operand)),
            Bound::Literal(_) => Err(e.error("a property is expected here")),
        }
    }

    /// `%` stands for any characters, `_` for one, after a backslash for themselves.
    fn like(&self, value: &Expr, pattern: &Expr, match_case: bool) -> Result<Filter> {
        let (pattern, match_case) = match &pattern.kind {
            Kind::Call(name, inner) if name == "casei" && inner.len() == 1 => (&inner[0], false),
            _ => (pattern, match_case),
        };
        let Kind::Text(text) = &pattern.kind else { return Err(pattern.error("a pattern in quotes is expected here")) };
        let value = self.against(value, PropertyType::String)?;
        Ok(Filter::Like { value, pattern: LikePattern::parse(text, "%", "_", "\\"), match_case })
    }

    fn number(&self, e: &Expr) -> Result<f64> {
        let number = if let Kind::Number(text) = &e.kind { text.parse().ok() } else { None };
        number.filter(|n: &f64| n.is_finite()).ok_or_else(|| e.error("a number is expected here"))
    }

    /// The feature's geometry, by whatever name.
    fn geometry_of(&self, e: &Expr) -> Result<()> {
        match &e.kind {
            Kind::Property(name) if self.reference(name, e)? == Reference::Geometry => Ok(()),
            _ => Err(e.error("the feature's geometry is expected here")),
        }
    }

    /// A geometry of the filter, as the features have theirs.
    fn geometry(&self, e: &Expr) -> Result<Geometry> {
        let wrong = |what: crate::model::GeometryError| e.error(what.to_string());
        let geometry = match &e.kind {
            Kind::Geometry(geometry) => geometry.clone(),
            Kind::Box([x0, y0, x1, y1]) => {
                polygon(&[(*x0, *y0), (*x1, *y0), (*x1, *y1), (*x0, *y1), (*x0, *y0)]).map_err(wrong)?
            }
            _ => return Err(e.error("a geometry is expected here, as well-known text")),
        };
        let geometry = match self.crs.swap {
            true => geometry.map_xy(|x, y| Ok((y, x))).map_err(wrong)?,
            false => geometry,
        };
        Transform::between(self.crs.crs, self.target)
            .map_or(Ok(geometry.clone()), |t| t.geometry(&geometry))
            .map_err(wrong)
    }

    fn rect(&self, [a, b, c, d]: [f64; 4], crs: &CrsRef, e: &Expr) -> Result<Rect> {
        let (min_x, min_y, max_x, max_y) = if crs.swap { (b, a, d, c) } else { (a, b, c, d) };
        if min_x > max_x || min_y > max_y {
            return Err(e.error("the lower corner is beyond the upper one"));
        }
        let rect = Rect { min_x, min_y, max_x, max_y };
        let there = Transform::between(crs.crs, self.target).map_or(Ok(rect), |t| t.rect(rect));
        there.map_err(|what| e.error(what.to_string()))
    }

    fn spatial(&self, op: SpatialOp, left: &Expr, right: &Expr) -> Result<Filter> {
        let literal_first = !matches!(left.kind, Kind::Property(_));
        let (of, literal) = if literal_first { (right, left) } else { (left, right) };
        self.geometry_of(of)?;
        let op = match op {
            SpatialOp::Within if literal_first => SpatialOp::Contains,
            SpatialOp::Contains if literal_first => SpatialOp::Within,
            same => same,
        };
        Ok(Filter::Spatial { op, literal: Arc::new(SpatialLiteral::new(self.geometry(literal)?)) })
    }

    /// As in [`crate::query::fes`]: a property is an instant.
    fn temporal(&self, name: &str, property: &Expr, time: &Expr, e: &Expr) -> Result<Filter> {
        let Bound::Typed(left, kind @ (PropertyType::Date | PropertyType::DateTime)) = self.bound(property)? else {
            return Err(property.error("a property that is a time is expected here"));
        };
        let bound = |e: &Expr| match &e.kind {
            Kind::Text(open) if open == ".." => Ok(None),
            _ => literal(e, kind).map(Some),
        };
        let (begin, end) = match &time.kind {
            Kind::Period(begin, end) => (bound(begin)?, bound(end)?),
            _ => literal(time, kind).map(|t| (Some(t.clone()), Some(t)))?,
        };
        let compare = |op, value: Value| Filter::Compare {
            op,
            left: left.clone(),
            right: Operand::Literal(value),
            match_case: true,
        };
        relation(name, begin, end, &compare).ok_or_else(|| e.error(format!("there is no temporal operator '{name}'")))
    }
}

fn literal(e: &Expr, kind: PropertyType) -> Result<Value> {
    let text = match &e.kind {
        Kind::Text(text) | Kind::Number(text) => text.as_str(),
        Kind::Bool(true) => "true",
        Kind::Bool(false) => "false",
        _ => return Err(e.error("a single value is expected here")),
    };
    value_of(text, kind).map_err(|what| e.error(what))
}

fn polygon(ring: &[(f64, f64)]) -> std::result::Result<Geometry, crate::model::GeometryError> {
    use crate::model::geometry::{Coord, Writer};
    use crate::model::{Dimension, GeometryKind};
    let mut w = Writer::new(Dimension::XY);
    w.begin(GeometryKind::Polygon);
    w.count(1);
    w.count(ring.len() as u32);
    ring.iter().for_each(|(x, y)| w.coord(Coord::xy(*x, *y)));
    w.checked()
}

fn comparison(name: &str) -> Option<CompareOp> {
    Some(match name {
        "=" => CompareOp::Equal,
        "<>" => CompareOp::NotEqual,
        "<" => CompareOp::Less,
        "<=" => CompareOp::LessOrEqual,
        ">" => CompareOp::Greater,
        ">=" => CompareOp::GreaterOrEqual,
        _ => return None,
    })
}

/// By the names of CQL2 and ECQL.
fn spatial(name: &str) -> Option<SpatialOp> {
    Some(match name.strip_prefix("s_").unwrap_or(name) {
        "intersects" => SpatialOp::Intersects,
        "disjoint" => SpatialOp::Disjoint,
        "within" => SpatialOp::Within,
        "contains" => SpatialOp::Contains,
        "touches" => SpatialOp::Touches,
        "crosses" => SpatialOp::Crosses,
        "overlaps" => SpatialOp::Overlaps,
        "equals" => SpatialOp::Equals,
        _ => return None,
    })
}
