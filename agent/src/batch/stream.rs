//! Encoded lines in, blocks that each fit into one request out: what one stream has waiting.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::key::Key;

use super::compress::{Compressor, Writer};
use super::order::Order;
use super::pace::Meter;
use super::pool::{Chain, Pool};
use super::snappy::BLOCK;
use super::{Bound, Finished, StreamId, encode};
use crate::tail::position::CursorId;

/// Bytes of entries from which on compressing them apart from what follows makes them but a few percent longer.
const WORTH: usize = 16 << 10;
/// A stream of which Loki took nothing yet takes no more when it has so much, which one read may pass: it is enough to see
/// whether Loki does.
pub(super) const ENOUGH: usize = 64 << 10;
/// A stream that rested this long may have to be made anew by Loki, so it is sent alone again.
const REST: Duration = Duration::from_mins(30);
/// A stream that nobody has open is remembered so long: Loki judges late lines by what it was sent, and forgets a
/// stream that rests no later than two hours after its last line (`max_chunk_age`).
const MEMORY: Duration = Duration::from_hours(3);
/// Bits of a [`StreamId`] that say where the stream is; the others tell it from earlier ones there.
const PLACE_BITS: u32 = 20;

/// Lines of one stream that go into one request together.
#[derive(Debug)]
pub(super) struct Block {
    /// The entries before those of `chain`, compressed, and bytes that they were.
    packed: Chain,
    packed_from: usize,
    /// Entries as they go into the request.
    pub(super) chain: Chain,
    /// Whose lines these are, each cursor once.
    pub(super) pieces: Vec<Finished>,
    /// Lines.
    pub(super) lines: u32,
    /// Bytes of lines and structured metadata.
    pub(super) bytes: u64,
    /// When the first line came; set by the first look at the clock after it.
    pub(super) opened: Option<Instant>,
    /// Time of its oldest line, in seconds since 1970.
    pub(super) oldest: i64,
    /// What the journal has to know before it is sent.
    pub(super) bound: i64,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            packed: Chain::default(),
            packed_from: 0,
            chain: Chain::default(),
            pieces: Vec::new(),
            lines: 0,
            bytes: 0,
            opened: None,
            oldest: i64::MAX,
            bound: i64::MIN,
        }
    }
}

impl Block {
    /// Bytes of its entries in a request.
    pub(super) fn len(&self) -> usize {
        self.packed_from + self.chain.len()
    }

    /// Whether so much more is to be packed apart from what `chain` holds: as much as an encoder takes at once is in the
    /// processor's cache still.
    pub(super) fn is_to_be_packed(&self, need: usize) -> bool {
        self.chain.len() + need > BLOCK && self.chain.len() > 0
    }

    /// Whether what `chain` holds is so much that it gets hardly shorter together with what follows.
    pub(super) fn is_worth_packing(&self) -> bool {
        self.chain.len() >= WORTH
    }

    /// Compresses what `chain` holds; returns the bytes that it gave back to the pool, and those that it took.
    pub(super) fn pack(&mut self, compressor: &mut Compressor, pool: &mut Pool) -> (usize, usize) {
        let chain = mem::take(&mut self.chain);
        self.packed_from += chain.len();
        let (packed, mut took) = (&mut self.packed, 0);
        compressor.pack(chain.segments(), |elements| {
            took += packed.reserve(pool, elements.len());
            packed.extend(elements);
        });
        (chain.release(pool), took)
    }

    /// Writes its entries.
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        if self.packed_from > 0 {
            writer.write_packed(self.packed.segments());
        }
        self.chain.segments().for_each(|segment| writer.write(segment));
    }

    /// Gives everything back; returns how much that was.
    pub(super) fn release(self, pool: &mut Pool) -> usize {
        self.packed.release(pool) + self.chain.release(pool)
    }
}

/// Whether Loki's count of a stream's bytes is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is what was sent.
    Counted,
    /// Something was sent before a restart.
    Spent,
    /// Loki refused it once for its rate, so it is another one.
    Refused,
}

/// One stream of one tenant.
#[derive(Debug)]
pub(super) struct Stream {
    /// Place of its tenant.
    pub(super) tenant: usize,
    /// Its labels string.
    pub(super) labels: Arc<str>,
    /// How often it is open.
    pub(super) opened: u32,
    /// What waits; lines go to the last block, the first is sent first.
    pub(super) blocks: VecDeque<Block>,
    /// A request with lines of it is under way.
    pub(super) in_flight: bool,
    /// It stands in its tenant's list of streams with lines.
    pub(super) listed: bool,
    /// When a request with lines of it was last sealed.
    pub(super) sealed_at: Option<Instant>,
    /// Its own limit.
    pub(super) meter: Meter,
    /// The times of its lines.
    pub(super) order: Order,
    /// What is known of how Loki counts its bytes.
    pub(super) trust: Trust,
    /// Cursors that may have lines to send again which were sent before a restart.
    pub(super) returning: u32,
    /// Bytes of all entries that wait, before compression.
    pub(super) waiting: usize,
    /// Bytes that came before Loki took anything of it; none from then on.
    pub(super) untaken: Option<usize>,
    /// Since when nobody has it open and nothing of it is left.
    rests: Option<Instant>,
}

