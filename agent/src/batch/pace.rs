//! Bytes sent and answers received in, when the next request may go out: limits kept without being refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Answers slower than this stretch the wait for company.
const SLOW_ANSWER: Duration = Duration::from_millis(200);
/// The wait is never stretched beyond this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Growth of the rate in a second after it was cut.
const GROWTH: f64 = 1.05;
/// No rate falls below this, in bytes per second.
const SLOWEST: f64 = 16_384.0;
/// Refusals within this time of a cut are of the same crowd of requests.
const ONE_CUT: Duration = Duration::from_secs(1);

/// What the pusher tells the batcher about one tenant while requests are still under way.
#[derive(Debug, Default)]
pub struct Feedback {
    throttles: AtomicU64,
    latency_micros: AtomicU64,
}

impl Feedback {
    /// Loki answered 429.
    pub fn throttled(&self) {
        self.throttles.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer took this long; averaged with weight 1/8 for the newest.
    pub fn answered(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros())
            .unwrap_or(u64::MAX)
            .min(600_000_000);
        // Two answers at once may lose one of two samples of an average: harmless.
        let average = self.latency_micros.load(Ordering::Relaxed);
        let next = if average == 0 {
            micros
        } else {
            (average * 7 + micros) / 8
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

    /// Takes a request's bytes.
    pub(super) fn take(&mut self, bytes: u64, rate: f64, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a request has fewer than 2^52 bytes")]
        let cost = Duration::from_secs_f64((bytes as f64 / rate).clamp(0.0, 3_600.0));
        let from = self.full_at.map_or(now, |full| full.max(now));
        self.full_at = Some(from + cost);
    }
}

/// A rate that is halved when Loki refuses and grows by 5 % a second up to a ceiling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aimd {
    rate: f64,
    ceiling: f64,
    grown_at: Option<Instant>,
    cut_at: Option<Instant>,
    /// Bytes per second that went out lately; a cut begins there, not at a ceiling that was never reached.
    recent: f64,
    recent_at: Option<Instant>,
}

impl Aimd {
    pub(super) fn new(ceiling: u64) -> Self {
        let ceiling = as_rate(ceiling);
        Self {
            rate: ceiling,
            ceiling,
            grown_at: None,
            cut_at: None,
            recent: 0.0,
            recent_at: None,
        }
    }

    pub(super) fn set_ceiling(&mut self, ceiling: u64) {
        let ceiling = as_rate(ceiling);
        // A rate that was never cut follows its ceiling up.
        if self.rate >= self.ceiling {
            self.rate = ceiling;
        }
        self.ceiling = ceiling;
        self.rate = self.rate.min(ceiling);
    }

    /// Bytes per second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Lets time pass.
    pub(super) fn grow(&mut self, now: Instant) {
        if let Some(since) = self.grown_at {
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            self.rate = (self.rate * GROWTH.powf(seconds)).min(self.ceiling);
        }
        self.grown_at = Some(now);
    }

    /// Counts what goes out.
    pub(super) fn sent(&mut self, bytes: u64, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a request has fewer than 2^52 bytes")]
        let bytes = bytes as f64;
        self.recent = self.recent_rate(now) + bytes / 2.0;
        self.recent_at = Some(now);
    }

    /// Loki refused: half of what went out, give or take a tenth (`jitter` is 0 to 1), so that a fleet's
    /// agents part.
    pub(super) fn throttled(&mut self, jitter: f64, now: Instant) {
        if self
            .cut_at
            .is_some_and(|at| now.saturating_duration_since(at) < ONE_CUT)
        {
            return;
        }
        self.grow(now);
        let base = self.rate.min(self.recent_rate(now).max(SLOWEST));
        self.rate = (base * (0.4 + 0.2 * jitter)).max(SLOWEST.min(self.ceiling));
        self.cut_at = Some(now);
    }

    fn recent_rate(&self, now: Instant) -> f64 {
        let age = self
            .recent_at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.recent * (-age / 2.0).exp()
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
    fn the_rate_halves_once_per_crowd_and_recovers() {
        let begin = Instant::now();
        let mut aimd = Aimd::new(4 << 20);
        for step in 0..200 {
            aimd.sent(40 << 10, begin + Duration::from_millis(10) * step);
        }
        let now = begin + 2 * SECOND;
        aimd.throttled(0.5, now);
        let cut = aimd.rate();
        assert!((800_000.0..2_200_000.0).contains(&cut), "{cut}");
        aimd.throttled(0.5, now + Duration::from_millis(500));
        assert!((aimd.rate() - cut).abs() < 0.1);
        aimd.grow(now + SECOND);
        assert!((aimd.rate() / cut - 1.05).abs() < 0.001);
        aimd.grow(now + 120 * SECOND);
        assert!((aimd.rate() - 4_194_304.0).abs() < 0.1);
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
