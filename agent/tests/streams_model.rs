//! Containers that share a stream, an agent that is killed at any moment, and a Loki that takes no line which is older
//! than its stream's newest one by more than a window, and answers 204 all the same: every line is stored, once.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "tests"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_agent::batch::{Append, Batch, Batcher, Bound, Entry, Fate, Finished, Outcome, StreamId, encode};
use sluice_agent::tail::position::CursorId;
use sluice_agent::worker::{Command, Core, Sink, Taken, WorkerSettings};
use sluice_engine::document::{Delivery, Limits, Tenant};
use sluice_engine::key::Key;

#[allow(unused_imports, reason = "the rig is shared")]
#[path = "files_rig/mod.rs"]
mod files_rig;
#[allow(dead_code, reason = "the protocol is shared")]
#[path = "support/proto.rs"]
mod proto;

use files_rig::{in_force, pipeline, tenant};

/// The window of Loki, in seconds.
const WINDOW: i64 = 60;
const BEGIN: i64 = 1_795_197_000;

/// The batcher as the agent wires it.
struct Real(Batcher);

impl Sink for Real {
    type Batch = Batch;
    fn set_tenant(&mut self, tenant: &Tenant) {
        self.0.set_tenant(tenant);
    }
    fn remove_tenant(&mut self, key: &Key) {
        self.0.remove_tenant(key);
    }
    fn open_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        self.0.open_stream(tenant, labels)
    }
    fn open_late_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        self.0.open_late_stream(tenant, labels)
    }
    fn close_stream(&mut self, stream: StreamId) {
        self.0.close_stream(stream);
    }
    fn metadata(pairs: &[(&str, &str)]) -> Vec<u8> {
        encode::metadata(pairs)
    }
    fn has_room(&mut self, tenant: &Key) -> bool {
        self.0.has_room(tenant)
    }
    fn rest(&mut self, stream: StreamId) {
        self.0.rest(stream);
    }
    fn takes_more(&self, stream: StreamId) -> bool {
        self.0.takes_more(stream)
    }
    fn late_until(&self, stream: StreamId) -> i64 {
        self.0.late_until(stream)
    }
    fn append(&mut self, stream: StreamId, cursor: CursorId, entry: &Entry<'_>) -> Taken {
        match self.0.append(stream, cursor, entry) {
            Append::Added => Taken::Added,
            Append::Opened(piece) => Taken::Opened(piece),
            Append::Behind => Taken::Behind,
            Append::NotYet => Taken::NotYet,
            Append::NoRoom => Taken::NoRoom,
        }
    }
    fn drop_cursor(&mut self, cursor: CursorId) {
        self.0.drop_cursor(cursor);
    }
    fn raised(&mut self) -> Vec<Bound> {
        self.0.raised()
    }
    fn restore(&mut self, tenant: &Key, labels: &str, bound: i64, returning: u32) {
        self.0.restore(tenant, labels, bound, returning);
    }
    fn returned(&mut self, stream: StreamId) {
        self.0.returned(stream);
    }
    fn forget(&mut self, now: Instant) -> Vec<Bound> {
        self.0.forget(now)
    }
    fn seal(&mut self, now: Instant) -> Option<Batch> {
        self.0.seal(now)
    }
    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.0.next_due(now)
    }
    fn drain(&mut self) {
        self.0.drain();
    }
    fn complete(&mut self, outcome: Outcome) -> Vec<Finished> {
        self.0.complete(outcome)
    }
    fn held_bytes(&self) -> u64 {
        self.0.held_bytes()
    }
}

/// What Loki does with a request.
#[derive(Default)]
struct Loki {
    newest: BTreeMap<String, i64>,
    /// Lines, and the streams that have them.
    stored: BTreeMap<String, BTreeSet<String>>,
    refused: Vec<String>,
}

impl Loki {
    fn push(&mut self, body: &[u8]) {
        for stream in proto::decode(body).streams {
            for entry in stream.entries {
                let seconds = entry.timestamp.unwrap().seconds;
                let newest = self.newest.entry(stream.labels.clone()).or_insert(seconds);
                if seconds < *newest - WINDOW {
                    self.refused.push(entry.line);
                    continue;
                }
                *newest = seconds.max(*newest);
                let streams = self.stored.entry(entry.line).or_default();
                streams.insert(stream.labels.clone());
            }
        }
    }
}

