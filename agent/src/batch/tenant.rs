//! A tenant's limits and its share of the pool in; what its requests may hold, and when they may go out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::document::{Delivery, Limits, Tenant as Document};
use sluice_engine::key::Key;
use sluice_engine::loki;

use super::StreamId;
use super::adapt::Adapted;
use super::firsts::{self, Firsts};
use super::order::Window;
use super::pace::{Feedback, Meter, as_rate, stretched};
use super::pool::Pool;

/// Requests of one tenant that are under way at most, streams' first ones aside: the streams that Loki knows must
/// flow on whatever becomes of those.
const WINDOW: usize = 4;
/// All requests of one tenant that are under way at most.
pub(crate) const MOST_UNDER_WAY: usize = WINDOW + firsts::MANY;
/// Part of a limit that is used: other writers and rounding need the rest.
const USED_PART: f64 = 0.8;
/// What a stream shares a request with others up to, as a part of what Loki takes of it at once.
const LIGHT: f64 = 4.0;
/// Bytes that a read brings at most, about.
const READ: usize = 256 << 10;
/// Bytes of a request at most, however slow the tenant is.
const SMALLEST_REQUEST: usize = 64 << 10;
/// Bytes of a block that its framing and labels may take.
const SMALLEST_BLOCK: usize = 1024;

/// One tenant.
#[derive(Debug)]
pub(super) struct Tenant {
    /// Its name.
    pub(super) key: Arc<Key>,
    /// Its streams.
    pub(super) by_labels: HashMap<Arc<str>, StreamId>,
    /// Those that have lines waiting.
    pub(super) waiting: Vec<StreamId>,
    /// Bytes that it has taken from the pool.
    pub(super) used: usize,
    /// Bytes of streams of which Loki took nothing yet, before compression.
    pub(super) untaken: usize,
    /// There was no room for more of it since its last request was sealed or ended.
    pub(super) starved: bool,
    /// Its requests under way.
    pub(super) in_flight: usize,
    /// Those of them that are streams' first ones.
    pub(super) firsts: Firsts,
    /// What the pusher says.
    pub(super) feedback: Arc<Feedback>,
    wait: Duration,
    batch_bytes: usize,
    burst: f64,
    stream_rate: f64,
    stream_burst: f64,
    /// All that Loki takes of one stream at once, as far as it is used.
    stream_bucket: f64,
    window: Window,
    meter: Meter,
    adapted: Adapted,
    throttles: u64,
    /// 0 to 1, another one after each request.
    chance: f64,
}

impl Tenant {
    pub(super) fn new(key: Key, limits: &Limits, delivery: &Delivery) -> Self {
        let mut tenant = Self {
            key: Arc::new(key),
            by_labels: HashMap::new(),
            waiting: Vec::new(),
            used: 0,
            untaken: 0,
            starved: false,
            in_flight: 0,
            firsts: Firsts::default(),
            feedback: Arc::new(Feedback::default()),
            wait: Duration::ZERO,
            batch_bytes: 0,
            burst: 0.0,
            stream_rate: 0.0,
            stream_burst: 0.0,
            stream_bucket: 0.0,
            window: Window::new(limits.out_of_order_window_ms),
            meter: Meter::default(),
            adapted: Adapted::new(limits.rate_bytes_per_second),
            throttles: 0,
            chance: rand::random(),
        };
        tenant.set(limits, delivery);
        tenant
    }

