//! Failures in, the time to wait before the next attempt out.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(10);
/// Who did not fail for so long begins anew.
const CALM: Duration = Duration::from_secs(30);

/// Doubles from 0.2 to 10 s, each with jitter: a thousand agents come back together when the API server does.
#[derive(Clone, Debug)]
pub struct Backoff {
    step: Duration,
    failed: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            step: FIRST,
            failed: None,
        }
    }
}

impl Backoff {
    /// The time to wait after one more failure: between half of the step and all of it.
    pub fn delay(&mut self) -> Duration {
        self.delay_at(Instant::now())
    }

    fn delay_at(&mut self, now: Instant) -> Duration {
        if self
            .failed
            .is_some_and(|failed| now.saturating_duration_since(failed) > CALM)
        {
            self.step = FIRST;
        }
        self.failed = Some(now);
        let step = self.step;
        self.step = (step * 2).min(LAST);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.delay())
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    /// Nothing: kube calls this for the mere beginning of a list too, which comes before every failure.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_limit_and_begins_anew_after_a_calm() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..20 {
            let delay = backoff.delay_at(now);
            kube::runtime::utils::Backoff::reset(&mut backoff);
            now += delay;
            delays.push(delay);
        }
        assert!(delays[0] <= FIRST && delays[0] >= FIRST / 2);
        assert!(delays[19] <= LAST && delays[19] >= LAST / 2);
        assert!(backoff.delay_at(now + CALM * 2) <= FIRST);
    }
}
