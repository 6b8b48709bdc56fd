//! An open file in, one generation's bytes and identity out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::compressed;
use super::fingerprint::{Fingerprint, HEAD};
use crate::discover::names::LogName;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// One file's content, under whatever names.
#[derive(Debug)]
pub struct Generation {
    /// See [`Position::generation`].
    pub number: u32,
    /// The container's restart count.
    pub restart: u32,
    /// Its name now; `None` once it has none.
    pub(super) name: Option<LogName>,
    pub(super) file: Option<File>,
    pub(super) gz: bool,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) print: Fingerprint,
    /// It was rewritten: what it held is gone, another generation stands for the new content.
    pub(super) replaced: bool,
    /// It had the tip's name while this process ran, so the runtime may still write to it.
    pub(super) was_tip: bool,
    pub(super) superseded: Option<Instant>,
}

impl Generation {
    /// Takes the fingerprint of a file that may have grown since.
    pub(super) fn refresh(&mut self) {
        if usize::from(self.print.len) < HEAD
            && !self.replaced
            && let Ok(head) = self.head()
            && head.len() > usize::from(self.print.len)
        {
            self.print = Fingerprint::of(&head);
        }
    }

    pub(super) fn head(&self) -> io::Result<Vec<u8>> {
        self.file
            .as_ref()
            .map_or_else(|| Ok(Vec::new()), |file| head_of(file, self.gz))
    }

    /// Whether a file has this content, perhaps grown since it was closed. One that was empty then is known by
    /// its name alone.
    pub(super) fn is(&self, file: &File, gz: bool, renamed: bool) -> bool {
        if self.print.len == 0 {
            return !renamed;
        }
        head_of(file, gz).is_ok_and(|head| self.print.matches(&head))
    }

    pub(super) fn plain_len(&self) -> Option<u64> {
        if self.gz {
            None
        } else {
            Some(self.file.as_ref()?.metadata().ok()?.len())
        }
    }

    pub(super) fn has_bytes(&self) -> bool {
        !self.replaced && self.plain_len().is_none_or(|len| len > 0)
    }
}

fn head_of(file: &File, gz: bool) -> io::Result<Vec<u8>> {
    if gz {
        return compressed::head(file);
    }
    let mut head = vec![0; HEAD];
    let read = read_fully(file, 0, &mut head)?;
    head.truncate(read);
    Ok(head)
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
