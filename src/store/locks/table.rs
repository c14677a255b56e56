//! The table of locks: what it holds and how it changes, as text that all instances share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::FeatureId;
use crate::store::api::LockAction;

/// How long it is remembered that locks were taken on a type.
const REMEMBERED_MS: i64 = 24 * 3600 * 1000;

/// Types stand under the names of their logs: one that is made anew under an old name has no locks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub locks: BTreeMap<String, Lock>,
    /// When a lock of the type was last asked for, milliseconds since the epoch; kept for a day, so that an instance that is cut
    /// off knows of which types it may not know all locks.
    pub used: BTreeMap<String, i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    pub expiry: Duration,
    /// Raised whenever the expiry begins to count anew.
    pub renewals: u64,
    /// Good for nothing any more, but in force until it is taken out of the table.
    pub over: bool,
    pub features: BTreeMap<String, BTreeSet<String>>,
}

/// Features by the names of their types' logs.
pub type Named = (String, FeatureId);

impl Table {
    pub fn read(text: &[u8]) -> Result<Table, serde_json::Error> {
        if text.is_empty() { Ok(Table::default()) } else { serde_json::from_slice(text) }
    }

    pub fn write(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }

    /// A new lock on those that are wanted, and which of them it has, in their order. An error is the first that is another's,
    /// where all are to be had.
    pub fn lock(
        &mut self,
        id: &str,
        expiry: Duration,
        wanted: &[Named],
        action: LockAction,
        now_ms: i64,
    ) -> Result<Vec<bool>, Named> {
        let taken = |(log, id): &Named| {
            self.locks.values().any(|lock| lock.features.get(log).is_some_and(|ids| ids.contains(&**id)))
        };
        let free: Vec<bool> = wanted.iter().map(|feature| !taken(feature)).collect();
        if action == LockAction::All
            && let Some(first) = free.iter().position(|free| !free)
        {
            return Err(wanted[first].clone());
        }
        let mut lock = Lock { expiry, ..Lock::default() };
        for ((log, feature), free) in wanted.iter().zip(&free) {
            if *free {
                lock.features.entry(log.clone()).or_default().insert(feature.to_string());
            }
            self.used.insert(log.clone(), now_ms);
        }
        self.locks.insert(id.to_owned(), lock);
        Ok(free)
    }

    /// Takes the features out of the lock, and the lock out of the table when it has none left; `None`: all of them. What stays
    /// locked, stays for the whole expiry from now on.
    pub fn release(&mut self, id: &str, features: Option<&[Named]>) {
        let Some(lock) = self.locks.get_mut(id) else { return };
        for (log, feature) in features.unwrap_or_default() {
            if let Some(ids) = lock.features.get_mut(log) {
                ids.remove(&**feature);
            }
        }
        lock.features.retain(|_, ids| !ids.is_empty());
        lock.renewals += 1;
        if features.is_none() || lock.features.is_empty() {
            self.locks.remove(id);
        }
    }

    /// Marks these as good for nothing any more.
    pub fn end(&mut self, ids: &BTreeSet<String>) {
        self.locks.iter_mut().filter(|(id, _)| ids.contains(*id)).for_each(|(_, lock)| lock.over = true);
    }

    /// Takes those of these out of the table that are marked.
    pub fn remove_ended(&mut self, ids: &BTreeSet<String>) {
        self.locks.retain(|id, lock| !(lock.over && ids.contains(id)));
    }

    /// Forgets which types had locks long ago.
    pub fn forget(&mut self, now_ms: i64) {
        let has_locks = |log: &String| self.locks.values().any(|lock| lock.features.contains_key(log));
        self.used.retain(|log, at| now_ms.saturating_sub(*at) < REMEMBERED_MS || has_locks(log));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(300);

    fn named(features: &[&str]) -> Vec<Named> {
        features.iter().map(|id| ("ships".to_owned(), (*id).into())).collect()
    }

    fn locked(table: &mut Table, lock: &str, features: &[&str], action: LockAction) -> Result<Vec<bool>, Named> {
        table.lock(lock, EXPIRY, &named(features), action, 0)
    }

    #[test]
    fn a_feature_has_one_lock() {
        let mut table = Table::default();
        assert_eq!(locked(&mut table, "1", &["a", "b"], LockAction::All), Ok(vec![true, true]));
        let before = table.clone();
        assert_eq!(locked(&mut table, "2", &["c", "b"], LockAction::All), Err(("ships".to_owned(), "b".into())));
        assert_eq!(table, before, "nothing was locked");
        assert_eq!(locked(&mut table, "2", &["c", "b"], LockAction::Some), Ok(vec![true, false]));
        assert_eq!(locked(&mut table, "3", &["c"], LockAction::Some), Ok(vec![false]));
        assert_eq!(locked(&mut table, "4", &[], LockAction::All), Ok(vec![]));
        assert_eq!(Table::read(&table.write().unwrap()).unwrap(), table);
        assert_eq!(Table::read(b"").unwrap(), Table::default());
        assert!(Table::read(b"{}").is_err());
    }

    #[test]
    fn a_lock_ends_with_its_last_feature_or_as_a_whole() {
        let mut table = Table::default();
        locked(&mut table, "1", &["a", "b"], LockAction::All).unwrap();
        table.release("1", Some(&named(&["a", "x"])));
        assert_eq!((table.locks["1"].renewals, table.locks["1"].features["ships"].len()), (1, 1));
        table.release("1", Some(&named(&["b"])));
        assert!(table.locks.is_empty());
        locked(&mut table, "2", &["a", "b"], LockAction::All).unwrap();
        table.release("2", None);
        table.release("2", None);
        assert!(table.locks.is_empty());
    }

    #[test]
    fn what_is_over_is_in_force_until_it_is_removed() {
        let mut table = Table::default();
        for (lock, feature) in [("1", "a"), ("2", "b")] {
            locked(&mut table, lock, &[feature], LockAction::All).unwrap();
        }
        let first = BTreeSet::from(["1".to_owned()]);
        table.remove_ended(&first);
        table.end(&first);
        assert!(locked(&mut table, "3", &["a"], LockAction::All).is_err());
        table.remove_ended(&first);
        assert_eq!(locked(&mut table, "3", &["a"], LockAction::All), Ok(vec![true]));
        assert!(table.locks.contains_key("2"));
    }

    #[test]
    fn types_that_had_locks_are_remembered_for_a_day() {
        let mut table = Table::default();
        locked(&mut table, "1", &["a"], LockAction::All).unwrap();
        table.forget(2 * REMEMBERED_MS);
        assert!(table.used.contains_key("ships"), "it has one");
        table.release("1", None);
        table.forget(REMEMBERED_MS - 1);
        assert!(table.used.contains_key("ships"));
        table.forget(REMEMBERED_MS);
        assert!(table.used.is_empty());
    }
}
