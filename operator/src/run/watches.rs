//! Watches of what objects depend on in; those that are touched woken out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use sluice_engine::key::Key;
use sluice_engine::well_known::CREDENTIALS_LABEL;
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::object_side::spawn;
use crate::admin::Metrics;
use crate::fleet::observed::Observed;
use crate::logpipeline;
use crate::logpipeline::authorize::NamespaceFact;
use crate::logpipeline::touched::{Touched, touched};
use crate::reviews::watch::{Change, follow};
use crate::tenant::book::Book;
use crate::tenant::key_of;

/// Labelled Secrets of each namespace where tenants count, and nothing of others.
pub(super) async fn watch_secrets(
    client: &Client,
    tenant_namespaces: &BTreeSet<String>,
    wake: &mpsc::UnboundedSender<Key>,
    book: &Book,
    tasks: &mut Vec<AbortOnDropHandle<()>>,
) -> BTreeMap<String, Store<Secret>> {
    let mut stores = BTreeMap::new();
    for namespace in tenant_namespaces {
        let (store, writer) = reflector::store();
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().labels(&format!("{CREDENTIALS_LABEL}=true"));
        let (namespace_, wake, book) = (namespace.clone(), wake.clone(), book.clone());
        spawn(tasks, async move {
            follow(api, config, Some(writer), |_| {
                for tenant in book
                    .tenants()
                    .into_iter()
                    .filter(|tenant| tenant.namespace == namespace_)
                {
                    // Nobody listens any more when the operator ends.
                    let _ended = wake.send(tenant);
                }
            })
            .await;
        });
        stores.insert(namespace.clone(), store);
    }
    for store in stores.values() {
        // A namespace whose Secrets may not be listed must not keep the others waiting.
        let _filled = tokio::time::timeout(Duration::from_secs(10), store.wait_until_ready()).await;
    }
    stores
}

/// Namespaces: their labels and UIDs decide what is selected, and who consents.
pub(super) async fn watch_namespaces(
    client: Client,
    context: Arc<logpipeline::Context>,
    store: Store<PartialObjectMeta<Namespace>>,
    writer: reflector::store::Writer<PartialObjectMeta<Namespace>>,
    wake: mpsc::UnboundedSender<Key>,
) {
    let last: Mutex<BTreeMap<String, NamespaceFact>> = Mutex::default();
    follow(Api::all(client), watcher::Config::default(), Some(writer), |_| {
        let facts: BTreeMap<String, NamespaceFact> = store
            .state()
            .iter()
            .map(|namespace| (namespace.name_any(), fact(namespace)))
            .collect();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let changed: BTreeSet<&String> = facts
            .keys()
            .chain(last.keys())
            .filter(|name| facts.get(*name) != last.get(*name))
            .collect();
        if changed.is_empty() {
            return;
        }
        *context.namespaces.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(facts.clone());
        for pipeline in context.pipelines.state() {
            let own = pipeline
                .namespace()
                .is_some_and(|namespace| changed.contains(&namespace));
            let selected = pipeline.0.as_ref().is_ok_and(|pipeline| {
                let namespaces = pipeline
                    .spec
                    .sources
                    .pods
                    .as_ref()
                    .and_then(|pods| pods.namespaces.as_ref());
                namespaces.is_some_and(|spec| {
                    spec.all == Some(true)
                        || spec.selector.is_some()
                        || spec.names.iter().flatten().any(|name| changed.contains(name))
                })
            });
            if own || selected {
                let _ended = wake.send(key_of(pipeline.as_ref()));
            }
        }
        *last = facts;
    })
    .await;
}

fn fact(namespace: &PartialObjectMeta<Namespace>) -> NamespaceFact {
    NamespaceFact {
        uid: namespace.uid().unwrap_or_default(),
        created_at: namespace.creation_timestamp().map(|time| time.0.as_second()),
        labels: namespace.labels().clone(),
    }
}

/// `ServiceAccount`s: a pipeline whose account is gone collects nothing.
pub(super) async fn watch_accounts(
    client: Client,
    pipelines: Store<logpipeline::Object>,
    writer: reflector::store::Writer<PartialObjectMeta<ServiceAccount>>,
    wake: mpsc::UnboundedSender<Key>,
) {
    follow(
        Api::all(client),
        watcher::Config::default(),
        Some(writer),
        |change| {
            let namespace = match change {
                Change::Object(account) => account.namespace(),
                Change::All => None,
            };
            for pipeline in pipelines.state() {
                if namespace.is_none() || pipeline.namespace() == namespace {
                    let _ended = wake.send(key_of(pipeline.as_ref()));
                }
            }
        },
    )
    .await;
}

/// What the nodes say: wakes whose status may differ by it.
pub(super) async fn watch_observed(
    mut observed: watch::Receiver<Arc<Observed>>,
    pipelines: Store<logpipeline::Object>,
    book: Book,
    metrics: Metrics,
    wake_pipeline: mpsc::UnboundedSender<Key>,
    wake_tenant: mpsc::UnboundedSender<Key>,
) {
    let mut last = Arc::new(Observed::default());
    loop {
        let now = Arc::clone(&observed.borrow_and_update());
        metrics.agents(
            now.nodes.len(),
            now.nodes.values().filter(|node| node.agent.is_some()).count(),
        );
        let (due, tenants) = match touched(&last, &now) {
            Touched::All => (
                pipelines
                    .state()
                    .iter()
                    .map(|pipeline| key_of(pipeline.as_ref()))
                    .collect(),
                book.tenants().into_iter().collect(),
            ),
            Touched::Some(pipelines, tenants) => (pipelines, tenants),
        };
        for key in due {
            let _ended = wake_pipeline.send(key);
        }
        for key in tenants {
            let _ended = wake_tenant.send(key);
        }
        last = now;
        // Many nodes answer at once.
        tokio::time::sleep(Duration::from_millis(250)).await;
        if observed.changed().await.is_err() {
            return;
        }
    }
}
