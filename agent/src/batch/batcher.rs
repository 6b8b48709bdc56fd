//! Entries of all tenants in, their streams' blocks out; and what becomes of them when requests end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::document::Tenant as Document;
use sluice_engine::key::Key;

use super::compress::Compressor;
use super::encode::{HEAD, Head};
use super::flight::InFlight;
use super::order::Order;
use super::pool::{Chain, Pool};
use super::stream::{Block, ENOUGH, Stream, Streams, Trust};
use super::tenant::Tenants;
use super::{Append, Bound, Entry, Finished, PieceId, StreamId, seal};
use crate::tail::position::CursorId;

/// How long cursors are waited for after a restart that may have something to send again: longer than the facts of their
/// pods are.
const RETURNS: Duration = Duration::from_secs(15);

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
    pub(super) raised: Vec<Bound>,
    /// Cursors are waited for that may have something to send again.
    returning: bool,
    /// Until when; unknown before the first look at the clock.
    returns_until: Option<Instant>,
    next_piece: u64,
}

impl Batcher {
    /// A batcher that holds at most so many bytes of lines and requests.
    pub fn new(pool_bytes: usize) -> Self {
        Self {
            pool: Pool::new(pool_bytes),
            tenants: Tenants::default(),
            streams: Streams::default(),
            in_flight: HashMap::new(),
            compressor: Compressor::default(),
            bodies: Vec::new(),
            candidates: Vec::new(),
            head: Vec::new(),
            next_batch: 1,
            draining: false,
            turn: 0,
            idle_since: None,
            raised: Vec::new(),
            returning: false,
            returns_until: None,
            next_piece: 1,
        }
    }

    /// A new tenant, or new limits of one.
    pub fn set_tenant(&mut self, tenant: &Document) {
        if let Some((place, window)) = self.tenants.set(tenant) {
            let streams = self.streams.iter_mut().map(|(_, stream)| stream);
            streams
                .filter(|stream| stream.tenant == place)
                .for_each(|stream| stream.order.set(window));
        }
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
                block.release(&mut self.pool);
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
        self.open(tenant, labels, Order::NEW)
    }

