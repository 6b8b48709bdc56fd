//! Tenants take turns, and so do the cursors of each: bytes of their files in, entries in the sink out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_engine::document::Limits;

use super::Sink;
use super::choices::choose;
use super::container::{BUSY, Container, IDLE_AFTER, UNWATCHED};
use super::core::{BUFFER, Core};
use super::cursor::{Chunk, Cursor, State, TAIL};
use super::file_end::at_end_of_file;
use super::trouble::{file_of, rewritten, unreadable};
use crate::discover::watch::Target;
use crate::process;
use crate::status::figures::Figures;
use crate::tail::chain::Chain;
use crate::tail::position::{CursorId, Position};

/// Bytes that a cursor may read in its turn; what it takes beyond is missing in its next one.
const QUANTUM: i64 = 256 << 10;
/// The same in a compressed file: one that loses its decompressor meanwhile begins the file anew.
const COMPRESSED_QUANTUM: i64 = 16 * QUANTUM;
/// Decompressors kept at a time.
const READERS: usize = 16;
/// Nobody waits for a decompressor that was not used for so long.
const READER_RESTS: Duration = Duration::from_secs(10);
/// Looks that are due within so long are taken together.
const SOON: Duration = Duration::from_millis(250);
/// How long a tenant without room waits when nothing says that there is some.
const RETRY: Duration = Duration::from_millis(100);

/// What one read came to.
pub(super) enum Step {
    /// So many bytes were taken, there may be more.
    Read(usize),
    /// So many bytes were taken, and the sink has no room for the next line.
    NoRoom(usize),
    /// The stream has enough waiting.
    Held,
    /// There is nothing more for now.
    AtEnd,
    /// There will never be more.
    Finished,
}

impl<S: Sink> Core<S> {
    /// Lets the cursors look again whose files may have grown. Who would be due soon is looked at as well: so
    /// busy files come to share one wake-up for each look, however they began.
    pub(super) fn poll(&mut self, now: Instant) {
        let is_due = |container: &Container, by: Instant| container.next_poll.is_some_and(|due| due <= by);
        let mut stirred = self.stirred.iter().filter_map(|key| self.containers.get(key));
        if !stirred.any(|container| is_due(container, now)) {
            return;
        }
        for key in &self.stirred {
            let container = self.containers.get_mut(key);
            let Some(container) = container.filter(|container| is_due(container, now + SOON)) else {
                continue;
            };
            let mut oldest = u32::MAX;
            for id in &container.cursors {
                let Some(cursor) = self.cursors.get_mut(id) else {
                    continue;
                };
                oldest = oldest.min(cursor.position.generation);
                // A folder that came back is read on.
                let waits =
                    cursor.state == State::AtEnd || (cursor.state == State::Finished && !container.gone);
                if waits && let Some(lane) = self.tenants.get_mut(&*cursor.tenant) {
                    cursor.state = State::Ready;
                    lane.ready.push_back(*id);
                }
            }
            container.next_poll = if container.cursors.is_empty() {
                None
            } else if now.duration_since(container.last_growth) < IDLE_AFTER {
                Some(now + BUSY)
            } else {
                // Armed before the read that follows in this turn, so nothing falls between.
                let target = || Target::File(Arc::clone(&container.key));
                let armed = self.discovery.watcher(&container.key).is_some_and(|watcher| {
                    let mut growing = container.chain.growing(oldest);
                    growing.all(|file| file.is_ok_and(|file| watcher.file(&*file, target())))
                });
                (!armed).then_some(now + UNWATCHED)
            };
        }
    }

    /// One turn of one cursor of each tenant; false when nobody has anything to read and room for it.
    pub(super) fn visit(&mut self, budget: &mut usize, now: Instant) -> bool {
        let turns = self.turns(now);
        for id in &turns {
            self.take_turn(*id, budget, now);
            self.keep_few_readers(*id, now);
            let Some(cursor) = self.cursors.get(id) else {
                continue;
            };
            self.stirred.insert(Arc::clone(&cursor.container));
            if let Some(stream) = cursor.outlet.stream_at(cursor.position) {
                self.sink.rest(stream);
            }
        }
        !turns.is_empty()
    }

