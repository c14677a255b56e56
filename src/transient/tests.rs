use super::*;
use crate::model::{Append, Change, Expected, Geometry, Patch, Persisted, Value};
use crate::query::{CompareOp, Filter, Operand};

fn feature_type() -> FeatureType {
    toml::from_str(
        "name = 'ships'\ngeometry = { type = 'Point' }\nproperties = [{ name = 'n', type = 'int64', index = true }]",
    )
    .unwrap()
}

fn ship(id: &str, x: f64, n: i64) -> Change {
    Change::Put(Arc::new(Feature {
        id: id.into(),
        geometry: Geometry::point(x, 0.0).ok(),
        properties: vec![Value::Int(n)],
    }))
}

fn set_n(id: &str, n: i64) -> Change {
    Change::Patch(Patch { id: id.into(), geometry: None, properties: vec![(0, Value::Int(n))] })
}

fn at(offset: Offset) -> Step {
    Step { partition: 0, offset, since: offset, time_ms: offset as i64 * 1000 }
}

fn index_with(changes: &[Change]) -> TransientIndex {
    let mut index = TransientIndex::new(&feature_type(), &[0]);
    for (offset, change) in changes.iter().enumerate() {
        index.apply(at(offset as u64), std::slice::from_ref(change), &FxHashMap::default());
    }
    index
}

fn near(x: f64) -> Filter {
    Filter::Bbox(Rect { min_x: x - 0.5, min_y: -1.0, max_x: x + 0.5, max_y: 1.0 })
}

fn limits(expired_s: i64) -> AgeLimits {
    AgeLimits {
        expired_before_ms: Some(expired_s * 1000),
        dirty_before_ms: i64::MIN,
        durable_through: Offset::MAX,
        batch: 100,
        tails: false,
    }
}

fn marker(durable_through: Offset, evict_through: Offset) -> Persisted {
    Persisted { durable_through, evict_through, except: Vec::new() }
}

#[test]
fn a_feature_that_moved_is_where_it_is() {
    let index = index_with(&[ship("a", 1.0, 1), ship("a", 9.0, 2)]);
    assert!(index.select(&near(1.0)).is_empty());
    assert_eq!(index.select(&near(9.0)).len(), 1);
    let by_n = |n| Filter::Compare {
        op: CompareOp::Equal,
        left: Operand::Property(0),
        right: Operand::Literal(Value::Int(n)),
        match_case: true,
    };
    assert!(index.equality(&by_n(1)).is_some());
    assert_eq!((index.select(&by_n(1)).len(), index.select(&by_n(2)).len()), (0, 1));
}

#[test]
fn only_what_has_aged_is_persisted_and_only_what_is_old_leaves() {
    let mut index = index_with(&[ship("a", 1.0, 1), ship("b", 2.0, 1), ship("c", 3.0, 1), ship("a", 4.0, 2)]);
    assert!(index.aged(0, limits(0)).is_none());
    let aged = index.aged(0, limits(2)).unwrap();
    assert_eq!(aged.entries.iter().map(|e| &*e.id).collect::<Vec<_>>(), ["b"]);
    assert_eq!((aged.durable_through, aged.evict_through), (2, 2));
    index.apply_persisted(0, 4, &marker(2, 2));
    assert!(index.get("b").is_none() && index.get("a").is_some() && index.get("c").is_some());
    assert_eq!(index.applied(), [5]);
}

#[test]
fn what_is_always_put_anew_does_not_hold_up_the_log() {
    let mut index = index_with(&[ship("a", 1.0, 1), ship("a", 2.0, 2), ship("a", 3.0, 3)]);
    let aged = index.aged(0, limits(2)).unwrap();
    assert_eq!((aged.entries.len(), aged.durable_through, aged.evict_through), (0, 2, 2));
    index.apply_persisted(0, 3, &marker(2, 2));
    assert!(index.get("a").is_some());
    assert!(index.aged(0, limits(2)).is_none(), "said once");
}

#[test]
fn a_patched_entry_keeps_its_place_and_stays_while_it_is_young() {
    let mut index = index_with(&[ship("a", 1.0, 1), ship("b", 2.0, 1), set_n("a", 5)]);
    let aged = index.aged(0, limits(2)).unwrap();
    assert_eq!(aged.entries.len(), 2, "the patched one comes up at its old place, in its present state");
    assert_eq!(aged.entries[0].feature().unwrap().properties[0], Value::Int(5));
    index.apply_persisted(0, 3, &marker(aged.durable_through, aged.evict_through));
    assert!(index.get("b").is_none());
    assert_eq!(index.get("a").unwrap().dirty_since, 2);
    assert_eq!(index.aged(0, limits(9)).unwrap().entries.len(), 1, "and comes up again");
}

