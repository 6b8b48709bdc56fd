//! Watches in, the live state of our objects, nodes and agents' pods out, without a request per look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use sluice_engine::well_known::AGENT;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::render::{daemon_set, document_parts, pod_logs, pointer};
use crate::cluster::names::{COMPONENT, Owner, managed_selector};

mod mirror;

use mirror::{mirror, trim_config_map, trim_node, trim_pod};

/// How long to wait for the watches to show what was written.
const CATCH_UP: Duration = Duration::from_secs(2);

/// The watches.
pub struct View {
    cluster_roles: Store<ClusterRole>,
    role_bindings: Store<RoleBinding>,
    service_accounts: Store<ServiceAccount>,
    secrets: Store<Secret>,
    config_maps: Store<ConfigMap>,
    daemon_sets: Store<DaemonSet>,
    nodes: Store<Node>,
    pods: Store<Pod>,
    /// Told of every change of our objects.
    pub ours: watch::Sender<()>,
    /// Told of every change of a node.
    pub nodes_changed: watch::Sender<()>,
    /// Told of every change of an agent's pod or the `DaemonSet`.
    pub agents_changed: watch::Sender<()>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Our objects at one moment, by name.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// The owner of all.
    pub owner: Option<Owner>,
    /// Identity of the agents.
    pub service_account: Option<Arc<ServiceAccount>>,
    /// The agents.
    pub daemon_set: Option<Arc<DaemonSet>>,
    /// Secrets that we made.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Parts of documents, without their content.
    pub documents: BTreeMap<String, Arc<ConfigMap>>,
    /// Nodes' pointers.
    pub pointers: BTreeMap<String, Arc<ConfigMap>>,
    /// What lets agents read through the API, by namespace.
    pub role_bindings: BTreeMap<String, Arc<RoleBinding>>,
}

/// An object as the server stored it: the watches will show this version or a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `resourceVersion`.
    pub version: String,
}

/// Kinds of our objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `v1` `ServiceAccount`.
    ServiceAccount,
    /// `v1` `Secret`.
    Secret,
    /// `v1` `ConfigMap`.
    ConfigMap,
    /// `apps/v1` `DaemonSet`.
    DaemonSet,
    /// `rbac.authorization.k8s.io/v1` `RoleBinding`.
    RoleBinding,
}

impl View {
    /// Begins to watch.
    pub fn watch(client: &Client, namespace: &str) -> Self {
        let (ours, nodes_changed, agents_changed) = (
            watch::Sender::new(()),
            watch::Sender::new(()),
            watch::Sender::new(()),
        );
        let mut tasks = Vec::new();
        let named = watcher::Config::default().fields(&format!("metadata.name={AGENT}"));
        let managed = watcher::Config::default().labels(&managed_selector());
        let labels: Vec<_> = daemon_set::selector()
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let agents = watcher::Config::default().labels(&labels.join(","));
        let own = namespace;
        Self {
            role_bindings: mirror(
                Api::all(client.clone()),
                managed.clone(),
                &[&ours],
                |_| {},
                &mut tasks,
            ),
            cluster_roles: mirror(
                Api::all(client.clone()),
                named.clone(),
                &[&ours],
                |_| {},
                &mut tasks,
            ),
            service_accounts: mirror(
                Api::namespaced(client.clone(), own),
                named.clone(),
                &[&ours],
                |_| {},
                &mut tasks,
            ),
            secrets: mirror(
                Api::namespaced(client.clone(), own),
                managed.clone(),
                &[&ours],
                |_| {},
                &mut tasks,
            ),
            config_maps: mirror(
                Api::namespaced(client.clone(), own),
                managed,
                &[&ours],
                trim_config_map,
                &mut tasks,
            ),
            daemon_sets: mirror(
                Api::namespaced(client.clone(), own),
                named,
                &[&ours, &agents_changed],
                |_| {},
                &mut tasks,
            ),
            nodes: mirror(
                Api::all(client.clone()),
                watcher::Config::default(),
                &[&nodes_changed],
                trim_node,
                &mut tasks,
            ),
            pods: mirror(
                Api::namespaced(client.clone(), own),
                agents,
                &[&agents_changed],
                trim_pod,
                &mut tasks,
            ),
            ours,
            nodes_changed,
            agents_changed,
            _tasks: tasks,
        }
    }

