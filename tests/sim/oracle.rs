//! What the log says, told by the simplest program that can: a map that replays it.

use std::collections::BTreeMap;

use alluvium::format::record;
use alluvium::model::{Change, Feature, FeatureType, Offset, Record};
use alluvium::query::{Filter, evaluate};
use bytes::Bytes;

use crate::faults::Appended;

/// A feature's values and the offset of its last change.
pub type State = BTreeMap<String, (Feature, Offset)>;

/// Everything that was ever appended.
pub struct History {
    records: Vec<(Offset, Vec<Change>)>,
    pub end: Offset,
}

impl History {
    pub fn of(appended: &Appended, ft: &FeatureType) -> History {
        let mut records = Vec::new();
        let mut end = 0;
        for (offset, key, value) in appended.lock().iter() {
            if let Record::Changes { changes, .. } = record::decode(Some(key), Some(value), ft).unwrap() {
                records.push((*offset, changes));
            }
            end = offset + 1;
        }
        History { records, end }
    }

    /// The state at a position: after every record before it.
    pub fn at(&self, position: Offset) -> State {
        let mut state = State::new();
        for (offset, changes) in self.records.iter().take_while(|(o, _)| *o < position) {
            for change in changes {
                let id = change.id().to_string();
                match change {
                    Change::Put(f) => {
                        state.insert(id, ((**f).clone(), *offset));
                    }
                    Change::Append(_) | Change::If(..) => unreachable!("no client of the simulation does so yet"),
                    Change::Delete(_) => {
                        state.remove(&id);
                    }
                    Change::Patch(patch) => {
                        if let Some((feature, version)) = state.get_mut(&id) {
                            *feature = patch.apply(feature);
                            *version = *offset;
                        }
                    }
                }
            }
        }
        state
    }

    pub fn has(&self, offset: Offset, id: &str) -> bool {
        self.records.iter().any(|(o, changes)| *o == offset && changes.iter().any(|c| &**c.id() == id))
    }
}

pub fn matching(state: &State, filter: &Filter) -> State {
    state.iter().filter(|(_, (f, _))| evaluate::matches(filter, f)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// The log, told.
pub fn tell(appended: &Appended, ft: &FeatureType) -> String {
    let told = |(offset, key, value): &(Offset, Bytes, Bytes)| {
        let record = record::decode(Some(key), Some(value), ft);
        format!("{offset}: {record:?}\n")
    };
    appended.lock().iter().map(told).collect()
}
