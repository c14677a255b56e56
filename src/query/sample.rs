//! What the tests of filters are about.

use crate::model::feature_type::{GeometryColumn, Property};
use crate::model::{Dimension, Feature, FeatureType, Geometry, GeometryKind, PropertyType, Value};

pub fn ships() -> FeatureType {
    let property = |name: &str, kind| Property { name: name.into(), kind, nullable: true, index: false, title: None };
    let mut ft: FeatureType = serde_json::from_value(serde_json::json!({"name": "ships"})).unwrap();
    ft.geometry =
        Some(GeometryColumn { kind: GeometryKind::Point, epsg: 4326, dimension: Dimension::XY, nullable: true });
    ft.properties = vec![
        property("name", PropertyType::String),
        property("speed", PropertyType::Number),
        property("crew", PropertyType::Int32),
        property("seen", PropertyType::DateTime),
        property("built", PropertyType::Date),
        property("afloat", PropertyType::Boolean),
        property("crew_max", PropertyType::Int64),
    ];
    ft
}

/// A ship at 24°E 60°N; `crew_max` is null.
pub fn aurora() -> Feature {
    Feature {
        id: "a:1".into(),
        geometry: Geometry::point(24.0, 60.0).ok(),
        properties: vec![
            Value::String("Aurora".into()),
            Value::Number(12.5),
            Value::Int(7),
            PropertyType::DateTime.parse("2026-01-02T03:04:05Z").unwrap(),
            PropertyType::Date.parse("2001-02-03").unwrap(),
            Value::Bool(true),
            Value::Null,
        ],
    }
}
