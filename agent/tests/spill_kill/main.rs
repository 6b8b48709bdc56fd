//! The real agent, killed at any instant while files are rotated, compressed and deleted and Loki is away now and
//! then: no line is lost, each container's lines come in order, and what comes twice is the same in everything by
//! which Loki merges it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "tests"
)]

mod agents;
#[path = "../support/double.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod double;
mod kubelet;
mod ledger;
#[path = "../support/proto.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod proto;
mod runtime;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use agents::{Agent, Agents, Deed, document};
use double::{Double, Reply};
use kubelet::Kubelet;
use ledger::Ledger;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use runtime::Container;

/// How long the storm lasts; `SLUICE_KILL_SECONDS` for a longer one.
fn storm() -> Duration {
    let seconds = std::env::var("SLUICE_KILL_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(30))
}
/// From here on files are as long as kubelet's, and what is random happens.
const LONG: Duration = Duration::from_mins(10);
const LIMIT: Duration = Duration::from_mins(3);

/// In memory where possible: on a disk with less than 15 % free nothing would be kept for Loki.
fn room() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn pause(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

/// What happens to Loki meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Outages {
    /// It goes and comes.
    Many,
    /// It is away until the end.
    One,
    /// The same, and containers write a lot.
    Long,
}

/// What the threads of a storm share.
struct Node<'a> {
    dir: &'a Path,
    away: &'a AtomicBool,
    ledger: &'a Mutex<Ledger>,
    agents: &'a Agents,
    running: Mutex<Vec<Arc<Container>>>,
    begun: Instant,
}

impl Node<'_> {
    fn is_over(&self) -> bool {
        self.begun.elapsed() >= storm()
    }
}

async fn world(outages: Outages) {
    let dir = room();
    fs::create_dir(dir.path().join("pods")).unwrap();
    let away = Arc::new(AtomicBool::new(outages != Outages::Many));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let (is_away, into) = (Arc::clone(&away), Arc::clone(&ledger));
    let double = Double::deciding(move |asked| {
        if is_away.load(Ordering::Relaxed) {
            return Reply::Status(503, "", String::new());
        }
        into.lock().unwrap().store(asked);
        Reply::Stored
    })
    .await;
    let world = tokio::task::spawn_blocking(move || {
        let agents = Agents::new(dir.path(), double.address);
        let node = Node {
            dir: dir.path(),
            away: &away,
            ledger: &ledger,
            agents: &agents,
            running: Mutex::default(),
            begun: Instant::now(),
        };
        // What the double remembers is of no use here, and much.
        let forget = || double.memory(|memory| *memory = double::Memory::default());
        if outages == Outages::Long {
            endure(&node, forget);
        } else {
            rage(&node, outages, forget);
        }
    });
    world.await.unwrap();
}

#[tokio::test]
async fn killed_at_any_instant_no_line_is_lost_and_duplicates_are_identical() {
    world(Outages::Many).await;
}

#[tokio::test]
async fn an_outage_longer_than_files_live_loses_nothing_though_the_agent_is_killed_all_the_time() {
    world(Outages::One).await;
}

/// With `SLUICE_KILL_SECONDS=600`: ten minutes, and an agent that is killed every two and back after five seconds.
#[tokio::test]
async fn a_megabyte_a_second_into_files_as_kubelet_keeps_them_outlives_a_long_outage() {
    world(Outages::Long).await;
}

#[test]
fn a_second_agent_on_the_same_state_folder_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("pods")).unwrap();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    fs::write(dir.path().join("document.json"), document(nowhere, 0)).unwrap();
    let first = Agent::start(dir.path());
    let waiting = Instant::now();
    while !first.is_ready() && waiting.elapsed() < LIMIT {
        pause(50);
    }
    let mut second = Agent::start(dir.path());
    assert!(!second.child.wait().unwrap().success());
    let log = fs::read_to_string(dir.path().join("agent.log")).unwrap();
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("another agent uses the state folder") && last.contains("--state-dir"),
        "{log}"
    );
    assert!(first.is_ready());
    first.kill();
}

/// kubelet's defaults `containerLogMaxSize` and `containerLogMonitorInterval`, and the bytes of a line.
const FILE: u64 = 10 << 20;
const CHECKS: Duration = Duration::from_secs(10);
const LINE: u64 = 1_000;

/// A megabyte a second into each container.
fn write_steadily(node: &Node<'_>) {
    let mut random = StdRng::seed_from_u64(1);
    while !node.is_over() {
        for container in node.running.lock().unwrap().iter() {
            let due = u64::try_from(node.begun.elapsed().as_millis()).unwrap() * 1_000 / LINE;
            let lines = due.saturating_sub(container.written()).min(5_000);
            container.write(lines, &mut random);
        }
        pause(20);
    }
}

