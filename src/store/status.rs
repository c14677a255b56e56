//! The store as those see it who run it: what each partition and each background task is doing, and what was set aside.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{PartitionStatus, Store};
use crate::coordination::fair_owner;
use crate::delegate::dead_letter::DeadLetter;
use crate::model::value::format_instant;
use crate::task::TaskStatus;

/// The long-term store is asked for what it refused no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// One instance's state.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This instance, among `instances`.
    pub instance: String,
    /// The live instances; none where coordination is away.
    pub instances: Vec<String>,
    pub coordination_error: Option<String>,
    pub partitions: Vec<PartitionStatus>,
    pub tasks: Vec<TaskReport>,
}

/// What a background task of this instance is doing.
#[derive(Clone, Debug, Serialize)]
pub struct TaskReport {
    pub name: String,
    /// `running` or `backing off`.
    pub state: &'static str,
    /// How often it has failed since the start.
    pub restarts: u64,
    /// How often of these by a fault of the server's own.
    pub panics: u64,
    pub last_error: Option<String>,
    /// When that was, ISO 8601.
    pub last_error_at: Option<String>,
}

impl Store {
    /// Everything, with what others must be asked for.
    pub async fn inspect(&self) -> Status {
        let (instances, coordination_error) = match self.coordinator.members().await {
            Ok(members) => (members, None),
            Err(e) => (Vec::new(), Some(e.to_string())),
        };
        let instance = self.coordinator.instance().to_owned();
        let mut partitions = self.status();
        for p in &mut partitions {
            let Some(state) = self.state(&p.feature_type) else { continue };
            p.owned_by = match p.owner {
                true => Some(instance.clone()),
                // Nobody is asked: by fair spreading it is this one's, or soon will be.
                false => fair_owner(&instances, &state.lease(p.partition)).filter(|o| *o != instance).map(Into::into),
            };
        }
        let types = self.feature_types();
        let refused = types.iter().map(|ft| tokio::time::timeout(PATIENCE, self.delegate.refused(ft)));
        for (ft, refused) in types.iter().zip(futures::future::join_all(refused).await) {
            let Ok(Ok(refused)) = refused else { continue };
            for p in partitions.iter_mut().filter(|p| p.feature_type == ft.name) {
                p.refused = Some(refused.iter().filter(|r| r.partition == p.partition).count() as u64);
            }
        }
        Status { instance, instances, coordination_error, partitions, tasks: self.task_reports() }
    }

    /// Of this instance's background tasks.
    pub fn task_reports(&self) -> Vec<TaskReport> {
        let (now, now_ms) = (Instant::now(), self.clock.now_ms());
        let report = |status: TaskStatus| {
            let (error, at) = status.last_error.unzip();
            let at_ms = at.map(|at| now_ms - now.saturating_duration_since(at).as_millis() as i64);
            TaskReport {
                name: status.name,
                state: if status.backing_off { "backing off" } else { "running" },
                restarts: status.restarts,
                panics: status.panics,
                last_error: error,
                last_error_at: at_ms.map(|ms| format_instant(ms * 1000)),
            }
        };
        let types: Vec<_> = self.types.read().values().cloned().collect();
        let of_types = types.iter().flat_map(|t| t.tasks.status());
        self.tasks.status().into_iter().chain(self.coordinator.tasks()).chain(of_types).map(report).collect()
    }

    /// Records that were skipped, of one feature type or of all, the newest first: what this instance has read since its start,
    /// and what the long-term store keeps, as far as that answers.
    pub async fn dead_letters(&self, name: Option<&str>, limit: usize) -> Vec<DeadLetter> {
        let types: Vec<_> = self.types.read().values().cloned().collect();
        let mut letters = BTreeMap::new();
        for t in types {
            let ft = t.feature_type();
            if name.is_some_and(|name| name != ft.name) {
                continue;
            }
            let kept = tokio::time::timeout(PATIENCE, self.delegate.dead_letters(&ft)).await;
            let read: Vec<DeadLetter> = t.dead_letters.lock().newest().cloned().collect();
            let place = |l: DeadLetter| ((l.log.clone(), l.partition, l.offset), l);
            letters.extend(kept.ok().and_then(Result::ok).into_iter().flatten().chain(read).map(place));
        }
        let mut letters: Vec<DeadLetter> = letters.into_values().collect();
        letters.sort_by_key(|l| std::cmp::Reverse((l.append_time_ms, l.offset)));
        letters.truncate(limit);
        letters
    }
}
