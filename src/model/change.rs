//! What a log record says. The log itself carries bytes; `format::record` turns them into these and back.

use std::sync::Arc;

use super::geometry::Coord;
use super::{Feature, FeatureId, Fixes, Geometry, Offset, TrackShape, Value};

/// One change of one feature.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The whole feature replaces what was there, found or not.
    Put(Arc<Feature>),
    /// Sets some properties or the geometry and leaves the rest. Of a feature that is not there it does nothing.
    Patch(Patch),
    /// Adds fixes to a track and patches its properties; of a feature that is not there it makes one.
    Append(Append),
    /// Removes the feature; of one that is not there it does nothing.
    Delete(FeatureId),
    /// Takes effect only where the feature is as expected when the log comes to it. Stands alone in its record, and never within
    /// another one.
    If(Expected, Box<Change>),
}

/// What a conditional change expects of its feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Present,
    /// There, in one of these versions.
    OneOf(Vec<Offset>),
}

impl Expected {
    /// `version`: of a feature that is there; `None` of a row that another program wrote.
    pub fn holds(&self, is_there: bool, version: Option<Offset>) -> bool {
        match self {
            Expected::Absent => !is_there,
            Expected::Present => is_there,
            Expected::OneOf(versions) => is_there && version.is_some_and(|v| versions.contains(&v)),
        }
    }
}

/// The named properties of one feature get new values.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    pub id: FeatureId,
    /// `None`: left as it is. `Some(None)`: removed.
    pub geometry: Option<Option<Geometry>>,
    /// Property ids with their new values.
    pub properties: Vec<(u16, Value)>,
}

/// Fixes of one track. One at a time that the line already has replaces that vertex, so an append needs no knowledge of the
/// line, several writers may append, and replaying is harmless.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    pub id: FeatureId,
    /// Positions in the type's CRS, finite; `m` is the time, seconds since the epoch.
    pub fixes: Vec<Coord>,
    /// Property ids with their new values. Every property that may not be null is among them, since this may be the first fix.
    pub properties: Vec<(u16, Value)>,
}

impl Change {
    pub fn id(&self) -> &FeatureId {
        match self {
            Change::Put(f) => &f.id,
            Change::Patch(p) => &p.id,
            Change::Append(a) => &a.id,
            Change::Delete(id) => id,
            Change::If(_, change) => change.id(),
        }
    }

    /// The time in this property, where the change says it.
    pub fn event_time(&self, slot: usize) -> Option<i64> {
        match self {
            Change::Put(f) => f.event_time(slot),
            Change::Patch(p) => {
                p.properties.iter().find(|(s, _)| usize::from(*s) == slot).and_then(|(_, v)| v.as_date_time())
            }
            Change::If(_, change) => change.event_time(slot),
            Change::Append(_) | Change::Delete(_) => None,
        }
    }

    /// `Put` and `Delete` are full: what was there before does not matter.
    pub fn is_full(&self) -> bool {
        matches!(self, Change::Put(_) | Change::Delete(_))
    }
}

impl Patch {
    /// The feature with this patch applied.
    pub fn apply(&self, base: &Feature) -> Feature {
        let mut next = base.clone();
        if let Some(geometry) = &self.geometry {
            next.geometry = geometry.clone();
        }
        set_values(&mut next.properties, &self.properties);
        next
    }
}

impl Append {
    /// The track with these fixes, made anew where there is none. Costs as much as the line has vertices; the index has a
    /// cheaper way for one append after the other.
    pub fn apply(&self, base: Option<&Feature>, shape: &TrackShape) -> Feature {
        let none = || Feature { id: self.id.clone(), geometry: None, properties: Vec::new() };
        let mut next = base.cloned().unwrap_or_else(none);
        let mut fixes = Fixes::default();
        self.fixes.iter().for_each(|fix| fixes.set(*fix));
        next.geometry = shape.line(next.geometry.as_ref(), &fixes);
        set_values(&mut next.properties, &self.properties);
        next
    }
}

/// Sets values by their property's id.
pub fn set_values(properties: &mut Vec<Value>, changes: &[(u16, Value)]) {
    for (slot, value) in changes {
        let slot = usize::from(*slot);
        if properties.len() <= slot {
            properties.resize(slot + 1, Value::Null);
        }
        properties[slot] = value.clone();
    }
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Changes that are applied in one step: all of one transaction that fall into this partition, or a part of them.
    Changes { run: Run, changes: Vec<Change> },
    /// The sweeper's marker.
    Persisted(Persisted),
}

/// A transaction too large for one record travels as a run of records, appended together or not at all, in their order, though
/// others may stand between them; it is applied at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// From 1.
    pub part: u32,
    pub of: u32,
    /// Tells its parts from those of other runs; 0 of a record that stands alone.
    pub id: u64,
}

impl Run {
    /// A record that stands alone.
    pub const WHOLE: Run = Run { part: 1, of: 1, id: 0 };

    pub fn is_last(self) -> bool {
        self.part == self.of
    }
}

/// Written after the delegate has committed. Of the entries dirty since before `durable_through` those last changed before
/// `evict_through` leave the index, and those that stay are dirty since `durable_through` at the earliest, but for those in
/// `except`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    pub durable_through: Offset,
    pub evict_through: Offset,
    /// What the delegate refused.
    pub except: Vec<FeatureId>,
}
