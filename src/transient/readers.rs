//! Readers of both tiers, and the memory of what was evicted while they read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::model::{Feature, FeatureId};
use crate::sabotage::{Safeguard, off};

/// The step at which a reader began. While it lives, evictions since then are remembered.
#[derive(Debug)]
pub struct ReaderTicket {
    generation: u64,
    step: u64,
    live: Arc<Mutex<BTreeMap<u64, usize>>>,
}

impl ReaderTicket {
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn step(&self) -> u64 {
        self.step
    }
}

impl Drop for ReaderTicket {
    fn drop(&mut self) {
        let mut live = self.live.lock();
        if let Some(n) = live.get_mut(&self.step) {
            *n -= 1;
            if *n == 0 {
                live.remove(&self.step);
            }
        }
    }
}

/// An entry that was in the index from step `entered` until it was evicted at step `left`.
#[derive(Debug)]
struct Ghost {
    entered: u64,
    left: u64,
}

/// What one takes with its id and its place, about.
const GHOST_BYTES: usize = 200;

#[derive(Debug, Default)]
pub struct Readers {
    live: Arc<Mutex<BTreeMap<u64, usize>>>,
    ghosts: FxHashMap<FeatureId, Vec<Ghost>>,
    /// At which steps features have left or changed that somebody still reads, and their bytes.
    held: VecDeque<(u64, usize)>,
    held_bytes: usize,
    /// Evictions until the ghosts that nobody needs are looked for again.
    until_pruned: usize,
}

impl Readers {
    pub fn begin(&self, generation: u64, step: u64) -> ReaderTicket {
        *self.live.lock().entry(step).or_default() += 1;
        ReaderTicket { generation, step, live: self.live.clone() }
    }

    /// Remembers an eviction while anybody reads; forgets all when nobody does.
    pub fn evicted(&mut self, id: FeatureId, entered: u64, left: u64) {
        if off(Safeguard::Epochs) {
            return;
        }
        let Some(oldest) = self.oldest() else {
            // With its room.
            self.ghosts = FxHashMap::default();
            return;
        };
        if self.until_pruned == 0 {
            self.ghosts.retain(|_, all| {
                all.retain(|g| oldest < g.left);
                !all.is_empty()
            });
            self.until_pruned = self.ghosts.len() + 1024;
        }
        self.until_pruned -= 1;
        self.ghosts.entry(id).or_default().push(Ghost { entered, left });
    }

    /// Counts a state that the index has no more, as long as somebody may read it who has taken it before.
    pub fn lets_go(&mut self, feature: Option<Arc<Feature>>, step: u64) {
        let feature = feature.filter(|f| Arc::strong_count(f) > 1);
        if feature.is_none() && self.held.is_empty() {
            return;
        }
        let oldest = self.oldest().unwrap_or(u64::MAX);
        while let Some((_, bytes)) = self.held.pop_front_if(|(left, _)| *left <= oldest) {
            self.held_bytes -= bytes;
        }
        if let Some(feature) = feature.filter(|_| oldest < step) {
            let bytes = feature.heap_bytes();
            self.held.push_back((step, bytes));
            self.held_bytes += bytes;
        }
    }

    /// What is kept in memory for those who read.
    pub fn bytes(&self) -> usize {
        match self.oldest() {
            Some(_) => self.ghosts.len() * GHOST_BYTES + self.held_bytes,
            // Given back with the next eviction.
            None => 0,
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.live.lock().keys().next().copied()
    }

    pub fn was_evicted_from(&self, reader: &ReaderTicket, id: &str) -> bool {
        self.ghosts.get(id).is_some_and(|all| all.iter().any(|g| g.entered <= reader.step && reader.step < g.left))
    }

    /// What has left since that reader began. An id may come again that is in the index too.
    pub fn evicted_from<'a>(&'a self, reader: &'a ReaderTicket) -> impl Iterator<Item = FeatureId> + 'a {
        self.ghosts.keys().filter(|id| self.was_evicted_from(reader, id)).cloned()
    }
}
