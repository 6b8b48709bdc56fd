//! Questions in (may this `ServiceAccount` read pod logs in this namespace?), kept and re-asked answers out.
//!
//! - [`schedule`]: which question is due when: a pure function of time and answers; [`agenda`] keeps their times
//! - [`ask`]: asks the API server what is due
//! - [`watch`]: the watches whose events make questions due again
//!
//! A change of an answer wakes the pipelines that depend on it.

pub mod agenda;
pub mod ask;
pub mod schedule;
pub mod watch;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_engine::key::Key;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use schedule::Schedule;

/// A `ServiceAccount`.
pub type Account = Key;

/// One question: may this account read pod logs in this namespace, or, without one, in all of them?
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// Who.
    pub account: Account,
    /// Where; absent: everywhere.
    pub namespace: Option<String>,
}

/// The answers, shared by all pipelines.
#[derive(Clone, Debug)]
pub struct Reviews {
    schedule: Arc<Mutex<Schedule>>,
    due: Arc<Notify>,
    changed: mpsc::UnboundedSender<Key>,
}

impl Reviews {
    /// No answers yet. `changed` gets each pipeline whose answers change; `everywhere_first` asks for all
    /// namespaces before each one.
    pub fn new(everywhere_first: bool, changed: mpsc::UnboundedSender<Key>) -> Self {
        Self {
            schedule: Arc::new(Mutex::new(Schedule::new(everywhere_first))),
            due: Arc::new(Notify::new()),
            changed,
        }
    }

    /// Declares what a pipeline needs to know; what is not known becomes due.
    pub fn want(&self, pipeline: &Key, account: &Account, namespaces: &BTreeSet<String>) {
        let asked = self
            .schedule()
            .want(pipeline, account, namespaces, Instant::now());
        if asked {
            self.due.notify_one();
        }
    }

    /// A pipeline is gone, or needs no answers any more.
    pub fn forget(&self, pipeline: &Key) {
        self.schedule().forget(pipeline);
    }

    /// The answer, when it is known.
    pub fn allowed(&self, account: &Account, namespace: &str) -> Option<bool> {
        self.schedule().allowed(account, namespace)
    }

    /// A Role or `RoleBinding` of this namespace changed.
    pub fn touched(&self, namespace: &str) {
        self.schedule().touched(namespace, Instant::now());
        self.due.notify_one();
    }

    /// A `ClusterRole` or `ClusterRoleBinding` changed, or events may have been missed.
    pub fn touched_everywhere(&self) {
        self.schedule().touched_everywhere(Instant::now());
        self.due.notify_one();
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, pair: &Pair, answer: Option<bool>) {
        let woken = self.schedule().record(pair, answer, Instant::now());
        for pipeline in woken {
            // Nobody listens any more when the operator ends.
            let _ended = self.changed.send(pipeline);
        }
    }
}
