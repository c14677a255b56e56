//! How far something had come, and when: to do what is due a while later.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Offset;

/// Where an offset that rises was, and when: by what no one can set, so that a clock that jumps makes nothing due.
#[derive(Debug, Default)]
pub struct Progress {
    /// Newest last.
    noted: VecDeque<(Instant, Offset)>,
    due: Option<Offset>,
}

impl Progress {
    /// Notes where it is now, and gives where it was so long ago, as far as that was noted and is not done.
    pub fn before(&mut self, age: Duration, offset: Offset) -> Option<Offset> {
        if self.noted.back().map(|(_, last)| *last).max(self.due).is_some_and(|last| last > offset) {
            // The long-term store was put back.
            *self = Progress::default();
        }
        if self.noted.back().is_none_or(|(_, last)| *last < offset) {
            self.noted.push_back((Instant::now(), offset));
        }
        while let Some((_, offset)) = self.noted.pop_front_if(|(at, _)| at.elapsed() >= age) {
            self.due = Some(offset);
        }
        self.due
    }

    /// What was due is done.
    pub fn done(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_due_until_it_is_done_whatever_the_clocks_say() {
        let (minute, half) = (Duration::from_secs(60), Duration::from_secs(30));
        let mut progress = Progress::default();
        assert_eq!(progress.before(minute, 5), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 7), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 9), Some(5));
        assert_eq!(progress.before(minute, 9), Some(5));
        progress.done();
        assert_eq!(progress.before(minute, 9), None);
        // The store was put back, and what came after is gone.
        assert_eq!(progress.before(minute, 6), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 6), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 6), Some(6));
    }
}
