//! Reading through the API against a double of the API server: cuts, restarts, other pods of the same name, too
//! little room, too few requests; and the way from there through the worker.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod api_double;
mod files_rig;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_double::{ApiDouble, CONTAINER, Instance};
use files_rig::{FakeSink, in_force, pipeline, tenant};
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
use sluice_engine::pointer::Denial;
use sluice_engine::report::{Gap, GapCause};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

const LONG: Duration = Duration::from_secs(30);

/// A follower, and everything it hears and says.
struct Rig {
    api: ApiDouble,
    dir: tempfile::TempDir,
    settings: Settings,
    in_force: watch::Sender<Arc<InForce>>,
    pods: Option<mpsc::UnboundedSender<Change>>,
    worker: watch::Sender<Arc<worker::Figures>>,
    /// What the follower tells the worker, and the worker's end of it.
    mailbox: Mailbox,
    post: Post,
    figures: Arc<watch::Sender<Arc<Figures>>>,
    task: Option<AbortHandle>,
}

/// A gap's cause, the last line before it and the first one behind it.
type Around = (GapCause, Option<i64>, Option<i64>);

fn around(gap: &Gap) -> Around {
    assert_eq!((gap.namespace.as_str(), gap.pod.as_str()), ("a", "web"));
    assert_eq!(gap.container, CONTAINER);
    (gap.cause, gap.after, gap.before)
}

/// A line of this second and nanosecond.
fn at(second: i64, nanos: i64) -> i64 {
    (api_double::BEGIN + second) * 1_000_000_000 + nanos
}

fn through_api(name: &str) -> Pipeline {
    let mut pipeline = pipeline(name, &["ops"]);
    pipeline.pods.read_from = ReadFrom::Api;
    pipeline
}

