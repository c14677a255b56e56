//! What the log says, told by the simplest program that can: every state that every feature ever had.
//!
//! It hears of each append as the log takes it, and forgets nothing when the log is cut.

use std::collections::BTreeMap;

use alluvium::format::record;
use alluvium::log::NewRecord;
use alluvium::model::{Change, Feature, FeatureType, Offset, PartitionId, Record, Value, partition_of};
use alluvium::query::{Filter, evaluate};

/// Features by id, each with the offset of its last change.
pub type Features = BTreeMap<String, (Feature, Offset)>;

/// One state of a feature.
#[derive(Clone, Debug)]
pub struct State {
    /// Of the record that made it; of a transaction in several records, its last one.
    pub offset: Offset,
    /// `None`: deleted.
    pub feature: Option<Feature>,
    /// Of a deleted one: of what was there before.
    pub event_time: Option<i64>,
    /// Whatever was before does not matter.
    pub full: bool,
}

/// A record of changes, as it stands in the log.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The append that it came by.
    pub append: usize,
    pub partition: PartitionId,
    pub offset: Offset,
    /// When, in milliseconds since the run began.
    pub at_ms: u64,
    pub changes: Vec<Change>,
}

/// A value that a change gave a property: of a feature that is put, one for each property.
#[derive(Clone, Debug)]
pub struct Assigned {
    pub offset: Offset,
    pub slot: usize,
    pub value: Value,
}

/// One append: how many records it had, and how many of them the log took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Append {
    pub asked: usize,
    pub taken: usize,
}

/// The log of one feature type.
pub struct TypeLog {
    /// In its last version, under which all is told.
    pub ft: FeatureType,
    /// Each feature's states in order; of a feature that only ever was patched, none.
    pub states: BTreeMap<String, Vec<State>>,
    pub assigned: BTreeMap<String, Vec<Assigned>>,
    pub records: Vec<Logged>,
    /// Each partition's end.
    pub end: Vec<Offset>,
    /// The parts of transactions that are not whole yet.
    open: BTreeMap<(PartitionId, usize), Vec<Change>>,
}

/// All logs.
pub struct Logs {
    pub types: BTreeMap<String, TypeLog>,
    pub appends: Vec<Append>,
    pub told: Vec<String>,
}

impl Logs {
    pub fn new(types: &[FeatureType]) -> Logs {
        let types = types.iter().map(|ft| (ft.name.clone(), TypeLog::new(ft))).collect();
        Logs { types, appends: Vec::new(), told: Vec::new() }
    }

    /// An append of so many records begins; its number.
    pub fn begin(&mut self, asked: usize) -> usize {
        self.appends.push(Append { asked, taken: 0 });
        self.appends.len() - 1
    }

    pub fn take(&mut self, append: usize, at_ms: u64, new: &NewRecord, offset: Offset) {
        self.appends[append].taken += 1;
        let of_type = |t: &&mut TypeLog| t.ft.log_name() == *new.log;
        let Some(log) = self.types.values_mut().find(of_type) else { return };
        let record = record::decode(Some(&new.key), Some(&new.value), &log.ft).unwrap();
        // The id of a run is the one thing that the store leaves to chance; nothing but its parts being told apart hangs on it.
        let told = match &record {
            Record::Changes { run, changes } => format!("part {} of {}, {changes:?}", run.part, run.of),
            Record::Persisted(marker) => format!("{marker:?}"),
        };
        self.told.push(format!("{}/{}/{offset} by append {append}: {told}", log.ft.name, new.partition));
        log.take(append, at_ms, new.partition, offset, record);
    }

    pub fn of(&self, feature_type: &str) -> &TypeLog {
        &self.types[feature_type]
    }
}

impl TypeLog {
    fn new(ft: &FeatureType) -> TypeLog {
        TypeLog {
            ft: ft.clone(),
            states: BTreeMap::new(),
            assigned: BTreeMap::new(),
            records: Vec::new(),
            end: vec![0; ft.partitions as usize],
            open: BTreeMap::new(),
        }
    }

