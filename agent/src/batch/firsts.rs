//! Answers to streams' first requests in, how many of them may be under way out.
//!
//! Each travels alone, so a node with a thousand new streams needs a thousand requests: many at a time while Loki takes
//! them. When it takes no further stream of the tenant, those that it has must flow on, and somebody has to find out
//! from time to time whether it does again: one at a time, ever more slowly.

use std::time::{Duration, Instant};

/// At first.
const FEW: usize = 2;
/// While every one is taken.
pub(super) const MANY: usize = 16;
/// Between two of them after one was refused, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The first requests of one tenant's streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Firsts {
    under_way: usize,
    window: usize,
    pause: Duration,
    refused: bool,
    not_before: Option<Instant>,
}

impl Default for Firsts {
    fn default() -> Self {
        Self {
            under_way: 0,
            window: FEW,
            pause: PAUSES.0,
            refused: false,
            not_before: None,
        }
    }
}

impl Firsts {
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether one more may be under way.
    pub(super) fn has_window(&self) -> bool {
        self.under_way < self.window
    }

    /// When the next one may go out.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn began(&mut self, first: bool) {
        self.under_way += usize::from(first);
    }

    /// One ended, or has to wait and makes place for others.
    pub(super) fn left(&mut self, first: bool) {
        self.under_way = self.under_way.saturating_sub(usize::from(first));
    }

    /// Loki took one.
    pub(super) fn taken(&mut self) {
        self.window = (self.window + 1).min(MANY);
        self.pause = PAUSES.0;
        self.not_before = None;
    }

    /// Loki takes no further stream.
    pub(super) fn refused(&mut self) {
        self.window = 1;
        self.refused = true;
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant) {
        if std::mem::take(&mut self.refused) {
            self.not_before = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_while_they_are_taken_and_one_at_a_time_when_not() {
        let mut firsts = Firsts::default();
        let now = Instant::now();
        for _ in 0..40 {
            firsts.began(true);
            firsts.taken();
            firsts.left(true);
        }
        (0..MANY).for_each(|_| firsts.began(true));
        assert!(!firsts.has_window());
        firsts.left(true);
        assert!(firsts.has_window() && firsts.ready_at().is_none());
        (1..MANY).for_each(|_| firsts.left(true));
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            firsts.refused();
            firsts.tick(now);
            assert_eq!(firsts.ready_at(), Some(now + Duration::from_secs(seconds)));
            firsts.began(true);
            assert!(!firsts.has_window());
            firsts.left(true);
        }
        firsts.taken();
        assert_eq!(
            (firsts.ready_at(), firsts.window, firsts.under_way()),
            (None, 2, 0)
        );
    }
}
