//! What tenants say of themselves in, what pipelines may know of them out; each side wakes the other on a change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_engine::key::Key;
use tokio::sync::mpsc::UnboundedSender;

use crate::api::lokitenant::AllowedNamespaces;

/// What pipelines need to know of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whose pipelines it serves.
    pub allowed: AllowedNamespaces,
    /// Content hash of its document entry; absent while it cannot be used.
    pub hash: Option<String>,
    /// Reason of its trouble.
    pub trouble: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Inner {
    tenants: BTreeMap<Key, Facts>,
    mentions: BTreeMap<Key, BTreeSet<Key>>,
    served: BTreeMap<Key, BTreeSet<Key>>,
    complete: bool,
}

/// The place where tenants and pipelines learn of each other.
#[derive(Clone, Debug)]
pub struct Book {
    inner: Arc<Mutex<Inner>>,
    wake_pipeline: UnboundedSender<Key>,
    wake_tenant: UnboundedSender<Key>,
}

impl Book {
    /// An empty book that wakes objects through these channels.
    pub fn new(wake_pipeline: UnboundedSender<Key>, wake_tenant: UnboundedSender<Key>) -> Self {
        Self {
            inner: Arc::default(),
            wake_pipeline,
            wake_tenant,
        }
    }

    /// A tenant's facts; `None` when it is gone.
    pub fn publish(&self, tenant: &Key, facts: Option<Facts>) {
        let mut inner = self.inner();
        let changed = match facts {
            Some(facts) if inner.tenants.get(tenant) == Some(&facts) => false,
            Some(facts) => {
                inner.tenants.insert(tenant.clone(), facts);
                true
            }
            None => inner.tenants.remove(tenant).is_some(),
        };
        if changed {
            let waiting = inner
                .mentions
                .iter()
                .filter(|(_, tenants)| tenants.contains(tenant));
            for (pipeline, _) in waiting {
                // Nobody listens any more when the operator ends.
                let _ended = self.wake_pipeline.send(pipeline.clone());
            }
        }
    }

    /// Which tenants a pipeline mentions, and which of them serve it.
    pub fn refer(&self, pipeline: &Key, mentions: BTreeSet<Key>, served: &BTreeSet<Key>) {
        let mut inner = self.inner();
        inner.mentions.insert(pipeline.clone(), mentions);
        let before = inner
            .served
            .insert(pipeline.clone(), served.clone())
            .unwrap_or_default();
        drop(inner);
        self.wake(before.symmetric_difference(served));
    }

    /// A pipeline is gone.
    pub fn forget(&self, pipeline: &Key) {
        let mut inner = self.inner();
        inner.mentions.remove(pipeline);
        let before = inner.served.remove(pipeline).unwrap_or_default();
        drop(inner);
        self.wake(before.iter());
    }

    /// What is known of a tenant.
    pub fn get(&self, tenant: &Key) -> Option<Facts> {
        self.inner().tenants.get(tenant).cloned()
    }

    /// Every tenant that was published.
    pub fn tenants(&self) -> Vec<Key> {
        self.inner().tenants.keys().cloned().collect()
    }

    /// How many pipelines a tenant serves; unknown before [`Book::mark_complete`].
    pub fn pipelines(&self, tenant: &Key) -> Option<u32> {
        let inner = self.inner();
        let count = inner
            .served
            .values()
            .filter(|tenants| tenants.contains(tenant))
            .count();
        inner.complete.then(|| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Every pipeline has been looked at.
    pub fn mark_complete(&self) {
        let mut inner = self.inner();
        inner.complete = true;
        let tenants: Vec<Key> = inner.tenants.keys().cloned().collect();
        drop(inner);
        self.wake(tenants.iter());
    }

    fn wake<'a>(&self, tenants: impl Iterator<Item = &'a Key>) {
        for tenant in tenants {
            let _ended = self.wake_tenant.send(tenant.clone());
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
