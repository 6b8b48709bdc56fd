//! The ends of the fleet ([`Desired`], [`Observed`]) in; watches, reviews and the two controllers running out.
//!
//! Tests run this against a real API server and play the fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use sluice_engine::key::Key;
use sluice_engine::well_known::CREDENTIALS_LABEL;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::Metrics;
use crate::api::writer::Writer;
use crate::cluster::events::Events;
use crate::fleet::desired::Desired;
use crate::fleet::observed::Observed;
use crate::logpipeline::authorize::NamespaceFact;
use crate::logpipeline::touched::{Touched, touched};
use crate::reviews::watch::{Change, follow};
use crate::reviews::{Reviews, ask, watch as rights};
use crate::tenant::book::Book;
use crate::tenant::key_of;
use crate::{logpipeline, tenant};

/// What the object side needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// This process, for events.
    pub identity: String,
    /// Namespaces where tenants count.
    pub tenant_namespaces: BTreeSet<String>,
    /// Ask for all namespaces first.
    pub review_all_namespaces: bool,
    /// Allow tenants on loopback and link-local addresses.
    pub allow_local_addresses: bool,
}

/// The object side, running; it ends when this is dropped.
pub struct Objects {
    pipelines: Arc<logpipeline::Context>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Objects {
    /// Waits until every pipeline has been decided about, so that the fleet withdraws nothing for want of
    /// having looked; at most 30 s.
    pub async fn settled(&self) {
        for _ in 0..300 {
            if self.pipelines.is_settled() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tracing::warn!("some pipelines are undecided after 30 s: they are not collected until they are");
    }
}

fn spawn(tasks: &mut Vec<AbortOnDropHandle<()>>, task: impl Future<Output = ()> + Send + 'static) {
    tasks.push(AbortOnDropHandle::new(tokio::spawn(task)));
}

/// Starts the object side and waits until its caches are filled.
#[expect(
    clippy::too_many_lines,
    reason = "wiring: each part is named once, in the order of the data path"
)]
pub async fn objects(
    client: Client,
    options: Options,
    metrics: Metrics,
    desired: Desired,
    observed: watch::Receiver<Arc<Observed>>,
) -> Objects {
    let mut tasks = Vec::new();
    let (wake_pipeline, pipelines_due) = mpsc::unbounded_channel();
    let (wake_tenant, tenants_due) = mpsc::unbounded_channel();
    let reviews = Reviews::new(options.review_all_namespaces, wake_pipeline.clone());
    let book = Book::new(wake_pipeline.clone(), wake_tenant.clone());
    let events = Events::new(client.clone(), &options.identity);
    spawn(
        &mut tasks,
        ask::run(client.clone(), reviews.clone(), metrics.clone()),
    );
    spawn(&mut tasks, rights::rights(client.clone(), reviews.clone()));

    let secrets = watch_secrets(&client, &options, &wake_tenant, &book, &mut tasks).await;
    let tenants = Arc::new(tenant::Context {
        client: client.clone(),
        namespaces: options.tenant_namespaces.clone(),
        allow_local: options.allow_local_addresses,
        secrets,
        book: book.clone(),
        desired: desired.clone(),
        observed: observed.clone(),
        writer: Writer::default(),
        events: events.clone(),
        metrics: metrics.clone(),
        probes: Mutex::default(),
    });
    run_tenants(&client, tenants, tenants_due, &mut tasks).await;

    let (pipelines, pipelines_writer) = reflector::store();
    let (namespaces, namespaces_writer) = reflector::store();
    let (accounts, accounts_writer) = reflector::store();
    let context = Arc::new(logpipeline::Context {
        client: client.clone(),
        pipelines: pipelines.clone(),
        namespaces: Mutex::default(),
        accounts: accounts.clone(),
        reviews,
        book: book.clone(),
        desired,
        observed: observed.clone(),
        writer: Writer::default(),
        events,
        metrics: metrics.clone(),
        started: Instant::now(),
        progress: Mutex::default(),
    });
    spawn(
        &mut tasks,
        watch_namespaces(
            client.clone(),
            Arc::clone(&context),
            namespaces.clone(),
            namespaces_writer,
            wake_pipeline.clone(),
        ),
    );
    spawn(
        &mut tasks,
        watch_accounts(
            client.clone(),
            pipelines.clone(),
            accounts_writer,
            wake_pipeline.clone(),
        ),
    );
    // The writers live as long as their tasks.
    let _filled = namespaces.wait_until_ready().await;
    let _filled = accounts.wait_until_ready().await;
    spawn(
        &mut tasks,
        watch_observed(
            observed,
            pipelines.clone(),
            book,
            metrics,
            wake_pipeline,
            wake_tenant,
        ),
    );

    let gone = Arc::clone(&context);
    let (read, mut listed) = watch::channel(false);
    let api = Api::all(client);
    let stream = main_stream(api, pipelines_writer, pipelines.clone(), read, move |key| {
        logpipeline::gone(key, &gone);
    });
    let controller = Controller::for_stream(stream, pipelines.clone())
        .with_config(kube::runtime::Config::default().concurrency(16))
        .reconcile_on(references(pipelines_due))
        .run(
            logpipeline::reconcile,
            logpipeline::error_policy,
            Arc::clone(&context),
        );
    spawn(&mut tasks, controller.for_each(|_| std::future::ready(())));
    let _filled = listed.wait_for(|read| *read).await;
    Objects {
        pipelines: context,
        _tasks: tasks,
    }
}

