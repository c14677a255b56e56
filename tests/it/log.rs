//! The conformance suite of the log: every function of it is a test of each implementation.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use alluvium::log::{FeatureLog, LogError, LogRecord, LogTail, NewRecord};
use alluvium::model::{Offset, PartitionId};
use bytes::Bytes;
use futures::future::join_all;

const PATIENCE: Duration = Duration::from_secs(30);
const A_MOMENT: Duration = Duration::from_millis(200);

/// Makes one test of each function of the suite for each implementation.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod memory_conforms {
            use std::sync::Arc;
            use alluvium::{clock::SystemClock, log::memory::MemoryLog};
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(Arc::new(MemoryLog::new(Arc::new(SystemClock)))).await;
            })*
        }
        mod embedded_conforms {
            use std::sync::Arc;
            use alluvium::{clock::SystemClock, log::embedded::EmbeddedLog};
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let dir = tempfile::tempdir().unwrap();
                super::$test(Arc::new(EmbeddedLog::open(dir.path(), Arc::new(SystemClock)).unwrap())).await;
            })*
        }
        #[cfg(feature = "cluster")]
        mod kafka_conforms {
            use std::sync::Arc;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                if let Some(settings) = super::kafka::settings() {
                    super::$test(Arc::new(super::kafka::connect(settings).await)).await;
                }
            })*
        }
    };
}

conformance! {
    a_log_is_made_once,
    an_append_is_read_back_as_it_was,
    one_append_reaches_several_logs_and_partitions,
    an_append_with_one_bad_place_appends_nothing,
    a_tail_starts_anywhere,
    tails_do_not_disturb_each_other,
    a_waiting_tail_is_woken,
    a_tail_reaches_the_end_that_range_tells,
    cancelling_next_loses_nothing,
    a_cancelled_append_disturbs_no_other,
    what_is_cut_is_gone,
    offsets_are_never_used_twice,
    large_records_pass_and_larger_ones_do_not,
    many_writers_keep_their_order,
    a_long_log_is_read_in_bounded_batches,
    a_removed_log_is_gone_and_starts_afresh,
    append_times_never_fall,
}

/// A name that no other test and no other run has.
fn unique(name: &str) -> String {
    format!("{name}_{}", uuid::Uuid::now_v7().simple())
}

fn record(log: &str, partition: PartitionId, value: impl Into<Bytes>) -> NewRecord {
    NewRecord { log: log.into(), partition, key: Bytes::from_static(b"key"), value: value.into() }
}

async fn new_log(log: &dyn FeatureLog, name: &str, partitions: u32) -> String {
    let name = unique(name);
    log.create(&name, partitions).await.unwrap();
    name
}

async fn append(log: &dyn FeatureLog, name: &str, partition: PartitionId, value: &str) -> Offset {
    log.append(vec![record(name, partition, value.to_owned())]).await.unwrap()[0]
}

/// Reads until `count` records are there.
async fn read(tail: &mut dyn LogTail, count: usize) -> Vec<LogRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        let batch = tokio::time::timeout(PATIENCE, tail.next()).await.expect("records in time").unwrap();
        assert!(batch.records.iter().all(|r| r.offset < batch.next));
        records.extend(batch.records);
    }
    assert_eq!(records.len(), count, "no more than was appended: {:?}", values(&records));
    assert!(records.is_sorted_by(|a, b| a.offset < b.offset));
    records
}

async fn read_all(log: &dyn FeatureLog, name: &str, partition: PartitionId, count: usize) -> Vec<LogRecord> {
    let first = log.range(name, partition).await.unwrap().start;
    read(&mut *log.tail(name, partition, first).await.unwrap(), count).await
}

fn values(records: &[LogRecord]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(r.value.as_ref().unwrap()).into_owned()).collect()
}

fn offsets(records: &[LogRecord]) -> Vec<Offset> {
    records.iter().map(|r| r.offset).collect()
}

async fn assert_silent(tail: &mut dyn LogTail) {
    let deadline = tokio::time::Instant::now() + A_MOMENT;
    while let Ok(batch) = tokio::time::timeout_at(deadline, tail.next()).await {
        assert_eq!(values(&batch.unwrap().records), Vec::<String>::new());
    }
}

