//! Older files that a reader has passed in, how far it read them out, so that another process reads what they got since.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chain::Chain;
use super::compressed::may_hold_more;
use super::generation::{Generation, Handle};
use super::kept::Room;
use super::place::Place;
use crate::spill::record::Head;
use crate::spill::store::Spilled;

/// So many files are remembered of one container at most: kubelet keeps ten by default, of two restarts.
const MOST: usize = 256;
/// Stands for the end of a file whose length is not known, and that does not grow.
const ALL: u64 = u64::MAX;

impl Chain {
    /// How far the files are read that are there, by whoever has passed all that is older than a generation.
    pub fn left_below(&self, number: u32) -> Vec<Place> {
        let mut left: BTreeMap<(u64, u64), Place> = BTreeMap::new();
        let from = self.index(number).saturating_sub(MOST);
        let is_there = |found: &&Generation| !found.copy && !found.replaced;
        for found in self.generations.iter().skip(from).filter(is_there) {
            let is_passed = found.number < number;
            let offset = if is_passed {
                found.end.or_else(|| self.plain_len(found)).unwrap_or(ALL)
            } else {
                found.start
            };
            let same = left.entry((found.device, found.inode)).or_insert(Place {
                restart: found.restart,
                print: found.print,
                offset,
            });
            // Another reader may have passed what this one has not.
            let further = if is_passed { u64::max } else { u64::min };
            same.offset = further(same.offset, offset);
            // Copies that were made early know but its first bytes.
            let is_better = found.print.len < same.print.len || same.print.len == 0;
            if is_better && found.print.len > 0 {
                same.print = found.print;
            }
        }
        // What is not read is not to be known, and an empty file is like any other.
        left.retain(|_, place| place.offset > 0 && place.print.len > 0);
        left.into_values().take(MOST).collect()
    }

    /// Who begins at `number` has left the older files: where `left` says, which knows all that were read, or at their
    /// ends. What they hold behind that is read last. A copy of which nothing is known is read if it was made for who
    /// begins.
    pub fn leave_below(&mut self, number: u32, left: Option<&[Place]>, is_output: impl Fn(&Head) -> bool) {
        let is_read = |found: &&Generation| !found.copy && !found.replaced;
        let older = self.generations.iter().take(self.index(number)).filter(is_read);
        for older in older.map(|found| found.number).collect::<Vec<_>>() {
            let Some(found) = self.get(older) else {
                continue;
            };
            let known = left.and_then(|left| self.left_at(found, left));
            let is_others = |copy: &Arc<Spilled>| !is_output(copy.head());
            let is_read = known == Some(0) && found.spilled.as_ref().is_some_and(is_others);
            if let Some(from) = known.filter(|_| !is_read) {
                let from = from.max(found.beginning().offset);
                self.read_on(older, from, number);
                continue;
            }
            if found.end.is_none() {
                let len = self.plain_len(found);
                if let Some(found) = self.get_mut(older) {
                    found.end = len;
                }
            }
        }
    }

    /// Where a file was left; at its beginning, if it is none of those that were. None while it cannot be read.
    fn left_at(&self, found: &Generation, left: &[Place]) -> Option<u64> {
        let head = self.head(found)?;
        let is_it = |place: &&Place| place.restart == found.restart && place.print.matches(&head);
        let known = left.iter().filter(is_it).map(|place| place.offset).min();
        Some(known.unwrap_or(0))
    }

    /// Has an older file read from there on, as far as nobody who begins at `number` reads that anyway.
    fn read_on(&mut self, older: u32, from: u64, number: u32) {
        let at = self.index(older);
        let Some(found) = self.get(older) else {
            return;
        };
        let next = self.next_of_file(at);
        let Some(end) = found.end.or_else(|| Some(next?.start)) else {
            let len = self.plain_len(found);
            let has_more = len.map_or_else(
                || {
                    let may_hold = |file: Handle<'_>| may_hold_more(&file, from);
                    found.gz && from != ALL && self.handle(found).is_ok_and(may_hold)
                },
                |len| len > from,
            );
            if let Some(found) = self.get_mut(older).filter(|_| has_more || len.is_some()) {
                found.end = Some(from.min(len.unwrap_or(from)));
            }
            if has_more {
                self.go_on(at, from, Room::Last);
            }
            return;
        };
        // Otherwise another reader has come further than this one.
        if from >= end {
            return;
        }
        let mut late = found.again(0, from);
        let is_next = |next: &Generation| next.number > number && next.has_inode(found.device, found.inode);
        let next = self.generations.iter().position(is_next);
        let of = |at: usize| self.generations.get(at).map(|found| found.number);
        let room = next.filter(|next| {
            of(next - 1)
                .zip(of(*next))
                .is_some_and(|(before, after)| before + 1 < after)
        });
        if let Some(next) = room {
            late.number = of(next).unwrap_or_default() - 1;
            late.end = Some(end);
            self.generations.insert(next, late);
        } else {
            late.number = self.next_number();
            self.generations.push(late);
        }
    }
}
