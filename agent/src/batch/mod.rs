//! Entries in, sealed and compressed requests out; acknowledgements in, finished pieces out.

use std::sync::Arc;

use sluice_engine::cri::Timestamp;
use sluice_engine::key::Key;

use crate::tail::position::CursorId;

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
    /// Structured metadata, encoded by [`encode::metadata`](self) once per container.
    pub metadata: &'a [u8],
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
