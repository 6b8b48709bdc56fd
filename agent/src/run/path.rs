//! What is in force and commands in, figures and problems out: worker and pushers as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_engine::key::Key;
use sluice_engine::report::Problem;
use tokio::sync::watch;

use crate::cli::Settings;
use crate::config::{InForce, TenantInForce};
use crate::status::figures::Figures;
use crate::worker::Command;

/// A handle of the worker's thread and the pushers.
#[derive(Clone, Debug)]
pub(super) struct DataPath {
    figures: watch::Receiver<Arc<Figures>>,
    ended: watch::Receiver<bool>,
}

impl DataPath {
    /// Starts both with what is in force.
    pub(super) fn start(settings: &Settings, in_force: &Arc<InForce>) -> Result<Self, String> {
        let _unused = (settings, watch::Sender::new(Arc::new(Figures::default())));
        let (figures, ended) = (watch::channel(Arc::default()).1, watch::channel(false).1);
        let path = Self { figures, ended };
        path.apply(&InForce::default(), in_force);
        Ok(path)
    }

    /// Puts something else into force. Pushers know a tenant before the worker sends for it, and forget it
    /// after the worker was told.
    pub(super) fn apply(&self, last: &InForce, next: &Arc<InForce>) {
        for tenant in next.tenants.iter().filter(|tenant| is_changed(last, tenant)) {
            tracing::debug!("tenant {}", tenant.tenant.name);
        }
        self.send(Command::Config(Arc::clone(next)));
        for gone in removed(last, next) {
            tracing::debug!("tenant {gone} is gone");
        }
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
    #[expect(clippy::unused_self, reason = "stands for the pushers until they are merged")]
    pub(super) fn problems(&self) -> BTreeMap<Key, Problem> {
        BTreeMap::new()
    }

    /// Waits until the problems changed.
    #[expect(clippy::unused_self, reason = "stands for the pushers until they are merged")]
    pub(super) fn problems_changed(&self) -> impl Future<Output = ()> + use<> {
        std::future::pending()
    }

    /// Whether the worker makes progress.
    pub(super) fn is_alive(&self) -> bool {
        !*self.ended.borrow()
    }

    /// Waits for the end of the worker's thread.
    pub(super) async fn ended(&mut self) {
        if self.ended.wait_for(|ended| *ended).await.is_err() {
            // The thread that watches the worker is gone: so is the worker.
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

/// The tenants that the pushers may forget.
fn removed<'a>(last: &'a InForce, next: &InForce) -> Vec<&'a Key> {
    let names = last.tenants.iter().map(|tenant| &tenant.tenant.name);
    names
        .filter(|name| !next.tenants.iter().any(|tenant| tenant.tenant.name == **name))
        .collect()
}
