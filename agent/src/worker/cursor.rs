//! One reader of one container for one pipeline and tenant: bytes in, entries out, and what of them is
//! acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::cri::{Parser, Timestamp};
use sluice_engine::document::Pipeline;
use sluice_engine::key::Key;
use sluice_engine::report::Gap;

use super::gaps::Backlog;
use super::outlet::Outlet;
use super::sink::Sink;
use crate::batch::Finished;
use crate::discover::names::ContainerKey;
use crate::parse::join::{self, Joiner, NoRoom, Part, Piece, RAW};
use crate::tail::chain::Place;
use crate::tail::compressed::Compressed;
use crate::tail::position::{CursorId, Mark, Position, STRIDE};

/// Bytes before the read position that are compared with what was read.
pub(super) const TAIL: usize = 64;

/// Generations that lines which overlap may hold a position back; kubelet keeps five by default.
const OVERLAP: u32 = 8 * STRIDE;

/// What a cursor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its turn, in its tenant's lane.
    Ready,
    /// Its file to grow.
    AtEnd,
    /// What its stream has waiting to be sent.
    Held,
    /// Acknowledgements only: the container is gone and read to its end.
    Finished,
}

/// A line of the file that is longer than the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long {
    slot: u8,
    timestamp: Timestamp,
    begin: Mark,
    mark: Mark,
    partial: bool,
    /// Older than the namespace: read and not sent.
    skipped: bool,
}

/// One reader.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) container: Arc<ContainerKey>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) tenant: Arc<Key>,
    /// Lines older than this, in seconds since 1970, are not sent: the namespace is younger.
    pub(super) not_before: i64,
    /// Nor those older than this: the tenant does not want them.
    pub(super) not_older: i64,
    pub(super) rules: String,
    /// The pod's facts are there, or its labels do not depend on them.
    pub(super) pod_known: bool,
    pub(super) position: Position,
    pub(super) previous: Option<Timestamp>,
    pub(super) joiner: Joiner,
    /// Ends of pieces after which a clock ended the line.
    pub(super) flushed: Vec<(Position, u8)>,
    pub(super) outlet: Outlet,
    pub(super) state: State,
    pub(super) deficit: i64,
    /// Timestamp of the last line that was looked at, while more are known to wait in the file.
    pub(super) waits: Option<Timestamp>,
    pub(super) reader: Option<(u32, Compressed)>,
    /// The bytes before the read position, which are compared before reading on.
    pub(super) tail: Vec<u8>,
    /// What the journal says, and whether it may say more by now.
    pub(super) journaled: Option<Mark>,
    /// The same of how far older files are read.
    pub(super) left: Option<Vec<Place>>,
    pub(super) dirty: bool,
    /// Its watermark when that was looked at last, and since when it is there.
    pub(super) stands: Option<(Position, Instant)>,
    /// Lines before the position vanished unread; told when the next one is read.
    pub(super) gap: Option<Gap>,
    /// Whether lines wait for their delivery, as the journal says.
    pub(super) backlog: Backlog,
    /// The generation that was given up last while lines of it were under way.
    pub(super) under_way: Option<u32>,
    pub(super) parser: Parser,
    pub(super) long: Option<Long>,
    pub(super) malformed: u64,
    pub(super) too_old: u64,
    /// Lines that the tenant does not want for their age, by the end of each run of them: counted when the journal has
    /// a position behind it, since another process reads what is not before that again.
    pub(super) expired: Vec<(Position, u64)>,
}

/// Bytes of a file that are at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) data: &'a [u8],
    pub(super) generation: u32,
    pub(super) offset: u64,
    /// The buffer is full: a line that fills it is taken piecewise.
    pub(super) full: bool,
    /// Nothing follows: what has no line feed is a line.
    pub(super) last: bool,
    /// When the file was written last.
    pub(super) modified: Option<i64>,
}

impl Cursor {
    pub(super) fn new(
        id: CursorId,
        container: Arc<ContainerKey>,
        pipeline: Arc<Pipeline>,
        tenant: Arc<Key>,
        max_line: u64,
    ) -> Self {
        let outlet_tenant = Arc::clone(&tenant);
        Self {
            container,
            pipeline,
            tenant,
            not_before: i64::MIN,
            not_older: i64::MIN,
            rules: String::new(),
            pod_known: false,
            position: Position::default(),
            previous: None,
            joiner: Joiner::new(max_line),
            flushed: Vec::new(),
            outlet: Outlet::new(id, outlet_tenant),
            state: State::AtEnd,
            deficit: 0,
            waits: None,
            reader: None,
            tail: Vec::new(),
            journaled: None,
            left: None,
            dirty: false,
            stands: None,
            gap: None,
            backlog: Backlog::default(),
            under_way: None,
            parser: Parser::default(),
            long: None,
            malformed: 0,
            too_old: 0,
            expired: Vec::new(),
        }
    }

