//! What the controllers of the kinds hand to the fleet: pipelines and tenants that are resolved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sluice_engine::credentials::Credentials;
use sluice_engine::document::{Pipeline, Tenant};
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;
use tokio::sync::{Notify, watch};

/// What one `LogPipeline` wants of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineShare {
    /// Its document entry; absent while nothing may be collected for it.
    pub pipeline: Option<Pipeline>,
    /// What it may not collect, for the pointers' deny lists.
    pub deny: Vec<Denial>,
}

/// What one `LokiTenant` wants of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantShare {
    /// Its document entry.
    pub tenant: Tenant,
    /// Its credentials, for the credential Secrets; absent for a tenant without any.
    pub credentials: Option<Credentials>,
}

/// Everything that is resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// By pipeline.
    pub pipelines: BTreeMap<Key, PipelineShare>,
    /// By tenant. Only those that a pipeline refers to reach a document.
    pub tenants: BTreeMap<Key, TenantShare>,
}

/// The place where the controllers leave their shares and the fleet's task takes them.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    shares: Arc<Mutex<Shares>>,
    changed: Arc<Notify>,
    complete: Arc<watch::Sender<bool>>,
}

impl Desired {
    /// Replaces a pipeline's share; `None` removes it. Wakes the fleet only on a change.
    pub fn set_pipeline(&self, key: &Key, share: Option<PipelineShare>) {
        self.edit(|shares| replace(&mut shares.pipelines, key, share));
    }

    /// Replaces a tenant's share; `None` removes it. Wakes the fleet only on a change.
    pub fn set_tenant(&self, key: &Key, share: Option<TenantShare>) {
        self.edit(|shares| replace(&mut shares.tenants, key, share));
    }

    /// Says that every object which exists has left its share once. Until then nothing is written: a leader
    /// that has just begun would otherwise withdraw what it has not read yet.
    pub fn mark_complete(&self) {
        self.complete.send_replace(true);
    }

    /// Waits for [`Desired::mark_complete`].
    pub async fn complete(&self) {
        // it fails only without a sender, and `self` is one
        self.complete
            .subscribe()
            .wait_for(|complete| *complete)
            .await
            .ok();
    }

    /// What is wanted now.
    pub fn snapshot(&self) -> Shares {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn edit(&self, change: impl FnOnce(&mut Shares) -> bool) {
        let changed = change(&mut self.shares.lock().unwrap_or_else(PoisonError::into_inner));
        if changed {
            self.changed.notify_one();
        }
    }
}

fn replace<T: PartialEq>(map: &mut BTreeMap<Key, T>, key: &Key, share: Option<T>) -> bool {
    match share {
        Some(share) if map.get(key) == Some(&share) => false,
        Some(share) => {
            map.insert(key.clone(), share);
            true
        }
        None => map.remove(key).is_some(),
    }
}
