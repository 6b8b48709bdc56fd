//! Positions in, bytes of a container's generations out: strictly oldest first, each held open until it is
//! acknowledged, whatever happens to its name.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::compressed::Compressed;
use super::fingerprint::Fingerprint;
pub use super::follow::Next;
use super::generation::{Generation, Handle, head_of, read_fully, read_growing};
pub use super::place::Place;
use super::position::STRIDE;
use crate::discover::beneath::{LogRoot, OpenError};
use crate::discover::names::{ContainerKey, LogName};

/// How long a file that cannot be read keeps back the younger ones.
const PATIENCE: Duration = Duration::from_secs(30);

/// The generations of one container, oldest first.
#[derive(Debug)]
pub struct Chain {
    pub(super) root: Arc<LogRoot>,
    /// The container's folder beneath the root.
    pub(super) folder: String,
    pub(super) generations: Vec<Generation>,
    pub(super) next: u32,
    /// Generations that were closed before all of them was acknowledged.
    pub(super) given_up: BTreeSet<u32>,
    /// Names that cannot be read, each said once.
    pub(super) refused: BTreeSet<String>,
    /// A file that nobody reads yet seems to be rewritten, see [`Chain::suspect`].
    pub(super) wants_listing: bool,
    /// The generation of which a copy is made, or was to be.
    pub(super) copying: Option<u32>,
}

impl Chain {
    /// No generations yet.
    pub fn new(root: Arc<LogRoot>, key: &ContainerKey) -> Self {
        Self {
            root,
            folder: key.to_string(),
            generations: Vec::new(),
            next: 1,
            given_up: BTreeSet::new(),
            refused: BTreeSet::new(),
            wants_listing: false,
            copying: None,
        }
    }

    /// The generation with this number, or the next that there is.
    pub fn at_or_after(&self, number: u32) -> Option<&Generation> {
        self.generations.get(self.index(number))
    }

