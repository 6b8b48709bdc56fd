//! Tenants take turns, and so do the cursors of each: bytes of their files in, entries in the sink out.

use std::time::{Duration, Instant};

use sluice_engine::document::Limits;
use sluice_engine::labels;

use super::Sink;
use super::admit::{container_facts, in_use, namespace};
use super::container::{BUSY, Container, IDLE_AFTER, UNWATCHED};
use super::core::{BUFFER, Core};
use super::cursor::{Chunk, Cursor, State, TAIL};
use crate::checkpoint::journal::Journal;
use crate::checkpoint::record::{LabelChoice, Record};
use crate::discover::watch::Target;
use crate::metadata::PodFacts;
use crate::parse::join::NoRoom;
use crate::status::figures::Figures;
use crate::tail::chain::{Chain, Next};
use crate::tail::position::{CursorId, Position};

/// Bytes that a cursor may read in its turn; what it takes beyond is missing in its next one.
const QUANTUM: i64 = 256 << 10;
/// How long a tenant without room waits when nothing says that there is some.
const RETRY: Duration = Duration::from_millis(100);

/// Bytes that are read to learn the timestamp of a line that waits for room.
const LOOK: usize = 512;

/// What one read came to.
enum Step {
    /// So many bytes were taken, there may be more.
    Read(usize),
    /// So many bytes were taken, and the sink has no room for the next line.
    NoRoom(usize),
    /// There is nothing more for now.
    AtEnd,
    /// There will never be more.
    Finished,
}

