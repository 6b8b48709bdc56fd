//! A follower over a double of the API server, and the worker that reads its spool.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_agent::batch::{Fate, Outcome};
use sluice_agent::config::InForce;
use sluice_agent::discover::names::{ContainerKey, LogName};
use sluice_agent::follow::Settings;
use sluice_agent::follow::figures::Figures;
use sluice_agent::follow::follower::{self, Sources};
use sluice_agent::metadata::PodChange;
use sluice_agent::metadata::convert::Change;
use sluice_agent::status::figures as worker;
use sluice_agent::status::report::{Identity, Reporter};
use sluice_agent::worker::{Command, Core, Mailbox, Post, WorkerSettings, mailbox};
use sluice_engine::cri::Timestamp;
use sluice_engine::document::{Pipeline, ReadFrom};
use sluice_engine::report::{Gap, GapCause};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::api_double::{self, ApiDouble, CONTAINER};
use crate::files_rig::{FakeSink, Request, Sent, in_force, pipeline, tenant};

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A follower, and everything it hears and says.
pub(crate) struct Rig {
    pub(crate) api: ApiDouble,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) settings: Settings,
    pub(crate) in_force: watch::Sender<Arc<InForce>>,
    pub(crate) pods: Option<mpsc::UnboundedSender<Change>>,
    pub(crate) worker: watch::Sender<Arc<worker::Figures>>,
    /// What the follower tells the worker, and the worker's end of it.
    pub(crate) mailbox: Mailbox,
    pub(crate) post: Post,
    pub(crate) figures: Arc<watch::Sender<Arc<Figures>>>,
    pub(crate) task: Option<AbortHandle>,
}

/// A gap's cause, the last line before it and the first one behind it.
pub(crate) type Around = (GapCause, Option<i64>, Option<i64>);

pub(crate) fn around(gap: &Gap) -> Around {
    assert_eq!((gap.namespace.as_str(), gap.pod.as_str()), ("a", "web"));
    assert_eq!(gap.container, CONTAINER);
    (gap.cause, gap.after, gap.before)
}

/// A line of this second and nanosecond.
pub(crate) fn at(second: i64, nanos: i64) -> i64 {
    (api_double::BEGIN + second) * 1_000_000_000 + nanos
}

