//! A chain whose files vanish in, what has to be copied before they do out, and the copies in their place.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::chain::Chain;
use super::fingerprint::Fingerprint;
use super::generation::{Generation, Handle, NO_DEVICE};
use super::position::Position;
use crate::discover::beneath::{Facts, OpenError};
use crate::discover::names::LogName;
use crate::spill::record::Head;
use crate::spill::store::Spilled;

/// Number of the first copy of an earlier process: what is older and still has its name finds room before it.
const FIRST_COPY: u32 = 1 << 20;

/// Where in the chain a new file belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Behind all there is.
    Last,
    /// At this index, with this number: before copies of later restarts.
    Before(usize, u32),
    /// Before those, where no number is left.
    None,
}

/// Why a generation's bytes are at risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Danger {
    /// The container's folder is gone.
    pub gone: bool,
    /// Its tenant does not take what is read, so kubelet may delete the oldest compressed file next.
    pub stuck: bool,
}

impl Chain {
    /// A copy that an earlier process made, after those before it.
    pub fn attach(&mut self, spilled: Spilled) {
        self.next = self.next.max(FIRST_COPY);
        let head = spilled.head();
        let is_same = |older: &Generation| {
            let end = older.spilled.as_deref().map_or(u64::MAX, Spilled::end);
            older.restart == head.restart && older.print.matches(&head.begin) && end <= head.base
        };
        // Older than every file that still has a name.
        let name = LogName {
            restart: head.restart,
            rotated: Some(String::new()),
            gz: false,
        };
        let gone = Facts {
            device: NO_DEVICE,
            inode: 0,
            size: 0,
            link: false,
        };
        let mut copy = Generation::new(0, name, &gone);
        copy.start = head.base;
        let same = self.generations.iter().find(|older| is_same(older));
        let same = same.map(|older| (older.device, older.inode));
        copy.late = same.is_some();
        copy.refresh(&head.begin);
        // One that holds its file from the beginning on is nothing that came late, whenever it was made.
        let at = match self.place_for(head.restart) {
            Room::Before(at, free) if head.base == 0 => {
                copy.number = free;
                at
            }
            Room::Before(..) | Room::Last | Room::None => {
                copy.number = self.next_number();
                self.generations.len()
            }
        };
        copy.spilled = Some(Arc::new(spilled));
        copy.detach();
        (copy.device, copy.inode) = same.unwrap_or_else(|| (NO_DEVICE, copy.number.into()));
        self.generations.insert(at, copy);
    }

    /// Where in the chain a file of this restart belongs that is new: the last, but before the copies of later
    /// restarts, of which an earlier process may have had it.
    pub(super) fn place_for(&self, restart: u32) -> Room {
        let is_later = |found: &Generation| found.spilled.is_some() && found.restart > restart;
        let Some(at) = self.generations.iter().position(is_later) else {
            return Room::Last;
        };
        let before = at.checked_sub(1).and_then(|before| self.generations.get(before));
        let number = before.map_or(1, |before| before.number + 1);
        let is_free = self
            .generations
            .get(at)
            .is_some_and(|after| number < after.number);
        if is_free {
            Room::Before(at, number)
        } else {
            Room::None
        }
    }

    /// Where a copy begins that was made for this output, the oldest one: positions of it may be lost.
    pub fn spilled_for(&self, is_output: impl Fn(&Head) -> bool) -> Option<Position> {
        let copies = self.generations.iter().filter(|generation| {
            generation
                .spilled
                .as_ref()
                .is_some_and(|spilled| is_output(spilled.head()))
        });
        copies.map(Generation::beginning).next()
    }

    /// Whether there are copies.
    pub fn has_spilled(&self) -> bool {
        self.generations
            .iter()
            .any(|generation| generation.spilled.is_some())
    }

    /// Bytes that copies take on the disk.
    pub fn spilled_bytes(&self) -> u64 {
        let copies = self.generations.iter().map(|found| found.spilled.as_ref());
        let mut copies: Vec<_> = copies.flatten().collect();
        copies.sort_by_key(|copy| Arc::as_ptr(copy));
        copies.dedup_by(|one, other| Arc::ptr_eq(one, other));
        copies.into_iter().map(|copy| copy.bytes()).sum()
    }

