//! The conformance suite of the long-term store, run on every implementation. One more implementation is one more line in
//! the list at the end, with a function that opens an empty store (or `None`, having said why it was skipped).

mod generate;
mod geopackage;

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use alluvium::delegate::dead_letter::{DeadLetter, KEPT};
use alluvium::delegate::embedded::GeoPackage;
use alluvium::delegate::memory::MemoryDelegate;
use alluvium::delegate::{
    Base, Delegate, DelegateError, PersistBatch, PersistEntry, Persisting, Refused, Row, Rows, Scan, Snapshot,
};
use alluvium::model::geometry::Coord;
use alluvium::model::{
    Append, Dimension, Feature, FeatureId, FeatureType, Geometry, GeometryKind, Growth, Offset, PropertyType, Rect,
    Value, Watermark,
};
use alluvium::query::{CompareOp, Cursor, Filter, Operand, SortKey, compare, evaluate};
use futures::StreamExt;
use generate::{Generator, shape};
use serde_json::json;

/// An empty store under test, and what must live as long as it.
pub struct Subject {
    pub delegate: Arc<dyn Delegate>,
    pub _keep: Box<dyn Any + Send + Sync>,
}

fn feature_type(declaration: serde_json::Value) -> Arc<FeatureType> {
    let feature_type: FeatureType = serde_json::from_value(declaration).unwrap();
    feature_type.check_declaration().unwrap();
    Arc::new(feature_type)
}

/// Points with a name and a speed, in two partitions.
pub fn ships() -> Arc<FeatureType> {
    feature_type(json!({
        "name": "ships", "title": "Ships", "incarnation": "i1", "partitions": 2, "geometry": {"type": "Point"},
        "properties": [{"name": "name", "type": "string", "index": true}, {"name": "Speed", "type": "number"}],
    }))
}

/// One property of every type, and a geometry.
pub fn everything(geometry: GeometryKind, dimension: Dimension) -> Arc<FeatureType> {
    let properties: Vec<_> = PropertyType::ALL
        .iter()
        .enumerate()
        .map(|(i, kind)| json!({"name": format!("p_{i}"), "type": kind, "index": i % 2 == 0}))
        .collect();
    feature_type(json!({
        "name": "everything", "incarnation": "i1", "properties": properties,
        "geometry": {"type": geometry, "dimension": dimension},
    }))
}

fn ship(id: &str, x: f64, name: &str) -> Arc<Feature> {
    let properties = vec![Value::String(name.into()), Value::Number(x)];
    Arc::new(Feature { id: id.into(), geometry: Geometry::point(x, 50.0).ok(), properties })
}

fn put(feature: Arc<Feature>, version: Offset) -> PersistEntry {
    PersistEntry { id: feature.id.clone(), feature: Some(feature), version, event_time: None }
}

fn tombstone(id: &str, version: Offset) -> PersistEntry {
    PersistEntry { id: id.into(), feature: None, version, event_time: None }
}

fn mark(n: Offset) -> Watermark {
    Watermark { durable_through: n, evict_through: n + 1, as_of: n + 2 }
}

impl Subject {
    async fn created(&self, feature_type: &FeatureType) -> &dyn Delegate {
        self.delegate.create(feature_type).await.unwrap();
        &*self.delegate
    }
}

/// Persists into partition 0, whatever its watermark is, which moves by one; nothing may be refused.
pub async fn persist(d: &dyn Delegate, t: &FeatureType, entries: Vec<PersistEntry>) {
    let expected = d.watermarks(t).await.unwrap()[0];
    let next = mark(expected.durable_through + 1);
    let batch =
        PersistBatch { partition: 0, expected, next, entries, growths: vec![], forget_deleted_before: 0, now_ms: 0 };
    assert_eq!(d.persist(t, batch).await.unwrap(), Persisting::Committed { refused: vec![] });
}

async fn load(d: &dyn Delegate, t: &FeatureType, id: &str) -> Option<Base> {
    d.load(t, &[id.into()]).await.unwrap().bases.remove(0)
}

pub async fn drain(mut rows: Rows) -> Vec<Row> {
    let mut all = Vec::new();
    while let Some(batch) = rows.next().await {
        all.extend(batch.unwrap());
    }
    all
}

/// The rows, which are the same whether a page of them is expected or all are read to the end.
pub async fn scan(snapshot: &mut Box<dyn Snapshot>, scan: Scan) -> Vec<Row> {
    let page = Scan { expected_rows: Some(10), ..scan.clone() };
    let mut paged = drain(snapshot.scan(page).await.unwrap()).await;
    let any_order = scan.order.is_none();
    let mut all = drain(snapshot.scan(Scan { to_end: true, ..scan }).await.unwrap()).await;
    if any_order {
        for rows in [&mut paged, &mut all] {
            rows.sort_by(|a, b| a.feature.id.cmp(&b.feature.id));
        }
    }
    assert_eq!(paged, all);
    all
}

fn ids(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|r| &*r.feature.id).collect()
}

