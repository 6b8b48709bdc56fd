//! The end of a generation in, what is read after it out: a younger one, a copy, or what a file got late.

use std::time::{Duration, Instant};

use super::chain::Chain;
use super::generation::Generation;
use super::kept::Room;
use super::position::Position;

/// How long the runtime may go on writing into a renamed file after the new one got its first line.
const SETTLE: Duration = Duration::from_millis(500);

/// What follows after a generation's last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Stay,
    /// A younger one, once the runtime has had time to open it: looked at soon, whether anything is written or not.
    Settle,
    /// Nothing more comes here; go on with this generation, which another restart may have begun.
    Move {
        /// Its first byte.
        to: Position,
        /// The container was restarted in between.
        restarted: bool,
    },
}

impl Chain {
    /// What follows after `at`, where a generation was read to its end. Only a younger
    /// one that has bytes ends it: after a rename the runtime writes on to the old inode until it has opened
    /// the new one, unless the container is `gone`.
    pub fn after(&mut self, at: Position, gone: bool, now: Instant) -> Next {
        if !self.replace_cut(at.generation, gone) {
            return Next::Stay;
        }
        if self.get(at.generation).is_none() {
            return self
                .at_or_after(at.generation)
                .map_or(Next::Stay, |found| Next::Move {
                    to: found.beginning(),
                    restarted: false,
                });
        }
        let next = self.following(at.generation);
        let next = next.map(|found| (found.beginning(), found.restart));
        let (Some((to, restart)), Some(old)) = (next, self.get_mut(at.generation)) else {
            return Next::Stay;
        };
        let since = *old.superseded.get_or_insert(now);
        let fixed = old.gz || old.spilled.is_some();
        let settled = gone || fixed || old.replaced || !old.was_tip || old.restart != restart;
        if settled || now.duration_since(since) >= SETTLE {
            Next::Move {
                to,
                restarted: old.restart != restart,
            }
        } else {
            Next::Settle
        }
    }

    /// The generation that is read after this one, once that is read to its end.
    fn following(&self, number: u32) -> Option<&Generation> {
        let mut younger = self.generations.iter().filter(|found| found.number > number);
        // What was late is over at once: a position in it says nothing of the files that were read before.
        let is_over = self.is_late(number) && !self.is_written(number);
        younger.find(|found| {
            // One that was cut before it was read is said to be when it is left.
            let was_cut = found.replaced && found.print.len > 0;
            self.has_bytes(found) || was_cut || (is_over && found.late && !found.replaced)
        })
    }

    /// Whether what follows after a generation is there already, and may end a line that began in it.
    pub fn goes_on(&self, number: u32) -> bool {
        let next = self.following(number).map(|next| next.number);
        next.is_some_and(|next| !self.is_older(next, number))
    }

    /// What was to follow in a file that is cut or rewritten by now does not: a copy of it may, and its new content
    /// does. False where the folder has to be listed first.
    fn replace_cut(&mut self, number: u32, gone: bool) -> bool {
        while let Some(cut) = self.cut_after(number) {
            // What was copied before it was cut is older than what it holds now.
            if !self.suspect(cut) && !gone {
                self.wants_listing = true;
                return false;
            }
            self.replace(cut);
        }
        true
    }

    /// The first younger file that does not hold any more what is to be read next.
    fn cut_after(&self, number: u32) -> Option<u32> {
        let mut passed = true;
        for found in self.generations.iter().filter(|found| found.number > number) {
            let is_cut = (passed || found.late) && self.is_shorter(found.number, found.start);
            if is_cut || found.late && self.began_otherwise(found.number) {
                return Some(found.number);
            }
            passed &= found.late || !self.has_bytes(found);
        }
        None
    }

    /// Whether the runtime seems to write to a generation's file, which may have been renamed just now.
    pub(super) fn is_written(&self, number: u32) -> bool {
        let Some(found) = self.get(number) else {
            return false;
        };
        let is_same = |other: &Generation| other.has_inode(found.device, found.inode);
        let first = self.generations.iter().position(is_same);
        let mut younger = self.generations.iter().skip(first.unwrap_or_default() + 1);
        let mut is_newest = || !younger.any(|younger| !younger.late && self.has_bytes(younger));
        found.is_tip() || (found.was_tip && is_newest())
    }

