//! The end of a generation in, what is read after it out: a younger one, a copy, or what a file got late.

use std::time::{Duration, Instant};

use super::chain::Chain;
use super::fingerprint::{Fingerprint, HEAD};
use super::generation::{Generation, read_fully};
use super::position::Position;

/// How long the runtime may go on writing into a renamed file after the new one got its first line.
const SETTLE: Duration = Duration::from_secs(1);

/// What follows after a generation's last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Stay,
    /// The same content, copied before this file was cut, goes on there.
    Copy(Position),
    /// Nothing more comes here; go on with this generation, which another restart may have begun.
    Move {
        /// Its first byte.
        to: Position,
        /// The container was restarted in between.
        restarted: bool,
    },
}

impl Chain {
    /// What follows after `at`, where a generation was read to its end; `read` is what was read last. Only a younger
    /// one that has bytes ends it: after a rename the runtime writes on to the old inode until it has opened
    /// the new one, unless the container is `gone`.
    pub fn after(&mut self, at: Position, read: &[u8], gone: bool, now: Instant) -> Next {
        self.replace_late(at.generation);
        let Some(old) = self.get(at.generation) else {
            return self
                .at_or_after(at.generation)
                .map_or(Next::Stay, |found| Next::Move {
                    to: found.beginning(),
                    restarted: false,
                });
        };
        let mut younger = None;
        for found in self
            .generations
            .iter()
            .filter(|found| found.number > at.generation)
        {
            // One that was cut before it was begun may go on in a copy, which only it knows.
            let has_more = self.has_bytes(found) || found.late && found.replaced;
            if !has_more {
                continue;
            }
            if !self.is_copy(old, found, at.offset, read) {
                younger = younger.or_else(|| Some((found.beginning(), found.restart)));
                if old.replaced {
                    continue;
                }
                break;
            }
            // Of two that are both there, the one that the runtime writes to is read on.
            let is_last = old.replaced || old.name < found.name;
            if is_last && self.plain_len(found).is_none_or(|len| len >= at.offset) {
                return Next::Copy(Position {
                    generation: found.number,
                    offset: at.offset,
                });
            }
        }
        let (Some((to, restart)), Some(old)) = (younger, self.get_mut(at.generation)) else {
            return Next::Stay;
        };
        let since = *old.superseded.get_or_insert(now);
        let settled = gone || old.gz || old.replaced || !old.was_tip || old.restart != restart;
        if settled || now.duration_since(since) >= SETTLE {
            Next::Move {
                to,
                restarted: old.restart != restart,
            }
        } else {
            Next::Stay
        }
    }

    /// Whether a younger file is a copy of an older one, by its beginning and by what was read before `offset`.
    fn is_copy(&self, old: &Generation, found: &Generation, offset: u64, read: &[u8]) -> bool {
        if found.restart != old.restart || found.late || found.has_inode(old.device, old.inode) {
            return false;
        }
        let Some(head) = self.head(found) else {
            return false;
        };
        // It may have been copied when the older one was shorter than its fingerprint is by now.
        let begins_so = || {
            self.head(old)
                .is_some_and(|old| Fingerprint::of(&head).matches(&old))
        };
        if !old.print.matches(&head) && (old.replaced || !begins_so()) {
            return false;
        }
        let Some(len) = self.plain_len(found) else {
            return true;
        };
        let end = len.min(offset);
        let before = |generation: &Generation, bytes: usize| {
            let mut into = vec![0; bytes];
            let from = end.checked_sub(bytes as u64)?;
            let read = read_fully(&*self.handle(generation).ok()?, from, &mut into).ok()?;
            (read == bytes).then_some(into)
        };
        if end == offset {
            return before(found, read.len()).is_some_and(|copy| copy == read);
        }
        // Copied before the last lines were written; what was cut since cannot be compared.
        let bytes = usize::try_from(end).unwrap_or(usize::MAX).min(HEAD);
        old.replaced || before(found, bytes) == before(old, bytes)
    }

    /// What was to follow in a file that is rewritten by now does not: its new content does.
    fn replace_late(&mut self, number: u32) {
        let late = self
            .generations
            .iter()
            .filter(|late| late.number > number && late.late);
        let rewritten = late.map(|late| late.number).find(|late| {
            let start = self.get(*late).map_or(0, |late| late.start);
            self.is_shorter(*late, start) || self.began_otherwise(*late)
        });
        if let Some(rewritten) = rewritten {
            self.replace(rewritten);
        }
    }

    /// Whether a generation is what a file got after it had been left.
    pub fn is_late(&self, number: u32) -> bool {
        self.get(number).is_some_and(|generation| generation.late)
    }

    /// A generation was left at its end, `read_to`, for a younger one. What is written to it later is read too.
    pub fn leave(&mut self, number: u32, read_to: u64, to: u32) {
        let late = self.is_late(to);
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
        let Some(old) = self.get_mut(number).filter(|old| !old.gz && !old.replaced) else {
            return;
        };
        let end = *old.end.get_or_insert(read_to);
        // Left for what was late in an older file, the one that the runtime writes to is read on behind that.
        if late && old.name.as_ref().is_some_and(|name| name.rotated.is_none()) {
            self.go_on(at, end);
        }
    }

    /// A generation was left for its copy. What was late in older files, and lies between, is read behind it.
    pub fn leave_for_copy(&mut self, number: u32, copy: u32) {
        for at in self.index(number)..self.index(copy) {
            if let Some(late) = self.generations.get(at).filter(|between| between.late) {
                self.go_on(at, late.start);
            }
        }
    }

    /// Makes a generation of what a file got after it had been left, if its length says that it did.
    pub(super) fn add_late(&mut self, at: usize, len: u64) {
        let end = self
            .generations
            .get(at)
            .filter(|left| !left.replaced)
            .and_then(|left| left.end);
        if let Some(end) = end.filter(|end| *end < len) {
            tracing::debug!(
                folder = self.folder,
                bytes = len - end,
                "a file grew after it had been left"
            );
            self.go_on(at, end);
        }
    }

    fn go_on(&mut self, at: usize, from: u64) {
        let Some(left) = self.generations.get(at) else {
            return;
        };
        let is_same = |found: &Generation| found.has_inode(left.device, left.inode);
        if self.generations.iter().rposition(is_same) == Some(at) {
            let mut late = left.again(0, from);
            late.number = self.next_number();
            self.generations.push(late);
        }
    }
}