#[track_caller]
fn assert_mismatch<T>(result: Result<T, LogError>) {
    assert!(matches!(result, Err(LogError::Mismatch { .. })), "{:?}", result.err());
}

#[track_caller]
fn assert_not_found<T>(result: Result<T, LogError>) {
    assert!(matches!(result, Err(LogError::NotFound(_))), "{:?}", result.err());
}

async fn a_log_is_made_once(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "made", 3).await;
    append(&*log, &name, 2, "kept").await;
    log.create(&name, 3).await.unwrap();
    assert_eq!(values(&read_all(&*log, &name, 2, 1).await), ["kept"]);
    assert_mismatch(log.create(&name, 2).await);
    assert_mismatch(log.create(&name, 4).await);

    let missing = unique("missing");
    assert_not_found(log.append(vec![record(&missing, 0, "x")]).await);
    assert_not_found(log.range(&missing, 0).await);
    assert_not_found(log.range(&name, 3).await);
    assert_not_found(log.tail(&missing, 0, 0).await);
    assert_not_found(log.cut(&missing, 0, 0).await);
    log.remove(&missing).await.unwrap();
}

async fn an_append_is_read_back_as_it_was(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "order", 1).await;
    let mut appended = Vec::new();
    appended.extend(log.append(vec![record(&name, 0, "a")]).await.unwrap());
    appended.extend(log.append(["b", "c", "d"].map(|v| record(&name, 0, v)).into()).await.unwrap());
    let keyless = NewRecord { key: Bytes::new(), ..record(&name, 0, "e") };
    appended.extend(log.append(vec![keyless]).await.unwrap());
    assert_eq!(log.append(vec![]).await.unwrap(), Vec::<Offset>::new());

    let records = read_all(&*log, &name, 0, 5).await;
    assert_eq!(values(&records), ["a", "b", "c", "d", "e"]);
    assert_eq!(offsets(&records), appended);
    assert_eq!(records[3].key, Some(Bytes::from_static(b"key")));
    assert_eq!(records[4].key, None);
}

async fn one_append_reaches_several_logs_and_partitions(log: Arc<dyn FeatureLog>) {
    let (ships, ports) = (new_log(&*log, "ships", 2).await, new_log(&*log, "ports", 1).await);
    let places = [(&ships, 1, "s1"), (&ports, 0, "p1"), (&ships, 0, "s2"), (&ports, 0, "p2"), (&ships, 1, "s3")];
    let records = places.iter().map(|(l, p, v)| record(l, *p, *v)).collect();
    let appended = log.append(records).await.unwrap();

    let (s0, s1) = (read_all(&*log, &ships, 0, 1).await, read_all(&*log, &ships, 1, 2).await);
    let p0 = read_all(&*log, &ports, 0, 2).await;
    assert_eq!((values(&s0), values(&s1)), (vec!["s2".into()], vec!["s1".into(), "s3".into()]));
    assert_eq!(values(&p0), ["p1", "p2"]);
    assert_eq!(appended, [s1[0].offset, p0[0].offset, s0[0].offset, p0[1].offset, s1[1].offset]);
}

async fn an_append_with_one_bad_place_appends_nothing(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "bad_place", 2).await;
    let missing = unique("missing");
    for bad in [record(&missing, 0, "x"), record(&name, 2, "x")] {
        assert_not_found(log.append(vec![record(&name, 0, "a"), record(&name, 1, "b"), bad]).await);
    }
    append(&*log, &name, 0, "c").await;
    append(&*log, &name, 1, "d").await;
    assert_eq!(values(&read_all(&*log, &name, 0, 1).await), ["c"]);
    assert_eq!(values(&read_all(&*log, &name, 1, 1).await), ["d"]);
}

async fn a_tail_starts_anywhere(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "middle", 1).await;
    let mut appended = log.append((0..5).map(|i| record(&name, 0, i.to_string())).collect()).await.unwrap();
    for i in 5..8 {
        appended.push(append(&*log, &name, 0, &i.to_string()).await);
    }
    for (i, from) in appended.iter().enumerate() {
        let mut tail = log.tail(&name, 0, *from).await.unwrap();
        let expected: Vec<String> = (i..8).map(|v| v.to_string()).collect();
        assert_eq!(values(&read(&mut *tail, expected.len()).await), expected, "from {from}");
    }
    let end = log.range(&name, 0).await.unwrap().end;
    let mut tail = log.tail(&name, 0, end).await.unwrap();
    assert_silent(&mut *tail).await;
    append(&*log, &name, 0, "next").await;
    assert_eq!(values(&read(&mut *tail, 1).await), ["next"]);

    assert_mismatch(log.tail(&name, 0, end + 1000).await);
}

