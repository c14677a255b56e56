use super::*;
use crate::model::{Property, PropertyType};
use proptest::prelude::*;

/// A type with a property of every kind.
fn ft() -> FeatureType {
    let mut ft: FeatureType = serde_json::from_str(
        r#"{"name":"t","geometry":{"type":"LineString","dimension":"XYZM"},"track":{},"schema_version":7}"#,
    )
    .unwrap();
    ft.properties = (PropertyType::ALL.iter())
        .map(|k| Property { name: k.name().into(), kind: *k, nullable: true, index: false, title: None })
        .collect();
    ft
}

fn value(kind: PropertyType) -> BoxedStrategy<Value> {
    let some = match kind {
        PropertyType::String => "[^\0]{0,12}".prop_map(|s| Value::String(s.into())).boxed(),
        PropertyType::Int32 => any::<i32>().prop_map(|n| Value::Int(n.into())).boxed(),
        PropertyType::Int64 => any::<i64>().prop_map(Value::Int).boxed(),
        PropertyType::Number => any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::Number).boxed(),
        PropertyType::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
        PropertyType::Date => (-719_162..=2_932_896).prop_map(Value::Date).boxed(),
        PropertyType::DateTime => {
            (-62_135_596_800_000_000_i64..=253_402_300_799_999_999).prop_map(Value::DateTime).boxed()
        }
        PropertyType::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        PropertyType::Json => Just(Value::Json(r#"{"a":[1,null]}"#.into())).boxed(),
        PropertyType::Bytes => any::<Vec<u8>>().prop_map(|b| Value::Bytes(b.into())).boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 4 => some].boxed()
}

fn geometry() -> impl Strategy<Value = Geometry> {
    (-180.0..180.0, -90.0..90.0).prop_map(|(x, y)| Geometry::point(x, y).unwrap())
}

fn change() -> impl Strategy<Value = Change> {
    let id = || "[a-z\u{e9}]{1,20}".prop_map(FeatureId::from);
    let put = (id(), proptest::option::of(geometry()), PropertyType::ALL.map(value), 0..=PropertyType::ALL.len())
        .prop_map(|(id, geometry, values, n)| {
            Change::Put(Arc::new(Feature { id, geometry, properties: values[..n].to_vec() }))
        });
    let patch = (
        id(),
        proptest::option::of(proptest::option::of(geometry())),
        (0..PropertyType::ALL.len())
            .prop_flat_map(|slot| value(PropertyType::ALL[slot]).prop_map(move |v| vec![(slot as u16, v)])),
    )
        .prop_map(|(id, geometry, properties)| Change::Patch(Patch { id, geometry, properties }));
    let fix = (-180.0..180.0, -90.0..90.0, prop_oneof![Just(0.0), 0.0..9.0], 0.0..2e9).prop_map(|(x, y, z, m)| Coord {
        x,
        y,
        z,
        m,
    });
    let append =
        (id(), proptest::collection::vec(fix, 1..4), 0..PropertyType::ALL.len()).prop_map(|(id, fixes, slot)| {
            Change::Append(Append { id, fixes, properties: vec![(slot as u16, Value::Null)] })
        });
    let change = prop_oneof![put, patch, append, id().prop_map(Change::Delete)];
    let expected = prop_oneof![
        Just(Expected::Absent),
        Just(Expected::Present),
        proptest::collection::vec(any::<u64>(), 0..3).prop_map(Expected::OneOf),
    ];
    (change, proptest::option::of(expected)).prop_map(|(change, expected)| match expected {
        Some(expected) => Change::If(expected, Box::new(change)),
        None => change,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(changes in proptest::collection::vec(change(), 0..5), part in 1u32..4, more in 0u32..300, id in any::<u64>()) {
        let of = part + more;
        let id = if of > 1 { id } else { 0 };
        let record = Record::Changes { run: Run { part, of, id }, changes };
        prop_assert_eq!(decode(Some(b"k"), Some(&encode(&record, 7)), &ft()), Ok(record));
    }

    #[test]
    fn a_broken_record_is_an_error_and_no_panic(changes in proptest::collection::vec(change(), 1..3), bit in any::<usize>()) {
        let record = Record::Changes { run: Run::WHOLE, changes };
        let bytes = encode(&record, 7);
        for end in 0..bytes.len() {
            prop_assert!(decode(None, Some(&bytes[..end]), &ft()).is_err());
        }
        let mut flipped = bytes.to_vec();
        flipped[bit / 8 % bytes.len()] ^= 1 << (bit % 8);
        let _ = decode(None, Some(&flipped), &ft());
    }

    #[test]
    fn noise_is_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(None, Some(&bytes), &ft());
        bytes.splice(0..0, [MAGIC, VERSION, CHANGES, 0, 1, 1]);
        let _ = decode(None, Some(&bytes), &ft());
    }

    #[test]
    fn a_run_keeps_order_and_limit(changes in proptest::collection::vec(change(), 0..20), limit in 600usize..2000) {
        let records = split(changes.clone(), limit, || 9).unwrap();
        let mut joined = Vec::new();
        for (i, record) in records.iter().enumerate() {
            prop_assert!(encode(record, u32::MAX).len() <= limit);
            let Record::Changes { run, changes } = record else { panic!("not changes") };
            let of = records.len() as u32;
            prop_assert_eq!(*run, Run { part: i as u32 + 1, of, id: if of > 1 { 9 } else { 0 } });
            joined.extend(changes.iter().cloned());
        }
        prop_assert_eq!(joined, changes);
    }
}

#[test]
fn markers_are_read() {
    let record =
        Record::Persisted(Persisted { durable_through: u64::MAX, evict_through: 300, except: vec!["a".into()] });
    assert_eq!(decode(None, Some(&encode(&record, 0)), &ft()), Ok(record));
}

#[test]
fn the_layout_stays() {
    let record = whole(Change::Put(Arc::new(Feature {
        id: "s1".into(),
        geometry: None,
        properties: vec![Value::String("x".into()), Value::Int(-2)],
    })));
    let bytes = [0xa1, 1, 1, 7, 1, 1, 1, 1, 2, b's', b'1', 0, 2, 5, 1, b'x', 3, 3];
    assert_eq!(encode(&record, 7), &bytes[..]);
}

#[test]
fn a_fix_is_a_record_of_tens_of_bytes() {
    let fix = Coord { x: 24.9, y: 60.1, z: 0.0, m: 1_700_000_000.5 };
    let append = Append { id: "230145000".into(), fixes: vec![fix], properties: Vec::new() };
    let bytes = encode(&whole(Change::Append(append)), 7);
    assert_eq!(bytes[..7], [0xa1, 2, 1, 7, 1, 1, 1], "older readers must stop there");
    assert_eq!(bytes.len(), 44);
}

#[test]
fn later_releases_and_schemas_are_not_poison() {
    assert_eq!(decode(None, Some(&[MAGIC, 9, 4, 4]), &ft()), Err(RecordError::Newer { version: 9 }));
    let bytes = encode(&whole(Change::Delete("a".into())), 8);
    assert_eq!(decode(None, Some(&bytes), &ft()), Err(RecordError::NewerSchema { version: 8, known: 7 }));
    assert!(matches!(decode(None, Some(&[MAGIC, 0, 1]), &ft()), Err(RecordError::Poison { .. })));
}

#[test]
fn records_of_an_earlier_schema_are_read_under_a_later_one() {
    let mut earlier: FeatureType = serde_json::from_str(
        r#"{"name":"t","schema_version":1,"properties":[{"name":"n","type":"int32","nullable":false}]}"#,
    )
    .unwrap();
    earlier.properties.push(Property { name: "m".into(), ..earlier.properties[0].clone() });
    let mut later = FeatureType { schema_version: 3, ..earlier.clone() };
    later.properties[0].kind = PropertyType::Number;
    later.properties[1].kind = PropertyType::Int64;
    later.properties.push(Property { name: "new".into(), nullable: true, ..earlier.properties[0].clone() });
    let values = |a: Value| vec![(0, a), (1, Value::Int(-7))];
    let changes = |a: Value| {
        let put = Feature { id: "a".into(), geometry: None, properties: vec![a.clone(), Value::Int(-7)] };
        let patch = Change::Patch(Patch { id: "a".into(), geometry: None, properties: values(a) });
        let changes = vec![Change::Put(Arc::new(put)), patch.clone(), Change::If(Expected::Present, Box::new(patch))];
        Record::Changes { run: Run::WHOLE, changes }
    };
    let bytes = encode(&changes(Value::Int(i32::MIN.into())), 1);
    assert_eq!(decode(None, Some(&bytes), &earlier), Ok(changes(Value::Int(i32::MIN.into()))));
    assert_eq!(decode(None, Some(&bytes), &later), Ok(changes(Value::Number(i32::MIN.into()))));
    // Under its own version a value of another type is as wrong as ever, and one that no earlier type had as well.
    let own = encode(&changes(Value::Int(5)), 3);
    assert!(matches!(decode(None, Some(&own), &later), Err(RecordError::Poison { .. })));
    let never = encode(&changes(Value::Int(1 << 40)), 1);
    assert!(matches!(decode(None, Some(&never), &later), Err(RecordError::Poison { .. })));
}

/// What the first release wrote: one record of each of its kinds, byte by byte.
#[test]
fn records_of_the_first_format_are_read() {
    let ft = ft();
    let put =
        [&[0xa1, 1, 1, 7, 1, 1, 1, 1, 1, b'a', 21][..], Geometry::point(1.0, 2.0).unwrap().wkb(), &[1, 5, 1, b'x']]
            .concat();
    let patch = [0xa1, 1, 1, 7, 1, 1, 1, 2, 1, b'a', 1, 1, 1, 3, 3];
    let delete = [0xa1, 1, 1, 7, 1, 1, 1, 3, 1, b'a'];
    let part = [0xa1, 1, 1, 7, 1, 2, 9, 0, 0, 0, 0, 0, 0, 0, 1, 3, 1, b'a'];
    let marker = [0xa1, 1, 2, 5, 4, 1, 1, b'a'];
    let decoded = |bytes: &[u8]| decode(None, Some(bytes), &ft).unwrap();
    let properties = vec![Value::String("x".into())];
    let feature = Feature { id: "a".into(), geometry: Some(Geometry::point(1.0, 2.0).unwrap()), properties };
    assert_eq!(decoded(&put), whole(Change::Put(Arc::new(feature))));
    let properties = vec![(1, Value::Int(-2))];
    assert_eq!(decoded(&patch), whole(Change::Patch(Patch { id: "a".into(), geometry: Some(None), properties })));
    assert_eq!(decoded(&delete), whole(Change::Delete("a".into())));
    let run = Run { part: 1, of: 2, id: 9 };
    assert_eq!(decoded(&part), Record::Changes { run, changes: vec![Change::Delete("a".into())] });
    let except = vec!["a".into()];
    assert_eq!(decoded(&marker), Record::Persisted(Persisted { durable_through: 5, evict_through: 4, except }));
}

#[test]
fn no_value_deletes_the_key() {
    assert_eq!(decode(Some(b"a"), None, &ft()), Ok(whole(Change::Delete("a".into()))));
    for key in [None, Some(&b""[..]), Some(&b"\xff"[..])] {
        assert!(matches!(decode(key, None, &ft()), Err(RecordError::Poison { .. })), "{key:?}");
    }
}

#[test]
fn a_feature_of_a_foreign_producer_is_a_put() {
    let mut ft = ft();
    ft.track = None;
    ft.geometry = serde_json::from_str(r#"{"type":"Geometry"}"#).ok();
    let json = br#" {"type":"Feature","geometry":{"type":"Point","coordinates":[7,50]},"properties":{"int32":3}}"#;
    let Ok(Record::Changes { changes, .. }) = decode(Some(b"k"), Some(json), &ft) else { panic!("no changes") };
    let Change::Put(feature) = &changes[0] else { panic!("no put") };
    assert_eq!((&*feature.id, feature.value(1)), ("k", &Value::Int(3)));
    assert_eq!(feature.geometry, Some(Geometry::point(7.0, 50.0).unwrap()));
    for (key, json) in [
        (None, &json[..]),
        (Some(&b"k"[..]), br#"{"type":"Feature","geometry":null,"properties":{"speed":3}}"#),
        (Some(b"k"), br#"{"type":"Feature","geometry":{"type":"Point","coordinates":[7,500]}}"#),
        (Some(b"k"), b"[1]"),
    ] {
        assert!(matches!(decode(key, Some(json), &ft), Err(RecordError::Poison { .. })));
    }
}

#[test]
fn a_change_too_large_for_the_log_is_named() {
    let big = Change::Put(Arc::new(Feature {
        id: "big".into(),
        geometry: None,
        properties: vec![Value::String("x".repeat(500).into())],
    }));
    let error = split(vec![Change::Delete("a".into()), big], 400, || 9).unwrap_err();
    assert_eq!((&*error.id, error.limit), ("big", 400 - MAX_HEAD));
}
