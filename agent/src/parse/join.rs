//! Pieces of lines in, whole lines out, each no longer than the tenant takes.
//!
//! Standard output and error are joined apart, since their pieces interleave. A line that is too long is
//! cut into parts, each with a mark, so that Loki does not take equal parts for one. Where it is cut
//! depends only on the bytes, so a replay sends the same parts.

use std::time::Instant;

use sluice_engine::cri::{Stream, Timestamp};

use crate::tail::position::{Mark, Position, Resume};

/// Open lines of a cursor: standard output, standard error, and lines not in the runtime's format.
pub const SLOTS: usize = 3;
/// The slot of lines not in the runtime's format.
pub const RAW: u8 = 2;
/// Bytes kept free for a part's mark.
const MARK: usize = 32;

/// The stream's buffer has no room: the same piece must be fed again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// The slot of a stream.
pub fn slot(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// What one line of a file, or a buffer's worth of a very long one, adds.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Which open line it belongs to.
    pub slot: u8,
    /// When the runtime read it.
    pub timestamp: Timestamp,
    /// Where its line begins in the file.
    pub start: Mark,
    /// Where reading would have to begin to make it again: before `start` when another slot's line was
    /// open there, since a replay from its middle would take its rest for a line.
    pub mark: Mark,
    /// Where it ends.
    pub end: Position,
    /// Its bytes.
    pub content: &'a [u8],
    /// More of the same line follows.
    pub more: bool,
    /// It continues the same line of the file as the last piece.
    pub continues: bool,
}

/// A line, or a part of one that was cut.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Where it came from.
    pub slot: u8,
    /// When its first piece was read.
    pub timestamp: Timestamp,
    /// Where reading would have to begin to make it again.
    pub mark: Mark,
    /// Its bytes, to be joined.
    pub line: &'a [&'a [u8]],
}

/// A line whose end was not read yet.
#[derive(Clone, Debug)]
pub struct Open {
    /// Where reading would have to begin to make it again.
    pub mark: Mark,
    /// End of its last piece.
    pub end: Position,
    /// When its last piece was read, by the agent's clock.
    pub since: Instant,
    part: u32,
    timestamp: Timestamp,
    content: Vec<u8>,
}

/// The open lines of one cursor.
#[derive(Clone, Debug)]
pub struct Joiner {
    slots: [Option<Open>; SLOTS],
    max_line: usize,
    /// The limit from the next line on.
    next_max_line: usize,
    /// Parts of the piece at hand that were taken before there was no room, and where that piece ends.
    taken: u32,
    cutting: Position,
}

impl Joiner {
    /// Joins into lines of at most so many bytes.
    pub fn new(max_line: u64) -> Self {
        let mut joiner = Self {
            slots: [None, None, None],
            max_line: 0,
            next_max_line: 0,
            taken: 0,
            cutting: Position::default(),
        };
        joiner.limit(max_line);
        joiner.max_line = joiner.next_max_line;
        joiner
    }

    /// Changes the limit, once no line is open: parts of one that were taken must not be cut elsewhere.
    pub fn limit(&mut self, max_line: u64) {
        self.next_max_line = usize::try_from(max_line).unwrap_or(usize::MAX).max(4 * MARK);
    }

    /// Forgets the open lines.
    pub fn forget(&mut self) {
        self.slots = [None, None, None];
        self.taken = 0;
    }

    /// Goes on with a line whose beginning was sent before a restart.
    pub fn resume(&mut self, mark: Mark, resume: Resume, now: Instant) {
        if let Some(slot) = self.slots.get_mut(usize::from(resume.slot)) {
            *slot = Some(Open {
                mark,
                end: mark.position,
                since: now,
                part: resume.part,
                timestamp: resume.timestamp,
                content: Vec::new(),
            });
        }
    }

    /// Whether a whole line of so many bytes goes out as it is, since no line is open.
    pub fn takes_whole(&self, len: usize) -> bool {
        // A new limit comes into force where a line is fed.
        len <= self.max_line && self.max_line == self.next_max_line && self.slots.iter().all(Option::is_none)
    }

    /// The open line of a slot.
    pub fn open(&self, slot: u8) -> Option<&Open> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    /// All open lines with their slots.
    pub fn all(&self) -> impl Iterator<Item = (u8, &Open)> {
        (0_u8..)
            .zip(&self.slots)
            .filter_map(|(slot, open)| Some((slot, open.as_ref()?)))
    }