    /// Takes whole lines; returns the bytes taken, and whether the rest found no room.
    pub(super) fn consume<S: Sink>(
        &mut self,
        chunk: &Chunk<'_>,
        sink: &mut S,
        now: Instant,
    ) -> (usize, bool) {
        let mut at = 0;
        // In a local: the processor waits where a value is loaded whole that was just stored in parts.
        let mut previous = self.previous;
        let mut no_room = false;
        while let Some(rest) = chunk.data.get(at..).filter(|rest| !rest.is_empty()) {
            let (line, taken, more) = match memchr::memchr(b'\n', rest) {
                Some(end) => (rest.get(..end).unwrap_or_default(), end + 1, false),
                None if chunk.last => (rest, rest.len(), false),
                None if at == 0 && chunk.full => (rest, rest.len(), true),
                None => break,
            };
            let start = chunk.offset + at as u64;
            let after = rest.get(taken..).unwrap_or_default();
            let end = start + taken as u64;
            let taken_in = self.line(line, after, chunk, start, end, more, previous, sink, now);
            let Ok(seen) = taken_in else {
                no_room = true;
                break;
            };
            previous = seen;
            at += taken;
        }
        self.previous = previous;
        (at, no_room)
    }

    /// Takes a line; returns the timestamp that a malformed one after it would get.
    #[expect(
        clippy::too_many_arguments,
        reason = "the innermost step, called from one place"
    )]
    fn line<S: Sink>(
        &mut self,
        line: &[u8],
        after: &[u8],
        chunk: &Chunk<'_>,
        start: u64,
        end: u64,
        more: bool,
        previous: Option<Timestamp>,
        sink: &mut S,
        now: Instant,
    ) -> Result<Option<Timestamp>, NoRoom> {
        let place = |offset| Position {
            generation: chunk.generation,
            offset,
        };
        let begin = Mark {
            position: place(start),
            previous,
            resume: None,
        };
        if !more && let Some(taken) = self.whole(line, begin, place(end), sink) {
            return taken.map(Some);
        }
        let mut seen = previous;
        let mut malformed = false;
        let (long, content) = if let Some(long) = self.long {
            (long, line)
        } else {
            let parsed = self.parser.parse(line);
            let (slot, timestamp, partial, content) = if let Ok(line) = parsed {
                seen = Some(line.timestamp);
                (
                    join::slot(line.stream),
                    line.timestamp,
                    line.partial,
                    line.content,
                )
            } else {
                malformed = true;
                let timestamp = previous.unwrap_or_else(|| self.first_timestamp(after, chunk.modified));
                (RAW, timestamp, false, line)
            };
            let skipped = self.is_skipped(timestamp);
            let mark = self.mark(begin, slot);
            (
                Long {
                    slot,
                    timestamp,
                    begin,
                    mark,
                    partial,
                    skipped,
                },
                content,
            )
        };
        let piece = Piece {
            slot: long.slot,
            timestamp: long.timestamp,
            start: long.begin,
            mark: long.mark,
            end: place(end),
            content,
            more: more || long.partial,
            continues: self.long.is_some(),
        };
        if !long.skipped {
            self.waits = Some(long.timestamp);
            self.flush_if_journaled(piece.slot, sink)?;
            let outlet = &mut self.outlet;
            self.joiner.feed(&piece, now, |part| outlet.emit(part, sink))?;
        } else if !more {
            if long.timestamp.seconds < self.not_before {
                self.too_old += 1;
            } else {
                self.expire(place(start), place(end));
            }
        }
        self.malformed += u64::from(malformed);
        self.long = more.then_some(long);
        self.position = place(end);
        self.dirty = true;
        if piece.more {
            // When there is no room now, the next piece or the clock tries again.
            let _later = self.flush_if_journaled(piece.slot, sink);
        }
        Ok(seen)
    }

    /// Nearly every line: well formed, whole, and no other one is open. It goes the short way to where the long
    /// one would lead.
    #[inline]
    fn whole<S: Sink>(
        &mut self,
        line: &[u8],
        begin: Mark,
        end: Position,
        sink: &mut S,
    ) -> Option<Result<Timestamp, NoRoom>> {
        if self.long.is_some() || !self.joiner.takes_whole(line.len()) {
            return None;
        }
        let line = self.parser.parse(line).ok()?;
        if line.partial || self.is_skipped(line.timestamp) {
            return None;
        }
        self.waits = Some(line.timestamp);
        let part = Part {
            slot: join::slot(line.stream),
            timestamp: line.timestamp,
            mark: begin,
            line: &[line.content],
        };
        Some(self.outlet.emit(&part, sink).map(|()| {
            self.position = end;
            self.dirty = true;
            line.timestamp
        }))
    }

    /// Where reading has to begin for the line at `begin`: where the first of the other lines began that are
    /// open there. Not further back than files live, so that lines which always overlap cannot hold them open.
    fn mark(&self, begin: Mark, slot: u8) -> Mark {
        let others = self
            .joiner
            .all()
            .filter(|(other, _)| *other != slot)
            .map(|(_, open)| open.mark);
        others
            .filter(|mark| mark.position.generation + OVERLAP >= begin.position.generation)
            .fold(begin, |first, mark| {
                if mark.position < first.position {
                    mark
                } else {
                    first
                }
            })
    }

    /// Timestamp of a line that was not taken, by its beginning; none when it is not to be sent.
    pub(super) fn next_timestamp(&mut self, begin: &[u8]) -> Option<Timestamp> {
        let line = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let parsed = self.parser.parse(line).ok().map(|line| line.timestamp);
        parsed
            .filter(|_| self.long.is_none())
            .or(self.previous)
            .filter(|timestamp| !self.is_skipped(*timestamp))
    }

    fn expire(&mut self, start: Position, end: Position) {
        match self.expired.last_mut().filter(|(last, _)| *last == start) {
            Some((last, lines)) => (*last, *lines) = (end, *lines + 1),
            None => self.expired.push((end, 1)),
        }
    }

    /// Lines before a position that the tenant does not want for their age, and that were not counted yet.
    pub(super) fn expired_before(&mut self, position: Position) -> u64 {
        let before = self.expired.extract_if(.., |(end, _)| *end <= position);
        before.map(|(_, lines)| lines).sum()
    }

    /// Whether a line is too old to be sent.
    fn is_skipped(&self, timestamp: Timestamp) -> bool {
        timestamp.seconds < self.not_before || timestamp.seconds < self.not_older
    }

    /// A timestamp for a malformed line that no other line precedes.
    fn first_timestamp(&mut self, after: &[u8], modified: Option<i64>) -> Timestamp {
        let mut lines = after.split(|byte| *byte == b'\n');
        lines
            .find_map(|line| Some(self.parser.parse(line).ok()?.timestamp))
            .unwrap_or_else(|| Timestamp {
                seconds: modified.unwrap_or(0),
                nanos: 0,
            })
    }

    /// Ends a slot's line where the journal says that a clock ended it before.
    fn flush_if_journaled<S: Sink>(&mut self, slot: u8, sink: &mut S) -> Result<(), NoRoom> {
        if self.flushed.is_empty() {
            return Ok(());
        }
        match self.joiner.open(slot) {
            Some(open) if self.flushed.contains(&(open.end, slot)) => self.flush(slot, sink),
            _ => Ok(()),
        }
    }

    /// Ends a slot's open line as it is.
    pub(super) fn flush<S: Sink>(&mut self, slot: u8, sink: &mut S) -> Result<(), NoRoom> {
        let outlet = &mut self.outlet;
        self.joiner.flush(slot, |part| outlet.emit(part, sink))?;
        self.dirty = true;
        Ok(())
    }

    /// Ends all open lines: the container that wrote them is no more.
    pub(super) fn flush_all<S: Sink>(&mut self, sink: &mut S) -> Result<(), NoRoom> {
        (0..3).try_for_each(|slot| {
            if self.joiner.open(slot).is_some() {
                self.flush(slot, sink)
            } else {
                Ok(())
            }
        })
    }

    /// Ends a line that was longer than the buffer and ends with its file.
    pub(super) fn end_long<S: Sink>(&mut self, sink: &mut S) -> Result<(), NoRoom> {
        if let Some(long) = self.long {
            if !long.partial && !long.skipped {
                self.flush(long.slot, sink)?;
            }
            self.long = None;
        }
        Ok(())
    }

    /// Everything before this is acknowledged, or needs no acknowledgement.
    pub(super) fn watermark(&self) -> Mark {
        let end = Mark {
            position: self.position,
            previous: self.previous,
            resume: None,
        };
        let end = self.long.map_or(end, |long| long.begin);
        let open = self.joiner.all().map(|(_, open)| open.mark);
        let marks = open.chain(self.outlet.outstanding.iter().map(|piece| piece.mark));
        marks.fold(end, |least, mark| {
            if mark.position <= least.position {
                mark
            } else {
                least
            }
        })
    }

    /// For how long the watermark has been where it is, as far as it was looked at.
    pub(super) fn stands_for(&mut self, now: Instant) -> Duration {
        let at = self.watermark().position;
        let stands = self.stands.filter(|(position, _)| *position == at);
        let (_, since) = *self.stands.insert(stands.unwrap_or((at, now)));
        now.duration_since(since)
    }

    /// Timestamp of the oldest line that was read or found waiting, and is not acknowledged.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let read = self.outlet.outstanding.iter().map(|piece| piece.timestamp).min();
        read.or(self.waits)
    }

    /// Whether everything that was read is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.outlet.outstanding.is_empty()
    }

    /// A piece is finished: its lines and bytes.
    pub(super) fn finish(&mut self, finished: Finished) -> Option<(u64, u64)> {
        let counts = self.outlet.finish(finished)?;
        self.dirty = true;
        Some(counts)
    }
}
