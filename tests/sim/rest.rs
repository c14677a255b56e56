//! The end of a run: nobody writes and nothing goes wrong any more, and everything must come to rest by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alluvium::delegate::Delegate;
use alluvium::log::FeatureLog;
use alluvium::model::{Feature, FeatureType, Value};
use alluvium::query::{Filter, Operand, Query};
use alluvium::store::{Action, ActionKind, FeatureChanges, Transaction};
use tokio::time::{sleep, timeout};

use crate::clients::FEW;
use crate::oracle::Features;
use crate::recorded::{Rest, TypeAtRest, of_ours};
use crate::world::{INSTANCES, LOG_WINDOW, World};

/// Simulated time in which everything must have become quiet.
const QUIET: Duration = Duration::from_secs(120);

/// Waits until it is quiet, and looks around.
pub async fn come(world: &World) -> Rest {
    let quiet = timeout(QUIET, async {
        if world.plan.refuses {
            mend(world).await;
        }
        while !is_quiet(world) {
            sleep(Duration::from_millis(500)).await;
        }
    });
    let unrest = quiet.await.is_err().then(|| {
        let status = |n| world.instance(n).map(|i| i.store.status());
        format!("{:?}", (0..INSTANCES).map(status).collect::<Vec<_>>())
    });
    if unrest.is_none() {
        // The log is cut a window later, by whom has the lease for so long.
        sleep(LOG_WINDOW * 2).await;
    }
    let mut rest = Rest { unrest, ..Rest::default() };
    for ft in &world.types {
        rest.types.insert(ft.name.clone(), look(world, ft).await);
    }
    rest
}

/// What the delegate has refused stays where it is until somebody mends it.
async fn mend(world: &World) {
    // Every record that was under way is there then.
    sleep(LOG_WINDOW).await;
    if world.plan.tables_are_mended {
        return world.delegate.refuses.store(false, Ordering::Relaxed);
    }
    for ft in &world.types {
        let not_null = FeatureChanges { geometry: None, properties: vec![(FEW, Value::Int(0))] };
        let kind = ActionKind::Update { filter: Filter::IsNull(Operand::Property(FEW)), changes: not_null };
        let actions = vec![Action { feature_type: ft.name.clone(), kind }];
        let transaction = Transaction { actions, ..Transaction::default() };
        while let Some(instance) = world.instance(0)
            && instance.store.write(transaction.clone()).await.is_err()
        {
            sleep(Duration::from_millis(500)).await;
        }
    }
}

fn is_quiet(world: &World) -> bool {
    (0..INSTANCES)
        .all(|n| world.instance(n).is_some_and(|i| i.store.status().iter().all(|p| p.ready && p.index_features == 0)))
}

async fn look(world: &World, ft: &Arc<FeatureType>) -> TypeAtRest {
    let mut at_rest = TypeAtRest { rows: rows(world, ft).await, ..TypeAtRest::default() };
    at_rest.tails = world.delegate.inner.tails(ft);
    at_rest.watermarks = world.delegate.inner.watermarks(ft).await.unwrap();
    for partition in 0..ft.partitions {
        at_rest.log.push(world.log.inner.range(&ft.log_name(), partition).await.unwrap());
    }
    for instance in (0..INSTANCES).filter_map(|n| world.instance(n)) {
        let query = Query { feature_type: ft.name.clone(), any_order: true, ..Query::default() };
        let answer = match instance.store.read(query).await {
            Ok(reading) => reading.all().await,
            Err(e) => Err(e),
        };
        let mut features = Features::new();
        match answer {
            Ok(items) => {
                let as_last = |f: &Feature| world.logs.lock().of(&ft.name).as_last(f);
                features.extend(
                    items.into_iter().map(|i| (i.feature.id.to_string(), (as_last(&i.feature), of_ours(i.version)))),
                );
            }
            Err(e) => world.wrong(format!("at rest a read was answered {e}")),
        }
        at_rest.answers.push(features);
        let of_type = instance.store.status().into_iter().filter(|p| p.feature_type == ft.name);
        at_rest.index.push(of_type.map(|p| p.index_features).sum());
    }
    at_rest
}

async fn rows(world: &World, ft: &Arc<FeatureType>) -> Features {
    let mut snapshot = world.delegate.inner.snapshot(ft).await.unwrap();
    let mut rows = snapshot.scan(Default::default()).await.unwrap();
    let mut features = Features::new();
    while let Some(batch) = futures::StreamExt::next(&mut rows).await {
        let as_last = |f: &Feature| world.logs.lock().of(&ft.name).as_last(f);
        features.extend(
            batch.unwrap().into_iter().map(|r| (r.feature.id.to_string(), (as_last(&r.feature), of_ours(r.version)))),
        );
    }
    features
}
