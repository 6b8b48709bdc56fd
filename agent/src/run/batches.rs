//! The worker's seam in, the batcher out: every call goes to the method of the same name, and leaves a sign
//! of life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluice_engine::document::Tenant;
use sluice_engine::key::Key;

use crate::batch::{Append, Batch, Batcher, Bound, Entry, Finished, Outcome, StreamId, encode};
use crate::tail::position::CursorId;
use crate::worker::{Sink, Taken};

/// The last sign of life of the worker's thread.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    begun: Instant,
    /// Milliseconds after `begun`.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// A first sign.
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: Arc::default(),
        }
    }

    /// How long ago the last sign was.
    pub(super) fn age(&self) -> Duration {
        self.begun
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.begun).as_millis();
        self.last
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A batcher that tells when it was asked last; the worker asks at least once a second.
#[derive(Debug)]
pub(super) struct Batches {
    batcher: Batcher,
    pulse: Pulse,
}

impl Batches {
    /// See [`Batcher::new`].
    pub(super) fn new(pool_bytes: usize, pulse: Pulse) -> Self {
        Self {
            batcher: Batcher::new(pool_bytes),
            pulse,
        }
    }
}

impl Sink for Batches {
    type Batch = Batch;

    fn set_tenant(&mut self, tenant: &Tenant) {
        self.batcher.set_tenant(tenant);
    }

    fn remove_tenant(&mut self, key: &Key) {
        self.batcher.remove_tenant(key);
    }

    fn open_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        self.batcher.open_stream(tenant, labels)
    }

    fn open_late_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        self.batcher.open_late_stream(tenant, labels)
    }

    fn close_stream(&mut self, stream: StreamId) {
        self.batcher.close_stream(stream);
    }

    fn metadata(pairs: &[(&str, &str)]) -> Vec<u8> {
        encode::metadata(pairs)
    }

    fn has_room(&mut self, tenant: &Key) -> bool {
        self.batcher.has_room(tenant)
    }

    fn takes_more(&self, stream: StreamId) -> bool {
        self.batcher.takes_more(stream)
    }

    fn rest(&mut self, stream: StreamId) {
        self.batcher.rest(stream);
    }

    fn late_until(&self, stream: StreamId) -> i64 {
        self.batcher.late_until(stream)
    }

    fn append(&mut self, stream: StreamId, cursor: CursorId, entry: &Entry<'_>) -> Taken {
        match self.batcher.append(stream, cursor, entry) {
            Append::Added => Taken::Added,
            Append::Opened(piece) => Taken::Opened(piece),
            Append::Behind => Taken::Behind,
            Append::NotYet => Taken::NotYet,
            Append::NoRoom => Taken::NoRoom,
        }
    }

    fn drop_cursor(&mut self, cursor: CursorId) {
        self.batcher.drop_cursor(cursor);
    }

    fn raised(&mut self) -> Vec<Bound> {
        self.batcher.raised()
    }

    fn restore(&mut self, tenant: &Key, labels: &str, bound: i64, returning: u32) {
        self.batcher.restore(tenant, labels, bound, returning);
    }

    fn returned(&mut self, stream: StreamId) {
        self.batcher.returned(stream);
    }

    fn forget(&mut self, now: Instant) -> Vec<Bound> {
        self.batcher.forget(now)
    }

    fn seal(&mut self, now: Instant) -> Option<Batch> {
        self.pulse.beat(now);
        self.batcher.seal(now)
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.batcher.next_due(now)
    }

    fn drain(&mut self) {
        self.batcher.drain();
    }

    fn complete(&mut self, outcome: Outcome) -> Vec<Finished> {
        self.batcher.complete(outcome)
    }

    fn held_bytes(&self) -> u64 {
        self.batcher.held_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_ages_until_the_next_beat() {
        let pulse = Pulse::new();
        std::thread::sleep(Duration::from_millis(20));
        assert!(pulse.age() >= Duration::from_millis(20));
        let mut batches = Batches::new(1 << 20, pulse.clone());
        assert!(batches.seal(Instant::now()).is_none());
        assert!(pulse.age() < Duration::from_millis(20));
    }
}