#[test]
fn max_dirty_persists_what_never_rests_without_evicting_it() {
    let mut index = index_with(&[ship("a", 1.0, 1), set_n("a", 2), set_n("a", 3)]);
    let limits = AgeLimits { dirty_before_ms: 1000, ..limits(0) };
    let aged = index.aged(0, limits).unwrap();
    assert_eq!((aged.entries.len(), aged.durable_through, aged.evict_through), (1, 1, 0));
    index.apply_persisted(0, 3, &marker(1, 0));
    assert!(index.get("a").is_some());
}

#[test]
fn what_has_been_persisted_since_it_changed_does_not_hold_up_the_log() {
    let mut index = index_with(&[ship("a", 1.0, 1), set_n("a", 2), set_n("a", 3), set_n("a", 4)]);
    // All of it was persisted, but what came first alone was old enough to say so.
    index.note_persisted([&"a".into()].into_iter(), 4);
    index.apply_persisted(0, 4, &marker(1, 0));
    let young = |dirty_before_ms, durable_through| AgeLimits { dirty_before_ms, durable_through, ..limits(0) };
    let aged = index.aged(0, young(3000, 1)).unwrap();
    assert_eq!((aged.entries.len(), aged.durable_through), (0, 3));
    assert!(index.aged(0, young(3000, 3)).is_none(), "said once");
    assert!(index.aged(0, young(9000, 4)).is_none(), "behind the last change there are markers only");
}

#[test]
fn a_patch_builds_on_its_base_unless_the_base_already_has_it() {
    let mut index = TransientIndex::new(&feature_type(), &[10]);
    let Change::Put(base) = ship("a", 1.0, 1) else { unreachable!() };
    assert_eq!(index.bases_needed([ship("b", 0.0, 0), set_n("b", 1), set_n("a", 2)].iter()), ["a".into()]);
    let known = |version| FxHashMap::from_iter([(FeatureId::from("a"), Known::Row(base.clone(), Some(version), 0))]);
    index.apply(at(10), &[set_n("a", 2)], &known(10));
    assert!(index.get("a").is_none(), "the row includes this record");
    index.apply(at(11), &[set_n("a", 3)], &known(10));
    assert_eq!(index.get("a").unwrap().feature().unwrap().properties[0], Value::Int(3));
    let mut of_others = TransientIndex::new(&feature_type(), &[0]);
    of_others.apply(at(0), &[set_n("a", 2)], &known(0));
    assert!(of_others.get("a").is_none(), "the row includes the first record of the log");
    let theirs = FxHashMap::from_iter([("a".into(), Known::Row(base.clone(), None, 0))]);
    of_others.apply(at(1), &[set_n("a", 2)], &theirs);
    assert!(of_others.get("a").is_some(), "another program's row is older than any record");
    index.apply(at(12), &[set_n("c", 3)], &FxHashMap::default());
    assert!(index.get("c").is_none(), "of a feature that is not there it does nothing");
}

#[test]
fn a_reader_goes_on_hiding_what_was_there_when_it_began() {
    let mut index = index_with(&[ship("a", 1.0, 1), Change::Delete("b".into())]);
    let reader = index.reader();
    index.apply(at(2), &[ship("c", 1.0, 1)], &FxHashMap::default());
    index.apply_persisted(0, 3, &marker(3, 3));
    assert!(index.is_empty());
    assert!(index.hides(&reader, "a") && index.hides(&reader, "b"));
    assert!(!index.hides(&reader, "c"), "what entered later hides nothing");
    index.apply(at(4), &[ship("a", 1.0, 1)], &FxHashMap::default());
    assert!(index.hides(&reader, "a"));
    let later = index.reader();
    assert!(index.hides(&later, "a") && !index.hides(&later, "b"));
}

#[test]
fn what_the_delegate_refused_stays() {
    let mut index = index_with(&[ship("a", 1.0, 1), ship("b", 1.0, 1)]);
    index.apply_persisted(0, 2, &Persisted { except: vec!["a".into()], ..marker(2, 2) });
    assert!(index.get("a").is_some() && index.get("b").is_none());
}

