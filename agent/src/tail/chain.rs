//! A container's listings in, its generations out: strictly oldest first, each held open until it is
//! acknowledged, whatever happens to its name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::compressed::{self, Compressed};
use super::fingerprint::Fingerprint;
use super::generation::{Generation, read_fully, read_growing};
use super::position::Position;
use crate::discover::beneath::{Facts, LogRoot, OpenError};
use crate::discover::log_names;
use crate::discover::names::LogName;

/// How long the runtime may go on writing into a renamed file after the new one got its first line.
const SETTLE: Duration = Duration::from_secs(1);

/// What follows after a generation's last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Stay,
    /// Nothing more comes here; go on with this generation, which another restart may have begun.
    Move {
        /// Its number.
        number: u32,
        /// The container was restarted in between.
        restarted: bool,
    },
}

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

/// The generations of one container, oldest first.
#[derive(Debug)]
pub struct Chain {
    generations: Vec<Generation>,
    next: u32,
    refused: BTreeSet<String>,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            generations: Vec::new(),
            next: 1,
            refused: BTreeSet::new(),
        }
    }
}

impl Chain {
    /// Takes in a listing, oldest name first, and opens what is new; files at or above `wanted` that were
    /// closed are opened again. False when a name vanished meanwhile or could not be opened: nothing
    /// younger was taken in then, so list again.
    pub fn reconcile(&mut self, root: &LogRoot, folder: &OwnedFd, names: &[LogName], wanted: u32) -> bool {
        let mut seen = BTreeSet::new();
        let mut complete = true;
        let before = self.generations.len();
        for name in names {
            match self.take_in(root, folder, name, wanted) {
                Ok(number) => {
                    seen.insert(number);
                }
                Err(error) if error.may_pass() => {
                    tracing::debug!(file = %name, %error, "a log file is not read yet");
                    complete = false;
                    break;
                }
                // Said once; tried again at each listing, since the name may come to mean another file.
                Err(error) => {
                    if self.refused.insert(name.to_string()) {
                        tracing::warn!(file = %name, %error, "a log file is not read");
                    }
                }
            }
        }
        if self.generations.len() > before && rotated_since(folder, names) {
            self.generations.truncate(before);
            return false;
        }
        if complete {
            self.refused
                .retain(|refused| names.iter().any(|name| name.to_string() == *refused));
            for generation in &mut self.generations {
                if !seen.contains(&generation.number) {
                    generation.name = None;
                }
            }
            self.generations
                .retain(|generation| generation.file.is_some() || generation.name.is_some());
        }
        complete
    }

    fn take_in(
        &mut self,
        root: &LogRoot,
        folder: &OwnedFd,
        name: &LogName,
        wanted: u32,
    ) -> Result<u32, OpenError> {
        let text = name.to_string();
        let mut opened: Option<(File, Facts)> = None;
        let mut facts = LogRoot::facts(folder, &text)?;
        if facts.link {
            let (file, real) = root.file(folder, &text)?;
            facts = real;
            opened = Some((file, real));
        }
        let mut known = self.by_inode(name, &facts);
        if known.is_none() && name.gz {
            known = self
                .generations
                .iter()
                .rposition(|g| g.name.as_ref().is_some_and(|n| n.is_twin(name)));
        }
        if let Some(generation) = known.and_then(|at| self.generations.get_mut(at)) {
            let renamed = generation.name.as_ref() != Some(name);
            let mut same = true;
            if generation.file.is_none() && (generation.number >= wanted || renamed) {
                let (file, facts) = match opened {
                    Some(opened) => opened,
                    None => root.file(folder, &text)?,
                };
                // Nothing kept its inode from being used again.
                same = generation.is(&file, name.gz, renamed);
                if same && generation.number >= wanted {
                    (generation.device, generation.inode, generation.gz) =
                        (facts.device, facts.inode, name.gz);
                    generation.file = Some(file);
                    opened = None;
                } else {
                    opened = Some((file, facts));
                }
            }
            if same {
                generation.was_tip |= name.rotated.is_none();
                generation.name = Some(name.clone());
                return Ok(generation.number);
            }
        }
        let (file, facts) = match opened {
            Some(opened) => opened,
            None => root.file(folder, &text)?,
        };
        if name.gz {
            let head = compressed::head(&file)?;
            if let Some(generation) = self.by_head(name.restart, &head) {
                generation.name = Some(name.clone());
                return Ok(generation.number);
            }
        }
        // Read now, it would be taken for what follows after the one that still grows.
        let is_younger = |generation: &Generation| {
            generation.restart > name.restart && generation.file.is_some() && generation.name.is_some()
        };
        if self.generations.iter().any(is_younger) {
            return Err(OpenError::Refused("it appeared after files of a later restart"));
        }
        Ok(self.append(name, file, &facts))
    }