    /// Whether a generation was read from a copy that ends before its file did.
    pub fn is_damaged(&self, number: u32) -> bool {
        let copy = self.get(number).and_then(|found| found.spilled.as_deref());
        copy.is_some_and(Spilled::is_damaged)
    }

    /// The generation that has to be copied now: the oldest at or above `oldest`, or one before it that needs no copy and
    /// has its name. Copies are always older than what has none, so that another process finds the order again.
    pub fn at_risk(&mut self, oldest: u32, danger: Danger) -> Option<u32> {
        self.copying = self.to_copy(oldest, danger);
        self.copying
    }

    fn to_copy(&self, oldest: u32, danger: Danger) -> Option<u32> {
        let is_vanishing = |(at, found): &(usize, &Generation)| self.is_vanishing(*at, found, danger);
        // Files that are not held open are not opened for nothing.
        let end = self.generations.iter().enumerate().rev().find(is_vanishing)?.0 + 1;
        let (mut first, mut only_late) = (None, false);
        let all = self.generations.iter().enumerate().take(end);
        for (at, found) in all.skip(self.index(oldest)) {
            // One that was left while it was empty has nothing to copy: what it got is late.
            let is_empty = !self.has_bytes(found) || found.end == Some(found.start);
            if found.spilled.is_some() || is_empty {
                continue;
            }
            if let Err(error) = self.handle(found) {
                if OpenError::Io(error).may_pass() {
                    // What is younger is copied after it.
                    break;
                }
                continue;
            }
            // What was cut or rewritten is not what it was: who reads it has to notice first.
            if self.is_other(found) {
                break;
            }
            // What is late has no place that another process would have to find again.
            let is_complete = self.is_complete(at, danger.gone);
            only_late |= !is_complete;
            if only_late {
                let is_over = found.late && found.name.is_none() && is_complete;
                if is_over && self.is_vanishing(at, found, danger) {
                    return Some(found.number);
                }
                continue;
            }
            let first = first.get_or_insert_with(|| (found, self.unmarked(at)));
            if self.is_vanishing(at, found, danger) {
                let (first, unmarked) = &*first;
                // What the same file got late has no place of its own.
                let can_mark = !first.late && unmarked.iter().all(|older| self.is_as_read(older));
                match unmarked.first().filter(|_| !danger.gone) {
                    Some(older) if can_mark => return Some(older.number),
                    Some(_) if found.name.is_some() => {}
                    _ => return Some(first.number),
                }
            }
        }
        None
    }

    /// Whether nothing can be added to it, as far as can be told: what is added all the same is read late.
    fn is_complete(&self, at: usize, gone: bool) -> bool {
        let Some(found) = self.generations.get(at) else {
            return false;
        };
        let mut younger = self.generations.iter().skip(at + 1);
        let follows = |younger: &Generation| {
            // The next container is begun when this one is dead.
            younger.restart > found.restart || !younger.late && self.has_bytes(younger)
        };
        let is_left = found.late && !self.is_written(found.number);
        // kubelet deletes what it rotated away long ago, whatever seems to have been written since.
        let is_deleted = found.name.is_none() && found.last_name.rotated.is_some();
        let has_next = || {
            self.generations
                .iter()
                .skip(at + 1)
                .any(|next| self.has_bytes(next))
        };
        gone || found.end.is_some() || is_left || is_deleted && has_next() || younger.any(follows)
    }

    fn is_vanishing(&self, at: usize, generation: &Generation, danger: Danger) -> bool {
        if generation.spilled.is_some() || generation.replaced || generation.copy {
            return false;
        }
        if danger.gone {
            // One that is not held open is gone for good.
            return generation.file.is_some();
        }
        match &generation.name {
            // The name may have changed while the folder was listed; the inode knows. One that is not held open is
            // either there, or gone for good.
            None => generation.is_nameless(),
            // Of a restart's rotated files kubelet deletes the oldest one next, and all of an earlier restart's with the
            // container's next death.
            Some(_) if !danger.stuck => false,
            Some(name) => {
                let is_dead = || self.generations.iter().any(|other| other.restart > name.restart);
                is_dead() || name.gz && self.older_names(at).next().is_none()
            }
        }
    }