#[test]
fn what_stands_refused_is_passed_over_until_it_changes() {
    let mut index = index_with(&[ship("a", 1.0, 1), ship("b", 1.0, 1), ship("c", 1.0, 1), ship("d", 1.0, 1)]);
    let batch_of_two = |expired_s| AgeLimits { batch: 2, ..limits(expired_s) };
    let ids = |entries: &[Entry]| entries.iter().map(|e| e.id.to_string()).collect::<Vec<_>>();
    let refuse = |index: &mut TransientIndex, aged: &Aged| {
        index.note_refused(aged.entries.iter().map(|e| (&e.id, e.version)));
    };
    let aged = index.aged(0, batch_of_two(4)).unwrap();
    assert_eq!((ids(&aged.entries), aged.durable_through), (vec!["a".into(), "b".into()], 2));
    assert!(index.excepted(0, 2, aged.ids()).is_empty());
    refuse(&mut index, &aged);
    index.apply_persisted(0, 4, &Persisted { except: vec!["a".into(), "b".into()], ..marker(2, 2) });

    let aged = index.aged(0, batch_of_two(4)).unwrap();
    assert_eq!((ids(&aged.entries), aged.durable_through), (vec!["c".into(), "d".into()], 5), "they stop nobody");
    let except = index.excepted(0, 5, aged.ids());
    assert_eq!(except, ["a".into(), "b".into()]);
    index.apply_persisted(0, 5, &Persisted { except, ..marker(5, 5) });
    assert_eq!((index.len(), index.aged(0, batch_of_two(9)).is_none()), (2, true), "nothing changed, nothing to do");

    index.apply(at(6), &[set_n("b", 5)], &FxHashMap::default());
    let aged = index.aged(0, batch_of_two(9)).unwrap();
    assert_eq!(ids(&aged.entries), ["b"], "changed, it is tried again");
    assert_eq!(index.excepted(0, 7, aged.ids()), ["a".into()]);
    refuse(&mut index, &aged);
    assert!(index.aged(0, batch_of_two(9)).is_none());

    assert_eq!(ids(&index.refused(0, 0, 1)), ["a"]);
    assert_eq!(ids(&index.refused(0, 1, 1)), ["b"]);
    index.note_persisted([FeatureId::from("a")].iter(), 8);
    assert_eq!(ids(&index.refused(0, 0, 9)), ["b"]);
    let aged = index.aged(0, batch_of_two(9)).unwrap();
    assert_eq!(ids(&aged.entries), ["a"], "taken in the end, but nobody has been told");
    index.apply_persisted(0, 8, &Persisted { except: vec!["b".into()], ..marker(7, 7) });
    assert_eq!(index.len(), 1);
}

/// Resident memory of this process.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// In a process of its own: the other tests take memory too.
#[test]
fn bytes_are_about_what_the_process_takes() {
    const ALONE: &str = "ALLUVIUM_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "transient::tests::bytes_are_about_what_the_process_takes"]).env(ALONE, "1");
        let output = alone.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    const MANY: u64 = 200_000;
    let (mut index, before) = (TransientIndex::new(&feature_type(), &[0]), resident_bytes());
    for offset in 0..MANY {
        let spread = (offset * 7919 % MANY) as f64 / MANY as f64 * 360.0 - 180.0;
        index.apply(at(offset), &[ship(&format!("ship {offset:06}"), spread, offset as i64)], &FxHashMap::default());
    }
    let (taken, told) = (resident_bytes() - before, index.bytes());
    assert!((taken / 4 * 3..taken / 4 * 5).contains(&told), "{taken} bytes are taken, {told} told");

    let reader = index.reader();
    let matches = index.select(&near(0.0));
    let held: usize = matches.iter().map(|m| m.feature.heap_bytes()).sum();
    index.apply_persisted(0, MANY, &marker(MANY, MANY));
    let kept = index.bytes();
    assert!(kept > held && kept > MANY as usize * 100, "{kept} bytes told of all that a reader must not see");
    drop((reader, matches));
    assert!(index.bytes() < 10_000, "{} bytes when all have gone", index.bytes());
}

#[test]
fn room_is_given_back_when_most_has_left() {
    let changes: Vec<Change> = (0..10_000).map(|n| ship(&format!("{n}"), 1.0, n)).collect();
    let mut index = index_with(&changes);
    let all = index.bytes();
    // The oldest are put anew, the others leave.
    index.apply(at(10_000), &changes[..10], &FxHashMap::default());
    index.apply_persisted(0, 10_001, &marker(10_000, 10_000));
    assert_eq!(index.len(), 10);
    assert!(index.bytes() < all / 100, "{} of {all} bytes", index.bytes());
    index.apply(at(10_002), &changes, &FxHashMap::default());
    assert_eq!(index.select(&Filter::All).len(), 10_000);
    index.apply_persisted(0, 10_003, &marker(10_003, 10_003));
    assert!(index.is_empty());
}

fn tracks() -> FeatureType {
    toml::from_str(
        "name = 'tracks'\ngeometry = { type = 'LineString', dimension = 'XYM' }\ntrack = {}\n\
         properties = [{ name = 'n', type = 'int64', index = true }]",
    )
    .unwrap()
}

fn fix(id: &str, m: f64, x: f64) -> Append {
    let fix = crate::model::geometry::Coord { x, y: 0.0, z: 0.0, m };
    Append { id: id.into(), fixes: vec![fix], properties: vec![(0, Value::Int(m as i64))] }
}

