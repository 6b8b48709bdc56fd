//! Entries in, sealed and compressed requests out; acknowledgements in, finished pieces out.
//!
//! # Layout
//! - [`encode`]: an entry's parts in, protobuf out
//! - `pool`: a byte budget in, chains of segments out
//! - `stream`: encoded lines in, blocks that each fit into one request out
//! - `tenant`: a tenant's limits and share in, what its requests may hold and when they may go out
//! - `pace`: bytes and answers in, when the next request may go out
//! - `seal`: which streams hold what in, which of them go into the next request out
//! - `compress`: bytes in pieces in, one snappy body out
//! - `batcher`, `request`: the parts wired

use std::sync::Arc;

use sluice_engine::cri::Timestamp;
use sluice_engine::key::Key;

use crate::tail::position::CursorId;

pub mod encode;
mod batcher;
mod compress;
mod pace;
mod pool;
mod request;
mod seal;
mod stream;
mod tenant;

pub use batcher::Batcher;
pub use pace::Feedback;

/// One stream of one tenant: a labels string and its open buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// What one cursor put into one stream's buffer between two seals; the unit of acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId(pub u64);

/// A line ready to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When the runtime read it.
    pub timestamp: Timestamp,
    /// The line in parts that are joined as they are copied.
    pub line: &'a [&'a [u8]],
    /// Structured metadata, encoded by [`encode::metadata`] once per container.
    pub metadata: &'a [u8],
}

/// What became of a line that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// It belongs to the piece that this cursor has open in this stream.
    Added,
    /// It is the first of a new piece.
    Opened(PieceId),
    /// It was not taken: the pool, or this tenant's share of it, is used up until requests are acknowledged.
    /// A stream that is gone, since its tenant was removed, answers the same.
    NoRoom,
}

/// A request: compressed and ready to be sent, and sent again byte for byte.
#[derive(Debug)]
pub struct Batch {
    /// Grows by one per process.
    pub id: u64,
    /// Whose it is.
    pub tenant: Arc<Key>,
    /// Push request, protobuf in snappy's block format.
    pub body: Vec<u8>,
    /// Streams in it.
    pub streams: u32,
    /// Lines in it.
    pub lines: u32,
    /// Bytes of lines and structured metadata, as Loki's rate limit counts them.
    pub bytes: u64,
    /// Where the pusher says at once how Loki takes it, long before the outcome.
    pub feedback: Arc<Feedback>,
}

/// How a batch ended: everything in it is acknowledged, or refused for good and counted.
#[derive(Debug)]
pub struct Outcome {
    /// The batch.
    pub id: u64,
    /// Whose it was.
    pub tenant: Arc<Key>,
    /// Lines refused for good, by Loki's reason.
    pub rejected: Vec<(&'static str, u64)>,
    /// The body's memory, to be used again.
    pub body: Vec<u8>,
}

/// A finished piece: its lines are acknowledged, or refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whose lines.
    pub cursor: CursorId,
    /// Which piece.
    pub piece: PieceId,
}
