//! Writers and readers, each with a chance of its own, who hold what they are told against the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alluvium::model::{Feature, Geometry, Offset, Position, Rect, Value};
use alluvium::query::{CompareOp, Filter, Operand, Query, SortKey, TierChoice};
use alluvium::store::{Action, ActionKind, Existing, FeatureChanges, ReadError, Store, Transaction, WriteError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use crate::oracle::{State, matching};
use crate::world::{INSTANCES, World};

const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn some_ids(rng: &mut StdRng) -> Vec<&'static str> {
    let n = if rng.random_bool(0.8) { 1 } else { 3 };
    (0..n).map(|_| IDS[rng.random_range(0..IDS.len())]).collect()
}

fn feature(rng: &mut StdRng, id: &str, n: i64) -> Feature {
    let x = f64::from(rng.random_range(0..4_u8));
    Feature {
        id: id.into(),
        geometry: Geometry::point(x, 0.0).ok(),
        properties: vec![Value::Int(n % 3), Value::Int(n)],
    }
}

/// The offsets of a position of `ships`.
fn offset(world: &World, position: &Position) -> Offset {
    position.offsets("ships", &world.ft.incarnation).ok().flatten().map_or(0, |o| o[0])
}

pub async fn write(world: Arc<World>, client: u64) {
    let mut rng = StdRng::seed_from_u64(world.plan.seed.wrapping_mul(31).wrapping_add(client));
    let mut acknowledged: Vec<(Offset, Vec<String>)> = Vec::new();
    let mut n = client as i64 * 1_000_000;
    // Some writers are busy, others let features rest until they age.
    let pace = [150, 700, 3_000][rng.random_range(0..3)];
    while world.faults_on.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.random_range(1..pace))).await;
        n += 1;
        let at = rng.random_range(0..INSTANCES);
        let ids = some_ids(&mut rng);
        let kind = action(&mut rng, &ids, n);
        let Some(store) = world.instance(at) else { continue };
        let told = format!("writer {client} at {at}: {kind:?}");
        let transaction =
            Transaction { actions: vec![Action { feature_type: "ships".into(), kind }], ..Transaction::default() };
        match store.write(transaction).await {
            Ok(written) => {
                let end = offset(&world, &written.position);
                world.tell(|| format!("{told} -> before {end}, applied {}", written.applied));
                world.count(|o| o.writes += 1);
                let ids: Vec<String> = written.ids.concat().iter().map(ToString::to_string).collect();
                if end > 0 {
                    acknowledged.push((end - 1, ids.clone()));
                }
                if written.applied && !store.status().iter().all(|p| p.applied >= end) {
                    world.violated(format!("told to be applied before {end}, and is not"));
                }
            }
            Err(WriteError::OutcomeUnknown(_) | WriteError::Unavailable(_) | WriteError::Read(_)) => {}
            Err(e) => world.violated(format!("{told} -> {e}")),
        }
    }
    let history = world.history();
    for (offset, ids) in acknowledged {
        if !ids.iter().all(|id| history.has(offset, id)) {
            world.violated(format!("I1: acknowledged at {offset} and not in the log: {ids:?}"));
        }
    }
}

fn action(rng: &mut StdRng, ids: &[&str], n: i64) -> ActionKind {
    let filter = Filter::ids(ids.iter().map(|id| (*id).into()));
    match rng.random_range(0..100) {
        0..40 => {
            let features = ids.iter().map(|id| feature(rng, id, n)).collect();
            ActionKind::Insert { features, existing: Existing::Replace }
        }
        40..80 => {
            let mut changes = FeatureChanges { geometry: None, properties: vec![(1, Value::Int(n))] };
            if rng.random_bool(0.3) {
                changes.properties = vec![(0, Value::Int(n % 3))];
            }
            if rng.random_bool(0.3) {
                changes.geometry = Some(Geometry::point(f64::from(rng.random_range(0..4_u8)), 0.0).ok());
            }
            ActionKind::Update { filter, changes }
        }
        _ => ActionKind::Delete { filter },
    }
}

fn some_filter(rng: &mut StdRng) -> Filter {
    let x = f64::from(rng.random_range(0..4_u8));
    let a = rng.random_range(0..3_i64);
    match rng.random_range(0..5) {
        0 => Filter::All,
        1 => Filter::Bbox(Rect { min_x: x - 0.1, min_y: -1.0, max_x: x + 1.1, max_y: 1.0 }),
        2 => Filter::ids(some_ids(rng).into_iter().map(Into::into)),
        3 => Filter::Not(Box::new(equal(a))),
        _ => equal(a),
    }
}