impl Rig {
    async fn new() -> Self {
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
    fn start(&mut self) {
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
    fn core(&self) -> Core<FakeSink> {
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
        core
    }

    /// The worker hears what it is told; its gaps as `/status` has them, by output.
    fn gaps(&self, core: &mut Core<FakeSink>) -> Vec<Vec<Gap>> {
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

    /// Waits until the follower tells of a gap: its cause, and what stands around it.
    async fn vanished(&self) -> Around {
        let gap = wait(|| match self.post.take() {
            Some(Command::Vanished(gap)) => Some(gap),
            _ => None,
        })
        .await;
        let nanos = |time: Timestamp| time.seconds * 1_000_000_000 + i64::from(time.nanos);
        (gap.cause, gap.after.map(nanos), gap.before.map(nanos))
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Tells what the watch would tell of a pod.
    fn tell(&self, name: &str) {
        for change in self.api.change(name) {
            self.pods.as_ref().unwrap().send(change).unwrap();
        }
    }

    fn spool(&self, uid: &str) -> Vec<String> {
        let folder = format!("a_web_{uid}_uid-p/{CONTAINER}");
        lines(&self.settings.root.join(folder))
    }

    /// Waits until the spool holds so many lines.
    async fn until(&self, uid: &str, count: usize) -> Vec<String> {
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

    fn deliver(&self, uid: &str, place: Option<(&str, u64)>) {
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

fn files(folder: &Path) -> Vec<LogName> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<LogName> = entries
        .filter(|entry| entry.file_name() != "over")
        .map(|entry| LogName::parse(entry.file_name().to_str().unwrap()).unwrap())
        .collect();
    names.sort();
    names
}

fn lines(folder: &Path) -> Vec<String> {
    let read = |name: LogName| std::fs::read_to_string(folder.join(name.to_string())).unwrap_or_default();
    let all: String = files(folder).into_iter().map(read).collect();
    all.lines().map(str::to_owned).collect()
}

async fn wait<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_however_connections_and_agents_end() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.settings.bounds.file = 4_000;
    rig.start();
    // Many lines of a second are equal, their timestamps included.
    for number in 0..3_000_u32 {
        let second = i64::from(number / 400);
        let (nanos, text) = (number / 7 % 5, format!("line {}", number / 7 % 3));
        rig.api.write("web", second, nanos, &text);
        let asked = rig.api.model(|model| model.asked.len());
        match number % 300 {
            99 => rig.api.cut(true),
            199 => rig.api.cut(false),
            299 => rig.start(),
            _ => continue,
        }
        // Some more are written while nobody listens, and the next cut comes in the middle of them.
        wait(|| rig.api.model(|model| (model.asked.len() > asked).then_some(()))).await;
    }
    rig.until("1", 3_000).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut found, mut written) = (rig.spool("1"), rig.api.written("web"));
    let asked = rig.api.model(|model| model.asked.len());
    println!(
        "{} lines in {asked} requests: {} in the spool",
        written.len(),
        found.len()
    );
    assert_eq!(found.len(), written.len());
    found.sort();
    written.sort();
    assert!(found == written);
    assert!(asked > 20 && rig.post.take().is_none(), "no gap is told");
}

#[tokio::test]
async fn restarts_are_followed_and_what_came_before_is_read_first() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero, before the agent");
    rig.api.restart("web", 10);
    rig.api.pod("web", |pod| pod.told = 2);
    rig.api.write("web", 10, 1, "one");
    rig.start();
    rig.until("1", 2).await;
    // The connection breaks, the container goes on, ends and begins anew before it is asked for again.
    rig.api
        .model(|model| model.refuse = Some((503, "kubelet is away")));
    rig.api.cut(false);
    rig.api.write("web", 11, 1, "one, its last words");
    rig.api.restart("web", 12);
    rig.api.write("web", 12, 1, "two");
    rig.api.pod("web", |pod| pod.told = 3);
    rig.tell("web");
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.api.model(|model| model.refuse = None);
    assert_eq!(rig.until("1", 4).await, rig.api.written("web"));
    let folder = rig.settings.root.join("a_web_1_uid-p/main");
    let restarts: Vec<u32> = files(&folder).iter().map(|name| name.restart).collect();
    assert_eq!(restarts, [0, 1, 2]);
    // Its end, a new agent, and nothing is read twice.
    rig.api.write("web", 13, 1, "two, its last words");
    rig.api
        .pod("web", |pod| pod.instances.last_mut().unwrap().over = true);
    rig.tell("web");
    rig.until("1", 5).await;
    rig.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.spool("1"), rig.api.written("web"));
    assert!(rig.post.take().is_none(), "no gap is told");
}

#[tokio::test]
async fn a_pods_status_that_lags_behind_kubelet_loses_nothing() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero");
    rig.start();
    rig.until("1", 1).await;
    // kubelet knows of the next instance, the API server does not, when the agent asks again.
    rig.api
        .model(|model| model.refuse = Some((503, "kubelet is away")));
    rig.api.cut(false);
    for number in 0..50 {
        rig.api.write("web", 1, number, "zero, not read yet");
    }
    rig.api.restart("web", 2);
    rig.api.write("web", 2, 1, "one, not known as such");
    rig.api.model(|model| model.refuse = None);
    // kubelet shows what was read last as the previous instance's, so this is not zero's log with a gap.
    let previous = |asked: &String| asked.contains("previous=true");
    wait(|| {
        rig.api
            .model(|model| model.asked.iter().any(previous).then_some(()))
    })
    .await;
    rig.api.write("web", 3, 1, "one, as well");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.spool("1").len(), 1);
    rig.api.pod("web", |pod| pod.told = 2);
    rig.tell("web");
    rig.until("1", 53).await;
    rig.api.write("web", 4, 1, "one, known as such");
    assert_eq!(rig.until("1", 54).await, rig.api.written("web"));
    assert!(rig.post.take().is_none(), "no gap is told");
}

#[tokio::test]
async fn another_pod_of_the_same_name_is_not_read_in_its_place() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.start();
    wait(|| rig.api.model(|model| (model.streams == 1).then_some(()))).await;
    rig.api.cut(false);
    rig.api.create("web", "2");
    rig.api.write("web", 0, 1, "of the second");
    let asked = rig.api.model(|model| model.asked.len());
    wait(|| {
        rig.api
            .model(|model| (model.asked.len() > asked + 1).then_some(()))
    })
    .await;
    assert!(rig.spool("1").is_empty());
    rig.tell("web");
    assert_eq!(rig.until("2", 1).await, rig.api.written("web"));
    assert!(rig.spool("1").is_empty());
}

