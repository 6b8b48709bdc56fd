//! Refusals in, a tenant's rate out: what one agent may send of a limit that many agents share.
//!
//! Nobody tells an agent how many others there are. Each adds to its rate the same number of bytes in each second, and
//! gives up a part of it when Loki refuses: so whoever has more gives up more, and the shares become equal. Who was not
//! refused for long adds ever more, so that one who is alone again soon has it all.
//!
//! Who was never refused feels its way up, twice as fast with each second, and keeps no rate that it does not use: agents
//! that find work at the same moment, after an outage as at their first start, would all be refused for seconds.

use std::time::{Duration, Instant};

use super::pace::as_rate;

/// Part of the ceiling that is added in a second.
const STEP: f64 = 0.000_5;
/// After this time without a refusal the step has doubled; it grows with the square of the time.
const PATIENCE: f64 = 60.0;
/// The most that is added in a second, as a part of the rate.
const MOST: f64 = 0.05;
/// Where a rate begins, as a part of the ceiling.
const BEGIN: f64 = 1.0 / 32.0;
/// A rate that was never cut is at most so many times what goes out lately.
const AHEAD: f64 = 8.0;
/// What is left of the rate after a refusal, and how much of that is left to chance.
const CUT: (f64, f64) = (0.63, 0.14);
/// No rate falls below this, in bytes per second.
const SLOWEST: f64 = 16_384.0;
/// Refusals within this time of a cut are of the same crowd of requests.
const ONE_CUT: Duration = Duration::from_secs(1);

/// The rate of one tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapted {
    rate: f64,
    ceiling: f64,
    grown_at: Option<Instant>,
    /// The last refusal, until the ceiling is reached again.
    cut_at: Option<Instant>,
    /// Bytes per second that went out lately; a cut begins there, not at a rate that was never reached.
    recent: f64,
    recent_at: Option<Instant>,
}

impl Adapted {
    pub(super) fn new(ceiling: u64) -> Self {
        let ceiling = as_rate(ceiling);
        Self {
            rate: least(ceiling),
            ceiling,
            grown_at: None,
            cut_at: None,
            recent: 0.0,
            recent_at: None,
        }
    }

    pub(super) fn set_ceiling(&mut self, ceiling: u64) {
        self.ceiling = as_rate(ceiling);
        self.rate = self.rate.min(self.ceiling);
    }

    /// Bytes per second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// The part of a burst that may be used: nothing after a refusal, since what the tenant takes is not saved up then, the
    /// others have used it; else as much of it as of the ceiling.
    pub(super) fn burst_part(&self) -> f64 {
        if self.cut_at.is_some() {
            0.0
        } else {
            self.rate / self.ceiling
        }
    }

    /// Lets time pass.
    pub(super) fn grow(&mut self, now: Instant) {
        let since = self.grown_at.replace(now).unwrap_or(now);
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        let Some(cut) = self.cut_at else {
            let used = self.recent_rate(now) * AHEAD;
            self.rate = (self.rate * seconds.exp2())
                .min(used)
                .clamp(least(self.ceiling), self.ceiling);
            return;
        };
        let patience = now.saturating_duration_since(cut).as_secs_f64() / PATIENCE;
        let step = self.ceiling * STEP * (1.0 + patience * patience);
        let added = (step * seconds).min(self.rate * ((1.0 + MOST).powf(seconds) - 1.0));
        self.rate = (self.rate + added).min(self.ceiling);
        if self.rate >= self.ceiling {
            self.cut_at = None;
        }
    }

    /// Counts what goes out.
    pub(super) fn sent(&mut self, bytes: u64, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a request has fewer than 2^52 bytes")]
        let bytes = bytes as f64;
        self.recent = self.recent_rate(now) + bytes / 2.0;
        self.recent_at = Some(now);
    }

    /// Loki refused; `chance` is 0 to 1, so that a fleet's agents part.
    pub(super) fn throttled(&mut self, chance: f64, now: Instant) {
        if self
            .cut_at
            .is_some_and(|at| now.saturating_duration_since(at) < ONE_CUT)
        {
            return;
        }
        self.grow(now);
        // Of a rate that was cut before, what goes out lately is but one large request now and then.
        let base = if self.cut_at.is_some() {
            self.rate
        } else {
            self.rate.min(self.recent_rate(now).max(SLOWEST))
        };
        self.rate = (base * (CUT.0 + CUT.1 * chance)).max(SLOWEST.min(self.ceiling));
        self.cut_at = Some(now);
    }

    fn recent_rate(&self, now: Instant) -> f64 {
        let age = self
            .recent_at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.recent * (-age / 2.0).exp()
    }
}

