//! Files that are deleted or cut in, which of them the agent must have copied by then out, and which it must miss.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A file is left for the next one after a second, and each second the agent looks what waits in files that vanished:
/// it copies them in the turn after that.
const SIGHT: Duration = Duration::from_secs(3);

/// Numbers of files.
#[derive(Default)]
pub(super) struct Vanished {
    /// Those that were deleted or cut.
    pub(super) all: BTreeSet<u32>,
    /// Those that were deleted while the agent was down, and the tenants that must miss them.
    pub(super) unseen: BTreeMap<u32, BTreeSet<usize>>,
    /// Those that were deleted before the agent's eyes, and that it had the time to copy.
    kept: BTreeSet<u32>,
    /// Those that are to be copied since then, and whether the agent has looked for such files since.
    copied: BTreeMap<u32, (Instant, bool)>,
    /// Those of which nothing can be copied any more.
    gone: BTreeSet<u32>,
    /// Some file was cut: what follows waits for who reads that.
    rewritten: bool,
}

impl Vanished {
    /// A file was deleted while the agent works.
    pub(super) fn seen(&mut self, file: u32) {
        self.all.insert(file);
    }

    /// A file was deleted, and no agent was there. What was cut before may have been empty when it was looked at last:
    /// then nothing tells what followed.
    pub(super) fn unseen(&mut self, file: u32, missed_by: BTreeSet<usize>) {
        self.all.insert(file);
        self.gone.insert(file);
        let missed_by = Some(missed_by).filter(|_| !self.rewritten);
        self.unseen.insert(file, missed_by.unwrap_or_default());
    }

    /// A file was cut.
    pub(super) fn cut(&mut self, file: u32) {
        self.all.insert(file);
        self.gone.insert(file);
        self.rewritten = true;
    }

    /// A file was copied and cut.
    pub(super) fn moved(&mut self) {
        self.rewritten = true;
    }

    /// A turn was taken: what was deleted is copied, unless nothing follows and it may still grow.
    pub(super) fn turn(&mut self, youngest: u32, now: Instant) {
        for file in self.all.range(..youngest).filter(|_| !self.rewritten) {
            if self.gone.contains(file) {
                continue;
            }
            let (since, has_looked) = self.copied.entry(*file).or_insert((now, false));
            if *has_looked {
                self.kept.insert(*file);
            }
            *has_looked |= now.duration_since(*since) >= SIGHT;
        }
    }

    /// The agent died: what it held open and had not copied is gone.
    pub(super) fn die(&mut self) {
        self.copied.clear();
        self.gone.extend(self.all.difference(&self.kept));
    }

    /// Nobody is left to have copies for, or to miss anything.
    pub(super) fn withdraw(&mut self) {
        self.kept.clear();
        self.unseen.values_mut().for_each(BTreeSet::clear);
    }

    /// Whether a file's only copy vanished.
    pub(super) fn is_lost(&self, file: u32) -> bool {
        self.all.contains(&file) && !self.kept.contains(&file)
    }
}