    pub(super) fn index(&self, number: u32) -> usize {
        self.generations
            .partition_point(|generation| generation.number < number)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Generation> {
        self.at_or_after(number)
            .filter(|generation| generation.number == number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Generation> {
        let index = self.index(number);
        self.generations
            .get_mut(index)
            .filter(|generation| generation.number == number)
    }

    /// A generation's file; one that is not held open is opened by its name, for this once.
    pub(super) fn handle<'a>(&self, generation: &'a Generation) -> io::Result<Handle<'a>> {
        if let Some(file) = &generation.file {
            return Ok(Handle::Held(file));
        }
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let name = generation.name.as_ref().ok_or_else(gone)?;
        match self.root.file(&self.open_folder()?, &name.to_string()) {
            Ok((file, facts)) if generation.has_inode(facts.device, facts.inode) => Ok(Handle::Lent(file)),
            Ok(_) | Err(OpenError::Gone) => Err(gone()),
            Err(OpenError::Refused(why)) => Err(io::Error::other(why)),
            Err(OpenError::Io(error)) => Err(error),
        }
    }

    pub(super) fn open_folder(&self) -> io::Result<OwnedFd> {
        self.root.folder(&self.root.open()?, &self.folder)
    }

    pub(super) fn head(&self, generation: &Generation) -> Option<Vec<u8>> {
        if let Some(spilled) = &generation.spilled {
            return Some(spilled.head().begin.clone());
        }
        head_of(&*self.handle(generation).ok()?, generation.gz).ok()
    }

    /// Takes the fingerprint of a file that may have grown since.
    pub(super) fn refresh(&mut self, at: usize) {
        let short = self
            .generations
            .get(at)
            .filter(|generation| generation.is_short());
        if let Some(head) = short.and_then(|generation| self.head(generation))
            && let Some(generation) = self.generations.get_mut(at)
        {
            generation.refresh(&head);
        }
    }

    /// Bytes of a plain file, or where its copy ends; `None` of a compressed one, or where it cannot be told.
    pub(super) fn plain_len(&self, generation: &Generation) -> Option<u64> {
        match &generation.spilled {
            Some(spilled) => Some(spilled.end()),
            None => self.file_len(generation),
        }
    }

    /// The same of the file alone, whether it has a copy or not.
    pub(super) fn file_len(&self, generation: &Generation) -> Option<u64> {
        if generation.gz {
            return None;
        }
        self.opened_len(generation).ok()
    }

    fn opened_len(&self, generation: &Generation) -> io::Result<u64> {
        Ok(self.handle(generation)?.metadata()?.len())
    }

    /// Whether there is anything to read in it; not, where that cannot be told, but for want of a descriptor.
    pub(super) fn has_bytes(&self, generation: &Generation) -> bool {
        if generation.replaced || generation.copy {
            return false;
        }
        let begin = generation.beginning().offset;
        match &generation.spilled {
            Some(spilled) => spilled.end() > begin,
            None if generation.gz => true,
            None => match self.opened_len(generation) {
                Ok(len) => len > begin,
                // Without a descriptor for it just now: passed over, it would be read behind what follows.
                Err(error) => OpenError::Io(error).may_pass(),
            },
        }
    }

    /// Bytes of a generation at an offset, as many as are there and fit. Of a file that is still written and
    /// not the container's last (`gone`), what one read gives may do: the next look finds the rest.
    pub fn read(
        &mut self,
        number: u32,
        offset: u64,
        into: &mut [u8],
        gone: bool,
        reader: &mut Option<(u32, Compressed)>,
    ) -> io::Result<usize> {
        let is_left_out = |generation: &Generation| generation.replaced || generation.copy;
        let Some(generation) = self.get(number).filter(|generation| !is_left_out(generation)) else {
            return Ok(0);
        };
        if let Some(spilled) = &generation.spilled {
            *reader = None;
            return spilled.read_at(offset, into);
        }
        let left = generation.end.map_or(u64::MAX, |end| end.saturating_sub(offset));
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let into = into.get_mut(..len).unwrap_or_default();
        if into.is_empty() {
            return Ok(0);
        }
        let file = self.handle(generation)?;
        if generation.gz {
            if reader.as_ref().is_none_or(|(of, _)| *of != number) {
                *reader = Some((number, Compressed::new(&file)?));
            }
            return match reader {
                Some((_, reader)) => reader.read_at(&file, offset, into),
                None => Ok(0),
            };
        }
        *reader = None;
        // With a younger generation the end of this one is left for good, so it must be certain.
        let youngest = self.generations.last().is_some_and(|last| last.number == number);
        let read = if youngest && !gone {
            read_growing(&file, offset, into)?
        } else {
            read_fully(&file, offset, into)?
        };
        if read > 0 && generation.print.len == 0 {
            self.refresh(self.index(number));
        }
        Ok(read)
    }

    /// Whether a generation that cannot be read has been waited for long enough, and is given up.
    pub fn give_up(&mut self, number: u32, error: &io::Error, now: Instant) -> bool {
        let Some(generation) = self.get_mut(number) else {
            return false;
        };
        let since = *generation.failing.get_or_insert(now);
        if let Some(name) = generation.name.clone() {
            self.refuse(&name, error);
        }
        now.duration_since(since) >= PATIENCE
    }

    /// A generation could be read.
    pub fn recovered(&mut self, number: u32) {
        if let Some(generation) = self.get_mut(number).filter(|g| g.failing.is_some()) {
            generation.failing = None;
            let name = generation.name.as_ref().map(ToString::to_string);
            self.refused.retain(|refused| Some(refused) != name.as_ref());
        }
    }

    /// Says once that a file is not read.
    pub(super) fn refuse(&mut self, name: &LogName, error: &dyn std::error::Error) {
        if self.refused.insert(name.to_string()) {
            tracing::warn!(folder = self.folder, file = %name, %error, "a log file is not read");
        }
    }

    /// Whether a generation's bytes are read from a compressed file.
    pub fn is_compressed(&self, number: u32) -> bool {
        self.get(number)
            .is_some_and(|generation| generation.gz && generation.spilled.is_none())
    }

    /// Whether a generation's bytes can never change: they are compressed, or a copy.
    pub fn is_fixed(&self, number: u32) -> bool {
        self.get(number)
            .is_some_and(|generation| generation.gz || generation.spilled.is_some())
    }

    /// Whether a generation was rewritten, see [`Chain::replace`].
    pub fn is_replaced(&self, number: u32) -> bool {
        self.get(number).is_some_and(|generation| generation.replaced)
    }

    /// Whether a file ends before an offset that was read, or before what it began with: somebody cut or rewrote it.
    pub fn is_shorter(&self, number: u32, offset: u64) -> bool {
        self.get(number)
            .filter(|found| !found.replaced && !found.moved && !found.copy && found.spilled.is_none())
            .and_then(|generation| Some((self.plain_len(generation)?, generation.print.len)))
            .is_some_and(|(len, known)| len < offset.max(known.into()))
    }

    /// Whether a file began with something else when it was found.
    pub fn began_otherwise(&self, number: u32) -> bool {
        let found = self
            .get(number)
            .filter(|found| !found.gz && !found.replaced && !found.copy && found.print.len > 0)
            .filter(|found| found.spilled.is_none());
        let head = found.and_then(|found| Some((found.print, self.head(found)?)));
        head.is_some_and(|(print, head)| !print.matches(&head))
    }

    /// A file seems to be rewritten. True when that was said before: the folder was listed since, so what was
    /// copied before is known.
    pub fn suspect(&mut self, number: u32) -> bool {
        self.get_mut(number)
            .is_some_and(|generation| std::mem::replace(&mut generation.suspect, true))
    }

    /// A file was rewritten: what it holds now is a generation of its own, and older than those that its container
    /// began after the file was renamed. What it got late is gone with what it began with.
    pub fn replace(&mut self, number: u32) {
        let Some(old) = self.get(number).filter(|generation| !generation.replaced) else {
            return;
        };
        let mut fresh = old.again(number, 0);
        (fresh.late, fresh.moved, fresh.spilled) = (false, false, None);
        (fresh.print, fresh.first) = (Fingerprint::default(), None);
        let mut at = self.index(number);
        for (index, found) in self.generations.iter_mut().enumerate() {
            if found.has_inode(fresh.device, fresh.inode) {
                at = index;
                if found.spilled.is_some() {
                    found.detach();
                } else {
                    (found.name, found.file, found.replaced) = (None, None, true);
                }
            }
        }
        self.lose_inode(fresh.device, fresh.inode);
        let is_younger = |found: &Generation| found.last_name > fresh.last_name;
        let younger = self.generations.iter().skip(at + 1).position(is_younger);
        let mut index = younger.map_or(self.generations.len(), |after| at + 1 + after);
        let number = |at: usize| self.generations.get(at).map(|found| found.number);
        let (before, after) = (number(index - 1), number(index));
        match before.zip(after) {
            Some((before, after)) if before + 1 < after => fresh.number = before + 1,
            _ => {
                index = self.generations.len();
                fresh.number = self.next_number();
            }
        }
        self.generations.insert(index, fresh);
        self.refresh(index);
        let is_compressed = self.is_compressed_elsewhere(index);
        if let Some(fresh) = self.generations.get_mut(index) {
            fresh.copy = is_compressed;
        }
    }

    /// Whether a file that was deleted is there in its compressed form.
    fn is_compressed_elsewhere(&self, at: usize) -> bool {
        let deleted = self.generations.get(at).filter(|found| found.is_nameless());
        deleted.is_some_and(|deleted| {
            let is_it =
                |found: &&Generation| found.gz && found.restart == deleted.restart && found.is_original();
            let mut others = self.generations.iter().filter(is_it);
            others.any(|found| self.head(found).is_some_and(|head| deleted.print.names(&head)))
        })
    }

    /// Whether the folder has to be listed before it can be said what follows.
    pub fn wants_listing(&mut self) -> bool {
        std::mem::take(&mut self.wants_listing)
    }

    /// A number for a generation that is younger than all.
    pub(super) fn next_number(&mut self) -> u32 {
        let number = self.next;
        self.next += STRIDE;
        number
    }

    /// Whether there is one file at most, and no copy.
    pub fn is_single(&self) -> bool {
        self.generations.len() <= 1 && !self.has_spilled()
    }

    /// Number of the youngest generation.
    pub fn youngest(&self) -> Option<u32> {
        self.generations.last().map(|last| last.number)
    }

    /// A generation's name now; `None` once it has none.
    pub fn name(&self, number: u32) -> Option<&LogName> {
        let generation = self.at_or_after(number).filter(|found| found.number == number)?;
        generation.name.as_ref()
    }

    /// When a generation was written last, in seconds since 1970.
    pub fn modified(&self, number: u32) -> Option<i64> {
        let generation = self.at_or_after(number)?;
        if let Some(spilled) = &generation.spilled {
            return spilled.head().modified;
        }
        let metadata = self.handle(generation).ok()?.metadata().ok()?;
        let since = metadata
            .modified()
            .ok()?
            .duration_since(std::time::UNIX_EPOCH)
            .ok()?;
        i64::try_from(since.as_secs()).ok()
    }

    /// Closes what is older than `number`: nobody needs it any more.
    pub fn close_below(&mut self, number: u32) {
        let end = self.index(number);
        for at in (0..end).rev() {
            let held = self
                .generations
                .get(at)
                .filter(|old| old.file.is_some() && !old.gz);
            if let Some(len) = held.and_then(|old| self.file_len(old)) {
                self.add_late(at, len);
            }
            let is_marked = self.is_marked(at);
            let Some(old) = self.generations.get_mut(at) else {
                continue;
            };
            let was_held = old.file.take().is_some();
            old.replaced = false;
            if !is_marked {
                old.remove_copy();
            }
            let compressed = old.name.clone().filter(|name| was_held && name.gz && !old.gz);
            if let Some(name) = compressed {
                self.find_compressed(at, &name);
            }
        }
        self.keep_needed(number);
    }

    /// Nobody reads the container: whoever does later begins with a new listing, and with the copies there are.
    pub fn forget(&mut self) {
        self.generations.retain(|found| found.spilled.is_some());
        for at in 0..self.generations.len() {
            self.detach(at);
        }
        for copy in &mut self.generations {
            copy.end = None;
        }
    }

    /// Forgets what has neither a name nor a descriptor nor a copy, but for what was left empty: who has not come to
    /// `wanted` may be there, and misses nothing.
    pub(super) fn keep_needed(&mut self, wanted: u32) {
        self.generations.retain(|found| {
            let is_there = found.file.is_some() || found.name.is_some() || found.spilled.is_some();
            let is_place = found.number >= wanted && found.end == Some(found.start);
            is_there || found.replaced || is_place
        });
    }

    /// The files at or above `number` that may still grow.
    pub fn growing(&self, number: u32) -> impl Iterator<Item = io::Result<Handle<'_>>> {
        self.generations
            .iter()
            .filter(move |found| found.number >= number && found.was_tip && !found.gz && !found.replaced)
            .filter(|found| found.spilled.is_none())
            .map(|found| self.handle(found))
    }

    /// Whether there are files that cannot be read, and that are passed over.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Files held open.
    pub fn open_files(&self) -> usize {
        let mut files: Vec<_> = self
            .generations
            .iter()
            .filter_map(|found| found.file.as_ref())
            .collect();
        files.dedup_by(|one, other| Arc::ptr_eq(one, other));
        files.len()
    }
}
