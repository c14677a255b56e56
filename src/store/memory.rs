//! How much memory the features of this instance take, and what follows from it: past the soft limit its sweepers persist and
//! evict the oldest entries before their time, past the hard one writes are refused.
//!
//! It only adds up what its shares report: the index of each type, and the handles of each read. Eviction still travels in
//! the log, so all instances agree on it; instances of one cluster should have the same limits.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    pub soft: usize,
    pub hard: usize,
}

impl MemoryLimits {
    pub const NONE: MemoryLimits = MemoryLimits { soft: usize::MAX, hard: usize::MAX };
}

/// For `/metrics` and the page; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemoryStatus {
    pub used: usize,
    pub soft_limit: usize,
    pub hard_limit: usize,
}

/// How often those who wait for room look for it.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Memory {
    limits: MemoryLimits,
    used: AtomicUsize,
    /// Of the indexes alone.
    indexes: Mutex<Vec<Weak<AtomicUsize>>>,
    /// Told when the soft limit is passed.
    passed: Notify,
}

impl Memory {
    pub fn new(limits: MemoryLimits) -> Arc<Memory> {
        let (used, indexes, passed) = Default::default();
        Arc::new(Memory { limits, used, indexes, passed })
    }

    /// What a read holds.
    pub fn share(self: &Arc<Self>, bytes: usize) -> Share {
        let share = Share { memory: self.clone(), bytes: Arc::default() };
        share.set(bytes);
        share
    }

    /// What an index takes; it may be pressed.
    pub fn index(self: &Arc<Self>) -> Share {
        let share = self.share(0);
        let mut indexes = self.indexes.lock();
        indexes.retain(|index| index.strong_count() > 0);
        indexes.push(Arc::downgrade(&share.bytes));
        share
    }

    pub fn status(&self) -> MemoryStatus {
        let MemoryLimits { soft, hard } = self.limits;
        MemoryStatus { used: self.used.load(Relaxed), soft_limit: soft, hard_limit: hard }
    }

    /// The entries of this index should leave before their time: the large ones from the soft limit on, half-way to the hard
    /// one all.
    pub fn presses(&self, index: &Share) -> bool {
        let (used, MemoryLimits { soft, hard }) = (self.used.load(Relaxed), self.limits);
        if used <= soft {
            return false;
        }
        let largest = || self.indexes.lock().iter().filter_map(Weak::upgrade).map(|i| i.load(Relaxed)).max();
        used - soft > hard.saturating_sub(soft) / 2 || index.bytes() >= largest().unwrap_or(0) / 2
    }

    /// No more may be written for now.
    pub fn is_full(&self) -> bool {
        self.used.load(Relaxed) > self.limits.hard
    }

    /// Waits until there is room; false when there is none in time.
    pub async fn room(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        while self.is_full() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(LOOK).await;
        }
        true
    }

    /// Waits for a sweeper's next turn: less long when memory becomes scarce, but never busily.
    pub async fn until_turn(&self, interval: Duration) {
        const WHILE_PRESSED: Duration = Duration::from_millis(200);
        let passed = self.passed.notified();
        if self.used.load(Relaxed) > self.limits.soft {
            return sleep(interval.min(WHILE_PRESSED)).await;
        }
        // Over, or passed: the turn comes.
        let _ = timeout(interval, passed).await;
    }
}

/// A part of the memory that is in use; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    bytes: Arc<AtomicUsize>,
}

impl Share {
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    pub fn set(&self, bytes: usize) {
        let before = self.bytes.swap(bytes, Relaxed);
        let grown = bytes.wrapping_sub(before);
        let used = self.memory.used.fetch_add(grown, Relaxed);
        let soft = self.memory.limits.soft;
        if used <= soft && used.wrapping_add(grown) > soft {
            self.memory.passed.notify_waiters();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<Memory> {
        Memory::new(MemoryLimits { soft: 1_000, hard: 2_000 })
    }

    #[test]
    fn the_largest_go_first_and_near_the_hard_limit_all() {
        let memory = memory();
        let (large, small) = (memory.index(), memory.index());
        large.set(900);
        small.set(100);
        assert!(!memory.presses(&large) && !memory.is_full());
        large.set(901);
        assert!(memory.presses(&large) && !memory.presses(&small));
        let read = memory.share(600);
        assert!(memory.presses(&small) && !memory.is_full());
        large.set(1_301);
        assert!(memory.is_full());
        drop(read);
        assert!(!memory.is_full());
        drop((large, small));
        assert_eq!(memory.status().used, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_at_once_when_the_soft_limit_is_passed() {
        let memory = memory();
        let index = memory.index();
        let begin = Instant::now();
        let hour = Duration::from_secs(3_600);
        let passing = async {
            sleep(LOOK).await;
            index.set(1_001);
        };
        tokio::join!(memory.until_turn(hour), passing);
        assert!(begin.elapsed() < Duration::from_secs(1));
        memory.until_turn(hour).await;
        assert!(begin.elapsed() < Duration::from_secs(1), "it goes on at once");
        index.set(2_001);
        assert!(!memory.room(Duration::from_secs(3)).await);
        assert!(begin.elapsed() >= Duration::from_secs(3));
        index.set(1);
        assert!(memory.room(Duration::ZERO).await);
    }
}
