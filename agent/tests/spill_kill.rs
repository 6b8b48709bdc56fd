//! The real agent, killed at any instant while files are rotated, compressed and deleted and Loki is away now and
//! then: no line is lost, and what comes twice is the same in everything by which Loki merges it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "tests"
)]

#[path = "support/double.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod double;
#[path = "support/proto.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod proto;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use double::{Double, Reply};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// How long the storm lasts; `SLUICE_KILL_SECONDS` for a longer one.
fn storm() -> Duration {
    let seconds = std::env::var("SLUICE_KILL_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(30))
}
/// How long an agent is given to see what happened before it may be killed again.
const SIGHT: Duration = Duration::from_millis(1_500);
const LIMIT: Duration = Duration::from_mins(3);

/// What Loki tells entries apart by: labels, timestamp, metadata.
type Stored = BTreeSet<(String, i64, i32, String)>;

/// Everything that was stored, by line.
type Lines = Arc<Mutex<BTreeMap<String, Stored>>>;

struct Agent {
    child: Child,
    port: SocketAddr,
    ready: Option<Instant>,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("agent.log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sluice-agent"))
            .arg("--document")
            .arg(dir.join("document.json"))
            .arg("--log-root")
            .arg(dir.join("pods"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .args([
                "--listen",
                &port.to_string(),
                "--node-name",
                "n1",
                "--allow-local-addresses",
            ])
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            ready: None,
        }
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.port, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Since when it works.
    fn ready(&mut self) -> Option<Instant> {
        if self.ready.is_none()
            && self
                .get("/readyz")
                .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        {
            self.ready = Some(Instant::now());
        }
        self.ready
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A container and its files, as kubelet keeps them.
struct Container {
    folder: PathBuf,
    name: String,
    written: u64,
    rotations: u32,
    /// Rotated files with names, oldest first, and since when the first is the oldest compressed one.
    rotated: Vec<PathBuf>,
    at_risk: Option<Instant>,
    /// How many of them kubelet keeps.
    keep: usize,
    /// What follows in each line.
    padding: String,
}

impl Container {
    fn new(pods: &Path, pod: &str, name: &str) -> Self {
        let folder = pods.join(format!("shop_{pod}_uid-{pod}")).join(name);
        fs::create_dir_all(&folder).unwrap();
        Self {
            folder,
            name: format!("{pod}/{name}"),
            written: 0,
            rotations: 0,
            rotated: Vec::new(),
            at_risk: None,
            keep: 3,
            padding: String::new(),
        }
    }

    fn write(&mut self, lines: u64, random: &mut StdRng) {
        let mut text = String::new();
        for _ in 0..lines {
            self.written += 1;
            let n = self.written;
            let stream = if random.random_bool(0.3) {
                "stderr"
            } else {
                "stdout"
            };
            let time = format!(
                "2026-11-20T17:{:02}:{:02}.{:09}Z",
                n / 60_000 % 60,
                n / 1_000 % 60,
                n % 1_000 * 1_000_000
            );
            let line = format!("{} {n}{}", self.name, self.padding);
            if random.random_bool(0.05) {
                let (a, b) = line.split_at(3);
                text.extend([
                    &time, " ", stream, " P ", a, "\n", &time, " ", stream, " F ", b, "\n",
                ]);
            } else {
                text.extend([&time, " ", stream, " F ", &line, "\n"]);
            }
        }
        // In two writes, as a reader may see it.
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("0.log"))
            .unwrap();
        file.write_all(first).unwrap();
        file.write_all(second).unwrap();
    }

    /// One rotation of kubelet, which leaves one rotated file as it is; `seen`: since when an agent works.
    fn rotate(&mut self, seen: Option<Instant>) {
        if self.rotated.len() >= self.keep {
            let since = *self.at_risk.get_or_insert_with(Instant::now);
            // A file whose danger no agent lived to see is beyond every promise.
            if seen.is_none_or(|seen| seen.max(since).elapsed() < SIGHT) {
                return;
            }
            fs::remove_file(self.rotated.remove(0)).unwrap();
            self.at_risk = None;
        }
        for path in &mut self.rotated {
            if path.extension().is_none_or(|extension| extension != "gz") {
                let bytes = fs::read(&*path).unwrap();
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes).unwrap();
                let (unfinished, whole) = (
                    path.with_extension("x.tmp"),
                    PathBuf::from(format!("{}.gz", path.display())),
                );
                fs::write(&unfinished, encoder.finish().unwrap()).unwrap();
                fs::rename(unfinished, &whole).unwrap();
                fs::remove_file(&*path).unwrap();
                *path = whole;
            }
        }
        self.rotations += 1;
        let name = format!("0.log.20261120-{:06}", self.rotations);
        fs::rename(self.folder.join("0.log"), self.folder.join(&name)).unwrap();
        self.rotated.push(self.folder.join(name));
        fs::write(self.folder.join("0.log"), "").unwrap();
    }
}

fn document(address: SocketAddr) -> String {
    format!(
        r#"{{"version": 1, "pipelines": [{{"name": "default/web", "uid": "web", "tenants": ["default/ops"],
           "pods": {{"namespaces": [{{"name": "shop"}}]}}}}],
           "tenants": [{{"name": "default/ops", "uid": "ops", "pushUrl": "http://{address}/loki/api/v1/push",
           "delivery": {{"batchWaitMs": 200}}}}]}}"#
    )
}

