//! Selecting: what matches a filter, and what of the delegate is hidden from a reader.

use std::sync::Arc;

use super::by_value::ByValue;
use super::{Entry, ReaderTicket, TransientIndex};
use crate::model::{Feature, FeatureId, Offset, Rect, Value};
use crate::query::{CompareOp, Filter, Operand, evaluate};
use crate::sabotage::{Safeguard, off};

/// A feature that matches, as it stands at a step.
#[derive(Clone, Debug)]
pub struct Match {
    pub feature: Arc<Feature>,
    pub version: Offset,
}

impl TransientIndex {
    /// Announces a reader of both tiers: what it must not see in the delegate is remembered until the ticket is dropped.
    pub fn reader(&self) -> ReaderTicket {
        self.readers.begin(self.generation, self.step)
    }

    /// True when a delegate row of this id is hidden from that reader: the id was here when the reader began.
    pub fn hides(&self, reader: &ReaderTicket, id: &str) -> bool {
        if off(Safeguard::Masking) {
            return false;
        }
        match self.get(id) {
            Some(entry) if entry.entered <= reader.step() || off(Safeguard::OwnMoment) => true,
            _ => self.readers.was_evicted_from(reader, id),
        }
    }

    /// Every id that is hidden from that reader, tombstones included.
    pub fn hidden_from(&self, reader: &ReaderTicket) -> Vec<FeatureId> {
        let here = self.slots.iter().flatten().filter(|e| e.entered <= reader.step()).map(|e| e.id.clone());
        here.chain(self.readers.evicted_from(reader)).collect()
    }

    /// What matches, in no particular order. Uses the best index that the filter allows.
    pub fn select(&self, filter: &Filter) -> Vec<Match> {
        let mut matches = Vec::new();
        let (boxes, rest) = filter.boxes_and_rest();
        // Most of what a box finds lies in it whole: then the geometry need not be looked at.
        let selects = |entry: &Entry, feature: &Feature| match &entry.bounds {
            Some(b) if boxes.iter().all(|r| r.contains(b)) => rest.iter().all(|f| evaluate::matches(f, feature)),
            _ => evaluate::matches(filter, feature),
        };
        let mut check = |slot: u32| {
            if let Some(entry) = &self.slots[slot as usize]
                && let Some(feature) = entry.feature()
                && selects(entry, &feature)
            {
                matches.push(Match { feature, version: entry.version });
            }
        };
        if let Some(ids) = filter.id_set() {
            ids.list.iter().filter_map(|id| self.by_id.get(id)).for_each(|slot| check(*slot));
        } else if let Some(bounds) = filter.bounds_of_located() {
            self.by_space.query(&bounds, &mut check);
            if filter.may_lack_geometry() {
                self.without_geometry.iter().for_each(|slot| check(*slot));
            }
        } else if let Some((index, value)) = self.equality(filter) {
            index.equal_to(value).for_each(check);
        } else {
            (0..self.slots.len() as u32).for_each(check);
        }
        matches
    }

    /// The envelope of the features here.
    pub fn bounds(&self) -> Option<Rect> {
        self.by_space.bounds()
    }

    /// An equality in the filter that a property's index answers.
    pub(super) fn equality<'a>(&'a self, filter: &'a Filter) -> Option<(&'a ByValue, &'a Value)> {
        match filter {
            Filter::And(all) => all.iter().find_map(|f| self.equality(f)),
            Filter::Compare {
                op: CompareOp::Equal,
                left: Operand::Property(p),
                right: Operand::Literal(v),
                match_case: true,
            }
            | Filter::Compare {
                op: CompareOp::Equal,
                left: Operand::Literal(v),
                right: Operand::Property(p),
                match_case: true,
            } => self.by_value.iter().find(|(slot, _)| slot == p).map(|(_, index)| (index, v)),
            _ => None,
        }
    }
}
