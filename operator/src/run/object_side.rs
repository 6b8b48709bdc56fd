//! The ends of the fleet ([`Desired`], [`Observed`]) in; watches, reviews and the two controllers running out.
//!
//! Tests run this against a real API server and play the fleet.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::{Controller, reflector};
use kube::{Api, Client};
use sluice_engine::key::Key;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::streams::{main_stream, references};
use super::watches::{watch_accounts, watch_namespaces, watch_observed, watch_secrets};
use crate::admin::Metrics;
use crate::api::writer::Writer;
use crate::cluster::events::Events;
use crate::fleet::desired::Desired;
use crate::fleet::observed::Observed;
use crate::reviews::watch::rights;
use crate::reviews::{Reviews, ask};
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
    /// Whether agents see their nodes' files.
    pub host_paths: bool,
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
        let mut tries = 0;
        while !self.pipelines.is_settled() {
            tries += 1;
            if tries > 300 {
                tracing::warn!(
                    "some pipelines are undecided after 30 s: they are not collected until they are"
                );
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.pipelines.book.mark_complete();
    }
}

/// Runs a part for as long as its owner lives.
pub(super) fn spawn(tasks: &mut Vec<AbortOnDropHandle<()>>, task: impl Future<Output = ()> + Send + 'static) {
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
    spawn(&mut tasks, rights(client.clone(), reviews.clone()));

    let secrets = watch_secrets(
        &client,
        &options.tenant_namespaces,
        &wake_tenant,
        &book,
        &mut tasks,
    )
    .await;
    let (known_tenants, tenants_writer) = reflector::store();
    let tenants = Arc::new(tenant::Context {
        client: client.clone(),
        tenants: known_tenants,
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
        turns: Semaphore::new(tenant::TURNS),
    });
    run_tenants(tenants, tenants_writer, tenants_due, &mut tasks).await;

    let (pipelines, pipelines_writer) = reflector::store();
    let (namespaces, namespaces_writer) = reflector::store();
    let (accounts, accounts_writer) = reflector::store();
    let context = Arc::new(logpipeline::Context {
        client: client.clone(),
        host_paths: options.host_paths,
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
        totals: Mutex::default(),
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
    context: Arc<tenant::Context>,
    writer: reflector::store::Writer<tenant::Object>,
    due: mpsc::UnboundedReceiver<Key>,
    tasks: &mut Vec<AbortOnDropHandle<()>>,
) {
    let store = context.tenants.clone();
    let gone = Arc::clone(&context);
    let (read, mut listed) = watch::channel(false);
    let api = Api::all(context.client.clone());
    let stream = main_stream(api, writer, store.clone(), read, move |key| {
        tenant::gone(key, &gone);
    });
    let book = context.book.clone();
    // Without a bound, since what lasts is the question to a Loki, which has a bound of its own: a tenant that
    // waits for that has left its share already.
    let controller = Controller::for_stream(stream, store.clone())
        .with_config(kube::runtime::Config::default().concurrency(0))
        .reconcile_on(references(due))
        .run(tenant::reconcile, tenant::error_policy, context);
    spawn(tasks, controller.for_each(|_| std::future::ready(())));
    let _filled = listed.wait_for(|read| *read).await;
    // Pipelines begin when tenants have said what they are, so that none is missed; 30 s at most.
    for _ in 0..300 {
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
