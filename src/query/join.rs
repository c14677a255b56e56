//! Pairs of features of two types: what makes a pair, and how the partners of a feature are found in memory.
//!
//! One side is held, indexed by the first condition that allows it: an equality of values by their hash, a spatial condition by
//! boxes. What an index gives is only looked at: every condition is evaluated on every pair, with the meaning that
//! [`evaluate`] gives it for one feature. A pair's values are those of one row, the first feature's before the second's.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rstar::primitives::{GeomWithData, Rectangle};
use rstar::{AABB, RTree};
use rustc_hash::{FxHashMap, FxHasher};

use super::distance::{Measure, Near};
use super::evaluate;
use super::filter::{CompareOp, Filter, Operand, SpatialLiteral, SpatialOp};
use crate::format::gml::gml_id;
use crate::model::crs::Transform;
use crate::model::feature_type::Property;
use crate::model::{Feature, FeatureType, Geometry, GeometryError, PropertyType, Rect, Value};

/// What two features must have in common.
pub struct Join {
    /// Of their values, as properties of [`row_type`].
    values: Filter,
    places: Vec<Place>,
    sides: [Arc<FeatureType>; 2],
    /// From the CRS of the second type to that of the first.
    transform: Option<Transform>,
}

/// How the first feature's geometry is to lie to the second's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Related(SpatialOp),
    /// In the CRS of the first type.
    Within(f64, Measure),
    Beyond(f64, Measure),
}

/// The type of a pair's values: of each side its id as GML has it, `{name}.id`, and its properties, `{name}.{property}`: names
/// that no property of a type can have.
pub fn row_type(names: [&str; 2], sides: [&FeatureType; 2]) -> FeatureType {
    let mut properties = Vec::new();
    for (name, ft) in names.iter().zip(sides) {
        let id = Property { name: "id".into(), kind: PropertyType::String, nullable: false, index: false, title: None };
        let of_side = std::iter::once(&id).chain(&ft.properties);
        properties.extend(of_side.map(|p| Property { name: format!("{name}.{}", p.name), ..p.clone() }));
    }
    let name = format!("{} and {}", names[0], names[1]);
    FeatureType { name, geometry: None, properties, track: None, ..sides[0].clone() }
}

impl Join {
    /// `values` is about the [`row_type`] of `sides`.
    pub fn new(values: Filter, places: Vec<Place>, sides: [Arc<FeatureType>; 2], transform: Option<Transform>) -> Join {
        Join { values, places, sides, transform }
    }

    fn row(&self, side: usize, feature: &Feature) -> Vec<Value> {
        let ft = &self.sides[side];
        let id = Value::String(gml_id(&ft.name, &feature.id).into());
        std::iter::once(id).chain((0..ft.properties.len()).map(|slot| feature.value(slot).clone())).collect()
    }

    /// An equality that must hold between a value of each side: their slots in the row, the first side's first.
    fn equality(&self) -> Option<Equality> {
        let all = match &self.values {
            Filter::And(all) => all.as_slice(),
            other => std::slice::from_ref(other),
        };
        let second = self.sides[0].properties.len() + 1;
        all.iter().find_map(|condition| match condition {
            Filter::Compare {
                op: CompareOp::Equal,
                left: Operand::Property(a),
                right: Operand::Property(b),
                match_case,
            } if (*a < second) != (*b < second) => {
                Some(Equality { slots: [*a.min(b), a.max(b) - second], match_case: *match_case })
            }
            _ => None,
        })
    }
}

/// Of which slot of each side's part of the row.
#[derive(Clone, Copy)]
struct Equality {
    slots: [usize; 2],
    match_case: bool,
}

