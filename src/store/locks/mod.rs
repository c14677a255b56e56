//! Locks on features: which there are, what may not be written because of them, and when they end (WFS 2.0, 12).
//!
//! All instances go by one [`Table`], the [agreement](Coordinator::agreement) of the coordinator. A lock is given when every live
//! instance has confirmed a table that has it: from then on each of them refuses what the lock forbids, and what it let pass
//! before is in the log, or never will be. So whoever has been given a lock may read the features as they are until it is used.
//!
//! A lock ends by leaving the table and never by a clock alone: when its time is over it is marked, so that nobody uses it any
//! more, and taken out when all have confirmed that. Each instance counts the time by itself, from when it came to know of the
//! lock: the clocks of instances need not agree, and one that starts later counts anew.
//!
//! An instance that is not [consulted](Coordinator::is_consulted) cannot know all locks: it takes no writes to types that had
//! locks lately. Types that had none never depend on the coordinator.
//!
//! Invariant: from the look at the table to the end of the append a write has a [`Pass`]; an instance confirms a table when no
//! pass of an earlier one is left.

mod table;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::table::{Lock, Named, Table};
use super::Store;
use super::api::{LockAction, LockError, LockedFeatures, NoLock, Release, UnderLock, WriteError};
use crate::clock::Clock;
use crate::coordination::{Agreement, CoordinationError, Coordinator, MOST_AGREED};
use crate::model::{FeatureId, FeatureType, Position};

/// How long is waited until all instances have confirmed a change: longer than one that has died counts as living.
const PATIENCE: Duration = Duration::from_secs(30);

/// The locks as this instance knows them.
pub struct Locks {
    coordinator: Arc<dyn Coordinator>,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<Generation>>,
    /// Since when a lock counts here, and how often it had been renewed then.
    counted: Mutex<FxHashMap<String, (u64, Instant)>>,
    /// Locks whose owners never came to know of them.
    abandoned: Mutex<BTreeSet<String>>,
    /// Told when there is another table, or another abandoned lock.
    moved: Notify,
}

/// A table, with the writes that go by it.
#[derive(Default)]
struct Generation {
    table: Table,
    /// The lock that has a feature, by the log of its type.
    holders: FxHashMap<String, FxHashMap<FeatureId, String>>,
    under_way: TaskTracker,
}

/// That a write goes by a table. To be held until its records are appended.
pub struct Pass {
    generation: Arc<Generation>,
    _under_way: TaskTrackerToken,
}

/// By what right a write may touch what is locked.
#[derive(Clone, Copy)]
pub enum Claim<'a> {
    None,
    Lock(&'a UnderLock),
    /// What it is made of is in a log already.
    Fact,
}

impl Locks {
    pub fn new(coordinator: Arc<dyn Coordinator>, clock: Arc<dyn Clock>) -> Locks {
        let locks = Locks {
            coordinator,
            clock,
            current: RwLock::default(),
            counted: Mutex::default(),
            abandoned: Mutex::default(),
            moved: Notify::default(),
        };
        // What can be known at once holds from the first write on. Its task confirms it, where that takes time.
        if let Some(Err(e)) = locks.follow().now_or_never() {
            tracing::error!(error = %e, "the locks of before are not known");
        }
        locks
    }

    pub fn enter(&self) -> Pass {
        let current = self.current.read();
        // Within the guard: whoever puts another table in this one's place finds it counted.
        Pass { generation: current.clone(), _under_way: current.under_way.token() }
    }

