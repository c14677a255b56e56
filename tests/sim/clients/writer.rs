//! A writer: transactions of one or more actions, on one or more types, to any instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alluvium::model::{Append, Change, Expected, FeatureId, FeatureType, Position, Value};
use alluvium::query::Filter;
use alluvium::store::{Action, ActionKind, Existing, FeatureChanges, Store, Transaction, WriteError, Written};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::{FEW, NUMBERS, applied, few, late, some_feature, some_filter, some_fixes, some_ids, some_point};
use crate::recorded::{Ends, Told, Write, of_ours};
use crate::world::{INSTANCES, Instance, World};

pub async fn write(world: Arc<World>, client: u64) {
    let mut rng = StdRng::seed_from_u64(world.plan.seed.wrapping_mul(31).wrapping_add(client));
    let mut number = client as i64 * 1_000_000;
    // Some writers are busy, others let features rest until they age.
    let pace = world.plan.pace[client as usize % world.plan.pace.len()];
    while world.weather.is_bad() {
        sleep(Duration::from_millis(rng.random_range(1..pace))).await;
        number += 1;
        let at = rng.random_range(0..INSTANCES);
        let Some(instance) = world.instance(at) else { continue };
        let asked = if rng.random_bool(world.plan.conditional) {
            some_condition(&mut rng, &world, &instance, number).await
        } else {
            let at_least = if rng.random_bool(0.2) { world.newest.lock().clone() } else { Position::default() };
            Asked::All(Transaction { actions: some_actions(&mut rng, &world, &instance, number), at_least })
        };
        let (types, conditional, leaves_number) = (asked.types(), asked.is_conditional(), asked.leaves_number());
        let what = format!("writer {client} at {at}, write {number}: {asked:?}");
        world.tell(|| what.clone());
        let answer = instance.unless_it_crashes(asked.of(&instance.store)).await;
        let told = match answer {
            None | Some(Err(WriteError::OutcomeUnknown(_))) => Told::Unknown,
            Some(Ok(written)) => {
                world.newest.lock().merge(&written.position);
                // One that has begun anew since shows nothing before it has caught up.
                let shows = written.applied && instance.store.is_ready();
                let here = shows.then(|| applied(&instance.store));
                as_told(&world, &types, &written, here)
            }
            Some(Err(e @ (WriteError::Unavailable(_) | WriteError::Read(_) | WriteError::Exists { .. }))) => {
                Told::NotWritten(e.to_string())
            }
            Some(Err(WriteError::NotAsExpected { .. })) if conditional => Told::NotAsExpected,
            Some(Err(e)) => {
                world.wrong(format!("{what} -> {e}"));
                Told::NotWritten(e.to_string())
            }
        };
        world.tell(|| format!("writer {client}, write {number} -> {told:?}"));
        world.events.lock().writes.push(Write { number, conditional, leaves_number, what, told });
    }
}

#[derive(Debug)]
enum Asked {
    All(Transaction),
    If(String, Expected, Change),
}

impl Asked {
    async fn of(self, store: &Store) -> Result<Written, WriteError> {
        match self {
            Asked::All(transaction) => store.write(transaction).await,
            Asked::If(name, expected, change) => store.write_if(&name, expected, change).await,
        }
    }

    /// Of each action.
    fn types(&self) -> Vec<String> {
        match self {
            Asked::All(transaction) => transaction.actions.iter().map(|a| a.feature_type.clone()).collect(),
            Asked::If(name, ..) => vec![name.clone()],
        }
    }

    fn is_conditional(&self) -> bool {
        matches!(self, Asked::If(..))
    }

    fn leaves_number(&self) -> bool {
        !matches!(self, Asked::If(_, _, Change::Delete(_)))
    }
}