    /// Adds a piece and emits what it completes. On [`NoRoom`] nothing changed but the count of the parts
    /// that were taken: feed the same piece again.
    pub fn feed(
        &mut self,
        piece: &Piece<'_>,
        now: Instant,
        mut emit: impl FnMut(&Part<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        if self.next_max_line != self.max_line && self.taken == 0 && self.slots.iter().all(Option::is_none) {
            self.max_line = self.next_max_line;
        }
        let Some(slot) = self.slots.get_mut(usize::from(piece.slot)) else {
            return Ok(());
        };
        let Piece {
            slot: number,
            content,
            more,
            ..
        } = *piece;
        let (open, part, timestamp, mark) = match slot {
            Some(open) => (open.content.as_slice(), open.part, open.timestamp, open.mark),
            None if !more && content.len() <= self.max_line => {
                return emit(&Part {
                    slot: number,
                    timestamp: piece.timestamp,
                    mark: piece.mark,
                    line: &[content],
                });
            }
            None => (&[][..], 1, piece.timestamp, piece.mark),
        };
        let total = open.len() + content.len();
        let room = self.max_line - MARK;
        if !more && part == 1 && total <= self.max_line {
            emit(&Part {
                slot: number,
                timestamp,
                mark,
                line: &[open, content],
            })?;
            *slot = None;
            return Ok(());
        }
        if more && total <= room {
            let open = slot.get_or_insert_with(|| Open {
                mark,
                end: piece.end,
                since: now,
                part,
                timestamp,
                content: Vec::new(),
            });
            open.content.extend_from_slice(content);
            (open.end, open.since) = (piece.end, now);
            return Ok(());
        }

        self.cut(piece, now, emit)
    }

    /// Adds a piece that makes its line too long, or ends one that is, and emits the parts.
    fn cut(
        &mut self,
        piece: &Piece<'_>,
        now: Instant,
        mut emit: impl FnMut(&Part<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        // A file that was rewritten meanwhile holds another piece.
        if std::mem::replace(&mut self.cutting, piece.end) != piece.end {
            self.taken = 0;
        }
        let Some(slot) = self.slots.get_mut(usize::from(piece.slot)) else {
            return Ok(());
        };
        let number = piece.slot;
        let (open, mut part, timestamp, mut mark) = match slot {
            Some(open) => (open.content.as_slice(), open.part, open.timestamp, open.mark),
            None => (&[][..], 1, piece.timestamp, piece.mark),
        };
        let room = self.max_line - MARK;
        let (taken, mut sequence) = (&mut self.taken, 0);
        let mut put = |part: u32, mark: Mark, first: &[u8], second: &[u8]| {
            if sequence >= *taken {
                let suffix = suffix(part);
                emit(&Part {
                    slot: number,
                    timestamp,
                    mark,
                    line: &[first, second, suffix.as_bytes()],
                })?;
                *taken += 1;
            }
            sequence += 1;
            Ok(())
        };
        let mut rest = piece.content;
        if open.len() + rest.len() <= room {
            // The last part, and what is open fits into it.
            put(part, mark, open, rest)?;
            rest = &[];
        } else {
            if !open.is_empty() {
                put(part, mark, open, &[])?;
                part += 1;
            }
            if !piece.continues {
                // A line without end must not hold the position back, whatever else is open.
                let resume = Some(Resume {
                    slot: number,
                    part,
                    timestamp,
                });
                mark = if part > 1 {
                    Mark {
                        resume,
                        ..piece.start
                    }
                } else {
                    piece.mark
                };
            }
            while rest.len() > room {
                let (head, tail) = rest.split_at(boundary(rest, room));
                put(part, mark, head, &[])?;
                part += 1;
                rest = tail;
            }
            if !piece.more && !rest.is_empty() {
                put(part, mark, rest, &[])?;
            }
        }
        self.taken = 0;
        let open = || Open {
            mark,
            end: piece.end,
            since: now,
            part,
            timestamp,
            content: rest.to_vec(),
        };
        *slot = piece.more.then(open);
        Ok(())
    }

    /// Ends a slot's open line as it is.
    pub fn flush(
        &mut self,
        slot: u8,
        mut emit: impl FnMut(&Part<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let Some(slot_open) = self.slots.get_mut(usize::from(slot)) else {
            return Ok(());
        };
        if let Some(open) = slot_open.as_ref().filter(|open| !open.content.is_empty()) {
            let suffix = if open.part > 1 {
                suffix(open.part)
            } else {
                String::new()
            };
            let line = [open.content.as_slice(), suffix.as_bytes()];
            emit(&Part {
                slot,
                timestamp: open.timestamp,
                mark: open.mark,
                line: &line,
            })?;
        }
        *slot_open = None;
        Ok(())
    }
}

fn suffix(part: u32) -> String {
    format!(" [sluice: part {part}]")
}

/// Where to cut: not within a character, if the bytes are text.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let within = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    (at.saturating_sub(3)..=at)
        .rev()
        .find(|at| !within(*at))
        .filter(|at| *at > 0)
        .unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: u64) -> Mark {
        Mark {
            position: Position {
                generation: 1,
                offset,
            },
            previous: None,
            resume: None,
        }
    }

    fn piece(slot: u8, offset: u64, content: &[u8], more: bool) -> Piece<'_> {
        let end = Position {
            generation: 1,
            offset: offset + 100,
        };
        let timestamp = Timestamp {
            seconds: i64::try_from(offset).unwrap(),
            nanos: 0,
        };
        Piece {
            slot,
            timestamp,
            start: mark(offset),
            mark: mark(offset),
            end,
            content,
            more,
            continues: false,
        }
    }

