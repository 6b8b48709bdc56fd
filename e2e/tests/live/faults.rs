//! Agents killed, Loki away, API server away, in the middle of a run: Loki's counts are exact afterwards.

use std::time::{Duration, Instant};

use sluice_e2e::cluster::NODES;
use sluice_e2e::figures::show;
use sluice_e2e::loki::Line;
use sluice_e2e::objects::{Reference, condition, read};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{kill_agent, until_ready};
use sluice_e2e::tally::assert_complete;
use sluice_e2e::workload::{Pod, steady, steady_count};

const PER_SECOND: u64 = 1000;
const OUTAGE: Duration = Duration::from_mins(1);

#[test]
fn an_agent_killed_ten_times_loses_nothing() {
    play("kill", async |scene: &Scene| {
        during_a_run(scene, 50, async |_| {
            for _ in 0..10 {
                for node in NODES {
                    assert!(kill_agent(&scene.cluster, node).await, "no agent runs on {node}");
                }
                until_ready(&scene.cluster).await;
                // long enough to get into the middle of requests
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        })
        .await;
    });
}

#[test]
fn a_minute_without_loki_loses_nothing() {
    play("no-loki", async |scene: &Scene| {
        during_a_run(scene, 80, async |pipeline| {
            // Stopped, not ended: requests hang without an answer until the kubelet's probe takes Loki out of its Service,
            // then connections are refused; what it had taken it keeps.
            scene
                .cluster
                .on_node("node1", &["pkill", "-STOP", "-x", "loki"])
                .await;
            tokio::time::sleep(OUTAGE).await;
            let object = read(&scene.cluster, pipeline).await;
            scene
                .cluster
                .on_node("node1", &["pkill", "-CONT", "-x", "loki"])
                .await;
            let object = object.unwrap_or_else(|error| panic!("{error}"));
            show(&format!(
                "after a minute without Loki: {}",
                object["status"]["diagnosis"]
            ));
            assert_eq!(
                condition(&object, "Ready")["status"],
                "False",
                "a pipeline whose lines do not arrive is not Ready"
            );
        })
        .await;
    });
}

#[test]
fn a_minute_without_the_api_server_loses_nothing() {
    play("no-api", async |scene: &Scene| {
        during_a_run(scene, 80, async |_| {
            scene.cluster.stop("apiserver").await;
            tokio::time::sleep(OUTAGE).await;
            scene.cluster.start("apiserver").await;
        })
        .await;
        // nodes count as lost after such a time, and come back one heartbeat later
        let nodes = [
            "wait",
            "--for=condition=Ready",
            "nodes",
            "--all",
            "--timeout=120s",
        ];
        scene.cluster.run("kubectl", &nodes).await;
        until_ready(&scene.cluster).await;
    });
}

/// Writers on both nodes write `seconds` long, `fault` comes and goes in this time, and then every line is counted.
async fn during_a_run(scene: &Scene, seconds: u64, fault: impl AsyncFnOnce(&Reference)) {
    let (namespace, tenant) = scene.ready_team("a").await;
    let writers = NODES.map(|node| {
        Pod::new(
            &namespace,
            &format!("writer-{node}"),
            node,
            steady(&format!("writer-{node}"), PER_SECOND, seconds),
        )
    });
    for pod in &writers {
        pod.start(&scene.cluster).await;
    }
    for pod in &writers {
        pod.until_running(&scene.cluster).await;
    }
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    fault(&Reference::pipeline(&namespace, "app")).await;
    show(&format!(
        "the fault is over after {:.0} s",
        start.elapsed().as_secs_f64()
    ));

    let limit = Duration::from_secs(seconds + 60);
    for pod in &writers {
        pod.until_done(&scene.cluster, limit).await;
    }
    let written = Instant::now();
    let count = steady_count(PER_SECOND, seconds);
    let selector = format!("{{namespace=\"{namespace}\"}}");
    let limit = Duration::from_mins(3);
    let lines = scene.loki.until_lines(&tenant, &selector, 2 * count, limit).await;
    show(&format!(
        "{} lines, {PER_SECOND}/s and node; all in Loki {:.1} s after the last was written",
        2 * count,
        written.elapsed().as_secs_f64()
    ));
    for pod in &writers {
        assert_complete(&lines, &pod.name, count);
    }
    let is_written = |line: &&Line| {
        writers
            .iter()
            .any(|pod| line.text.split(' ').next() == Some(&pod.name))
    };
    assert_eq!(
        lines.iter().find(|line| !is_written(line)).map(|line| &line.text),
        None
    );
}
