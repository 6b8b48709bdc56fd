//! Open log files in, counted descriptors out: what is held open stays within the process's limit, and a part
//! of it is left for sockets, the journal and folders.

use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, getrlimit};

/// Left for everything but log files: at least so many, and a quarter where there are few.
const RESERVE: usize = 32;
/// Left at most.
const MOST_RESERVE: usize = 512;

/// How many log files may be held open.
#[derive(Clone, Debug)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    /// What this process may hold, by its soft limit (`RLIMIT_NOFILE`) as it is now.
    pub fn of_process() -> Self {
        let soft = getrlimit(Resource::Nofile).current;
        let soft = soft.map_or(usize::MAX, |soft| usize::try_from(soft).unwrap_or(usize::MAX));
        Self::of(soft.saturating_sub((soft / 4).clamp(RESERVE, MOST_RESERVE)))
    }

    /// So many.
    pub fn of(limit: usize) -> Self {
        Self {
            held: Arc::default(),
            limit,
        }
    }

    /// Keeps a file open, if one more may be.
    pub fn hold(&self, file: File) -> Option<Held> {
        let held = Held {
            file,
            held: Arc::clone(&self.held),
        };
        // Given back when the surplus one is dropped.
        (self.held.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(held)
    }

    /// How many may be held.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether no more may be held.
    pub fn is_spent(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.limit
    }
}

/// A file that is held open.
#[derive(Debug)]
pub struct Held {
    file: File,
    held: Arc<AtomicUsize>,
}

impl Deref for Held {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_may_be_held_again() {
        let budget = Budget::of(2);
        let file = || tempfile::tempfile().unwrap();
        let (one, two) = (budget.hold(file()).unwrap(), budget.hold(file()));
        assert!(two.is_some() && budget.is_spent());
        assert!(budget.hold(file()).is_none() && budget.is_spent());
        drop(one);
        assert!(!budget.is_spent());
        assert!(budget.hold(file()).is_some());
    }

    #[test]
    fn a_part_of_the_limit_is_left_for_all_else() {
        let soft = getrlimit(Resource::Nofile).current.unwrap();
        let limit = Budget::of_process().limit() as u64;
        assert!(limit + 512 >= soft && limit + 32 <= soft, "{limit} of {soft}");
    }
}