impl Equality {
    /// The same for all values that are equal; `None`: equal to nothing.
    fn hash(&self, value: &Value) -> Option<u64> {
        const DAY: i64 = 86_400_000_000;
        let mut hasher = FxHasher::default();
        match value {
            Value::Null => return None,
            Value::Bool(b) => b.hash(&mut hasher),
            Value::Int(n) => (*n as f64).to_bits().hash(&mut hasher),
            // Minus zero is zero.
            Value::Number(n) => (n + 0.0).to_bits().hash(&mut hasher),
            Value::String(s) if !self.match_case => s.to_lowercase().hash(&mut hasher),
            Value::String(s) | Value::Json(s) => s.hash(&mut hasher),
            Value::Date(day) => i64::from(*day).hash(&mut hasher),
            Value::DateTime(micros) => micros.div_euclid(DAY).hash(&mut hasher),
            Value::Uuid(bytes) => bytes.hash(&mut hasher),
            Value::Bytes(bytes) => bytes.hash(&mut hasher),
        }
        Some(hasher.finish())
    }
}

/// The features of the second side, in memory.
pub struct Held<'j> {
    join: &'j Join,
    features: Vec<HeldFeature>,
    bytes: usize,
    index: Index,
}

struct HeldFeature {
    feature: Arc<Feature>,
    row: Vec<Value>,
    /// One for each place of the join; none of a feature without geometry.
    places: Vec<HeldPlace>,
}

enum HeldPlace {
    Related(SpatialOp, SpatialLiteral),
    Within(Near),
    Beyond(Near),
}

/// The numbers of the features that may be partners.
enum Index {
    All,
    Values(Equality, FxHashMap<u64, Vec<u32>>),
    Boxes(RTree<GeomWithData<Rectangle<[f64; 2]>, u32>>),
}

impl<'j> Held<'j> {
    pub fn new(join: &'j Join) -> Held<'j> {
        Held { join, features: Vec::new(), bytes: 0, index: Index::All }
    }

    /// Rough size in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An error means that the geometry has no place in the CRS of the first type.
    pub fn push(&mut self, feature: Arc<Feature>) -> Result<(), GeometryError> {
        let mut places = Vec::new();
        if let Some(geometry) = feature.geometry.as_ref().filter(|_| !self.join.places.is_empty()) {
            let geometry = match &self.join.transform {
                None => geometry.clone(),
                Some(transform) => transform.geometry(geometry)?,
            };
            places.extend(self.join.places.iter().map(|place| HeldPlace::of(*place, geometry.clone())));
        }
        let row = self.join.row(1, &feature);
        // The values are there twice, and geometries as they are evaluated.
        self.bytes += (2 + places.len()) * feature.heap_bytes();
        self.features.push(HeldFeature { feature, row, places });
        Ok(())
    }

    /// To be called when all are there.
    pub fn index(&mut self) {
        let numbered = || self.features.iter().zip(0_u32..);
        if let Some(equality) = self.join.equality() {
            let mut by_value: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
            for (held, n) in numbered() {
                if let Some(hash) = equality.hash(&held.row[equality.slots[1]]) {
                    by_value.entry(hash).or_default().push(n);
                }
            }
            self.index = Index::Values(equality, by_value);
        } else if let Some(at) = self.join.places.iter().position(|place| place.is_bounded()) {
            let boxes = numbered().filter_map(|(held, n)| {
                let b = held.places.get(at)?.bounds()?;
                Some(GeomWithData::new(Rectangle::from_corners([b.min_x, b.min_y], [b.max_x, b.max_y]), n))
            });
            self.index = Index::Boxes(RTree::bulk_load(boxes.collect()));
        }
    }

    /// How many have to be looked at for each feature of the first side, where no index finds them.
    pub fn looked_at(&self) -> Option<u64> {
        matches!(self.index, Index::All).then_some(self.features.len() as u64)
    }

    /// The partners of a feature of the first side, in the order in which they were pushed; `compared` rises by the number of
    /// those that had to be looked at.
    pub fn partners(&self, first: &Feature, compared: &mut u64) -> Vec<Arc<Feature>> {
        let mut row = Feature { id: first.id.clone(), geometry: None, properties: self.join.row(0, first) };
        let of_first = row.properties.len();
        let mut partners = Vec::new();
        for n in self.candidates(first, &row) {
            let held = &self.features[n as usize];
            *compared += 1;
            if !self.join.places.is_empty() && !held.is_placed(first.geometry.as_ref()) {
                continue;
            }
            if !matches!(self.join.values, Filter::All) {
                row.properties.truncate(of_first);
                row.properties.extend_from_slice(&held.row);
                if !evaluate::matches(&self.join.values, &row) {
                    continue;
                }
            }
            partners.push(held.feature.clone());
        }
        partners
    }

    fn candidates(&self, first: &Feature, row: &Feature) -> Vec<u32> {
        match &self.index {
            Index::All => (0..self.features.len() as u32).collect(),
            Index::Values(equality, by_value) => {
                let hash = equality.hash(row.value(equality.slots[0]));
                hash.and_then(|hash| by_value.get(&hash)).cloned().unwrap_or_default()
            }
            Index::Boxes(boxes) => {
                let Some(b) = first.geometry.as_ref().and_then(Geometry::bounds) else { return Vec::new() };
                let envelope = AABB::from_corners([b.min_x, b.min_y], [b.max_x, b.max_y]);
                let mut found: Vec<u32> = boxes.locate_in_envelope_intersecting(&envelope).map(|g| g.data).collect();
                found.sort_unstable();
                found
            }
        }
    }
}

impl HeldFeature {
    /// A feature without geometry lies nowhere, nor beyond anything.
    fn is_placed(&self, first: Option<&Geometry>) -> bool {
        let Some(first) = first.filter(|_| !self.places.is_empty()) else { return false };
        self.places.iter().all(|place| match place {
            HeldPlace::Related(op, literal) => evaluate::spatial(*op, first, literal),
            HeldPlace::Within(near) => near.holds(first),
            HeldPlace::Beyond(near) => !near.holds(first),
        })
    }
}

impl Place {
    /// Whether what is far away is no partner.
    fn is_bounded(&self) -> bool {
        !matches!(self, Place::Related(SpatialOp::Disjoint) | Place::Beyond(..))
    }
}

impl HeldPlace {
    fn of(place: Place, geometry: Geometry) -> HeldPlace {
        match place {
            Place::Related(op) => HeldPlace::Related(op, SpatialLiteral::new(geometry)),
            Place::Within(limit, measure) => HeldPlace::Within(Near::new(geometry, limit, measure)),
            Place::Beyond(limit, measure) => HeldPlace::Beyond(Near::new(geometry, limit, measure)),
        }
    }

