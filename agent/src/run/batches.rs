//! The worker's seam in, the batcher out: every call goes to the method of the same name.

use std::time::Instant;

use sluice_engine::document::Tenant;
use sluice_engine::key::Key;

use crate::batch::{Append, Batch, Batcher, Entry, Finished, Outcome, StreamId, encode};
use crate::tail::position::CursorId;
use crate::worker::{Sink, Taken};

impl Sink for Batcher {
    type Batch = Batch;

    fn set_tenant(&mut self, tenant: &Tenant) {
        Self::set_tenant(self, tenant);
    }

    fn remove_tenant(&mut self, key: &Key) {
        Self::remove_tenant(self, key);
    }

    fn open_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        Self::open_stream(self, tenant, labels)
    }

    fn close_stream(&mut self, stream: StreamId) {
        Self::close_stream(self, stream);
    }

    fn metadata(pairs: &[(&str, &str)]) -> Vec<u8> {
        encode::metadata(pairs)
    }

    fn append(&mut self, stream: StreamId, cursor: CursorId, entry: &Entry<'_>) -> Taken {
        match Self::append(self, stream, cursor, entry) {
            Append::Added => Taken::Added,
            Append::Opened(piece) => Taken::Opened(piece),
            Append::NoRoom => Taken::NoRoom,
        }
    }

    fn drop_cursor(&mut self, cursor: CursorId) {
        Self::drop_cursor(self, cursor);
    }

    fn seal(&mut self, now: Instant) -> Option<Batch> {
        Self::seal(self, now)
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        Self::next_due(self, now)
    }

    fn drain(&mut self) {
        Self::drain(self);
    }

    fn complete(&mut self, outcome: Outcome) -> Vec<Finished> {
        Self::complete(self, outcome)
    }

    fn held_bytes(&self) -> u64 {
        Self::held_bytes(self)
    }
}