async fn tails_do_not_disturb_each_other(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "two", 1).await;
    let mut first = log.tail(&name, 0, 0).await.unwrap();
    let mut second = log.tail(&name, 0, 0).await.unwrap();
    for i in 0..20 {
        append(&*log, &name, 0, &i.to_string()).await;
        if i == 10 {
            read(&mut *first, 11).await;
        }
    }
    let late = read(&mut *first, 9).await;
    let whole = read(&mut *second, 20).await;
    assert_eq!(late, whole[11..]);
}

async fn a_waiting_tail_is_woken(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "woken", 2).await;
    let mut tails = [log.tail(&name, 0, 0).await.unwrap(), log.tail(&name, 1, 0).await.unwrap()];
    for tail in &mut tails {
        assert_silent(&mut **tail).await;
    }
    for round in 0..3 {
        let waiting = tails.iter_mut().map(|tail| read(&mut **tail, 1));
        let appending = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            log.append(vec![record(&name, 0, "a"), record(&name, 1, "b")]).await.unwrap();
        };
        let (read, ()) = tokio::join!(join_all(waiting), appending);
        assert_eq!((values(&read[0]), values(&read[1])), (vec!["a".into()], vec!["b".into()]), "round {round}");
    }
}

async fn a_tail_reaches_the_end_that_range_tells(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "end", 1).await;
    assert_eq!(log.range(&name, 0).await.unwrap(), 0..0);
    let mut tail = log.tail(&name, 0, 0).await.unwrap();
    for append in [1, 3, 1, 1, 2] {
        let appended = log.append((0..append).map(|_| record(&name, 0, "x")).collect()).await.unwrap();
        let end = log.range(&name, 0).await.unwrap().end;
        assert!(end > appended[append - 1]);
        let mut next = 0;
        while next < end {
            next = tokio::time::timeout(PATIENCE, tail.next()).await.expect("the end is reached").unwrap().next;
        }
    }
}

async fn cancelling_next_loses_nothing(log: Arc<dyn FeatureLog>) {
    const COUNT: usize = 300;
    let name = new_log(&*log, "cancel", 1).await;
    let mut tail = log.tail(&name, 0, 0).await.unwrap();
    let writer = async {
        for i in 0..COUNT {
            append(&*log, &name, 0, &i.to_string()).await;
        }
    };
    let reader = async {
        let (mut seen, mut wait) = (Vec::new(), 0);
        while seen.len() < COUNT {
            wait = (wait + 7) % 400;
            if let Ok(batch) = tokio::time::timeout(Duration::from_micros(wait), tail.next()).await {
                seen.extend(values(&batch.unwrap().records));
            }
        }
        seen
    };
    let (seen, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(reader, writer) }).await.unwrap();
    assert_eq!(seen, (0..COUNT).map(|i| i.to_string()).collect::<Vec<_>>());
}

async fn a_cancelled_append_disturbs_no_other(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "cancelled", 2).await;
    let appends = (0..100).map(|i: u32| {
        let (log, name) = (log.clone(), name.clone());
        async move {
            let both = vec![record(&name, 0, i.to_string()), record(&name, 1, i.to_string())];
            let impatient = Duration::from_micros(u64::from(i) * 10);
            match i % 2 {
                0 => log.append(both).await.map(|_| Some(i)).unwrap(),
                _ => tokio::time::timeout(impatient, log.append(both)).await.ok().map(|r| r.map(|_| i).unwrap()),
            }
        }
    });
    let answered: BTreeSet<String> = join_all(appends).await.into_iter().flatten().map(|i| i.to_string()).collect();
    assert!(answered.len() >= 50);
    append(&*log, &name, 0, "last").await;
    append(&*log, &name, 1, "last").await;
    let mut seen = [Vec::new(), Vec::new()];
    for (partition, seen) in seen.iter_mut().enumerate() {
        let mut tail = log.tail(&name, partition as PartitionId, 0).await.unwrap();
        while seen.last().is_none_or(|v| v != "last") {
            seen.extend(values(&tail.next().await.unwrap().records));
        }
        let unique: BTreeSet<String> = seen.iter().cloned().collect();
        assert_eq!(unique.len(), seen.len(), "nothing twice");
        assert!(answered.is_subset(&unique));
    }
    assert_eq!(BTreeSet::from_iter(&seen[0]), BTreeSet::from_iter(&seen[1]), "whole appends only");
}