#[tokio::test]
async fn what_was_rotated_away_meanwhile_is_a_gap() {
    let mut rig = Rig::new().await;
    let mut pipeline = pipeline("p", &["ops", "audit"]);
    pipeline.pods.read_from = ReadFrom::Api;
    let tenants = ["ops", "audit"].map(|name| tenant(name, 1 << 18));
    rig.in_force
        .send_replace(Arc::new(in_force(vec![pipeline], tenants.to_vec())));
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "read");
    rig.start();
    rig.until("1", 1).await;
    rig.api
        .model(|model| model.refuse = Some((503, "kubelet is away")));
    rig.api.cut(true);
    rig.api.write("web", 1, 1, "rotated away");
    rig.api.write("web", 2, 1, "left");
    rig.api.pod("web", |pod| pod.instances[0].rotated = 2);
    rig.api.model(|model| model.refuse = None);
    // An agent that ends before anybody took it down has not read on, so that the next one finds it again.
    let gap = (GapCause::ApiLogsGone, Some(at(0, 1)), Some(at(2, 1)));
    assert_eq!(rig.vanished().await, gap);
    assert_eq!(rig.spool("1").len(), 1);
    rig.start();
    let mut core = rig.core();
    wait(|| {
        let told = rig.gaps(&mut core);
        (!told[0].is_empty()).then_some(())
    })
    .await;
    rig.until("1", 2).await;
    let told = |rig: &Rig, core: &mut Core<FakeSink>| -> Vec<Vec<Around>> {
        let gaps = rig.gaps(core);
        gaps.iter()
            .map(|gaps| gaps.iter().map(around).collect())
            .collect()
    };
    assert_eq!(told(&rig, &mut core), [[gap], [gap]], "each output misses it");
    // It is told once, whoever begins anew.
    drop(core);
    let mut core = rig.core();
    assert_eq!(told(&rig, &mut core), [[gap], [gap]]);
    rig.api.write("web", 3, 1, "read on");
    rig.start();
    rig.until("1", 3).await;
    assert_eq!(told(&rig, &mut core), [[gap], [gap]]);
}

#[tokio::test]
async fn whole_instances_that_nobody_saw_are_a_gap() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero");
    rig.start();
    rig.until("1", 1).await;
    rig.stop();
    for (second, line) in [(10, "one"), (20, "two"), (30, "three")] {
        rig.api.restart("web", second);
        rig.api.write("web", second, 1, line);
    }
    rig.api.pod("web", |pod| pod.told = 4);
    rig.start();
    let mut core = rig.core();
    wait(|| {
        let told = rig.gaps(&mut core);
        (!told[0].is_empty()).then_some(())
    })
    .await;
    let found = rig.until("1", 3).await;
    let contents: Vec<&str> = found
        .iter()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(contents, ["zero", "two", "three"]);
    let told: Vec<Around> = rig.gaps(&mut core)[0].iter().map(around).collect();
    assert_eq!(told, [(GapCause::ApiLogsGone, Some(at(0, 1)), Some(at(20, 1)))]);
}

#[tokio::test]
async fn the_end_of_an_instance_that_kubelet_has_no_more_is_a_gap() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "zero");
    rig.start();
    rig.until("1", 1).await;
    rig.stop();
    rig.api.restart("web", 10);
    rig.api.pod("web", |pod| pod.told = 2);
    rig.api.write("web", 10, 1, "one");
    // The pod's status has the previous instance, kubelet has its log no more.
    rig.api.model(|model| model.forgotten = true);
    rig.start();
    let gap = (GapCause::ApiLogsGone, Some(at(0, 1)), Some(at(10, 1)));
    assert_eq!(rig.vanished().await, gap);
}