    /// Whether another process would take this file for younger than the copies that follow, if it had none: it has
    /// its name.
    pub(super) fn is_marked(&self, at: usize) -> bool {
        let named = self.generations.get(at).filter(|old| old.name.is_some());
        let mut younger = self.generations.iter().skip(at + 1);
        named.is_some_and(|old| {
            let is_copied = |copy: &Generation| copy.spilled.is_some() || Some(copy.number) == self.copying;
            younger.any(|copy| copy.restart == old.restart && is_copied(copy))
        })
    }

    /// Older files that another process would take for younger than a copy of this one: they have their names, and need
    /// no copy.
    fn unmarked(&self, at: usize) -> Vec<&Generation> {
        let older = self.older_names(at);
        // Of one that was empty nothing was read: what it got is late.
        let is_read = |older: &Generation| older.print.len > 0 && older.end != Some(older.start);
        // One of which a later part has a copy already would come behind that.
        let is_copied_on = |older: &Generation| {
            let mut parts = self
                .generations
                .iter()
                .filter(|part| part.late && part.spilled.is_some());
            parts.any(|part| part.has_inode(older.device, older.inode))
        };
        older
            .filter(|older| older.spilled.is_none() && is_read(older) && !is_copied_on(older))
            .collect()
    }

    /// Whether a file was cut or rewritten.
    fn is_other(&self, found: &Generation) -> bool {
        self.is_shorter(found.number, found.start) || self.began_otherwise(found.number)
    }

    /// Whether a file can be read, and holds what it did.
    fn is_as_read(&self, found: &Generation) -> bool {
        !self.is_other(found) && self.handle(found).is_ok()
    }

    /// Older files of the same restart that have names.
    fn older_names(&self, at: usize) -> impl Iterator<Item = &Generation> {
        let restart = self.generations.get(at).map(|found| found.restart);
        let older = self.generations.iter().take(at);
        older.filter(move |older| Some(older.restart) == restart && older.name.is_some() && !older.copy)
    }

    /// Whether a generation takes space for us alone.
    pub fn is_pinned(&self, number: u32, gone: bool) -> bool {
        self.get(number)
            .is_some_and(|found| gone || (found.name.is_none() && found.is_nameless()))
    }

    /// What a copy of a generation says of it.
    pub fn head_of(&self, number: u32) -> Option<Head> {
        let generation = self.get(number)?;
        Some(Head {
            restart: generation.restart,
            base: generation.start,
            begin: self.head(generation)?,
            next: self.head_behind(number).unwrap_or_default(),
            modified: self.modified(number),
            ..Head::default()
        })
    }

    /// A copy is whole: it is read from now on, and its file is closed.
    pub fn keep(&mut self, number: u32, spilled: Spilled) {
        let at = self.index(number);
        let is_needed = |found: &&Generation| !found.replaced && found.spilled.is_none();
        let Some(found) = self.get(number).filter(is_needed) else {
            // Acknowledged meanwhile.
            return spilled.remove();
        };
        let (start, copied) = (found.start, spilled.end());
        let more = self.file_len(found).filter(|len| *len > copied && copied > start);
        self.refresh(at);
        if let Some(len) = more {
            if let Some(found) = self.get_mut(number) {
                found.end.get_or_insert(copied);
            }
            self.add_late(at, len);
        }
        let Some(found) = self.get_mut(number) else {
            return;
        };
        found.file = None;
        found.spilled = Some(Arc::new(spilled));
        // What was read of the same file before is acknowledged or has a copy: nothing more is asked of it.
        let (device, inode) = (found.device, found.inode);
        for older in self.generations.iter_mut().take(at) {
            if older.has_inode(device, inode) {
                older.file = None;
            }
        }
    }

