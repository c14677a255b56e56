//! Entries of one partition in the order in which they became dirty, and when that was.

use std::collections::VecDeque;

use crate::model::{Offset, PartitionId};

/// Where and when a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub partition: PartitionId,
    pub offset: Offset,
    /// The offset of the first record that is applied in one with this one: before it and behind all of them an instance may
    /// begin, but not between.
    pub since: Offset,
    /// The running maximum of the log's append times, milliseconds.
    pub time_ms: i64,
}

/// How finely the log's time is remembered, milliseconds.
const GRAIN_MS: i64 = 20;

/// So many times are kept; past it the older half is kept half as finely.
const MOST_TIMES: usize = 1 << 16;

/// O(1) per write: an entry that became dirty anew is pushed again, and its old place is skipped (the caller tells by the
/// entry's own `dirty_since`).
#[derive(Debug, Default)]
pub struct DirtyQueue {
    queue: VecDeque<(Offset, u32)>,
    /// From this offset on, records were appended at this time or later. Rising in both.
    times: VecDeque<(Offset, i64)>,
}

impl DirtyQueue {
    pub fn push(&mut self, dirty_since: Offset, slot: u32) {
        self.queue.push_back((dirty_since, slot));
    }

    pub fn iter(&self) -> impl Iterator<Item = (Offset, u32)> + '_ {
        self.queue.iter().copied()
    }

    pub fn bytes(&self) -> usize {
        self.queue.capacity() * size_of::<(Offset, u32)>() + self.times.capacity() * size_of::<(Offset, i64)>()
    }

    /// Takes the first place that is dirty since before `bound`.
    pub fn pop_before(&mut self, bound: Offset) -> Option<(Offset, u32)> {
        self.queue.pop_front_if(|(dirty_since, _)| *dirty_since < bound)
    }

    /// Takes up slots at their places.
    pub fn insert(&mut self, places: Vec<(Offset, u32)>) {
        let Some(last) = places.iter().map(|(dirty_since, _)| *dirty_since).max() else { return };
        let behind = self.queue.split_off(self.queue.partition_point(|(d, _)| *d <= last));
        self.queue.extend(places);
        self.queue.make_contiguous().sort_by_key(|(dirty_since, _)| *dirty_since);
        self.queue.extend(behind);
    }

    /// Puts places back to the front; they are in order and none is dirty since after the present front.
    pub fn put_back(&mut self, places: Vec<(Offset, u32)>) {
        places.into_iter().rev().for_each(|place| self.queue.push_front(place));
        let first = self.queue.front().map_or(Offset::MAX, |(dirty_since, _)| *dirty_since);
        // Of the times before the first place only the last one still says something.
        while self.times.get(1).is_some_and(|(offset, _)| *offset <= first) {
            self.times.pop_front();
        }
        if self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to(self.queue.len() * 2);
        }
        if self.times.len() < self.times.capacity() / 4 {
            self.times.shrink_to(self.times.len() * 2);
        }
    }

    pub fn note_time(&mut self, step: Step) {
        if self.times.back().is_none_or(|(_, t)| step.time_ms >= t + GRAIN_MS) {
            self.times.push_back((step.since, step.time_ms));
        }
        if self.times.len() == MOST_TIMES {
            self.thin_out();
        }
    }

    /// Takes each two of the older half for one that began where the first did, at the time of the second: an entry may leave
    /// a little later for it, never earlier.
    fn thin_out(&mut self) {
        let newer = self.times.split_off(MOST_TIMES / 2);
        let older: Vec<_> = std::mem::take(&mut self.times).into();
        self.times.extend(older.chunks(2).map(|two| (two[0].0, two[two.len() - 1].1)));
        self.times.extend(newer);
    }

    /// The offset before which every record was appended before `time_ms` (to the grain); `end` when all were.
    pub fn offset_at(&self, time_ms: i64, end: Offset) -> Offset {
        let after = self.times.partition_point(|(_, t)| *t < time_ms);
        self.times.get(after).map_or(end, |(offset, _)| *offset)
    }

    /// When the record at this offset was appended.
    pub fn time_at(&self, offset: Offset) -> Option<i64> {
        let after = self.times.partition_point(|(o, _)| *o <= offset);
        self.times.get(after.checked_sub(1)?).map(|(_, t)| *t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_few_and_let_nothing_leave_early() {
        let mut queue = DirtyQueue::default();
        let records = 5 * MOST_TIMES as u64;
        for offset in 0..records {
            let time_ms = offset as i64 * GRAIN_MS;
            queue.note_time(Step { partition: 0, offset, since: offset, time_ms });
        }
        assert!(queue.times.len() < MOST_TIMES);
        assert!(queue.times.iter().zip(queue.times.iter().skip(1)).all(|(a, b)| a.0 < b.0 && a.1 < b.1));
        for offset in (0..records).step_by(997) {
            let through = queue.offset_at(offset as i64 * GRAIN_MS, records);
            assert!(through <= offset, "{offset}: {through}");
        }
        let young = records - 1_000;
        assert_eq!(queue.offset_at(young as i64 * GRAIN_MS, records), young, "what is young is known finely");
    }
}
