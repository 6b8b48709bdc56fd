//! Positions in, places that another process finds again out, and back.

use super::chain::Chain;
use super::fingerprint::Fingerprint;
use super::generation::{Generation, read_fully};
use super::position::Position;

/// A generation as it is known across processes, and a place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The container's restart count.
    pub restart: u32,
    /// The content's identity.
    pub print: Fingerprint,
    /// Uncompressed bytes from its beginning.
    pub offset: u64,
}

/// What is known of a place whose content is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The oldest surviving bytes behind it.
    pub next: Position,
    /// Its file is there, and ends before it: somebody cut it, or the node lost power before all of it was on the disk.
    pub cut: bool,
}

impl Chain {
    /// The file that was read to its end before a generation was begun: what is older than that is read as well.
    /// None where what was read before that one may go on behind it.
    pub fn before(&self, number: u32) -> Fingerprint {
        let (older, _) = self.generations.split_at(self.index(number));
        let is_read = |found: &&Generation| found.is_original() && found.print.len > 0;
        let begun = self.get(number).filter(|found| !found.late);
        let before = begun.and_then(|_| older.iter().rfind(is_read));
        before.map(|found| found.print).unwrap_or_default()
    }

    /// A position as it can be found again by another process.
    pub fn place(&mut self, position: Position) -> Option<Place> {
        // What a file got that was empty is nothing that was read.
        let is_known = |found: &Generation| position.offset > 0 || found.print.len > 0;
        if self.get(position.generation).is_some_and(is_known) {
            self.refresh(self.index(position.generation));
        }
        let generation = self.get(position.generation)?;
        Some(Place {
            restart: generation.restart,
            print: generation.print,
            offset: position.offset,
        })
    }

    /// Where a place is now. Where its content is gone the next is what follows after the file `before` it, if that one
    /// is left.
    pub fn find(&self, place: &Place, before: Fingerprint) -> Result<Position, Gone> {
        let is_it = |found: &&Generation| {
            found.restart == place.restart
                && !found.replaced
                && !found.copy
                && found.beginning().offset <= place.offset
                && found.end.is_none_or(|end| end >= place.offset)
                && self.head(found).is_some_and(|head| place.print.matches(&head))
        };
        let mut cut = None;
        for found in self.generations.iter().filter(is_it) {
            if self.plain_len(found).is_none_or(|len| len >= place.offset) {
                return Ok(Position {
                    generation: found.number,
                    offset: place.offset,
                });
            }
            cut.get_or_insert_with(|| found.beginning());
        }
        let is_before = |found: &Generation| {
            found.is_original()
                && found.restart <= place.restart
                && self.head(found).is_some_and(|head| before.names(&head))
        };
        let read = self
            .generations
            .iter()
            .rposition(is_before)
            .map_or(0, |at| at + 1);
        let survives = |found: &&Generation| found.restart >= place.restart && !found.replaced;
        let survivor = self.generations.iter().skip(read).find(survives);
        let next = cut.or_else(|| survivor.map(Generation::beginning));
        Err(Gone {
            next: next.unwrap_or_else(|| self.end_of_all()),
            cut: cut.is_some(),
        })
    }

    /// Where a place is now, if its content is there.
    pub fn locate(&self, place: &Place) -> Option<Position> {
        self.find(place, Fingerprint::default()).ok()
    }

    /// The beginning of what there is. A copy of what has no name any more is for those alone who had not got
    /// it when it was made.
    pub fn beginning(&self) -> Position {
        let mut all = self.generations.iter();
        let first = all.find(|found| found.spilled.is_none() || found.name.is_some());
        first.map_or_else(|| self.end_of_all(), Generation::beginning)
    }

    /// Behind all there is.
    fn end_of_all(&self) -> Position {
        Position {
            generation: self.next,
            offset: 0,
        }
    }

    /// The end of what there is, after its last whole line. An empty file has no identity to be found again by,
    /// so it is the end of the one before.
    pub fn end(&self) -> Position {
        let with_bytes = |generation: &&Generation| self.has_bytes(generation);
        let Some(last) = self.generations.iter().rev().find(with_bytes) else {
            return self.beginning();
        };
        if let Some(spilled) = &last.spilled {
            return Position {
                generation: last.number,
                offset: spilled.end(),
            };
        }
        let Some(len) = self.plain_len(last) else {
            // Whatever its length is without compression: behind it. Of a plain one that cannot be opened just now, all.
            return Position {
                generation: last.number,
                offset: if last.gz { u64::MAX } else { last.start },
            };
        };
        let mut tail = vec![0; 64 << 10];
        let from = len.saturating_sub(tail.len() as u64);
        let read = self
            .handle(last)
            .and_then(|file| read_fully(&file, from, &mut tail))
            .unwrap_or(0);
        let whole = tail.get(..read).and_then(|tail| memchr::memrchr(b'\n', tail));
        Position {
            generation: last.number,
            offset: whole.map_or(from, |at| from + at as u64 + 1),
        }
    }
}
