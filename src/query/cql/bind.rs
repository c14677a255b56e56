//! What an expression means for a feature type.

use std::sync::Arc;

use super::{Context, CqlError, Expr, Kind};
use crate::format::gml::resolve_rid;
use crate::model::crs::{CrsRef, Transform};
use crate::model::geometry::{Coord, Writer};
use crate::model::{Dimension, Geometry, GeometryKind, PropertyType, Rect, Value};
use crate::query::distance::Near;
use crate::query::evaluate;
use crate::query::fes::{Reference, class, measured, resolve_reference, value_of};
use crate::query::filter::{CompareOp, Filter, LikePattern, Operand, SpatialLiteral, SpatialOp};
use crate::query::foreign_box::ForeignBox;
use crate::query::function::{Function, case_folded, without_accents};
use crate::query::temporal::{Period, relation};

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
        if let Some(n) = arity(name)
            && arguments.len() != n
        {
            return Err(e.error(format!("{name} takes {n} arguments, not {}", arguments.len())));
        }
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
            ("between", [value, low, high]) => match self.bound(value)? {
                Bound::Typed(value, kind) => {
                    Ok(Filter::Between { value, low: self.against(low, kind)?, high: self.against(high, kind)? })
                }
                Bound::Literal(_) => {
                    let above = self.compare(CompareOp::GreaterOrEqual, value, low)?;
                    Ok(above.and(self.compare(CompareOp::LessOrEqual, value, high)?))
                }
            },
            ("in", [value, list @ ..]) => self.is_in(value, list),
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
                self.meets_box(edges, &crs, e)
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
            (_, [left, right]) if name.starts_with("t_") => self.temporal(&name[2..], left, right, e),
            _ if name.starts_with("a_") => Err(e.error(format!("{name}: there are no properties that are arrays"))),
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
            Kind::Geometry(_) | Kind::Box(_) | Kind::Period(..) | Kind::List(_) => {
                return Err(e.error("a single value is expected here"));
            }
        };
        let operator = match &**name {
            "+" => Some(Function::Add),
            "-" => Some(Function::Subtract),
            "*" => Some(Function::Multiply),
            "/" => Some(Function::Divide),
            "%" => Some(Function::Modulo),
            "div" => Some(Function::DivideWhole),
            "^" => Some(Function::Power),
            _ => None,
        };
        if let Some(function) = operator {
            let arguments = arguments.iter().map(|a| self.against(a, PropertyType::Number)).collect::<Result<_>>()?;
            return Ok(Bound::Typed(Operand::Call { function, arguments }, PropertyType::Number));
        }
        if let Some(text) = constant_text(e) {
            let text = PropertyType::String.parse(&text).map_err(|what| e.error(what))?;
            return Ok(Bound::Typed(Operand::Literal(text), PropertyType::String));
        }
        if let (Some((function, _)), [argument]) = (folding(name), &arguments[..]) {
            let arguments = vec![self.against(argument, PropertyType::String)?];
            return Ok(Bound::Typed(Operand::Call { function, arguments }, PropertyType::String));
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

    /// The feature's id goes by the name that it has in GeoJSON, too, which no property can have.
    fn reference(&self, name: &str, e: &Expr) -> Result<Reference> {
        match resolve_reference(name, self.ft) {
            Err(_) if name == "id" => Ok(Reference::Id),
            found => found.map_err(|wrong| e.error(wrong.message)),
        }
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
        let compare = |left, right| match (op, left, right) {
            // What the tiers look up, not what they compare with each feature.
            (CompareOp::Equal, Operand::Id, Operand::Literal(Value::String(id))) => Filter::ids([(*id).into()]),
            (op, left, right) => Filter::Compare { op, left, right, match_case: true },
        };
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

    fn is_in(&self, value: &Expr, list: &[Expr]) -> Result<Filter> {
        let equal = list.iter().map(|item| self.compare(CompareOp::Equal, value, item));
        let any = equal.collect::<Result<Vec<_>>>()?;
        let ids = any.iter().map(|f| if let Filter::Ids(ids) = f { Some(&ids.list) } else { None });
        match ids.collect::<Option<Vec<_>>>() {
            Some(ids) => Ok(Filter::ids(ids.into_iter().flatten().cloned())),
            None => Ok(Filter::Or(any)),
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
        let text = constant_text(pattern).filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| pattern.error("a pattern in quotes is expected here"))?;
        let value = self.against(value, PropertyType::String)?;
        Ok(Filter::Like { value, pattern: LikePattern::parse(&text, "%", "_", "\\"), match_case })
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
        let transform = Transform::between(self.crs.crs, self.target);
        let geometry = match &e.kind {
            Kind::Geometry(geometry) if self.crs.swap => geometry.map_xy(|x, y| Ok((y, x))).map_err(wrong)?,
            Kind::Geometry(geometry) => geometry.clone(),
            Kind::Box(edges) => self.area(*edges, transform.is_some(), e)?,
            _ => return Err(e.error("a geometry is expected here, as well-known text")),
        };
        let beyond = |b: Rect| b.min_y < -90.0 || b.max_y > 90.0;
        if self.crs.crs.is_geographic() && geometry.bounds().is_some_and(beyond) {
            return Err(e.error("a latitude is beyond the pole"));
        }
        transform.map_or(Ok(geometry.clone()), |t| t.geometry(&geometry)).map_err(wrong)
    }

    /// A box as an area, x,y; two where its west is east of its east. `projected`: the poles have no place there.
    fn area(&self, edges: [f64; 4], projected: bool, e: &Expr) -> Result<Geometry> {
        const EDGE: f64 = 89.999;
        let Rect { min_x, mut min_y, max_x, mut max_y } = self.in_xy_order(edges, &self.crs);
        let geographic = self.crs.crs.is_geographic();
        if min_y > max_y || (min_x > max_x && !geographic) {
            return Err(e.error(UPSIDE_DOWN));
        }
        if geographic && projected {
            (min_y, max_y) = (min_y.clamp(-EDGE, EDGE), max_y.clamp(-EDGE, EDGE));
        }
        let wests_and_easts: &[_] = if min_x > max_x { &[(min_x, 180.0), (-180.0, max_x)] } else { &[(min_x, max_x)] };
        let mut w = Writer::new(Dimension::XY);
        w.begin(GeometryKind::MultiPolygon);
        w.count(wests_and_easts.len() as u32);
        for (west, east) in wests_and_easts {
            w.begin(GeometryKind::Polygon);
            w.count(1);
            w.count(5);
            for (x, y) in [(west, min_y), (east, min_y), (east, max_y), (west, max_y), (west, min_y)] {
                w.coord(Coord::xy(*x, y));
            }
        }
        w.checked().map_err(|what| e.error(what.to_string()))
    }

    fn in_xy_order(&self, [a, b, c, d]: [f64; 4], crs: &CrsRef) -> Rect {
        let (min_x, min_y, max_x, max_y) = if crs.swap { (b, a, d, c) } else { (a, b, c, d) };
        Rect { min_x, min_y, max_x, max_y }
    }

    fn meets_box(&self, edges: [f64; 4], crs: &CrsRef, e: &Expr) -> Result<Filter> {
        let rect = self.in_xy_order(edges, crs);
        if rect.min_x > rect.max_x || rect.min_y > rect.max_y {
            return Err(e.error(UPSIDE_DOWN));
        }
        ForeignBox::filter(rect, crs.crs, self.target).map_err(|what| e.error(what.to_string()))
    }

    fn spatial(&self, op: SpatialOp, left: &Expr, right: &Expr) -> Result<Filter> {
        let is_property = |e: &Expr| matches!(e.kind, Kind::Property(_));
        let (op, of, literal) = match (is_property(left), is_property(right)) {
            (true, false) => (op, left, right),
            (false, true) => (converse(op), right, left),
            (true, true) => {
                self.geometry_of(left)?;
                self.geometry_of(right)?;
                let of_itself = [SpatialOp::Intersects, SpatialOp::Within, SpatialOp::Contains, SpatialOp::Equals];
                return Ok(match of_itself.contains(&op) {
                    true => Filter::Not(Filter::IsNull(Operand::Geometry).into()),
                    false => Filter::constant(false),
                });
            }
            (false, false) => {
                let (a, b) = (self.geometry(left)?, SpatialLiteral::new(self.geometry(right)?));
                return Ok(Filter::constant(evaluate::spatial(op, &a, &b)));
            }
        };
        self.geometry_of(of)?;
        Ok(Filter::Spatial { op, literal: Arc::new(SpatialLiteral::new(self.geometry(literal)?)) })
    }

    /// As in [`crate::query::fes`], a property is an instant; two of them may be the ends of a period.
    fn temporal(&self, name: &str, left: &Expr, right: &Expr, e: &Expr) -> Result<Filter> {
        let (a, b) = (ends(left), ends(right));
        let mut kind = PropertyType::DateTime;
        for end in a.into_iter().chain(b) {
            if let Bound::Typed(_, of) = self.bound(end)? {
                if class(of) != PropertyType::DateTime {
                    return Err(end.error("a property that is a time is expected here"));
                }
                kind = of;
            }
        }
        let end = |e: &Expr| match &e.kind {
            Kind::Text(open) if open == ".." => Ok(None),
            _ => self.against(e, kind).map(Some),
        };
        let period = |[begin, end_of]: [&Expr; 2]| Ok(Period { begin: end(begin)?, end: end(end_of)? });
        relation(name, &period(a)?, &period(b)?)
            .ok_or_else(|| e.error(format!("there is no temporal operator '{name}'")))
    }
}

const UPSIDE_DOWN: &str = "the lower corner is beyond the upper one";

/// How many arguments an operator takes; JSON may give it any number.
fn arity(name: &str) -> Option<usize> {
    match name {
        "not" | "isnull" => Some(1),
        "between" => Some(3),
        "like" | "ilike" => Some(2),
        _ if comparison(name).is_some() || spatial(name).is_some() || name.starts_with("t_") => Some(2),
        _ => None,
    }
}

/// Of a time; those of an instant are the same.
fn ends(e: &Expr) -> [&Expr; 2] {
    match &e.kind {
        Kind::Period(begin, end) => [begin, end],
        _ => [e, e],
    }
}

/// For properties, and for texts of the filter itself.
type Folding = (Function, fn(&str) -> String);

/// CQL2's ways to compare with less regard: to case, to accents.
fn folding(name: &str) -> Option<Folding> {
    match name {
        "casei" => Some((Function::FoldCase, case_folded)),
        "accenti" => Some((Function::DropAccents, without_accents)),
        _ => None,
    }
}

/// A text, or one with less regard.
fn constant_text(e: &Expr) -> Option<String> {
    match &e.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Call(name, arguments) => match (folding(name), &arguments[..]) {
            (Some((_, fold)), [inner]) => constant_text(inner).map(|text| fold(&text)),
            _ => None,
        },
        _ => None,
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

/// The relation the other way round.
fn converse(op: SpatialOp) -> SpatialOp {
    match op {
        SpatialOp::Within => SpatialOp::Contains,
        SpatialOp::Contains => SpatialOp::Within,
        same => same,
    }
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