#[test]
fn a_track_is_what_its_appends_say_and_snapshots_of_it_stay() {
    let (ft, none) = (tracks(), FxHashMap::default());
    let shape = ft.track_shape().unwrap();
    let mut index = TransientIndex::new(&ft, &[0]);
    let mut expected: Option<Feature> = None;
    let mut snapshots = Vec::new();
    for (offset, m) in [5.0, 6.0, 9.0, 7.0, 7.0, 1.0, 12.0].into_iter().enumerate() {
        let append = fix("a", m, m + offset as f64);
        index.apply(at(offset as u64), &[Change::Append(append.clone())], &none);
        expected = Some(append.apply(expected.as_ref(), &shape));
        if offset % 2 == 0 {
            let found = index.select(&Filter::All).remove(0).feature;
            assert_eq!(Some(&*found), expected.as_ref());
            snapshots.push((found.clone(), (*found).clone()));
        }
    }
    assert!(snapshots.iter().all(|(shared, then)| **shared == *then));
    let entry = index.get("a").unwrap();
    assert_eq!((entry.version, entry.dirty_since), (6, 0), "an append continues the dirtiness");
    assert_eq!(index.select(&near(12.0 + 6.0)).len(), 1);
    assert_eq!(index.aged(0, limits(9)).unwrap().entries[0].feature().as_deref(), expected.as_ref());
    index.apply_persisted(0, 7, &marker(7, 7));
    assert!(index.is_empty() && index.bytes() < 1_000, "{} bytes", index.bytes());
}

#[test]
fn an_append_builds_on_its_base_unless_that_already_has_it() {
    let ft = tracks();
    let row = Arc::new(fix("a", 1.0, 1.0).apply(None, &ft.track_shape().unwrap()));
    let mut index = TransientIndex::new(&ft, &[10]);
    let append = [Change::Append(fix("a", 2.0, 2.0))];
    assert_eq!(index.bases_needed(append.iter()), ["a".into()]);
    let known = |version| FxHashMap::from_iter([(FeatureId::from("a"), Known::Row(row.clone(), Some(version), 0))]);
    index.apply(at(10), &append, &known(10));
    assert!(index.is_empty(), "the row includes this record");
    index.apply(at(11), &append, &FxHashMap::from_iter([(FeatureId::from("a"), Known::Deleted(Some(11), None))]));
    assert!(index.is_empty(), "deleted since");
    index.apply(at(12), &append, &known(10));
    assert_eq!(index.get("a").unwrap().feature().unwrap().geometry.as_ref().unwrap().wkb().len(), 9 + 2 * 24);
    index.apply(at(13), &[Change::Delete("a".into())], &FxHashMap::default());
    index.apply(at(14), &append, &FxHashMap::default());
    assert!(index.get("a").unwrap().feature().is_some(), "after a deletion it begins anew");
}

/// What is new of the only track, and what that builds on.
fn growth(index: &TransientIndex, expired_s: i64) -> Option<(Vec<f64>, Offset)> {
    let limits = AgeLimits { dirty_before_ms: i64::MAX, tails: true, ..limits(expired_s) };
    let aged = index.aged(0, limits).unwrap();
    assert_eq!(aged.entries.len() + aged.growths.len(), 1);
    let growth = aged.growths.first()?;
    let mut times = Vec::new();
    growth.fixes.reader().each_coord(&mut |c| times.push(c.m));
    assert_eq!(growth.version, index.get("a").unwrap().version);
    Some((times, growth.builds_on))
}

#[test]
fn of_a_track_that_goes_on_growing_only_what_is_new_is_persisted() {
    let (ft, a) = (tracks(), FeatureId::from("a"));
    let long = (0..40).fold(None, |track: Option<Feature>, m| {
        Some(fix("a", f64::from(m), 1.0).apply(track.as_ref(), &ft.track_shape().unwrap()))
    });
    let bases = FxHashMap::from_iter([(a.clone(), Known::Row(Arc::new(long.unwrap()), Some(5), 0))]);
    let mut index = TransientIndex::new(&ft, &[10]);
    let append = |index: &mut TransientIndex, offset: Offset| {
        index.apply(at(offset), &[Change::Append(fix("a", offset as f64 + 100.0, 1.0))], &bases);
    };
    append(&mut index, 10);
    append(&mut index, 11);
    assert_eq!(growth(&index, 11), Some((vec![110.0, 111.0], 5)), "the row that was loaded has the others");
    assert_eq!(growth(&index, 12), Some((vec![110.0, 111.0], 5)), "also when it leaves");
    index.note_grown([&a].into_iter(), 12);
    append(&mut index, 12);
    // Readers have had the line put together meanwhile.
    assert_eq!(index.get("a").unwrap().feature().unwrap().geometry.as_ref().unwrap().wkb().len(), 9 + 43 * 24);
    append(&mut index, 13);
    assert_eq!(growth(&index, 13), Some((vec![112.0, 113.0], 11)));
    // Another instance has persisted it, as of a place that is not known here.
    index.apply_persisted(0, 14, &marker(13, 10));
    assert_eq!(growth(&index, 13), Some((vec![113.0], 12)));
    index.persist_whole([&a].into_iter());
    assert_eq!(growth(&index, 13), None, "the delegate has not what it builds on");
    index.note_persisted([&a].into_iter(), 15);
    (15..26).for_each(|offset| append(&mut index, offset));
    assert_eq!(growth(&index, 25).map(|(times, builds_on)| (times.len(), builds_on)), Some((11, 13)));
    index.note_grown([&a].into_iter(), 26);
    (26..30).for_each(|offset| append(&mut index, offset));
    assert_eq!(growth(&index, 29), None, "what stands apart is more than a quarter");
    index.note_persisted([&a].into_iter(), 30);
    index.apply(at(30), &[set_n("a", 7)], &FxHashMap::default());
    append(&mut index, 31);
    assert_eq!(growth(&index, 31), None, "not only fixes have come");
}