async fn types_are_entered_and_removed(s: &Subject) {
    let (d, ships) = (&*s.delegate, ships());
    let (empty, types) = d.catalogue().await.unwrap();
    assert_eq!(types, []);
    d.create(&ships).await.unwrap();
    let (first, types) = d.catalogue().await.unwrap();
    assert_eq!(types, [(*ships).clone()]);
    assert!(first > empty);
    assert!(matches!(d.create(&ships).await, Err(DelegateError::Exists(name)) if name == "ships"));
    assert_eq!(d.catalogue().await.unwrap().0, first);
    assert_eq!(d.watermarks(&ships).await.unwrap(), [Watermark::default(); 2]);

    d.remove("ships", false).await.unwrap();
    d.remove("ships", false).await.unwrap();
    d.remove("never_there", true).await.unwrap();
    let (second, types) = d.catalogue().await.unwrap();
    assert_eq!(types, []);
    assert!(second > first);
    assert!(matches!(d.watermarks(&ships).await, Err(DelegateError::NotFound(_))));
    assert!(matches!(d.load(&ships, &["a".into()]).await, Err(DelegateError::NotFound(_))));
    assert!(matches!(d.snapshot(&ships).await.err(), Some(DelegateError::NotFound(_))));
    let batch = PersistBatch {
        partition: 0,
        expected: Watermark::default(),
        next: mark(1),
        entries: vec![],
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    assert!(matches!(d.persist(&ships, batch).await, Err(DelegateError::NotFound(_))));
}

async fn stored_queries_are_kept_whole_and_once(s: &Subject) {
    let d = &*s.delegate;
    let query = |id: &str, text: &str| (id.to_owned(), text.to_owned());
    let (before, _) = d.catalogue().await.unwrap();
    let odd = query("it's \"odd\" \\ ü", "<q>'${x}'; DROP TABLE \\ ü</q>");
    assert_eq!(d.keep_stored_queries(&[query("a", "1"), odd.clone()]).await.unwrap(), None);
    let (kept, _) = d.catalogue().await.unwrap();
    assert!(kept > before);
    // All or none.
    assert_eq!(d.keep_stored_queries(&[query("b", "2"), query("a", "3")]).await.unwrap(), Some("a".into()));
    assert_eq!(d.stored_queries().await.unwrap(), [query("a", "1"), odd].into());
    assert!(d.drop_stored_query("a").await.unwrap() && !d.drop_stored_query("a").await.unwrap());
    assert_eq!(d.stored_queries().await.unwrap().len(), 1);
    assert!(d.catalogue().await.unwrap().0 > kept);
}

async fn a_removed_types_table_is_taken_as_it_is(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    persist(d, &ships, vec![put(ship("a", 1.0, "Anna"), 7), tombstone("gone", 8)]).await;
    d.remove("ships", false).await.unwrap();

    let mut other = (*ships).clone();
    other.properties.pop();
    assert!(matches!(d.create(&other).await, Err(DelegateError::Exists(_))));

    let again = FeatureType { incarnation: "i2".into(), partitions: 3, ..(*ships).clone() };
    d.create(&again).await.unwrap();
    assert_eq!(d.watermarks(&again).await.unwrap(), [Watermark::default(); 3]);
    assert_eq!(load(d, &again, "a").await, Some(Base::Row(Row::new(ship("a", 1.0, "Anna"), None))));
    assert_eq!(load(d, &again, "gone").await, None);
    // The first record of a log has offset 0, and is newer than any row of an earlier incarnation.
    persist(d, &again, vec![put(ship("a", 2.0, "Anna II"), 0)]).await;
    persist(d, &again, vec![put(ship("a", 2.0, "Anna II"), 0)]).await;
    assert_eq!(load(d, &again, "a").await, Some(Base::Row(Row::new(ship("a", 2.0, "Anna II"), Some(0)))));
    persist(d, &again, vec![put(ship("a", 3.0, "Anna III"), 1)]).await;
    persist(d, &again, vec![put(ship("a", 2.0, "Anna II"), 0), tombstone("a", 0)]).await;
    assert_eq!(load(d, &again, "a").await, Some(Base::Row(Row::new(ship("a", 3.0, "Anna III"), Some(1)))));
    persist(d, &again, vec![put(ship("b", 1.0, "Berta"), 0)]).await;
    persist(d, &again, vec![tombstone("b", 0)]).await;
    assert_eq!(load(d, &again, "b").await, Some(Base::Deleted(Some(0), None)));

    d.remove("ships", true).await.unwrap();
    d.create(&other).await.unwrap();
    assert_eq!(load(d, &other, "a").await, None);
    d.remove("ships", false).await.unwrap();
    d.remove("ships", true).await.unwrap();
    d.create(&ships).await.unwrap();
}

async fn incarnations_do_not_meet(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    let later = Arc::new(FeatureType { incarnation: "i2".into(), ..(*ships).clone() });
    assert!(matches!(d.watermarks(&later).await, Err(DelegateError::Mismatch(_))));
    assert!(matches!(d.snapshot(&later).await.err(), Some(DelegateError::Mismatch(_))));
    let batch = PersistBatch {
        partition: 0,
        expected: Watermark::default(),
        next: mark(1),
        entries: vec![put(ship("a", 1.0, "Anna"), 1)],
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    assert!(matches!(d.persist(&later, batch).await, Err(DelegateError::Mismatch(_))));
    assert_eq!(load(d, &ships, "a").await, None);
}

async fn a_conflict_writes_nothing(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    let batch = |partition, expected, next, id: &str| PersistBatch {
        partition,
        expected,
        next,
        entries: vec![put(ship(id, 1.0, "x"), 1), tombstone("dead", 2)],
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    let zero = Watermark::default();
    let committed = Persisting::Committed { refused: vec![] };
    assert_eq!(d.persist(&ships, batch(1, zero, mark(5), "a")).await.unwrap(), committed);
    assert_eq!(d.watermarks(&ships).await.unwrap(), [zero, mark(5)]);
    // Each of the three numbers counts.
    for wrong in [zero, Watermark { as_of: 99, ..mark(5) }, Watermark { evict_through: 0, ..mark(5) }] {
        let outcome = d.persist(&ships, batch(1, wrong, mark(9), "b")).await.unwrap();
        assert_eq!(outcome, Persisting::Conflict(mark(5)));
    }
    assert_eq!(load(d, &ships, "b").await, None);
    assert_eq!(d.watermarks(&ships).await.unwrap(), [zero, mark(5)]);
    // Of two at once one is too late.
    let outcomes = futures::future::join_all(
        (0..4).map(|i| d.persist(&ships, batch(0, zero, mark(i + 1), ["c", "d", "e", "f"][i as usize]))),
    )
    .await;
    assert_eq!(outcomes.iter().filter(|o| o.as_ref().unwrap() == &committed).count(), 1);
    let mut snapshot = d.snapshot(&ships).await.unwrap();
    assert_eq!(scan(&mut snapshot, Scan::default()).await.len(), 2);
    assert!(d.persist(&ships, batch(2, zero, mark(1), "g")).await.is_err(), "there is no partition 2");
}

async fn an_older_version_never_overwrites(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    let row = |x, version| Some(Base::Row(Row::new(ship("a", x, "Anna"), Some(version))));
    persist(d, &ships, vec![put(ship("a", 10.0, "Anna"), 10)]).await;
    persist(d, &ships, vec![put(ship("a", 9.0, "Anna"), 9)]).await;
    persist(d, &ships, vec![tombstone("a", 9)]).await;
    assert_eq!(load(d, &ships, "a").await, row(10.0, 10));
    persist(d, &ships, vec![tombstone("a", 12)]).await;
    assert_eq!(load(d, &ships, "a").await, Some(Base::Deleted(Some(12), None)));
    persist(d, &ships, vec![put(ship("a", 11.0, "Anna"), 11), tombstone("a", 8)]).await;
    assert_eq!(load(d, &ships, "a").await, Some(Base::Deleted(Some(12), None)));
    persist(d, &ships, vec![put(ship("a", 13.0, "Anna"), 13)]).await;
    assert_eq!(load(d, &ships, "a").await, row(13.0, 13));
    persist(d, &ships, vec![put(ship("a", 12.0, "Anna"), 12)]).await;
    assert_eq!(load(d, &ships, "a").await, row(13.0, 13));
    let mut snapshot = d.snapshot(&ships).await.unwrap();
    assert_eq!(snapshot.count(&Filter::All).await.unwrap(), Some(1));
}

async fn deleted_features_are_remembered_until_told(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    let batch = |partition, from, to, entries, forget_deleted_before| PersistBatch {
        partition,
        expected: from,
        next: to,
        entries,
        growths: vec![],
        forget_deleted_before,
        now_ms: 0,
    };
    let zero = Watermark::default();
    d.persist(&ships, batch(0, zero, mark(1), vec![tombstone("a", 5), tombstone("b", 6)], 0)).await.unwrap();
    d.persist(&ships, batch(1, zero, mark(1), vec![tombstone("c", 5)], 0)).await.unwrap();
    let known = |d: Vec<Option<Base>>| d.into_iter().map(|b| b.is_some()).collect::<Vec<_>>();
    let ids: Vec<FeatureId> = ["a", "b", "c"].map(Into::into).into();
    assert_eq!(known(d.load(&ships, &ids).await.unwrap().bases), [true, true, true]);
    // Offsets are a partition's own: forgetting in one leaves the others.
    d.persist(&ships, batch(0, mark(1), mark(2), vec![], 6)).await.unwrap();
    assert_eq!(known(d.load(&ships, &ids).await.unwrap().bases), [false, true, true]);
}

async fn event_times_of_deleted_features_are_remembered_for_a_while(s: &Subject) {
    let ships = feature_type(json!({
        "name": "ships", "incarnation": "i1", "properties": [{"name": "at", "type": "date-time"}],
        "event_time": {"property": "at", "remember_deleted": 60},
    }));
    let d = s.created(&ships).await;
    let dead = |id: &str, version, event_time| PersistEntry { event_time, ..tombstone(id, version) };
    let persist = async |n: Offset, entries, now_ms| {
        let expected = d.watermarks(&ships).await.unwrap()[0];
        let batch = PersistBatch {
            partition: 0,
            expected,
            next: mark(n),
            entries,
            growths: vec![],
            forget_deleted_before: n,
            now_ms,
        };
        d.persist(&ships, batch).await.unwrap();
    };
    persist(1, vec![dead("a", 5, Some(7)), dead("b", 6, None)], 1_000).await;
    assert_eq!(load(d, &ships, "a").await, Some(Base::Deleted(Some(5), Some(7))));
    assert_eq!(load(d, &ships, "b").await, Some(Base::Deleted(Some(6), None)));
    // The log has been cut, and the versions are forgotten; not so the time, as long as it is to be remembered.
    persist(10, vec![], 60_000).await;
    assert_eq!(load(d, &ships, "a").await, Some(Base::Deleted(None, Some(7))));
    assert_eq!(load(d, &ships, "b").await, None);
    persist(11, vec![dead("a", 10, Some(8))], 61_000).await;
    persist(12, vec![], 121_000).await;
    assert_eq!(load(d, &ships, "a").await, Some(Base::Deleted(None, Some(8))));
    persist(13, vec![], 121_001).await;
    assert_eq!(load(d, &ships, "a").await, None);
    persist(14, vec![dead("a", 13, Some(9))], 130_000).await;
    persist(15, vec![dead("a", 14, None)], 131_000).await;
    assert_eq!(load(d, &ships, "a").await, None, "the later deletion is of a feature that had no time");
}

async fn loading_answers_in_the_order_asked(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    persist(d, &ships, vec![put(ship("b", 1.0, "B"), 3), put(ship("a", 2.0, "A"), 4), tombstone("c", 5)]).await;
    let asked: Vec<FeatureId> = ["c", "nobody", "a", "b", "a"].map(Into::into).into();
    let bases = d.load(&ships, &asked).await.unwrap();
    let a = Some(Base::Row(Row::new(ship("a", 2.0, "A"), Some(4))));
    let b = Some(Base::Row(Row::new(ship("b", 1.0, "B"), Some(3))));
    assert_eq!(bases.bases, [Some(Base::Deleted(Some(5), None)), None, a.clone(), b, a]);
    assert_eq!(bases.watermarks, [mark(1), Watermark::default()]);
    assert_eq!(d.load(&ships, &[]).await.unwrap().bases, []);
}

async fn what_a_constraint_refuses_does_not_stop_the_rest(s: &Subject) {
    let mut strict = (*ships()).clone();
    strict.properties[0].nullable = false;
    let d = s.created(&strict).await;
    persist(d, &strict, vec![put(ship("b", 1.0, "old"), 1)]).await;
    let nameless = |id: &str| {
        let properties = vec![Value::Null, Value::Number(2.0)];
        Arc::new(Feature { id: id.into(), geometry: None, properties })
    };
    let entries =
        vec![put(ship("a", 1.0, "A"), 2), put(nameless("b"), 3), put(nameless("n"), 4), put(ship("z", 1.0, "Z"), 5)];
    let batch = PersistBatch {
        partition: 0,
        expected: mark(1),
        next: mark(6),
        entries,
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    let Persisting::Committed { refused } = d.persist(&strict, batch).await.unwrap() else { panic!("a conflict") };
    assert_eq!(refused.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["b", "n"]);
    assert!(refused[0].1.contains("name"), "{}", refused[0].1);
    assert_eq!(d.watermarks(&strict).await.unwrap()[0], mark(6));
    assert!(load(d, &strict, "a").await.is_some() && load(d, &strict, "z").await.is_some());
    assert_eq!(load(d, &strict, "b").await, Some(Base::Row(Row::new(ship("b", 1.0, "old"), Some(1)))));
    assert_eq!(load(d, &strict, "n").await, None);
    // Mended, it is taken.
    persist(d, &strict, vec![put(ship("n", 1.0, "N"), 7)]).await;
    assert!(load(d, &strict, "n").await.is_some());
}

/// What is refused of `t`, by id.
async fn listed(d: &dyn Delegate, t: &FeatureType) -> Vec<Refused> {
    let mut refused = d.refused(t).await.unwrap();
    refused.sort_by(|a, b| a.entry.id.cmp(&b.entry.id));
    refused
}

async fn dead_letters_are_kept_once_and_go_with_their_type(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    let letter = |partition, offset: u64, detail: &str| DeadLetter {
        feature_type: "ships".into(),
        log: "ships.i1".into(),
        partition,
        offset,
        append_time_ms: offset as i64,
        key: Some("it's \\ a \0 key".into()),
        reason: "unreadable".into(),
        detail: detail.into(),
        value_bytes: Some(7),
        value_begins: None,
    };
    assert_eq!(d.dead_letters(&ships).await.unwrap(), []);
    d.keep_dead_letters(&ships, vec![letter(0, 5, "first"), letter(1, 5, "other partition")]).await.unwrap();
    d.keep_dead_letters(&ships, vec![letter(0, 5, "again"), letter(0, 6, "next")]).await.unwrap();
    d.keep_dead_letters(&ships, vec![]).await.unwrap();
    let mut kept = d.dead_letters(&ships).await.unwrap();
    kept.sort_by_key(|l| (l.partition, l.offset));
    assert_eq!(kept, [letter(0, 5, "first"), letter(0, 6, "next"), letter(1, 5, "other partition")]);
    d.keep_dead_letters(&ships, (10..10 + KEPT as u64).map(|n| letter(1, n, "")).collect()).await.unwrap();
    let kept = d.dead_letters(&ships).await.unwrap();
    assert!((10..10 + KEPT as u64).all(|n| kept.contains(&letter(1, n, ""))), "not the newest");
    d.remove("ships", false).await.unwrap();
    d.create(&ships).await.unwrap();
    assert_eq!(d.dead_letters(&ships).await.unwrap(), []);
}

async fn what_was_refused_is_listed_whole_until_it_is_mended(s: &Subject) {
    let mut strict = (*everything(GeometryKind::Geometry, Dimension::XY)).clone();
    strict.partitions = 2;
    strict
        .properties
        .push(serde_json::from_value(json!({"name": "must", "type": "bytes", "nullable": false})).unwrap());
    let d = s.created(&strict).await;
    assert_eq!(d.refused(&strict).await.unwrap(), []);
    let mut g = Generator::new(8);
    let mut feature = |id: String, must: Value| {
        let mut feature = g.feature(&strict, &id);
        feature.properties[10] = must;
        Arc::new(feature)
    };
    let entries: Vec<_> = (0..60).map(|i| put(feature(format!("f{i:02}"), Value::Null), 10 + i)).collect();
    let fine = feature("fine".into(), Value::Bytes(Box::default()));
    let batch = |partition, expected, next, entries| PersistBatch {
        partition,
        expected,
        next,
        entries,
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    let all = entries.iter().cloned().chain([put(fine.clone(), 99)]).collect();
    d.persist(&strict, batch(1, Watermark::default(), mark(100), all)).await.unwrap();
    let refused = listed(d, &strict).await;
    assert!(refused.iter().all(|r| r.partition == 1 && r.reason.contains("must")), "{refused:?}");
    assert_eq!(refused.into_iter().map(|r| r.entry).collect::<Vec<_>>(), entries);

    // A later state that is refused too takes its place, and never an earlier one.
    let later = put(feature("f00".into(), Value::Null), 200);
    d.persist(&strict, batch(1, mark(100), mark(201), vec![later.clone()])).await.unwrap();
    d.persist(&strict, batch(1, mark(201), mark(202), vec![entries[0].clone()])).await.unwrap();
    assert_eq!(listed(d, &strict).await[0].entry, later);
    // What was deleted, or is taken in the end, is refused no more; an earlier state changes nothing.
    let fine = |id: &str, version| put(Arc::new(Feature { id: id.into(), ..(*fine).clone() }), version);
    d.persist(&strict, batch(1, mark(202), mark(300), vec![fine("f00", 250), tombstone("f01", 251)])).await.unwrap();
    d.persist(&strict, batch(1, mark(300), mark(301), vec![fine("f02", 3), tombstone("f03", 3)])).await.unwrap();
    assert_eq!(listed(d, &strict).await.into_iter().map(|r| r.entry).collect::<Vec<_>>(), entries[2..]);

    let later = FeatureType { incarnation: "i2".into(), ..strict.clone() };
    assert!(matches!(d.refused(&later).await, Err(DelegateError::Mismatch(_))));
    d.remove("everything", false).await.unwrap();
    assert!(matches!(d.refused(&strict).await, Err(DelegateError::NotFound(_))));
    d.create(&later).await.unwrap();
    assert_eq!(d.refused(&later).await.unwrap(), []);
}

async fn a_snapshot_is_one_moment(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    let before: Vec<PersistEntry> = (0..3000).map(|i| put(ship(&format!("s{i:04}"), 1.0, "x"), 1)).collect();
    persist(d, &ships, before.clone()).await;
    let mut early = d.snapshot(&ships).await.unwrap();
    let mut started = d.snapshot(&ships).await.unwrap();
    let mut rows = started.scan(Scan::default()).await.unwrap();
    let first = rows.next().await.unwrap().unwrap();

    let moved = before.iter().map(|e| put(ship(&e.id, 2.0, "x"), 2));
    persist(d, &ships, moved.chain([tombstone("s0000", 3), put(ship("t", 2.0, "x"), 4)]).collect()).await;

    let rest = drain(rows).await;
    assert_eq!(first.len() + rest.len(), 3000);
    assert!(first.iter().chain(&rest).all(|r| r.version == Some(1)));
    assert_eq!(early.watermarks()[0], mark(1));
    assert_eq!(early.count(&Filter::All).await.unwrap(), Some(3000));
    let old = scan(&mut early, Scan::default()).await;
    assert!(old.len() == 3000 && old.iter().all(|r| r.version == Some(1) && r.feature.value(1) == &Value::Number(1.0)));
    assert_eq!(early.bounds().await.unwrap().map(|b| b.max_x < 1.5), Some(true));

    let mut late = d.snapshot(&ships).await.unwrap();
    assert_eq!(late.watermarks()[0], mark(2));
    let new = scan(&mut late, Scan::default()).await;
    assert!(new.len() == 3000 && new.iter().all(|r| r.version > Some(1)));
}

async fn scans_are_ordered_and_paged(s: &Subject) {
    let t = everything(GeometryKind::Geometry, Dimension::XY);
    let d = s.created(&t).await;
    let mut g = Generator::new(1);
    let names = ["a", "B", "é", "日", "~", " ", "'", "\"", "a\\", "%", "🚢", "Z"];
    let features: Vec<Arc<Feature>> =
        (0..150).map(|i| Arc::new(g.feature(&t, &format!("{}{}", names[i % names.len()], i / names.len())))).collect();
    persist(d, &t, features.iter().map(|f| put(f.clone(), 1)).collect()).await;
    let mut snapshot = d.snapshot(&t).await.unwrap();
    for round in 0..40 {
        let sort: Vec<SortKey> = match round {
            0 => vec![],
            // Every type alone, up and down, then some of them together.
            1..=20 => vec![SortKey { property: (round - 1) % 10, descending: round > 10 }],
            _ => (0..3).map(|_| SortKey { property: g.below(10), descending: g.one_in(2) }).collect(),
        };
        let mut expected = features.clone();
        expected.sort_by(|a, b| compare(a, b, &sort));
        let expected: Vec<&str> = expected.iter().map(|f| &*f.id).collect();
        let mut paged: Vec<Row> = Vec::new();
        loop {
            let after = paged.last().map(|r| Cursor::of(&r.feature, &sort));
            let order = Some(sort.clone());
            let rows = scan(&mut snapshot, Scan { order, after, expected_rows: Some(40), ..Scan::default() }).await;
            if paged.is_empty() {
                assert_eq!(ids(&rows), expected, "sorted by {sort:?}");
            }
            if rows.is_empty() {
                break;
            }
            paged.extend(rows.into_iter().take(40));
        }
        assert_eq!(ids(&paged), expected, "paged by {sort:?}");
    }
}

async fn scans_leave_out_nothing_that_a_filter_selects(s: &Subject) {
    for (seed, kind) in [(2, GeometryKind::Point), (3, GeometryKind::Geometry)] {
        let t = everything(kind, Dimension::XY);
        let d = s.created(&t).await;
        let mut g = Generator::new(seed);
        let names: Vec<String> = (0..250).map(|i| format!("{}{i}", ["a", "B", "é", "日"][i % 4])).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let features: Vec<Arc<Feature>> = names.iter().map(|id| Arc::new(g.feature(&t, id))).collect();
        persist(d, &t, features.iter().map(|f| put(f.clone(), 1)).collect()).await;
        let mut snapshot = d.snapshot(&t).await.unwrap();
        let mut counted = 0;
        for _ in 0..600 {
            let filter = g.filter(&t, &names, 3);
            let expected: BTreeSet<&str> =
                features.iter().filter(|f| evaluate::matches(&filter, f)).map(|f| &*f.id).collect();
            let rows = scan(&mut snapshot, Scan { filter: filter.clone(), ..Scan::default() }).await;
            let matching = rows.iter().filter(|r| evaluate::matches(&filter, &r.feature));
            let found: BTreeSet<&str> = matching.map(|r| &*r.feature.id).collect();
            assert_eq!(found, expected, "{filter:?}");
            assert_eq!(ids(&rows).len(), ids(&rows).into_iter().collect::<BTreeSet<_>>().len(), "each row once");
            if let Some(count) = snapshot.count(&filter).await.unwrap() {
                assert_eq!(count, expected.len() as u64, "{filter:?}");
                counted += 1;
            }
        }
        assert!(counted > 150, "{} can count only {counted} of 600 filters", d.kind());
        drop(snapshot);
        d.remove("everything", true).await.unwrap();
    }
}

async fn values_come_back_as_they_were(s: &Subject) {
    let t = everything(GeometryKind::Point, Dimension::XY);
    let d = s.created(&t).await;
    let text = |s: &str| Value::String(s.into());
    let json = |s: &str| Value::Json(s.into());
    let year = |y: &str| PropertyType::DateTime.parse(y).unwrap();
    let values: [Vec<Value>; 10] = [
        vec![
            text(""),
            text(" a "),
            text("1e3"),
            text("007"),
            text("naïve ☃ 日本 🚢 e\u{301}"),
            text("'\"\\;--\n\t\r"),
            text(&"x".repeat(100_000)),
        ],
        [0, 1, -1, i32::MAX, i32::MIN].map(|n| Value::Int(n.into())).into(),
        [0, 1, -1, i64::MAX, i64::MIN, (1 << 53) + 1].map(Value::Int).into(),
        [0.0, -0.0, 5.0, 0.1, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 1e15, 1e18, 1e19]
            .map(Value::Number)
            .into(),
        vec![Value::Bool(true), Value::Bool(false)],
        ["0001-01-01", "1969-12-31", "1970-01-01", "2024-02-29", "9999-12-31"]
            .map(|d| PropertyType::Date.parse(d).unwrap())
            .into(),
        vec![
            Value::DateTime(0),
            Value::DateTime(-1),
            Value::DateTime(1),
            Value::DateTime(1_700_000_000_123_456),
            year("0001-01-01T00:00:00Z"),
            year("9999-12-30T21:59:59.999999Z"),
        ],
        vec![Value::Uuid([0; 16]), Value::Uuid([255; 16]), Value::Uuid(*b"0123456789abcdef")],
        ["{}", "[]", "null", "1", "\"\"", "{\"a\":[1,2.5,\"é\",null,true],\"b\":{\"c\":1e+100}}"].map(json).into(),
        [&b""[..], b"\0", b"\0\x01\xfe\xff", b"text", &[7; 100_000]].map(|b| Value::Bytes(b.into())).into(),
    ];
    let mut features = vec![];
    for (slot, values) in values.iter().enumerate() {
        for (i, value) in values.iter().chain([&Value::Null]).enumerate() {
            let mut properties = vec![Value::Null; 10];
            properties[slot] = value.clone();
            features.push(Arc::new(Feature { id: format!("{slot}-{i:02}").into(), geometry: None, properties }));
        }
    }
    persist(d, &t, features.iter().map(|f| put(f.clone(), 1)).collect()).await;
    let order = Some(vec![]);
    let rows = scan(&mut d.snapshot(&t).await.unwrap(), Scan { order, ..Scan::default() }).await;
    assert_eq!(rows.len(), features.len());
    for (row, feature) in rows.iter().zip(&features) {
        assert_eq!(&row.feature, feature);
        if let (Value::Number(a), Value::Number(b)) = (row.feature.value(3), feature.value(3)) {
            // SQLite keeps whole numbers as integers, and so the zero without its sign.
            assert!(a.to_bits() == b.to_bits() || *a == 0.0, "{a:?} {b:?}");
        }
    }
    let ids: Vec<FeatureId> = features.iter().map(|f| f.id.clone()).collect();
    for (base, feature) in d.load(&t, &ids).await.unwrap().bases.into_iter().zip(features) {
        assert_eq!(base, Some(Base::Row(Row::new(feature, Some(1)))));
    }
}

async fn geometries_come_back_as_they_were(s: &Subject) {
    use GeometryKind::*;
    for dimension in [Dimension::XY, Dimension::XYZ, Dimension::XYM, Dimension::XYZM] {
        let t = everything(Geometry, dimension);
        let d = s.created(&t).await;
        let mut features = vec![];
        for kind in [Point, LineString, Polygon, MultiPoint, MultiLineString, MultiPolygon, GeometryCollection] {
            for size in 0..3 {
                let geometry = Some(shape(kind, dimension, size, (1.1, -2.2)));
                let id = format!("{}-{size}", kind.name()).into();
                features.push(Arc::new(Feature { id, geometry, properties: vec![Value::Null; 10] }));
            }
        }
        features.push(Arc::new(Feature { id: "none".into(), geometry: None, properties: vec![Value::Null; 10] }));
        persist(d, &t, features.iter().map(|f| put(f.clone(), 1)).collect()).await;
        // Written over each other: empty ones over full ones, null ones over either.
        for shift in [1, 2] {
            let shifted = features.iter().enumerate().map(|(i, f)| {
                let geometry = features[(i + shift) % features.len()].geometry.clone();
                Arc::new(Feature { geometry, ..(**f).clone() })
            });
            let shifted: Vec<Arc<Feature>> = shifted.collect();
            persist(d, &t, shifted.iter().map(|f| put(f.clone(), 1 + shift as u64)).collect()).await;
            let ids: Vec<FeatureId> = shifted.iter().map(|f| f.id.clone()).collect();
            for (base, feature) in d.load(&t, &ids).await.unwrap().bases.into_iter().zip(&shifted) {
                let Some(Base::Row(row)) = base else { panic!("{} is not there", feature.id) };
                // By bytes: an empty point is not equal to itself as numbers.
                let wkb = |f: &Feature| f.geometry.as_ref().map(|g| g.wkb().to_vec());
                assert_eq!(wkb(&row.feature), wkb(feature), "{} {dimension:?}", feature.id);
            }
            let around = Filter::Bbox(Rect { min_x: -9.0, min_y: -9.0, max_x: 9.0, max_y: 9.0 });
            let expected = shifted.iter().filter(|f| evaluate::matches(&around, f)).count();
            let rows =
                scan(&mut d.snapshot(&t).await.unwrap(), Scan { filter: around.clone(), ..Scan::default() }).await;
            assert_eq!(rows.iter().filter(|r| evaluate::matches(&around, &r.feature)).count(), expected);
        }
        d.remove("everything", true).await.unwrap();
    }
}

async fn bounds_hold_every_row(s: &Subject) {
    let t = everything(GeometryKind::Geometry, Dimension::XY);
    let d = s.created(&t).await;
    assert_eq!(d.snapshot(&t).await.unwrap().bounds().await.unwrap(), None);
    let mut g = Generator::new(4);
    let features: Vec<Arc<Feature>> = (0..500).map(|i| Arc::new(g.feature(&t, &format!("f{i}")))).collect();
    persist(d, &t, features.iter().map(|f| put(f.clone(), 1)).collect()).await;
    let exact = features.iter().filter_map(|f| f.geometry.as_ref()?.bounds()).reduce(|a, b| a.union(&b)).unwrap();
    let bounds = d.snapshot(&t).await.unwrap().bounds().await.unwrap().unwrap();
    assert!(bounds.contains(&exact), "{bounds:?} {exact:?}");
    let roomy = |v: f64, by: f64| v + by * 0.001;
    let around = Rect {
        min_x: roomy(exact.min_x, -1.0),
        min_y: roomy(exact.min_y, -1.0),
        max_x: roomy(exact.max_x, 1.0),
        max_y: roomy(exact.max_y, 1.0),
    };
    assert!(around.contains(&bounds), "{bounds:?} is far from {exact:?}");
    persist(d, &t, features.iter().map(|f| tombstone(&f.id, 2)).collect()).await;
    assert_eq!(d.snapshot(&t).await.unwrap().bounds().await.unwrap(), None);
}

async fn a_table_may_be_wide_or_have_no_geometry(s: &Subject) {
    let properties: Vec<_> = (0..102)
        .map(|i| json!({"name": format!("Größe_{i}"), "type": PropertyType::ALL[i % 10], "index": i % 25 == 0}))
        .collect();
    let wide = feature_type(json!({"name": "wide", "incarnation": "w", "properties": properties}));
    let d = s.created(&wide).await;
    let mut g = Generator::new(5);
    let features: Vec<Arc<Feature>> = (0..50).map(|i| Arc::new(g.feature(&wide, &format!("w{i:02}")))).collect();
    persist(d, &wide, features.iter().map(|f| put(f.clone(), 1)).collect()).await;
    persist(d, &wide, features.iter().map(|f| put(f.clone(), 2)).collect()).await;
    let mut snapshot = d.snapshot(&wide).await.unwrap();
    let rows = scan(&mut snapshot, Scan { order: Some(vec![]), ..Scan::default() }).await;
    assert_eq!(rows.into_iter().map(|r| r.feature).collect::<Vec<_>>(), features);
    assert_eq!(snapshot.bounds().await.unwrap(), None);
    let anywhere = Filter::Bbox(Rect { min_x: -180.0, min_y: -90.0, max_x: 180.0, max_y: 90.0 });
    assert!(matches!(snapshot.count(&anywhere).await.unwrap(), None | Some(0)));
}

async fn a_dropped_stream_frees_what_it_held(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    persist(d, &ships, (0..5000).map(|i| put(ship(&format!("s{i:04}"), 1.0, "x"), 1)).collect()).await;
    for i in 0..200 {
        let mut snapshot = d.snapshot(&ships).await.unwrap();
        let to_end = i % 3 == 0;
        let mut rows = snapshot.scan(Scan { to_end, ..Scan::default() }).await.unwrap();
        if i % 2 == 0 {
            rows.next().await.unwrap().unwrap();
        }
        // A stream may outlive its snapshot, and a snapshot its stream.
        if i % 3 == 0 {
            drop(snapshot);
            drop(rows);
        } else {
            drop(rows);
            assert_eq!(
                scan(&mut snapshot, Scan { filter: Filter::ids(["s0001".into()]), ..Scan::default() }).await.len(),
                1
            );
        }
    }
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(d.snapshot(&ships).await.unwrap());
    }
    persist(d, &ships, vec![tombstone("s0000", 2)]).await;
    let counts = open.iter_mut().map(async |snapshot| scan(snapshot, Scan::default()).await.len());
    assert_eq!(futures::future::join_all(counts).await, [5000; 20]);
    drop(open);
    assert_eq!(d.snapshot(&ships).await.unwrap().count(&Filter::All).await.unwrap(), Some(4999));
}

async fn many_rows_are_persisted_at_once(s: &Subject) {
    let ships = ships();
    let d = s.created(&ships).await;
    let mut g = Generator::new(6);
    for version in 1..=2 {
        let mut position = || g.below(360_000) as f64 / 1000.0 - 180.0;
        let entries: Vec<_> =
            (0..20_000).map(|i| put(ship(&format!("{:x}", i * 7919 % 20_011), position(), "name"), version)).collect();
        let begin = Instant::now();
        persist(d, &ships, entries).await;
        let rate = 20_000.0 / begin.elapsed().as_secs_f64();
        eprintln!("{}: {rate:.0} rows/s {}", d.kind(), if version == 1 { "inserted" } else { "moved" });
    }
    let mut snapshot = d.snapshot(&ships).await.unwrap();
    assert_eq!(snapshot.count(&Filter::All).await.unwrap(), Some(20_000));
    let begin = Instant::now();
    let rows = scan(&mut snapshot, Scan::default()).await;
    eprintln!("{}: {:.0} rows/s scanned", d.kind(), 20_000.0 / begin.elapsed().as_secs_f64());
    assert!(rows.len() == 20_000 && rows.iter().all(|r| r.version == Some(2)));
}

/// Of equal values, where an integer equals the same number; what is not there is null.
fn has_values(feature: &Feature, values: &[Value]) -> bool {
    feature.properties.len() <= values.len()
        && (0..).zip(values).all(|(slot, v)| feature.value(slot).sort_cmp(v).is_eq())
}

async fn a_type_changes_with_its_table(s: &Subject) {
    let first = feature_type(json!({
        "name": "ships", "incarnation": "i1", "schema_version": 1, "geometry": {"type": "Point"},
        "properties": [{"name": "n", "type": "int32", "nullable": false, "index": true}, {"name": "M", "type": "int32"}],
    }));
    let mut second = (*first).clone();
    (second.schema_version, second.title) = (2, "Changed".into());
    second.properties[0] = serde_json::from_value(json!({"name": "n", "type": "number"})).unwrap();
    second.properties[1].kind = PropertyType::Int64;
    for kind in PropertyType::ALL {
        let added =
            json!({"name": format!("new {}", kind.name()).replace([' ', '-'], "_"), "type": kind, "index": true});
        second.properties.push(serde_json::from_value(added).unwrap());
    }
    let second = Arc::new(second);
    let d = s.created(&first).await;
    let with = |id: &str, properties: &[Value]| {
        Arc::new(Feature { id: id.into(), geometry: Geometry::point(1.0, 2.0).ok(), properties: properties.to_vec() })
    };
    let int = Value::Int;
    let entries = vec![
        put(with("a", &[int(i32::MAX.into()), int(-7)]), 1),
        put(with("b", &[int(-1), Value::Null]), 2),
        put(with("refused", &[Value::Null, int(9)]), 3),
    ];
    let batch = |expected, next, entries| PersistBatch {
        partition: 0,
        expected,
        next,
        entries,
        growths: vec![],
        forget_deleted_before: 0,
        now_ms: 0,
    };
    d.persist(&first, batch(Watermark::default(), mark(5), entries)).await.unwrap();
    let (revision, _) = d.catalogue().await.unwrap();

    // A snapshot that is open stays whole; where the table must wait for it, nothing is done.
    let mut early = d.snapshot(&first).await.unwrap();
    let altered = d.alter(&first, &second).await;
    if let Err(e) = &altered {
        assert!(matches!(e, DelegateError::Unavailable(_)), "{e}");
        assert_eq!(d.catalogue().await.unwrap(), (revision, vec![(*first).clone()]));
    }
    let rows = |mut rows: Vec<Row>| {
        rows.sort_by(|a, b| a.feature.id.cmp(&b.feature.id));
        rows
    };
    let before = [vec![int(i32::MAX.into()), int(-7)], vec![int(-1), Value::Null]];
    let are = |rows: &[Row], values: &[Vec<Value>]| {
        assert!(
            rows.len() == values.len() && rows.iter().zip(values).all(|(r, v)| has_values(&r.feature, v)),
            "{rows:?}"
        );
    };
    are(&rows(scan(&mut early, Scan::default()).await), &before);
    drop(early);
    if altered.is_err() {
        assert!(d.alter(&first, &second).await.unwrap());
    }
    assert!(!d.alter(&first, &second).await.unwrap(), "it has moved on");
    let (now, types) = d.catalogue().await.unwrap();
    assert!(now > revision && types == [(*second).clone()]);

    // Readers of the earlier schema are served still, writers are not.
    are(&rows(scan(&mut d.snapshot(&first).await.unwrap(), Scan::default()).await), &before);
    let stale = d.persist(&first, batch(mark(5), mark(6), vec![put(with("a", &[int(0)]), 6)])).await;
    assert!(matches!(stale, Err(DelegateError::Mismatch(_))));
    assert!(matches!(d.load(&first, &["a".into()]).await, Err(DelegateError::Mismatch(_))));
    assert!(matches!(d.refused(&first).await, Err(DelegateError::Mismatch(_))));

    let widened =
        |values: &[Value]| values.iter().cloned().chain(std::iter::repeat_n(Value::Null, 12 - values.len())).collect();
    let number = Value::Number;
    let after: Vec<Vec<Value>> = vec![widened(&[number(i32::MAX.into()), int(-7)]), widened(&[number(-1.0)])];
    are(&rows(scan(&mut d.snapshot(&second).await.unwrap(), Scan::default()).await), &after);
    let Some(Base::Row(a)) = load(d, &second, "a").await else { panic!("no row") };
    assert_eq!((a.version, a.feature.value(0)), (Some(1), &number(i32::MAX.into())));
    let refused = listed(d, &second).await;
    assert!(has_values(refused[0].entry.feature.as_ref().unwrap(), &widened(&[Value::Null, int(9)])), "{refused:?}");
    // All that the new schema allows, in all columns, in order.
    let mut g = Generator::new(9);
    let mut features: Vec<_> = (0..40).map(|i| Arc::new(g.feature(&second, &format!("f{i:02}")))).collect();
    features.push(with("half", &[number(0.5), int(1 << 40)]));
    features.push(with("refused", &[Value::Null, int(9)]));
    let entries = features.iter().map(|f| put(f.clone(), 10)).collect();
    assert_eq!(
        d.persist(&second, batch(mark(5), mark(20), entries)).await.unwrap(),
        Persisting::Committed { refused: vec![] }
    );
    assert_eq!(d.refused(&second).await.unwrap(), []);
    for property in 0..12 {
        let sort = vec![SortKey { property, descending: property % 2 == 0 }];
        let mut expected: Vec<_> =
            [with("a", &after[0]), with("b", &after[1])].into_iter().chain(features.clone()).collect();
        expected.sort_by(|a, b| compare(a, b, &sort));
        let found = scan(&mut d.snapshot(&second).await.unwrap(), Scan { order: Some(sort), ..Scan::default() }).await;
        assert_eq!(ids(&found), expected.iter().map(|f| &*f.id).collect::<Vec<_>>());
        assert!(found.iter().zip(&expected).all(|(r, f)| has_values(&r.feature, &widened(&f.properties))));
    }
    // What has been left is taken as it is.
    d.remove("ships", false).await.unwrap();
    assert!(!d.alter(&second, &first).await.unwrap());
    d.create(&FeatureType { incarnation: "i2".into(), ..(*second).clone() }).await.unwrap();
}

/// Tracks of a fix a second, in two partitions.
fn tracks() -> Arc<FeatureType> {
    feature_type(json!({
        "name": "tracks", "incarnation": "i1", "partitions": 2, "track": {},
        "geometry": {"type": "LineString", "dimension": "XYM"},
        "properties": [{"name": "name", "type": "string", "index": true}, {"name": "n", "type": "int64"}],
    }))
}

/// What a track is after these fixes; of a second fix at one time the later one counts.
fn track(t: &FeatureType, base: Option<&Feature>, fixes: &[(i32, f64)], n: i64) -> Feature {
    let fixes = fixes.iter().map(|(m, x)| Coord { x: *x, y: 1.0, z: 0.0, m: 1.7e9 + f64::from(*m) }).collect();
    let properties = vec![(0, Value::String("Anna".into())), (1, Value::Int(n))];
    Append { id: "a".into(), fixes, properties }.apply(base, &t.track_shape().unwrap())
}

fn growth(t: &FeatureType, versions: [Offset; 2], fixes: &[(i32, f64)], n: i64) -> Growth {
    let shape = t.track_shape().unwrap();
    let fixes = fixes.iter().map(|(m, x)| Coord { x: *x, y: 1.0, z: 0.0, m: 1.7e9 + f64::from(*m) });
    let fixes = shape.points(fixes.collect::<Vec<_>>().into_iter()).unwrap();
    let properties = vec![Value::String("Anna".into()), Value::Int(n)];
    Growth { id: "a".into(), builds_on: versions[0], version: versions[1], properties, fixes }
}

/// Persists into partition 0, whatever its watermark is, which moves by one where that is done.
async fn grow(d: &dyn Delegate, t: &FeatureType, entries: Vec<PersistEntry>, growths: Vec<Growth>) -> Persisting {
    let expected = d.watermarks(t).await.unwrap()[0];
    let next = mark(expected.durable_through + 1);
    let batch = PersistBatch { partition: 0, expected, next, entries, growths, forget_deleted_before: 0, now_ms: 0 };
    let persisting = d.persist(t, batch).await.unwrap();
    let moved = persisting == Persisting::Committed { refused: vec![] };
    assert_eq!(d.watermarks(t).await.unwrap()[0], if moved { next } else { expected });
    persisting
}

async fn tracks_grow_by_what_is_new(s: &Subject) {
    let t = tracks();
    let d = s.created(&t).await;
    let line: Vec<(i32, f64)> = (0..300).map(|i| (2 * i, f64::from(i) / 100.0)).collect();
    let first = track(&t, None, &line, 1);
    let committed = Persisting::Committed { refused: vec![] };
    let of = |feature: &Feature, version, apart| {
        let feature = Arc::new(feature.clone());
        Row { feature, version: Some(version), apart }
    };
    let row = |feature: &Feature, version, apart| Some(Base::Row(of(feature, version, apart)));
    persist(d, &t, vec![put(Arc::new(first.clone()), 10)]).await;
    let mut before = d.snapshot(&t).await.unwrap();

    // Later ones, a late one, and one that takes another's place.
    let news = [(600, 20.0), (601, 20.1), (3, 0.5), (598, 9.0)];
    assert_eq!(grow(d, &t, vec![], vec![growth(&t, [10, 12], &news, 2)]).await, committed);
    let second = track(&t, Some(&first), &news, 2);
    assert_eq!(load(d, &t, "a").await, row(&second, 12, 4));
    // What overlaps with that, since its sender did not know: then the last word counts.
    let more = [(601, 20.2), (602, -30.0)];
    assert_eq!(grow(d, &t, vec![], vec![growth(&t, [11, 14], &more, 3)]).await, committed);
    assert_eq!(grow(d, &t, vec![], vec![growth(&t, [11, 14], &more, 3)]).await, committed, "the same again");
    let third = track(&t, Some(&second), &more, 3);
    assert_eq!(load(d, &t, "a").await, row(&third, 14, 6));

    let fits_not = [[15, 20], [9, 13]].map(|versions| growth(&t, versions, &[(700, 1.0)], 9));
    let unknown = Growth { id: "b".into(), ..growth(&t, [1, 20], &[(700, 1.0)], 9) };
    let misfit = Growth { properties: vec![Value::Null, Value::Bool(true)], ..growth(&t, [14, 20], &[(700, 1.0)], 9) };
    for wrong in fits_not.into_iter().chain([unknown, misfit]) {
        let other = put(Arc::new(Feature { id: "c".into(), ..first.clone() }), 20);
        assert_eq!(grow(d, &t, vec![other], vec![wrong]).await, Persisting::Unfit);
    }
    assert_eq!(load(d, &t, "a").await, row(&third, 14, 6));
    assert_eq!(load(d, &t, "c").await, None);
    // A state that comes too late takes nothing away.
    persist(d, &t, vec![put(Arc::new(first.clone()), 13), tombstone("a", 13)]).await;

    for (round, apart) in [6, 0].into_iter().enumerate() {
        let mut snapshot = d.snapshot(&t).await.unwrap();
        let box_of = |x: f64| Filter::Bbox(Rect { min_x: x - 0.5, min_y: 0.0, max_x: x + 0.5, max_y: 2.0 });
        let equals = |n| Filter::Compare {
            op: CompareOp::Equal,
            left: Operand::Property(1),
            right: Operand::Literal(Value::Int(n)),
            match_case: true,
        };
        for filter in [box_of(-30.0), box_of(20.0), box_of(1.0), equals(3), Filter::ids(["a".into()])] {
            let rows =
                scan(&mut snapshot, Scan { filter: filter.clone(), order: Some(vec![]), ..Scan::default() }).await;
            assert_eq!(rows, [of(&third, 14, apart)], "{filter:?}, {round}");
        }
        assert_eq!(scan(&mut snapshot, Scan { filter: equals(1), ..Scan::default() }).await, []);
        assert_eq!(snapshot.count(&equals(3)).await.unwrap(), Some(1));
        let bounds = snapshot.bounds().await.unwrap().unwrap();
        assert!(bounds.min_x <= -30.0 && bounds.max_x >= 20.2, "{bounds:?}");
        // Put together, it is the same.
        assert_eq!(d.fold(&t, 0, 14).await.unwrap(), 0);
        assert_eq!(d.fold(&t, 1, 15).await.unwrap(), 0);
        assert_eq!(d.fold(&t, 0, 15).await.unwrap(), 1 - round);
        assert_eq!(d.fold(&t, 0, 15).await.unwrap(), 0);
    }
    assert_eq!(scan(&mut before, Scan::default()).await, [of(&first, 10, 0)]);
    drop(before);

    // A whole state is all that there is, and so is a deletion.
    assert_eq!(grow(d, &t, vec![], vec![growth(&t, [14, 16], &[(900, 1.0)], 4)]).await, committed);
    let short = track(&t, None, &[(5, 1.0), (6, 2.0)], 5);
    persist(d, &t, vec![put(Arc::new(short.clone()), 17)]).await;
    assert_eq!(load(d, &t, "a").await, row(&short, 17, 0));
    assert_eq!(grow(d, &t, vec![], vec![growth(&t, [17, 18], &[(900, 1.0)], 6)]).await, committed);
    persist(d, &t, vec![tombstone("a", 19)]).await;
    assert_eq!(grow(d, &t, vec![], vec![growth(&t, [18, 20], &[(901, 1.0)], 6)]).await, Persisting::Unfit);
    persist(d, &t, vec![put(Arc::new(short.clone()), 21)]).await;
    assert_eq!(load(d, &t, "a").await, row(&short, 21, 0));

    // A table that is left is whole.
    assert_eq!(grow(d, &t, vec![], vec![growth(&t, [21, 22], &[(900, 1.0)], 7)]).await, committed);
    d.remove("tracks", false).await.unwrap();
    let again = FeatureType { incarnation: "i2".into(), ..(*t).clone() };
    d.create(&again).await.unwrap();
    let left = Row { version: None, ..of(&track(&t, Some(&short), &[(900, 1.0)], 7), 0, 0) };
    assert_eq!(load(d, &again, "a").await, Some(Base::Row(left)));
    // A row of the log's first offset is no other program's.
    assert_eq!(grow(d, &again, vec![], vec![growth(&t, [0, 1], &[(901, 1.0)], 8)]).await, Persisting::Unfit);
    persist(d, &again, vec![put(Arc::new(short.clone()), 0)]).await;
    assert_eq!(grow(d, &again, vec![], vec![growth(&t, [0, 1], &[(901, 1.0)], 8)]).await, committed);
    assert_eq!(load(d, &again, "a").await, row(&track(&t, Some(&short), &[(901, 1.0)], 8), 1, 1));
}

/// Makes every test of the suite for one implementation.
macro_rules! conformance {
    ($implementation:ident, $open:path) => {
        mod $implementation {
            conformance! { @tests $open,
                a_removed_types_table_is_taken_as_it_is
                a_type_changes_with_its_table
                dead_letters_are_kept_once_and_go_with_their_type
                stored_queries_are_kept_whole_and_once
                tracks_grow_by_what_is_new
            }
            conformance! { @on_any_table $open }
        }
    };
    (@on_tables_of_others $implementation:ident, $open:path) => {
        mod $implementation {
            conformance! { @on_any_table $open }
        }
    };
    (@on_any_table $open:path) => {
            conformance! { @tests $open,
                types_are_entered_and_removed
                incarnations_do_not_meet
                a_conflict_writes_nothing
                an_older_version_never_overwrites
                deleted_features_are_remembered_until_told
                event_times_of_deleted_features_are_remembered_for_a_while
                loading_answers_in_the_order_asked
                what_a_constraint_refuses_does_not_stop_the_rest
                what_was_refused_is_listed_whole_until_it_is_mended
                a_snapshot_is_one_moment
                scans_are_ordered_and_paged
                scans_leave_out_nothing_that_a_filter_selects
                values_come_back_as_they_were
                geometries_come_back_as_they_were
                bounds_hold_every_row
                a_table_may_be_wide_or_have_no_geometry
                a_dropped_stream_frees_what_it_held
                many_rows_are_persisted_at_once
            }
    };
    (@tests $open:path, $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(subject) = $open().await {
                    super::$test(&subject).await;
                }
            }
        )*
    };
}

async fn open_memory() -> Option<Subject> {
    Some(Subject { delegate: Arc::new(MemoryDelegate::default()), _keep: Box::new(()) })
}

async fn open_geopackage() -> Option<Subject> {
    let directory = tempfile::tempdir().unwrap();
    let delegate = Arc::new(GeoPackage::open(&directory.path().join("alluvium.gpkg")).unwrap());
    Some(Subject { delegate, _keep: Box::new(directory) })
}

conformance!(memory, super::open_memory);
conformance!(embedded, super::open_geopackage);

#[cfg(feature = "cluster")]
conformance!(postgis, crate::postgis::open);
#[cfg(feature = "cluster")]
conformance!(@on_tables_of_others postgis_tables_of_others, crate::tables::open);
