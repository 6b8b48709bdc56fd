//! What the worker asks of [`crate::batch`]: a seam, so that tests can see every entry and withhold every
//! acknowledgement.

use std::time::Instant;

use sluice_engine::document::Tenant;
use sluice_engine::key::Key;

use crate::batch::{Bound, Entry, Finished, Outcome, PieceId, StreamId};
use crate::tail::position::CursorId;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the piece that this cursor has open in the stream.
    Added,
    /// It is the first of a new piece.
    Opened(PieceId),
    /// It was not taken: it is too old for this stream, and has to go to one of late lines.
    Behind,
    /// It was not taken yet: other cursors have older lines of the stream to send again after a restart.
    NotYet,
    /// It was not taken: come back after an outcome or a seal.
    NoRoom,
}

/// Takes entries, gives requests.
pub trait Sink {
    /// A request.
    type Batch;
    /// A tenant is new, or its limits or delivery changed.
    fn set_tenant(&mut self, tenant: &Tenant);
    /// A tenant is gone.
    fn remove_tenant(&mut self, key: &Key);
    /// The stream of these labels; opened as often as it is closed.
    fn open_stream(&mut self, tenant: &Key, labels: &str) -> StreamId;
    /// The same of a stream of late lines, whose order does not matter.
    fn open_late_stream(&mut self, tenant: &Key, labels: &str) -> StreamId;
    /// See [`Sink::open_stream`].
    fn close_stream(&mut self, stream: StreamId);
    /// Encodes structured metadata.
    fn metadata(pairs: &[(&str, &str)]) -> Vec<u8>;
    /// Whether a read's worth of a tenant's lines has room: asked before reading, so that no read is in vain.
    /// After a no: come back after an outcome or a seal.
    fn has_room(&mut self, tenant: &Key) -> bool;
    /// Whether more of a stream may be read; after a no as above.
    fn takes_more(&self, stream: StreamId) -> bool;
    /// Up to which time, in seconds since 1970, lines are late after one that a stream did not take for its age.
    fn late_until(&self, stream: StreamId) -> i64;
    /// Adds an entry.
    fn append(&mut self, stream: StreamId, cursor: CursorId, entry: &Entry<'_>) -> Taken;
    /// Nothing more comes into a stream for now.
    fn rest(&mut self, stream: StreamId);
    /// Forgets what a cursor added and was not sealed.
    fn drop_cursor(&mut self, cursor: CursorId);
    /// What has to be journaled before anything more is sent.
    fn raised(&mut self) -> Vec<Bound>;
    /// How new a stream's lines were, as the journal has it.
    fn restore(&mut self, tenant: &Key, labels: &str, bound: i64, returning: u32);
    /// One of so many `returning` cursors has nothing more to send again.
    fn returned(&mut self, stream: StreamId);
    /// What the journal need not keep any longer.
    fn forget(&mut self, now: Instant) -> Vec<Bound>;
    /// The next request that is due.
    fn seal(&mut self, now: Instant) -> Option<Self::Batch>;
    /// When to seal again at the latest.
    fn next_due(&self, now: Instant) -> Option<Instant>;
    /// Everything is due from now on.
    fn drain(&mut self);
    /// A request, or a stream of it, ended or has to wait.
    fn complete(&mut self, outcome: Outcome) -> Vec<Finished>;
    /// Bytes held.
    fn held_bytes(&self) -> u64;
}
