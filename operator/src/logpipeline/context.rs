//! What the controller of pipelines works with, and how far the pipelines are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::Store;
use sluice_engine::key::Key;
use tokio::sync::watch;
use tokio::time::Instant;

use super::authorize::NamespaceFact;
use crate::admin::Metrics;
use crate::api::LogPipeline;
use crate::api::writer::Writer;
use crate::cluster::events::Events;
use crate::fleet::desired::Desired;
use crate::fleet::observed::Observed;
use crate::reviews::Reviews;
use crate::tenant::book::Book;
use crate::tenant::key_of;

/// How long unknown answers are waited for before a pipeline goes on without them.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for a leader that has just begun: everything is asked at once, and to go on without an answer would
/// withdraw what the agents rightly collect.
const FIRST_PATIENCE: Duration = Duration::from_secs(30);
/// A pipeline, or what could not be read as one.
pub type Object = DeserializeGuard<LogPipeline>;

/// What the controller works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Whether agents see their nodes' files.
    pub host_paths: bool,
    /// Pipelines that exist.
    pub pipelines: Store<Object>,
    /// Namespaces that exist.
    pub namespaces: Mutex<Arc<BTreeMap<String, NamespaceFact>>>,
    /// `ServiceAccount`s that exist.
    pub accounts: Store<PartialObjectMeta<ServiceAccount>>,
    /// The answers of reviews.
    pub reviews: Reviews,
    /// What tenants say of themselves.
    pub book: Book,
    /// Where the fleet learns of pipelines.
    pub desired: Desired,
    /// What the agents say.
    pub observed: watch::Receiver<Arc<Observed>>,
    /// Writes status.
    pub writer: Writer,
    /// Publishes events.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// When this process became leader.
    pub started: Instant,
    /// Which pipelines have been decided about, and since when others wait.
    pub progress: Mutex<Progress>,
}

/// How far the pipelines are.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) decided: BTreeSet<Key>,
    pub(super) waiting: BTreeMap<Key, Instant>,
}

impl Context {
    /// Whether every pipeline has been decided about: the fleet may act on what is wanted.
    pub fn is_settled(&self) -> bool {
        let progress = self.progress();
        self.pipelines
            .state()
            .iter()
            .all(|object| progress.decided.contains(&key_of(object.as_ref())))
    }

    /// Whether a pipeline may go on with what is known.
    pub(super) fn decide(&self, key: &Key, pending: bool) -> bool {
        let mut progress = self.progress();
        let since = *progress.waiting.entry(key.clone()).or_insert_with(Instant::now);
        let begins = self.started.elapsed() < FIRST_PATIENCE && !progress.decided.contains(key);
        if pending && (begins || since.elapsed() < PATIENCE) {
            return false;
        }
        if !pending {
            progress.waiting.remove(key);
        }
        progress.decided.insert(key.clone());
        true
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn namespaces(&self) -> Arc<BTreeMap<String, NamespaceFact>> {
        Arc::clone(&self.namespaces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