/// The node: its containers, its agent, its Loki.
struct World {
    dir: tempfile::TempDir,
    limits: Limits,
    core: Option<Core<Real>>,
    now: Instant,
    under_way: Vec<Batch>,
    /// The journal as it was when the last request went, unless something was answered since.
    noted: Option<Vec<u8>>,
    loki: Loki,
    clocks: [i64; 3],
    written: u64,
}

impl World {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let mut world = Self {
            dir,
            limits,
            core: None,
            now: Instant::now(),
            under_way: Vec::new(),
            noted: None,
            loki: Loki::default(),
            clocks: [BEGIN, BEGIN, BEGIN - 3 * WINDOW],
            written: 0,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.core = None;
        let log_root = self.dir.path().join("pods");
        fs::create_dir_all(&log_root).unwrap();
        let settings = WorkerSettings {
            log_root: Some(log_root),
            follow_root: None,
            link_roots: Vec::new(),
            state_dir: self.dir.path().join("state"),
            node_name: "node1".into(),
            own_pod_uid: None,
            pod_facts_wait: Duration::ZERO,
        };
        let mut core = Core::new(settings, Real(Batcher::new(8 << 20))).unwrap();
        let mut tenant = tenant("t", 4096);
        tenant.limits = self.limits.clone();
        tenant.delivery = Delivery {
            batch_wait_ms: 200,
            ..Delivery::default()
        };
        let config = in_force(vec![pipeline("p", &["t"])], vec![tenant]);
        core.command(Command::Config(Arc::new(config)), self.now);
        self.core = Some(core);
    }

    /// A container writes lines, each some seconds after the last.
    fn write(&mut self, container: usize, lines: u32, gap: i64, length: usize) {
        let folder = self
            .dir
            .path()
            .join(format!("pods/a_web-{container}_uid-{container}/c"));
        fs::create_dir_all(&folder).unwrap();
        let mut text = String::new();
        for _ in 0..lines {
            self.clocks[container] += gap;
            self.written += 1;
            let at = jiff::Timestamp::from_second(self.clocks[container]).unwrap();
            let filling = "x".repeat(length);
            writeln!(text, "{at} stdout F n={} {filling}", self.written).unwrap();
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("0.log"))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn turn(&mut self) {
        let sent = RefCell::new(Vec::new());
        let noted = RefCell::new(None);
        let (now, journal) = (self.now, self.journal());
        self.core.as_mut().unwrap().turn(now, &|batch| {
            sent.borrow_mut().push(batch);
            noted.replace(Some(fs::read(&journal).unwrap()));
        });
        self.under_way.extend(sent.into_inner());
        self.noted = noted.into_inner();
        self.now += Duration::from_millis(100);
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("state/journal")
    }

    /// Loki takes a request, and the agent hears of it.
    fn answer(&mut self, index: usize) {
        if index < self.under_way.len() {
            self.noted = None;
            let batch = self.under_way.remove(index);
            self.loki.push(&batch.body);
            let outcome = Outcome {
                id: batch.id,
                tenant: batch.tenant,
                stream: None,
                fate: Fate::Ended(Vec::new()),
                body: Vec::new(),
            };
            let now = self.now;
            self.core
                .as_mut()
                .unwrap()
                .command(Command::Outcome(outcome), now);
        }
    }

    /// Kills the agent, at the end of its last turn or when its last request went: what a request depends on is on disk
    /// by then. Of what was under way Loki has got what the bits say.
    fn crash(&mut self, got: u8) {
        for (index, batch) in std::mem::take(&mut self.under_way).into_iter().enumerate() {
            if got >> (index % 8) & 1 == 1 {
                self.loki.push(&batch.body);
            }
        }
        if let Some(noted) = self.noted.take().filter(|_| got % 2 == 1) {
            self.core = None;
            fs::write(self.journal(), noted).unwrap();
        }
        self.start();
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.turn();
            while !self.under_way.is_empty() {
                self.answer(0);
            }
        }
    }