/// A change of a feature in the version in which the writer has seen it just now, or of one that was not there.
async fn some_condition(rng: &mut StdRng, world: &World, instance: &Instance, number: i64) -> Asked {
    let ft = &some_type(rng, world, instance);
    let id = some_ids(rng, world.plan.ids)[0].clone();
    let at_least = Position::default();
    let seen = instance.unless_it_crashes(instance.store.get(&ft.name, &id, &at_least)).await;
    let version = seen.and_then(Result::ok).flatten().map(|(item, _)| of_ours(item.version));
    // Others may be faster.
    sleep(Duration::from_millis(rng.random_range(1..300))).await;
    let expected = match version {
        None => Expected::Absent,
        Some(_) if rng.random_bool(0.2) => Expected::Present,
        Some(version) => Expected::OneOf(vec![version]),
    };
    let change = match rng.random_range(0..4) {
        0 if version.is_some() => Change::Delete(id),
        1 if version.is_some() => {
            let changes = FeatureChanges { geometry: None, properties: some_properties(rng, ft, number) };
            Change::Patch(changes.patch(id))
        }
        _ => Change::Put(Arc::new(some_feature(rng, ft, &id, number))),
    };
    Asked::If(ft.name.clone(), expected, change)
}

fn as_told(world: &World, types: &[String], written: &Written, applied: Option<Ends>) -> Told {
    let mut ids: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (name, of_action) in types.iter().zip(&written.ids) {
        ids.entry(name.clone()).or_default().extend(of_action.iter().cloned());
    }
    Told::Written { ids, ends: world.ends(&written.position), applied }
}

/// As that instance knows it now.
fn some_type(rng: &mut StdRng, world: &World, instance: &Instance) -> Arc<FeatureType> {
    let ft = &world.types[rng.random_range(0..world.types.len())];
    instance.store.feature_type(&ft.name).unwrap_or_else(|| ft.clone())
}

fn some_actions(rng: &mut StdRng, world: &World, instance: &Instance, number: i64) -> Vec<Action> {
    let n = if rng.random_bool(0.7) { 1 } else { rng.random_range(2..=3) };
    let mut action = || {
        let ft = &some_type(rng, world, instance);
        Action { feature_type: ft.name.clone(), kind: some_kind(rng, world, ft, number) }
    };
    (0..n).map(|_| action()).collect()
}

fn some_kind(rng: &mut StdRng, world: &World, ft: &Arc<FeatureType>, number: i64) -> ActionKind {
    let ids = some_ids(rng, world.plan.ids);
    let chosen = |rng: &mut StdRng| {
        if rng.random_bool(0.15) { some_filter(rng, world.plan.ids) } else { Filter::ids(ids.iter().cloned()) }
    };
    let patches = world.plan.patches;
    match rng.random_range(0..100) {
        p if p < patches && ft.track.is_some() && rng.random_bool(0.6) => {
            let properties = some_properties(rng, ft, number);
            let properties: Vec<_> = properties.into_iter().map(|(slot, value)| (slot as u16, value)).collect();
            let mut append =
                |id: &FeatureId| Append { id: Arc::clone(id), fixes: some_fixes(rng), properties: properties.clone() };
            ActionKind::Append { appends: ids.iter().map(&mut append).collect() }
        }
        p if p < patches => {
            let geometry = (ft.track.is_none() && rng.random_bool(0.3)).then(|| some_point(rng));
            let changes = FeatureChanges { geometry, properties: some_properties(rng, ft, number) };
            ActionKind::Update { filter: chosen(rng), changes }
        }
        p if p < patches + (100 - patches) * 2 / 3 => {
            let existing = if rng.random_bool(0.15) { Existing::Refuse } else { Existing::Replace };
            let features = ids.iter().map(|id| some_feature(rng, ft, id, number)).collect();
            ActionKind::Insert { features, existing }
        }
        _ if rng.random_bool(0.2) => {
            ActionKind::Replace { feature: some_feature(rng, ft, &ids[0], number), filter: chosen(rng) }
        }
        _ => ActionKind::Delete { filter: chosen(rng) },
    }
}

/// One of the properties that tell the write, and perhaps another: so patches of the same feature differ.
fn some_properties(rng: &mut StdRng, ft: &FeatureType, number: i64) -> Vec<(usize, Value)> {
    let mut properties = vec![(NUMBERS[rng.random_range(0..2)], Value::Int(number))];
    if rng.random_bool(0.3) {
        properties.push((FEW, few(ft, number)));
    }
    if let Some(slot) = late(ft).filter(|_| rng.random_bool(0.5)) {
        properties.push((slot, Value::Int(number)));
    }
    properties
}