    /// Waits until every watch has shown what exists.
    pub async fn ready(&self) {
        // it fails only when the watch's task has ended, and it never does
        self.cluster_roles.wait_until_ready().await.ok();
        self.role_bindings.wait_until_ready().await.ok();
        self.service_accounts.wait_until_ready().await.ok();
        self.secrets.wait_until_ready().await.ok();
        self.config_maps.wait_until_ready().await.ok();
        self.daemon_sets.wait_until_ready().await.ok();
        self.nodes.wait_until_ready().await.ok();
        self.pods.wait_until_ready().await.ok();
    }

    /// Our objects now.
    pub fn live(&self) -> Live {
        let mut live = Live {
            owner: self
                .cluster_roles
                .state()
                .iter()
                .find(|role| role.metadata.deletion_timestamp.is_none())
                .and_then(|role| role.metadata.uid.clone())
                .map(|uid| Owner { uid }),
            service_account: self.service_accounts.state().into_iter().next(),
            daemon_set: self.daemon_sets.state().into_iter().next(),
            secrets: by_name(self.secrets.state()),
            role_bindings: self
                .role_bindings
                .state()
                .into_iter()
                .filter(|binding| binding.metadata.name.as_deref() == Some(pod_logs::NAME))
                .filter_map(|binding| Some((binding.metadata.namespace.clone()?, binding)))
                .collect(),
            ..Live::default()
        };
        for (name, config_map) in by_name(self.config_maps.state()) {
            let component = config_map
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(COMPONENT));
            match component.map(String::as_str) {
                Some(document_parts::COMPONENT) => drop(live.documents.insert(name, config_map)),
                Some(pointer::COMPONENT) => drop(live.pointers.insert(name, config_map)),
                _ => {}
            }
        }
        live
    }

    /// The agents' `DaemonSet` now.
    pub fn daemon_set(&self) -> Option<Arc<DaemonSet>> {
        self.daemon_sets.state().into_iter().next()
    }

    /// All nodes now.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.state()
    }

    /// The agents' pods now.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.state()
    }

    /// Waits a short while for the watches to show what was written, so that the next look is not a stale one.
    pub async fn caught_up(&self, written: &[Written]) {
        let mut left: Vec<&Written> = written.iter().collect();
        let waiting = async {
            while !left.is_empty() {
                left.retain(|written| !self.shows(written));
                tokio::time::sleep(Duration::from_millis(if left.is_empty() { 0 } else { 20 })).await;
            }
        };
        if tokio::time::timeout(CATCH_UP, waiting).await.is_err() {
            tracing::debug!("the watches are late");
        }
    }

    fn shows(&self, written: &Written) -> bool {
        fn version<K>(store: &Store<K>, name: &str, namespace: &str) -> Option<String>
        where
            K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + 'static,
        {
            store
                .get(&ObjectRef::new(name).within(namespace))?
                .meta()
                .resource_version
                .clone()
        }
        let Written {
            kind,
            namespace,
            name,
            version: wanted,
        } = written;
        let seen = match kind {
            Kind::ServiceAccount => version(&self.service_accounts, name, namespace),
            Kind::Secret => version(&self.secrets, name, namespace),
            Kind::ConfigMap => version(&self.config_maps, name, namespace),
            Kind::DaemonSet => version(&self.daemon_sets, name, namespace),
            Kind::RoleBinding => version(&self.role_bindings, name, namespace),
        };
        seen.is_some_and(|seen| match (seen.parse::<u64>(), wanted.parse::<u64>()) {
            (Ok(seen), Ok(wanted)) => seen >= wanted,
            _ => seen == *wanted,
        })
    }
}

fn by_name<K: Resource>(objects: Vec<Arc<K>>) -> BTreeMap<String, Arc<K>> {
    objects
        .into_iter()
        .filter_map(|object| Some((object.meta().name.clone()?, object)))
        .collect()
}
