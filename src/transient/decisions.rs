//! How conditional changes were decided, for the writers that wait to hear.

use std::collections::VecDeque;

use crate::model::Offset;

/// How many are remembered per partition. A writer asks as soon as its instance has applied its record.
const KEPT: usize = 10_000;

/// What became of a conditional change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The feature was as expected; the change is done.
    Held,
    /// It was not; nothing was done.
    Failed,
    /// The delegate had later changes already when this instance came to it, or it is long ago.
    Unknown,
}

/// Those of a partition that have not held, or had to wait for their base, by their offsets.
#[derive(Debug)]
pub struct Decisions {
    /// What is before is forgotten.
    since: Offset,
    others: VecDeque<(Offset, Decision)>,
}

impl Decisions {
    pub fn new(since: Offset) -> Decisions {
        Decisions { since, others: VecDeque::new() }
    }

    /// One that had to wait for its base is told anew when it is decided.
    pub fn note(&mut self, offset: Offset, decision: Decision) {
        let at = self.others.partition_point(|(o, _)| *o < offset);
        if let Some((_, known)) = self.others.get_mut(at).filter(|(o, _)| *o == offset) {
            *known = decision;
        } else if at == self.others.len() {
            if self.others.len() == KEPT
                && let Some((forgotten, _)) = self.others.pop_front()
            {
                self.since = forgotten + 1;
            }
            self.others.push_back((offset, decision));
        }
    }

    /// Of a record that has been applied.
    pub fn of(&self, offset: Offset) -> Decision {
        if offset < self.since {
            return Decision::Unknown;
        }
        // Newest first: whoever asks has just written.
        self.others
            .iter()
            .rev()
            .find(|(o, _)| *o <= offset)
            .filter(|(o, _)| *o == offset)
            .map_or(Decision::Held, |(_, d)| *d)
    }
}
