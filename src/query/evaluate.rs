//! The filter's meaning in memory: three-valued, total, and the reference for every other meaning.

use std::borrow::Cow;

use geo::{Intersects, Relate};

use super::filter::{CompareOp, Filter, LikePattern, LikeToken, Operand, SpatialLiteral, SpatialOp};
use crate::model::{Feature, Geometry, Rect, Value};

/// True when the feature is selected.
pub fn matches(filter: &Filter, feature: &Feature) -> bool {
    evaluate(filter, feature) == Some(true)
}

/// `None` is 'unknown'.
fn evaluate(filter: &Filter, feature: &Feature) -> Option<bool> {
    match filter {
        Filter::All => Some(true),
        Filter::And(all) => all
            .iter()
            .try_fold((Some(true), ()), |(acc, ()), f| match evaluate(f, feature) {
                Some(false) => Err(()),
                Some(true) => Ok((acc, ())),
                None => Ok((None, ())),
            })
            .map_or(Some(false), |(acc, ())| acc),
        Filter::Or(any) => {
            let mut known = Some(false);
            for f in any {
                match evaluate(f, feature) {
                    Some(true) => return Some(true),
                    Some(false) => {}
                    None => known = None,
                }
            }
            known
        }
        Filter::Not(f) => evaluate(f, feature).map(|b| !b),
        Filter::Ids(ids) => Some(ids.contains(&feature.id)),
        Filter::Compare { op, left, right, match_case } => {
            compare(*op, &operand(left, feature), &operand(right, feature), *match_case)
        }
        Filter::Between { value, low, high } => {
            let v = operand(value, feature);
            let above = v.compare(&operand(low, feature))?.is_ge();
            Some(above && v.compare(&operand(high, feature))?.is_le())
        }
        Filter::Like { value, pattern, match_case } => match &*operand(value, feature) {
            Value::String(s) => Some(like(pattern, s, *match_case)),
            _ => None,
        },
        Filter::IsNull(Operand::Geometry) => Some(feature.geometry.is_none()),
        Filter::IsNull(o) => Some(operand(o, feature).is_null()),
        Filter::Bbox(r) => Some(feature.geometry.as_ref().is_some_and(|g| intersects_box(g, r))),
        Filter::ForeignBox(b) => Some(feature.geometry.as_ref().is_some_and(|g| b.holds(g))),
        Filter::Spatial { op, literal } => Some(spatial(*op, feature.geometry.as_ref()?, literal)),
        Filter::Near(near) => Some(near.holds(feature.geometry.as_ref()?)),
    }
}

fn operand<'a>(o: &'a Operand, feature: &'a Feature) -> Cow<'a, Value> {
    match o {
        Operand::Property(slot) => Cow::Borrowed(feature.value(*slot)),
        Operand::Id => Cow::Owned(Value::String((&*feature.id).into())),
        Operand::Literal(v) => Cow::Borrowed(v),
        Operand::Geometry => Cow::Owned(Value::Null),
        Operand::Call { function, arguments } => {
            let arguments: Vec<_> = arguments.iter().map(|o| operand(o, feature)).collect();
            Cow::Owned(function.apply(&arguments, feature))
        }
    }
}

fn compare(op: CompareOp, left: &Value, right: &Value, match_case: bool) -> Option<bool> {
    let ordering = match (left, right) {
        (Value::String(a), Value::String(b)) if !match_case => a.to_lowercase().cmp(&b.to_lowercase()),
        _ => left.compare(right)?,
    };
    Some(op.holds(ordering))
}