async fn what_is_cut_is_gone(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "cut", 2).await;
    let appended = log.append((0..6).map(|i| record(&name, 0, i.to_string())).collect()).await.unwrap();
    append(&*log, &name, 1, "untouched").await;
    let mut behind = log.tail(&name, 0, 0).await.unwrap();

    log.cut(&name, 0, appended[4]).await.unwrap();
    let range = log.range(&name, 0).await.unwrap();
    assert_eq!(range.start, appended[4]);
    assert_mismatch(log.tail(&name, 0, appended[3]).await);
    assert_eq!(values(&read_all(&*log, &name, 0, 2).await), ["4", "5"]);
    assert_eq!(values(&read_all(&*log, &name, 1, 1).await), ["untouched"]);
    // A tail may have read ahead; if it has not, it is told.
    match tokio::time::timeout(PATIENCE, behind.next()).await.unwrap() {
        Ok(batch) => assert_eq!(batch.records[0].offset, appended[0]),
        Err(e) => assert!(matches!(e, LogError::Mismatch { .. }), "{e}"),
    }

    log.cut(&name, 0, appended[1]).await.unwrap();
    assert_eq!(log.range(&name, 0).await.unwrap().start, range.start, "a cut before the cut changes nothing");
    assert_mismatch(log.cut(&name, 0, range.end + 1000).await);
    assert_not_found(log.cut(&name, 2, 0).await);
}

async fn offsets_are_never_used_twice(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "reused", 1).await;
    let mut last = None;
    for round in 0..3 {
        let offset = append(&*log, &name, 0, &round.to_string()).await;
        assert!(last < Some(offset));
        last = Some(offset);
        let end = log.range(&name, 0).await.unwrap().end;
        log.cut(&name, 0, end).await.unwrap();
        assert_eq!(log.range(&name, 0).await.unwrap(), end..end);
        assert_silent(&mut *log.tail(&name, 0, end).await.unwrap()).await;
    }
}

async fn large_records_pass_and_larger_ones_do_not(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "large", 1).await;
    let large = |bytes: usize| Bytes::from((0..bytes).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>());
    let most = log.max_value_bytes();
    assert!(most >= 4 << 20);
    let sizes = [3 << 20, 10, most.min(8 << 20)];
    for size in sizes {
        log.append(vec![record(&name, 0, large(size))]).await.unwrap();
    }
    log.append(sizes.map(|size| record(&name, 0, large(size))).into()).await.unwrap();
    let read = read_all(&*log, &name, 0, 6).await;
    for (record, size) in read.iter().zip(sizes.iter().cycle()) {
        assert!(record.value == Some(large(*size)));
    }

    for records in
        [vec![record(&name, 0, large(most + 1))], vec![record(&name, 0, "x"), record(&name, 0, large(most + 1))]]
    {
        let refused = log.append(records).await;
        assert!(matches!(refused, Err(LogError::TooLarge { limit, .. }) if limit == most), "{refused:?}");
    }
    append(&*log, &name, 0, "after").await;
    assert_eq!(read_all(&*log, &name, 0, 7).await.len(), 7, "of a refused append nothing is there");
}

