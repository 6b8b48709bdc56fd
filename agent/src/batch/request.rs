//! Streams with waiting lines in, the next request that is due out.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::key::Key;

use super::batcher::Batcher;
use super::flight::{Flying, InFlight, State};
use super::seal::{self, Candidate, Choice, Rules};
use super::stream::{Stream, Streams, Trust};
use super::tenant::Tenant;
use super::{Batch, Feedback, StreamId, encode};

/// Memory kept for the next requests goes back to the allocator after this long without any.
const IDLE: Duration = Duration::from_secs(10);

impl Batcher {
    /// The next request that is due; to be called until there is none.
    pub fn seal(&mut self, now: Instant) -> Option<Batch> {
        self.end_returns(now);
        let places = self.tenants.places();
        for step in 0..places {
            let place = (self.turn + step) % places;
            if let Some(batch) = self.seal_tenant(place, now) {
                self.turn = place + 1;
                self.idle_since = None;
                return Some(batch);
            }
        }
        self.trim_when_idle(now);
        None
    }

    /// When [`Batcher::seal`] has something next, if nothing happens until then; a request that ends may
    /// bring it forward.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let mut candidates = Vec::new();
        let due = (0..self.tenants.places()).filter_map(|place| {
            let tenant = self.tenants.get(place)?;
            gather(tenant, &self.streams, now, &mut candidates);
            match seal::choose(&mut candidates, &rules(tenant, self.draining), now) {
                Choice::Send(_) => Some(now),
                Choice::Later(at) => Some(at),
                Choice::Nothing => None,
            }
        });
        due.min()
    }

    fn seal_tenant(&mut self, place: usize, now: Instant) -> Option<Batch> {
        let tenant = self.tenants.get_mut(place)?;
        tenant.tick(now);
        for id in &tenant.waiting {
            let Some(stream) = self.streams.get_mut(*id) else {
                continue;
            };
            for block in &mut stream.blocks {
                block.opened.get_or_insert(now);
            }
            if stream.trust == Trust::Spent {
                stream.trust = Trust::Counted;
                tenant.stream_spent(&mut stream.meter, now);
            }
        }
        gather(tenant, &self.streams, now, &mut self.candidates);
        let Choice::Send(streams) = seal::choose(&mut self.candidates, &rules(tenant, self.draining), now)
        else {
            return None;
        };
        let (key, feedback) = (Arc::clone(&tenant.key), Arc::clone(&tenant.feedback));
        Some(self.write(place, key, feedback, &streams, now))
    }

    /// Writes the streams' first blocks into one body.
    fn write(
        &mut self,
        place: usize,
        tenant: Arc<Key>,
        feedback: Arc<Feedback>,
        streams: &[StreamId],
        now: Instant,
    ) -> Batch {
        let len = |id: &StreamId| self.streams.get(*id).map_or(0, Stream::front_len);
        let total = streams.iter().map(len).sum();
        let mut writer = self
            .compressor
            .begin(total, self.bodies.pop().unwrap_or_default());
        let mut flying = Vec::with_capacity(streams.len());
        let (mut lines, mut bytes, mut freed, mut untaken) = (0, 0, 0, 0);
        let mut first = false;
        for id in streams {
            let Some(stream) = self.streams.get_mut(*id) else {
                continue;
            };
            let Some(mut block) = stream.blocks.pop_front() else {
                continue;
            };
            encode::stream_head(&stream.labels, block.len(), &mut self.head);
            writer.write(&self.head);
            block.write(&mut writer);
            lines += block.lines;
            bytes += block.bytes;
            if let Some(tenant) = self.tenants.get(place) {
                tenant.stream_sent(&mut stream.meter, block.bytes, now);
            }
            if stream.order.must_be_journaled(block.bound) {
                self.raised.push(stream.bound(&tenant, block.bound));
            }
            if stream.travels_alone(now) {
                first = true;
                untaken += stream.asks();
            }
            stream.in_flight = true;
            stream.sealed_at = Some(now);
            stream.listed = !stream.blocks.is_empty();
            flying.push(Flying {
                stream: *id,
                pieces: mem::take(&mut block.pieces),
                state: State::UnderWay,
            });
            stream.waiting = stream.waiting.saturating_sub(block.len());
            freed += block.release(&mut self.pool);
        }
        let body = writer.finish();
        self.pool.charge(body.len());
        let held = body.len();
        let id = self.next_batch;
        self.next_batch += 1;
        if let Some(owner) = self.tenants.get_mut(place) {
            let all = &self.streams;
            owner
                .waiting
                .retain(|id| all.get(*id).is_some_and(|stream| stream.listed));
            owner.used = (owner.used + held).saturating_sub(freed);
            owner.in_flight += 1;
            owner.starved = false;
            owner.firsts.began(first);
            owner.sent(bytes, now);
        }
        self.tenants.count_untaken(place, untaken);
        let count = u32::try_from(streams.len()).unwrap_or(u32::MAX);
        self.in_flight.insert(
            id,
            InFlight {
                tenant: place,
                streams: flying,
                first,
                held,
                counts: true,
            },
        );
        Batch {
            id,
            tenant,
            body,
            streams: count,
            lines,
            bytes,
            feedback,
        }
    }

    fn trim_when_idle(&mut self, now: Instant) {
        if self.pool.charged() > 0 {
            self.idle_since = None;
        } else if now.saturating_duration_since(*self.idle_since.get_or_insert(now)) >= IDLE {
            self.pool.trim();
            self.compressor.trim();
            drop(mem::take(&mut self.bodies));
            self.idle_since = Some(now);
        }
    }
}

fn rules(tenant: &Tenant, draining: bool) -> Rules {
    Rules {
        wait: tenant.wait(),
        batch_bytes: tenant.batch_bytes(),
        ready_at: tenant.ready_at(),
        // Nothing more can come until something goes: to wait for company would be to stand still.
        hurry: draining || tenant.starved,
    }
}

/// The tenant's streams that have lines and no request under way.
fn gather(tenant: &Tenant, streams: &Streams, now: Instant, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    for id in &tenant.waiting {
        let Some(stream) = streams.get(*id).filter(|stream| !stream.in_flight) else {
            continue;
        };
        let Some(block) = stream.blocks.front() else {
            continue;
        };
        let first = stream.travels_alone(now);
        if !tenant.has_window(first) {
            continue;
        }
        let bytes = stream.front_len();
        let of_stream = tenant.stream_ready_at(stream.meter);
        candidates.push(Candidate {
            stream: *id,
            bytes,
            opened: block.opened.unwrap_or(now),
            full: stream.is_full(),
            // Behind the success of another stream a refusal would not be seen.
            alone: first || stream.trust == Trust::Refused || tenant.is_near_limit(stream.meter, bytes, now),
            ready_at: if first {
                of_stream.max(tenant.firsts.ready_at())
            } else {
                of_stream
            },
        });
    }
}
