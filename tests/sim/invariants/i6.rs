//! I6: a late or doubled sweeper changes nothing that it should not. Whatever commits, and whenever: watermarks and versions
//! never go back, a row is a state that the feature had at the row's version, and the watermark says the truth.

use std::collections::BTreeMap;

use alluvium::delegate::Base;
use alluvium::model::{Offset, PartitionId, partition_of};

use crate::oracle::TypeLog;
use crate::recorded::{Commit, Recorded};

pub fn check(recorded: &Recorded) -> Result<(), String> {
    let mut last: BTreeMap<(&str, PartitionId), &Commit> = BTreeMap::new();
    for (n, commit) in recorded.events.commits.iter().enumerate() {
        if recorded.events.put_back == Some(n) {
            last.clear();
        }
        let log = recorded.logs.of(&commit.feature_type);
        let previous = last.insert((commit.feature_type.as_str(), commit.partition), commit);
        let (a, b) = (&commit.before, &commit.after);
        if b.durable_through < a.durable_through || b.evict_through < a.evict_through || b.as_of < a.as_of {
            return Err(format!("a watermark went back: {commit:?}"));
        }
        for id in log.states.keys().filter(|id| partition_of(id, log.ft.partitions) == commit.partition) {
            let known = commit.known.get(id);
            let told = |what: &str| format!("'{id}' {what}: {commit:?}\n  the log says {:?}", log.states[id]);
            if is_known(known) && version(known) < version(previous.and_then(|p| p.known.get(id))) {
                return Err(told("went back in the delegate"));
            }
            if let Some(Base::Row(row)) = known
                && log.state(id, row.version.map_or(0, |version| version + 1)).and_then(|s| s.feature.as_ref())
                    != Some(&*row.feature)
            {
                return Err(told("is in the delegate as it never was"));
            }
            if !is_durable(log, id, known, commit) {
                return Err(told("is not as durable as the watermark says"));
            }
        }
    }
    Ok(())
}

fn version(known: Option<&Base>) -> Option<Offset> {
    match known {
        Some(Base::Row(row)) => row.version,
        Some(Base::Deleted(version, _)) => *version,
        None => None,
    }
}

/// Of a feature that was deleted long ago nothing is remembered but its event time.
fn is_known(known: Option<&Base>) -> bool {
    !matches!(known, None | Some(Base::Deleted(None, _)))
}

/// What the feature's records before `durable_through` made is in the delegate, among what it has refused, or was superseded by
/// an unconditional full record before `as_of`.
fn is_durable(log: &TypeLog, id: &str, known: Option<&Base>, commit: &Commit) -> bool {
    let Some(state) = log.state(id, commit.after.durable_through) else { return true };
    let deleted = state.feature.is_none() && !matches!(known, Some(Base::Row(_)));
    let superseded = || {
        let mut later = log.states[id].iter().filter(|s| s.offset > state.offset && s.offset < commit.after.as_of);
        later.any(|s| s.full)
    };
    let refused = commit.refused.get(id).is_some_and(|version| *version >= state.offset);
    deleted || refused || version(known) >= Some(state.offset) || superseded()
}