async fn many_writers_keep_their_order(log: Arc<dyn FeatureLog>) {
    const WRITERS: usize = 64;
    const ROUNDS: usize = 10;
    let name = new_log(&*log, "many", 2).await;
    let writers = (0..WRITERS).map(|w| {
        let (log, name) = (log.clone(), name.clone());
        tokio::spawn(async move {
            let mut appended = [Vec::new(), Vec::new()];
            for round in 0..ROUNDS {
                let places: &[usize] = if round % 3 == 0 { &[0, 1, 0] } else { &[w % 2] };
                let records = places.iter().map(|p| record(&name, *p as PartitionId, format!("{w}:{round}"))).collect();
                for (place, offset) in places.iter().zip(log.append(records).await.unwrap()) {
                    appended[*place].push((offset, format!("{w}:{round}")));
                }
            }
            appended
        })
    });
    let mut expected = [Vec::new(), Vec::new()];
    for appended in join_all(writers).await {
        for (all, of_writer) in expected.iter_mut().zip(appended.unwrap()) {
            assert!(of_writer.is_sorted(), "a writer's records are in its order");
            all.extend(of_writer);
        }
    }
    for (partition, mut expected) in expected.into_iter().enumerate() {
        expected.sort();
        let records = read_all(&*log, &name, partition as PartitionId, expected.len()).await;
        let seen: Vec<_> = offsets(&records).into_iter().zip(values(&records)).collect();
        assert!(seen == expected, "what is read stands where the writers were told");
    }
}

async fn a_long_log_is_read_in_bounded_batches(log: Arc<dyn FeatureLog>) {
    const APPENDS: usize = 20;
    let name = new_log(&*log, "long", 1).await;
    for a in 0..APPENDS {
        let value = |i| Bytes::from(format!("{:0500}", a * 1000 + i));
        log.append((0..1000).map(|i| record(&name, 0, value(i))).collect()).await.unwrap();
    }
    let mut tail = log.tail(&name, 0, 0).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < APPENDS * 1000 {
        let batch = tokio::time::timeout(PATIENCE, tail.next()).await.unwrap().unwrap();
        assert!(batch.records.len() <= 5000 && batch.records.len() * 500 < 2 << 20, "{}", batch.records.len());
        seen.extend(values(&batch.records).iter().map(|v| v.parse::<usize>().unwrap()));
    }
    assert!(seen.into_iter().eq(0..APPENDS * 1000));
}

async fn a_removed_log_is_gone_and_starts_afresh(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "removed", 2).await;
    append(&*log, &name, 0, "old").await;
    append(&*log, &name, 1, "old").await;
    log.remove(&name).await.unwrap();
    assert_not_found(log.append(vec![record(&name, 0, "x")]).await);
    assert_not_found(log.append(vec![record(&name, 0, "x"), record(&name, 1, "x")]).await);
    assert_not_found(log.range(&name, 0).await);
    log.remove(&name).await.unwrap();

    log.create(&name, 1).await.unwrap();
    assert_eq!(log.range(&name, 0).await.unwrap(), 0..0);
    append(&*log, &name, 0, "new").await;
    assert_eq!(values(&read_all(&*log, &name, 0, 1).await), ["new"]);
}

async fn append_times_never_fall(log: Arc<dyn FeatureLog>) {
    let name = new_log(&*log, "times", 1).await;
    let before = now_ms();
    for _ in 0..5 {
        append(&*log, &name, 0, "x").await;
        log.append(vec![record(&name, 0, "x"), record(&name, 0, "x")]).await.unwrap();
    }
    let times: Vec<i64> = read_all(&*log, &name, 0, 15).await.iter().map(|r| r.append_time_ms).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times[0] >= before - 1000 && times[14] <= now_ms() + 1000, "{before} {times:?}");
}

fn now_ms() -> i64 {
    alluvium::clock::Clock::now_ms(&alluvium::clock::SystemClock)
}

/// What only the embedded log promises: it survives, with all that was answered.
mod embedded {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use alluvium::clock::{Clock, ManualClock, SystemClock};
    use alluvium::log::embedded::EmbeddedLog;

    use super::*;

    fn open(dir: &Path) -> EmbeddedLog {
        EmbeddedLog::open(dir, Arc::new(SystemClock)).unwrap()
    }

    #[tokio::test]
    async fn everything_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        log.create("ships", 2).await.unwrap();
        log.create("gone", 1).await.unwrap();
        append(&log, "gone", 0, "x").await;
        log.remove("gone").await.unwrap();
        log.append((0..3000).map(|i| record("ships", 0, i.to_string())).collect()).await.unwrap();
        append(&log, "ships", 1, "only").await;
        log.cut("ships", 0, 1500).await.unwrap();
        log.cut("ships", 1, 1).await.unwrap();
        drop(log);

