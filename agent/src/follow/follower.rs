//! Pods, what is in force and what is delivered in; requests, a spool that is kept clean, gaps and figures out.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluice_engine::cri::Timestamp;
use sluice_engine::report::GapCause;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::Settings;
use super::container::{Container, Open};
use super::figures::Figures;
use super::read::{Outcome, lock, read};
use super::spool::Spool;
use super::wanted::{self, Pod, is_kept, wanted, would_read};
use crate::config::InForce;
use crate::discover::names::{ContainerKey, LogName, PodFolder};
use crate::metadata::PodChange;
use crate::metadata::convert::Change;
use crate::status::figures as worker;
use crate::worker::{Command, Mailbox, Vanished};

/// How often everything is looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(5);
/// How long a pod that is gone keeps its request, and its spool when nobody says that he reads it.
const LINGER: Duration = Duration::from_mins(1);
/// Trouble that lasts so long is told.
const PATIENCE: Duration = Duration::from_secs(15);
const LACKS_SPACE: &str = "too little of the state folder's file system is free to keep what is read";

/// What the follower hears.
#[derive(Debug)]
pub struct Sources {
    /// What is in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// The node's pods.
    pub pods: mpsc::UnboundedReceiver<Change>,
    /// What the worker has delivered.
    pub worker: watch::Receiver<Arc<worker::Figures>>,
    /// Asks the watch of pods for their containers, while somebody reads through the API.
    pub whole: watch::Sender<bool>,
}

/// Reads for as long as somebody hears of it. Gaps go to the worker, which journals them.
pub async fn run(
    client: kube::Client,
    settings: Settings,
    mut sources: Sources,
    worker: Mailbox,
    out: &watch::Sender<Arc<Figures>>,
) {
    let mut follower = Follower::new(client, settings, worker);
    follower.take_over();
    follower.config = Arc::clone(&sources.in_force.borrow_and_update());
    loop {
        let now = Instant::now();
        let reads = wanted::readers(&follower.config).next().is_some();
        sources
            .whole
            .send_if_modified(|whole| std::mem::replace(whole, reads) != reads);
        follower.select(now);
        follower.clean(&sources.worker.borrow_and_update().spooled, now);
        follower.hear();
        let next = follower.arrange(now);
        let figures = follower.figures(now);
        out.send_if_modified(|old| {
            let changed = **old != figures;
            if changed {
                *old = Arc::new(figures);
            }
            changed
        });
        let idle = follower.containers.is_empty();
        tokio::select! {
            changed = sources.in_force.changed() => {
                if changed.is_err() {
                    return;
                }
                follower.config = Arc::clone(&sources.in_force.borrow_and_update());
            }
            change = sources.pods.recv() => {
                let Some(change) = change else { return };
                follower.pod(change);
                while let Ok(change) = sources.pods.try_recv() {
                    follower.pod(change);
                }
            }
            Some(ended) = follower.streams.join_next() => {
                // One that was stopped is of no interest.
                if let Ok(ended) = ended {
                    follower.ended(ended, Instant::now());
                }
            }
            changed = sources.worker.changed(), if !idle => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(next.min(now + LOOK).into()), if !idle => {}
        }
    }
}

/// Whose request ended, which one it was, and how.
type Ended = (Arc<ContainerKey>, u64, Outcome);

struct Follower {
    client: kube::Client,
    settings: Settings,
    worker: Mailbox,
    config: Arc<InForce>,
    /// By their folders in a log root.
    pods: BTreeMap<String, Pod>,
    synced: Option<Instant>,
    containers: BTreeMap<Arc<ContainerKey>, Container>,
    /// Spools that cannot be opened, and why.
    unopened: BTreeMap<Arc<ContainerKey>, String>,
    streams: JoinSet<Ended>,
    asked: u64,
    total: Arc<AtomicU64>,
    /// More containers want a request than there are.
    shared: bool,
    counts: Figures,
}

impl Follower {
    fn new(client: kube::Client, settings: Settings, worker: Mailbox) -> Self {
        Self {
            client,
            settings,
            worker,
            config: Arc::default(),
            pods: BTreeMap::new(),
            synced: None,
            containers: BTreeMap::new(),
            unopened: BTreeMap::new(),
            streams: JoinSet::new(),
            asked: 0,
            total: Arc::default(),
            shared: false,
            counts: Figures::default(),
        }
    }

