//! Entries of all tenants in, their streams' blocks out; and what becomes of them when requests end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::document::Tenant as Document;
use sluice_engine::key::Key;

use super::compress::Compressor;
use super::encode::{HEAD, Head};
use super::pool::Pool;
use super::stream::{Block, Stream, Streams};
use super::tenant::Tenants;
use super::{Append, Entry, Finished, Outcome, PieceId, StreamId, seal};
use crate::tail::position::CursorId;

/// Bodies whose memory is kept for the next requests.
const SPARE_BODIES: usize = 4;

/// Everything between a line and a request: one pool, and for each tenant its streams, limits and window.
#[derive(Debug)]
pub struct Batcher {
    pub(super) pool: Pool,
    pub(super) tenants: Tenants,
    pub(super) streams: Streams,
    pub(super) in_flight: HashMap<u64, InFlight>,
    pub(super) compressor: Compressor,
    pub(super) bodies: Vec<Vec<u8>>,
    pub(super) candidates: Vec<seal::Candidate>,
    pub(super) head: Vec<u8>,
    pub(super) next_batch: u64,
    pub(super) draining: bool,
    /// The tenant that is looked at first, so that each gets its turn.
    pub(super) turn: usize,
    pub(super) idle_since: Option<Instant>,
    next_piece: u64,
}

/// A sealed request whose outcome is not known.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) tenant: usize,
    pub(super) streams: Vec<StreamId>,
    pub(super) pieces: Vec<Finished>,
    /// It is a stream's first.
    pub(super) first: bool,
    /// Bytes of the body, taken from the pool.
    pub(super) held: usize,
}

impl Batcher {
    /// A batcher that holds at most so many bytes of lines and requests.
    pub fn new(pool_bytes: usize) -> Self {
        Self {
            pool: Pool::new(pool_bytes),
            tenants: Tenants::default(),
            streams: Streams::default(),
            in_flight: HashMap::new(),
            compressor: Compressor::new(),
            bodies: Vec::new(),
            candidates: Vec::new(),
            head: Vec::new(),
            next_batch: 1,
            draining: false,
            turn: 0,
            idle_since: None,
            next_piece: 1,
        }
    }

    /// A new tenant, or new limits of one.
    pub fn set_tenant(&mut self, tenant: &Document) {
        self.tenants.set(tenant);
    }

    /// Forgets a tenant with its streams, its lines and its requests under way.
    pub fn remove_tenant(&mut self, key: &Key) {
        let Some((place, tenant)) = self.tenants.remove(key) else {
            return;
        };
        for id in tenant.by_labels.values() {
            for block in self
                .streams
                .remove(*id)
                .into_iter()
                .flat_map(|stream| stream.blocks)
            {
                block.chain.release(&mut self.pool);
            }
        }
        let pool = &mut self.pool;
        self.in_flight.retain(|_, request| {
            if request.tenant == place {
                pool.discharge(request.held);
            }
            request.tenant != place
        });
    }