        let log = open(dir.path());
        assert_not_found(log.range("gone", 0).await);
        assert_eq!(log.range("ships", 0).await.unwrap(), 1500..3000);
        let records = read_all(&log, "ships", 0, 1500).await;
        assert!(records.iter().all(|r| r.value == Some(Bytes::from(r.offset.to_string()))));
        assert_eq!(log.range("ships", 1).await.unwrap(), 1..1);
        assert_eq!(append(&log, "ships", 1, "next").await, 1);
        log.create("gone", 2).await.unwrap();
        assert_eq!(append(&log, "gone", 0, "new").await, 0);
    }

    #[tokio::test]
    async fn append_times_rise_across_a_restart_with_a_clock_that_went_back() {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(1000);
        for (now, expected) in
            [(1000, [1000, 1005].as_slice()), (400, &[1000, 1005, 1005, 1005]), (2000, &[2000, 2005])]
        {
            clock.advance_ms(now - clock.now_ms());
            let log = EmbeddedLog::open(dir.path(), Arc::new(clock.clone())).unwrap();
            log.create("ships", 1).await.unwrap();
            append(&log, "ships", 0, "x").await;
            clock.advance_ms(5);
            append(&log, "ships", 0, "x").await;
            let range = log.range("ships", 0).await.unwrap();
            let records = read_all(&log, "ships", 0, (range.end - range.start) as usize).await;
            assert_eq!(records.iter().map(|r| r.append_time_ms).collect::<Vec<_>>(), expected);
            if now == 400 {
                log.cut("ships", 0, range.end).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_directory_is_opened_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        assert!(matches!(EmbeddedLog::open(dir.path(), Arc::new(SystemClock)), Err(LogError::Unavailable(_))));
        log.create("ships", 1).await.unwrap();
        let mut tail = log.tail("ships", 0, 0).await.unwrap();
        drop(log);
        assert!(tail.next().await.is_err(), "a tail ends with its log");
        drop(tail);
        open(dir.path());
    }

    const KILLED: &str = "ALLUVIUM_TEST_KILLED_LOG";

    /// Not a test by itself: the process that the next test kills. Says which appends were answered.
    #[tokio::test(flavor = "multi_thread")]
    async fn appends_until_it_is_killed() {
        let Some(dir) = std::env::var_os(KILLED) else { return };
        let log = Arc::new(open(Path::new(&dir)));
        log.create("ships", 2).await.unwrap();
        let writers = (0..8).map(|w| {
            let log = log.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let both = [0, 1].map(|p| record("ships", p, format!("{w}:{i}")));
                    let offsets = log.append(both.into()).await.unwrap();
                    println!("answered {w}:{i} {} {}", offsets[0], offsets[1]);
                }
            })
        });
        join_all(writers).await;
    }

    #[tokio::test]
    async fn what_was_answered_survives_kill_9() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "log::embedded::appends_until_it_is_killed", "--nocapture"])
                .env(KILLED, dir.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
            let mut answered: Vec<String> =
                lines.by_ref().filter(|l| l.starts_with("answered ")).take(200 + 100 * round).collect();
            child.kill().unwrap(); // SIGKILL
            let rest = lines.filter(|l| l.starts_with("answered ") && l.split(' ').count() == 4);
            answered.extend(rest);
            child.wait().unwrap();

            let log = open(dir.path());
            let mut partitions = Vec::new();
            for partition in 0..2 {
                let end = log.range("ships", partition).await.unwrap().end;
                partitions.push(values(&read_all(&log, "ships", partition, end as usize).await));
            }
            assert_eq!(partitions[0], partitions[1], "whole appends only");
            for line in &answered {
                let fields: Vec<&str> = line.split(' ').collect();
                for (partition, offset) in partitions.iter().zip(&fields[2..]) {
                    assert_eq!(partition.get(offset.parse::<usize>().unwrap()).map(String::as_str), Some(fields[1]));
                }
            }
        }
    }
}

/// What only Kafka's log has to be asked.
#[cfg(feature = "cluster")]
mod kafka {
    use alluvium::log::kafka::{KafkaLog, KafkaSettings};
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::real;

