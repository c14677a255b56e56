//! How far something had come, and when: to do what is due a while later.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Offset;

/// Where an offset that rises was, and when, newest last: by what no one can set, so that a clock that jumps makes nothing due.
#[derive(Debug, Default)]
pub struct Progress(VecDeque<(Instant, Offset)>);

impl Progress {
    /// Notes where it is now, and gives where it was so long ago, as far as that was noted and has not been given before.
    pub fn before(&mut self, age: Duration, offset: Offset) -> Option<Offset> {
        let noted = &mut self.0;
        if noted.back().is_some_and(|(_, last)| *last > offset) {
            // The long-term store was put back.
            noted.clear();
        }
        if noted.back().is_none_or(|(_, last)| *last < offset) {
            noted.push_back((Instant::now(), offset));
        }
        let mut old_enough = None;
        while let Some((_, offset)) = noted.pop_front_if(|(at, _)| at.elapsed() >= age) {
            old_enough = Some(offset);
        }
        old_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_due_once_whatever_the_clocks_say() {
        let (minute, half) = (Duration::from_secs(60), Duration::from_secs(30));
        let mut progress = Progress::default();
        assert_eq!(progress.before(minute, 5), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 7), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 9), Some(5));
        assert_eq!(progress.before(minute, 9), None);
        // The store was put back, and what came after is gone.
        assert_eq!(progress.before(minute, 6), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 6), None);
        advance(half).await;
        assert_eq!(progress.before(minute, 6), Some(6));
    }
}