async fn run_tenants(
    client: &Client,
    context: Arc<tenant::Context>,
    due: mpsc::UnboundedReceiver<Key>,
    tasks: &mut Vec<AbortOnDropHandle<()>>,
) {
    let (store, writer) = reflector::store();
    let gone = Arc::clone(&context);
    let (read, mut listed) = watch::channel(false);
    let api = Api::all(client.clone());
    let stream = main_stream(api, writer, store.clone(), read, move |key| {
        tenant::gone(key, &gone);
    });
    let book = context.book.clone();
    let controller = Controller::for_stream(stream, store.clone())
        .with_config(kube::runtime::Config::default().concurrency(16))
        .reconcile_on(references(due))
        .run(tenant::reconcile, tenant::error_policy, context);
    spawn(tasks, controller.for_each(|_| std::future::ready(())));
    let _filled = listed.wait_for(|read| *read).await;
    // Pipelines begin when tenants have said what they are, so that none is missed.
    for _ in 0..100 {
        let known: BTreeSet<Key> = book.tenants().into_iter().collect();
        if store
            .state()
            .iter()
            .all(|tenant| known.contains(&key_of(tenant.as_ref())))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The stream of a controller's own objects; kube's own hides deletions, here `gone` learns of each. `read`
/// says when all are listed: the store's own signal has one listener only, which is the controller.
fn main_stream<K>(
    api: Api<K>,
    writer: reflector::store::Writer<K>,
    store: Store<K>,
    read: watch::Sender<bool>,
    gone: impl Fn(&Key) + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let mut known = BTreeSet::new();
    watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                known.insert(key_of(object));
            }
            Ok(watcher::Event::Delete(object)) => {
                known.remove(&key_of(object));
                gone(&key_of(object));
            }
            Ok(watcher::Event::InitDone) => {
                let present: BTreeSet<Key> = store
                    .state()
                    .iter()
                    .map(|object| key_of(object.as_ref()))
                    .collect();
                known.difference(&present).for_each(&gone);
                known = present;
                read.send_replace(true);
            }
            Ok(watcher::Event::Init) | Err(_) => {}
        })
        .applied_objects()
}

fn references<K>(mut due: mpsc::UnboundedReceiver<Key>) -> impl Stream<Item = ObjectRef<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + 'static,
{
    futures::stream::poll_fn(move |context| due.poll_recv(context))
        .map(|key| ObjectRef::new(&key.name).within(&key.namespace))
}

/// Labelled Secrets of each namespace where tenants count, and nothing of others.
async fn watch_secrets(
    client: &Client,
    options: &Options,
    wake: &mpsc::UnboundedSender<Key>,
    book: &Book,
    tasks: &mut Vec<AbortOnDropHandle<()>>,
) -> BTreeMap<String, Store<Secret>> {
    let mut stores = BTreeMap::new();
    for namespace in &options.tenant_namespaces {
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

async fn watch_namespaces(
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

async fn watch_accounts(
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

async fn watch_observed(
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
