//! What was appended to a track since it was last looked at whole.
//!
//! Invariant: an append costs the same however long the line is. The line is put together only when somebody reads it, which
//! costs what reading it costs anyway, and is kept until the next append takes it as its base.

use std::sync::{Arc, OnceLock};

use crate::model::geometry::Coord;
use crate::model::{Feature, Fixes, TrackShape};

#[derive(Clone, Debug)]
pub struct Tail {
    fixes: Fixes,
    shape: TrackShape,
    whole: OnceLock<Arc<Feature>>,
}

impl Tail {
    pub fn new(shape: TrackShape) -> Tail {
        Tail { fixes: Fixes::default(), shape, whole: OnceLock::new() }
    }

    /// The track with what was appended. Snapshots that readers hold stay as they are.
    pub fn whole(&self, base: &Arc<Feature>) -> Arc<Feature> {
        let put_together = || {
            let geometry = self.shape.line(base.geometry.as_ref(), &self.fixes);
            Arc::new(Feature { geometry, ..(**base).clone() })
        };
        self.whole.get_or_init(put_together).clone()
    }

    /// Takes up fixes; `base` becomes what was put together last.
    pub fn append(&mut self, base: &mut Arc<Feature>, fixes: &[Coord]) {
        if let Some(whole) = self.whole.take() {
            *base = whole;
            self.fixes = Fixes::default();
        }
        fixes.iter().for_each(|fix| self.fixes.set(*fix));
    }

    pub fn heap_bytes(&self) -> usize {
        self.fixes.len() * Fixes::BYTES
    }
}
