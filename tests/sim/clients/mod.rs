//! Writers and readers, each with a chance of its own, who write down what they are told.

mod reader;
mod writer;

use std::sync::Arc;

use alluvium::model::{Append, Feature, FeatureId, FeatureType, Geometry, Rect, Value, geometry::Coord};
use alluvium::query::{CompareOp, Filter, Operand};
use alluvium::store::Store;
use rand::RngExt;
use rand::rngs::StdRng;
pub use reader::read;
pub use writer::write;

use crate::recorded::Ends;

const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// Properties of every type: one with few values, and two that tell which write has set them.
pub const FEW: usize = 0;
const NUMBERS: [usize; 2] = [1, 2];
/// One that is added while all goes on; it tells which write has set it, too.
pub const LATE: &str = "late";

fn late(ft: &FeatureType) -> Option<usize> {
    ft.property(LATE).map(|(slot, _)| slot)
}

/// A value of the one with few, as the type has it now.
pub fn few(ft: &FeatureType, n: i64) -> Value {
    Value::Int(n % 3).widened(ft.properties[FEW].kind)
}

/// The number of a write, out of a property that tells it.
pub fn number(value: &Value) -> Option<i64> {
    if let Value::Int(n) = value { Some(*n) } else { None }
}

fn some_ids(rng: &mut StdRng, known: usize) -> Vec<FeatureId> {
    let n = if rng.random_bool(0.7) { 1 } else { 4 };
    (0..n).map(|_| IDS[rng.random_range(0..known)].into()).collect()
}

fn some_x(rng: &mut StdRng) -> f64 {
    f64::from(rng.random_range(0..4_u8))
}

fn some_fixes(rng: &mut StdRng) -> Vec<Coord> {
    let n = rng.random_range(1..=2);
    (0..n)
        .map(|_| Coord { x: some_x(rng), y: 0.0, z: 0.0, m: 1_000.0 + f64::from(rng.random_range(0..12_u8)) })
        .collect()
}

/// A whole feature: a ship, or a track.
fn some_feature(rng: &mut StdRng, ft: &FeatureType, id: &FeatureId, n: i64) -> Feature {
    let few = if rng.random_bool(0.1) { Value::Null } else { few(ft, n) };
    let mut properties = vec![few, Value::Int(n), Value::Int(n)];
    if ft.event_time.is_some() {
        let seconds = rng.random_range(0..40_i64);
        properties.push(if seconds == 0 { Value::Null } else { Value::DateTime(seconds * 1_000_000) });
    }
    if let Some(slot) = late(ft) {
        properties.resize(slot + 1, Value::Null);
        properties[slot] = Value::Int(n);
    }
    match ft.track_shape() {
        Some(shape) => {
            let properties = (0..).zip(properties).collect();
            Append { id: id.clone(), fixes: some_fixes(rng), properties }.apply(None, &shape)
        }
        None => Feature { id: id.clone(), geometry: some_point(rng), properties },
    }
}

fn some_point(rng: &mut StdRng) -> Option<Geometry> {
    if rng.random_bool(0.1) { None } else { Geometry::point(some_x(rng), 0.0).ok() }
}

fn some_filter(rng: &mut StdRng, known: usize) -> Filter {
    let x = some_x(rng);
    let few = rng.random_range(0..3_i64);
    match rng.random_range(0..6) {
        0 | 1 => Filter::All,
        2 => Filter::Bbox(Rect { min_x: x - 0.1, min_y: -1.0, max_x: x + 1.1, max_y: 1.0 }),
        3 => Filter::ids(some_ids(rng, known)),
        4 => Filter::Not(Box::new(equal(few))),
        _ => equal(few),
    }
}

fn equal(few: i64) -> Filter {
    Filter::Compare {
        op: CompareOp::Equal,
        left: Operand::Property(FEW),
        right: Operand::Literal(Value::Int(few)),
        match_case: true,
    }
}

/// How far an instance has come.
fn applied(store: &Arc<Store>) -> Ends {
    let mut ends = Ends::new();
    for p in store.status() {
        ends.entry(p.feature_type).or_default().push(p.applied);
    }
    ends
}
