//! The filter's one AST. Parsers resolve names to property ids and coerce literals to the property's type before they build
//! it, so evaluating it cannot fail.

use std::cmp::Ordering;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::distance::Near;
use super::foreign_box::ForeignBox;
use super::function::Function;
use crate::model::{FeatureId, Geometry, Rect, Value};

/// A predicate of three-valued logic: a comparison with null is unknown, and a feature is selected when it is true.
#[derive(Clone, Debug, Default)]
pub enum Filter {
    /// Selects everything.
    #[default]
    All,
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Ids(Arc<IdSet>),
    Compare {
        op: CompareOp,
        left: Operand,
        right: Operand,
        match_case: bool,
    },
    /// `low <= value <= high`.
    Between {
        value: Operand,
        low: Operand,
        high: Operand,
    },
    Like {
        value: Operand,
        pattern: LikePattern,
        match_case: bool,
    },
    IsNull(Operand),
    /// The geometry and the box have a point in common. A feature without geometry: false.
    Bbox(Rect),
    /// The same of a box in another CRS. A feature without geometry: false.
    ForeignBox(Arc<ForeignBox>),
    Spatial {
        op: SpatialOp,
        literal: Arc<SpatialLiteral>,
    },
    /// The geometry is within a distance.
    Near(Arc<Near>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    Property(usize),
    /// Only under `IsNull`.
    Geometry,
    Id,
    Literal(Value),
    Call {
        function: Function,
        arguments: Vec<Operand>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl CompareOp {
    /// Whether it holds of two values that compare so.
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            CompareOp::Equal => ordering.is_eq(),
            CompareOp::NotEqual => ordering.is_ne(),
            CompareOp::Less => ordering.is_lt(),
            CompareOp::LessOrEqual => ordering.is_le(),
            CompareOp::Greater => ordering.is_gt(),
            CompareOp::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// The feature's geometry stands on the left of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpatialOp {
    Intersects,
    Disjoint,
    Within,
    Contains,
    Touches,
    Crosses,
    Overlaps,
    Equals,
}

/// A geometry in a filter, with what its evaluation needs made once.
#[derive(Clone, Debug)]
pub struct SpatialLiteral {
    pub geometry: Geometry,
    pub bounds: Option<Rect>,
    pub geo: Option<geo_types::Geometry<f64>>,
}

impl SpatialLiteral {
    pub fn new(geometry: Geometry) -> SpatialLiteral {
        SpatialLiteral { bounds: geometry.bounds(), geo: geometry.to_geo(), geometry }
    }
}

/// A set of ids, in the order they were asked.
#[derive(Clone, Debug, Default)]
pub struct IdSet {
    pub list: Vec<FeatureId>,
    set: FxHashSet<FeatureId>,
}

impl IdSet {
    pub fn contains(&self, id: &str) -> bool {
        self.set.contains(id)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl FromIterator<FeatureId> for IdSet {
    /// Doubles are dropped.
    fn from_iter<T: IntoIterator<Item = FeatureId>>(ids: T) -> Self {
        let mut set = FxHashSet::default();
        let list = ids.into_iter().filter(|id| set.insert(id.clone())).collect();
        IdSet { list, set }
    }
}

/// A pattern, parsed from its dialect's wild cards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LikePattern(pub Vec<LikeToken>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LikeToken {
    /// Any number of characters.
    Any,
    /// One character.
    One,
    Char(char),
}

impl LikePattern {
    /// Reads a pattern whose special characters are given; the escape character takes away the meaning of what follows it.
    pub fn parse(text: &str, any: &str, one: &str, escape: &str) -> LikePattern {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if !escape.is_empty() && rest.starts_with(escape) {
                rest = &rest[escape.len()..];
                if let Some(c) = rest.chars().next() {
                    tokens.push(LikeToken::Char(c));
                    rest = &rest[c.len_utf8()..];
                }
            } else if !any.is_empty() && rest.starts_with(any) {
                tokens.push(LikeToken::Any);
                rest = &rest[any.len()..];
            } else if !one.is_empty() && rest.starts_with(one) {
                tokens.push(LikeToken::One);
                rest = &rest[one.len()..];
            } else {
                tokens.push(LikeToken::Char(c));
                rest = &rest[c.len_utf8()..];
            }
        }
        LikePattern(tokens)
    }
}

impl Filter {
    /// `self AND other`, flat.
    pub fn and(self, other: Filter) -> Filter {
        match (self, other) {
            (Filter::All, f) | (f, Filter::All) => f,
            (Filter::And(mut a), Filter::And(b)) => {
                a.extend(b);
                Filter::And(a)
            }
            (Filter::And(mut a), f) => {
                a.push(f);
                Filter::And(a)
            }
            (f, g) => Filter::And(vec![f, g]),
        }
    }

    /// Selects everything, or nothing.
    pub fn constant(truth: bool) -> Filter {
        if truth { Filter::All } else { Filter::ids([]) }
    }

    pub fn ids(ids: impl IntoIterator<Item = FeatureId>) -> Filter {
        Filter::Ids(Arc::new(ids.into_iter().collect()))
    }

    /// The boxes that must be met, and what else must hold: together they say what the filter says.
    pub fn boxes_and_rest(&self) -> (Vec<Rect>, Vec<&Filter>) {
        let all = match self {
            Filter::And(all) => all.as_slice(),
            other => std::slice::from_ref(other),
        };
        let as_box = |f: &Filter| if let Filter::Bbox(r) = f { Some(*r) } else { None };
        (all.iter().filter_map(as_box).collect(), all.iter().filter(|f| as_box(f).is_none()).collect())
    }

    /// The ids to which this filter restricts its answer, where it does.
    pub fn id_set(&self) -> Option<&Arc<IdSet>> {
        match self {
            Filter::Ids(ids) => Some(ids),
            Filter::And(all) => all.iter().find_map(Filter::id_set),
            _ => None,
        }
    }

    /// A box outside of which nothing can match; `None`: anywhere (or without geometry).
    pub fn bounds(&self) -> Option<Rect> {
        match self {
            Filter::Bbox(r) => Some(*r),
            Filter::Spatial { op, literal } if *op != SpatialOp::Disjoint => literal.bounds,
            Filter::Near(near) => near.bounds(),
            Filter::ForeignBox(b) => Some(b.bounds()),
            Filter::And(all) => all.iter().filter_map(Filter::bounds).reduce(|a, b| {
                // Two boxes that do not meet select nothing; either one is a bound.
                a.intersection(&b).unwrap_or(a)
            }),
            Filter::Or(any) if !any.is_empty() => {
                let boxes: Option<Vec<Rect>> = any.iter().map(Filter::bounds).collect();
                boxes?.into_iter().reduce(|a, b| a.union(&b))
            }
            _ => None,
        }
    }

    /// A box outside of which no feature that has a geometry can match, whatever [`Self::may_lack_geometry`] says of the
    /// others; `None`: anywhere.
    pub fn bounds_of_located(&self) -> Option<Rect> {
        match self {
            Filter::And(all) => {
                all.iter().filter_map(Filter::bounds_of_located).reduce(|a, b| a.intersection(&b).unwrap_or(a))
            }
            Filter::Or(any) => {
                let located = any.iter().filter(|f| !matches!(f, Filter::IsNull(Operand::Geometry)));
                let boxes: Option<Vec<Rect>> = located.map(Filter::bounds_of_located).collect();
                boxes?.into_iter().reduce(|a, b| a.union(&b))
            }
            other => other.bounds(),
        }
    }

    /// False when no feature without geometry can match.
    pub fn may_lack_geometry(&self) -> bool {
        match self {
            Filter::Bbox(_) | Filter::ForeignBox(_) | Filter::Spatial { .. } | Filter::Near(_) => false,
            Filter::And(all) => all.iter().all(Filter::may_lack_geometry),
            Filter::Or(any) => any.iter().any(Filter::may_lack_geometry),
            _ => true,
        }
    }
}
