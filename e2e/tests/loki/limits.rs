//! Per-stream rate, out-of-order window and stream limit, with and without sharded streams: the same lines to a naive
//! sender and to the agent.

use std::time::{Duration, Instant};

use serde_json::json;
use sluice_e2e::figures::show;
use sluice_e2e::wait::until;

use crate::MACHINE;
use crate::agent::{Agent, document};
use crate::lines::{Fate, Writer, now};
use crate::naive::{self, Batch, Told};
use crate::server::{Server, folder};

/// Seconds that containers write for.
const SECONDS: u64 = 20;
const RATE: &str = "per_stream_rate_limit: 10KB\nper_stream_rate_limit_burst: 20KB";
const PATIENCE: Duration = Duration::from_mins(4);

/// What the agent is told of such a Loki.
fn limits() -> serde_json::Value {
    json!({
        "perStreamRateBytesPerSecond": 10_240, "perStreamBurstBytes": 20_480, "outOfOrderWindowMs": 60_000,
    })
}

/// Two replicas that share a stream, one of which comes to light late with ten minutes of lines; a container that writes
/// one and a half times what a stream may; and some quiet ones.
struct Node {
    writers: Vec<Writer>,
    containers: Vec<&'static str>,
}

impl Node {
    fn new(folder: &std::path::Path) -> Self {
        let named = [
            ("web-0", "web"),
            ("web-1", "web"),
            ("burst", "burst"),
            ("quiet-0", "a"),
            ("quiet-1", "zz"),
        ];
        Self {
            writers: named
                .iter()
                .map(|(pod, container)| Writer::new(folder, pod, container))
                .collect(),
            containers: named.iter().map(|(_, container)| *container).collect(),
        }
    }

    /// Writes one second's lines; returns them as a naive sender would batch them.
    fn write(&mut self, second: u64) -> Batch {
        let at = now();
        let spread = |lines: i64| (0..lines).map(move |line| at + line * 1000 / lines);
        let mut batch = Batch::new();
        for (index, container) in self.containers.iter().enumerate() {
            let (times, bytes): (Vec<i64>, usize) = match (index, second) {
                (0, _) => (spread(5).collect(), 100),
                (1, 3) => ((0..300).map(|line| at - 600_000 + line * 2_000).collect(), 40),
                (1, 4..) => (spread(2).collect(), 100),
                (1, _) => (Vec::new(), 0),
                (2, _) => (spread(15).collect(), 1_000),
                _ => (spread(1).collect(), 50),
            };
            let writer = &mut self.writers[index];
            let first = writer.written;
            writer.write(times.iter().copied(), bytes);
            let of_stream = batch.entry((*container).to_owned()).or_default();
            for (time, number) in times.into_iter().zip(first + 1..) {
                let line = format!("{} n={number} ", writer.name);
                of_stream.push((
                    time,
                    format!("{line}{}", "x".repeat(bytes.saturating_sub(line.len()))),
                ));
            }
        }
        batch
    }

    fn written(&self) -> Vec<(String, u64)> {
        let written = |writer: &Writer| (writer.name.clone(), writer.written);
        self.writers.iter().map(written).collect()
    }
}

