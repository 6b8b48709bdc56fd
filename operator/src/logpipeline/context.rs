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
use super::totals::{Counts, Totals};
use crate::admin::Metrics;
use crate::api::LogPipeline;
use crate::api::logpipeline::LogPipelineStatus;
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
    /// What the nodes counted of each pipeline, and its UID.
    pub totals: Mutex<BTreeMap<Key, (String, Totals)>>,
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

    /// The totals of a pipeline, with what the nodes say now. Until every node has spoken once, the status of the
    /// last leader says which of it is counted already.
    pub(super) fn count(&self, key: &Key, uid: &str, old: &LogPipelineStatus, observed: &Observed) -> Counts {
        let mut all = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || (uid.to_owned(), Totals::begin(old));
        let (known, totals) = all.entry(key.clone()).or_insert_with(begin);
        if known != uid {
            (*known, *totals) = begin();
        }
        for (name, node) in &observed.nodes {
            if let Some(agent) = &node.agent
                && let Some(report) = agent.pipelines.get(key).filter(|report| report.uid == uid)
            {
                totals.take(name, agent.epoch, report);
            }
        }
        let mut nodes = observed.nodes.values();
        if !observed.document.is_empty() && nodes.all(|node| node.excused || node.agent.is_some()) {
            totals.all_spoke();
        }
        totals.total().clone()
    }

    /// Forgets a pipeline's totals.
    pub(super) fn uncount(&self, key: &Key) {
        self.totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn namespaces(&self) -> Arc<BTreeMap<String, NamespaceFact>> {
        Arc::clone(&self.namespaces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
