//! Delays in, percentiles out, in memory that does not grow with their number.

use std::time::Duration;

/// Buckets of each doubling: a percentile is at most a sixteenth too high.
const STEPS: u32 = 16;

/// How often which delay was seen.
#[derive(Debug, Default)]
pub struct Delays {
    /// By the delay's bucket, in microseconds.
    counts: Vec<u64>,
    total: u64,
}

impl Delays {
    /// Counts one.
    pub fn add(&mut self, delay: Duration) {
        let bucket = bucket(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
    }

    /// The delay that so many of a hundred do not exceed; none of none.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_micros(top(bucket)))
    }
}

fn bucket(micros: u64) -> usize {
    let doublings = (micros | u64::from(STEPS)).ilog2() - STEPS.ilog2();
    (doublings * STEPS) as usize + usize::try_from(micros >> doublings).unwrap_or(usize::MAX)
}

/// The highest value of a bucket.
fn top(bucket: usize) -> u64 {
    let steps = STEPS as usize;
    let doublings = (bucket / steps).saturating_sub(1);
    let step = (bucket - doublings * steps) as u64;
    ((step + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_hardly_more_than_the_delay_it_stands_for() {
        for micros in (0..5_000).chain([99_999, 1_000_000, 86_400_000_000]) {
            let top = top(bucket(micros));
            assert!(top >= micros && top <= micros + micros / 16, "{micros}: {top}");
        }
        let mut delays = Delays::default();
        assert_eq!(delays.percentile(50), None);
        for millis in 1..=1_000 {
            delays.add(Duration::from_millis(millis));
        }
        for (percent, millis) in [(50, 500), (99, 990), (100, 1_000)] {
            let found = delays.percentile(percent).unwrap().as_millis();
            assert!(
                (millis..=millis + millis / 16).contains(&found),
                "{percent}: {found}"
            );
        }
    }
}
