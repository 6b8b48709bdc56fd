//! Attempts in, how long to wait before the next one out.

use std::time::Duration;

/// The longest that a server may ask us to wait by `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// Waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Back-off after the first failure at most; doubles with each.
    pub first: Duration,
    /// Back-off at most.
    pub most: Duration,
    /// Between probes of a tenant whose configuration is refused, at least and at most.
    pub refused: (Duration, Duration),
    /// Between probes of a tenant that Loki blocks, at least and at most.
    pub blocked: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            most: Duration::from_secs(30),
            refused: (Duration::from_secs(5), Duration::from_secs(30)),
            blocked: (Duration::from_secs(30), Duration::from_mins(1)),
        }
    }
}

/// Why a tenant is held, which says how often it is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Something is configured wrongly, here or there.
    Refused,
    /// Loki blocks the tenant on purpose.
    Blocked,
}

impl Timing {
    /// Exponential back-off with full jitter: `attempt` counts from 1, `random` is 0 to 1.
    pub(super) fn back_off(&self, attempt: u32, retry_after: Option<Duration>, random: f64) -> Duration {
        let most = self.first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(self.most);
        // Full jitter begins at zero, and a loop without any wait would be a busy one.
        let wait = most.mul_f64(random.clamp(0.0, 1.0)).max(self.first / 10);
        wait.max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
    }

    /// Between two probes; grows with their number, so that a new fault is noticed to be gone soon.
    pub(super) fn probe(&self, hold: Hold, probes: u32, random: f64) -> Duration {
        let (least, most) = match hold {
            Hold::Refused => self.refused,
            Hold::Blocked => self.blocked,
        };
        let upper = least.saturating_mul(2 << probes.min(8)).min(most);
        least + upper.saturating_sub(least).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_limit() {
        let timing = Timing::default();
        let most = |attempt| timing.back_off(attempt, None, 1.0).as_millis();
        assert_eq!([1, 2, 3, 6, 7, 8, 99].map(most), [500, 1_000, 2_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(timing.back_off(5, None, 0.0), Duration::from_millis(50));
        assert_eq!(timing.back_off(1, Some(Duration::from_secs(7)), 1.0), Duration::from_secs(7));
        assert_eq!(timing.back_off(1, Some(Duration::from_secs(9_999)), 1.0), LONGEST_RETRY_AFTER);
    }

    #[test]
    fn probes_stay_within_their_range() {
        let timing = Timing::default();
        for probes in 0..12 {
            for random in [0.0, 0.5, 1.0] {
                let wait = timing.probe(Hold::Refused, probes, random);
                assert!((timing.refused.0..=timing.refused.1).contains(&wait));
                let wait = timing.probe(Hold::Blocked, probes, random);
                assert!((timing.blocked.0..=timing.blocked.1).contains(&wait));
            }
        }
    }
}