impl Stream {
    pub(super) fn new(tenant: usize, labels: Arc<str>, order: Order) -> Self {
        Self {
            tenant,
            labels,
            opened: 0,
            blocks: VecDeque::new(),
            in_flight: false,
            listed: false,
            sealed_at: None,
            meter: Meter::default(),
            order,
            trust: Trust::Counted,
            returning: 0,
            waiting: 0,
            untaken: Some(0),
            rests: None,
        }
    }

    /// Its next request must carry nothing else: an answer to several streams hides that a new one was
    /// refused.
    pub(super) fn travels_alone(&self, now: Instant) -> bool {
        self.sealed_at
            .is_none_or(|at| now.saturating_duration_since(at) >= REST)
    }

    /// How new its lines are, if the newest is older than this.
    pub(super) fn bound(&self, tenant: &Arc<Key>, seconds: i64) -> Bound {
        Bound {
            tenant: Arc::clone(tenant),
            labels: Arc::clone(&self.labels),
            seconds,
        }
    }

    fn is_at_rest(&self) -> bool {
        self.opened == 0 && self.blocks.is_empty() && !self.in_flight
    }

    /// Nobody holds it, and nothing is left of it or to be known of it.
    pub(super) fn is_over(&self) -> bool {
        self.is_at_rest() && !self.order.is_known()
    }

    /// Whether what is known of it is of no use any more.
    pub(super) fn is_forgotten(&mut self, now: Instant) -> bool {
        if !self.is_at_rest() {
            self.rests = None;
            return false;
        }
        now.saturating_duration_since(*self.rests.get_or_insert(now)) >= MEMORY
    }

    /// So many bytes came; returns how many of them came before Loki took anything.
    pub(super) fn came(&mut self, bytes: usize) -> usize {
        self.waiting += bytes;
        self.untaken.as_mut().map_or(0, |untaken| {
            *untaken += bytes;
            bytes
        })
    }

    /// Loki is asked for it with its first block; returns how many bytes more count as untaken from now on.
    pub(super) fn asks(&mut self) -> usize {
        if self.untaken.is_some() {
            return 0;
        }
        self.untaken = Some(self.waiting);
        self.waiting
    }

    /// Whether its first block waits for no company.
    pub(super) fn is_full(&self) -> bool {
        self.blocks.len() > 1
    }

    /// Bytes that its first block takes in a request.
    pub(super) fn front_len(&self) -> usize {
        self.blocks
            .front()
            .map_or(0, |block| encode::stream_len(&self.labels, block.len()))
    }

    /// Forgets a cursor's pieces that are not sealed; returns the blocks that held nothing else.
    pub(super) fn drop_cursor(&mut self, cursor: CursorId) -> Vec<Block> {
        let mut dropped = Vec::new();
        for _ in 0..self.blocks.len() {
            let Some(mut block) = self.blocks.pop_front() else {
                break;
            };
            let before = block.pieces.len();
            block.pieces.retain(|piece| piece.cursor != cursor);
            if block.pieces.is_empty() && before > 0 {
                dropped.push(block);
            } else {
                self.blocks.push_back(block);
            }
        }
        dropped
    }
}

/// All streams, by identifier. An identifier is never used for another stream until its place was taken
/// 4,096 times.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    id: StreamId,
    stream: Option<Stream>,
}

fn place_of(id: StreamId) -> usize {
    (id.0 & ((1 << PLACE_BITS) - 1)) as usize
}

impl Streams {
    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.places
            .get(place_of(id))
            .filter(|place| place.id == id)
            .and_then(|place| place.stream.as_ref())
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.places
            .get_mut(place_of(id))
            .filter(|place| place.id == id)
            .and_then(|place| place.stream.as_mut())
    }

    pub(super) fn add(&mut self, stream: Stream) -> StreamId {
        if let Some(place) = self
            .free
            .pop()
            .and_then(|index| self.places.get_mut(index as usize))
        {
            place.id = StreamId(place.id.0.wrapping_add(1 << PLACE_BITS));
            place.stream = Some(stream);
            return place.id;
        }
        let id = StreamId(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        self.places.push(Place {
            id,
            stream: Some(stream),
        });
        id
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let place = self.places.get_mut(place_of(id)).filter(|place| place.id == id)?;
        let stream = place.stream.take()?;
        self.free.push(id.0 & ((1 << PLACE_BITS) - 1));
        Some(stream)
    }

    /// Every stream.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.places
            .iter_mut()
            .filter_map(|place| Some((place.id, place.stream.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_does_not_find_the_next_stream_in_its_place() {
        let mut streams = Streams::default();
        let first = streams.add(Stream::new(0, "{a=\"1\"}".into(), Order::NEW));
        let other = streams.add(Stream::new(0, "{a=\"2\"}".into(), Order::NEW));
        assert!(streams.remove(first).is_some());
        assert!(streams.remove(first).is_none());
        let second = streams.add(Stream::new(0, "{a=\"3\"}".into(), Order::NEW));
        assert_ne!(first, second);
        assert!(streams.get(first).is_none());
        assert_eq!(&*streams.get(second).unwrap().labels, "{a=\"3\"}");
        assert_eq!(&*streams.get(other).unwrap().labels, "{a=\"2\"}");
    }
}
