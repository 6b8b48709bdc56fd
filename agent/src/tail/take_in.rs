//! A listing of a container's folder in, generations out: which names are new files, and which are files that are
//! known under other names.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::chain::Chain;
use super::compressed::may_hold_more;
use super::copies::{Twin, mark_copies};
use super::generation::{Generation, NO_DEVICE, head_of};
use super::kept::Room;
use crate::discover::beneath::{Facts, LogRoot, OpenError};
use crate::discover::names::LogName;
use crate::spill::store::Spilled;

/// Files of one container that are held open at most: more than kubelet keeps of two restarts. In a crash loop's
/// folder of thousands, the others are opened when their turn comes.
const HELD: usize = 32;

/// Why a file is not read.
const TOO_LATE: OpenError = OpenError::Refused("it appeared after files of a later restart");

/// What a listing gives to look at one name.
pub(super) struct Look<'a> {
    pub(super) folder: &'a OwnedFd,
    pub(super) names: &'a [LogName],
    /// Generations below are read and acknowledged.
    wanted: u32,
}

impl Chain {
    /// Takes in a listing, oldest name first, and opens what is new; files at or above `wanted` that were
    /// closed are opened again. False when a name vanished meanwhile or could not be opened: nothing
    /// younger was taken in then, so list again.
    pub fn reconcile(&mut self, names: &[LogName], wanted: u32) -> bool {
        let folder = match self.open_folder() {
            Ok(folder) => folder,
            Err(error) => {
                tracing::debug!(%error, "a container's folder is not read yet");
                return false;
            }
        };
        let look = Look {
            folder: &folder,
            names,
            wanted,
        };
        let blank = self.generations.iter().filter(|found| found.is_blank());
        let (mut unread, next): (Vec<u32>, u32) = (blank.map(|found| found.number).collect(), self.next);
        let (mut fresh, mut complete) = (Vec::new(), true);
        for name in names {
            match self.take_in(&look, name, &mut fresh) {
                Ok(()) => {}
                Err(error) if error.may_pass() => {
                    tracing::debug!(file = %name, %error, "a log file is not read yet");
                    complete = false;
                    break;
                }
                // Said once; tried again at each listing, since the name may come to mean another file.
                Err(error) => self.refuse(name, &error),
            }
        }
        if !fresh.is_empty() && self.rotated_since(&folder, names) {
            return false;
        }
        if complete {
            self.refused
                .retain(|refused| names.iter().any(|name| name.to_string() == *refused));
            for generation in &mut self.generations {
                if generation
                    .name
                    .as_ref()
                    .is_some_and(|name| names.binary_search(name).is_err())
                {
                    generation.name = None;
                }
            }
        }
        // Empty ones that were passed over and got something since.
        let filled = self.generations.iter().filter(|found| found.number >= next);
        unread.extend(filled.filter(|found| found.start == 0).map(|found| found.number));
        self.number(fresh, &unread);
        self.read_tip_on();
        self.settle_copied();
        self.keep_needed(wanted);
        complete
    }

    /// New files in the order in which they were written. A rotated file's name has the node's local time, which
    /// a change of summer time turns back; its lines have the zone as well.
    fn number(&mut self, mut fresh: Vec<Generation>, unread: &[u32]) {
        let blank = self.blank(&fresh, unread).map(|at| self.generations.remove(at));
        let mut number = blank.as_ref().map(|blank| blank.number);
        fresh.extend(blank.map(|mut blank| {
            let head = self.head(&blank).unwrap_or_default();
            blank.refresh(&head);
            blank
        }));
        fresh.sort_by(|one, other| one.last_name.cmp(&other.last_name));
        let dated = |generation: &Generation| generation.is_tip() || generation.first.is_some();
        if fresh.iter().all(dated) {
            fresh.sort_by_key(|generation| {
                let first = generation.first.filter(|_| !generation.is_tip());
                (generation.restart, generation.is_tip(), first)
            });
        }
        for mut generation in fresh {
            match self.place_for(generation.restart) {
                Room::Last => {
                    generation.number = number.take().unwrap_or_else(|| self.next_number());
                    let at = self.index(generation.number);
                    self.generations.insert(at, generation);
                }
                Room::Before(at, free) => {
                    generation.number = free;
                    self.generations.insert(at, generation);
                }
                Room::None => {
                    if let Some(name) = &generation.name {
                        self.refuse(name, &TOO_LATE);
                    }
                }
            }
        }
    }