    pub fn settings() -> Option<KafkaSettings> {
        let topic_prefix = "alluvium_test.".to_owned();
        Some(KafkaSettings { brokers: real::server("ALLUVIUM_KAFKA")?, topic_prefix, ..KafkaSettings::default() })
    }

    pub async fn connect(settings: KafkaSettings) -> KafkaLog {
        KafkaLog::connect(settings).await.unwrap()
    }

    /// A producer with an open transaction that has sent `values` to a log's first partition.
    fn open_transaction(settings: &KafkaSettings, name: &str, values: &[&str]) -> BaseProducer {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &settings.brokers)
            .set("transactional.id", unique("other"))
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for value in values {
            let topic = format!("{}{name}", settings.topic_prefix);
            producer.send(BaseRecord::<str, str>::to(&topic).partition(0).key("key").payload(value)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        producer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_open_transaction_is_not_read_and_an_aborted_one_never() {
        let Some(settings) = settings() else { return };
        let log = connect(settings.clone()).await;
        let name = new_log(&log, "transactions", 1).await;
        let mut tail = log.tail(&name, 0, 0).await.unwrap();

        let producer = open_transaction(&settings, &name, &["a", "b"]);
        append(&log, &name, 0, "after a and b").await;
        assert_silent(&mut *tail).await;
        assert_eq!(log.range(&name, 0).await.unwrap(), 0..3, "the end counts what may yet be committed");
        producer.commit_transaction(PATIENCE).unwrap();
        assert_eq!(values(&read(&mut *tail, 3).await), ["a", "b", "after a and b"]);

        let producer = open_transaction(&settings, &name, &["c", "d"]);
        producer.abort_transaction(PATIENCE).unwrap();
        // Nothing comes after what was aborted, and the end is reached all the same.
        let end = log.range(&name, 0).await.unwrap().end;
        let mut next = 0;
        while next < end {
            let batch = tokio::time::timeout(PATIENCE, tail.next()).await.expect("the end is reached").unwrap();
            assert_eq!(values(&batch.records), Vec::<String>::new());
            next = batch.next;
        }
        append(&log, &name, 0, "e").await;
        assert_eq!(values(&read(&mut *tail, 1).await), ["e"]);
        assert_eq!(values(&read_all(&log, &name, 0, 4).await), ["a", "b", "after a and b", "e"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_topic_that_would_lose_records_is_refused() {
        use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
        let Some(settings) = settings() else { return };
        let log = connect(settings.clone()).await;
        let name = unique("lossy");
        let topic = format!("{}{name}", settings.topic_prefix);
        let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap();
        let lossy = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
        admin.create_topics(&[lossy], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        let Err(LogError::Mismatch { what, .. }) = log.create(&name, 1).await else { panic!("it was taken") };
        for setting in ["cleanup.policy", "message.timestamp.type"] {
            assert!(what.contains(setting), "{what}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_that_another_instance_removed_is_not_brought_back() {
        let Some(settings) = settings() else { return };
        let (log, other) = (connect(settings.clone()).await, connect(settings).await);
        let name = new_log(&log, "elsewhere", 1).await;
        append(&log, &name, 0, "x").await;
        append(&other, &name, 0, "y").await;
        let mut tail = log.tail(&name, 0, 0).await.unwrap();
        read(&mut *tail, 2).await;
        other.remove(&name).await.unwrap();
        assert!(log.append(vec![record(&name, 0, "z")]).await.is_err());
        assert_not_found(log.append(vec![record(&name, 0, "z"), record(&name, 0, "z")]).await);
        assert_not_found(log.append(vec![record(&name, 0, "z")]).await);
        assert_not_found(log.range(&name, 0).await);
        let told = tokio::time::timeout(PATIENCE, async { while tail.next().await.is_ok() {} }).await;
        assert!(told.is_ok(), "the tail says so");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_broker_nothing_is_appended_and_all_ends_in_time() {
        // A port that nothing listens on; no real server is needed.
        let settings = KafkaSettings { brokers: "127.0.0.1:1".to_owned(), ..KafkaSettings::default() };
        let connected = tokio::time::timeout(PATIENCE, KafkaLog::connect(settings)).await.expect("an answer in time");
        assert!(matches!(connected, Err(LogError::Unavailable(_))));
    }
}
