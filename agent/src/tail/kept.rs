//! A chain whose files vanish in, what has to be copied before they do out, and the copies in their place.

use std::os::unix::fs::MetadataExt;

use super::chain::Chain;
use super::fingerprint::Fingerprint;
use super::generation::Generation;
use super::position::Position;
use crate::discover::names::LogName;
use crate::spill::record::Head;
use crate::spill::store::Spilled;

/// Number of the first copy of an earlier process: what is older and still has its name finds room before it.
const FIRST_COPY: u32 = 1 << 20;

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
        let number = self.next;
        self.next += 1;
        let head = spilled.head();
        self.generations.push(Generation {
            number,
            restart: head.restart,
            name: None,
            file: None,
            gz: false,
            device: 0,
            inode: 0,
            print: Fingerprint::of(&head.begin),
            replaced: false,
            was_tip: false,
            superseded: None,
            spilled: Some(spilled),
        });
    }

    /// Where in the chain a file belongs that is new, and its number: the last, but before the copies of later
    /// restarts, whose files are gone. `None` where no number is left before them.
    pub(super) fn place_for(&mut self, name: &LogName) -> Option<(usize, u32)> {
        let is_later = |g: &Generation| g.spilled.is_some() && g.name.is_none() && g.restart > name.restart;
        let Some(at) = self.generations.iter().position(is_later) else {
            self.next += 1;
            return Some((self.generations.len(), self.next - 1));
        };
        let before = at.checked_sub(1).and_then(|before| self.generations.get(before));
        let number = before.map_or(1, |before| before.number + 1);
        let is_free = self
            .generations
            .get(at)
            .is_some_and(|after| number < after.number);
        is_free.then_some((at, number))
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

    /// Behind all there is.
    pub(super) fn end_of_all(&self) -> Position {
        Position {
            generation: self.next,
            offset: 0,
        }
    }

    /// Whether a file was rewritten since this generation of it was read.
    pub fn is_replaced(&self, number: u32) -> bool {
        self.at_or_after(number)
            .is_some_and(|generation| generation.number == number && generation.replaced)
    }

    /// When a generation was written last, in seconds since 1970.
    pub fn modified(&self, number: u32) -> Option<i64> {
        if let Some(spilled) = &self.at_or_after(number)?.spilled {
            return spilled.head().modified;
        }
        let metadata = self.at_or_after(number)?.file.as_ref()?.metadata().ok()?;
        let since = metadata
            .modified()
            .ok()?
            .duration_since(std::time::UNIX_EPOCH)
            .ok()?;
        i64::try_from(since.as_secs()).ok()
    }

    /// Whether there are copies.
    pub fn has_spilled(&self) -> bool {
        self.generations
            .iter()
            .any(|generation| generation.spilled.is_some())
    }

    /// Bytes that copies take on the disk.
    pub fn spilled_bytes(&self) -> u64 {
        let copies = self
            .generations
            .iter()
            .filter_map(|generation| generation.spilled.as_ref());
        copies.map(Spilled::bytes).sum()
    }

    /// Whether a generation was read from a copy that ends before its file did.
    pub fn is_damaged(&self, number: u32) -> bool {
        self.at_or_after(number).is_some_and(|generation| {
            generation.number == number && generation.spilled.as_ref().is_some_and(Spilled::is_damaged)
        })
    }

    /// The oldest generation at or above `oldest` that has to be copied now. Copies are always older than what has
    /// none, so that another process finds the order again.
    pub fn at_risk(&self, oldest: u32, danger: Danger) -> Option<u32> {
        let needed = |(at, generation): &(usize, &Generation)| {
            generation.spilled.is_none()
                && !generation.replaced
                && generation.file.is_some()
                && generation.has_bytes()
                && self.is_complete(*at, danger.gone)
        };
        let candidates = || {
            let all = self.generations.iter().enumerate();
            all.filter(|(_, generation)| generation.number >= oldest)
                .filter(needed)
        };
        let last = candidates()
            .filter(|(at, generation)| self.is_vanishing(*at, generation, danger))
            .map(|(_, generation)| generation.number)
            .last()?;
        let first = candidates().next().map(|(_, generation)| generation.number);
        first.filter(|first| *first <= last)
    }

    /// Whether nothing can be added to it.
    fn is_complete(&self, at: usize, gone: bool) -> bool {
        let mut younger = self.generations.iter().skip(at + 1);
        gone || younger.any(Generation::has_bytes)
    }

    fn is_vanishing(&self, at: usize, generation: &Generation, danger: Danger) -> bool {
        if danger.gone {
            return true;
        }
        match &generation.name {
            // The name may have changed while the folder was listed; the inode knows.
            None => generation.is_nameless(),
            Some(name) => {
                let mut older = self.generations.iter().take(at);
                danger.stuck && name.gz && older.all(|older| older.name.is_none())
            }
        }
    }

    /// Whether a generation takes space for us alone.
    pub fn is_pinned(&self, number: u32, gone: bool) -> bool {
        self.at_or_after(number).is_some_and(|generation| {
            generation.number == number && (gone || generation.name.is_none() && generation.is_nameless())
        })
    }

    /// What a copy of a generation says of it.
    pub fn head_of(&self, number: u32) -> Option<Head> {
        let generation = self.at_or_after(number).filter(|g| g.number == number)?;
        Some(Head {
            restart: generation.restart,
            begin: generation.head().ok()?,
            next: self
                .follower(number)
                .and_then(|next| next.head().ok())
                .unwrap_or_default(),
            modified: self.modified(number),
            ..Head::default()
        })
    }

    /// A copy is whole: it is read from now on, and its file is closed.
    pub fn keep(&mut self, number: u32, spilled: Spilled) {
        let mut generations = self.generations.iter_mut();
        match generations.find(|generation| generation.number == number && generation.file.is_some()) {
            Some(generation) => {
                generation.refresh();
                generation.file = None;
                generation.spilled = Some(spilled);
            }
            // Acknowledged meanwhile.
            None => spilled.remove(),
        }
    }

    /// Files with a copy that were opened again by their names: closed when they lost those, and read in the copy's
    /// place when their folder came back and they grew.
    pub fn settle_copied(&mut self) {
        for generation in &mut self.generations {
            let Some(spilled) = &generation.spilled else {
                continue;
            };
            if generation.name.is_none() {
                generation.file = None;
                continue;
            }
            let file = generation.file.as_ref().filter(|_| !generation.gz);
            let len = file.and_then(|file| Some(file.metadata().ok()?.len()));
            if len.is_some_and(|len| len > spilled.end())
                && let Some(spilled) = generation.spilled.take()
            {
                spilled.remove();
            }
        }
    }

    /// Closes a generation though not all of it is acknowledged.
    pub fn give_up(&mut self, number: u32) {
        self.generations.retain(|generation| generation.number != number);
        self.given_up.insert(number);
    }

    fn follower(&self, number: u32) -> Option<&Generation> {
        self.generations
            .iter()
            .find(|g| g.number > number && g.has_bytes())
    }

    /// Whether what followed a copy of an earlier process, when it was made, is not what follows now.
    pub fn has_vanished_after(&self, number: u32) -> bool {
        let copy = self.at_or_after(number).filter(|g| g.number == number);
        let Some(spilled) = copy.and_then(|generation| generation.spilled.as_ref()) else {
            return false;
        };
        let next = Fingerprint::of(&spilled.head().next);
        let follows = |found: &Generation| found.head().is_ok_and(|head| next.matches(&head));
        number >= FIRST_COPY && next.len > 0 && !self.follower(number).is_some_and(follows)
    }

    /// Whether a generation between two was given up: lines that were open before it have no end.
    pub fn is_broken(&self, from: u32, to: u32) -> bool {
        self.given_up.range(from..to).next().is_some()
    }
}

impl Generation {
    fn is_nameless(&self) -> bool {
        let links = self
            .file
            .as_ref()
            .and_then(|file| Some(file.metadata().ok()?.nlink()));
        links.is_none_or(|links| links == 0)
    }
}