    /// The last file, if it is one of which nothing was read, since it was empty, and some of the new ones were copied
    /// from it meanwhile: those come first, whatever older files got late.
    fn blank(&self, fresh: &[Generation], unread: &[u32]) -> Option<usize> {
        let is_copied = |found: &Generation| {
            let is_older = |new: &Generation| new.restart == found.restart && new.last_name < found.last_name;
            unread.contains(&found.number) && fresh.iter().any(is_older)
        };
        // One that is gone by now says nothing of the one that was begun since.
        let is_there = |found: &Generation| found.name.is_some() || !unread.contains(&found.number);
        let last = |found: &Generation| is_there(found) && !found.copy && (!found.late || is_copied(found));
        let at = self.generations.iter().rposition(last)?;
        self.generations.get(at).is_some_and(is_copied).then_some(at)
    }

    fn take_in(
        &mut self,
        look: &Look<'_>,
        name: &LogName,
        fresh: &mut Vec<Generation>,
    ) -> Result<(), OpenError> {
        let text = name.to_string();
        let mut opened: Option<(File, Facts)> = None;
        let mut facts = LogRoot::facts(look.folder, &text)?;
        if facts.link {
            let (file, real) = self.root.file(look.folder, &text)?;
            facts = real;
            opened = Some((file, real));
        }
        if let Some(at) = self.known(name, &facts) {
            let generation = self.generations.get(at);
            let renamed = generation.is_some_and(|known| known.name.as_ref() != Some(name));
            let closed = generation.is_some_and(|known| known.file.is_none());
            let needed = generation.is_some_and(|known| known.number >= look.wanted);
            let other = generation.is_some_and(|known| known.gz != name.gz);
            let (mut same, mut more) = (true, None);
            if closed && (renamed || other || (needed && self.may_hold())) {
                let (file, found) = self.open(look, &text, opened.take())?;
                let head = head_of(&file, name.gz)?;
                // Nothing kept its inode from being used again.
                same = generation.is_some_and(|known| known.is(&head, name));
                if !same {
                    self.lose_inode(found.device, found.inode);
                    opened = Some((file, found));
                } else if needed || other {
                    // Left for a younger one, it may have got something before it was compressed.
                    let end = generation
                        .and_then(|known| known.end)
                        .filter(|_| other && name.gz);
                    more = end.filter(|end| may_hold_more(&file, *end));
                    self.hold(at, name, needed.then_some(file), &found);
                }
            }
            if same {
                self.rename(at, name);
                if self.generations.get(at).is_some_and(|known| known.copy) {
                    self.take_place(look, at, name)?;
                    return Ok(());
                }
                if let Some(number) = self.cut_behind_its_copy(at, name, &facts) {
                    self.replace(number);
                    return Ok(());
                }
                // What is held open of a compressed file is the plain one, which may have grown before.
                let len = match self.generations.get(at) {
                    Some(known) if name.gz => self.file_len(known),
                    _ => Some(facts.size),
                };
                if len.is_some_and(|len| self.add_late(at, len)) && !name.gz {
                    let (file, facts) = self.open(look, &text, opened)?;
                    self.hold(self.generations.len() - 1, name, Some(file), &facts);
                }
                if let Some(end) = more {
                    self.go_on(at, end, Room::Last);
                }
                return Ok(());
            }
        }
        self.take_in_new(look, name, fresh, &facts, opened)
    }

    /// A file that is not known by its inode or name.
    fn take_in_new(
        &mut self,
        look: &Look<'_>,
        name: &LogName,
        fresh: &mut Vec<Generation>,
        facts: &Facts,
        opened: Option<(File, Facts)>,
    ) -> Result<(), OpenError> {
        // One file by two names.
        if let Some(twice) = fresh
            .iter_mut()
            .find(|new| new.has_inode(facts.device, facts.inode))
        {
            twice.was_tip |= name.rotated.is_none();
            twice.call(name);
            return Ok(());
        }
        let (file, facts) = self.open(look, &name.to_string(), opened)?;
        let head = head_of(&file, name.gz)?;
        let twin = self.twin(look, name, &head);
        if let Some(Twin::Instead(at)) = twin {
            self.move_into(at, name, file, &facts);
            return Ok(());
        }
        // Read now, it would be taken for what follows after the one that still grows.
        let is_younger = |generation: &Generation| {
            generation.restart > name.restart
                && generation
                    .name
                    .as_ref()
                    .is_some_and(|name| look.names.binary_search(name).is_ok())
        };
        if self.generations.iter().any(is_younger) {
            return Err(TOO_LATE);
        }
        self.lose_name(name);
        let mut generation = Generation::new(0, name.clone(), &facts);
        generation.refresh(&head);
        generation.copy = twin.is_some();
        mark_copies(fresh, &generation, &head);
        if self.held()
            + fresh
                .iter()
                .filter(|generation| generation.file.is_some())
                .count()
            < HELD
        {
            generation.file = self.root.budget().hold(file).map(Arc::new);
        }
        fresh.push(generation);
        Ok(())
    }

