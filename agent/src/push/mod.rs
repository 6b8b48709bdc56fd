//! Requests in, Loki's acknowledgements out, each tenant for itself.
//!
//! # Layout
//! - `deliver`: a request in, what became of each of its streams out
//! - `tenant`: a part of a request in, what the server decided about it out
//! - `gate`: whether a tenant is held in, leave for its requests out
//! - `access`: a tenant as it is in force in, its client out
//! - `client`: a compressed body in, the server's answer or a failure out; with `tls`, `resolve` and
//!   `failure`, the I/O
//! - `classify`: an answer in, what to do with the request out
//! - `words`: a 400's text in, Loki's reasons and how many lines each refused out
//! - `split`: a body in, smaller bodies out
//! - `retry`: attempts in, how long to wait out
//! - `problem`: a class of trouble in, a sentence with its remedy out
//! - [`figures`]: attempts in, counters out

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_engine::key::Key;
use sluice_engine::report::Problem;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::batch::{Batch, Outcome};
use crate::config::TenantInForce;

pub mod figures;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod access;
mod classify;
mod client;
mod deliver;
mod failure;
mod gate;
mod problem;
mod resolve;
mod retry;
mod split;
mod tenant;
mod tls;
mod words;

pub use retry::Timing;

use figures::Figures;
use tenant::Tenant;

/// What holds for all tenants.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// Addresses that a tenant may not have, such as loopback, are allowed: for tests and a single machine.
    pub allow_local_addresses: bool,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl Default for PushSettings {
    fn default() -> Self {
        let user_agent = concat!("sluice-agent/", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            allow_local_addresses: false,
            user_agent,
        }
    }
}

/// All tenants' pushers; clones are the same one.
#[derive(Clone)]
pub struct Pushers {
    runtime: Handle,
    tenants: Arc<Mutex<BTreeMap<Key, Arc<Tenant>>>>,
    shared: Arc<Shared>,
}

/// What the tenants' tasks have in common.
struct Shared {
    settings: PushSettings,
    timing: Timing,
    outcomes: Box<dyn Fn(Outcome) + Send + Sync>,
    problems: Mutex<BTreeMap<Key, Problem>>,
    changed: watch::Sender<u64>,
    figures: Mutex<Figures>,
}

impl fmt::Debug for Pushers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pushers")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

impl Pushers {
    /// Pushers without tenants; `outcomes` is called on the runtime's threads and must not block.
    pub fn new(
        runtime: Handle,
        settings: PushSettings,
        outcomes: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> Self {
        Self::with_timing(runtime, settings, Timing::default(), outcomes)
    }

    /// The same with other waits between attempts, for tests.
    pub fn with_timing(
        runtime: Handle,
        settings: PushSettings,
        timing: Timing,
        outcomes: impl Fn(Outcome) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            settings,
            timing,
            outcomes: Box::new(outcomes),
            problems: Mutex::default(),
            changed: watch::Sender::new(0),
            figures: Mutex::default(),
        };
        Self {
            runtime,
            tenants: Arc::default(),
            shared: Arc::new(shared),
        }
    }

    /// A tenant that is new, changed, or has other credentials. Acts on the very next attempt; a request that
    /// is held or backs off is tried again at once. The same once more changes nothing.
    pub fn set_tenant(&self, tenant: &TenantInForce) {
        self.tenant(&tenant.tenant.name).set(tenant);
    }

    /// Forgets a tenant. Its requests in hand end without an outcome: they are not acknowledged, and the
    /// batcher has forgotten them with [`crate::batch::Batcher::remove_tenant`].
    pub fn remove_tenant(&self, key: &Key) {
        if let Some(tenant) = lock(&self.tenants).remove(key) {
            tenant.cancel();
        }
        self.shared.set_problem(key, None);
        lock(&self.shared.figures).tenants.remove(key);
    }

    /// Takes a request; never blocks. One of a tenant that is not set yet waits until it is.
    pub fn send(&self, batch: Batch) {
        let tenant = self.tenant(&batch.tenant);
        drop(self.runtime.spawn(deliver::deliver(tenant, batch)));
    }

    /// What is wrong with which tenant.
    pub fn problems(&self) -> BTreeMap<Key, Problem> {
        lock(&self.shared.problems).clone()
    }

    /// Changes whenever [`Pushers::problems`] does.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Counters of all tenants.
    pub fn figures(&self) -> Figures {
        lock(&self.shared.figures).clone()
    }

    fn tenant(&self, key: &Key) -> Arc<Tenant> {
        let mut tenants = lock(&self.tenants);
        if let Some(tenant) = tenants.get(key) {
            return Arc::clone(tenant);
        }
        let tenant = Arc::new(Tenant::new(key.clone(), Arc::clone(&self.shared)));
        tenants.insert(key.clone(), Arc::clone(&tenant));
        tenant
    }
}

impl Shared {
    /// Says what is wrong with a tenant, or that nothing is.
    fn set_problem(&self, key: &Key, problem: Option<Problem>) {
        let mut problems = lock(&self.problems);
        if problems.get(key) == problem.as_ref() {
            return;
        }
        if let Some(problem) = problem {
            tracing::warn!(tenant = %key, reason = ?problem.reason, "{}", problem.message);
            problems.insert(key.clone(), problem);
        } else {
            tracing::info!(tenant = %key, "nothing is wrong with the tenant any more");
            problems.remove(key);
        }
        drop(problems);
        self.changed.send_modify(|version| *version += 1);
    }
}

/// Locks; whoever panicked left whole values, since every critical section is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