    /// Files with a copy that were opened again by their names: closed when they lost those, and read in the copy's
    /// place when their folder came back and they grew.
    pub fn settle_copied(&mut self) {
        for at in 0..self.generations.len() {
            let Some(found) = self.generations.get(at) else {
                continue;
            };
            let Some(end) = found.spilled.as_deref().map(Spilled::end) else {
                continue;
            };
            let is_named = found.name.is_some();
            // What goes on behind the copy may have been found already.
            let len = if is_named && self.next_of_file(at).is_none() {
                self.file_len(found)
            } else {
                None
            };
            let grew = len.is_some_and(|len| found.end.map_or(len, |end| len.min(end)) > end);
            let is_it = |file: Handle<'_>| found.begins(&file) == Some(true);
            let grew = grew && self.handle(found).is_ok_and(is_it);
            if !is_named {
                self.detach(at);
            }
            let Some(found) = self.generations.get(at).filter(|_| grew) else {
                continue;
            };
            // An earlier process left it for what others had got late, and a position may be in that.
            // What a later restart wrote is younger than all of it.
            let restart = found.restart;
            let is_left_for = |younger: &Generation| {
                younger.restart <= restart && (younger.late || younger.spilled.is_some())
            };
            let younger = self.generations.get(at + 1..).unwrap_or_default();
            let following = younger
                .iter()
                .take_while(|found| is_left_for(found) || found.print.len == 0);
            let last = following
                .enumerate()
                .filter(|(_, found)| is_left_for(found))
                .last();
            let left_for = last.map_or(0, |(last, _)| last + 1);
            if left_for > 0 {
                self.go_on_behind(at, end, left_for);
            } else if let Some(found) = self.generations.get_mut(at) {
                found.remove_copy();
            }
        }
    }

    /// A copy's file has no name any more, see [`Generation::detach`].
    pub(super) fn detach(&mut self, at: usize) {
        if let Some(copy) = self.generations.get_mut(at) {
            copy.detach();
            let known = (copy.device, copy.inode);
            self.lose_inode(known.0, known.1);
        }
    }

    /// What a file with a copy holds behind that is read behind so many generations that follow, and before what was
    /// begun since.
    fn go_on_behind(&mut self, at: usize, end: u64, following: usize) {
        let last = at + following;
        if let Some(found) = self.generations.get_mut(at) {
            found.end = Some(end);
        }
        let number = |at: usize| self.generations.get(at).map(|found| found.number);
        let room = match number(last).zip(number(last + 1)) {
            Some((before, after)) if before + 1 < after => Room::Before(last + 1, before + 1),
            _ => Room::Last,
        };
        self.go_on(at, end, room);
    }

    /// Closes a generation though not all of it is acknowledged.
    pub fn abandon(&mut self, number: u32) {
        self.generations.retain(|generation| generation.number != number);
        self.given_up.insert(number);
    }

    /// How the first file behind a generation begins that is not empty.
    fn head_behind(&self, number: u32) -> Option<Vec<u8>> {
        let younger = self.generations.iter().filter(|found| found.number > number);
        let mut heads = younger
            .filter(|found| self.has_bytes(found))
            .filter_map(|found| self.head(found));
        heads.find(|head| !head.is_empty())
    }

    /// Whether what followed a copy of an earlier process, when it was made, is not what follows now.
    pub fn has_vanished_after(&self, number: u32) -> bool {
        let copy = self.get(number).filter(|_| number >= FIRST_COPY);
        let Some(spilled) = copy.and_then(|generation| generation.spilled.as_ref()) else {
            return false;
        };
        let next = Fingerprint::of(&spilled.head().next);
        next.len > 0 && !self.head_behind(number).is_some_and(|head| next.matches(&head))
    }

    /// Whether a generation between two was given up: lines that were open before it have no end.
    pub fn is_broken(&self, from: u32, to: u32) -> bool {
        self.given_up.range(from..to).next().is_some()
    }
}

impl Generation {
    /// What is known of a copy's file ends with its name: who writes to it is not heard.
    pub(super) fn detach(&mut self) {
        (self.name, self.file, self.was_tip) = (None, None, false);
    }

    /// Whether its file is held open, and has no name any more.
    pub(super) fn is_nameless(&self) -> bool {
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        metadata.is_some_and(|metadata| metadata.nlink() == 0)
    }
}
