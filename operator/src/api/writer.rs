//! A computed status and the one that stands in; one request, or none, out.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_engine::key::Key;
use tokio::time::Instant;

use super::logpipeline::{Display, LogPipelineStatus};
use super::lokitenant::LokiTenantStatus;
use crate::cluster::names::STATUS_MANAGER;

/// How often figures that change by themselves are written, such as lag.
pub const FIGURES_EVERY: Duration = Duration::from_mins(1);
/// How often counts are written that follow what people do, such as nodes during a rollout: often enough to
/// watch, rare enough for thousands of nodes.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// A status whose meaning can be told from its figures.
pub trait Meaning: Clone + PartialEq + Serialize + Debug {
    /// The status without figures that change by themselves.
    #[must_use]
    fn progress(&self) -> Self;

    /// The status without any figures.
    #[must_use]
    fn meaning(&self) -> Self;
}

impl Meaning for LogPipelineStatus {
    fn progress(&self) -> Self {
        let mut bare = self.clone();
        bare.rejected.clear();
        bare.lost = None;
        bare.gap_count = None;
        if let Some(display) = &mut bare.display {
            display.lag = String::new();
        }
        for node in &mut bare.worst_nodes {
            node.lag_seconds = None;
        }
        bare
    }

    fn meaning(&self) -> Self {
        let mut bare = self.progress();
        bare.nodes = None;
        bare.display = bare.display.map(|display| Display {
            tenants: display.tenants,
            ..Display::default()
        });
        if let Some(namespaces) = &mut bare.namespaces {
            namespaces.granted_count = 0;
            namespaces.denied_count = 0;
        }
        bare
    }
}

impl Meaning for LokiTenantStatus {
    fn progress(&self) -> Self {
        self.clone()
    }

    fn meaning(&self) -> Self {
        Self {
            pipelines: None,
            ..self.clone()
        }
    }
}

/// What became of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It stands already.
    Same,
    /// Only figures differ: to be written after this long.
    Later(Duration),
    /// It was written.
    Now,
}

/// The status of an object that cannot be read as a whole: without it the same would be written for ever.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn stored<K, S>(client: &Client, key: &Key) -> Result<S, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    S: DeserializeOwned + Default,
{
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
    let object = api.get_opt(&key.name).await?;
    let status = object.and_then(|object| object.data.get("status").cloned());
    Ok(status
        .and_then(|status| serde_json::from_value(status).ok())
        .unwrap_or_default())
}

/// Writes status, and remembers when.
#[derive(Debug, Default)]
pub struct Writer {
    last: Mutex<BTreeMap<Key, Instant>>,
}

impl Writer {
    /// Writes `new` over `old` where they differ: counts at most every two seconds, lag and refusals alone at
    /// most once a minute.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn write<K, S>(
        &self,
        client: &Client,
        key: &Key,
        old: &S,
        new: &S,
    ) -> Result<Written, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        S: Meaning,
    {
        match self.due(key, old, new, Instant::now()) {
            Written::Now => {}
            other @ (Written::Same | Written::Later(_)) => return Ok(other),
        }
        let body = serde_json::json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": new,
        });
        let api: Api<kube::core::PartialObjectMeta<K>> = Api::namespaced(client.clone(), &key.namespace);
        api.patch_status(
            &key.name,
            &PatchParams::apply(STATUS_MANAGER).force(),
            &Patch::Apply(&body),
        )
        .await?;
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key.clone(), Instant::now());
        Ok(Written::Now)
    }

    fn due<S: Meaning>(&self, key: &Key, old: &S, new: &S, now: Instant) -> Written {
        if old == new {
            return Written::Same;
        }
        if old.meaning() != new.meaning() {
            return Written::Now;
        }
        let last = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .copied();
        let every = if old.progress() == new.progress() {
            FIGURES_EVERY
        } else {
            PROGRESS_EVERY
        };
        match last.and_then(|last| every.checked_sub(now.saturating_duration_since(last))) {
            Some(rest) if !rest.is_zero() => Written::Later(rest),
            Some(_) | None => Written::Now,
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, key: &Key) {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::logpipeline::{NodeCounts, RejectedLines};

    #[test]
    fn lag_is_written_once_a_minute_counts_every_two_seconds_and_meaning_at_once() {
        let writer = Writer::default();
        let key = Key::new("a", "b");
        let now = Instant::now();
        let old = LogPipelineStatus::default();
        assert_eq!(writer.due(&key, &old, &old, now), Written::Same);
        let lag = LogPipelineStatus {
            rejected: vec![RejectedLines {
                reason: "line_too_long".into(),
                lines: 1,
            }],
            ..old.clone()
        };
        let counts = LogPipelineStatus {
            nodes: Some(NodeCounts::default()),
            ..old.clone()
        };
        assert_eq!(writer.due(&key, &old, &lag, now), Written::Now);
        writer.last.lock().unwrap().insert(key.clone(), now);
        let later = now + Duration::from_secs(20);
        assert_eq!(
            writer.due(&key, &old, &lag, later),
            Written::Later(Duration::from_secs(40))
        );
        assert_eq!(
            writer.due(&key, &old, &lag, now + Duration::from_mins(1)),
            Written::Now
        );
        assert_eq!(
            writer.due(&key, &old, &counts, now + Duration::from_secs(1)),
            Written::Later(Duration::from_secs(1))
        );
        assert_eq!(writer.due(&key, &old, &counts, later), Written::Now);
        let meaning = LogPipelineStatus {
            diagnosis: Some("x".into()),
            ..old.clone()
        };
        assert_eq!(writer.due(&key, &old, &meaning, later), Written::Now);
    }
}