    /// Whose turn it is in each tenant's lane. Those that would begin a compressed file wait for those that are in the middle of
    /// one, where these are as many as the tenant's part of the decompressors: one that is closed has to begin its file anew.
    fn turns(&mut self, now: Instant) -> Vec<CursorId> {
        let few = (READERS / self.tenants.len().max(1)).max(1);
        let (cursors, containers, readers) = (&self.cursors, &self.containers, &self.readers);
        let begins = |id: &CursorId| {
            let cursor = cursors.get(id).filter(|cursor| cursor.reader.is_none());
            let container = cursor.and_then(|cursor| containers.get(&cursor.container));
            container
                .zip(cursor)
                .is_some_and(|(container, cursor)| container.chain.is_compressed(cursor.position.generation))
        };
        let mut turns = Vec::new();
        for (tenant, lane) in self.tenants.iter_mut().filter(|(_, lane)| lane.has_turn()) {
            let is_open = |id: &CursorId| {
                let cursor = cursors.get(id).filter(|cursor| *cursor.tenant == *tenant);
                cursor.is_some_and(|cursor| cursor.reader.is_some())
            };
            let used = readers
                .iter()
                .filter(|(_, used)| now.duration_since(*used) < READER_RESTS);
            let are_few = used.filter(|(id, _)| is_open(id)).count() < few;
            if let Some(id) = lane.take_first(|id| !are_few && begins(id)) {
                turns.push(id);
            } else {
                lane.held = true;
                self.retry.get_or_insert(now + RETRY);
            }
        }
        turns
    }

    /// Closes the decompressor that was not used for longest, when there are too many.
    fn keep_few_readers(&mut self, used: CursorId, now: Instant) {
        if self
            .cursors
            .get(&used)
            .is_some_and(|cursor| cursor.reader.is_some())
        {
            self.readers.retain(|(id, _)| *id != used);
            self.readers.push_back((used, now));
            let surplus = self.readers.len().saturating_sub(READERS);
            for (id, _) in self.readers.drain(..surplus) {
                if let Some(cursor) = self.cursors.get_mut(&id) {
                    cursor.reader = None;
                }
            }
        }
    }

    /// Adds what a cursor may read in a turn to what is left of its last one; `None` when it was removed, or removed
    /// and made again, since it was queued.
    fn begin_turn(&mut self, id: CursorId) -> Option<i64> {
        let cursor = self.cursors.get_mut(&id)?;
        if cursor.state != State::Ready {
            return None;
        }
        let container = self.containers.get(&cursor.container);
        let compressed = container.is_some_and(|found| found.chain.is_compressed(cursor.position.generation));
        let quantum = if compressed { COMPRESSED_QUANTUM } else { QUANTUM };
        cursor.deficit += quantum;
        Some(quantum)
    }