/// A track of a hundred fixes whose row has so many of them apart, with one more.
fn grown_with(apart: usize) -> TransientIndex {
    let (ft, a) = (tracks(), FeatureId::from("a"));
    let shape = ft.track_shape().unwrap();
    let row = (0..100).fold(None, |t: Option<Feature>, m| Some(fix("a", f64::from(m), 1.0).apply(t.as_ref(), &shape)));
    let bases = FxHashMap::from_iter([(a, Known::Row(Arc::new(row.unwrap()), Some(5), apart))]);
    let mut index = TransientIndex::new(&ft, &[10]);
    index.apply(at(10), &[Change::Append(fix("a", 200.0, 1.0))], &bases);
    index
}

#[test]
fn what_stood_apart_when_a_track_came_counts_too() {
    assert_eq!(growth(&grown_with(24), 20), Some((vec![200.0], 5)));
    assert_eq!(growth(&grown_with(25), 20), None, "more than a quarter: the line is written anew");
}

#[test]
fn a_track_that_is_persisted_leaves_without_a_write() {
    let mut index = grown_with(0);
    let a = FeatureId::from("a");
    index.note_grown([&a].into_iter(), 11);
    let limits = AgeLimits { tails: true, ..limits(20) };
    assert_eq!(index.aged(0, limits).map(|aged| aged.ids().count()), Some(1), "the marker is not in the log yet");
    index.apply_persisted(0, 11, &marker(11, 10));
    let aged = index.aged(0, limits).unwrap();
    assert_eq!((aged.ids().count(), aged.evict_through), (0, 12));
    assert!(index.excepted(0, aged.durable_through, aged.ids()).is_empty());
    index.apply_persisted(0, 12, &marker(aged.durable_through, aged.evict_through));
    assert!(index.is_empty());
}

#[test]
fn no_instance_begins_between_what_is_applied_in_one() {
    let mut index = index_with(&[ship("a", 1.0, 1), ship("b", 1.0, 1)]);
    for (offset, id) in [(4, "c"), (5, "d"), (6, "e")] {
        index.apply(Step { since: 2, ..at(offset) }, &[ship(id, 1.0, 1)], &FxHashMap::default());
    }
    index.apply(at(7), &[ship("f", 1.0, 1)], &FxHashMap::default());
    for batch in 1..7 {
        for expired_s in 0..9 {
            let aged = index.aged(0, AgeLimits { batch, ..limits(expired_s) });
            let through = aged.map_or(0, |aged| aged.durable_through);
            assert!(!(3..=6).contains(&through), "an instance would begin at {through}, {batch} {expired_s}");
        }
    }
}

#[test]
fn what_was_refused_is_taken_up_before_the_log_goes_on() {
    let mut index = TransientIndex::new(&feature_type(), &[5]);
    // The second one was young when it was refused.
    for (id, version) in [("old", 2), ("young", 9)] {
        let Change::Put(feature) = ship(id, 1.0, 1) else { panic!() };
        index.restore(0, &id.into(), version, Some(feature));
    }
    assert_eq!((index.len(), index.applied_of(0)), (2, 5));
    index.apply(at(6), &[ship("new", 1.0, 1)], &FxHashMap::default());
    let aged = index.aged(0, limits(100)).unwrap();
    assert_eq!(aged.entries.iter().map(|e| &*e.id).collect::<Vec<_>>(), ["new"], "what is refused stands so");
    assert_eq!(index.refused(0, 0, 9).iter().map(|e| &*e.id).collect::<Vec<_>>(), ["old", "young"]);
    index.apply_persisted(0, 7, &Persisted { except: vec!["old".into(), "young".into()], ..marker(7, 7) });
    assert_eq!(index.len(), 2);
}