    /// A box outside of which there is no partner; `None`: nowhere is one.
    fn bounds(&self) -> Option<Rect> {
        const ANYWHERE: Rect = Rect { min_x: -1e150, min_y: -1e150, max_x: 1e150, max_y: 1e150 };
        match self {
            HeldPlace::Related(_, literal) => literal.bounds,
            HeldPlace::Within(near) => Some(near.bounds().unwrap_or(ANYWHERE)),
            HeldPlace::Beyond(_) => Some(ANYWHERE),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::geometry::{Coord, Writer};
    use crate::model::{Dimension, GeometryKind};
    use crate::query::sample::ships;

    const DAY: i64 = 86_400_000_000;

    /// What of any two kinds is equal, or nearly.
    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-1_i64..3).prop_map(Value::Int),
            prop::sample::select(vec![-0.0, 0.0, 0.5, 1.0, 2.0]).prop_map(Value::Number),
            prop::sample::select(vec!["", "a", "A", "É", "é"]).prop_map(|s| Value::String(s.into())),
            (-1_i32..2).prop_map(Value::Date),
            prop::sample::select(vec![-DAY, -1, 0, 1, DAY]).prop_map(Value::DateTime),
        ]
    }

    fn geometry_of(kind: GeometryKind, vertices: &[(i32, i32)]) -> Geometry {
        let mut w = Writer::new(Dimension::XY);
        w.begin(kind);
        if kind == GeometryKind::Polygon {
            w.count(1);
        }
        w.count(vertices.len() as u32);
        vertices.iter().for_each(|(x, y)| w.coord(Coord::xy(f64::from(*x), f64::from(*y))));
        w.checked().unwrap()
    }