    /// New limits; what waits already stays as it is cut.
    pub(super) fn set(&mut self, limits: &Limits, delivery: &Delivery) {
        let burst = as_rate(limits.burst_bytes) * USED_PART;
        let stream_burst = as_rate(limits.per_stream_burst_bytes) * USED_PART;
        let most = delivery.batch_bytes.min(loki::MAX_REQUEST_BYTES);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and 3.5 MiB"
        )]
        let most = (most as f64).min(burst).min(stream_burst) as usize;
        self.batch_bytes = most.max(SMALLEST_BLOCK);
        self.wait = Duration::from_millis(delivery.batch_wait_ms);
        // A request may go out while the bucket holds anything, so the bucket and one request are the burst.
        let request = as_rate(self.batch_bytes as u64);
        self.burst = (burst - request).max(1.0);
        self.stream_burst = (stream_burst - request).max(1.0);
        self.stream_bucket = stream_burst;
        self.stream_rate = as_rate(limits.per_stream_rate_bytes_per_second) * USED_PART;
        self.window = Window::new(limits.out_of_order_window_ms);
        self.adapted.set_ceiling(limits.rate_bytes_per_second);
    }

    /// How far apart the lines of one stream may lie.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// Bytes of a request at most: not more than the tenant takes in a second.
    pub(super) fn batch_bytes(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is positive and a request smaller than 3.5 MiB"
        )]
        let second = self.adapted.rate().min(as_rate(loki::MAX_REQUEST_BYTES)) as usize;
        self.batch_bytes.min(second.max(SMALLEST_REQUEST))
    }

    /// Bytes of entries that one request takes of a stream with these labels.
    pub(super) fn block_bytes(&self, labels: &str) -> usize {
        // Two tags and lengths stand before the entries.
        self.batch_bytes().saturating_sub(labels.len() + 12)
    }

    /// How long a line waits for company.
    pub(super) fn wait(&self) -> Duration {
        let stretched = stretched(self.wait, self.feedback.latency());
        // Agents that began together part, or they would come together each time.
        let more = stretched.saturating_sub(self.wait);
        self.wait + more.mul_f64(1.0 - self.chance / 2.0)
    }

    /// Whether one more request may be under way, a stream's first or another.
    pub(super) fn has_window(&self, first: bool) -> bool {
        if first {
            self.firsts.has_window()
        } else {
            self.in_flight.saturating_sub(self.firsts.under_way()) < WINDOW
        }
    }

    /// When the tenant's rate allows the next request.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        let burst = self.burst * self.adapted.burst_part();
        self.meter.ready_at(self.adapted.rate(), burst)
    }

    /// When a stream's rate allows the next request.
    pub(super) fn stream_ready_at(&self, meter: Meter) -> Option<Instant> {
        meter.ready_at(self.stream_rate, self.stream_burst)
    }

    /// Lets time pass: the rate grows, and is cut when Loki refused since the last call.
    pub(super) fn tick(&mut self, now: Instant) {
        self.firsts.tick(now);
        let before = self.adapted.rate();
        self.adapted.grow(now);
        let throttles = self.feedback.throttles();
        if throttles != self.throttles {
            self.throttles = throttles;
            self.adapted.throttled(rand::random(), now);
            self.meter.take(self.feedback.take_refused_bytes(), before, now);
        }
        self.meter.rescale(self.adapted.rate() / before, now);
        self.feedback.set_rate(self.adapted.rate());
    }

    /// Counts what goes out.
    pub(super) fn sent(&mut self, bytes: u64, now: Instant) {
        self.chance = rand::random();
        self.meter.take(bytes, self.adapted.rate(), now);
        self.adapted.sent(bytes, now);
    }

    /// Whether a stream with so much to send comes so near its limits that Loki may refuse it, if what it counts is only a
    /// little more than what is counted here.
    pub(super) fn is_near_limit(&self, meter: Meter, bytes: usize, now: Instant) -> bool {
        let half = Duration::from_secs_f64((self.stream_bucket / 2.0 / self.stream_rate).clamp(0.0, 3_600.0));
        as_rate(bytes as u64) >= self.stream_bucket / LIGHT || meter.debt(now) > half
    }

    /// What Loki took of a stream before a restart is not known: as much as it takes at once.
    pub(super) fn stream_spent(&self, meter: &mut Meter, now: Instant) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a limit is positive and far below 2^63"
        )]
        meter.take(self.stream_bucket as u64, self.stream_rate, now);
    }

    /// Counts what goes out of one stream.
    pub(super) fn stream_sent(&self, meter: &mut Meter, bytes: u64, now: Instant) {
        meter.take(bytes, self.stream_rate, now);
    }
}

/// The tenants, at places that do not move.
#[derive(Debug, Default)]
pub(super) struct Tenants {
    places: Vec<Option<Tenant>>,
    by_key: HashMap<Key, usize>,
}

