//! Ships to measure with: as clustered as ships are, with the eight attributes of a position report, the same in every run.
#![allow(dead_code)] // each program uses a part

use std::sync::Arc;

use alluvium::model::{Feature, FeatureType, Geometry, Value};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const HARBOURS: usize = 500;

pub fn feature_type() -> FeatureType {
    let mut ft: FeatureType = serde_json::from_value(serde_json::json!({
        "name": "ships",
        "geometry": { "type": "Point" },
        "properties": [
            { "name": "name", "type": "string" },
            { "name": "callsign", "type": "string" },
            { "name": "seq", "type": "int64" },
            { "name": "status", "type": "int32" },
            { "name": "speed", "type": "number" },
            { "name": "course", "type": "number" },
            { "name": "heading", "type": "int32" },
            { "name": "seen", "type": "date-time" },
        ],
    }))
    .expect("a declaration");
    ft.schema_version = 1;
    ft
}

pub struct Fleet {
    rng: StdRng,
    harbours: Vec<(f64, f64)>,
}

impl Fleet {
    pub fn new() -> Fleet {
        let mut rng = StdRng::seed_from_u64(42);
        let harbours =
            (0..HARBOURS).map(|_| (rng.random_range(-170.0..170.0), rng.random_range(-60.0..70.0))).collect();
        Fleet { rng, harbours }
    }

    /// A number below `n`.
    pub fn pick(&mut self, n: u64) -> u64 {
        self.rng.random_range(0..n)
    }

    /// Near a harbour; the nearer the denser.
    pub fn anywhere(&mut self) -> (f64, f64) {
        let (x, y) = self.harbours[self.rng.random_range(0..HARBOURS)];
        let reach = 2.0 * self.rng.random_range(0.0..1.0_f64).powi(2);
        (x + self.rng.random_range(-reach..=reach), y + self.rng.random_range(-reach..=reach))
    }

    /// A hundred metres on.
    pub fn nearby(&mut self, (x, y): (f64, f64)) -> (f64, f64) {
        (x + self.rng.random_range(-0.001..0.001), y + self.rng.random_range(-0.001..0.001))
    }

    pub fn ship(&mut self, number: u64, (x, y): (f64, f64)) -> Arc<Feature> {
        Arc::new(Feature {
            id: format!("s{number:07}").into(),
            geometry: Geometry::point(x, y).ok(),
            properties: vec![
                Value::String(format!("SHIP NUMBER {number}").into()),
                Value::String(format!("C{number}").into()),
                Value::Int(number as i64),
                Value::Int(self.rng.random_range(0..16)),
                Value::Number(f64::from(self.rng.random_range(0..300)) / 10.0),
                Value::Number(f64::from(self.rng.random_range(0..3600)) / 10.0),
                Value::Int(self.rng.random_range(0..360)),
                Value::DateTime(1_641_168_000_000_000 + number as i64 * 1_000_000),
            ],
        })
    }
}