/// kubelet's checks of two containers, of which the second dies now and then.
fn keep_files(node: &Node<'_>, kubelet: &mut Kubelet<'_>) {
    // A shorter storm has shorter files, one of each check; not so short that none could be copied in time.
    let (file, checks, lives) = if storm() < LONG {
        (FILE / 8, storm() / 10, 2)
    } else {
        (FILE, CHECKS, 6)
    };
    let mut random = StdRng::seed_from_u64(2);
    let (mut count, mut next) = (0, node.begun + checks);
    // What is to be done, or was put off.
    let mut due = [false; 2];
    while !node.is_over() {
        kubelet.look();
        if next <= Instant::now() {
            (count, next) = (count + 1, next + checks);
            due = [true; 2];
        }
        for (at, due) in due.iter_mut().enumerate() {
            if !std::mem::take(due) {
                continue;
            }
            let tip = kubelet.files[at].container.tip(kubelet.files[at].restart);
            *due = if at == 1 && count % lives == 0 {
                !kubelet.restart(at, random.random())
            } else {
                let is_large = fs::metadata(tip).unwrap().len() >= file;
                is_large && !kubelet.rotate(at, Duration::from_millis(20))
            };
        }
        pause(20);
    }
}

fn endure(node: &Node<'_>, forget: impl Fn()) {
    let (between, downtime) = (storm() / 5, (storm() / 120).max(Duration::from_secs(1)));
    let mut kubelet = Kubelet::new(
        &node.dir.join("pods"),
        920,
        node.agents,
        node.ledger,
        &node.running,
    );
    kubelet.run("steady");
    kubelet.run("restarted");
    node.agents.start();
    thread::scope(|scope| {
        scope.spawn(|| write_steadily(node));
        scope.spawn(|| keep_files(node, &mut kubelet));
        // At any instant, and at the worst: no agent sees what kubelet does next.
        let mut kinds = [None, Some(Deed::Death), Some(Deed::Rotation)]
            .into_iter()
            .cycle();
        let mut next_kill = node.begun + between / 2;
        while !node.is_over() {
            node.agents.look();
            forget();
            if node
                .agents
                .dead_since()
                .is_some_and(|since| since.elapsed() >= downtime)
            {
                node.agents.start();
            } else if node.agents.is_alive() && next_kill <= Instant::now() && !node.agents.is_sentenced() {
                next_kill += between;
                match kinds.next().flatten() {
                    Some(deed) => node.agents.kill_before(deed),
                    None => node.agents.kill(),
                }
            }
            pause(20);
        }
    });
    judge(node, &kubelet, 0, forget);
    let deeds = &kubelet.deeds;
    assert!(node.agents.kills() > 3, "{deeds:?}");
    // The real kubelet waits for nobody; a short storm's files are shorter than its agents' lives.
    assert!(storm() < LONG || deeds.put_off == 0, "{deeds:?}");
    // Otherwise none of it was worth the time.
    assert!(
        deeds.rotated_away_unseen > 0 && deeds.of_dead_unseen > 0,
        "{deeds:?}"
    );
}

fn rage(node: &Node<'_>, kind: Outages, forget: impl Fn()) {
    let chosen = rand::random();
    println!("seed {chosen}");
    let mut random = StdRng::seed_from_u64(chosen);
    let mut writes = StdRng::seed_from_u64(random.random());
    let mut rotates = StdRng::seed_from_u64(random.random());
    let mut kubelet = Kubelet::new(&node.dir.join("pods"), 0, node.agents, node.ledger, &node.running);
    for n in 0..3 {
        kubelet.run(&format!("web-{n}"));
    }
    let mut outages = 0;
    let most_pods = u32::try_from(storm().as_secs() / 10).unwrap();
    node.agents.start();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !node.is_over() {
                for container in node.running.lock().unwrap().iter() {
                    container.write(writes.random_range(0..40), &mut writes);
                }
                pause(writes.random_range(5..60));
            }
        });
        scope.spawn(|| {
            let random = &mut rotates;
            while !node.is_over() {
                kubelet.look();
                for at in 0..kubelet.files.len() {
                    let tip = kubelet.files[at].container.tip(kubelet.files[at].restart);
                    if random.random_bool(0.15) && fs::metadata(tip).unwrap().len() > 0 {
                        kubelet.rotate(at, Duration::from_millis(random.random_range(0..10)));
                    }
                    if random.random_bool(0.008) {
                        kubelet.restart(at, random.random());
                    }
                }
                // Each takes kubelet some seconds.
                if kubelet.deeds.pods < most_pods && random.random_bool(0.005) {
                    let at = random.random_range(0..kubelet.files.len());
                    kubelet.delete_pod(at, Duration::from_secs(4));
                }
                pause(random.random_range(5..60));
            }
        });
        let mut next_kill = Instant::now() + Duration::from_secs(1);
        let mut next_outage = Instant::now() + Duration::from_secs(3);
        while !node.is_over() {
            node.agents.look();
            forget();
            if kind == Outages::Many && next_outage <= Instant::now() {
                let is_away = !node.away.fetch_xor(true, Ordering::Relaxed);
                outages += u32::from(is_away);
                next_outage = Instant::now() + Duration::from_millis(random.random_range(2_000..6_000));
            }
            if next_kill <= Instant::now() {
                node.agents.kill();
                if !node.agents.is_alive() {
                    pause(random.random_range(0..300));
                    node.agents.start();
                }
                // Some live long enough for a promise to hold.
                let life = if random.random_bool(0.3) {
                    3_500..7_000
                } else {
                    50..3_500
                };
                next_kill = Instant::now() + Duration::from_millis(random.random_range(life));
            }
            pause(random.random_range(5..60));
        }
    });
    let total = judge(node, &kubelet, outages, forget);
    let duplicated = node.ledger.lock().unwrap().duplicated;
    // Otherwise nothing was compared.
    assert!(kind != Outages::Many || storm() < LONG || duplicated > 0);
    let deeds = &kubelet.deeds;
    assert!(
        node.agents.kills() > 3 && total > 1_000 && deeds.rotated_away > 0,
        "{deeds:?}"
    );
}

