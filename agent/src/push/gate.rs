//! Whether a tenant is held in, leave for its requests out: while it is held one of them probes.

use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::lock;
use super::retry::{Hold, Timing};

/// What all requests of one tenant pass before each attempt.
#[derive(Debug)]
pub(super) struct Gate {
    held: watch::Sender<Option<Hold>>,
    /// How often the tenant was probed since it is held.
    probes: Mutex<u32>,
    probe: Semaphore,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            held: watch::Sender::new(None),
            probes: Mutex::default(),
            probe: Semaphore::new(1),
        }
    }

    /// Nothing gets through.
    pub(super) fn hold(&self, hold: Hold) {
        self.held
            .send_if_modified(|held| held.replace(hold) != Some(hold));
    }

    /// The server takes requests again, or fails in another way: nobody needs to wait for a probe.
    pub(super) fn release(&self) {
        if self.held.send_if_modified(|held| held.take().is_some()) {
            self.expect_change();
        }
    }

    /// The next probes follow each other soon.
    pub(super) fn expect_change(&self) {
        *lock(&self.probes) = 0;
    }

    /// Waits for leave to make an attempt: at once, or as the one that probes, after the pause between probes
    /// or as soon as `changed` says that the configuration did. `permit` is the last leave.
    pub(super) async fn leave<'a, T>(
        &'a self,
        timing: &Timing,
        mut permit: Option<SemaphorePermit<'a>>,
        changed: &mut watch::Receiver<T>,
    ) -> Option<SemaphorePermit<'a>> {
        let mut state = self.held.subscribe();
        loop {
            let hold = (*state.borrow_and_update())?;
            if permit.is_none() {
                tokio::select! {
                    acquired = self.probe.acquire() => permit = acquired.ok(),
                    _ = state.changed() => {}
                }
                continue;
            }
            let pause = timing.probe(hold, self.next_probe(), rand::random());
            tokio::select! {
                () = tokio::time::sleep(pause) => return permit,
                _ = changed.changed() => return permit,
                _ = state.changed() => {}
            }
        }
    }

    fn next_probe(&self) -> u32 {
        let mut probes = lock(&self.probes);
        let probe = *probes;
        *probes = probe.saturating_add(1);
        probe
    }
}