impl Tenants {
    pub(super) fn get(&self, place: usize) -> Option<&Tenant> {
        self.places.get(place).and_then(Option::as_ref)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Tenant> {
        self.places.get_mut(place).and_then(Option::as_mut)
    }

    /// Takes so much of the pool for a tenant; `None` when it may not have it now.
    pub(super) fn take(&mut self, place: usize, cost: usize, pool: &Pool) -> Option<&mut Tenant> {
        let has_room = self.has_room(place, cost, pool);
        let tenant = self.get_mut(place)?;
        tenant.starved |= !has_room;
        tenant.used += if has_room { cost } else { 0 };
        has_room.then_some(tenant)
    }

    /// A tenant gave so many bytes back to the pool and took others.
    pub(super) fn exchange(&mut self, place: usize, freed: usize, took: usize) {
        if let Some(tenant) = self.get_mut(place) {
            tenant.used = (tenant.used + took).saturating_sub(freed);
        }
    }

    /// Places, taken or not.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Takes a tenant's content in; returns its place and its window when that is another one.
    pub(super) fn set(&mut self, document: &Document) -> Option<(usize, Window)> {
        let place = self.by_key.get(&document.name).copied();
        if let Some((place, tenant)) = place.zip(place.and_then(|place| self.get_mut(place))) {
            let before = tenant.window;
            tenant.set(&document.limits, &document.delivery);
            (tenant.window != before).then_some((place, tenant.window))
        } else {
            self.add(Tenant::new(
                document.name.clone(),
                &document.limits,
                &document.delivery,
            ));
            None
        }
    }

    /// The place of a tenant; one that was never set gets Loki's defaults.
    pub(super) fn place(&mut self, key: &Key) -> usize {
        match self.by_key.get(key) {
            Some(place) => *place,
            None => self.add(Tenant::new(key.clone(), &Limits::default(), &Delivery::default())),
        }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<(usize, Tenant)> {
        let place = self.by_key.remove(key)?;
        Some((place, self.places.get_mut(place)?.take()?))
    }

    fn add(&mut self, tenant: Tenant) -> usize {
        let key = (*tenant.key).clone();
        let free = self.places.iter().position(Option::is_none);
        let place = free.unwrap_or(self.places.len());
        if let Some(slot) = self.places.get_mut(place) {
            *slot = Some(tenant);
        } else {
            self.places.push(Some(tenant));
        }
        self.by_key.insert(key, place);
        place
    }

    /// Whether a tenant may take what a read brings; less in a small pool, and anything when it holds nothing.
    pub(super) fn has_room_for_a_read(&mut self, key: &Key, pool: &Pool) -> bool {
        let Some(place) = self.by_key.get(key).copied() else {
            return true;
        };
        let share = pool.budget() / (8 * self.by_key.len().max(1));
        let has_room = self.has_room(place, READ.min(share), pool);
        let Some(tenant) = self.get_mut(place).filter(|tenant| tenant.used > 0) else {
            return true;
        };
        tenant.starved |= !has_room;
        has_room
    }

    /// Streams of which Loki took nothing yet have got so many bytes.
    pub(super) fn count_untaken(&mut self, place: usize, bytes: usize) {
        if bytes > 0
            && let Some(tenant) = self.get_mut(place)
        {
            tenant.untaken += bytes;
        }
    }

    /// Bytes that a tenant's streams may hold of which Loki took nothing yet: where it takes no further one, those that it
    /// knows need the rest.
    pub(super) fn most_untaken(&self, pool: &Pool) -> usize {
        pool.budget() / (2 * self.by_key.len().max(1))
    }

    /// Whether a tenant may take so much more. Alone it may take everything; beside others at most half, and
    /// nothing of what each other one is granted, which is its part of the other half.
    pub(super) fn has_room(&self, place: usize, cost: usize, pool: &Pool) -> bool {
        let count = self.by_key.len();
        let Some(tenant) = self.get(place) else {
            return false;
        };
        // No line may be too long for ever, so who holds nothing takes it whatever it costs.
        if tenant.used == 0 {
            return true;
        }
        if count <= 1 {
            return cost <= pool.room();
        }
        // What is granted is there even if others took it before this tenant came: half the pool more at most.
        let granted = pool.budget() / (2 * count);
        if tenant.used + cost <= granted {
            return true;
        }
        let others = self
            .places
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != place);
        let kept: usize = others
            .filter_map(|(_, other)| Some(granted.saturating_sub(other.as_ref()?.used)))
            .sum();
        tenant.used + cost <= pool.budget() / 2 && cost + kept <= pool.room()
    }
}
