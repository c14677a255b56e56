//! A reader: whole answers, pages and counts, of both tiers or of one, slowly, from any instance.

use std::sync::Arc;
use std::time::Duration;

use alluvium::model::Position;
use alluvium::query::{Cursor, Query, SortKey, TierChoice};
use alluvium::store::ReadError;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::{FEW, some_filter};
use crate::recorded::{Read, of_ours};
use crate::world::{INSTANCES, Instance, World};

pub async fn read(world: Arc<World>, client: u64) {
    let mut rng = StdRng::seed_from_u64(world.plan.seed.wrapping_mul(37).wrapping_add(client));
    let mut last: Option<Cursor> = None;
    while world.weather.is_bad() {
        sleep(Duration::from_millis(rng.random_range(1..900))).await;
        let at = rng.random_range(0..INSTANCES);
        let Some(instance) = world.instance(at) else { continue };
        let query = some_query(&mut rng, &world, last.take());
        let reading = collect(&world, &instance, &mut rng, query.clone(), client, at);
        let Some(read) = instance.unless_it_crashes(reading).await.flatten() else { continue };
        world.tell(|| {
            let ids: Vec<String> = read.items.iter().map(|(f, version)| format!("{}@{version}", f.id)).collect();
            format!("reader {client} at {at}: {:?} at {:?} -> {ids:?}", read.query, read.position)
        });
        if !query.any_order && query.limit.is_some() {
            last = read.items.last().map(|(f, _)| Cursor::of(f, &query.sort));
        }
        world.events.lock().reads.push(read);
    }
}

fn some_query(rng: &mut StdRng, world: &World, after: Option<Cursor>) -> Query {
    let any_order = rng.random_bool(0.5);
    let mut query = Query {
        feature_type: world.types[rng.random_range(0..world.types.len())].name.clone(),
        filter: some_filter(rng, world.plan.ids),
        any_order,
        tier: match rng.random_range(0..8) {
            0 => TierChoice::Transient,
            1 => TierChoice::Persistent,
            _ => TierChoice::Merged,
        },
        // What any other client was told last: across a load balancer.
        at_least: if rng.random_bool(0.3) { world.newest.lock().clone() } else { Position::default() },
        ..Query::default()
    };
    if !any_order {
        if rng.random_bool(0.5) {
            query.sort = vec![SortKey { property: FEW, descending: rng.random_bool(0.5) }];
        }
        if rng.random_bool(0.3) {
            query.limit = Some(rng.random_range(1..4));
            query.start = rng.random_range(0..3);
        }
        query.after = after.filter(|cursor| cursor.values.len() == query.sort.len());
    }
    query
}

/// Reads slowly; `None` when the answer was that there is none now.
async fn collect(
    world: &World,
    instance: &Instance,
    rng: &mut StdRng,
    query: Query,
    client: u64,
    at: usize,
) -> Option<Read> {
    let promised = world.offsets(&query.feature_type, &query.at_least);
    let mut reading = match instance.store.read(query.clone()).await {
        Ok(reading) => reading,
        Err(ReadError::Unavailable(_) | ReadError::Behind) => return None,
        Err(e) => {
            world.wrong(format!("a read was answered {e}: {query:?}"));
            return None;
        }
    };
    let position = world.offsets(&query.feature_type, &reading.position);
    let mut counts = Vec::new();
    if rng.random_bool(0.3) {
        counts.extend(reading.count(None).await.ok()?);
    }
    let mut items = Vec::new();
    while let Some(item) = reading.next().await {
        if rng.random_bool(0.2) {
            sleep(Duration::from_millis(rng.random_range(1..1_500))).await;
        }
        let item = item.ok()?;
        items.push((world.logs.lock().of(&query.feature_type).as_last(&item.feature), of_ours(item.version)));
    }
    if rng.random_bool(0.2) {
        counts.extend(reading.count(None).await.ok()?);
    }
    if rng.random_bool(0.3) {
        world.newest.lock().merge(&reading.position);
    }
    Some(Read { client, at, query, promised, position, items, counts })
}