    /// The stream of these labels, made when it is new; open until it is closed as often as it was opened.
    pub fn open_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        let place = self.tenants.place(tenant);
        let Some(owner) = self.tenants.get_mut(place) else {
            return StreamId(u32::MAX);
        };
        if let Some(id) = owner.by_labels.get(labels) {
            if let Some(stream) = self.streams.get_mut(*id) {
                stream.opened += 1;
            }
            return *id;
        }
        let labels: Arc<str> = labels.into();
        let id = self.streams.add(Stream::new(place, Arc::clone(&labels)));
        owner.by_labels.insert(labels, id);
        id
    }

    /// Closes a stream; what it holds is still sent.
    pub fn close_stream(&mut self, stream: StreamId) {
        if let Some(open) = self.streams.get_mut(stream) {
            open.opened = open.opened.saturating_sub(1);
            self.remove_if_over(stream);
        }
    }

    /// Whether a read's worth of a tenant's lines may be taken. After a no, what the tenant has waiting is due.
    pub fn has_room(&mut self, tenant: &Key) -> bool {
        self.tenants.has_room_for_a_read(tenant, &self.pool)
    }

    /// Adds a line to a stream's buffer.
    pub fn append(&mut self, stream: StreamId, cursor: CursorId, entry: &Entry<'_>) -> Append {
        let id = stream;
        let Some(stream) = self.streams.get_mut(id) else {
            return Append::NoRoom;
        };
        let line: usize = entry.line.iter().map(|part| part.len()).sum();
        let head = Head::new(entry.timestamp, line, entry.metadata.len());
        let need = head.len() + line + entry.metadata.len();

        // A block ends where a request ends; a line longer than a request gets one to itself.
        let place = stream.tenant;
        let Some(tenant) = self.tenants.get(place) else {
            return Append::NoRoom;
        };
        let limit = tenant.block_bytes(&stream.labels);
        let fits = stream
            .blocks
            .back()
            .is_some_and(|block| block.chain.len() + need <= limit);
        let cost = match stream.blocks.back() {
            Some(block) if fits => block.chain.cost(need),
            _ => Block::default().chain.cost(need),
        };
        if cost > 0 {
            let has_room = self.tenants.has_room(place, cost, &self.pool);
            if let Some(tenant) = self.tenants.get_mut(place) {
                if !has_room {
                    tenant.starved = true;
                    return Append::NoRoom;
                }
                tenant.used += cost;
                if !stream.listed {
                    stream.listed = true;
                    tenant.waiting.push(id);
                }
            }
        }
        if !fits {
            stream.blocks.push_back(Block::default());
        }
        let Some(block) = stream.blocks.back_mut() else {
            return Append::NoRoom;
        };
        if cost > 0 {
            block.chain.reserve(&mut self.pool, need);
        }
        // Straight into its segment: to copy bytes that were just written the processor would have to wait.
        if !block.chain.extend_with(HEAD, |out| head.write(out)) {
            self.head.clear();
            head.write(&mut self.head);
            block.chain.extend(&self.head);
        }
        for part in entry.line {
            block.chain.extend(part);
        }
        block.chain.extend(entry.metadata);
        block.lines += 1;
        block.bytes += (line + entry.metadata.len()) as u64;

        // Nearly always one cursor writes a stream, and it is the last that wrote.
        if block.pieces.iter().rev().any(|piece| piece.cursor == cursor) {
            return Append::Added;
        }
        let piece = PieceId(self.next_piece);
        self.next_piece += 1;
        block.pieces.push(Finished { cursor, piece });
        Append::Opened(piece)
    }

    /// Forgets a cursor's pieces that are not sealed. Buffers that hold nothing else are emptied: a withdrawn
    /// right stops lines that were read already.
    pub fn drop_cursor(&mut self, cursor: CursorId) {
        let mut touched = Vec::new();
        for (id, stream) in self.streams.iter_mut() {
            for block in stream.drop_cursor(cursor) {
                let freed = block.chain.release(&mut self.pool);
                if let Some(tenant) = self.tenants.get_mut(stream.tenant) {
                    tenant.used = tenant.used.saturating_sub(freed);
                }
                touched.push(id);
            }
        }
        for id in touched {
            self.remove_if_over(id);
        }
    }

    /// From now on everything is due at once.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// A request ended; returns the pieces that were in it.
    pub fn complete(&mut self, outcome: Outcome) -> Vec<Finished> {
        if self.bodies.len() < SPARE_BODIES && outcome.body.capacity() > 0 {
            self.bodies.push(outcome.body);
        }
        let Some(request) = self.in_flight.remove(&outcome.id) else {
            return Vec::new();
        };
        self.pool.discharge(request.held);
        if let Some(tenant) = self.tenants.get_mut(request.tenant) {
            tenant.used = tenant.used.saturating_sub(request.held);
            tenant.in_flight = tenant.in_flight.saturating_sub(1);
            tenant.starved = false;
            tenant.firsts = tenant.firsts.saturating_sub(usize::from(request.first));
        }
        for id in request.streams {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.in_flight = false;
            }
            self.remove_if_over(id);
        }
        request.pieces
    }

    /// Bytes held: lines that wait, requests under way, and memory kept for the next ones.
    pub fn held_bytes(&self) -> u64 {
        (self.pool.held() + self.bodies.iter().map(Vec::capacity).sum::<usize>()) as u64
    }

    fn remove_if_over(&mut self, id: StreamId) {
        if self.streams.get(id).is_some_and(Stream::is_over)
            && let Some(stream) = self.streams.remove(id)
            && let Some(tenant) = self.tenants.get_mut(stream.tenant)
        {
            tenant.by_labels.remove(&stream.labels);
            tenant.waiting.retain(|waiting| *waiting != id);
        }
    }
}
