//! One container of the node: its chain of files, who reads it, and when to look again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::beneath::LogRoot;
use crate::discover::names::{ContainerKey, LogName, PodFolder};
use crate::tail::chain::Chain;
use crate::tail::position::CursorId;

/// How often a file that grows is read.
pub(super) const BUSY: Duration = Duration::from_millis(500);
/// How often one that grew by [`MUCH`] since the last look.
const BUSIER: Duration = Duration::from_millis(100);
/// Bytes: what fills a block in the stream, so that more would have to wait elsewhere.
const MUCH: usize = 64 << 10;
/// How often an idle one is read where no watch is left.
pub(super) const UNWATCHED: Duration = Duration::from_secs(1);
/// After so long without growth a file is idle.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(5);

/// One container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) key: Arc<ContainerKey>,
    pub(super) pod: PodFolder,
    pub(super) names: Vec<LogName>,
    pub(super) chain: Chain,
    pub(super) cursors: Vec<CursorId>,
    pub(super) first_seen: Instant,
    /// It was there when the agent first looked.
    pub(super) early: bool,
    /// Its folder was found by this process.
    pub(super) listed: bool,
    /// Its folder is gone: what is held open is read to the end.
    pub(super) gone: bool,
    /// Some pipeline waits for facts of its pod until then.
    pub(super) parked: Option<Instant>,
    pub(super) next_poll: Option<Instant>,
    pub(super) last_growth: Instant,
}

impl Container {
    pub(super) fn new(
        root: &Arc<LogRoot>,
        key: Arc<ContainerKey>,
        pod: PodFolder,
        early: bool,
        now: Instant,
    ) -> Self {
        Self {
            chain: Chain::new(Arc::clone(root), &key),
            key,
            pod,
            names: Vec::new(),
            cursors: Vec::new(),
            first_seen: now,
            early,
            listed: false,
            gone: false,
            parked: None,
            next_poll: None,
            last_growth: now,
        }
    }

    /// So many bytes were read: look again soon.
    pub(super) fn grew(&mut self, bytes: usize, now: Instant) {
        self.last_growth = now;
        let next = now + if bytes < MUCH { BUSY } else { BUSIER };
        self.next_poll = Some(self.next_poll.map_or(next, |due| due.min(next)));
    }

    /// Something happened to its files: read them often for a while.
    pub(super) fn stir(&mut self, now: Instant) {
        self.last_growth = now;
        self.next_poll = Some(now);
    }
}