#[test]
fn what_was_taken_up_is_not_changed_by_what_it_includes() {
    let mut index = TransientIndex::new(&feature_type(), &[5]);
    let Change::Put(feature) = ship("a", 1.0, 9) else { panic!() };
    index.restore(0, &"a".into(), 7, Some(feature));
    let create = Change::If(Expected::Absent, Box::new(ship("a", 1.0, 9)));
    let n = |index: &TransientIndex| index.get("a").unwrap().feature().unwrap().properties[0].clone();
    index.apply(at(5), &[Change::Delete("a".into())], &FxHashMap::default());
    index.apply(at(6), &[set_n("a", 1)], &FxHashMap::default());
    assert_eq!(n(&index), Value::Int(9));
    index.apply(at(7), std::slice::from_ref(&create), &FxHashMap::default());
    assert_eq!((n(&index), index.decision(0, 7)), (Value::Int(9), Decision::Held));
    index.apply(at(8), &[create], &FxHashMap::default());
    assert_eq!(index.decision(0, 8), Decision::Failed);
    index.apply(at(9), &[set_n("a", 2), set_n("a", 3)], &FxHashMap::default());
    assert_eq!(n(&index), Value::Int(3));
}

#[test]
fn a_conditional_change_is_decided_by_what_is_there() {
    let create = |id| Change::If(Expected::Absent, Box::new(ship(id, 1.0, 1)));
    let replace = |id: &str, version, n| Change::If(Expected::OneOf(vec![version]), Box::new(ship(id, 1.0, n)));
    let mut index = index_with(&[create("a"), create("a"), replace("a", 0, 2), replace("a", 0, 3)]);
    let a = index.get("a").unwrap();
    assert_eq!((a.version, a.feature().unwrap().properties[0].clone()), (2, Value::Int(2)));
    assert_eq!(a.dirty_since, 0, "whoever begins behind the first could not decide the others");
    let decisions: Vec<_> = (0..4).map(|offset| index.decision(0, offset)).collect();
    assert_eq!(decisions, [Decision::Held, Decision::Failed, Decision::Held, Decision::Failed]);

    let Change::Put(row) = ship("row", 1.0, 1) else { panic!() };
    for (offset, base, expected) in [
        (10, Known::Row(row.clone(), Some(5), 0), Decision::Held),
        (11, Known::Row(row.clone(), Some(6), 0), Decision::Failed),
        (12, Known::Deleted(Some(5), None), Decision::Failed),
        (13, Known::Nothing, Decision::Failed),
        (14, Known::Row(row.clone(), Some(14), 0), Decision::Held),
        (15, Known::Row(row.clone(), Some(20), 0), Decision::Unknown),
    ] {
        let id = FeatureId::from(format!("b{offset}"));
        let change = replace(&id, 5, 7);
        assert_eq!(index.bases_needed([&change].into_iter()), std::slice::from_ref(&id));
        index.apply(at(offset), &[change], &FxHashMap::from_iter([(id.clone(), base)]));
        assert_eq!(index.decision(0, offset), expected, "{offset}");
        assert_eq!(index.get(&id).is_some(), offset == 10, "{offset}");
    }
}

#[test]
fn what_is_persisted_while_it_grows_comes_up_again_when_that_has_aged() {
    let changes: Vec<Change> = std::iter::once(ship("a", 1.0, 0)).chain((1..10).map(|n| set_n("a", n))).collect();
    let mut index = index_with(&changes);
    let aged = index.aged(0, limits(5)).unwrap();
    assert_eq!((aged.entries.len(), aged.durable_through), (1, 5));
    index.note_persisted([FeatureId::from("a")].iter(), 10);
    index.apply_persisted(0, 10, &marker(5, 5));
    index.apply(at(11), &[set_n("a", 11)], &FxHashMap::default());
    index.apply(at(12), &[ship("b", 1.0, 1)], &FxHashMap::default());
    for expired_s in 5..10 {
        assert!(index.aged(0, limits(expired_s)).is_none(), "it is in the delegate as of 10, and its change is young");
    }
    let aged = index.aged(0, limits(12)).unwrap();
    assert_eq!((aged.entries[0].version, aged.entries.len(), aged.durable_through), (11, 1, 12));
    index.apply_persisted(0, 13, &marker(12, 12));
    assert!(index.get("a").is_none());
    assert_eq!(index.aged(0, limits(20)).unwrap().entries.len(), 1, "b has kept its place");
}

#[test]
fn an_owner_that_has_nothing_lets_others_go_of_what_was_persisted_young() {
    let mut index = index_with(&[ship("a", 1.0, 0), set_n("a", 1)]);
    // Persisted while it was young, with markers as the last records of the log.
    index.apply_persisted(0, 2, &marker(1, 1));
    index.apply_persisted(0, 3, &marker(2, 1));
    assert!(index.get("a").is_some());
    let through = index.changed_through(0) + 1;
    index.apply_persisted(0, 4, &marker(through, through));
    assert!(index.is_empty());
}

#[test]
fn an_instance_believes_its_own_sweeps_alone() {
    let mut index = index_with(&[ship("a", 1.0, 0), set_n("a", 1), set_n("a", 2)]);
    // An owner that began at 2 knows the last change only, and has not persisted it.
    index.apply_persisted(0, 3, &marker(2, 1));
    let aged = index.aged(0, limits(100)).unwrap();
    assert_eq!(aged.entries[0].version, 2, "what nobody has persisted comes up");
}

