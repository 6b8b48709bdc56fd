//! What is rendered in, what stands in the cluster out. A quiet fleet costs no request.
//!
//! The order has reasons: what is mounted or named comes before what mounts or names it, so identity and its rights,
//! Secrets and documents, then the pointers that name versions and documents, then the agents that mount the Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_engine::well_known::pointer_name;

use super::error::Error;
use super::render::{Rendered, pointer};
use super::view::{Kind, Live, Written};
use crate::cluster::prune::delete;
use crate::cluster::{apply, names};

/// Pointers written at the same time.
const CONCURRENCY: usize = 32;

/// What stands in the cluster after a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// `resourceVersion`s of the credential Secrets that the pointers name.
    pub credentials: BTreeMap<String, String>,
    /// Names of everything that is wanted, for `prune`.
    pub wanted: BTreeSet<String>,
    /// What was written, in its new version; empty when nothing had to be.
    pub written: Vec<Written>,
}

/// Writes one fleet; keeps what the server makes of a `DaemonSet` whose quantities it rewrites.
pub struct Writer {
    client: Client,
    namespace: String,
    accepted: Option<(DaemonSet, Option<i64>)>,
}

impl Writer {
    /// Writes into `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            accepted: None,
        }
    }

    /// Applies every object of a fleet that is not live already. One that is refused keeps no other from being
    /// written, above all not the pointers: what is withdrawn must not wait for a Secret that is too large.
    ///
    /// # Errors
    /// When a write is refused, with the first refusal; at once when a pointer shows that a later leader has
    /// written it.
    pub async fn apply(&mut self, live: &Live, rendered: Rendered) -> Result<Applied, Error> {
        let Rendered {
            service_account,
            authority,
            status_secret,
            credentials,
            documents,
            pointers,
            role_bindings,
            daemon_set,
        } = rendered;
        let mut applied = Applied::default();
        let live_account = live.service_account.as_deref();
        let mut first = self
            .put(Kind::ServiceAccount, &service_account, live_account, &mut applied)
            .await
            .map(drop);
        for secret in [&authority, &status_secret] {
            first = first.and(self.put_new(secret, live, &mut applied).await);
        }
        first = first.and(self.bind(&role_bindings, live, &mut applied).await);
        let mut versions = BTreeMap::new();
        for secret in &credentials {
            let name = secret.name_any();
            let current = live.secrets.get(&name).map(Arc::as_ref);
            let put = self.put(Kind::Secret, secret, current, &mut applied).await;
            let version = put.unwrap_or_else(|error| {
                first = std::mem::replace(&mut first, Ok(())).and(Err(error));
                current.and_then(ResourceExt::resource_version)
            });
            versions.extend(version.map(|version| (name, version)));
        }
        let mut stored = Ok(());
        for document in &documents {
            stored = stored.and(self.create(document, live, &mut applied).await);
        }
        applied.credentials = pointers.credentials(&versions);
        let pointed = self
            .put_pointers(live, &pointers, &versions, stored.is_ok(), &mut applied)
            .await;
        if matches!(pointed, Err(Error::Deposed { .. })) {
            return pointed.map(|()| applied);
        }
        first = first.and(stored).and(pointed);
        first = first.and(self.put_daemon_set(live, daemon_set, &mut applied).await);
        first.map(|()| applied)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies an object unless the live one holds it already; returns its version.
    async fn put<K>(
        &self,
        kind: Kind,
        wanted: &K,
        current: Option<&K>,
        applied: &mut Applied,
    ) -> Result<Option<String>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Serialize
            + DeserializeOwned
            + Debug,
    {
        applied.wanted.insert(wanted.name_any());
        if let Some(current) = current.filter(|current| apply::settled(wanted, *current)) {
            return Ok(current.resource_version());
        }
        let seen = current.and_then(ResourceExt::resource_version);
        let stored = apply::apply(&self.api::<K>(), wanted, seen.as_deref())
            .await
            .map_err(Error::apply(wanted))?;
        note(kind, &stored, applied);
        Ok(stored.resource_version())
    }

    /// A Secret whose content is chosen by chance: one that exists but was not seen yet is never overwritten.
    async fn put_new(&self, secret: &Secret, live: &Live, applied: &mut Applied) -> Result<(), Error> {
        let current = live.secrets.get(&secret.name_any()).map(Arc::as_ref);
        if current.is_some() {
            self.put(Kind::Secret, secret, current, applied).await?;
        } else {
            applied.wanted.insert(secret.name_any());
            let stored = self
                .api()
                .create(&create_params(), secret)
                .await
                .map_err(Error::apply(secret))?;
            note(Kind::Secret, &stored, applied);
        }
        Ok(())
    }

    /// The agents' right to read through the API, taken away where nobody does any more and given where somebody does.
    /// Not left to `prune`, which comes only when everything else is written.
    async fn bind(&self, wanted: &[RoleBinding], live: &Live, applied: &mut Applied) -> Result<(), Error> {
        let api = |namespace: &str| Api::<RoleBinding>::namespaced(self.client.clone(), namespace);
        let mut first = Ok(());
        for (namespace, binding) in &live.role_bindings {
            if wanted
                .iter()
                .any(|wanted| wanted.namespace().as_ref() == Some(namespace))
            {
                continue;
            }
            let deleted = delete(&api(namespace), binding.as_ref()).await;
            match deleted {
                Ok(_) => tracing::info!(
                    namespace,
                    "nobody reads through the API here any more: the agents' right is deleted"
                ),
                Err(error) => first = first.and(Err(Error::apply(binding.as_ref())(error))),
            }
        }
        for binding in wanted {
            let namespace = binding.namespace().unwrap_or_default();
            let current = live.role_bindings.get(&namespace);
            if current.is_some_and(|current| apply::settled(binding, current.as_ref())) {
                continue;
            }
            match apply::apply(&api(&namespace), binding, None).await {
                Ok(stored) => note(Kind::RoleBinding, &stored, applied),
                Err(error) => first = first.and(Err(Error::apply(binding)(error))),
            }
        }
        first
    }

    /// A document's part: immutable and named by content, so that its existence is all there is to see to.
    async fn create(&self, part: &ConfigMap, live: &Live, applied: &mut Applied) -> Result<(), Error> {
        let name = part.name_any();
        applied.wanted.insert(name.clone());
        if live.documents.contains_key(&name) {
            return Ok(());
        }
        match self.api().create(&create_params(), part).await {
            Ok(stored) => note(Kind::ConfigMap, &stored, applied),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(Error::apply(part)(error)),
        }
        Ok(())
    }

    /// Writes the pointers that changed, many at a time; one that fails keeps no other from being written. When the
    /// document is not `stored`, they go on naming the one that they name.
    async fn put_pointers(
        &self,
        live: &Live,
        pointers: &pointer::Pointers,
        versions: &BTreeMap<String, String>,
        stored: bool,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let api: Api<ConfigMap> = self.api();
        let mut changed = Vec::new();
        for node in &pointers.nodes {
            let current = live.pointers.get(&pointer_name(node));
            let says = current.and_then(|current| pointer::read(current));
            if let Some(says) = says
                .as_ref()
                .filter(|says| says.transitions > pointers.transitions)
            {
                return Err(Error::Deposed {
                    theirs: says.transitions,
                    ours: pointers.transitions,
                });
            }
            let wanted = match &says {
                Some(says) if !stored => {
                    let mut pointers = pointers.clone();
                    pointers.document.clone_from(&says.document);
                    pointers.render(node, versions, Some(says))
                }
                _ => pointers.render(node, versions, says.as_ref()),
            };
            applied.wanted.insert(wanted.name_any());
            if !current.is_some_and(|current| apply::settled(&wanted, current)) {
                changed.push((wanted, current.and_then(|current| current.resource_version())));
            }
        }
        let mut results = stream::iter(changed)
            .map(|(wanted, seen)| {
                let api = api.clone();
                async move {
                    apply::apply(&api, &wanted, seen.as_deref())
                        .await
                        .map_err(Error::apply(&wanted))
                }
            })
            .buffer_unordered(CONCURRENCY);
        let mut first = Ok(());
        while let Some(result) = results.next().await {
            match result {
                Ok(stored) => note(Kind::ConfigMap, &stored, applied),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    async fn put_daemon_set(
        &mut self,
        live: &Live,
        wanted: DaemonSet,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let current = live.daemon_set.as_deref();
        // the server writes quantities in a form of its own: what it once made of this very wish is settled too
        let generation = current.and_then(|current| current.metadata.generation);
        if self
            .accepted
            .as_ref()
            .is_some_and(|(wish, made)| *wish == wanted && *made == generation)
        {
            applied.wanted.insert(wanted.name_any());
            return Ok(());
        }
        // not tied to the seen version: the controller's status counts as a change as well
        applied.wanted.insert(wanted.name_any());
        if !current.is_some_and(|current| apply::settled(&wanted, current)) {
            let stored = apply::apply(&self.api(), &wanted, None)
                .await
                .map_err(Error::apply(&wanted))?;
            note(Kind::DaemonSet, &stored, applied);
            self.accepted = Some((wanted, stored.metadata.generation));
        }
        Ok(())
    }
}

fn create_params() -> PostParams {
    PostParams {
        field_manager: Some(names::FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

fn note<K: Resource<DynamicType = ()>>(kind: Kind, stored: &K, applied: &mut Applied) {
    let (name, version) = (stored.name_any(), stored.resource_version().unwrap_or_default());
    let namespace = stored.namespace().unwrap_or_default();
    super::metrics().writes.inc();
    tracing::debug!(kind = %K::kind(&()), name, version, "written");
    applied.written.push(Written {
        kind,
        namespace,
        name,
        version,
    });
}
