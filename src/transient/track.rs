//! What was appended to a track since it was last looked at whole, and since the delegate had it last.
//!
//! Invariants: an append costs the same however long the line is. The line is put together only when somebody reads it, which
//! costs what reading it costs anyway, and is kept until the next append takes it as its base. While it grows, what is to be
//! persisted of it is what the delegate does not have.

use std::sync::{Arc, OnceLock};

use crate::model::geometry::Coord;
use crate::model::{Feature, Fixes, Geometry, Growth, Offset, TrackShape};

/// The delegate keeps at most one fix in so many apart from the line: so the line is written anew when it has become longer by
/// a part of itself, which comes to a constant for each fix.
const LINE_TO_APART: usize = 4;

#[derive(Clone, Debug)]
pub struct Tail {
    fixes: Fixes,
    shape: TrackShape,
    whole: OnceLock<Arc<Feature>>,
    /// The delegate has the track in this version at least, and then it had nothing but fixes; `None`: nobody knows.
    builds_on: Option<Offset>,
    /// The fixes after that, with the offsets of their records.
    unsent: Vec<(Offset, Coord)>,
    /// Fixes that the delegate keeps apart from the line, as far as is known here.
    apart: usize,
}

impl Tail {
    /// `builds_on`: in which version the delegate has the track, where that is known, with so many fixes apart.
    pub fn new(shape: TrackShape, builds_on: Option<Offset>, apart: usize) -> Tail {
        let (fixes, whole) = Default::default();
        Tail { fixes, shape, whole, builds_on, unsent: Vec::new(), apart }
    }

    /// The track with what was appended. Snapshots that readers hold stay as they are.
    pub fn whole(&self, base: &Arc<Feature>) -> Arc<Feature> {
        let put_together = || {
            let geometry = self.shape.line(base.geometry.as_ref(), &self.fixes);
            Arc::new(Feature { geometry, ..(**base).clone() })
        };
        self.whole.get_or_init(put_together).clone()
    }

    /// Takes up the fixes of the record at `offset`; `base` becomes what was put together last.
    pub fn append(&mut self, base: &mut Arc<Feature>, offset: Offset, fixes: &[Coord]) {
        self.take_whole(base);
        fixes.iter().for_each(|fix| self.fixes.set(*fix));
        self.unsent.extend(fixes.iter().map(|fix| (offset, *fix)));
    }

    /// What readers have had put together goes into the base.
    pub fn take_whole(&mut self, base: &mut Arc<Feature>) {
        if let Some(whole) = self.whole.take() {
            *base = whole;
            self.fixes = Fixes::default();
        }
    }

    /// What the delegate does not have of the track, which is in this version; `None` where it is to be persisted whole.
    pub fn growth(&self, base: &Feature, version: Offset) -> Option<Growth> {
        let vertices = self.shape.vertices(base.geometry.as_ref()?) + self.fixes.len();
        let builds_on = self.builds_on.filter(|_| (self.apart + self.unsent.len()) * LINE_TO_APART <= vertices)?;
        let fixes: Geometry = self.shape.points(self.unsent.iter().map(|(_, fix)| *fix))?;
        Some(Growth { id: base.id.clone(), version, builds_on, properties: base.properties.clone(), fixes })
    }

    /// The delegate has the track as it is, in this version.
    pub fn is_persisted(&self, version: Offset) -> bool {
        self.unsent.is_empty() && self.builds_on == Some(version)
    }

    /// The delegate has all of the track's changes before this offset, the last of which was `version` or came later. `whole`:
    /// in its line.
    pub fn note_persisted(&mut self, before: Offset, version: Offset, whole: bool) {
        let sent = self.unsent.partition_point(|(offset, _)| *offset < before);
        let last = self.unsent[..sent].last().map(|(offset, _)| *offset);
        self.builds_on = if version < before { Some(version) } else { last.or(self.builds_on) };
        self.unsent.drain(..sent);
        self.apart = if whole { 0 } else { self.apart + sent };
    }

    /// Has the track be persisted whole the next time.
    pub fn persist_whole(&mut self) {
        self.builds_on = None;
    }

    pub fn heap_bytes(&self) -> usize {
        self.fixes.len() * Fixes::BYTES + self.unsent.capacity() * size_of::<(Offset, Coord)>()
    }
}
