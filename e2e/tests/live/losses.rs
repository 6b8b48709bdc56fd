//! An agent that is away for longer than its node's files live: what was lost is told, by whose it was and by the
//! timestamps around it, and it is all that was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_e2e::cluster::Cluster;
use sluice_e2e::figures::show;
use sluice_e2e::loki::Line;
use sluice_e2e::objects::{Reference, read, until_condition, until_object};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{kill_agent, until_ready};
use sluice_e2e::tally::{assert_exact, number, tally};
use sluice_e2e::wait::{PATIENCE, until};
use sluice_e2e::workload::{Pod, steady_count, wide};

use super::rotation::note_rotations;

const SECONDS: u64 = 100;
/// Lines of 400 bytes and more per second: 1 MiB, at which the kubelet rotates, in less than the three seconds after which
/// it looks.
const PER_SECOND: u64 = 1000;
const WIDE: usize = 400;
/// Rotations without an agent. The kubelet keeps five files, so half of what was written meanwhile is gone.
const ROTATIONS: usize = 9;
/// Positions are journaled every second: a killed agent knows the last line that was delivered by this much, on a busy
/// machine.
const JOURNALED: SignedDuration = SignedDuration::from_secs(10);

#[test]
fn what_the_kubelet_deletes_while_the_agent_is_away_is_told_with_its_two_timestamps() {
    play("losses", async |scene: &Scene| {
        let cluster = &scene.cluster;
        let (namespace, tenant) = scene.ready_team("a").await;
        let pipeline = Reference::pipeline(&namespace, "app");
        let [away, there] = ["node1", "node2"]
            .map(|node| Pod::new(&namespace, node, node, wide(node, PER_SECOND, SECONDS, WIDE)));
        for pod in [&away, &there] {
            pod.start(cluster).await;
            pod.until_running(cluster).await;
        }
        let of_node1 = format!("{{namespace=\"{namespace}\", node_name=\"node1\"}}");
        scene.loki.until_count(&tenant, &of_node1, 2000, PATIENCE).await;

        let kept_away = keep_agent_away(cluster, "node1").await;
        let killed = Timestamp::now();
        let folder = cluster.folder("node1", "/var/log/pods");
        let mut rotations = BTreeSet::new();
        note_rotations(&folder, &namespace, &mut rotations);
        let enough = rotations.len() + ROTATIONS;
        until("rotations without an agent", PATIENCE, async || {
            note_rotations(&folder, &namespace, &mut rotations);
            if rotations.len() >= enough {
                return Ok(());
            }
            Err(format!("{} of {enough} rotations", rotations.len()))
        })
        .await;
        let unreachable = Some("AgentUnreachable");
        until_condition(cluster, &pipeline, "Ready", "False", unreachable, PATIENCE).await;
        assert_eq!(
            columns(cluster, &namespace).await,
            ["False", "1/2", "AgentUnreachable"]
        );
        drop(kept_away);
        until_ready(cluster).await;
        show(&format!(
            "without an agent: {:.0} s",
            killed.duration_until(Timestamp::now()).as_secs_f64()
        ));

        for pod in [&away, &there] {
            pod.until_done(cluster, PATIENCE).await;
        }
        let count = steady_count(PER_SECOND, SECONDS);
        for pod in ["node1", "node2"] {
            let last = format!("{{namespace=\"{namespace}\"}} |= \"{pod} n={count} \"");
            scene.loki.until_count(&tenant, &last, 1, PATIENCE).await;
        }
        let object = until_object(cluster, &pipeline, "a gap", PATIENCE, |object| {
            object["status"]["gaps"]
                .as_array()
                .map(|_| object.clone())
                .ok_or_else(|| object["status"].to_string())
        })
        .await;
        let lines = scene
            .loki
            .lines(&tenant, &format!("{{namespace=\"{namespace}\"}}"))
            .await;
        assert_exact(&lines, "node2", count);
        judge(&lines, count, &object["status"]);

        // the gap is no reason to be not Ready, but the diagnosis names it
        until_condition(cluster, &pipeline, "Ready", "True", Some("Ready"), PATIENCE).await;
        let status = read(cluster, &pipeline).await.unwrap()["status"].take();
        let diagnosis = status["diagnosis"].as_str().unwrap_or_default();
        show(diagnosis);
        let gap = &status["gaps"][0];
        let told = format!(
            "lines of {namespace}/node1 main on node1 after {} before {} vanished before they were read: ",
            gap["after"].as_str().unwrap(),
            gap["before"].as_str().unwrap()
        );
        assert!(diagnosis.starts_with(&told), "{told}: {diagnosis}");
        assert_eq!(columns(cluster, &namespace).await, ["True", "2/2", "Ready"]);
    });
}