    /// Whether a write may touch these features.
    pub fn check<'i>(
        &self,
        pass: &Pass,
        feature_type: &FeatureType,
        mut ids: impl Iterator<Item = &'i FeatureId>,
        claim: Claim<'_>,
    ) -> Result<(), WriteError> {
        let Generation { table, holders, .. } = &*pass.generation;
        if matches!(claim, Claim::Fact) || table.used.is_empty() {
            return Ok(());
        }
        let log = feature_type.log_name();
        if !table.used.contains_key(&log) {
            return Ok(());
        }
        let name = &feature_type.name;
        if !self.coordinator.is_consulted() {
            let what = format!("this instance is cut off from the others, and cannot know what of '{name}' is locked");
            return Err(WriteError::Unavailable(what));
        }
        let Some(holders) = holders.get(&log) else { return Ok(()) };
        let own = match claim {
            Claim::Lock(under) => Some(&under.id),
            Claim::None | Claim::Fact => None,
        };
        match ids.find(|id| holders.get(*id).is_some_and(|holder| Some(holder) != own)) {
            Some(id) => Err(WriteError::Locked { feature_type: name.clone(), id: id.clone() }),
            None => Ok(()),
        }
    }

    /// Whether there is a lock that may be used.
    pub fn check_lock(&self, pass: &Pass, id: &str) -> Result<(), NoLock> {
        self.usable(&pass.generation.table, id).map(|_| ())
    }

    fn usable<'t>(&self, table: &'t Table, id: &str) -> Result<&'t Lock, NoLock> {
        match table.locks.get(id) {
            Some(lock) if !lock.over && !self.has_run_out(id, lock) => Ok(lock),
            // Only what was given here has this form.
            None if uuid::Uuid::parse_str(id).is_err() => Err(NoLock::Unknown(id.to_owned())),
            _ => Err(NoLock::Over(id.to_owned())),
        }
    }

    fn has_run_out(&self, id: &str, lock: &Lock) -> bool {
        self.end_of(id, lock).is_some_and(|end| end <= Instant::now())
    }

    /// `None`: it has been renewed, and this instance is about to learn of it.
    fn end_of(&self, id: &str, lock: &Lock) -> Option<Instant> {
        let counted = self.counted.lock();
        counted.get(id).filter(|(renewals, _)| *renewals == lock.renewals).map(|(_, since)| *since + lock.expiry)
    }

    /// Goes by what is agreed on, each time that it changes.
    pub async fn follow(&self) -> Result<(), LockError> {
        let agreed = self.coordinator.unconfirmed_agreement().await;
        let earlier = self.go_by(&agreed)?;
        earlier.under_way.wait().await;
        Ok(self.coordinator.confirm(agreed.version).await?)
    }

    /// Lets every write from now on go by that table; gives the one before.
    fn go_by(&self, agreed: &Agreement) -> Result<Arc<Generation>, LockError> {
        let table = Table::read(&agreed.text).map_err(unreadable)?;
        let mut holders: FxHashMap<String, FxHashMap<FeatureId, String>> = FxHashMap::default();
        for (lock, features) in table.locks.iter().map(|(id, lock)| (id, &lock.features)) {
            for (log, ids) in features {
                let of_log = holders.entry(log.clone()).or_default();
                of_log.extend(ids.iter().map(|id| (id.as_str().into(), lock.clone())));
            }
        }
        {
            let mut counted = self.counted.lock();
            let now = Instant::now();
            counted.retain(|id, (renewals, _)| table.locks.get(id).is_some_and(|lock| lock.renewals == *renewals));
            table.locks.iter().for_each(|(id, lock)| {
                counted.entry(id.clone()).or_insert((lock.renewals, now));
            });
        }
        let next = Arc::new(Generation { table, holders, under_way: TaskTracker::new() });
        let earlier = std::mem::replace(&mut *self.current.write(), next);
        earlier.under_way.close();
        self.moved.notify_waiters();
        Ok(earlier)
    }

    /// Changes the table; gives the version that has the change, which is the present one where nothing is changed.
    async fn change<T>(
        &self,
        mut change: impl FnMut(&mut Table) -> Result<T, LockError>,
    ) -> Result<(u64, T), LockError> {
        loop {
            let agreed = self.coordinator.agreement().await?;
            let before = Table::read(&agreed.text).map_err(unreadable)?;
            let mut table = before.clone();
            let outcome = change(&mut table)?;
            if table == before {
                return Ok((agreed.version, outcome));
            }
            table.forget(self.clock.now_ms());
            let text = table.write().map_err(unreadable)?;
            if text.len() > MOST_AGREED {
                return Err(LockError::TooMany);
            }
            // Somebody else's change came first: again, on top of it.
            if let Some(version) = self.coordinator.agree(agreed.version, text).await? {
                return Ok((version, outcome));
            }
        }
    }

    /// The same of a change that cannot fail.
    async fn edit(&self, mut edit: impl FnMut(&mut Table)) -> Result<u64, LockError> {
        let change = |table: &mut Table| {
            edit(table);
            Ok(())
        };
        self.change(change).await.map(|(version, ())| version)
    }

    /// Waits until all live instances go by that version.
    async fn confirmed(&self, version: u64) -> Result<(), LockError> {
        let (mut pause, deadline) = (Duration::from_millis(2), Instant::now() + PATIENCE);
        loop {
            let behind = self.coordinator.unconfirmed_by(version).await?;
            if behind.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = format!("not all instances have confirmed it in time: {}", behind.join(", "));
                return Err(LockError::Unavailable(what));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Takes the features out of the lock that is used, or ends it.
    pub async fn release(&self, under: &UnderLock, touched: &[Named]) -> Result<(), LockError> {
        let features = (under.release == Release::Touched).then_some(touched);
        let version = self.edit(|table| table.release(&under.id, features)).await?;
        self.confirmed(version).await
    }

    /// Ends the lock, soon: nobody has come to know of it.
    pub fn abandon(&self, id: String) {
        self.abandoned.lock().insert(id);
        self.moved.notify_waiters();
    }

    /// Waits for the next lock whose time is over, and ends it.
    pub async fn end_next(&self) -> Result<(), LockError> {
        let mut moved = pin!(self.moved.notified());
        // From here on no move is missed, so the table is looked at after it.
        moved.as_mut().enable();
        let Some(due) = self.next_end() else {
            moved.await;
            return Ok(());
        };
        tokio::select! {
            () = moved => return Ok(()),
            () = sleep_until(due) => {}
        }
        let over = self.over();
        let version = self.edit(|table| table.end(&over)).await?;
        self.confirmed(version).await?;
        let version = self.edit(|table| table.remove_ended(&over)).await?;
        self.abandoned.lock().retain(|id| !over.contains(id));
        self.confirmed(version).await
    }

    fn next_end(&self) -> Option<Instant> {
        if !self.abandoned.lock().is_empty() {
            return Some(Instant::now());
        }
        let generation = self.current.read().clone();
        generation.table.locks.iter().filter_map(|(id, lock)| self.end_of(id, lock)).min()
    }

    /// The locks that are to end.
    fn over(&self) -> BTreeSet<String> {
        let generation = self.current.read().clone();
        let run_out = generation.table.locks.iter().filter(|(id, lock)| lock.over || self.has_run_out(id, lock));
        run_out.map(|(id, _)| id.clone()).chain(self.abandoned.lock().iter().cloned()).collect()
    }
}

/// A lock that is being taken: abandoned unless it is kept.
struct Pending<'a> {
    locks: &'a Locks,
    id: Option<String>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.id.take().into_iter().for_each(|id| self.locks.abandon(id));
    }
}

