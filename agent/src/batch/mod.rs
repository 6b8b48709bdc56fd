//! Entries in, sealed and compressed requests out; acknowledgements in, finished pieces out.
//!
//! # Layout
//! - [`encode`]: an entry's parts in, protobuf out
//! - `pool`: a byte budget in, chains of segments out
//! - `stream`: encoded lines in, blocks that each fit into one request out
//! - `tenant`: a tenant's limits and share in, what its requests may hold and when they may go out
//! - `order`: the times of a stream's lines in, which line would be refused as too old out
//! - `adapt`: refusals in, what one agent may send of a limit that many share out
//! - `pace`: bytes and answers in, when the next request may go out
//! - `seal`: which streams hold what in, which of them go into the next request out
//! - `compress`: bytes in pieces in, one snappy body out
//! - `snappy`: bytes in, elements of snappy's block format out
//! - `firsts`: answers to streams' first requests in, how many of them may be under way out
//! - `flight`: what becomes of a request's streams in, what that finishes out
//! - `batcher`, `request`: the parts wired

use std::sync::Arc;

use sluice_engine::cri::Timestamp;
use sluice_engine::key::Key;

use crate::tail::position::CursorId;

pub mod encode;
mod adapt;
mod batcher;
mod compress;
mod firsts;
mod flight;
mod order;
mod pace;
mod pool;
mod request;
mod seal;
mod snappy;
mod stream;
mod tenant;

pub use batcher::Batcher;
pub use pace::Feedback;
pub(crate) use tenant::MOST_UNDER_WAY;

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
    /// It was not taken, nor will be: it is so much older than the stream's newest line that Loki would refuse it.
    Behind,
    /// It was not taken yet: after a restart older lines of the stream go first, see [`Batcher::restore`].
    NotYet,
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

/// What became of a batch, or of one stream in it.
#[derive(Debug)]
pub struct Outcome {
    /// The batch.
    pub id: u64,
    /// Whose it is.
    pub tenant: Arc<Key>,
    /// Of which stream this is said, by its place in the batch; `None`: of all that have not ended before.
    pub stream: Option<u32>,
    /// What became of it.
    pub fate: Fate,
    /// The body's memory, to be used again.
    pub body: Vec<u8>,
}

/// See [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Everything is acknowledged, or refused for good: so many lines, by Loki's reason.
    Ended(Vec<(&'static str, u64)>),
    /// Loki takes nothing of the stream for now. It is tried again, and nobody else has to wait for it.
    Waits(Limit),
}

/// What keeps Loki from taking anything of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// On the tenant's active streams.
    Streams,
    /// On the bytes of this one.
    Rate,
    /// Of a firewall or a policy, on what is in its lines or labels: others get through.
    Content,
}

/// How new a stream's lines are: to be remembered before they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Whose stream.
    pub tenant: Arc<Key>,
    /// Its labels.
    pub labels: Arc<str>,
    /// Every line of it that was or will be sent is older than this, in seconds since 1970.
    pub seconds: i64,
}

/// A finished piece: its lines are acknowledged, or refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whose lines.
    pub cursor: CursorId,
    /// Which piece.
    pub piece: PieceId,
}