/// What is missing of the first node's lines is one piece, and the status tells of it and of nothing else.
fn judge(lines: &[Line], count: u64, status: &Value) {
    let found = tally(lines, "node1", count);
    show(&format!("node1: {found}"));
    show(&format!(
        "gaps: {}, gapCount: {}",
        status["gaps"], status["gapCount"]
    ));
    assert!(found.strange.is_empty() && found.disorder.is_empty(), "{found}");
    let (first, last) = (found.missing[0], found.missing[found.missing.len() - 1]);
    assert_eq!(
        last - first + 1,
        found.missing.len() as u64,
        "more than one piece: {found}"
    );
    // four generations at the least, of more than 1 MiB each
    let lines_of_four = 4 * (1 << 20) / (WIDE as u64 + 100);
    assert!(
        last - first > lines_of_four,
        "the kubelet deleted too little: {found}"
    );

    let gaps = status["gaps"].as_array().unwrap();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(status["gapCount"], 1);
    let gap = &gaps[0];
    for (field, expected) in [
        ("node", "node1"),
        ("pod", "node1"),
        ("container", "main"),
        ("cause", "FilesDeleted"),
    ] {
        assert_eq!(gap[field], expected, "{gap}");
    }
    let time = |field: &str| gap[field].as_str().unwrap().parse::<Timestamp>().unwrap();
    let written: BTreeMap<u64, i64> = lines
        .iter()
        .filter(|line| line.text.starts_with("node1 "))
        .filter_map(|line| Some((number(&line.text)?, line.nanoseconds)))
        .collect();
    let of_line = |number| Timestamp::from_nanosecond(written[&number].into()).unwrap();
    let (delivered, survived) = (of_line(first - 1), of_line(last + 1));
    assert_eq!(
        time("before"),
        survived,
        "the first line that survived is {}",
        last + 1
    );
    let early = time("after").duration_until(delivered);
    assert!(
        early >= SignedDuration::ZERO && early < JOURNALED,
        "`after` is {early:?} before the last line that was delivered"
    );
    // deleted unread is not read and given up
    for field in ["lost", "rejected"] {
        assert_eq!(status[field], json!(null), "{status}");
    }
}

/// Kills a node's agent; none begins there for as long as the file is held, since another one has the state folder.
async fn keep_agent_away(cluster: &Cluster, node: &str) -> File {
    let lock = File::open(cluster.folder(node, "/var/lib/sluice/lock")).unwrap();
    let wait = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    // it stands in line before any successor does
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(kill_agent(cluster, node).await, "no agent runs on {node}");
    wait.await.unwrap().unwrap()
}

/// READY, NODES and REASON, as `kubectl get` shows them.
async fn columns(cluster: &Cluster, namespace: &str) -> [String; 3] {
    let shown = cluster
        .run("kubectl", &["get", "logpipelines", "-n", namespace])
        .await;
    show(&shown.trim().replace('\n', "\n    "));
    let mut rows = shown
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let (head, row) = (rows.next().unwrap(), rows.next().unwrap());
    ["READY", "NODES", "REASON"].map(|column| {
        let at = head.iter().position(|name| *name == column).unwrap();
        row[at].to_owned()
    })
}
