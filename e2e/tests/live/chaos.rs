//! Everything at once, for two minutes or for `SLUICE_CHAOS_SECONDS`: agents killed every five seconds, files rotated,
//! networks cut, Loki restarted, tenants slowed, pods coming and going; afterwards not a line is missing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_e2e::cluster::{Cluster, NODES};
use sluice_e2e::figures::show;
use sluice_e2e::objects::{list, until_condition};
use sluice_e2e::proxy::{Manner, Proxy};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{kill_agent, until_ready};
use sluice_e2e::tally::tally;
use sluice_e2e::wait::{PATIENCE, until};
use sluice_e2e::workload::{Pod, burst, steady_count, wide};

/// How often something happens.
const BEAT: Duration = Duration::from_secs(5);
/// Lines per second of one writer, and bytes that each has beside its name: a rotation every five seconds or so.
const PER_SECOND: u64 = 500;
const WIDE: usize = 400;
/// Lines of a pod that comes and goes.
const BRIEF: u64 = 200;
/// How many of them there are at a time.
const LIVING: usize = 3;
/// What the network is like for the tenant behind it, beat by beat.
const WEATHER: [Manner; 7] = [
    Manner::Pass,
    Manner::Cut(100_000),
    Manner::Slow(1),
    Manner::Pass,
    Manner::Answer(503),
    Manner::Stall,
    Manner::Cut(700),
];

#[test]
fn everything_at_once_loses_nothing() {
    let seconds = std::env::var("SLUICE_CHAOS_SECONDS").ok();
    let seconds = seconds.map_or(120, |text| {
        text.parse().expect("SLUICE_CHAOS_SECONDS is a number")
    });
    play("chaos", async |scene: &Scene| {
        let (plain, plain_tenant) = scene.ready_team("plain").await;
        let address = scene
            .cluster
            .variable("SLUICE_LOKI_URL")
            .trim_start_matches("http://");
        let loki: SocketAddr = address.parse().expect("the cluster's Loki has an address");
        let proxy = Proxy::start(scene.cluster.variable("SLUICE_HOST_IP"), loki).await;
        let url = format!("http://{}", proxy.address);
        let rough_tenant = scene.tenant_with("rough", json!({"url": url})).await;
        let rough = scene.namespace("rough", json!({})).await;
        scene.reader(&rough).await;
        let pipeline = scene.pipeline(&rough, "app", &rough_tenant, json!({})).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;

        let teams = [(&plain, &plain_tenant), (&rough, &rough_tenant)];
        let mut writers = Vec::new();
        for (namespace, _) in teams {
            for node in NODES {
                let pod = Pod::new(namespace, node, node, wide(node, PER_SECOND, seconds, WIDE));
                pod.start(&scene.cluster).await;
                writers.push(pod);
            }
        }
        for pod in &writers {
            pod.until_running(&scene.cluster).await;
        }
        let brief = chaos(scene, &proxy, &plain, Duration::from_secs(seconds)).await;
        show(&format!("chaos is over: {} brief pods", brief.len()));

        until_ready(&scene.cluster).await;
        for pod in &writers {
            pod.until_done(&scene.cluster, PATIENCE).await;
        }
        let count = steady_count(PER_SECOND, seconds);
        for (namespace, tenant) in teams {
            let own = brief.iter().filter(|_| *namespace == plain);
            let all = NODES.map(|node| (node, count)).into_iter();
            let all: Vec<_> = all.chain(own.map(|name| (name.as_str(), BRIEF))).collect();
            let selector = format!("{{namespace=\"{namespace}\"}}");
            for (writer, count) in &all {
                let own = format!("{selector} |= \"{writer} n=\"");
                scene.loki.until_count(tenant, &own, *count, PATIENCE).await;
            }
            // A line that is there twice must not stand for one that is not there yet.
            let lines = until("every line", PATIENCE, async || {
                let lines = scene.loki.lines(tenant, &selector).await;
                let missing = |(writer, count): &(&str, u64)| tally(&lines, writer, *count).missing.len();
                match all.iter().map(missing).sum::<usize>() {
                    0 => Ok(lines),
                    missing => Err(format!("{missing} lines of {tenant} are missing")),
                }
            })
            .await;
            let mut sums = [0; 4];
            for (writer, count) in &all {
                let found = tally(&lines, writer, *count);
                let parts = [
                    found.missing.len(),
                    found.double.len(),
                    found.disorder.len(),
                    found.strange.len(),
                ];
                for (sum, part) in sums.iter_mut().zip(parts) {
                    *sum += part;
                }
                if parts != [0; 4] {
                    show(&format!("{writer}: {found}"));
                }
            }
            let [lost, twice, disorder, strange] = sums;
            show(&format!(
                "{tenant}: lost {lost}, twice {twice}, out of order {disorder}"
            ));
            assert_eq!((lost, strange), (0, 0), "{tenant}");
        }
    });
}

/// Troubles for so long; the names of the pods that came and went meanwhile.
async fn chaos(scene: &Scene, proxy: &Proxy, namespace: &str, time: Duration) -> Vec<String> {
    let cluster = &scene.cluster;
    let begin = Instant::now();
    let (mut brief, mut living) = (Vec::new(), VecDeque::new());
    let mut beat = 0_usize;
    while begin.elapsed() < time {
        let next = begin + BEAT * u32::try_from(beat + 1).unwrap_or(u32::MAX);
        let manner = WEATHER[beat % WEATHER.len()];
        proxy.behave(manner);
        let cut = beat % 3 == 2;
        let restart = beat % 6 == 4;
        show(&format!(
            "{:3.0} s: agents killed; the rough tenant's network: {manner:?}{}{}",
            begin.elapsed().as_secs_f64(),
            if cut { "; node2 cut off" } else { "" },
            if restart { "; Loki restarted" } else { "" },
        ));
        if cut {
            link(cluster, "down").await;
        }
        if restart {
            for pod in list(cluster, "v1", "Pod", Some("loki"), "app=loki").await {
                let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
                let gone = [
                    "delete",
                    "pod",
                    "-n",
                    "loki",
                    name,
                    "--wait=false",
                    "--grace-period=3",
                ];
                cluster.run("kubectl", &gone).await;
            }
        }
        // One that is cut off would be restarted by its kubelet alone, after longer and longer pauses.
        kill_agent(cluster, "node1").await;
        if !cut {
            kill_agent(cluster, "node2").await;
        }
        // Its files go with it, while agents die and Loki is away.
        if living.len() > LIVING {
            let pod: Pod = living.pop_front().expect("some live");
            pod.until_done(cluster, PATIENCE).await;
            pod.delete(cluster).await;
        }
        let name = format!("brief-{beat}");
        let pod = Pod::new(namespace, &name, NODES[beat % 2], burst(&name, BRIEF));
        pod.start(cluster).await;
        living.push_back(pod);
        brief.push(name);
        if cut {
            tokio::time::sleep(BEAT * 3 / 5).await;
            link(cluster, "up").await;
        }
        tokio::time::sleep(next.saturating_duration_since(Instant::now())).await;
        beat += 1;
    }
    proxy.behave(Manner::Pass);
    for pod in &living {
        pod.until_done(cluster, PATIENCE).await;
    }
    brief
}

/// Sets the second node's link up or down.
async fn link(cluster: &Cluster, state: &str) {
    let name = format!("sl-{}-node2", cluster.variable("CLUSTER"));
    cluster.run("ip", &["link", "set", &name, state]).await;
}
