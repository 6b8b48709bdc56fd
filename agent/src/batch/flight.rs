//! What becomes of a request's streams in, the pieces that are finished by it out.

use super::batcher::Batcher;
use super::stream::Trust;
use super::{Fate, Finished, Limit, Outcome, StreamId};

/// Bodies whose memory is kept for the next requests.
const SPARE_BODIES: usize = 4;

/// A sealed request of which not everything has ended.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) tenant: usize,
    pub(super) streams: Vec<Flying>,
    /// It is a stream's first.
    pub(super) first: bool,
    /// Bytes of the body, taken from the pool.
    pub(super) held: usize,
    /// It takes a place in the tenant's window. One of which only streams are left that Loki does not take for now
    /// has given it up.
    pub(super) counts: bool,
}

/// One stream of it.
#[derive(Debug)]
pub(super) struct Flying {
    pub(super) stream: StreamId,
    pub(super) pieces: Vec<Finished>,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    UnderWay,
    Waits,
    Ended,
}

impl Batcher {
    /// A request, or a stream of one, ended or has to wait; returns the pieces that are finished by it.
    pub fn complete(&mut self, outcome: Outcome) -> Vec<Finished> {
        if self.bodies.len() < SPARE_BODIES && outcome.body.capacity() > 0 {
            self.bodies.push(outcome.body);
        }
        let Some(mut request) = self.in_flight.remove(&outcome.id) else {
            return Vec::new();
        };
        let place = request.tenant;
        let ended = matches!(outcome.fate, Fate::Ended(_));
        let mut finished = Vec::new();
        let (mut over, mut untaken) = (Vec::new(), 0);
        let is_meant = |place: usize| outcome.stream.is_none_or(|stream| stream as usize == place);
        for (_, flying) in request
            .streams
            .iter_mut()
            .enumerate()
            .filter(|(place, flying)| is_meant(*place) && flying.state != State::Ended)
        {
            if ended {
                flying.state = State::Ended;
                finished.append(&mut flying.pieces);
                over.push(flying.stream);
            } else {
                flying.state = State::Waits;
                let stream = self.streams.get_mut(flying.stream);
                match (&outcome.fate, stream) {
                    (Fate::Waits(Limit::Rate), Some(stream)) => stream.trust = Trust::Refused,
                    // It is no sign that Loki takes no further stream.
                    (Fate::Waits(Limit::Content), Some(stream)) => {
                        untaken += stream.untaken.replace(0).unwrap_or_default();
                    }
                    _ => {}
                }
            }
        }
        let left = request
            .streams
            .iter()
            .filter(|flying| flying.state != State::Ended)
            .count();
        let freed = request.held / (left + over.len()).max(1) * over.len();
        let freed = if left == 0 { request.held } else { freed };
        request.held -= freed;
        self.pool.discharge(freed);
        let flows = request
            .streams
            .iter()
            .any(|flying| flying.state == State::UnderWay);
        if let Some(tenant) = self.tenants.get_mut(request.tenant) {
            tenant.used = tenant.used.saturating_sub(freed);
            tenant.untaken = tenant.untaken.saturating_sub(untaken);
            tenant.starved = false;
            if request.counts && !flows {
                request.counts = false;
                tenant.in_flight = tenant.in_flight.saturating_sub(1);
                tenant.firsts.left(request.first);
            }
            match outcome.fate {
                Fate::Ended(_) if request.first => tenant.firsts.taken(),
                Fate::Waits(Limit::Streams) => tenant.firsts.refused(),
                Fate::Ended(_) | Fate::Waits(Limit::Rate | Limit::Content) => {}
            }
        }
        if left > 0 {
            self.in_flight.insert(outcome.id, request);
        }
        for id in over {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.in_flight = false;
                let taken = stream.untaken.take().unwrap_or_default();
                if let Some(tenant) = self.tenants.get_mut(place) {
                    tenant.untaken = tenant.untaken.saturating_sub(taken);
                }
            }
            self.remove_if_over(id);
        }
        finished
    }
}