    /// Points, lines and triangles that often touch each other.
    fn geometry() -> impl Strategy<Value = Option<Geometry>> {
        let at = || (0_i32..6, 0_i32..6);
        let any = prop_oneof![
            at().prop_map(|(x, y)| Geometry::point(f64::from(x), f64::from(y)).unwrap()),
            (at(), at()).prop_map(|(a, b)| geometry_of(GeometryKind::LineString, &[a, b, (3, 3)])),
            at().prop_map(|(x, y)| geometry_of(GeometryKind::Polygon, &[(x, y), (x + 2, y), (x, y + 2), (x, y)])),
        ];
        prop::option::weighted(0.9, any)
    }

    fn features() -> impl Strategy<Value = Vec<Arc<Feature>>> {
        prop::collection::vec((value(), geometry()), 0..12).prop_map(|all| {
            let feature = |(n, (value, geometry)): (usize, (Value, Option<Geometry>))| {
                Arc::new(Feature { id: n.to_string().into(), geometry, properties: vec![value] })
            };
            all.into_iter().enumerate().map(feature).collect()
        })
    }

    /// The ids of all pairs, and how many were compared.
    fn pairs(join: &Join, [a, b]: &[Vec<Arc<Feature>>; 2], indexed: bool) -> (Vec<String>, u64) {
        let mut held = Held::new(join);
        b.iter().for_each(|f| held.push(f.clone()).unwrap());
        if indexed {
            held.index();
        }
        let (mut found, mut compared) = (Vec::new(), 0);
        for first in a {
            let partners = held.partners(first, &mut compared);
            found.extend(partners.iter().map(|second| format!("{} {}", first.id, second.id)));
        }
        (found, compared)
    }

    fn sides() -> [Arc<FeatureType>; 2] {
        let mut ft = ships();
        ft.properties.truncate(1);
        [Arc::new(ft.clone()), Arc::new(ft)]
    }

    fn same(match_case: bool) -> Filter {
        let slot = Operand::Property;
        Filter::Compare { op: CompareOp::Equal, left: slot(3), right: slot(1), match_case }
    }

    proptest! {
        #[test]
        fn equal_values_are_found_as_by_looking_at_all(a in features(), b in features(), match_case: bool) {
            let join = Join::new(same(match_case), Vec::new(), sides(), None);
            let features = [a, b];
            let (all, of_all) = pairs(&join, &features, false);
            let (found, of_found) = pairs(&join, &features, true);
            prop_assert_eq!(found, all);
            prop_assert!(of_found <= of_all);
        }

        #[test]
        fn places_are_found_as_by_looking_at_all(a in features(), b in features()) {
            use SpatialOp::*;
            let related = [Intersects, Disjoint, Within, Contains, Touches, Crosses, Overlaps, Equals].map(Place::Related);
            let measured = [Place::Within(1.5, Measure::Plane), Place::Beyond(1.5, Measure::Plane)];
            let geodesic = [Place::Within(200_000.0, Measure::Globe), Place::Beyond(200_000.0, Measure::Globe)];
            let features = [a, b];
            for place in related.into_iter().chain(measured).chain(geodesic) {
                let join = Join::new(Filter::All, vec![place], sides(), None);
                prop_assert_eq!(pairs(&join, &features, true).0, pairs(&join, &features, false).0, "{:?}", place);
            }
        }
    }

    #[test]
    fn an_index_spares_what_cannot_match() {
        let feature = |n: i64| {
            Arc::new(Feature {
                id: n.to_string().into(),
                geometry: Geometry::point(n as f64, 0.0).ok(),
                properties: vec![Value::Int(n)],
            })
        };
        let features = [(0..100).map(feature).collect(), (50..150).map(feature).collect()];
        let near = Place::Within(0.5, Measure::Plane);
        for (values, places) in [(same(true), Vec::new()), (Filter::All, vec![near]), (same(true), vec![near])] {
            let join = Join::new(values, places, sides(), None);
            let (found, compared) = pairs(&join, &features, true);
            assert_eq!((found.len(), compared, found[0].as_str()), (50, 50, "50 50"));
        }
    }
}