    /// Feeds with room for `room` parts at a time.
    fn join(joiner: &mut Joiner, room: usize, pieces: &[Piece<'_>]) -> Vec<(u8, i64, Mark, String)> {
        let mut out = Vec::new();
        let now = Instant::now();
        for piece in pieces {
            loop {
                let mut left = room;
                let fed = joiner.feed(piece, now, |part| {
                    left = left.checked_sub(1).ok_or(NoRoom)?;
                    let line = String::from_utf8(part.line.concat()).unwrap();
                    out.push((part.slot, part.timestamp.seconds, part.mark, line));
                    Ok(())
                });
                if fed.is_ok() {
                    break;
                }
            }
        }
        out
    }

    #[test]
    fn streams_are_joined_apart() {
        let pieces = [
            piece(0, 0, b"out", true),
            piece(1, 100, b"err", false),
            piece(0, 200, b"put", false),
        ];
        let lines = join(&mut Joiner::new(1024), 1, &pieces);
        assert_eq!(
            lines,
            [
                (1, 100, mark(100), "err".into()),
                (0, 0, mark(0), "output".into())
            ]
        );
    }

    #[test]
    fn long_lines_are_cut_alike_however_often_there_is_no_room() {
        let text = "é".repeat(2_000);
        let pieces = [
            piece(0, 0, text.as_bytes(), true),
            piece(0, 100, b"x", true),
            piece(0, 200, text.as_bytes(), false),
        ];
        let whole = join(&mut Joiner::new(1024), usize::MAX, &pieces);
        assert_eq!(whole, join(&mut Joiner::new(1024), 1, &pieces));
        assert!(whole.len() >= 8);
        let mut all = String::new();
        for (index, (_, timestamp, _, line)) in whole.iter().enumerate() {
            assert!(line.len() <= 1024 && *timestamp == 0);
            all += line
                .strip_suffix(&format!(" [sluice: part {}]", index + 1))
                .unwrap();
        }
        assert_eq!(all, format!("{text}x{text}"));
    }

    #[test]
    fn a_replay_from_within_a_long_line_gives_the_same_parts() {
        let text = "0123456789".repeat(90);
        let pieces: Vec<_> = (0..20)
            .map(|n| piece(0, n * 100, text.as_bytes(), n < 19))
            .collect();
        let whole = join(&mut Joiner::new(1024), usize::MAX, &pieces);
        for (index, (_, _, from, _)) in whole.iter().enumerate().skip(1) {
            let mut joiner = Joiner::new(1024);
            joiner.resume(*from, from.resume.unwrap(), Instant::now());
            let at = usize::try_from(from.position.offset / 100).unwrap();
            assert_eq!(join(&mut joiner, usize::MAX, &pieces[at..]), whole[index..]);
        }
    }

    #[test]
    fn a_flush_ends_what_is_open() {
        let mut joiner = Joiner::new(1024);
        join(&mut joiner, 1, &[piece(0, 0, b"prompt> ", true)]);
        assert_eq!(joiner.flush(0, |_| Err(NoRoom)), Err(NoRoom));
        let mut line = Vec::new();
        joiner
            .flush(0, |part| {
                line = part.line.concat();
                Ok(())
            })
            .unwrap();
        assert_eq!(line, b"prompt> ");
        assert!(joiner.open(0).is_none());
    }

    #[test]
    fn a_new_limit_is_not_passed_by_on_the_short_way() {
        let mut joiner = Joiner::new(4096);
        assert!(joiner.takes_whole(2000));
        joiner.limit(1024);
        assert!(!joiner.takes_whole(10));
    }
}