#[tokio::test]
async fn what_a_deleted_pod_takes_with_it_is_a_gap() {
    let mut rig = Rig::new().await;
    for name in ["web", "x"] {
        rig.api.create(name, "1");
        rig.api.write(name, 0, 1, "read");
    }
    rig.start();
    rig.until("1", 1).await;
    let other = rig.settings.root.join("a_x_1_uid-p/main");
    wait(|| Some(()).filter(|()| lines(&other).len() == 1)).await;
    // Its request is under way and comes to its end: nothing is missing.
    rig.api.pod("x", |pod| pod.gone = true);
    rig.tell("x");
    wait(|| rig.api.model(|model| (model.streams == 1).then_some(()))).await;
    // This one cannot be asked for when it is deleted.
    rig.api
        .model(|model| model.refuse = Some((403, "pods is forbidden")));
    let asked = rig.api.model(|model| model.asked.len());
    rig.api.cut(true);
    wait(|| rig.api.model(|model| (model.asked.len() > asked).then_some(()))).await;
    rig.api.pod("web", |pod| pod.gone = true);
    rig.tell("web");
    let mut core = rig.core();
    wait(|| {
        let told = rig.gaps(&mut core);
        (!told[0].is_empty()).then_some(())
    })
    .await;
    // Told again after a restart, when nobody knows the pods, it is the same gap; the other one is known to be whole.
    rig.start();
    let gap = (GapCause::ApiLogsGone, Some(at(0, 1)), None);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let told: Vec<Around> = rig.gaps(&mut core)[0].iter().map(around).collect();
    assert_eq!(told, [gap]);
}

#[tokio::test]
async fn a_pod_that_was_deleted_while_the_agent_was_down_may_have_written_more() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "read");
    rig.start();
    rig.until("1", 1).await;
    rig.stop();
    rig.api.pod("web", |pod| pod.gone = true);
    rig.start();
    let gap = (GapCause::PodDeletedMeanwhile, Some(at(0, 1)), None);
    assert_eq!(rig.vanished().await, gap);
}

#[tokio::test]
async fn a_disk_without_room_is_said_of_the_pipeline() {
    let mut rig = Rig::new().await;
    // More than any file system has free.
    rig.settings.bounds.free = 101;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 0, "nobody reads this");
    rig.start();
    let said = wait(|| rig.figures.borrow().unread.values().next().cloned()).await;
    assert!(said.contains("web") && said.contains("free"), "{said}");
    assert!(rig.spool("1").is_empty());
}