    fn take(&mut self, append: usize, at_ms: u64, partition: PartitionId, offset: Offset, record: Record) {
        self.end[partition as usize] = offset + 1;
        let Record::Changes { run, changes } = record else { return };
        self.records.push(Logged { append, partition, offset, at_ms, changes: changes.clone() });
        let whole = self.open.entry((partition, append)).or_default();
        whole.extend(changes);
        if run.is_last() {
            let whole = self.open.remove(&(partition, append)).unwrap_or_default();
            whole.iter().for_each(|change| self.apply(offset, change));
        }
    }

    fn apply(&mut self, offset: Offset, change: &Change) {
        let states = self.states.entry(change.id().to_string()).or_default();
        let now = states.last().and_then(|s| s.feature.as_ref());
        let (change, conditional) = match change {
            Change::If(expected, change) => {
                let version = now.and_then(|_| states.last()).map(|s| s.offset);
                if !expected.holds(version.is_some(), version) {
                    return;
                }
                (&**change, true)
            }
            change => (change, false),
        };
        let slot = self.ft.event_time_slot();
        let there = states.last().and_then(|s| s.event_time);
        let own = slot.and_then(|slot| change.event_time(slot));
        if !conditional && own.is_some_and(|own| there.is_some_and(|there| own < there)) {
            return;
        }
        let feature = match change {
            Change::Put(f) => Some((**f).clone()),
            Change::Delete(_) => None,
            Change::Patch(patch) => match now {
                Some(feature) => Some(patch.apply(feature)),
                None => return,
            },
            Change::Append(append) => self.ft.track_shape().map(|shape| append.apply(now, &shape)),
            Change::If(..) => unreachable!("a condition within a condition"),
        };
        let all = (0..self.ft.properties.len()).map(|slot| (slot, feature.as_ref().map(|f| f.value(slot).clone())));
        let assigned: Vec<(usize, Value)> = match change {
            Change::Patch(patch) => named(&patch.properties),
            Change::Append(append) if now.is_some() => named(&append.properties),
            _ => all.map(|(slot, value)| (slot, value.unwrap_or(Value::Null))).collect(),
        };
        let list = self.assigned.entry(change.id().to_string()).or_default();
        list.extend(assigned.into_iter().map(|(slot, value)| Assigned { offset, slot, value }));
        let event_time = match &feature {
            Some(f) => slot.and_then(|slot| f.event_time(slot)),
            None => there,
        };
        let full = change.is_full() && !conditional && slot.is_none();
        states.push(State { offset, feature, event_time, full });
    }

    /// A feature as somebody had it under any version of the schema, as the last one has it.
    pub fn as_last(&self, feature: &Feature) -> Feature {
        let mut feature = feature.clone();
        (0..).zip(&mut feature.properties).for_each(|(slot, value)| self.ft.widen(slot, value));
        feature
    }

    /// The state at a position: after every record before it.
    pub fn at(&self, position: &[Offset]) -> Features {
        let mut features = Features::new();
        for id in self.states.keys() {
            if let Some(State { offset, feature: Some(feature), .. }) = self.state(id, self.bound(position, id)) {
                features.insert(id.clone(), (feature.clone(), *offset));
            }
        }
        features
    }

    /// The offset of a position in the feature's own partition.
    pub fn bound(&self, position: &[Offset], id: &str) -> Offset {
        position[partition_of(id, self.ft.partitions) as usize]
    }

    /// A feature's last state by the records before an offset.
    pub fn state(&self, id: &str, before: Offset) -> Option<&State> {
        let states = self.states.get(id)?;
        states[..states.partition_point(|s| s.offset < before)].last()
    }

    /// What a property had been given last by the records before an offset.
    pub fn assigned(&self, id: &str, slot: usize, before: Offset) -> Option<&Assigned> {
        self.assigned.get(id)?.iter().rev().find(|a| a.slot == slot && a.offset < before)
    }
}

fn named(values: &[(u16, Value)]) -> Vec<(usize, Value)> {
    values.iter().map(|(slot, value)| (usize::from(*slot), value.clone())).collect()
}

pub fn matching(features: &Features, filter: &Filter) -> Features {
    features.iter().filter(|(_, (f, _))| evaluate::matches(filter, f)).map(|(k, v)| (k.clone(), v.clone())).collect()
}