/// A type whose features say when they were so: `n` seconds after the epoch.
fn timed() -> FeatureType {
    let properties = "properties = [{ name = 'at', type = 'date-time' }, { name = 'n', type = 'int64' }]";
    toml::from_str(&format!("name = 'ships'\n{properties}\nevent_time = {{ property = 'at' }}\n")).unwrap()
}

fn seen(at: Option<i64>, n: i64) -> Change {
    let at = at.map_or(Value::Null, |seconds| Value::DateTime(seconds * 1_000_000));
    Change::Put(Arc::new(Feature { id: "a".into(), geometry: None, properties: vec![at, Value::Int(n)] }))
}

#[test]
fn a_late_change_does_nothing() {
    let nothing = FxHashMap::default();
    let mut index = TransientIndex::new(&timed(), &[0]);
    let number = |index: &TransientIndex| index.get("a").unwrap().feature().map(|f| f.properties[1].clone());
    for (offset, change, expected) in [
        (0, seen(Some(10), 0), Some(Value::Int(0))),
        (1, seen(Some(9), 1), Some(Value::Int(0))),
        (2, seen(Some(10), 2), Some(Value::Int(2))),
        (3, set_n("a", 0), Some(Value::Int(2))),
        (4, Change::Delete("a".into()), None),
        (5, seen(Some(9), 5), None),
        (6, seen(Some(10), 6), Some(Value::Int(6))),
        (7, seen(None, 7), Some(Value::Int(7))),
        (8, seen(Some(1), 8), Some(Value::Int(8))),
    ] {
        // A patch that says a time is late like any other.
        let change = match change {
            Change::Patch(p) => {
                Change::Patch(Patch { properties: vec![(0, Value::DateTime(0)), (1, Value::Int(3))], ..p })
            }
            change => change,
        };
        index.apply(at(offset), &[change], &nothing);
        assert_eq!(number(&index), expected, "{offset}");
    }
    assert_eq!(index.get("a").unwrap().dirty_since, 0, "what a change does depends on those before it");
    let late = Change::If(Expected::OneOf(vec![8]), Box::new(seen(Some(0), 9)));
    index.apply(at(9), &[late], &nothing);
    assert_eq!(number(&index), Some(Value::Int(9)), "whoever names the version has seen what is there");
}

#[test]
fn what_is_late_is_told_by_the_row_and_by_what_is_remembered_of_a_deleted_one() {
    let Change::Put(row) = seen(Some(10), 0) else { panic!() };
    let second = 1_000_000;
    for (base, late) in [
        (Known::Row(row.clone(), Some(5), 0), true),
        (Known::Row(row.clone(), None, 0), true),
        (Known::Deleted(Some(5), Some(10 * second)), true),
        (Known::Deleted(None, Some(10 * second)), true),
        (Known::Deleted(Some(5), None), false),
        (Known::Deleted(Some(5), Some(9 * second)), false),
        (Known::Nothing, false),
        // It includes this change, or one that came after it.
        (Known::Row(row, Some(20), 0), true),
        (Known::Deleted(Some(20), None), true),
    ] {
        let mut index = TransientIndex::new(&timed(), &[0]);
        let change = seen(Some(9), 1);
        assert_eq!(index.bases_needed([&change].into_iter()), [FeatureId::from("a")]);
        index.apply(at(10), &[change], &FxHashMap::from_iter([("a".into(), base.clone())]));
        assert_eq!(index.get("a").is_none(), late, "{base:?}");
    }
}

fn a_is(known: Known) -> FxHashMap<FeatureId, Known> {
    FxHashMap::from_iter([("a".into(), known)])
}

/// Changes of 'a' from offset 10 on, whose base is away.
fn unresolved(changes: &[Change]) -> TransientIndex {
    let mut index = TransientIndex::new(&feature_type(), &[10]);
    for (offset, change) in (10..).zip(changes) {
        index.apply(at(offset), std::slice::from_ref(change), &a_is(Known::Away));
    }
    assert_eq!(index.applied_of(0), 10 + changes.len() as Offset, "the log goes on");
    index
}

fn row_of_a(n: i64) -> Arc<Feature> {
    let Change::Put(row) = ship("a", 5.0, n) else { panic!() };
    row
}