fn like(pattern: &LikePattern, text: &str, match_case: bool) -> bool {
    // The usual two-pointer walk: on a mismatch go back to the last 'any' and let it eat one character more.
    let same = |a: char, b: char| a == b || (!match_case && a.to_lowercase().eq(b.to_lowercase()));
    let text: Vec<char> = text.chars().collect();
    let tokens = &pattern.0;
    let (mut t, mut p, mut back) = (0, 0, None);
    while t < text.len() {
        match tokens.get(p) {
            Some(LikeToken::Any) => {
                back = Some((p, t));
                p += 1;
            }
            Some(LikeToken::One) => (t, p) = (t + 1, p + 1),
            Some(LikeToken::Char(c)) if same(*c, text[t]) => (t, p) = (t + 1, p + 1),
            _ => match back {
                Some((any, from)) => {
                    back = Some((any, from + 1));
                    (t, p) = (from + 1, any + 1);
                }
                None => return false,
            },
        }
    }
    tokens[p..].iter().all(|k| *k == LikeToken::Any)
}

/// True when the geometry and the box (borders included) share a point.
pub fn intersects_box(g: &Geometry, r: &Rect) -> bool {
    let Some(bounds) = g.bounds() else { return false };
    if !bounds.intersects(r) || r.contains(&bounds) {
        return bounds.intersects(r);
    }
    let geo_rect = geo_types::Rect::new((r.min_x, r.min_y), (r.max_x, r.max_y));
    g.to_geo().is_some_and(|geo| geo.intersects(&geo_rect))
}

/// Whether the relation holds from one geometry to another.
pub fn spatial(op: SpatialOp, g: &Geometry, literal: &SpatialLiteral) -> bool {
    let (Some(bounds), Some(with)) = (g.bounds(), literal.bounds) else { return op == SpatialOp::Disjoint };
    if !bounds.intersects(&with) {
        return op == SpatialOp::Disjoint;
    }
    let (Some(a), Some(b)) = (g.to_geo(), &literal.geo) else { return op == SpatialOp::Disjoint };
    match op {
        SpatialOp::Intersects => a.intersects(b),
        SpatialOp::Disjoint => !a.intersects(b),
        SpatialOp::Within => a.relate(b).is_within(),
        SpatialOp::Contains => a.relate(b).is_contains(),
        SpatialOp::Touches => a.relate(b).is_touches(),
        SpatialOp::Crosses => a.relate(b).is_crosses(),
        SpatialOp::Overlaps => a.relate(b).is_overlaps(),
        SpatialOp::Equals => a.relate(b).is_equal_topo(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Geometry;

    fn feature(name: Option<&str>, n: Option<i64>) -> Feature {
        Feature {
            id: "a".into(),
            geometry: Geometry::point(1.0, 2.0).ok(),
            properties: vec![name.map_or(Value::Null, |s| Value::String(s.into())), n.map_or(Value::Null, Value::Int)],
        }
    }

    fn eq(slot: usize, v: Value) -> Filter {
        Filter::Compare {
            op: CompareOp::Equal,
            left: Operand::Property(slot),
            right: Operand::Literal(v),
            match_case: true,
        }
    }

    #[test]
    fn null_is_neither_equal_nor_unequal() {
        let f = feature(None, Some(3));
        let equal = eq(0, Value::String("x".into()));
        assert!(!matches(&equal, &f));
        assert!(!matches(&Filter::Not(Box::new(equal.clone())), &f));
        assert!(matches(&Filter::Or(vec![equal.clone(), eq(1, Value::Int(3))]), &f));
        assert!(!matches(&Filter::And(vec![equal, eq(1, Value::Int(3))]), &f));
    }

    #[test]
    fn like_knows_its_wild_cards() {
        let p = |s| LikePattern::parse(s, "*", "?", "\\");
        assert!(like(&p("a*c?"), "abbcd", true));
        assert!(like(&p("*"), "", true));
        assert!(!like(&p("a?"), "a", true));
        assert!(like(&p("a\\*"), "a*", true) && !like(&p("a\\*"), "ab", true));
        assert!(like(&p("É*"), "école", false));
    }

    #[test]
    fn a_box_holds_its_borders() {
        let f = feature(None, None);
        let at = |x0, y0, x1, y1| Filter::Bbox(Rect { min_x: x0, min_y: y0, max_x: x1, max_y: y1 });
        assert!(matches(&at(1.0, 2.0, 5.0, 5.0), &f));
        assert!(!matches(&at(1.1, 2.0, 5.0, 5.0), &f));
    }
}
