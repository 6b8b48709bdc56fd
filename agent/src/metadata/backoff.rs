//! Failures in, the time to wait before the next attempt out.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(10);

/// Doubles from 0.2 to 10 s, each with jitter: a thousand agents come back together when the API server does.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The time to wait after one more failure: between half of the step and all of it.
    pub fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LAST);
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
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_limit_and_begins_anew() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = backoff.by_ref().take(20).collect();
        assert!(delays[0] <= FIRST && delays[0] >= FIRST / 2);
        assert!(delays[19] <= LAST && delays[19] >= LAST / 2);
        kube::runtime::utils::Backoff::reset(&mut backoff);
        assert!(backoff.delay() <= FIRST);
    }
}