impl Store {
    /// Locks these features, given by the names of their types and their ids, until the lock is released or `expiry` is over.
    /// When it returns every instance refuses to change them without the lock, and no change from before is still to come.
    pub async fn lock(
        &self,
        wanted: Vec<(String, FeatureId)>,
        expiry: Duration,
        action: LockAction,
    ) -> Result<LockedFeatures, LockError> {
        let mut named: Vec<Named> = Vec::with_capacity(wanted.len());
        for (feature_type, id) in &wanted {
            let state = self.state(feature_type).ok_or_else(|| LockError::UnknownType(feature_type.clone()))?;
            named.push((state.log_name.to_string(), id.clone()));
        }
        let id = uuid::Uuid::now_v7().to_string();
        let mut pending = Pending { locks: &self.locks, id: Some(id.clone()) };
        let take = |table: &mut Table| {
            let free = table.lock(&id, expiry, &named, action, self.clock.now_ms());
            free.map_err(|(log, id)| LockError::Taken { feature_type: self.type_of_log(&log), id })
        };
        let (version, free) = self.locks.change(take).await?;
        self.locks.confirmed(version).await?;
        let (locked, others): (Vec<_>, Vec<_>) = wanted.into_iter().zip(free).partition(|(_, free)| *free);
        let features: Vec<_> = locked.into_iter().map(|(feature, _)| feature).collect();
        let position = self.end_of_logs(&features).await?;
        pending.id = None;
        let others = others.into_iter().map(|(feature, _)| feature).collect();
        Ok(LockedFeatures { id, features, others, position })
    }

    /// Begins to count a lock's time anew.
    pub async fn renew_lock(&self, id: &str, expiry: Duration) -> Result<LockedFeatures, LockError> {
        let renew = |table: &mut Table| {
            self.locks.usable(table, id)?;
            let mut features = Vec::new();
            if let Some(lock) = table.locks.get_mut(id) {
                (lock.renewals, lock.expiry) = (lock.renewals + 1, expiry);
                for (log, ids) in &lock.features {
                    let name = self.type_of_log(log);
                    features.extend(ids.iter().map(|id| (name.clone(), id.as_str().into())));
                }
            }
            Ok(features)
        };
        let (version, features) = self.locks.change(renew).await?;
        self.locks.confirmed(version).await?;
        Ok(LockedFeatures { id: id.to_owned(), features, others: Vec::new(), position: Position::default() })
    }

