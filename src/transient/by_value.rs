//! The index by an indexed property.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::model::Value;

#[derive(Debug, Default)]
pub struct ByValue {
    places: BTreeSet<(Key, u32)>,
    /// Of the values' own.
    heap_bytes: usize,
}

impl ByValue {
    pub fn replace(&mut self, old: Option<&Value>, new: Option<&Value>, slot: u32) {
        if old == new {
            return;
        }
        if let Some(v) = old {
            self.places.remove(&(Key(v.clone()), slot));
            self.heap_bytes -= v.heap_bytes();
        }
        if let Some(v) = new {
            self.places.insert((Key(v.clone()), slot));
            self.heap_bytes += v.heap_bytes();
        }
    }

    pub fn bytes(&self) -> usize {
        // Nodes of a B-tree are about two thirds full.
        self.places.len() * size_of::<(Key, u32)>() * 3 / 2 + self.heap_bytes
    }

    pub fn equal_to(&self, value: &Value) -> impl Iterator<Item = u32> + '_ {
        self.places.range((Key(value.clone()), 0)..=(Key(value.clone()), u32::MAX)).map(|(_, slot)| *slot)
    }
}

/// A value in its sort order. Values of one property are of one type, numbers finite: so the order is total.
#[derive(Clone, Debug)]
struct Key(Value);

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Key {}
impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.sort_cmp(&other.0)
    }
}