/// The rate that a tenant with this ceiling begins with.
fn least(ceiling: f64) -> f64 {
    (ceiling * BEGIN).max(SLOWEST).min(ceiling)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::super::pace::Meter;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: f64 = 1_048_576.0;

    #[test]
    fn a_rate_doubles_while_it_is_used_and_is_not_kept_for_nothing() {
        let begin = Instant::now();
        let mut adapted = Adapted::new(4 << 20);
        let rate = |adapted: &Adapted| adapted.rate() / MIB;
        // A request a second, as large as may be.
        for (second, kib) in (0_u32..).zip([128_u32, 256, 512, 1_024, 2_048, 4_096, 4_096]) {
            let now = begin + SECOND * second;
            adapted.grow(now);
            let apart = adapted.rate() - f64::from(kib << 10);
            assert!(apart.abs() < 1_024.0, "{second}: {}", adapted.rate());
            adapted.sent(u64::from(kib) << 10, now);
        }
        adapted.grow(begin + 9 * SECOND);
        assert!(rate(&adapted) > 2.0 && adapted.burst_part() > 0.5);
        adapted.grow(begin + 60 * SECOND);
        assert!((rate(&adapted) - 0.125).abs() < 0.01, "{}", adapted.rate());
        // Not less than the slowest, and not more than the ceiling.
        assert!((Adapted::new(100_000).rate() - SLOWEST).abs() < 1.0);
        assert!((Adapted::new(9_000).rate() - 9_000.0).abs() < 1.0);
    }

    #[test]
    fn the_rate_is_cut_once_per_crowd_and_recovers() {
        let begin = Instant::now();
        let mut adapted = Adapted::new(4 << 20);
        for step in 0..1_000 {
            let now = begin + Duration::from_millis(10) * step;
            adapted.grow(now);
            adapted.sent(40 << 10, now);
        }
        let now = begin + 10 * SECOND;
        adapted.throttled(0.5, now);
        let cut = adapted.rate();
        assert!((1_000_000.0..2_900_000.0).contains(&cut), "{cut}");
        assert!(adapted.burst_part() < f64::EPSILON);
        adapted.throttled(0.5, now + Duration::from_millis(500));
        assert!(adapted.rate() / cut < 1.01);
        for second in 0..300 {
            adapted.grow(now + second * SECOND);
            adapted.sent(4 << 20, now + second * SECOND);
        }
        assert!(adapted.burst_part() > 0.9, "{}", adapted.rate());
    }

    /// An agent with more to send than it may, as batcher and pusher do it: one request after the other at its rate, a
    /// second's worth each; one that is refused is sent again, and halved when that happened three times.
    struct Agent {
        adapted: Adapted,
        meter: Meter,
        again: Vec<(f64, u32)>,
        sent: f64,
    }

    /// Figures of agents that share a tenant with a rate and a burst of 4 and 6 MiB: the part of it that is used, the
    /// part of their requests that is refused, and how often the largest share holds the smallest.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a simulation's figures are small and positive"
    )]
    fn share(count: usize, settle: u64, measure: u64, seed: u64) -> (f64, f64, f64) {
        let (rate, burst) = (4.0 * MIB, 6.0 * MIB);
        let mut state = seed;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(u32::try_from(state >> 32).unwrap()) / f64::from(u32::MAX)
        };
        let begin = Instant::now();
        let mut agents: Vec<Agent> = (0..count)
            .map(|_| Agent {
                adapted: Adapted::new(4 << 20),
                meter: Meter::default(),
                again: Vec::new(),
                sent: 0.0,
            })
            .collect();
        let mut due: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        for agent in 0..count {
            due.push(Reverse(((random() * 1e6) as u64, agent)));
        }
        let (mut tokens, mut at) = (burst, 0);
        let (mut attempts, mut refused) = (0_u32, 0_u32);
        while let Some(Reverse((micros, index))) = due.pop() {
            if micros > (settle + measure) * 1_000_000 {
                break;
            }
            let measured = micros > settle * 1_000_000;
            let now = begin + Duration::from_micros(micros);
            let agent = &mut agents[index];
            agent.adapted.grow(now);
            let (bytes, attempt) = agent
                .again
                .pop()
                .unwrap_or_else(|| (agent.adapted.rate().clamp(65_536.0, MIB), 1));
            tokens = f64::min(burst, tokens + (micros - at) as f64 / 1e6 * rate);
            at = micros;
            attempts += u32::from(measured);
            agent.meter.take(bytes as u64, agent.adapted.rate(), now);
            agent.adapted.sent(bytes as u64, now);
            if tokens >= bytes {
                tokens -= bytes;
                agent.sent += if measured { bytes } else { 0.0 };
            } else {
                refused += u32::from(measured);
                agent.adapted.throttled(random(), now);
                if attempt % 3 == 0 {
                    agent.again.push((bytes / 2.0, 1));
                    agent.again.push((bytes / 2.0, 1));
                } else {
                    agent.again.push((bytes, attempt + 1));
                }
            }
            let next = agent
                .meter
                .ready_at(agent.adapted.rate(), 0.0)
                .unwrap_or(now)
                .max(now);
            let pause = (next - begin).as_micros() as u64 - micros;
            let jitter = if agent.again.is_empty() {
                1.0
            } else {
                0.5 + random()
            };
            due.push(Reverse((micros + 1 + (pause as f64 * jitter) as u64, index)));
        }
        let sent = || agents.iter().map(|agent| agent.sent);
        let used = sent().sum::<f64>() / (measure as f64 * rate);
        let (most, least) = (sent().fold(0.0, f64::max), sent().fold(f64::MAX, f64::min));
        (used, f64::from(refused) / f64::from(attempts), most / least)
    }

    #[test]
    fn agents_share_a_tenant_evenly_and_use_it_up() {
        // Few agents are refused seldom, so their shares come and go slowly.
        for (count, settle, measure) in [
            (1, 60, 480),
            (2, 300, 4_800),
            (5, 300, 4_800),
            (20, 120, 480),
            (50, 120, 480),
        ] {
            for seed in [1, 2, 3] {
                let (used, refused, ratio) = share(count, settle, measure, seed * 7_919);
                println!("{count} agents: {used:.3} used, {refused:.3} refused, shares within {ratio:.2}");
                assert!(used > 0.9 && used < 1.02, "{count}: {used}");
                assert!(refused < 0.05 || count > 20, "{count}: {refused}");
                assert!(ratio < 2.0, "{count}: {ratio}");
            }
        }
    }
}