    /// The generation that a plain name's inode says it is. An inode is used again only after its last
    /// descriptor is closed, so one that is held open is certain.
    fn by_inode(&self, name: &LogName, facts: &Facts) -> Option<usize> {
        self.generations.iter().rposition(|generation| {
            let closed_as = |known: &LogName| known == name || known.rotated.is_none();
            (generation.device, generation.inode) == (facts.device, facts.inode)
                && generation.gz == name.gz
                && (generation.file.is_some() || generation.name.as_ref().is_some_and(closed_as))
        })
    }

    /// The generation of that restart which begins with exactly these bytes.
    fn by_head(&mut self, restart: u32, head: &[u8]) -> Option<&mut Generation> {
        let whole = Fingerprint::of(head);
        for generation in &mut self.generations {
            generation.refresh();
        }
        self.generations.iter_mut().find(|generation| {
            generation.restart == restart
                && !generation.replaced
                && whole.len > 0
                && generation.print == whole
        })
    }

    fn append(&mut self, name: &LogName, file: File, facts: &Facts) -> u32 {
        let number = self.next;
        self.next += 1;
        let mut generation = Generation {
            number,
            restart: name.restart,
            name: Some(name.clone()),
            file: Some(file),
            gz: name.gz,
            device: facts.device,
            inode: facts.inode,
            print: Fingerprint::default(),
            replaced: false,
            was_tip: name.rotated.is_none(),
            superseded: None,
        };
        generation.refresh();
        self.generations.push(generation);
        number
    }

    /// The generation with this number, or the next that there is.
    pub fn at_or_after(&self, number: u32) -> Option<&Generation> {
        self.generations.get(self.index(number))
    }

    fn index(&self, number: u32) -> usize {
        self.generations
            .partition_point(|generation| generation.number < number)
    }

    fn get_mut(&mut self, number: u32) -> Option<&mut Generation> {
        let index = self.index(number);
        self.generations
            .get_mut(index)
            .filter(|generation| generation.number == number)
    }

    /// Bytes of a generation at an offset, as many as are there and fit. Of a file that is still written and
    /// not the container's last (`gone`), what one read gives may do: the next look finds the rest.
    pub fn read(
        &self,
        number: u32,
        offset: u64,
        into: &mut [u8],
        gone: bool,
        reader: &mut Option<(u32, Compressed)>,
    ) -> io::Result<usize> {
        let Some(generation) = self
            .at_or_after(number)
            .filter(|g| g.number == number && !g.replaced)
        else {
            return Ok(0);
        };
        let Some(file) = &generation.file else {
            return Ok(0);
        };
        if generation.gz {
            if reader.as_ref().is_none_or(|(of, _)| *of != number) {
                *reader = Some((number, Compressed::new(file)?));
            }
            return match reader {
                Some((_, reader)) => reader.read_at(file, offset, into),
                None => Ok(0),
            };
        }
        *reader = None;
        // With a younger generation the end of this one is left for good, so it must be certain.
        let youngest = self.generations.last().is_some_and(|last| last.number == number);
        if youngest && !gone {
            read_growing(file, offset, into)
        } else {
            read_fully(file, offset, into)
        }
    }

    /// Whether a generation's bytes are compressed.
    pub fn is_compressed(&self, number: u32) -> bool {
        self.at_or_after(number)
            .is_some_and(|generation| generation.number == number && generation.gz)
    }

    /// Whether a file ends before an offset that was read: somebody cut or rewrote it.
    pub fn is_shorter(&self, number: u32, offset: u64) -> bool {
        self.at_or_after(number)
            .filter(|generation| generation.number == number && !generation.gz && !generation.replaced)
            .and_then(|generation| generation.file.as_ref()?.metadata().ok())
            .is_some_and(|metadata| metadata.len() < offset)
    }

    /// A file was rewritten: what it holds now is a generation of its own. False when no descriptor is left.
    pub fn replace(&mut self, number: u32) -> bool {
        let next = self.next;
        let Some(old) = self.get_mut(number).filter(|generation| !generation.replaced) else {
            return false;
        };
        let Some(Ok(file)) = old.file.as_ref().map(File::try_clone) else {
            return false;
        };
        old.replaced = true;
        let mut fresh = Generation {
            number: next,
            restart: old.restart,
            name: old.name.take(),
            file: Some(file),
            gz: old.gz,
            device: old.device,
            inode: old.inode,
            print: Fingerprint::default(),
            replaced: false,
            was_tip: old.was_tip,
            superseded: None,
        };
        fresh.refresh();
        self.next += 1;
        self.generations.push(fresh);
        true
    }