    fn take_turn(&mut self, id: CursorId, budget: &mut usize, now: Instant) {
        let Some(quantum) = self.begin_turn(id) else {
            return;
        };
        loop {
            let Some(cursor) = self.cursors.get(&id) else {
                return;
            };
            let has_room = self.sink.has_room(&cursor.tenant);
            let stream = cursor.outlet.stream_at(cursor.position);
            let takes_more = stream.is_none_or(|stream| self.sink.takes_more(stream));
            let step = if !takes_more {
                self.look(id, now);
                Step::Held
            } else if has_room {
                self.step(id, now)
            } else {
                self.look(id, now);
                Step::NoRoom(0)
            };
            if matches!(step, Step::NoRoom(_)) && self.reroute(id) {
                continue;
            }
            let step = self.yielded(id, step, now);
            let Some(cursor) = self.cursors.get_mut(&id) else {
                return;
            };
            match step {
                Step::Read(bytes) | Step::NoRoom(bytes) => {
                    *budget = budget.saturating_sub(bytes);
                    cursor.deficit -= i64::try_from(bytes).unwrap_or(i64::MAX);
                    let no_room = matches!(step, Step::NoRoom(_));
                    if no_room && has_room {
                        cursor.waits = cursor.waits.or(cursor.previous);
                    }
                    let is_over = cursor.deficit <= 0;
                    if !no_room && !is_over {
                        continue;
                    }
                    if let Some(lane) = self.tenants.get_mut(&*cursor.tenant) {
                        lane.held |= no_room;
                        if is_over {
                            lane.ready.push_back(id);
                        } else {
                            // Its turn goes on when there is room, and what is left of it with it.
                            cursor.deficit -= quantum;
                            lane.ready.push_front(id);
                        }
                    }
                    if no_room {
                        self.retry.get_or_insert(now + RETRY);
                    }
                    return;
                }
                Step::Held => {
                    cursor.state = State::Held;
                    cursor.deficit = 0;
                    cursor.waits = cursor.waits.or(cursor.previous);
                    self.held.push(id);
                    return;
                }
                Step::AtEnd | Step::Finished => {
                    cursor.outlet.caught_up();
                    cursor.outlet.has_returned(&mut self.sink);
                    cursor.state = if matches!(step, Step::AtEnd) {
                        State::AtEnd
                    } else {
                        State::Finished
                    };
                    cursor.deficit = 0;
                    cursor.waits = None;
                    if cursor.state == State::Finished {
                        cursor.tell_gap(&mut self.journal);
                    }
                    return;
                }
            }
        }
    }

    /// A cursor whose line waits for other cursors makes place for them.
    fn yielded(&mut self, id: CursorId, step: Step, now: Instant) -> Step {
        let yields = |cursor: &mut Cursor| std::mem::take(&mut cursor.outlet.yields);
        if matches!(step, Step::NoRoom(_)) && self.cursors.get_mut(&id).is_some_and(yields) {
            self.retry.get_or_insert(now + RETRY);
            return Step::Held;
        }
        step
    }

    /// Reads on once.
    pub(super) fn step(&mut self, id: CursorId, now: Instant) -> Step {
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return Step::Finished;
        };
        let Some(container) = self.containers.get_mut(&cursor.container) else {
            return Step::Finished;
        };
        let number = match file_of(cursor, container, &mut self.sink, &mut self.figures) {
            Ok(number) => number,
            Err(step) => return step,
        };
        let chain = &mut container.chain;
        let offset = cursor.position.offset;
        // What was read last is read with what follows, and compared: the file may be another by now.
        let before = cursor.compared(chain, number);
        let into = self.buffer.get_mut(..before + BUFFER).unwrap_or_default();
        let from = offset - before as u64;
        let read = match chain.read(number, from, into, container.gone, &mut cursor.reader) {
            Ok(read) => into.get(..read).unwrap_or_default(),
            Err(error) => {
                let (step, again) =
                    unreadable(cursor, container, &error, now, &mut self.sink, &mut self.figures);
                if again {
                    self.relist.insert(Arc::clone(&container.key));
                }
                return step;
            }
        };
        if chain.has_refused() {
            chain.recovered(number);
        }
        if let Some(lane) = self.tenants.get(&*cursor.tenant) {
            cursor.not_older = oldest_wanted(&lane.tenant.limits);
        }
        if cursor.was_rewritten(chain, number, read, before) {
            return rewritten(chain, number, &container.key, &mut self.relist);
        }
        let data = read.get(before..).unwrap_or_default();
        if !data.is_empty() && !cursor.has_labels() {
            let Some(lane) = self.tenants.get(&*cursor.tenant) else {
                return Step::AtEnd;
            };
            let facts = self.pods.get(container.key.pod_folder());
            let (node, limits) = (&self.settings.node_name, &lane.tenant.limits);
            choose(
                cursor,
                container,
                facts,
                node,
                limits,
                &mut self.journal,
                &mut self.sink,
            );
        }