    /// Whether kubelet rotated a file after the folder was listed: what was opened as the tip may be younger
    /// than a file that is not in the list.
    fn rotated_since(&self, folder: &OwnedFd, names: &[LogName]) -> bool {
        let is_new =
            |name: &LogName| name.rotated.is_some() && !names.iter().any(|known| known.is_twin(name));
        self.root
            .log_names(folder)
            .is_ok_and(|listed| listed.iter().any(is_new))
    }

    fn open(
        &self,
        look: &Look<'_>,
        name: &str,
        opened: Option<(File, Facts)>,
    ) -> Result<(File, Facts), OpenError> {
        match opened {
            Some(opened) => Ok(opened),
            None => self.root.file(look.folder, name),
        }
    }

    /// The generation that a name seems to stand for, by its inode, or as the compressed form of a plain name. An
    /// inode is used again only after its last descriptor is closed, so one that is held open is certain.
    fn known(&self, name: &LogName, facts: &Facts) -> Option<usize> {
        let by_inode = self.generations.iter().rposition(|generation| {
            generation.has_inode(facts.device, facts.inode) && generation.gz == name.gz
        });
        let is_twin = |generation: &Generation| generation.name.as_ref().is_some_and(|n| n.is_twin(name));
        by_inode.or_else(|| {
            name.gz
                .then(|| self.generations.iter().rposition(is_twin))
                .flatten()
        })
    }

    /// The generation at a place, if it is read from a copy of what its file does not hold any more: nobody who reads
    /// the copy would see that the file was cut.
    fn cut_behind_its_copy(&self, at: usize, name: &LogName, facts: &Facts) -> Option<u32> {
        let known = self.generations.get(at).filter(|known| !known.gz && !name.gz)?;
        let copied = known.spilled.as_deref().map(Spilled::end)?;
        let begins = || known.file.as_ref().and_then(|file| known.begins(file));
        (facts.size < copied || begins() == Some(false)).then_some(known.number)
    }

    /// Files held open.
    fn held(&self) -> usize {
        self.generations
            .iter()
            .filter(|generation| generation.file.is_some())
            .count()
    }

    fn may_hold(&self) -> bool {
        self.held() < HELD && !self.root.budget().is_spent()
    }

    /// Keeps a generation's file open, or at least remembers which one it is.
    pub(super) fn hold(&mut self, at: usize, name: &LogName, file: Option<File>, facts: &Facts) {
        let file = file.filter(|_| self.may_hold());
        let held = file.and_then(|file| self.root.budget().hold(file)).map(Arc::new);
        let Some(old) = self.generations.get(at).map(|known| (known.device, known.inode)) else {
            return;
        };
        for generation in &mut self.generations {
            if generation.has_inode(old.0, old.1) {
                (generation.device, generation.inode, generation.gz) = (facts.device, facts.inode, name.gz);
                generation.file.clone_from(&held);
            }
        }
    }

    /// A file that was compressed while it was held open is known by what has its name now.
    pub(super) fn find_compressed(&mut self, at: usize, name: &LogName) {
        let folder = self.open_folder().ok();
        let found = folder.and_then(|folder| self.root.file(&folder, &name.to_string()).ok());
        let Some((file, facts)) = found else {
            return;
        };
        let is_it = |known: &Generation| head_of(&file, true).is_ok_and(|head| known.is(&head, name));
        // As long as what it got late is read, the plain one is held open for that.
        let is_held = |known: &Generation| {
            let mut others = self.generations.iter();
            others.any(|other| other.file.is_some() && other.has_inode(known.device, known.inode))
        };
        if self
            .generations
            .get(at)
            .is_some_and(|known| is_it(known) && !is_held(known))
        {
            self.hold(at, name, None, &facts);
        }
    }

    /// A file is gone, and another one may get its inode: its generations are still those of one file.
    pub(super) fn lose_inode(&mut self, device: u64, inode: u64) {
        let mut number = None;
        for of_it in self
            .generations
            .iter_mut()
            .filter(|known| known.has_inode(device, inode))
        {
            let first = *number.get_or_insert(of_it.number);
            (of_it.device, of_it.inode) = (NO_DEVICE, first.into());
        }
    }

    /// A file is known by this name now, and no other one is.
    pub(super) fn rename(&mut self, at: usize, name: &LogName) {
        let Some(found) = self.generations.get(at).map(|known| (known.device, known.inode)) else {
            return;
        };
        self.lose_name(name);
        for generation in &mut self.generations {
            if generation.has_inode(found.0, found.1) {
                generation.was_tip |= name.rotated.is_none();
                generation.call(name);
            }
        }
    }

    /// A name stands for another file now.
    fn lose_name(&mut self, name: &LogName) {
        for generation in &mut self.generations {
            if generation.name.as_ref() == Some(name) {
                generation.name = None;
            }
        }
    }
}