/// All that was written arrived, and what came twice was the same; returns how many lines were written.
fn judge(node: &Node<'_>, kubelet: &Kubelet<'_>, outages: u32, forget: impl Fn()) -> u64 {
    node.away.store(false, Ordering::Relaxed);
    let ended = kubelet.files.iter().map(|files| {
        files.container.end();
        (files.container.name.clone(), files.container.written())
    });
    let written: BTreeMap<String, u64> = kubelet.gone.iter().cloned().chain(ended).collect();
    let total: u64 = written.values().sum();
    let missing = || {
        let ledger = node.ledger.lock().unwrap();
        let each = written
            .iter()
            .map(|(name, last)| (name, ledger.missing(name, 1..=*last)));
        each.filter(|(_, missing)| !missing.is_empty())
            .collect::<Vec<_>>()
    };
    let count = |missing: &[(&String, Vec<u64>)]| missing.iter().map(|(_, some)| some.len()).sum::<usize>();
    // As long as some arrive.
    let (mut waiting, mut left) = (Instant::now(), usize::MAX);
    while left > 0 && waiting.elapsed() < LIMIT {
        if !node.agents.is_alive() {
            node.agents.start();
        }
        pause(200);
        forget();
        let now = count(&missing());
        if now < left {
            (waiting, left) = (Instant::now(), now);
        }
    }
    let missing = missing();
    let metrics = node.agents.metrics();
    let kills = node.agents.kills();
    node.agents.kill();
    let ledger = node.ledger.lock().unwrap();
    let never_written = ledger.never_written(&written);
    println!(
        "{kills} kills, {outages} outages, {:?}: {total} lines written, {} lost, {} duplicated, {} reordered, \
         {} sent unlike themselves, {} never written; at most {} KiB resident",
        kubelet.deeds,
        count(&missing),
        ledger.duplicated,
        ledger.reordered.len(),
        ledger.unlike.len(),
        never_written.len(),
        node.agents.peak() >> 10,
    );
    let log = fs::read_to_string(node.dir.join("agent.log")).unwrap_or_default();
    let log = log.lines().rev().take(60).collect::<Vec<_>>();
    let first = |all: &[String]| all.iter().take(5).cloned().collect::<Vec<_>>();
    let begin = |(name, some): &(&String, Vec<u64>)| ((*name).clone(), some.first().copied(), some.len());
    let lost: Vec<_> = missing.iter().map(begin).collect();
    assert!(lost.is_empty(), "lost: {lost:?}\n{log:#?}");
    assert!(ledger.unlike.is_empty(), "{:?}", first(&ledger.unlike));
    assert!(ledger.reordered.is_empty(), "{:?}", first(&ledger.reordered));
    assert!(never_written.is_empty(), "{:?}", first(&never_written));
    let told = |name: &str| {
        metrics
            .lines()
            .any(|line| line.starts_with(name) && !line.ends_with(" 0"))
    };
    assert!(metrics.contains("\nsluice_agent_ready 1\n"), "{metrics}");
    assert!(!told("sluice_agent_lost_lines_total"), "{metrics}");
    // Of a pod that is deleted while no agent lives nobody knows whether it wrote more.
    assert!(
        kubelet.deeds.pods > 0 || !told("sluice_agent_gaps_total"),
        "{metrics}"
    );
    total
}
