//! Which streams hold what in, which of them go into the next request out.
//!
//! Loki answers a request with one result and hides a refusal of one stream behind another's success, so
//! what may be refused travels alone: a stream's first request, and one that comes near the limits.

use std::time::{Duration, Instant};

use super::StreamId;

/// A stream that has lines and no request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The stream.
    pub(super) stream: StreamId,
    /// Bytes that its first block takes in a request.
    pub(super) bytes: usize,
    /// When the first of the lines came.
    pub(super) opened: Instant,
    /// No further line fits into the block.
    pub(super) full: bool,
    /// It is new, rested for long, or near a limit.
    pub(super) alone: bool,
    /// When its own rate allows it.
    pub(super) ready_at: Option<Instant>,
}

/// What holds for all streams of the tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How long a line waits for company.
    pub(super) wait: Duration,
    /// Bytes of a request at most.
    pub(super) batch_bytes: usize,
    /// When the tenant's rate allows the next request.
    pub(super) ready_at: Option<Instant>,
    /// Nothing waits for company.
    pub(super) hurry: bool,
}

/// What to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// These streams' first blocks, in one request.
    Send(Vec<StreamId>),
    /// Nothing before this time.
    Later(Instant),
    /// There is nothing.
    Nothing,
}

impl Candidate {
    /// One that fills more than half a request travels alone, so that requests which are shared are at least half full.
    fn travels_alone(&self, rules: &Rules) -> bool {
        self.alone || self.bytes > rules.batch_bytes / 2
    }

    fn is_ready(&self, now: Instant) -> bool {
        self.ready_at.is_none_or(|at| at <= now)
    }

    /// When it is due, its rate aside.
    fn due_at(&self, rules: &Rules, now: Instant) -> Instant {
        if self.full || rules.hurry {
            now
        } else {
            self.opened + rules.wait
        }
    }
}

/// Chooses: the stream whose lines have waited longest decides; light ones take each other along.
pub(super) fn choose(candidates: &mut [Candidate], rules: &Rules, now: Instant) -> Choice {
    candidates.sort_by_key(|candidate| candidate.opened);
    let is_company = |candidate: &&Candidate| !candidate.travels_alone(rules) && candidate.is_ready(now);
    let shared: usize = candidates
        .iter()
        .filter(is_company)
        .map(|candidate| candidate.bytes)
        .sum();
    // Enough for a full request waits for nothing.
    let enough = shared >= rules.batch_bytes;
    let due = candidates.iter().find(|candidate| {
        candidate.is_ready(now)
            && (candidate.due_at(rules, now) <= now || (enough && !candidate.travels_alone(rules)))
    });
    let Some(due) = due else {
        let start = |candidate: &Candidate| {
            let due = candidate.due_at(rules, now);
            candidate.ready_at.map_or(due, |ready| ready.max(due))
        };
        let first = candidates.iter().map(start).min();
        return first.map_or(Choice::Nothing, |at| {
            Choice::Later(rules.ready_at.map_or(at, |rate| rate.max(at)))
        });
    };
    if let Some(at) = rules.ready_at.filter(|at| *at > now) {
        return Choice::Later(at);
    }
    if due.travels_alone(rules) {
        return Choice::Send(vec![due.stream]);
    }
    let mut room = rules.batch_bytes;
    let mut streams = Vec::new();
    for candidate in candidates.iter().filter(is_company) {
        // The first goes in any case: a single line may be longer than a request should be.
        if candidate.bytes <= room || streams.is_empty() {
            room = room.saturating_sub(candidate.bytes);
            streams.push(candidate.stream);
        }
    }
    Choice::Send(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULES: Rules = Rules {
        wait: SECOND,
        batch_bytes: 1 << 20,
        ready_at: None,
        hurry: false,
    };

    fn light(stream: u32, bytes: usize, opened: Instant) -> Candidate {
        let stream = StreamId(stream);
        Candidate {
            stream,
            bytes,
            opened,
            full: false,
            alone: false,
            ready_at: None,
        }
    }

    fn ids(ids: &[u32]) -> Choice {
        Choice::Send(ids.iter().copied().map(StreamId).collect())
    }

    #[test]
    fn light_streams_wait_and_then_share() {
        let begin = Instant::now();
        let mut candidates = [
            light(1, 100, begin + SECOND / 2),
            light(2, 100, begin),
            light(3, 100, begin + SECOND / 3),
        ];
        assert_eq!(
            choose(&mut candidates, &RULES, begin),
            Choice::Later(begin + SECOND)
        );
        assert_eq!(choose(&mut candidates, &RULES, begin + SECOND), ids(&[2, 3, 1]));
        assert_eq!(choose(&mut [], &RULES, begin), Choice::Nothing);
        let hurry = Rules { hurry: true, ..RULES };
        assert_eq!(
            choose(&mut candidates, &hurry, begin + SECOND / 2),
            ids(&[2, 3, 1])
        );
    }

    #[test]
    fn a_full_request_waits_for_nothing_and_is_never_larger() {
        let begin = Instant::now();
        let mut candidates: Vec<Candidate> = (0..6)
            .map(|i| light(i, 200 << 10, begin + SECOND / 1000 * i))
            .collect();
        assert_eq!(
            choose(&mut candidates, &RULES, begin + SECOND / 2),
            ids(&[0, 1, 2, 3, 4])
        );
        candidates.truncate(5);
        assert!(matches!(
            choose(&mut candidates, &RULES, begin + SECOND / 2),
            Choice::Later(_)
        ));
    }

    #[test]
    fn new_and_heavy_streams_travel_alone() {
        let begin = Instant::now();
        let new = Candidate {
            alone: true,
            ..light(1, 100, begin)
        };
        let heavy = light(2, RULES.batch_bytes / 2 + 1, begin + SECOND / 10);
        let mut candidates = [light(3, 100, begin + SECOND / 5), heavy, new];
        let now = begin + 2 * SECOND;
        assert_eq!(choose(&mut candidates, &RULES, now), ids(&[1]));
        assert_eq!(
            choose(&mut [light(3, 100, begin + SECOND / 5), heavy], &RULES, now),
            ids(&[2])
        );
        let full = Candidate { full: true, ..heavy };
        assert_eq!(choose(&mut [full], &RULES, begin), ids(&[2]));
    }

    #[test]
    fn rates_are_kept() {
        let begin = Instant::now();
        let now = begin + 2 * SECOND;
        let paced = Candidate {
            ready_at: Some(now + SECOND),
            ..light(1, 100, begin)
        };
        assert_eq!(choose(&mut [paced], &RULES, now), Choice::Later(now + SECOND));
        assert_eq!(choose(&mut [paced, light(2, 1, begin)], &RULES, now), ids(&[2]));
        let rules = Rules {
            ready_at: Some(now + 3 * SECOND),
            ..RULES
        };
        assert_eq!(
            choose(&mut [light(2, 1, begin)], &rules, now),
            Choice::Later(now + 3 * SECOND)
        );
        assert_eq!(
            choose(&mut [light(2, 1, now + 9 * SECOND)], &rules, now),
            Choice::Later(now + 10 * SECOND)
        );
    }
}