impl<S: Sink> Core<S> {
    /// Lets the cursors look again whose files may have grown.
    pub(super) fn poll(&mut self, now: Instant) {
        for container in self.containers.values_mut() {
            if container.next_poll.is_none_or(|due| due > now) {
                continue;
            }
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
                    cursor.verify = true;
                    lane.ready.push_back(*id);
                }
            }
            container.next_poll = if container.cursors.is_empty() {
                None
            } else if now.duration_since(container.last_growth) < IDLE_AFTER {
                Some(now + BUSY)
            } else {
                // Armed before the read that follows in this turn, so nothing falls between.
                let watcher = &mut self.discovery.watcher;
                let target = || Target::File(std::sync::Arc::clone(&container.key));
                let armed = container
                    .chain
                    .growing(oldest)
                    .all(|file| watcher.file(file, target()));
                (!armed).then_some(now + UNWATCHED)
            };
        }
    }

    /// One turn of one cursor of each tenant; false when nobody has anything to read and room for it.
    pub(super) fn visit(&mut self, budget: &mut usize, now: Instant) -> bool {
        let turns: Vec<CursorId> = self
            .tenants
            .values_mut()
            .filter(|lane| lane.has_turn())
            .filter_map(|lane| lane.ready.pop_front())
            .collect();
        for id in &turns {
            self.take_turn(*id, budget, now);
        }
        !turns.is_empty()
    }

    fn take_turn(&mut self, id: CursorId, budget: &mut usize, now: Instant) {
        match self.cursors.get_mut(&id) {
            Some(cursor) if cursor.state == State::Ready => cursor.deficit += QUANTUM,
            // Removed, or removed and made again since it was queued.
            _ => return,
        }
        loop {
            let has_room = match self.cursors.get(&id) {
                Some(cursor) => self.sink.has_room(&cursor.tenant),
                None => return,
            };
            let step = if has_room {
                self.step(id, now)
            } else {
                self.look(id, now);
                Step::NoRoom(0)
            };
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
                            cursor.deficit -= QUANTUM;
                            lane.ready.push_front(id);
                        }
                    }
                    if no_room {
                        self.retry.get_or_insert(now + RETRY);
                    }
                    return;
                }
                Step::AtEnd | Step::Finished => {
                    cursor.state = if matches!(step, Step::AtEnd) {
                        State::AtEnd
                    } else {
                        State::Finished
                    };
                    cursor.deficit = 0;
                    cursor.waits = None;
                    return;
                }
            }
        }
    }

    /// Finds out whether a line waits for room, and since when: its beginning is read, and nothing is taken.
    fn look(&mut self, id: CursorId, now: Instant) {
        let Some(cursor) = self.cursors.get_mut(&id).filter(|c| c.waits.is_none()) else {
            return;
        };
        let Some(container) = self.containers.get_mut(&cursor.container) else {
            return;
        };
        let chain = &mut container.chain;
        let at = cursor.position;
        let Some(number) = chain.at_or_after(at.generation).map(|found| found.number) else {
            return;
        };
        let offset = if number == at.generation { at.offset } else { 0 };
        let into = self.buffer.get_mut(..LOOK).unwrap_or_default();
        let Ok(read) = chain.read(number, offset, into, container.gone, &mut cursor.reader) else {
            return;
        };
        let begin = into.get(..read).unwrap_or_default();
        // One that is still written does not wait for room.
        if begin.contains(&b'\n') || read == LOOK || (read > 0 && container.gone) {
            cursor.waits = cursor.next_timestamp(begin);
        } else if chain.after(number, container.gone, now) != Next::Stay {
            cursor.waits = cursor.previous;
        }
    }

    /// Reads on once.
    fn step(&mut self, id: CursorId, now: Instant) -> Step {
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return Step::Finished;
        };
        let Some(container) = self.containers.get_mut(&cursor.container) else {
            return Step::Finished;
        };
        let chain = &mut container.chain;
        let number = chain
            .at_or_after(cursor.position.generation)
            .map(|generation| generation.number);
        let Some(number) = number else {
            return without_file(cursor, container, &mut self.sink);
        };
        if number > cursor.position.generation {
            cursor.go_to(Position {
                generation: number,
                offset: 0,
            });
        }
        let offset = cursor.position.offset;
        // What was read last is read with what follows, and compared.
        let before = cursor.compared(chain, number, now);
        let into = self.buffer.get_mut(..before + BUFFER).unwrap_or_default();
        let from = offset - before as u64;
        let read = match chain.read(number, from, into, container.gone, &mut cursor.reader) {
            Ok(read) => into.get(..read).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(container = %container.key, %error, "a log file cannot be read");
                return Step::AtEnd;
            }
        };
        cursor.last_read = now;
        cursor.verify = false;
        if cursor.was_rewritten(chain, number, read, before) {
            return begin_anew(container, cursor.position, &mut self.figures);
        }
        let data = read.get(before..).unwrap_or_default();
        if !data.is_empty() && !cursor.has_labels() {
            let Some(lane) = self.tenants.get(&*cursor.tenant) else {
                return Step::AtEnd;
            };
            let facts = self.pods.get(&container.key.folder);
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
        let first = cursor.previous.is_none();
        let mut chunk = Chunk {
            data,
            generation: number,
            offset,
            full,
            last: false,
            modified: first.then(|| container.chain.modified(number)).flatten(),
        };
        let (taken, no_room) = take(cursor, &chunk, &mut self.sink, &mut self.figures, now);
        if taken > 0 {
            container.last_growth = now;
            container.next_poll = Some(container.next_poll.map_or(now + BUSY, |due| due.min(now + BUSY)));
            cursor.remember(data.get(..taken).unwrap_or_default());
        }
        if no_room {
            return Step::NoRoom(taken);
        }
        if full {
            return Step::Read(taken.max(1));
        }
        chunk.data = data.get(taken..).unwrap_or_default();
        chunk.offset += taken as u64;
        at_end_of_file(cursor, container, chunk, &mut self.sink, &mut self.figures, now)
    }
}

/// Somebody cut or rewrote the file: what it holds now is read from its beginning.
fn begin_anew(container: &mut Container, at: Position, figures: &mut Figures) -> Step {
    tracing::warn!(container = %container.key, offset = at.offset,
        "a log file was cut or rewritten: read from its beginning");
    *figures.resets.entry("file_rewritten").or_default() += 1;
    if container.chain.replace(at.generation) {
        Step::Read(1)
    } else {
        Step::AtEnd
    }
}