        let full = data.len() == BUFFER;
        let mut chunk = Chunk {
            data,
            generation: number,
            offset,
            full,
            last: false,
            modified: cursor.modified(&container.chain, number),
        };
        let (taken, no_room) = take(cursor, &chunk, &mut self.sink, &mut self.figures, now);
        if taken > 0 {
            container.grew(taken, now);
            cursor.remember(data.get(..taken).unwrap_or_default());
            cursor.end_gap(data, &mut self.journal);
        }
        if no_room {
            return Step::NoRoom(taken);
        }
        if full {
            return Step::Read(taken.max(1));
        }
        chunk.data = data.get(taken..).unwrap_or_default();
        chunk.offset += taken as u64;
        let step = at_end_of_file(cursor, container, chunk, &mut self.sink, &mut self.figures, now);
        let again = container.chain.wants_listing();
        self.relist.extend(again.then(|| Arc::clone(&container.key)));
        step
    }
}

/// Time of the oldest lines that a tenant wants, in seconds since 1970.
fn oldest_wanted(limits: &Limits) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let oldest = limits.reject_old_samples_max_age_ms.zip(now).map(|(age, now)| {
        let oldest = now.as_secs().saturating_sub(age / 1000);
        i64::try_from(oldest).unwrap_or(i64::MAX)
    });
    oldest.unwrap_or(i64::MIN)
}

/// Lets the cursor take what is at hand, and counts it.
pub(super) fn take<S: Sink>(
    cursor: &mut Cursor,
    chunk: &Chunk<'_>,
    sink: &mut S,
    figures: &mut Figures,
    now: Instant,
) -> (usize, bool) {
    let (malformed, too_old) = (cursor.malformed, cursor.too_old);
    let (taken, no_room) = cursor.consume(chunk, sink, now);
    figures.malformed_lines += cursor.malformed - malformed;
    figures.too_old_lines += cursor.too_old - too_old;
    figures.read_bytes += taken as u64;
    (taken, no_room)
}

impl Cursor {
    /// Whether its labels are chosen, by the rules in force.
    fn has_labels(&self) -> bool {
        self.outlet
            .choices
            .last()
            .is_some_and(|choice| process::holds(choice, &self.rules, self.pod_known))
    }

    /// When its file was written last, while no line of it told a time.
    fn modified(&self, chain: &Chain, number: u32) -> Option<i64> {
        self.previous.is_none().then(|| chain.modified(number)).flatten()
    }

    /// How many bytes before the position are to be compared with those that were read.
    fn compared(&self, chain: &Chain, number: u32) -> usize {
        if chain.is_fixed(number) {
            return 0;
        }
        self.tail
            .len()
            .min(usize::try_from(self.position.offset).unwrap_or(usize::MAX))
    }

    /// Whether the file is not the one any more whose beginning was read: `read` begins so many bytes before the
    /// position.
    fn was_rewritten(&self, chain: &Chain, number: u32, read: &[u8], before: usize) -> bool {
        match read.get(..before).filter(|_| !read.is_empty()) {
            Some(_) if self.tail.is_empty() => chain.began_otherwise(number),
            Some(again) => !self.tail.ends_with(again),
            None => {
                let unknown = self.tail.is_empty() && self.position.offset > 0;
                chain.is_shorter(number, self.position.offset) || unknown && chain.began_otherwise(number)
            }
        }
    }

    /// Goes on at the beginning of another generation.
    pub(super) fn go_to(&mut self, position: Position) {
        self.position = position;
        self.tail.clear();
        self.reader = None;
        self.dirty = true;
    }

    /// Keeps the last bytes that were taken.
    pub(super) fn remember(&mut self, taken: &[u8]) {
        self.tail.clear();
        self.tail
            .extend_from_slice(taken.get(taken.len().saturating_sub(TAIL)..).unwrap_or_default());
    }
}
