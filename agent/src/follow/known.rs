//! Records that the spool holds in, whether one that comes again is among them out. Pure.
//!
//! `sinceTime` has whole seconds, so after a cut some lines come again: exactly those that are there are
//! skipped, each as often as it is there.

use std::collections::HashMap;

use sluice_engine::cri::Timestamp;
use xxhash_rust::xxh3::xxh3_128;

/// Seconds by which lines may stand in another order than their timestamps: the runtime reads a container's two
/// outputs apart.
const DISORDER: i64 = 2;

/// A multiset of records.
#[derive(Debug, Default)]
pub struct Known {
    counts: HashMap<u128, u32>,
    newest: i64,
}

impl Known {
    /// Adds a record of this time.
    pub fn add(&mut self, timestamp: Timestamp, record: &[u8]) {
        *self.counts.entry(xxh3_128(record)).or_default() += 1;
        self.newest = self.newest.max(timestamp.seconds);
    }

    /// Whether nothing is known, or nothing any more.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Takes a record out; false when it is not there.
    pub fn take(&mut self, timestamp: Timestamp, record: &[u8]) -> bool {
        if self.counts.is_empty() {
            return false;
        }
        if timestamp.seconds > self.newest + DISORDER {
            self.counts = HashMap::new();
            return false;
        }
        let hash = xxh3_128(record);
        match self.counts.get_mut(&hash) {
            Some(1) => self.counts.remove(&hash).is_some(),
            Some(count) => {
                *count -= 1;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_as_often_as_it_was_added() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let mut known = Known::default();
        known.add(at(5), b"a");
        known.add(at(5), b"a");
        known.add(at(6), b"b");
        let taken: Vec<bool> = [b"a", b"c", b"a", b"a", b"b"]
            .iter()
            .map(|record| known.take(at(6), *record))
            .collect();
        assert_eq!(taken, [true, false, true, false, true]);
        assert!(known.is_empty());
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let mut known = Known::default();
        known.add(at(5), b"a");
        assert!(!known.take(at(7), b"b") && !known.is_empty());
        assert!(!known.take(at(8), b"a") && known.is_empty());
    }
}