    /// The same of one whose lines may come in any order, since all lie within the tenant's window.
    pub fn open_late_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        self.open(tenant, labels, Order::FREE)
    }

    fn open(&mut self, tenant: &Key, labels: &str, order: Order) -> StreamId {
        let place = self.tenants.place(tenant);
        let Some(owner) = self.tenants.get_mut(place) else {
            return StreamId(u32::MAX);
        };
        let id = owner.by_labels.get(labels).copied().unwrap_or_else(|| {
            let labels: Arc<str> = labels.into();
            let id = self.streams.add(Stream::new(place, Arc::clone(&labels), order));
            owner.by_labels.insert(labels, id);
            id
        });
        if let Some(stream) = self.streams.get_mut(id) {
            stream.opened += 1;
        }
        id
    }

    /// Remembers how new a stream's lines were that were sent before a restart, and how many cursors may send some of them
    /// again. Those have to go to the same stream, where Loki knows them again, and it would refuse them after newer ones:
    /// so nothing newer is taken before the cursors have [returned](Self::returned), or some seconds have passed.
    pub fn restore(&mut self, tenant: &Key, labels: &str, bound: i64, returning: u32) {
        let id = self.open_stream(tenant, labels);
        if let Some(stream) = self.streams.get_mut(id) {
            stream.opened -= 1;
            stream.returning = returning;
            stream.trust = Trust::Spent;
            if let Some(owner) = self.tenants.get(stream.tenant) {
                stream.order = Order::restored(bound, owner.window());
            }
        }
        self.returning |= returning > 0;
    }

    /// A cursor has nothing more to send again.
    pub fn returned(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.returning = stream.returning.saturating_sub(1);
        }
    }

    /// Ends the wait for cursors that do not come back.
    pub(super) fn end_returns(&mut self, now: Instant) {
        if self.returning && *self.returns_until.get_or_insert(now + RETURNS) <= now {
            self.streams
                .iter_mut()
                .for_each(|(_, stream)| stream.returning = 0);
            self.returning = false;
            self.returns_until = None;
        }
    }

    /// Up to which time lines are late after one that a stream did not take for its age.
    pub fn late_until(&self, stream: StreamId) -> i64 {
        let found = self.streams.get(stream);
        let until = found.and_then(|stream| {
            let tenant = self.tenants.get(stream.tenant)?;
            Some(stream.order.late_until(tenant.window()))
        });
        until.unwrap_or(i64::MIN)
    }

    /// Whether a stream has so little waiting that more of it may be read: what one stream cannot send yet must not take
    /// the room of the others.
    pub fn takes_more(&self, stream: StreamId) -> bool {
        let found = self.streams.get(stream);
        let of = found.and_then(|stream| Some((stream, self.tenants.get(stream.tenant)?)));
        of.is_none_or(|(stream, tenant)| match stream.untaken {
            Some(bytes) => bytes < ENOUGH && tenant.untaken < self.tenants.most_untaken(&self.pool),
            None => stream.waiting <= 2 * tenant.batch_bytes(),
        })
    }

    /// What has to be remembered before anything more is sent.
    pub fn raised(&mut self) -> Vec<Bound> {
        std::mem::take(&mut self.raised)
    }

    /// Forgets streams that nobody has had open for long; returns those of which something was remembered.
    pub fn forget(&mut self, now: Instant) -> Vec<Bound> {
        let over = self.streams.iter_mut();
        let over: Vec<StreamId> = over
            .filter_map(|(id, stream)| stream.is_forgotten(now).then_some(id))
            .collect();
        let mut forgotten = Vec::new();
        for id in over {
            if let Some(stream) = self.streams.remove(id)
                && let Some(tenant) = self.tenants.get_mut(stream.tenant)
            {
                tenant.by_labels.remove(&stream.labels);
                forgotten.push(Bound {
                    tenant: Arc::clone(&tenant.key),
                    labels: stream.labels,
                    seconds: stream.order.bound(),
                });
            }
        }
        forgotten
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
        let seconds = entry.timestamp.seconds;
        if stream.order.is_behind(seconds) {
            return Append::Behind;
        }
        let line: usize = entry.line.iter().map(|part| part.len()).sum();
        let head = Head::new(entry.timestamp, line, entry.metadata.len());
        let need = head.len() + line + entry.metadata.len();

        // A block ends where a request ends; a line longer than a request gets one to itself.
        let place = stream.tenant;
        let Some(tenant) = self.tenants.get(place) else {
            return Append::NoRoom;
        };
        let limit = tenant.block_bytes(&stream.labels);
        let raised = stream.order.raised(seconds, tenant.window());
        if raised.is_some() && stream.returning > 0 {
            return Append::NotYet;
        }
        // What is under way when the agent is killed must be judged the same by the bound that the journal has.
        let fits = stream.blocks.back().is_some_and(|block| {
            block.len() + need <= limit && raised.is_none_or(|raised| !raised.is_behind(block.oldest))
        });
        if fits
            && let Some(block) = stream.blocks.back_mut()
            && block.is_to_be_packed(need)
        {
            let (freed, took) = block.pack(&mut self.compressor, &mut self.pool);
            self.tenants.exchange(place, freed, took);
        }
        let cost = match stream.blocks.back() {
            Some(block) if fits => block.chain.cost(need),
            _ => Block::default().chain.cost(need),
        };
        if cost > 0 {
            let Some(tenant) = self.tenants.take(place, cost, &self.pool) else {
                return Append::NoRoom;
            };
            if !stream.listed {
                stream.listed = true;
                tenant.waiting.push(id);
            }
        }
        if !fits {
            stream.blocks.push_back(Block::default());
        }
        let is_next = stream.blocks.len() == 1 && !stream.in_flight;
        let untaken = stream.came(need);
        self.tenants.count_untaken(place, untaken);
        let Some(block) = stream.blocks.back_mut() else {
            return Append::NoRoom;
        };
        if cost > 0 {
            block.chain.reserve(&mut self.pool, need);
        }
        copy(&mut block.chain, &mut self.head, &head, entry);
        block.lines += 1;
        block.bytes += (line + entry.metadata.len()) as u64;
        block.oldest = block.oldest.min(seconds);
        // Nearly always one cursor writes a stream, and it is the last that wrote.
        let is_new = !block.pieces.iter().rev().any(|piece| piece.cursor == cursor);
        let piece = PieceId(self.next_piece);
        if is_new {
            self.next_piece += 1;
            block.pieces.push(Finished { cursor, piece });
        }
        if let Some(raised) = raised {
            stream.order = raised;
            block.bound = raised.bound();
            // Told at once, where it is known that nothing goes before it: many new streams are journaled together.
            if is_next
                && stream.order.must_be_journaled(raised.bound())
                && let Some(tenant) = self.tenants.get(place)
            {
                self.raised.push(stream.bound(&tenant.key, raised.bound()));
            }
        }
        if is_new {
            Append::Opened(piece)
        } else {
            Append::Added
        }
    }

    /// Nothing more comes into a stream for now: what it holds is compressed while it is in the processor's cache, where that
    /// is worth it.
    pub fn rest(&mut self, stream: StreamId) {
        if let Some(stream) = self.streams.get_mut(stream)
            && let Some(block) = stream.blocks.back_mut()
            && block.is_worth_packing()
        {
            let (freed, took) = block.pack(&mut self.compressor, &mut self.pool);
            self.tenants.exchange(stream.tenant, freed, took);
        }
    }

    /// Forgets a cursor's pieces that are not sealed. Buffers that hold nothing else are emptied: a withdrawn
    /// right stops lines that were read already.
    pub fn drop_cursor(&mut self, cursor: CursorId) {
        let mut touched = Vec::new();
        for (id, stream) in self.streams.iter_mut() {
            for block in stream.drop_cursor(cursor) {
                stream.waiting = stream.waiting.saturating_sub(block.len());
                if let Some(bytes) = &mut stream.untaken
                    && let Some(tenant) = self.tenants.get_mut(stream.tenant)
                {
                    *bytes = bytes.saturating_sub(block.len());
                    tenant.untaken = tenant.untaken.saturating_sub(block.len());
                }
                let freed = block.release(&mut self.pool);
                self.tenants.exchange(stream.tenant, freed, 0);
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

    /// Bytes held: lines that wait, requests under way, and memory kept for the next ones.
    pub fn held_bytes(&self) -> u64 {
        (self.pool.held() + self.bodies.iter().map(Vec::capacity).sum::<usize>()) as u64
    }

    pub(super) fn remove_if_over(&mut self, id: StreamId) {
        if self.streams.get(id).is_some_and(Stream::is_over)
            && let Some(stream) = self.streams.remove(id)
            && let Some(tenant) = self.tenants.get_mut(stream.tenant)
        {
            tenant.by_labels.remove(&stream.labels);
            tenant.waiting.retain(|waiting| *waiting != id);
        }
    }
}

/// Appends an entry to bytes that are reserved.
fn copy(chain: &mut Chain, scratch: &mut Vec<u8>, head: &Head, entry: &Entry<'_>) {
    // Straight into its segment: to copy bytes that were just written the processor would have to wait.
    let line: usize = entry.line.iter().map(|part| part.len()).sum();
    let written = chain.extend_with(HEAD + line + entry.metadata.len(), |out| {
        head.write(out);
        entry.line.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(entry.metadata);
    });
    if written {
        return;
    }
    // Over a segment's end.
    scratch.clear();
    head.write(scratch);
    chain.extend(scratch);
    for part in entry.line {
        chain.extend(part);
    }
    chain.extend(entry.metadata);
}