    /// Whether a generation is what a file got after it had been left.
    pub fn is_late(&self, number: u32) -> bool {
        self.get(number).is_some_and(|generation| generation.late)
    }

    /// Whether a generation was begun before one that is read before it: it is what a file got late, or that one has the
    /// tip's name, and its order was lost with a clock that was set back.
    pub fn is_older(&self, number: u32, than: u32) -> bool {
        let (Some(found), Some(than)) = (self.get(number), self.get(than)) else {
            return false;
        };
        found.late || than.is_tip() && than.restart == found.restart
    }

    /// Whether behind a generation there is anything that a file got late.
    pub fn is_late_after(&self, number: u32) -> bool {
        let mut younger = self.generations.iter().filter(|found| found.number > number);
        younger.any(|found| found.late && self.has_bytes(found))
    }

    /// A generation was left at its end, `read_to`, for a younger one. What is written to it later is read too.
    pub fn leave(&mut self, number: u32, read_to: u64, to: u32) {
        let older = self.is_older(to, number);
        let at = self.index(number);
        // Empty ones in between are passed over, and may get something later as well.
        let between = self
            .generations
            .iter()
            .filter(|found| found.number > number && found.number < to);
        let is_empty = |found: &&Generation| !found.gz && !found.replaced && !self.has_bytes(found);
        let empty: Vec<u32> = between.filter(is_empty).map(|found| found.number).collect();
        for passed in empty {
            if let Some(passed) = self.get_mut(passed) {
                passed.end.get_or_insert(passed.start);
            }
        }
        let is_written = self.is_written(number);
        if let Some(old) = self.get_mut(number).filter(|old| !old.gz && !old.replaced) {
            let end = *old.end.get_or_insert(read_to);
            // Left for something older, the one that the runtime writes to is read on behind that.
            if older && is_written {
                self.go_on(at, end, Room::Last);
            }
        }
        self.read_tip_on();
    }

    /// The file that the runtime writes to is read on behind all there is, if it was left: passed over while it was empty,
    /// or before it got its name back. Nobody who is behind it would see that it grows.
    pub(super) fn read_tip_on(&mut self) {
        let last = self.generations.iter().map(|found| found.restart).max();
        let is_left = |found: &Generation| {
            found.is_tip() && Some(found.restart) == last && found.end.is_some() && !found.copy
        };
        let left = self.generations.iter().rposition(is_left);
        let end = left.and_then(|at| self.generations.get(at)?.end);
        if let Some((at, end)) = left.zip(end) {
            self.go_on(at, end, Room::Last);
        }
    }

    /// Makes a generation of what a file got after it had been left, if its length says that it did;
    /// whether there is one.
    pub(super) fn add_late(&mut self, at: usize, len: u64) -> bool {
        let end = self
            .generations
            .get(at)
            .filter(|left| !left.replaced && !left.copy)
            .and_then(|left| left.end);
        let Some(end) = end.filter(|end| *end < len) else {
            return false;
        };
        tracing::debug!(
            folder = self.folder,
            bytes = len - end,
            "a file grew after it had been left"
        );
        self.go_on(at, end, Room::Last)
    }

    /// The next younger generation of the same file.
    pub(super) fn next_of_file(&self, at: usize) -> Option<&Generation> {
        let found = self.generations.get(at)?;
        let mut younger = self.generations.iter().skip(at + 1);
        younger.find(|other| other.has_inode(found.device, found.inode))
    }

    /// Has a file read on from there, at that place; false where a younger generation of it does so already.
    pub(super) fn go_on(&mut self, at: usize, from: u64, room: Room) -> bool {
        let Some(left) = self.generations.get(at) else {
            return false;
        };
        // One that was rewritten is none of its own.
        let is_last = !left.replaced && self.next_of_file(at).is_none();
        if is_last {
            let mut late = left.again(0, from);
            let place = match room {
                Room::Before(place, free) => {
                    late.number = free;
                    place
                }
                Room::Last | Room::None => {
                    late.number = self.next_number();
                    self.generations.len()
                }
            };
            self.generations.insert(place, late);
        }
        is_last
    }
}
