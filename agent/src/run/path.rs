//! What is in force and commands in, figures and problems out: worker and pushers as one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_engine::key::Key;
use sluice_engine::report::Problem;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::batches::{Batches, Pulse};
use crate::cli::{Mode, Settings};
use crate::config::{InForce, TenantInForce};
use crate::follow;
use crate::push::{self, PushSettings, Pushers};
use crate::status::figures::Figures;
use crate::worker::{self, Command, Mailbox, WorkerSettings};

/// How long a container of a cluster waits for its pod's labels before it is read without them.
const POD_FACTS_WAIT: Duration = Duration::from_secs(10);
/// Where log folders lead to with runtimes other than containerd and CRI-O, which write into the folders.
const LINK_ROOTS: [&str; 2] = ["/var/lib/docker/containers", "/var/log/containers"];
/// A worker without a sign of life for so long is stuck; a disk that is slow to sync is not.
const STUCK: Duration = Duration::from_mins(1);
/// For the thread that waits for the worker's end.
const STACK: usize = 64 << 10;

/// A handle of the worker's thread and the pushers; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct DataPath {
    mailbox: Mailbox,
    pushers: Pushers,
    /// Tenants that the pushers know.
    known: Arc<Mutex<BTreeSet<Key>>>,
    figures: watch::Receiver<Arc<Figures>>,
    followed: Arc<watch::Sender<Arc<follow::figures::Figures>>>,
    ended: watch::Receiver<bool>,
    pulse: Pulse,
}

impl DataPath {
    /// Starts both with what is in force.
    ///
    /// # Errors
    /// When the worker cannot start, such as for positions that cannot be read.
    pub(super) fn start(settings: &Settings, in_force: &Arc<InForce>) -> Result<Self, String> {
        let push = PushSettings {
            allow_local_addresses: settings.allow_local_addresses,
            ..PushSettings::default()
        };
        if let Some(root) = follow_root(settings) {
            std::fs::create_dir_all(&root).map_err(|error| {
                format!(
                    "--state-dir {}: {error}: give a folder that the agent can write",
                    root.display()
                )
            })?;
        }
        // Each of the two is started with a way to the other.
        let to_worker: Arc<OnceLock<Mailbox>> = Arc::default();
        let outcomes = Arc::clone(&to_worker);
        let pushers = Pushers::new(Handle::current(), push, move |outcome| {
            if let Some(mailbox) = outcomes.get() {
                mailbox.send(Command::Outcome(outcome));
            }
        });
        let (publish, figures) = watch::channel(Arc::default());
        let pulse = Pulse::new();
        let batches = Batches::new(
            usize::try_from(settings.pool_bytes).unwrap_or(usize::MAX),
            pulse.clone(),
        );
        let requests = pushers.clone();
        let send = Box::new(move |batch| requests.send(batch));
        let (mailbox, thread) = worker::spawn(worker_settings(settings), batches, send, publish)
            .map_err(|error| error.to_string())?;
        let mailbox = to_worker.get_or_init(|| mailbox).clone();
        let ended = end_of(thread).map_err(|error| format!("cannot start a thread: {error}"))?;
        let path = Self {
            mailbox,
            pushers,
            known: Arc::default(),
            figures,
            followed: Arc::new(watch::channel(Arc::default()).0),
            ended,
            pulse,
        };
        path.apply(&InForce::default(), in_force);
        Ok(path)
    }

    /// Puts something else into force. Pushers know a tenant before the worker sends for it.
    pub(super) fn apply(&self, last: &InForce, next: &Arc<InForce>) {
        for tenant in next.tenants.iter().filter(|tenant| is_changed(last, tenant)) {
            self.pushers.set_tenant(tenant);
        }
        let names = next.tenants.iter().map(|tenant| tenant.tenant.name.clone());
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(names);
        self.send(Command::Config(Arc::clone(next)));
    }

    /// Forgets all tenants that are not in force, once the worker has stopped sending for them.
    pub(super) fn forget_all_but(&self, in_force: &InForce) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name| {
            let stays = in_force.tenants.iter().any(|tenant| tenant.tenant.name == *name);
            if !stays {
                self.pushers.remove_tenant(name);
            }
            stays
        });
    }

    /// Tells the worker; when it has ended, [`DataPath::ended`] says so.
    pub(super) fn send(&self, command: Command) {
        self.mailbox.send(command);
    }

    /// The worker's figures.
    pub(super) fn figures(&self) -> watch::Receiver<Arc<Figures>> {
        self.figures.clone()
    }

    /// What reading through the API comes to.
    pub(super) fn followed(&self) -> watch::Receiver<Arc<follow::figures::Figures>> {
        self.followed.subscribe()
    }

    /// Reads through the API for as long as the process lives.
    pub(super) async fn follow(
        self,
        client: kube::Client,
        settings: follow::Settings,
        sources: follow::follower::Sources,
    ) {
        follow::follower::run(client, settings, sources, self.mailbox, &self.followed).await;
    }

    /// Tenants whose lines are held back.
    pub(super) fn problems(&self) -> BTreeMap<Key, Problem> {
        self.pushers.problems()
    }

    /// Changes whenever the problems do.
    pub(super) fn problems_changed(&self) -> watch::Receiver<u64> {
        self.pushers.changed()
    }

    /// The pushers' counters.
    pub(super) fn pushed(&self) -> push::figures::Figures {
        self.pushers.figures()
    }

    /// Whether the worker makes progress.
    pub(super) fn is_alive(&self) -> bool {
        !*self.ended.borrow() && self.pulse.age() < STUCK
    }

    /// Waits for the end of the worker's thread.
    pub(super) async fn ended(&mut self) {
        if self.ended.wait_for(|ended| *ended).await.is_err() {
            // Who watches the thread is gone, and so is the thread.
        }
    }
}

/// Whether the pushers have to be told of a tenant.
fn is_changed(last: &InForce, next: &TenantInForce) -> bool {
    let old = last
        .tenants
        .iter()
        .find(|old| old.tenant.name == next.tenant.name);
    old.is_none_or(|old| old.tenant != next.tenant || old.credentials != next.credentials)
}

/// Where lines are kept that were read through the API.
pub(super) fn follow_root(settings: &Settings) -> Option<PathBuf> {
    matches!(settings.mode, Mode::Cluster { .. }).then(|| settings.state_dir.join("follow"))
}

fn worker_settings(settings: &Settings) -> WorkerSettings {
    WorkerSettings {
        log_root: settings.log_root.clone(),
        follow_root: follow_root(settings),
        link_roots: LINK_ROOTS.map(PathBuf::from).to_vec(),
        state_dir: settings.state_dir.clone(),
        node_name: settings.node.clone(),
        own_pod_uid: Some(settings.pod_uid.clone()).filter(|uid| !uid.is_empty()),
        pod_facts_wait: match settings.mode {
            Mode::Cluster { .. } => POD_FACTS_WAIT,
            Mode::Standalone { .. } => Duration::ZERO,
        },
    }
}

/// Turns true when the thread has ended, be it by a panic.
fn end_of(thread: JoinHandle<()>) -> std::io::Result<watch::Receiver<bool>> {
    let (tell, ended) = watch::channel(false);
    std::thread::Builder::new()
        .name("worker-end".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            if thread.join().is_err() {
                tracing::error!("the worker's thread panicked");
            }
            tell.send_replace(true);
        })?;
    Ok(ended)
}