    /// Ends a lock whose owner could not be told of it.
    pub fn abandon_lock(&self, id: String) {
        self.locks.abandon(id);
    }

    /// Follows the locks of all instances, and ends those whose time is over.
    pub(super) fn watch_locks(&self) {
        let locks = self.locks.clone();
        let follow = move || {
            let locks = locks.clone();
            async move { locks.follow().await }
        };
        self.tasks.supervise("locks", follow, |e| tracing::warn!(error = %e, "the locks could not be followed"));
        let locks = self.locks.clone();
        let end = move || {
            let locks = locks.clone();
            async move { locks.end_next().await }
        };
        self.tasks.supervise("ending of locks", end, |e| tracing::warn!(error = %e, "a lock could not be ended yet"));
    }

    /// The position of all that was appended to the types of these features.
    async fn end_of_logs(&self, features: &[(String, FeatureId)]) -> Result<Position, LockError> {
        let mut position = Position::default();
        let types: BTreeSet<&String> = features.iter().map(|(feature_type, _)| feature_type).collect();
        for name in types {
            let state = self.state(name).ok_or_else(|| LockError::UnknownType(name.clone()))?;
            let mut ends = Vec::new();
            for partition in state.partition_ids() {
                let range = self.log.range(&state.log_name, partition).await;
                ends.push(range.map_err(|e| LockError::Unavailable(e.to_string()))?.end);
            }
            position.merge(&state.position_of(&ends));
        }
        Ok(position)
    }

    fn type_of_log(&self, log: &str) -> String {
        let types = self.types.read();
        // Of a type that is gone nothing but its log's name is known.
        types.iter().find(|(_, state)| &*state.log_name == log).map_or_else(|| log.to_owned(), |(name, _)| name.clone())
    }
}

impl From<CoordinationError> for LockError {
    fn from(e: CoordinationError) -> LockError {
        LockError::Unavailable(e.to_string())
    }
}