async fn loki(away: Arc<AtomicBool>, lines: Lines) -> Double {
    Double::deciding(move |asked| {
        if away.load(Ordering::Relaxed) {
            return Reply::Status(503, "", String::new());
        }
        let mut lines = lines.lock().unwrap();
        for stream in &asked.request.streams {
            for entry in &stream.entries {
                let time = entry.timestamp.clone().unwrap_or_default();
                let metadata: Vec<_> = entry
                    .metadata
                    .iter()
                    .map(|pair| format!("{}={}", pair.name, pair.value))
                    .collect();
                let stored = (
                    stream.labels.clone(),
                    time.seconds,
                    time.nanos,
                    metadata.join(";"),
                );
                let name: Vec<_> = entry.line.splitn(3, ' ').take(2).collect();
                lines.entry(name.join(" ")).or_default().insert(stored);
            }
        }
        Reply::Stored
    })
    .await
}

/// In memory where possible: on a disk with less than 15 % free nothing would be kept for Loki.
fn room() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
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

async fn world(outages: Outages) {
    let dir = room();
    let away = Arc::new(AtomicBool::new(outages != Outages::Many));
    let lines = Lines::default();
    let double = loki(Arc::clone(&away), Arc::clone(&lines)).await;
    fs::write(dir.path().join("document.json"), document(double.address)).unwrap();
    let path = dir.path().to_owned();
    let world = tokio::task::spawn_blocking(move || match outages {
        Outages::Long => endure(&path, &away, &lines),
        Outages::One | Outages::Many => rage(&path, &away, &lines, outages),
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
    fs::write(dir.path().join("document.json"), document(nowhere)).unwrap();
    let mut first = Agent::start(dir.path());
    let waiting = Instant::now();
    while first.ready().is_none() && waiting.elapsed() < LIMIT {
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
    assert!(first.get("/readyz").is_some());
    first.kill();
}

/// Bytes of kubelet's default `containerLogMaxSize`, and of a line.
const FILE: u64 = 10 << 20;
const LINE: u64 = 1_000;

fn endure(dir: &Path, away: &AtomicBool, lines: &Lines) {
    let mut random = StdRng::seed_from_u64(1);
    let mut containers: Vec<Container> = (0..2)
        .map(|n| Container {
            // Five files, as `containerLogMaxFiles` has it.
            keep: 4,
            padding: format!(" {}", "x".repeat(920)),
            ..Container::new(&dir.join("pods"), &format!("web-{n}"), "main")
        })
        .collect();
    let mut agent = Agent::start(dir);
    let begun = Instant::now();
    let between = storm() / 5;
    // As many files of a shorter storm.
    let file = FILE * storm().as_secs().min(600) / 600;
    let (mut kills, mut next_kill) = (0, begun + between / 2);
    while begun.elapsed() < storm() {
        let seen = agent.ready();
        for container in &mut containers {
            let due = u64::try_from(begun.elapsed().as_millis()).unwrap() * 1_000 / LINE;
            container.write(due.saturating_sub(container.written).min(5_000), &mut random);
            if fs::metadata(container.folder.join("0.log")).is_ok_and(|tip| tip.len() >= file) {
                container.rotate(seen);
            }
        }
        if next_kill <= Instant::now() {
            agent.kill();
            pause(u64::try_from(between.as_millis()).unwrap() / 24);
            agent = Agent::start(dir);
            (kills, next_kill) = (kills + 1, next_kill + between);
        }
        pause(50);
    }
    away.store(false, Ordering::Relaxed);
    let rotations: u32 = containers.iter().map(|container| container.rotations).sum();
    let finished: Vec<_> = containers
        .into_iter()
        .map(|found| (found.name, found.written))
        .collect();
    judge(
        dir,
        agent,
        lines,
        &finished,
        &format!("{kills} kills, {rotations} rotations"),
    );
    assert!(kills > 3);
}

fn rage(dir: &Path, away: &AtomicBool, lines: &Lines, kind: Outages) {
    let chosen = rand::random();
    println!("seed {chosen}");
    let mut random = StdRng::seed_from_u64(chosen);
    let pods = dir.join("pods");
    let mut containers: Vec<Container> = (0..3)
        .map(|n| Container::new(&pods, &format!("web-{n}"), "main"))
        .collect();
    let mut finished: Vec<(String, u64)> = Vec::new();
    let (mut kills, mut deleted, mut outages) = (0, 0, 0);
    let mut agent = Agent::start(dir);
    let begun = Instant::now();
    let mut next_kill = Instant::now() + Duration::from_secs(1);
    let mut next_outage = Instant::now() + Duration::from_secs(3);
    while begun.elapsed() < storm() {
        let seen = agent.ready();
        for container in &mut containers {
            container.write(random.random_range(0..40), &mut random);
            if random.random_bool(0.15) {
                container.rotate(seen);
            }
        }
        if kind == Outages::Many && next_outage <= Instant::now() {
            let is_away = !away.fetch_xor(true, Ordering::Relaxed);
            outages += u32::from(is_away);
            next_outage = Instant::now() + Duration::from_millis(random.random_range(2_000..6_000));
        }
        // A pod is deleted, and an agent is there to see it.
        if random.random_bool(0.02) && seen.is_some_and(|seen| seen.elapsed() >= SIGHT) {
            let at = random.random_range(0..containers.len());
            deleted += 1;
            let fresh = Container::new(&pods, &format!("new-{deleted}"), "main");
            let old = std::mem::replace(&mut containers[at], fresh);
            // A file that no agent has come to see is beyond every promise, on a busy machine too.
            pause(4_000);
            fs::remove_dir_all(old.folder.parent().unwrap()).unwrap();
            finished.push((old.name, old.written));
            pause(u64::try_from(SIGHT.as_millis()).unwrap());
        }
        if next_kill <= Instant::now() {
            agent.kill();
            kills += 1;
            pause(random.random_range(0..300));
            agent = Agent::start(dir);
            next_kill = Instant::now() + Duration::from_millis(random.random_range(50..3_500));
        }
        pause(random.random_range(5..60));
    }
    away.store(false, Ordering::Relaxed);
    finished.extend(
        containers
            .iter()
            .map(|container| (container.name.clone(), container.written)),
    );

    let rotations: u32 = containers.iter().map(|container| container.rotations).sum();
    let what = format!("{kills} kills, {outages} outages, {rotations} rotations, {deleted} pods deleted");
    let total = judge(dir, agent, lines, &finished, &what);
    assert!(kills > 3 && total > 1_000);
}

/// All that was written arrived, and what came twice was the same; returns how many lines were written.
fn judge(dir: &Path, agent: Agent, lines: &Lines, finished: &[(String, u64)], what: &str) -> u64 {
    let total: u64 = finished.iter().map(|(_, written)| written).sum();
    let missing = || {
        let lines = lines.lock().unwrap();
        let all = finished
            .iter()
            .flat_map(|(name, written)| (1..=*written).map(move |n| format!("{name} {n}")));
        all.filter(|line| !lines.contains_key(line)).collect::<Vec<_>>()
    };
    // As long as some arrive.
    let (mut waiting, mut left) = (Instant::now(), usize::MAX);
    while left > 0 && waiting.elapsed() < LIMIT {
        pause(200);
        let now = missing().len();
        if now < left {
            (waiting, left) = (Instant::now(), now);
        }
    }
    let missing = missing();
    let metrics = agent.get("/metrics").unwrap_or_default();
    agent.kill();
    let stored = lines.lock().unwrap();
    let unlike: Vec<_> = stored.iter().filter(|(_, stored)| stored.len() > 1).collect();
    println!(
        "{what}: {total} lines written, {} lost, {} sent unlike themselves, {} never written",
        missing.len(),
        unlike.len(),
        stored.len() as u64 + missing.len() as u64 - total,
    );
    let log = fs::read_to_string(dir.join("agent.log")).unwrap_or_default();
    let log = log.lines().rev().take(60).collect::<Vec<_>>();
    assert!(
        missing.is_empty(),
        "lost: {:?}\n{log:#?}",
        &missing[..missing.len().min(20)]
    );
    assert!(unlike.is_empty(), "{unlike:?}");
    assert_eq!(stored.len() as u64, total);
    let told = |name: &str| {
        metrics
            .lines()
            .any(|line| line.starts_with(name) && !line.ends_with(" 0"))
    };
    assert!(!told("sluice_agent_lost_lines_total"), "{metrics}");
    total
}
