//! What is in force and commands in, figures and problems out: worker and pushers as one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use sluice_engine::key::Key;
use sluice_engine::report::Problem;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::cli::Settings;
use crate::config::{InForce, TenantInForce};
use crate::push::{self, PushSettings, Pushers};
use crate::status::figures::Figures;
use crate::worker::Command;

/// A handle of the worker's thread and the pushers; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct DataPath {
    pushers: Pushers,
    /// Tenants that the pushers know.
    known: Arc<Mutex<BTreeSet<Key>>>,
    figures: watch::Receiver<Arc<Figures>>,
    ended: watch::Receiver<bool>,
}

impl DataPath {
    /// Starts both with what is in force.
    pub(super) fn start(settings: &Settings, in_force: &Arc<InForce>) -> Result<Self, String> {
        let push = PushSettings {
            allow_local_addresses: settings.allow_local_addresses,
            ..PushSettings::default()
        };
        let pushers = Pushers::new(Handle::current(), push, |_| {});
        let (figures, ended) = (watch::channel(Arc::default()).1, watch::channel(false).1);
        let path = Self {
            pushers,
            known: Arc::default(),
            figures,
            ended,
        };
        path.apply(&InForce::default(), in_force);
        Ok(path)
    }

    /// Puts something else into force. Pushers know a tenant before the worker sends for it.
    pub(super) fn apply(&self, last: &InForce, next: &Arc<InForce>) {
        for tenant in next.tenants.iter().filter(|tenant| is_changed(last, tenant)) {
            self.pushers.set_tenant(tenant);
        }
        let names = next.tenants.iter().map(|tenant| tenant.tenant.name.clone());
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(names);
        self.send(Command::Config(Arc::clone(next)));
    }

    /// Forgets all tenants that are not in force, once the worker has stopped sending for them.
    pub(super) fn forget_all_but(&self, in_force: &InForce) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name| {
            let stays = in_force.tenants.iter().any(|tenant| tenant.tenant.name == *name);
            if !stays {
                self.pushers.remove_tenant(name);
            }
            stays
        });
    }

    /// Tells the worker.
    #[expect(
        clippy::unused_self,
        reason = "stands for the mailbox until the worker is merged"
    )]
    pub(super) fn send(&self, command: Command) {
        drop(command);
    }

    /// The worker's figures.
    pub(super) fn figures(&self) -> watch::Receiver<Arc<Figures>> {
        self.figures.clone()
    }

    /// Tenants whose lines are held back.
    pub(super) fn problems(&self) -> BTreeMap<Key, Problem> {
        self.pushers.problems()
    }

    /// Changes whenever the problems do.
    pub(super) fn problems_changed(&self) -> watch::Receiver<u64> {
        self.pushers.changed()
    }

    /// The pushers' counters.
    pub(super) fn pushed(&self) -> push::figures::Figures {
        self.pushers.figures()
    }

    /// Whether the worker makes progress.
    pub(super) fn is_alive(&self) -> bool {
        !*self.ended.borrow()
    }

    /// Waits for the end of the worker's thread.
    pub(super) async fn ended(&mut self) {
        if self.ended.wait_for(|ended| *ended).await.is_err() {
            // Who watches the thread is gone, and so is the thread.
        }
    }
}

/// Whether the pushers have to be told of a tenant.
fn is_changed(last: &InForce, next: &TenantInForce) -> bool {
    let old = last
        .tenants
        .iter()
        .find(|old| old.tenant.name == next.tenant.name);
    old.is_none_or(|old| old.tenant != next.tenant || old.credentials != next.credentials)
}