/// There is no file at or behind the cursor's position.
fn without_file<S: Sink>(cursor: &mut Cursor, container: &Container, sink: &mut S) -> Step {
    if !container.gone {
        return Step::AtEnd;
    }
    match cursor.end_long(sink).and_then(|()| cursor.flush_all(sink)) {
        Ok(()) => Step::Finished,
        Err(NoRoom) => Step::NoRoom(0),
    }
}

/// The cursor has read all there is of its file; `chunk` is a rest without line feed. Goes on with the next
/// file when this one is complete.
fn at_end_of_file<S: Sink>(
    cursor: &mut Cursor,
    container: &mut Container,
    chunk: Chunk<'_>,
    sink: &mut S,
    figures: &mut Figures,
    now: Instant,
) -> Step {
    let next = container.chain.after(chunk.generation, container.gone, now);
    if next == Next::Stay && !container.gone {
        return Step::AtEnd;
    }
    let chunk = Chunk {
        full: false,
        last: true,
        ..chunk
    };
    let (taken, no_room) = take(cursor, &chunk, sink, figures, now);
    if taken > 0 {
        cursor.remember(chunk.data.get(..taken).unwrap_or_default());
    }
    if no_room || cursor.end_long(sink).is_err() {
        return Step::NoRoom(taken);
    }
    // Nobody is left who would end these lines.
    let over = matches!(next, Next::Stay | Next::Move { restarted: true, .. });
    if over && cursor.flush_all(sink).is_err() {
        return Step::NoRoom(taken);
    }
    match next {
        Next::Stay => Step::Finished,
        Next::Move { number, .. } => {
            cursor.go_to(Position {
                generation: number,
                offset: 0,
            });
            Step::Read(taken.max(1))
        }
    }
}

/// Lets the cursor take what is at hand, and counts it.
fn take<S: Sink>(
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

/// Chooses the labels of what is read from here on, and journals them before any of it can be sent.
fn choose<S: Sink>(
    cursor: &mut Cursor,
    container: &mut Container,
    facts: Option<&PodFacts>,
    node: &str,
    limits: &Limits,
    journal: &mut Journal,
    sink: &mut S,
) {
    let namespace = namespace(&cursor.pipeline, &container.pod.namespace);
    let facts = container_facts(&container.key, &container.pod, namespace, facts, node);
    let chosen = labels::choose(&cursor.pipeline.labels, &facts, limits);
    let first = cursor.outlet.choices.is_empty();
    let place = if first {
        None
    } else {
        container.chain.place(cursor.position)
    };
    let json = serde_json::to_string(&chosen).unwrap_or_default();
    let record = LabelChoice {
        from: place,
        rules: cursor.rules.clone(),
        chosen: json,
    };
    journal.append_urgent(&Record::Chosen(cursor.outlet.id, record));
    let from = if first {
        Position::default()
    } else {
        cursor.position
    };
    let choice = in_use(from, cursor.rules.clone(), chosen, &cursor.tenant, sink);
    cursor.outlet.choices.push(choice);
}

impl Cursor {
    /// Whether its labels are chosen, by the rules in force.
    fn has_labels(&self) -> bool {
        self.outlet
            .choices
            .last()
            .is_some_and(|choice| choice.rules == self.rules)
    }

    /// How many bytes before the position are to be compared with those that were read: after a pause the file
    /// may be another.
    fn compared(&self, chain: &Chain, number: u32, now: Instant) -> usize {
        let paused = self.verify || now.duration_since(self.last_read) >= BUSY;
        if !paused || chain.is_compressed(number) {
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
            Some(again) => !self.tail.ends_with(again),
            None => chain.is_shorter(number, self.position.offset),
        }
    }

    /// Goes on at the beginning of another generation.
    fn go_to(&mut self, position: Position) {
        self.position = position;
        self.tail.clear();
        self.verify = false;
        self.reader = None;
        self.dirty = true;
    }

    /// Keeps the last bytes that were taken.
    fn remember(&mut self, taken: &[u8]) {
        self.tail.clear();
        self.tail
            .extend_from_slice(taken.get(taken.len().saturating_sub(TAIL)..).unwrap_or_default());
    }
}