    /// Lines that Loki does not have, and lines that it has in two streams.
    fn faults(&self) -> (Vec<u64>, Vec<String>) {
        let numbers: BTreeSet<u64> = self
            .loki
            .stored
            .keys()
            .map(|line| line[2..].split(' ').next().unwrap().parse().unwrap())
            .collect();
        let lost = (1..=self.written)
            .filter(|number| !numbers.contains(number))
            .collect();
        let twice = self.loki.stored.iter().filter(|(_, streams)| streams.len() > 1);
        (
            lost,
            twice
                .map(|(line, streams)| format!("{} {streams:?}", &line[..6.min(line.len())]))
                .collect(),
        )
    }
}

fn limits() -> Limits {
    Limits {
        out_of_order_window_ms: WINDOW.unsigned_abs() * 1000,
        rate_bytes_per_second: 1 << 40,
        burst_bytes: 1 << 40,
        per_stream_rate_bytes_per_second: 1 << 40,
        per_stream_burst_bytes: 1 << 40,
        ..Limits::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write { container: usize, lines: u32, gap: i64 },
    Turns(u32),
    Answer(usize),
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_usize..3, 1_u32..6, prop_oneof![0_i64..3, 0_i64..40, 50_i64..200])
            .prop_map(|(container, lines, gap)| Step::Write { container, lines, gap }),
        4 => (1_u32..8).prop_map(Step::Turns),
        4 => (0_usize..4).prop_map(Step::Answer),
        1 => any::<u8>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("SLUICE_SOAK_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
    ))]
    #[test]
    fn every_line_is_stored(steps in proptest::collection::vec(step(), 1..60)) {
        let crashed = steps.iter().any(|step| matches!(step, Step::Crash(_)));
        let (lost, twice, refused) = play(steps);
        prop_assert!(lost.is_empty(), "lost {:?}, refused {:?}", lost, refused);
        // What was acknowledged behind a line that was not may go to another stream after a crash.
        prop_assert!(twice.is_empty() || crashed, "in two streams: {:?}", twice);
    }
}

/// What is lost, what is in two streams and what was refused after these steps.
fn play(steps: Vec<Step>) -> (Vec<u64>, Vec<String>, Vec<String>) {
    let mut world = World::new(limits());
    for step in steps {
        match step {
            Step::Write {
                container,
                lines,
                gap,
            } => world.write(container, lines, gap, 10),
            Step::Turns(turns) => (0..turns).for_each(|_| world.turn()),
            Step::Answer(index) => world.answer(index),
            Step::Crash(got) => world.crash(got),
        }
    }
    world.settle();
    let (lost, twice) = world.faults();
    (lost, twice, world.loki.refused)
}

#[test]
fn what_is_under_way_in_a_crash_goes_to_the_same_stream_again() {
    let write = |container, lines, gap| Step::Write {
        container,
        lines,
        gap,
    };
    // A late line whose stream's newest line was not sent yet; a line before it in the plain stream.
    let late = vec![
        write(0, 1, 0),
        write(2, 1, 0),
        write(2, 2, 114),
        write(0, 2, 24),
        write(1, 1, 0),
        write(0, 1, 0),
        Step::Turns(3),
    ];
    let before = vec![
        write(1, 1, 0),
        Step::Turns(1),
        write(0, 1, 50),
        write(1, 1, 0),
        Step::Turns(3),
    ];
    // Newer lines of the other replica come first after the crash.
    let newer = vec![
        write(0, 3, 1),
        write(1, 3, 1),
        Step::Turns(4),
        write(0, 2, 300),
        Step::Turns(1),
    ];
    for steps in [late, before, newer] {
        for got in [0, 1, 2, 3, 26, 125, 255] {
            let mut steps = steps.clone();
            steps.push(Step::Crash(got));
            let found = play(steps.clone());
            assert_eq!(found, (vec![], vec![], vec![]), "{steps:?}");
        }
    }
}

