//! An open file in, one generation's bytes and identity out.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::cri::{Parser, Timestamp};

use super::compressed;
use super::fingerprint::{Fingerprint, HEAD};
use super::position::Position;
use crate::discover::beneath::Facts;
use crate::discover::held::Held;
use crate::discover::names::LogName;
use crate::spill::store::Spilled;

/// Stands for the device of a file that is gone, which no file has.
pub(super) const NO_DEVICE: u64 = u64::MAX;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// One file's content, under whatever names, or what was added to it after it had been left for a younger one.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of a file that do not depend on each other"
)]
pub struct Generation {
    /// See [`Position::generation`].
    pub number: u32,
    /// The container's restart count.
    pub restart: u32,
    /// Its first byte; what is before belongs to an older generation.
    pub start: u64,
    /// It is what a file got after it had been left.
    pub(super) late: bool,
    /// Where it was left for a younger one: what is written behind is a generation of its own.
    pub(super) end: Option<u64>,
    /// Its name now; `None` once it has none.
    pub(super) name: Option<LogName>,
    /// The last name that it had.
    pub(super) last_name: LogName,
    /// Held open; without, it is opened by its name for each read.
    pub(super) file: Option<Arc<Held>>,
    pub(super) gz: bool,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) print: Fingerprint,
    /// Timestamp of its first well-formed line, as far as it was there when the file was found.
    pub(super) first: Option<Timestamp>,
    /// What it held is read in another file: nothing of this one is.
    pub(super) copy: bool,
    /// Its content is in another file than the one that was written, perhaps not to its end.
    pub(super) moved: bool,
    /// It seems to be rewritten; said once the folder was listed anew.
    pub(super) suspect: bool,
    /// It was rewritten: what it held is gone, another generation stands for the new content.
    pub(super) replaced: bool,
    /// It had the tip's name while this process ran, so the runtime may still write to it.
    pub(super) was_tip: bool,
    /// Since when a younger one has bytes.
    pub(super) superseded: Option<Instant>,
    /// Since when it cannot be read.
    pub(super) failing: Option<Instant>,
    /// A copy of what is not acknowledged of it; it is read from there.
    pub(super) spilled: Option<Arc<Spilled>>,
}

impl Generation {
    /// A file's content.
    pub(super) fn new(number: u32, name: LogName, facts: &Facts) -> Self {
        Self {
            number,
            restart: name.restart,
            start: 0,
            late: false,
            end: None,
            file: None,
            gz: name.gz,
            device: facts.device,
            inode: facts.inode,
            print: Fingerprint::default(),
            first: None,
            copy: false,
            moved: false,
            suspect: false,
            replaced: false,
            was_tip: name.rotated.is_none(),
            superseded: None,
            failing: None,
            spilled: None,
            last_name: name.clone(),
            name: Some(name),
        }
    }

    /// Where it begins: its first byte that can be read.
    pub fn beginning(&self) -> Position {
        let base = self.spilled.as_ref().map_or(0, |spilled| spilled.head().base);
        Position {
            generation: self.number,
            offset: self.start.max(base),
        }
    }

    /// Deletes its copy, if no other generation is read from it.
    pub(super) fn remove_copy(&mut self) {
        if let Some(spilled) = self.spilled.take().and_then(Arc::into_inner) {
            spilled.remove();
        }
    }

    /// What its file holds from `start` on: a generation of its own.
    pub(super) fn again(&self, number: u32, start: u64) -> Self {
        Self {
            number,
            restart: self.restart,
            start,
            late: true,
            end: None,
            name: self.name.clone(),
            last_name: self.last_name.clone(),
            file: self.file.clone(),
            gz: self.gz,
            device: self.device,
            inode: self.inode,
            print: self.print,
            first: self.first,
            copy: false,
            moved: self.moved,
            suspect: false,
            replaced: false,
            was_tip: self.was_tip,
            superseded: None,
            failing: None,
            spilled: self.spilled.clone().filter(|spilled| spilled.end() > start),
        }
    }

    /// Whether it stands for a file's content from the beginning on, which is read here.
    pub(super) fn is_original(&self) -> bool {
        !self.late && !self.copy && !self.replaced && self.beginning().offset == 0
    }

    /// It is known by this name now.
    pub(super) fn call(&mut self, name: &LogName) {
        self.name = Some(name.clone());
        self.last_name = name.clone();
    }

    /// Whether it was empty when it was looked at last, so that nothing was read of it, nor was it passed over.
    pub(super) fn is_blank(&self) -> bool {
        self.print.len == 0 && self.start == 0 && self.end.is_none() && !self.replaced && !self.copy
    }

    /// Whether a plain file still begins as this one did; `None` where it cannot be read.
    pub(super) fn begins(&self, file: &File) -> Option<bool> {
        head_of(file, false).ok().map(|head| self.print.matches(&head))
    }

    /// Takes the fingerprint of a file that begins with `head`, and may have grown since it was taken last.
    pub(super) fn refresh(&mut self, head: &[u8]) {
        let same = self.print.len == 0 || self.print.matches(head);
        if same && !self.replaced && head.len() > usize::from(self.print.len) {
            self.print = Fingerprint::of(head);
            self.first = self.first.or_else(|| first_timestamp(head));
        }
    }

    /// Whether it has the name that the runtime writes to.
    pub(super) fn is_tip(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.rotated.is_none())
    }

    /// Whether its fingerprint may still grow.
    pub(super) fn is_short(&self) -> bool {
        usize::from(self.print.len) < HEAD && !self.replaced
    }

    /// Whether a file has this content, perhaps grown since it was closed. One that was empty then is known by
    /// its name alone.
    pub(super) fn is(&self, head: &[u8], name: &LogName) -> bool {
        if self.print.len == 0 {
            return self.name.as_ref().is_some_and(|known| known.is_twin(name));
        }
        self.print.matches(head)
    }

    /// Whether it has this inode, and what it held is still there.
    pub(super) fn has_inode(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode) && !self.replaced
    }
}

/// A file to be read: held open, or opened for this once.
#[derive(Debug)]
pub enum Handle<'a> {
    /// As long as the generation is needed.
    Held(&'a File),
    /// Until it is dropped.
    Lent(File),
}

impl Deref for Handle<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Held(file) => file,
            Self::Lent(file) => file,
        }
    }
}

/// A file's first bytes, uncompressed.
pub(super) fn head_of(file: &File, gz: bool) -> io::Result<Vec<u8>> {
    if gz {
        return compressed::head(file);
    }
    let mut head = vec![0; HEAD];
    let read = read_fully(file, 0, &mut head)?;
    head.truncate(read);
    Ok(head)
}

/// The timestamp of the first well-formed line of a file that begins with `head`.
fn first_timestamp(head: &[u8]) -> Option<Timestamp> {
    let mut parser = Parser::default();
    head.split(|byte| *byte == b'\n')
        .find_map(|line| Some(parser.parse(line).ok()?.timestamp))
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_fully(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    read_until(file, offset, into, |_| false)
}

/// The same of a file that may grow, by one read where that will do: one that ends with a line came to the
/// file's end, unless it stopped at a page's end, where file systems may.
pub(super) fn read_growing(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    read_until(file, offset, into, |got| {
        got.ends_with(b"\n") && !(offset + got.len() as u64).is_multiple_of(PAGE)
    })
}

fn read_until(
    file: &File,
    offset: u64,
    into: &mut [u8],
    enough: impl Fn(&[u8]) -> bool,
) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = into.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(more) => {
                read += more;
                if into.get(..read).is_some_and(&enough) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