    /// What follows after the last byte of a generation. Only a younger one that has bytes ends it: after a
    /// rename the runtime writes on to the old inode until it has opened the new one, unless the container is
    /// `gone`.
    pub fn after(&mut self, number: u32, gone: bool, now: Instant) -> Next {
        let younger = self
            .generations
            .iter()
            .find(|generation| generation.number > number && generation.has_bytes())
            .map(|generation| (generation.number, generation.restart));
        let Some((next, restart)) = younger else {
            return Next::Stay;
        };
        let Some(old) = self.get_mut(number) else {
            return Next::Move {
                number: next,
                restarted: false,
            };
        };
        let since = *old.superseded.get_or_insert(now);
        let settled = gone || old.gz || old.replaced || !old.was_tip || old.restart != restart;
        if settled || now.duration_since(since) >= SETTLE {
            Next::Move {
                number: next,
                restarted: old.restart != restart,
            }
        } else {
            Next::Stay
        }
    }

    /// A position as it can be found again by another process.
    pub fn place(&mut self, position: Position) -> Option<Place> {
        let generation = self.get_mut(position.generation)?;
        generation.refresh();
        Some(Place {
            restart: generation.restart,
            print: generation.print,
            offset: position.offset,
        })
    }

    /// Where a place is now; `Err` with the oldest surviving bytes behind it when its content is gone.
    pub fn find(&self, place: &Place) -> Result<Position, Position> {
        let fits = |generation: &&Generation| {
            generation.restart == place.restart
                && !generation.replaced
                && generation.head().is_ok_and(|head| place.print.matches(&head))
                && generation.plain_len().is_none_or(|len| len >= place.offset)
        };
        if let Some(generation) = self.generations.iter().find(fits) {
            return Ok(Position {
                generation: generation.number,
                offset: place.offset,
            });
        }
        let survivor = self
            .generations
            .iter()
            .find(|generation| generation.restart >= place.restart);
        Err(Position {
            generation: survivor.map_or(self.next, |generation| generation.number),
            offset: 0,
        })
    }

    /// The beginning of what there is.
    pub fn beginning(&self) -> Position {
        Position {
            generation: self.generations.first().map_or(self.next, |g| g.number),
            offset: 0,
        }
    }

    /// The end of what there is, after its last whole line. An empty file has no identity to be found again by,
    /// so it is the end of the one before.
    pub fn end(&self) -> Position {
        let with_bytes = |generation: &&Generation| generation.plain_len() != Some(0);
        let Some(last) = self.generations.iter().rev().find(with_bytes) else {
            return self.beginning();
        };
        let Some(len) = last.plain_len() else {
            // Whatever its length is without compression: behind it.
            return Position {
                generation: last.number,
                offset: u64::MAX,
            };
        };
        let mut tail = vec![0; 64 << 10];
        let from = len.saturating_sub(tail.len() as u64);
        let read = last
            .file
            .as_ref()
            .and_then(|file| read_fully(file, from, &mut tail).ok())
            .unwrap_or(0);
        let whole = tail.get(..read).and_then(|tail| memchr::memrchr(b'\n', tail));
        Position {
            generation: last.number,
            offset: whole.map_or(from, |at| from + at as u64 + 1),
        }
    }

    /// When a generation was written last, in seconds since 1970.
    pub fn modified(&self, number: u32) -> Option<i64> {
        let metadata = self.at_or_after(number)?.file.as_ref()?.metadata().ok()?;
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
        for generation in self.generations.iter_mut().take(end) {
            generation.file = None;
        }
        self.generations
            .retain(|generation| generation.file.is_some() || generation.name.is_some());
    }

    /// Plain files held open at or above `number`: the ones that may still grow.
    pub fn growing(&self, number: u32) -> impl Iterator<Item = &File> {
        self.generations
            .iter()
            .filter(move |g| g.number >= number && !g.gz)
            .filter_map(|g| g.file.as_ref())
    }

    /// Whether there are files that cannot be read, and that are passed over.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Files held open.
    pub fn open_files(&self) -> usize {
        self.generations
            .iter()
            .filter(|generation| generation.file.is_some())
            .count()
    }
}

/// Whether kubelet rotated a file after the folder was listed: what was opened as the tip may be younger than
/// a file that is not in the list.
fn rotated_since(folder: &OwnedFd, names: &[LogName]) -> bool {
    let is_new = |name: &LogName| name.rotated.is_some() && !names.iter().any(|known| known.is_twin(name));
    log_names(folder).is_ok_and(|listed| listed.iter().any(is_new))
}