    /// Takes over what an earlier process has left.
    fn take_over(&mut self) {
        let names = |path: &std::path::Path| -> Vec<String> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()
        };
        for folder in names(&self.settings.root) {
            if PodFolder::parse(&folder).is_none_or(|pod| pod.reader.is_none()) {
                continue;
            }
            for container in names(&self.settings.root.join(&folder)) {
                let key = ContainerKey {
                    folder: folder.clone(),
                    container,
                };
                self.begin(&Arc::new(key));
            }
        }
    }

    /// Opens a container's spool.
    fn begin(&mut self, key: &Arc<ContainerKey>) {
        let Some(pod) = PodFolder::parse(&key.folder) else {
            return;
        };
        let folder = self.settings.root.join(&key.folder).join(&key.container);
        match Spool::open(folder.clone(), self.settings.bounds, Arc::clone(&self.total)) {
            Ok(spool) => {
                let container = Container::new(pod, key.container.clone(), spool);
                self.containers.insert(Arc::clone(key), container);
                self.unopened.remove(key);
            }
            Err(error) => {
                let error = error.to_string();
                if self.unopened.get(key) != Some(&error) {
                    tracing::warn!(folder = %folder.display(), error, "what was read through the API cannot be opened");
                }
                self.unopened.insert(Arc::clone(key), error);
            }
        }
    }

    fn pod(&mut self, (change, containers): Change) {
        match change {
            PodChange::Applied(facts) => {
                let pod = Pod {
                    containers,
                    deleted: false,
                    facts: *facts,
                };
                self.pods.insert(pod.facts.folder(), pod);
            }
            PodChange::Deleted(folder) => {
                if let Some(pod) = self.pods.get_mut(&folder) {
                    pod.deleted = true;
                }
            }
            PodChange::Synced => {
                self.synced.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Takes in who wants what.
    fn select(&mut self, now: Instant) {
        let own = self.settings.own_pod_uid.as_deref();
        let wanted = wanted(&self.config, &self.pods, own);
        for (key, container) in &mut self.containers {
            if container.wanted.is_some() && !wanted.contains_key(key.as_ref()) {
                container.wanted = None;
                container.stop(now);
                container.gone.get_or_insert(now);
            }
        }
        self.unopened.retain(|key, _| wanted.contains_key(key.as_ref()));
        for (key, one) in wanted {
            // One that nothing was read of is of no use when its pod is gone.
            if one.state.is_none() && !self.containers.contains_key(&key) {
                continue;
            }
            let key = Arc::new(key);
            if !self.containers.contains_key(&key) {
                self.begin(&key);
            }
            let Some(container) = self.containers.get_mut(&key) else {
                continue;
            };
            if !one.granted {
                container.stop(now);
            }
            let is_gone = one.state.is_none();
            container.want(one, now);
            if !is_gone {
                container.gone = None;
                continue;
            }
            container.gone.get_or_insert(now);
            if let Some((cause, after)) = container.bury() {
                vanished(&self.worker, container, cause, after);
            }
        }
        let known = &self.containers;
        self.pods
            .retain(|folder, pod| !pod.deleted || known.keys().any(|key| key.pod_folder() == folder));
    }

    /// Deletes what is delivered, and what nobody may have.
    fn clean(&mut self, spooled: &BTreeMap<Arc<ContainerKey>, Option<worker::SpoolPlace>>, now: Instant) {
        // Without a document nobody knows what is wanted.
        if self.config.document.is_empty() {
            return;
        }
        let mut over = Vec::new();
        for (key, container) in &mut self.containers {
            let wanted = container.wanted.is_some();
            let place = spooled.get(key);
            let delivered = place.and_then(Option::as_ref).and_then(|place| {
                let name = LogName::parse(&place.name)?;
                Some((name, place.offset))
            });
            let delivered = delivered.as_ref().map(|(name, offset)| (name, *offset));
            if let Some((name, _)) = delivered
                && let Err(error) = lock(&container.spool).prune(name)
            {
                tracing::warn!(container = %key, %error, "what is delivered cannot be deleted");
            }
            if !is_kept(&self.config, &container.pod) {
                over.push(Arc::clone(key));
                continue;
            }
            if !wanted
                && container.gone.is_none()
                && let Some(synced) = self.synced
            {
                container.gone = Some(synced);
                let is_away = !self.pods.contains_key(key.pod_folder());
                let (is_over, last) = {
                    let spool = lock(&container.spool);
                    (spool.is_over(), spool.last())
                };
                if is_away && !is_over && would_read(&self.config, &container.pod, &container.name) {
                    vanished(&self.worker, container, GapCause::PodDeletedMeanwhile, last);
                }
            }
            let Some(gone) = container.gone else { continue };
            if now.duration_since(gone) > LINGER {
                container.stop(now);
            }
            let read = place.is_some() || now.duration_since(gone) <= LINGER;
            let rest = lock(&container.spool).waiting(delivered);
            if container.stream.is_none() && (rest == 0 || !read) {
                over.push(Arc::clone(key));
            }
        }
        for key in over {
            if let Some(mut container) = self.containers.remove(&key) {
                container.stop(now);
                if let Err(error) = lock(&container.spool).remove() {
                    tracing::warn!(container = %key, %error, "what was read through the API cannot be deleted");
                }
            }
        }
    }

    /// Gives requests to those that wait longest; says when to come again.
    fn arrange(&mut self, now: Instant) -> Instant {
        let mut next = now + LOOK;
        let mut waiting = Vec::new();
        self.counts.full = 0;
        for (key, container) in &mut self.containers {
            if let Some(open) = &container.stream {
                match open.outdated.map(|since| since + self.settings.turn) {
                    Some(end) if end <= now => container.stop(now),
                    Some(end) => {
                        next = next.min(end);
                        continue;
                    }
                    None => continue,
                }
            }
            match container.due(now) {
                Some(due) if due > now => next = next.min(due),
                Some(_) if container.is_full(now) => self.counts.full += 1,
                Some(_) => waiting.push((container.last_turn, Arc::clone(key))),
                None => {}
            }
        }
        waiting.sort();
        let open = self
            .containers
            .values()
            .filter(|container| container.stream.is_some());
        let free = self.settings.streams.saturating_sub(open.count());
        let surplus = waiting.len().saturating_sub(free);
        self.shared = surplus > 0;
        for (_, key) in waiting.into_iter().take(free) {
            self.ask(&key, now);
        }
        if surplus > 0 {
            let turn = self.settings.turn;
            let mut streams: Vec<_> = self
                .containers
                .values_mut()
                .filter_map(|container| Some((container.stream.as_ref()?.since, container)))
                .collect();
            streams.sort_by_key(|(since, _)| *since);
            for (since, container) in streams.into_iter().take(surplus) {
                if now.duration_since(since) >= turn {
                    container.stop(now);
                    next = now;
                } else {
                    next = next.min(since + turn);
                }
            }
        }
        next
    }

    fn ask(&mut self, key: &Arc<ContainerKey>, now: Instant) {
        let Some(container) = self.containers.get_mut(key) else {
            return;
        };
        let Some(request) = container.request() else {
            return;
        };
        let (client, spool, of) = (self.client.clone(), Arc::clone(&container.spool), Arc::clone(key));
        self.asked += 1;
        let (id, asked, worker) = (self.asked, request.clone(), self.worker.clone());
        let abort = self
            .streams
            .spawn(async move { (of, id, read(client, asked, spool, worker).await) });
        container.stream = Some(Open {
            id,
            request,
            abort,
            since: now,
            outdated: None,
        });
    }

    fn ended(&mut self, (key, id, outcome): Ended, now: Instant) {
        self.hear();
        let Some(container) = self.containers.get_mut(&key) else {
            return;
        };
        // It may have ended while it was stopped, and another one be under way.
        if container.stream.as_ref().is_none_or(|open| open.id != id) {
            return;
        }
        container.ended(outcome, now);
    }

    /// Takes in what the requests under way have to say.
    fn hear(&mut self) {
        for container in self.containers.values_mut() {
            let Some(open) = &container.stream else { continue };
            let signs = &open.request.signs;
            if signs.answered.load(Ordering::Relaxed) {
                container.trouble = None;
            }
            self.counts.lines += signs.lines.swap(0, Ordering::Relaxed);
        }
    }

    fn figures(&self, now: Instant) -> Figures {
        let mut figures = Figures {
            containers: self.containers.len() as u64,
            streams: self
                .containers
                .values()
                .filter(|one| one.stream.is_some())
                .count() as u64,
            spool_bytes: self.total.load(Ordering::Relaxed),
            ..self.counts.clone()
        };
        let troubled = self.containers.iter().filter_map(|(key, container)| {
            let (trouble, since) = container.trouble.as_ref()?;
            let lasts = now.duration_since(*since) >= PATIENCE;
            lasts.then_some((key, trouble.class, trouble.message.as_str()))
        });
        let unopened = self
            .unopened
            .iter()
            .map(|(key, error)| (key, "spool", error.as_str()));
        // Nothing is delivered meanwhile, and nothing waits to be: it would look as if all were well.
        let stopped = self.containers.iter().filter_map(|(key, container)| {
            let lacks_space = container.stream.is_none() && lock(&container.spool).lacks_space();
            lacks_space.then_some((key, "spool", LACKS_SPACE))
        });
        for (key, class, said) in troubled.chain(unopened).chain(stopped) {
            let reader = PodFolder::parse(&key.folder).and_then(|pod| pod.reader);
            figures.add_trouble(reader.unwrap_or_default(), class, &named(key), said);
        }
        let shared = self.shared.then_some((self.settings.streams, self.settings.turn));
        figures.warn(shared);
        figures
    }
}

/// Tells of lines behind which nothing follows.
fn vanished(worker: &Mailbox, container: &Container, cause: GapCause, after: Option<Timestamp>) {
    worker.send(Command::Vanished(Vanished {
        pod: container.pod.clone(),
        container: container.name.clone(),
        cause,
        after,
        before: None,
        told: oneshot::channel().0,
    }));
}

/// A container as people know it.
fn named(key: &ContainerKey) -> String {
    PodFolder::parse(&key.folder).map_or_else(
        || key.to_string(),
        |pod| format!("{}/{}/{}", pod.namespace, pod.pod, key.container),
    )
}