fn unreadable(e: serde_json::Error) -> LockError {
    LockError::Unavailable(format!("the table of locks is not one of this program's: {e}"))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::clock::ManualClock;
    use crate::coordination::local::LocalCoordinator;

    const EXPIRY: Duration = Duration::from_secs(300);

    fn ships() -> FeatureType {
        let declared = "name = 'ships'\nproperties = [{ name = 'name', type = 'string' }]";
        FeatureType { incarnation: "x".into(), ..toml::from_str(declared).unwrap() }
    }

    fn named(ids: &[&str]) -> Vec<Named> {
        ids.iter().map(|id| (ships().log_name(), (*id).into())).collect()
    }

    fn locks(group: &LocalCoordinator, instance: &str) -> Arc<Locks> {
        Arc::new(Locks::new(Arc::new(group.join(instance)), Arc::new(ManualClock::default())))
    }

    /// Runs what an instance runs in the background.
    fn running(locks: &Arc<Locks>) -> tokio::task::JoinSet<()> {
        let mut running = tokio::task::JoinSet::new();
        let (following, ending) = (locks.clone(), locks.clone());
        running.spawn(async move {
            loop {
                following.follow().await.unwrap();
            }
        });
        running.spawn(async move {
            loop {
                ending.end_next().await.unwrap();
            }
        });
        running
    }

    async fn take(locks: &Locks, id: &str, ids: &[&str]) {
        let taken = locks.change(|table| Ok(table.lock(id, EXPIRY, &named(ids), LockAction::All, 0))).await.unwrap();
        locks.confirmed(taken.0).await.unwrap();
    }

    fn may_write(locks: &Locks, id: &str, claim: Claim<'_>) -> Result<(), WriteError> {
        locks.check(&locks.enter(), &ships(), std::iter::once(&id.into()), claim)
    }

    fn is_locked(locks: &Locks, id: &str) -> bool {
        matches!(may_write(locks, id, Claim::None), Err(WriteError::Locked { id: told, .. }) if &*told == id)
    }

    fn under(id: &str, release: Release) -> UnderLock {
        UnderLock { id: id.into(), release }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_waits_for_the_writes_that_go_by_an_earlier_table() {
        let group = LocalCoordinator::new("a");
        group.leave();
        let (a, b) = (locks(&group, "a"), locks(&group, "b"));
        let _running = [running(&a), running(&b)];
        let under_way = b.enter();
        assert!(timeout(EXPIRY / 100, take(&a, "1", &["s"])).await.is_err(), "a write of before is under way at b");
        assert!(is_locked(&b, "s"), "what comes later is refused already");
        drop(under_way);
        let version = a.coordinator.agreement().await.unwrap().version;
        a.confirmed(version).await.unwrap();
        assert!(is_locked(&a, "s") && !is_locked(&a, "t"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_ends_everywhere_when_its_time_is_over_and_not_before() {
        let group = LocalCoordinator::new("a");
        group.leave();
        let (a, b) = (locks(&group, "a"), locks(&group, "b"));
        let _running = [running(&a), running(&b)];
        take(&a, "1", &["s"]).await;
        sleep(EXPIRY - Duration::from_secs(1)).await;
        assert!(is_locked(&b, "s"));
        assert!(may_write(&b, "s", Claim::Lock(&under("1", Release::All))).is_ok());
        assert!(b.check_lock(&b.enter(), "1").is_ok());
        // What begins before the end, and ends after it, keeps the feature from others.
        let under_way = b.enter();
        sleep(Duration::from_secs(2)).await;
        assert!(matches!(b.check_lock(&b.enter(), "1"), Err(NoLock::Unknown(_) | NoLock::Over(_))));
        assert!(is_locked(&a, "s") && is_locked(&b, "s"));
        drop(under_way);
        sleep(Duration::from_secs(1)).await;
        assert!(!is_locked(&a, "s") && !is_locked(&b, "s"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_counts_from_its_own_time() {
        let group = LocalCoordinator::new("a");
        group.leave();
        let (a, b) = (locks(&group, "a"), locks(&group, "b"));
        let _running = [running(&a), running(&b)];
        take(&a, "1", &["s", "t"]).await;
        sleep(EXPIRY - Duration::from_secs(1)).await;
        // To release some of it renews the rest.
        b.release(&under("1", Release::Touched), &named(&["s"])).await.unwrap();
        sleep(EXPIRY - Duration::from_secs(1)).await;
        assert!(!is_locked(&a, "s") && is_locked(&a, "t") && is_locked(&b, "t"));
        sleep(Duration::from_secs(2)).await;
        assert!(!is_locked(&a, "t") && !is_locked(&b, "t"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_types_that_had_locks_depend_on_the_others() {
        let group = LocalCoordinator::new("a");
        group.leave();
        let coordinator = Arc::new(group.join("a"));
        let a = Arc::new(Locks::new(coordinator.clone(), Arc::new(ManualClock::default())));
        let _running = running(&a);
        assert!(may_write(&a, "s", Claim::None).is_ok());
        take(&a, "1", &["s"]).await;
        coordinator.leave();
        assert!(matches!(may_write(&a, "t", Claim::None), Err(WriteError::Unavailable(_))));
        let boats = FeatureType { name: "boats".into(), ..ships() };
        assert!(a.check(&a.enter(), &boats, std::iter::once(&"s".into()), Claim::None).is_ok());
        assert!(may_write(&a, "s", Claim::Fact).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_nobody_was_told_of_ends_at_once() {
        let group = LocalCoordinator::new("a");
        group.leave();
        let (a, b) = (locks(&group, "a"), locks(&group, "b"));
        let _running = [running(&a), running(&b)];
        take(&a, "1", &["s"]).await;
        drop(Pending { locks: &a, id: Some("1".into()) });
        sleep(Duration::from_secs(1)).await;
        assert!(!is_locked(&a, "s") && !is_locked(&b, "s"));
        assert!(a.abandoned.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_fit_are_not_locked() {
        let group = LocalCoordinator::new("a");
        let ids: Vec<String> = (0..30_000).map(|n| format!("{n:036}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let a = locks(&group, "b");
        let take = |table: &mut Table| Ok(table.lock("1", EXPIRY, &named(&ids), LockAction::All, 0));
        assert!(matches!(a.change(take).await, Err(LockError::TooMany)));
        assert!(a.coordinator.agreement().await.unwrap().text.is_empty());
    }

    #[test]
    fn what_an_instance_that_starts_can_know_holds_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let start = || {
            let coordinator = LocalCoordinator::kept_in(&dir.path().join("locks.json"), "a").unwrap();
            Arc::new(Locks::new(Arc::new(coordinator), Arc::new(ManualClock::default())))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let before = start();
            let _running = running(&before);
            take(&before, "1", &["s"]).await;
        });
        let _in = runtime.enter();
        assert!(is_locked(&start(), "s"));
    }
}