/// What Loki has of everybody's lines, when it has all of them or patience is over.
async fn all(server: &Server, tenant: &str, written: &[(String, u64)], patience: Duration) -> Fate {
    let begun = Instant::now();
    loop {
        let lines = server.reader().lines(tenant, "{container=~\".+\"}").await;
        let fate = Fate::of(written, &lines);
        if fate.lost == 0 || begun.elapsed() > patience {
            let streams: std::collections::BTreeSet<_> = lines.iter().map(|line| &line.labels).collect();
            let with = |label: &str| streams.iter().filter(|labels| labels.contains_key(label)).count();
            show(&format!(
                "{tenant}: {fate:?} in {} streams, {} of late lines, {} of parts",
                streams.len(),
                with("late"),
                with("part")
            ));
            return fate;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Gives the same lines to both, and kills the agent once.
async fn compare(name: &str, sharding: &str, is_sharded: bool) {
    let _beside = MACHINE.read().await;
    let server = Server::start(name, &format!("{RATE}\nshard_streams: {{{sharding}}}")).await;
    let folder = folder(&format!("{name}-agent"));
    let mut node = Node::new(&folder);
    let document = document(&server.url, "agent", &limits());
    let mut agent = Some(Agent::start(&folder, "node1", &document));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut told = Told::default();
    for second in 0..SECONDS {
        let begun = Instant::now();
        let batch = node.write(second);
        naive::send(&http, &server.url, "naive", &batch, &mut told).await;
        if second == 8 {
            drop(agent.take());
            agent = Some(Agent::start(&folder, "node1", &document));
        }
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed())).await;
    }
    let written = node.written();
    show(&format!("{name}: the naive sender was told {told:?}"));
    let control = all(&server, "naive", &written, Duration::ZERO).await;
    let ours = all(&server, "agent", &written, PATIENCE).await;
    let behind_success = control.lost.saturating_sub(told.dropped);
    show(&format!(
        "{name}: the naive sender lost {behind_success} lines behind 204s, the agent {}",
        ours.lost
    ));
    if ours.lost > 0 {
        show(&std::fs::read_to_string(folder.join("agent.log")).unwrap_or_default());
    }
    drop(agent);
    std::fs::remove_dir_all(folder).unwrap();
    assert!(
        behind_success > 0,
        "the control lost nothing: the test shows nothing"
    );
    assert_eq!((ours.lost, ours.doubled, ours.reordered), (0, 0, 0));
    for fate in [control, ours] {
        assert_eq!(fate.shards > 0, is_sharded, "the test is not what it says");
        assert!(is_sharded || fate.apart == 0);
    }
}

#[tokio::test]
async fn sharded_streams_as_loki_ships_them() {
    compare("default", "enabled: true", false).await;
}

#[tokio::test]
async fn sharded_streams_of_five_kilobytes() {
    compare("sharded", "enabled: true, desired_rate: 5KB", true).await;
}

#[tokio::test]
async fn streams_that_are_not_sharded() {
    compare("unsharded", "enabled: false", false).await;
}

#[tokio::test]
async fn a_limit_of_fifty_streams() {
    const STREAMS: usize = 70;
    let _beside = MACHINE.read().await;
    let server = Server::start("streams", "max_global_streams_per_user: 50").await;
    let folder = folder("streams-agent");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut told = Told::default();
    let mut writers: Vec<Writer> = (0..STREAMS)
        .map(|n| Writer::new(&folder, &format!("pod-{n:02}"), &format!("c{n:02}")))
        .collect();
    let agent = Agent::start(&folder, "node1", &document(&server.url, "agent", &limits()));
    // The naive sender meets the limit in the midst of a request whose last streams Loki has.
    for (from, round) in [(30, 0), (0, 1), (0, 2)] {
        let mut batch = Batch::new();
        for (n, writer) in writers.iter_mut().enumerate().skip(from) {
            let at = now();
            writer.write(std::iter::once(at), 60);
            batch.insert(
                format!("c{n:02}"),
                vec![(at, format!("{} n={} ", writer.name, writer.written))],
            );
        }
        naive::send(&http, &server.url, "naive", &batch, &mut told).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        show(&format!("round {round}: the naive sender was told {told:?}"));
    }
    let written: Vec<(String, u64)> = writers.iter().map(|w| (w.name.clone(), w.written)).collect();
    let control = all(&server, "naive", &written, Duration::ZERO).await;
    assert!(
        control.lost > told.dropped,
        "the control lost nothing: the test shows nothing"
    );
    let reader = server.reader();
    let stored = || async { reader.lines("agent", "{container=~\".+\"}").await };
    until("fifty streams are stored", PATIENCE, async || {
        let lines = stored().await;
        let streams: std::collections::BTreeSet<_> =
            lines.iter().map(|line| line.label("container")).collect();
        if streams.len() == 50 {
            Ok(())
        } else {
            Err(format!("{} streams", streams.len()))
        }
    })
    .await;
    // Those that Loki has flow on.
    let known: Vec<String> = stored()
        .await
        .iter()
        .map(|line| line.label("container").to_owned())
        .collect();
    for (n, writer) in writers.iter_mut().enumerate() {
        if known.contains(&format!("c{n:02}")) {
            writer.write(std::iter::once(now()), 60);
        }
    }
    let flowing: Vec<(String, u64)> = writers
        .iter()
        .enumerate()
        .filter(|(n, _)| known.contains(&format!("c{n:02}")))
        .map(|(_, writer)| (writer.name.clone(), writer.written))
        .collect();
    let fate = all(&server, "agent", &flowing, Duration::from_secs(20)).await;
    assert_eq!(fate.lost, 0);
    // And nothing of the others is lost.
    server.override_limits("agent", "max_global_streams_per_user: 1000");
    let written: Vec<(String, u64)> = writers.iter().map(|w| (w.name.clone(), w.written)).collect();
    let fate = all(&server, "agent", &written, PATIENCE).await;
    drop(agent);
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!((fate.lost, fate.doubled, fate.reordered), (0, 0, 0));
}

/// A pod that moves: its writer on the first node ends, and one of the same pod goes on on the second.
#[tokio::test]
async fn what_two_nodes_kept_in_an_outage_longer_than_the_window_is_taken() {
    const OUTAGE: u64 = 75;
    let _beside = MACHINE.read().await;
    let mut server = Server::start("outage", "").await;
    let document = document(&server.url, "agent", &json!({"outOfOrderWindowMs": 60_000}));
    let nodes = ["node1", "node2"].map(|node| (node, folder(&format!("outage-{node}"))));
    let start = |at: usize| Agent::start(&nodes[at].1, nodes[at].0, &document);
    let mut agents = [0, 1].map(|at| Some(start(at)));
    let writer = |at: usize, pod, container| Writer::new(&nodes[at].1, pod, container);
    let mut moved = writer(1, "db-0", "db");
    "db-0-moved".clone_into(&mut moved.name);
    let replicas = [writer(0, "web-0", "web"), writer(0, "web-1", "web")];
    let mut writers: Vec<Writer> = replicas
        .into_iter()
        .chain([writer(0, "db-0", "db"), moved])
        .collect();
    let mut kept: Vec<Batch> = writers.iter().map(|_| Batch::new()).collect();
    let second = async |writers: &mut Vec<Writer>, kept: &mut Vec<Batch>, has_moved: bool| {
        let at = now();
        for (index, writer) in writers.iter_mut().enumerate() {
            if index == if has_moved { 2 } else { 3 } {
                continue;
            }
            let first = writer.written;
            let times = (0..5).map(|line| at + line * 200);
            writer.write(times.clone(), 100);
            let container = if index < 2 { "web" } else { "db" };
            let lines = times
                .zip(first + 1..)
                .map(|(time, n)| (time, format!("{} n={n} ", writer.name)));
            kept[index].entry(container.to_owned()).or_default().extend(lines);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    for _ in 0..5 {
        second(&mut writers, &mut kept, false).await;
    }
    server.stop();
    for at in 0..OUTAGE {
        for (node, agent) in agents.iter_mut().enumerate() {
            if at == OUTAGE * (1 + node as u64) / 3 {
                drop(agent.take());
                *agent = Some(start(node));
            }
        }
        second(&mut writers, &mut kept, at > OUTAGE / 2).await;
    }
    server.resume().await;
    for _ in 0..5 {
        second(&mut writers, &mut kept, true).await;
    }
    let written: Vec<(String, u64)> = writers.iter().map(|w| (w.name.clone(), w.written)).collect();
    // A sender that keeps each container's lines in order loses the second replica's.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut told = Told::default();
    for batch in &kept {
        naive::send(&http, &server.url, "naive", batch, &mut told).await;
    }
    let control = all(&server, "naive", &written, Duration::ZERO).await;
    let ours = all(&server, "agent", &written, PATIENCE).await;
    drop(agents);
    for (_, folder) in nodes {
        std::fs::remove_dir_all(folder).unwrap();
    }
    assert!(
        control.lost > 0,
        "the window took everything: the test shows nothing"
    );
    assert_eq!((ours.lost, ours.doubled, ours.reordered), (0, 0, 0));
}
