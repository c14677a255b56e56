//! What a log record says. The log itself carries bytes; `format::record` turns them into these and back.

use std::sync::Arc;

use super::{Feature, FeatureId, Geometry, Offset, Value};

/// One change of one feature.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The whole feature replaces what was there, found or not.
    Put(Arc<Feature>),
    /// Sets some properties or the geometry and leaves the rest. Of a feature that is not there it does nothing.
    Patch(Patch),
    /// Removes the feature; of one that is not there it does nothing.
    Delete(FeatureId),
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

impl Change {
    pub fn id(&self) -> &FeatureId {
        match self {
            Change::Put(f) => &f.id,
            Change::Patch(p) => &p.id,
            Change::Delete(id) => id,
        }
    }

    /// `Put` and `Delete` are full: what was there before does not matter.
    pub fn is_full(&self) -> bool {
        !matches!(self, Change::Patch(_))
    }
}

impl Patch {
    /// The feature with this patch applied.
    pub fn apply(&self, base: &Feature) -> Feature {
        let mut next = base.clone();
        if let Some(geometry) = &self.geometry {
            next.geometry = geometry.clone();
        }
        for (slot, value) in &self.properties {
            let slot = usize::from(*slot);
            if next.properties.len() <= slot {
                next.properties.resize(slot + 1, Value::Null);
            }
            next.properties[slot] = value.clone();
        }
        next
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

/// A transaction too large for one record travels as a run of records, appended together or not at all; it is applied at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// From 1.
    pub part: u32,
    pub of: u32,
}

impl Run {
    /// A record that stands alone.
    pub const WHOLE: Run = Run { part: 1, of: 1 };

    pub fn is_last(self) -> bool {
        self.part == self.of
    }
}

/// Written after the delegate has committed. Entries last changed before `evict_through` leave the index, but for those in
/// `except`; entries that stay are dirty since `durable_through` at the earliest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    pub durable_through: Offset,
    pub evict_through: Offset,
    /// What the delegate refused.
    pub except: Vec<FeatureId>,
}