#[test]
fn lines_over_the_tenants_age_are_counted_and_not_sent() {
    let mut world = World::new(Limits {
        reject_old_samples_max_age_ms: Some(3_600_000),
        ..limits()
    });
    world.write(0, 7, 1, 10);
    world.clocks[0] = jiff::Timestamp::now().as_second() - 60;
    world.write(0, 3, 1, 10);
    world.settle();
    assert_eq!(world.loki.stored.len(), 3);
    let figures = world.core.as_mut().unwrap().figures();
    let output = &figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")];
    assert_eq!(
        (output.delivered_lines, output.rejected["older_than_max_age"]),
        (3, 7)
    );
}

#[test]
fn lines_over_the_tenants_age_are_counted_once_however_often_the_agent_dies() {
    let mut world = World::new(Limits {
        reject_old_samples_max_age_ms: Some(3_600_000),
        ..limits()
    });
    let now = jiff::Timestamp::now().as_second();
    world.write(0, 2, 1, 10);
    world.clocks[0] = now - 60;
    world.write(0, 3, 1, 10);
    world.clocks[0] = BEGIN;
    world.write(0, 7, 1, 10);
    world.clocks[0] = now - 50;
    world.write(0, 3, 1, 10);
    for _ in 0..3 {
        // All is read, the two lines before what waits for Loki are passed for good.
        (0..30).for_each(|_| world.turn());
        let figures = world.core.as_mut().unwrap().figures();
        let output = &figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")];
        assert_eq!(output.rejected["older_than_max_age"], 2);
        world.crash(0);
    }
    world.settle();
    let figures = world.core.as_mut().unwrap().figures();
    let output = &figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")];
    assert_eq!(
        (output.delivered_lines, output.rejected["older_than_max_age"]),
        (6, 9)
    );
}

#[test]
fn a_backlog_longer_than_the_window_is_taken_though_another_replicas_live_lines_went_first() {
    let mut world = World::new(limits());
    world.write(0, 20, 1, 10);
    world.settle();
    // The other replica's file comes to light late: all of it is an hour old.
    world.clocks[1] = BEGIN - 3600;
    world.write(1, 200, 18, 10);
    world.settle();
    let (lost, twice) = world.faults();
    assert_eq!((lost, twice), (vec![], vec![]));
    let late: BTreeSet<&String> = world
        .loki
        .stored
        .values()
        .flatten()
        .filter(|labels| labels.contains("late="))
        .collect();
    assert!(late.len() > 50, "{late:?}");
    // When it has caught up, it is in the plain stream again.
    world.write(1, 5, 1, 10);
    world.settle();
    let at_end = world
        .loki
        .stored
        .iter()
        .find(|(line, _)| line.starts_with("n=225 "))
        .unwrap()
        .1;
    assert!(
        at_end.iter().all(|labels| !labels.contains("late=")),
        "{at_end:?}"
    );
    assert!(world.loki.refused.is_empty());
}

#[test]
fn a_container_over_its_streams_rate_is_spread_and_each_part_keeps_its_order() {
    let limits = Limits {
        per_stream_rate_bytes_per_second: 10_000,
        per_stream_burst_bytes: 40_000,
        rate_bytes_per_second: 100_000,
        ..limits()
    };
    let mut world = World::new(limits);
    // 20 KB in each second, of which one stream takes 8.
    for _ in 0..40 {
        world.write(0, 20, 0, 1_000);
        world.clocks[0] += 1;
    }
    for round in 0..600 {
        world.turn();
        while !world.under_way.is_empty() {
            world.answer(0);
        }
        if round == 300 {
            world.crash(0xff);
        }
    }
    let (lost, twice) = world.faults();
    assert_eq!((lost, twice), (vec![], vec![]));
    let streams: BTreeSet<&String> = world.loki.stored.values().flatten().collect();
    assert_eq!(streams.len(), 3, "{streams:?}");
    // Quiet again, it goes back to one.
    for _ in 0..20 {
        world.write(0, 1, 1, 10);
        world.settle();
    }
    let at_end = world
        .loki
        .stored
        .iter()
        .find(|(line, _)| line.starts_with("n=820 "))
        .unwrap()
        .1;
    assert!(
        at_end.iter().all(|labels| !labels.contains("part=")),
        "{at_end:?}"
    );
}