fn equal(a: i64) -> Filter {
    Filter::Compare {
        op: CompareOp::Equal,
        left: Operand::Property(0),
        right: Operand::Literal(Value::Int(a)),
        match_case: true,
    }
}

pub async fn read(world: Arc<World>, client: u64) {
    let mut rng = StdRng::seed_from_u64(world.plan.seed.wrapping_mul(37).wrapping_add(client));
    let mut last: [Offset; INSTANCES] = [0; INSTANCES];
    while world.faults_on.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.random_range(1..900))).await;
        let at = rng.random_range(0..INSTANCES);
        let Some(store) = world.instance(at) else { continue };
        let filter = some_filter(&mut rng);
        if rng.random_bool(0.2) {
            count(&world, &store, filter).await;
            continue;
        }
        let query = Query {
            feature_type: "ships".into(),
            filter: filter.clone(),
            any_order: rng.random_bool(0.5),
            sort: if rng.random_bool(0.3) {
                vec![SortKey { property: 0, descending: rng.random_bool(0.5) }]
            } else {
                Vec::new()
            },
            ..Query::default()
        };
        let Some((position, answer)) = collect(&world, &store, &mut rng, query, at).await else { continue };
        world.count(|o| o.reads += 1);
        let history = world.history();
        let expected = matching(&history.at(position), &filter);
        world.tell(|| format!("reader {client} at {at}: {filter:?} at {position} -> {} features", answer.len()));
        if answer != expected {
            world.violated(format!(
                "I2/I3: at position {position} instance {at} answers {answer:?}\n the log says {expected:?}\n filter {filter:?}"
            ));
        }
        // Not even over a restart: an instance answers when it has come to the log's end as of its start.
        if last[at] > position {
            world.violated(format!("I2: instance {at} went back from {} to {position}", last[at]));
        }
        last[at] = position;
    }
}

/// Reads slowly; `None` when the answer was that there is none now.
async fn collect(
    world: &World,
    store: &Arc<Store>,
    rng: &mut StdRng,
    query: Query,
    at: usize,
) -> Option<(Offset, State)> {
    let sorted = !query.any_order;
    let sort = query.sort.clone();
    let mut reading = match store.read(query).await {
        Ok(reading) => reading,
        Err(ReadError::Unavailable(_) | ReadError::Behind | ReadError::UnknownType(_)) => return None,
        Err(e) => {
            world.violated(format!("a read was answered {e}"));
            return None;
        }
    };
    let position = offset(world, &reading.position);
    let before = if rng.random_bool(0.3) { reading.count(None).await.ok()? } else { None };
    let mut answer = State::new();
    let mut previous: Option<Arc<Feature>> = None;
    while let Some(item) = reading.next().await {
        if rng.random_bool(0.2) {
            sleep(Duration::from_millis(rng.random_range(1..1_500))).await;
        }
        let item = item.ok()?;
        if sorted && previous.is_some_and(|p| alluvium::query::compare(&p, &item.feature, &sort).is_ge()) {
            world.violated(format!("instance {at} answers out of order"));
        }
        previous = Some(item.feature.clone());
        let id = item.feature.id.to_string();
        if answer.insert(id.clone(), ((*item.feature).clone(), item.version)).is_some() {
            world.violated(format!("I2: '{id}' came twice"));
        }
    }
    let after = if rng.random_bool(0.3) { reading.count(None).await.ok()? } else { None };
    if [before, after].into_iter().flatten().any(|n| n != answer.len() as u64) {
        world.violated(format!(
            "I2: counted {before:?} before and {after:?} behind {} features of one read",
            answer.len()
        ));
    }
    Some((position, answer))
}

/// A count, and the sum of the tiers, must be those of some position between its beginning and its end.
async fn count(world: &World, store: &Arc<Store>, filter: Filter) {
    let applied = |s: &Store| s.status().first().map_or(0, |p| p.applied);
    let query =
        Query { feature_type: "ships".into(), filter: filter.clone(), tier: TierChoice::Merged, ..Query::default() };
    let from = applied(store);
    let Ok(Some(counted)) = store.count(&query, None).await else { return };
    let to = applied(store);
    world.count(|o| o.reads += 1);
    let history = world.history();
    let possible: Vec<u64> = (from..=to).map(|p| matching(&history.at(p), &filter).len() as u64).collect();
    if !possible.contains(&counted) {
        world.violated(format!(
            "I2: counted {counted} between {from} and {to}, the log says {possible:?} for {filter:?}"
        ));
    }
}
