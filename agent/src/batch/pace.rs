//! Bytes sent and answers received in, when the next request may go out: limits kept without being refused.
//!
//! The tenant's own rate, which it shares with other agents, is found by [`adapt`](super::adapt).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Answers slower than this stretch the wait for company.
const SLOW_ANSWER: Duration = Duration::from_millis(200);
/// The wait is never stretched beyond this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What the pusher tells the batcher about one tenant while requests are still under way.
#[derive(Debug, Default)]
pub struct Feedback {
    throttles: AtomicU64,
    refused_bytes: AtomicU64,
    latency_micros: AtomicU64,
    rate: AtomicU64,
}

impl Feedback {
    /// Loki answered 429 to a request of so many bytes.
    pub fn throttled(&self, bytes: u64) {
        self.throttles.fetch_add(1, Ordering::Relaxed);
        self.refused_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were refused since the last call: they are sent once more.
    pub(super) fn take_refused_bytes(&self) -> u64 {
        self.refused_bytes.swap(0, Ordering::Relaxed)
    }

    /// The tenant's rate in bytes per second, to be kept by what is sent once more.
    pub(super) fn set_rate(&self, rate: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is positive and far below 2^63"
        )]
        self.rate.store(rate as u64, Ordering::Relaxed);
    }

    /// How long so many bytes take at the tenant's rate; nothing where it is not known.
    pub fn time_of(&self, bytes: u64) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(bytes.saturating_mul(1000) / rate)
    }

    /// An answer took this long. The average rises with weight 1/4 for the newest and falls with 1/32: agents that forgot at
    /// once how slow answers were would crowd the gateway again as soon as it has recovered.
    pub fn answered(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros())
            .unwrap_or(u64::MAX)
            .min(600_000_000);
        // Two answers at once may lose one of two samples of an average: harmless.
        let average = self.latency_micros.load(Ordering::Relaxed);
        let next = if average == 0 {
            micros
        } else {
            let weight = if micros > average { 4 } else { 32 };
            average - average / weight + micros / weight
        };
        self.latency_micros.store(next, Ordering::Relaxed);
    }

    /// How often [`Feedback::throttled`] was called.
    pub fn throttles(&self) -> u64 {
        self.throttles.load(Ordering::Relaxed)
    }

    /// How long answers take.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_micros.load(Ordering::Relaxed))
    }
}

/// How long a line waits for company: in proportion to answers slower than 200 ms, up to 5 s.
pub(super) fn stretched(wait: Duration, latency: Duration) -> Duration {
    let factor = latency.as_secs_f64() / SLOW_ANSWER.as_secs_f64();
    if factor <= 1.0 {
        wait
    } else {
        wait.max(wait.mul_f64(factor.min(100.0)).min(LONGEST_WAIT))
    }
}

/// A token bucket as one instant (GCRA): when it would be full again. A request may go out while the bucket
/// holds anything, so a request larger than the bucket is possible after a rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    full_at: Option<Instant>,
}

impl Meter {
    /// When the next request may go out; `None` when at once.
    pub(super) fn ready_at(&self, rate: f64, burst: f64) -> Option<Instant> {
        let bucket = Duration::from_secs_f64((burst / rate).clamp(0.0, 3_600.0));
        self.full_at.and_then(|full| full.checked_sub(bucket))
    }

    /// How long it takes until the bucket is full again.
    pub(super) fn debt(&self, now: Instant) -> Duration {
        self.full_at
            .map_or(Duration::ZERO, |full| full.saturating_duration_since(now))
    }

    /// The rate has become so many times what it was: what was taken takes as much less time.
    pub(super) fn rescale(&mut self, times: f64, now: Instant) {
        if let Some(full) = &mut self.full_at {
            let left = full.saturating_duration_since(now).as_secs_f64() / times;
            *full = now + Duration::from_secs_f64(left.clamp(0.0, 3_600.0));
        }
    }

    /// Takes a request's bytes.
    pub(super) fn take(&mut self, bytes: u64, rate: f64, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a request has fewer than 2^52 bytes")]
        let cost = Duration::from_secs_f64((bytes as f64 / rate).clamp(0.0, 3_600.0));
        let from = self.full_at.map_or(now, |full| full.max(now));
        self.full_at = Some(from + cost);
    }
}

/// A limit as a rate; 0 would never send anything.
#[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
pub(super) fn as_rate(limit: u64) -> f64 {
    limit.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_meter_allows_its_burst_and_then_its_rate() {
        let begin = Instant::now();
        let mut now = begin;
        let mut meter = Meter::default();
        let mut sent = 0_u64;
        while now < begin + 10 * SECOND {
            match meter.ready_at(1_000.0, 2_000.0) {
                Some(at) if at > now => now = at,
                _ => {
                    meter.take(500, 1_000.0, now);
                    sent += 500;
                }
            }
        }
        // Ten seconds, the burst, and one request that the last drop allowed.
        assert!((12_000..=12_500).contains(&sent), "{sent}");
    }

    #[test]
    fn what_was_taken_is_paid_at_the_rate_of_each_moment() {
        let begin = Instant::now();
        let mut meter = Meter::default();
        meter.take(4_000, 1_000.0, begin);
        meter.rescale(4.0, begin + 2 * SECOND);
        assert_eq!(meter.ready_at(4_000.0, 0.0), Some(begin + SECOND * 5 / 2));
        meter.rescale(0.5, begin + 9 * SECOND);
        assert_eq!(meter.debt(begin + 9 * SECOND), Duration::ZERO);
    }

    #[test]
    fn slow_answers_stretch_the_wait() {
        let wait = |millis| stretched(SECOND, Duration::from_millis(millis)).as_millis();
        assert_eq!(
            [0, 200, 400, 900, 5_000].map(wait),
            [1_000, 1_000, 2_000, 4_500, 5_000]
        );
        assert_eq!(stretched(10 * SECOND, SECOND), 10 * SECOND);
    }
}
