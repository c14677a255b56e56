//! I4: a feature that went quiet is in the delegate exactly as it was last written, and where nothing goes wrong, within its
//! expiry and a turn of the sweeper.
//!
//! That it stays readable while it moves is for the reads.

use std::collections::BTreeMap;

use alluvium::delegate::Base;
use alluvium::model::Offset;

use crate::oracle::TypeLog;
use crate::recorded::{Commit, Recorded};
use crate::world::SWEEP_INTERVAL;

/// What the calls of a sweeper may take, ms: batch after batch, each some calls of a few milliseconds.
pub const SLACK_MS: u64 = 700;

pub fn check(recorded: &Recorded) -> Result<(), String> {
    let Some(rest) = &recorded.events.rest else { return Err("the run did not come to rest".into()) };
    if let Some(unrest) = &rest.unrest {
        return Err(format!("not everything was persisted in time: {unrest}"));
    }
    for (name, at_rest) in &rest.types {
        let log = recorded.logs.of(name);
        let expected = log.at(&log.end);
        if at_rest.rows != expected {
            return Err(format!("at rest the delegate has {:?}\n  the log says {expected:?}", at_rest.rows));
        }
        if at_rest.tails > 0 {
            return Err(format!("at rest {} lines of {name} are not whole", at_rest.tails));
        }
        if recorded.plan.is_calm() && !recorded.plan.refuses {
            in_time(recorded, name, log)?;
        }
    }
    Ok(())
}

/// Each state that lasted longer than it takes was in the delegate by then.
fn in_time(recorded: &Recorded, name: &str, log: &TypeLog) -> Result<(), String> {
    let most = recorded.plan.expiry_ms + SWEEP_INTERVAL.as_millis() as u64 + SLACK_MS;
    let at_ms: BTreeMap<(u32, Offset), u64> = log.records.iter().map(|r| ((r.partition, r.offset), r.at_ms)).collect();
    for (id, states) in &log.states {
        let partition = alluvium::model::partition_of(id, log.ft.partitions);
        for (n, state) in states.iter().enumerate() {
            let from = at_ms[&(partition, state.offset)];
            let until = states.get(n + 1).map_or(u64::MAX, |next| at_ms[&(partition, next.offset)]);
            let has = |c: &&Commit| c.feature_type == *name && version_in(c, id).is_some_and(|v| v >= state.offset);
            let persisted = recorded.events.commits.iter().find(has).map_or(u64::MAX, |c| c.at_ms);
            // One that was deleted without ever having been there need not be remembered as deleted.
            if state.feature.is_some() && until > from + most && persisted > from + most {
                return Err(format!(
                    "'{id}' of {name} rested from {from} to {until} ms and was persisted at {persisted}"
                ));
            }
        }
    }
    Ok(())
}

fn version_in(commit: &Commit, id: &str) -> Option<Offset> {
    match commit.known.get(id)? {
        Base::Row(row) => row.version,
        Base::Deleted(version, _) => *version,
    }
}
