//! A new file that begins as a known one in, which of the two is read out: files that are compressed, or copied and
//! then cut.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use super::chain::Chain;
use super::compressed;
use super::fingerprint::Fingerprint;
use super::generation::{Generation, head_of};
use super::kept::Room;
use super::take_in::Look;
use crate::discover::beneath::{Facts, LogRoot, OpenError};
use crate::discover::names::LogName;

/// What a file is that begins as a known one.
pub(super) enum Twin {
    /// What the known one held is only here now.
    Instead(usize),
    /// The known one still holds it.
    Beside,
}

impl Chain {
    /// The known file of the same restart that begins as one with this head does.
    pub(super) fn twin(&mut self, look: &Look<'_>, name: &LogName, head: &[u8]) -> Option<Twin> {
        let at = self.same_content(look, name, head)?;
        let known = self.generations.get(at)?;
        Some(if self.holds_its_own(look, known) {
            Twin::Beside
        } else {
            Twin::Instead(at)
        })
    }

    fn same_content(&mut self, look: &Look<'_>, name: &LogName, head: &[u8]) -> Option<usize> {
        for at in 0..self.generations.len() {
            // It may be read to its end, and longer than when it was looked at.
            let known = self.generations.get(at).filter(|_| name.gz);
            if known.is_some_and(|known| !has_name(look, known)) {
                self.refresh(at);
            }
        }
        let whole = Fingerprint::of(head);
        self.generations.iter().rposition(|known| {
            known.restart == name.restart
                && !known.replaced
                && !known.copy
                && known.print.matches(head)
                && (known.print == whole || known.print.names(head))
        })
    }

    /// Whether a file still has a name, and what it began with.
    fn holds_its_own(&self, look: &Look<'_>, known: &Generation) -> bool {
        // The file, not a copy that is read in its place.
        let head = || head_of(&*self.handle(known).ok()?, false).ok();
        let begins = || head().is_some_and(|head| known.print.matches(&head));
        has_name(look, known) && (known.gz || begins())
    }

    /// What a generation held is in another file now. It may be shorter than what was read: it was copied before.
    pub(super) fn move_into(&mut self, at: usize, name: &LogName, file: File, facts: &Facts) {
        let known = self.generations.get(at);
        let kept = known.and_then(|known| Some(known.spilled.as_ref()?.end()));
        // One that was passed over while it was empty may have been filled and compressed since.
        let left = kept.or_else(|| known?.end);
        let more = left.filter(|end| name.gz && compressed::may_hold_more(&file, *end));
        self.hold(at, name, Some(file), facts);
        self.rename(at, name);
        for moved in &mut self.generations {
            if moved.has_inode(facts.device, facts.inode) {
                // The runtime writes to the other one, unless the folder of what was kept came back.
                moved.was_tip = name.rotated.is_none();
                (moved.suspect, moved.moved) = (false, moved.spilled.is_none());
            }
        }
        if !name.gz {
            self.add_late(at, facts.size);
        }
        if let Some(end) = more {
            // The process that kept the rest of it ended before it came to this.
            self.go_on(at, end, Room::Last);
        }
    }

    /// A copy is listed again: it takes its original's place when that was cut.
    pub(super) fn take_place(&mut self, look: &Look<'_>, at: usize, name: &LogName) -> Result<(), OpenError> {
        let head = match self.generations.get(at) {
            Some(copy) => self.head(copy).unwrap_or_default(),
            None => return Ok(()),
        };
        if let Some(Twin::Instead(original)) = self.twin(look, name, &head) {
            let (file, facts) = self.root.file(look.folder, &name.to_string())?;
            self.generations.remove(at);
            let original = if original > at { original - 1 } else { original };
            self.move_into(original, name, file, &facts);
        }
        Ok(())
    }
}

/// New files of which one is a copy of the other: the younger name is the one that is written to.
pub(super) fn mark_copies(fresh: &mut [Generation], new: &Generation, head: &[u8]) {
    for old in fresh.iter_mut() {
        if old.restart == new.restart && old.gz == new.gz && old.print.names(head) {
            old.copy = true;
        }
    }
}

fn has_name(look: &Look<'_>, known: &Generation) -> bool {
    if let Some(file) = &known.file {
        return file.metadata().is_ok_and(|metadata| metadata.nlink() > 0);
    }
    look.names.iter().any(|name| {
        let facts = LogRoot::facts(look.folder, &name.to_string());
        facts.is_ok_and(|facts| known.has_inode(facts.device, facts.inode))
    })
}