#[test]
fn what_waits_for_its_base_is_applied_to_it_in_order() {
    let moved = Patch { id: "a".into(), geometry: Some(Geometry::point(8.0, 0.0).ok()), properties: Vec::new() };
    let changes = [set_n("a", 1), Change::Patch(moved), set_n("a", 2)];
    let mut index = unresolved(&changes);
    assert!(index.is_unknown(&near(1.0)) && index.is_unknown(&Filter::All));
    assert!(index.is_unknown(&Filter::ids(["a".into()])) && !index.is_unknown(&Filter::ids(["b".into()])));
    assert!(index.hides(&index.reader(), "a"));

    let asked = index.unresolved(10);
    index.resolve(&asked, &a_is(Known::Row(row_of_a(0), Some(4), 0)));
    assert!(!index.is_unknown(&Filter::All));
    let a = index.get("a").unwrap();
    assert_eq!((a.version, a.dirty_since, a.feature().unwrap().properties[0].clone()), (12, 10, Value::Int(2)));
    assert_eq!(index.select(&near(8.0)).len(), 1);

    // What the row includes already is not done again.
    let mut index = unresolved(&changes);
    index.resolve(&asked, &a_is(Known::Row(row_of_a(7), Some(11), 0)));
    assert_eq!((index.select(&near(8.0)).len(), index.select(&near(5.0)).len()), (0, 1));
    for outlived in [Known::Row(row_of_a(7), Some(12), 0), Known::Deleted(Some(30), None), Known::Nothing] {
        let mut index = unresolved(&changes);
        index.resolve(&asked, &a_is(outlived));
        assert!(index.is_empty() && index.bytes() < 1_000, "{} bytes", index.bytes());
    }
}

#[test]
fn a_full_record_makes_what_waits_irrelevant() {
    let mut index = unresolved(&[set_n("a", 1), ship("a", 1.0, 2), set_n("a", 3)]);
    assert!(!index.is_unknown(&Filter::All));
    assert_eq!(index.get("a").unwrap().feature().unwrap().properties[0], Value::Int(3));
    // What was asked for before has come too late.
    index.resolve(&[("a".into(), 10)], &a_is(Known::Row(row_of_a(0), Some(4), 0)));
    assert_eq!(index.get("a").unwrap().feature().unwrap().properties[0], Value::Int(3));

    let mut index = unresolved(&[set_n("a", 1)]);
    let asked = index.unresolved(10);
    index.apply_persisted(0, 11, &marker(11, 11));
    assert!(index.is_empty() && !index.has_unresolved(), "another instance could load it");
    index.apply(at(12), &[set_n("a", 2)], &a_is(Known::Away));
    index.resolve(&asked, &a_is(Known::Row(row_of_a(0), Some(4), 0)));
    assert!(index.has_unresolved(), "the row is from before its first change was persisted");
}

#[test]
fn nothing_behind_what_waits_is_durable() {
    let mut index = TransientIndex::new(&feature_type(), &[10]);
    index.apply(at(10), &[ship("b", 1.0, 1)], &FxHashMap::default());
    index.apply(at(11), &[ship("c", 1.0, 1), set_n("a", 1)], &a_is(Known::Away));
    index.apply(at(12), &[ship("d", 1.0, 1)], &FxHashMap::default());
    let aged = index.aged(0, limits(100)).unwrap();
    assert_eq!((aged.entries.len(), aged.durable_through, aged.evict_through), (1, 11, 11));
    index.apply_persisted(0, 13, &marker(11, 11));
    assert!(index.aged(0, limits(100)).is_none());
    assert_eq!(index.unresolved_of(0), 1);
    index.resolve(&index.unresolved(10), &a_is(Known::Row(row_of_a(0), Some(4), 0)));
    let aged = index.aged(0, limits(100)).unwrap();
    assert_eq!((aged.entries.len(), aged.durable_through), (3, 14));
}

#[test]
fn a_condition_is_decided_when_its_base_is_known() {
    let replace = |version, n| Change::If(Expected::OneOf(vec![version]), Box::new(ship("a", 1.0, n)));
    let mut index = unresolved(&[replace(4, 1), replace(4, 2), replace(10, 3)]);
    let decisions = |index: &TransientIndex| [10, 11, 12].map(|offset| index.decision(0, offset));
    assert_eq!(decisions(&index), [Decision::Unknown; 3]);
    index.resolve(&index.unresolved(10), &a_is(Known::Row(row_of_a(0), Some(4), 0)));
    assert_eq!(decisions(&index), [Decision::Held, Decision::Failed, Decision::Held]);
    assert_eq!(index.get("a").unwrap().feature().unwrap().properties[0], Value::Int(3));

    let mut index = unresolved(&[replace(4, 1), replace(4, 2), replace(10, 3)]);
    index.resolve(&index.unresolved(10), &a_is(Known::Row(row_of_a(1), Some(11), 0)));
    assert_eq!(decisions(&index), [Decision::Unknown, Decision::Held, Decision::Failed]);
    assert!(index.is_empty());
}

#[test]
fn a_condition_that_waits_knows_its_own_effect_also_at_the_beginning_of_the_log() {
    let mut index = TransientIndex::new(&feature_type(), &[0]);
    let create = Change::If(Expected::Absent, Box::new(ship("a", 5.0, 1)));
    index.apply(at(0), &[create], &a_is(Known::Away));
    let asked = index.unresolved(10);
    index.resolve(&asked, &a_is(Known::Row(row_of_a(1), Some(0), 0)));
    assert_eq!(index.decision(0, 0), Decision::Held, "another instance has made the row of it");
    assert!(index.is_empty());
}