pub(crate) fn through_api(name: &str) -> Pipeline {
    let mut pipeline = pipeline(name, &["ops"]);
    pipeline.pods.read_from = ReadFrom::Api;
    pipeline
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(dir.path().join("follow"), Some("own".to_owned()));
        settings.turn = Duration::from_millis(50);
        // Whatever the machine of the test has.
        settings.bounds.free = 0;
        std::fs::create_dir_all(&settings.root).unwrap();
        let config = in_force(vec![through_api("p")], vec![tenant("ops", 1 << 18)]);
        let (mailbox, post) = mailbox().unwrap();
        Self {
            api: ApiDouble::start().await,
            dir,
            settings,
            in_force: watch::channel(Arc::new(config)).0,
            pods: None,
            worker: watch::channel(Arc::default()).0,
            mailbox,
            post,
            figures: Arc::new(watch::channel(Arc::default()).0),
            task: None,
        }
    }

    /// Starts the follower; one that runs is killed.
    pub(crate) fn start(&mut self) {
        self.stop();
        let (pods, changes) = mpsc::unbounded_channel();
        let names: Vec<String> = self.api.model(|model| model.pods.keys().cloned().collect());
        for change in names.iter().flat_map(|name| self.api.change(name)) {
            pods.send(change).unwrap();
        }
        pods.send((PodChange::Synced, Vec::new())).unwrap();
        let sources = Sources {
            in_force: self.in_force.subscribe(),
            pods: changes,
            worker: self.worker.subscribe(),
            whole: watch::channel(false).0,
        };
        self.pods = Some(pods);
        let (client, settings, out) = (
            self.api.client.clone(),
            self.settings.clone(),
            Arc::clone(&self.figures),
        );
        let mailbox = self.mailbox.clone();
        let task = tokio::spawn(async move { follower::run(client, settings, sources, mailbox, &out).await });
        self.task = Some(task.abort_handle());
    }

    /// A worker on the spool, as each process has one.
    pub(crate) fn core(&self) -> Core<FakeSink> {
        let settings = WorkerSettings {
            log_root: None,
            follow_root: Some(self.settings.root.clone()),
            link_roots: Vec::new(),
            state_dir: self.dir.path().join("state"),
            node_name: "node1".into(),
            own_pod_uid: None,
            pod_facts_wait: Duration::ZERO,
        };
        let mut core = Core::new(settings, FakeSink::default()).unwrap();
        core.command(Command::Config(self.in_force.borrow().clone()), Instant::now());
        let names: Vec<String> = self.api.model(|model| model.pods.keys().cloned().collect());
        for (change, _) in names.iter().flat_map(|name| self.api.change(name)) {
            core.command(Command::Pod(change), Instant::now());
        }
        core
    }

    /// One turn of the worker: what it sends is taken, and the follower hears of it.
    pub(crate) fn turn(&self, core: &mut Core<FakeSink>) -> Vec<Sent> {
        let sent = RefCell::new(Vec::new());
        core.turn(Instant::now(), &|request: Request| {
            sent.borrow_mut().push(request);
        });
        let mut entries = Vec::new();
        for request in sent.into_inner() {
            entries.extend(request.entries);
            let outcome = Outcome {
                id: request.id,
                tenant: Arc::new(request.tenant),
                stream: None,
                fate: Fate::Ended(Vec::new()),
                body: Vec::new(),
            };
            core.command(Command::Outcome(outcome), Instant::now());
        }
        self.worker.send_replace(Arc::new(core.figures()));
        entries
    }

    /// The worker hears what it is told; its gaps as `/status` has them, by output.
    pub(crate) fn gaps(&self, core: &mut Core<FakeSink>) -> Vec<Vec<Gap>> {
        while let Some(command) = self.post.take() {
            core.command(command, Instant::now());
        }
        let mut reporter = Reporter::new(Identity::default());
        reporter.update(&self.in_force.borrow(), &core.figures(), &BTreeMap::new(), 0);
        let report = reporter.answer(None, None).pipelines.remove(0);
        let outputs = report.outputs.into_iter();
        outputs
            .map(|output| {
                assert_eq!(output.gap_count, output.gaps.len() as u64);
                output.gaps
            })
            .collect()
    }

    /// Waits until the worker tells the first tenant of a gap.
    pub(crate) async fn until_told(&self, core: &mut Core<FakeSink>) {
        wait(|| (!self.gaps(core)[0].is_empty()).then_some(())).await;
    }

    /// Waits until the follower tells of a gap: its cause, and what stands around it.
    pub(crate) async fn vanished(&self) -> Around {
        let gap = wait(|| match self.post.take() {
            Some(Command::Vanished(gap)) => Some(gap),
            _ => None,
        })
        .await;
        let nanos = |time: Timestamp| time.seconds * 1_000_000_000 + i64::from(time.nanos);
        (gap.cause, gap.after.map(nanos), gap.before.map(nanos))
    }

    pub(crate) fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Tells what the watch would tell of a pod.
    pub(crate) fn tell(&self, name: &str) {
        for change in self.api.change(name) {
            self.pods.as_ref().unwrap().send(change).unwrap();
        }
    }

    pub(crate) fn spool(&self, uid: &str) -> Vec<String> {
        let folder = format!("a_web_{uid}_uid-p/{CONTAINER}");
        lines(&self.settings.root.join(folder))
    }

    /// Waits until the spool holds so many lines.
    pub(crate) async fn until(&self, uid: &str, count: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let found = self.spool(uid);
            if found.len() >= count {
                return found;
            }
            assert!(
                begun.elapsed() < LONG,
                "{} of {count} lines; asked {:?}; {:?}",
                found.len(),
                self.api.model(|model| model.asked.clone()),
                self.figures.borrow()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn deliver(&self, uid: &str, place: Option<(&str, u64)>) {
        let key = ContainerKey {
            folder: format!("a_web_{uid}_uid-p"),
            container: CONTAINER.to_owned(),
        };
        let place = place.map(|(name, offset)| worker::SpoolPlace {
            name: name.to_owned(),
            offset,
        });
        self.worker.send_replace(Arc::new(worker::Figures {
            spooled: BTreeMap::from([(Arc::new(key), place)]),
            ..worker::Figures::default()
        }));
    }
}

pub(crate) fn files(folder: &Path) -> Vec<LogName> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<LogName> = entries
        .filter(|entry| entry.file_name() != "over")
        .map(|entry| LogName::parse(entry.file_name().to_str().unwrap()).unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) fn lines(folder: &Path) -> Vec<String> {
    let read = |name: LogName| std::fs::read_to_string(folder.join(name.to_string())).unwrap_or_default();
    let all: String = files(folder).into_iter().map(read).collect();
    all.lines().map(str::to_owned).collect()
}

pub(crate) async fn wait<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