#[tokio::test]
async fn a_full_spool_is_not_read_into_until_something_is_delivered() {
    let mut rig = Rig::new().await;
    rig.settings.bounds.file = 1_000;
    rig.settings.bounds.container = 10_000;
    rig.api.create("web", "1");
    for number in 0..1_000_u32 {
        rig.api
            .write("web", i64::from(number / 10), number, "some words of a line");
    }
    rig.start();
    wait(|| Some(()).filter(|()| rig.figures.borrow().full == 1)).await;
    let before = rig.spool("1").len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.spool("1").len(), before);
    assert!((100..400).contains(&before), "{before}");
    assert!(
        rig.figures
            .borrow()
            .warnings
            .iter()
            .any(|warning| warning.reason == "SpoolFull")
    );
    let folder = rig.settings.root.join("a_web_1_uid-p/main");
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let begun = Instant::now();
    while seen.len() < 1_000 {
        assert!(begun.elapsed() < LONG, "{}", seen.len());
        seen.extend(rig.spool("1"));
        let last = files(&folder).pop().unwrap().to_string();
        rig.deliver("1", Some((&last, 0)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(seen, rig.api.written("web").into_iter().collect());
    // What is delivered is deleted, but for what may come again.
    assert!(rig.spool("1").len() < 200);
}

#[tokio::test]
async fn more_containers_than_requests_take_turns() {
    let mut rig = Rig::new().await;
    rig.settings.streams = 2;
    let names = ["web", "x", "y", "z", "zz"];
    for name in names {
        rig.api.create(name, "1");
    }
    rig.start();
    let folder = |name: &str| rig.settings.root.join(format!("a_{name}_1_uid-p/main"));
    for round in 0..20 {
        for name in names {
            rig.api.write(name, round, 1, &format!("{name} {round}"));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for name in names {
        let found = wait(|| Some(lines(&folder(name))).filter(|lines| lines.len() >= 20)).await;
        assert_eq!(found, rig.api.written(name));
    }
    assert_eq!(rig.api.model(|model| model.most_streams.min(3)), 2);
    assert!(
        rig.figures
            .borrow()
            .warnings
            .iter()
            .any(|warning| warning.reason == "ApiStreamsShared")
    );
}

#[tokio::test]
async fn what_is_withdrawn_is_not_read_and_what_nobody_may_have_is_deleted() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.api.write("web", 0, 1, "allowed");
    rig.start();
    rig.until("1", 1).await;
    let mut config = InForce::clone(&rig.in_force.borrow());
    config.deny = vec![Denial {
        pipeline: config.pipelines[0].name.clone(),
        namespace: None,
    }];
    rig.in_force.send_replace(Arc::new(config.clone()));
    wait(|| rig.api.model(|model| (model.streams == 0).then_some(()))).await;
    rig.api.write("web", 1, 1, "suspended");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.spool("1").len(), 1);
    config.deny.clear();
    rig.in_force.send_replace(Arc::new(config.clone()));
    rig.until("1", 2).await;
    let mut pipeline = Pipeline::clone(&config.pipelines[0]);
    pipeline.pods.namespaces[0].name = "other".into();
    config.pipelines = vec![Arc::new(pipeline)];
    rig.in_force.send_replace(Arc::new(config));
    let folder = rig.settings.root.join("a_web_1_uid-p");
    wait(|| (!folder.exists()).then_some(())).await;
    wait(|| rig.api.model(|model| (model.streams == 0).then_some(()))).await;
}

#[tokio::test]
async fn containers_that_are_older_than_a_pipeline_that_begins_now() {
    let mut rig = Rig::new().await;
    let mut pipeline = through_api("p");
    pipeline.pods.since = Some(api_double::BEGIN + 100);
    rig.in_force
        .send_replace(Arc::new(in_force(vec![pipeline], vec![tenant("ops", 1 << 18)])));
    for (name, began) in [("web", 0), ("young", 101)] {
        rig.api.create(name, "1");
        rig.api.pod(name, |pod| {
            pod.instances = vec![Instance {
                began: api_double::BEGIN + began,
                ..Instance::default()
            }];
        });
    }
    rig.api.write("web", 99, 1, "before");
    rig.api.write("web", 100, 1, "after");
    rig.api.write("young", 102, 1, "all");
    rig.start();
    assert!(rig.until("1", 1).await[0].ends_with("after"));
    let young = rig.settings.root.join("a_young_1_uid-p/main");
    wait(|| Some(()).filter(|()| lines(&young).len() == 1)).await;
}

/// The whole way: the double's lines through the spool and a worker to a sink, the spool deleted at the end.
#[tokio::test]
async fn the_worker_delivers_what_is_spooled_and_the_spool_goes_with_its_pod() {
    let mut rig = Rig::new().await;
    rig.api.create("web", "1");
    rig.settings.bounds.file = 2_000;
    rig.start();
    let mut core = rig.core();
    for (change, _) in rig.api.change("web") {
        core.command(Command::Pod(change), Instant::now());
    }
    let mut got: Vec<String> = Vec::new();
    let begun = Instant::now();
    let mut written = 0;
    let folder = rig.settings.root.join("a_web_1_uid-p");
    while got.len() < 500 || folder.exists() {
        assert!(
            begun.elapsed() < LONG,
            "{} of 500, {:?}",
            got.len(),
            files(&folder.join("main"))
        );
        if written < 500 {
            rig.api.write(
                "web",
                written / 20,
                u32::try_from(written).unwrap(),
                &format!("line {written}"),
            );
            written += 1;
        } else if got.len() == 500 && !rig.api.pod("web", |pod| pod.gone) {
            rig.api.pod("web", |pod| pod.gone = true);
            rig.tell("web");
        }
        let sent = std::cell::RefCell::new(Vec::new());
        core.turn(Instant::now(), &|request: files_rig::Request| {
            sent.borrow_mut().push(request);
        });
        for request in sent.into_inner() {
            for entry in &request.entries {
                assert_eq!(entry.metadata, "pod=web;", "the output's name is not known");
                got.push(entry.line.clone());
            }
            let outcome = Outcome {
                id: request.id,
                tenant: Arc::new(request.tenant),
                stream: None,
                fate: Fate::Ended(Vec::new()),
                body: Vec::new(),
            };
            core.command(Command::Outcome(outcome), Instant::now());
        }
        rig.worker.send_replace(Arc::new(core.figures()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let expected: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
    assert_eq!(got, expected);
}
