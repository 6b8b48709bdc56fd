//! Everything at once, for two minutes or for `SLUICE_CHAOS_SECONDS`: agents killed every five seconds, files rotated,
//! networks cut, Loki restarted, tenants slowed, pods coming and going; afterwards not a line is missing.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use sluice_e2e::cluster::{Cluster, NODES};
use sluice_e2e::figures::show;
use sluice_e2e::loki::Line;
use sluice_e2e::objects::{list, until_condition};
use sluice_e2e::proxy::{Manner, Proxy};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{kill_agent, until_ready};
use sluice_e2e::tally::tally;
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, burst, steady_count, wide};

use super::rotation::note_rotations;

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
        let storm = chaos(scene, &proxy, &plain, Duration::from_secs(seconds)).await;
        let of_node = |node| {
            storm
                .rotations
                .iter()
                .filter(|name| name.starts_with(&format!("{plain}_{node}_")))
                .count()
        };
        let rotated = NODES.map(of_node);
        show(&format!(
            "chaos is over: {} agents killed, Loki restarted {} times, {} brief pods, rotations of the plain writers: {rotated:?}, \
             bytes that the rough tenant's network passed on in good and in bad weather: {:?}",
            storm.kills,
            storm.restarts,
            storm.brief.len(),
            storm.passed,
        ));

        until_ready(&scene.cluster).await;
        for pod in &writers {
            pod.until_done(&scene.cluster, PATIENCE).await;
        }
        let count = steady_count(PER_SECOND, seconds);
        for (namespace, tenant) in teams {
            let own = storm.brief.iter().filter(|_| *namespace == plain);
            let all = NODES.map(|node| (node, count)).into_iter();
            let all: Vec<_> = all.chain(own.map(|name| (name.as_str(), BRIEF))).collect();
            let selector = format!("{{namespace=\"{namespace}\"}}");
            let total = all.iter().map(|(_, count)| count).sum();
            let lines = scene.loki.until_lines(tenant, &selector, total, PATIENCE).await;
            judge(tenant, &lines, &all);
        }
        storm.judge(seconds / BEAT.as_secs(), rotated);
    });
}

/// What happened.
#[derive(Default)]
struct Storm {
    kills: usize,
    restarts: usize,
    /// Names of the pods that came and went.
    brief: Vec<String>,
    rotations: BTreeSet<String>,
    /// Bytes that the rough tenant's network passed on while it was to pass all, and while it was to pass none.
    passed: [u64; 2],
}

impl Storm {
    /// Fails where so many beats brought less than they should: the test would prove less than it says.
    fn judge(&self, beats: u64, rotated: [usize; 2]) {
        let beats = usize::try_from(beats).unwrap();
        // Of five agents four are killed, some of them before they have begun.
        assert!(self.kills >= beats, "{} kills", self.kills);
        assert!(self.restarts >= beats / 7, "{} restarts of Loki", self.restarts);
        // The kubelet looks every three seconds, and a busy machine's writers are slower.
        assert!(
            rotated.iter().all(|count| *count >= beats / 2),
            "rotations {rotated:?}"
        );
        assert!(self.passed[0] > 0 && self.passed[1] == 0, "{:?}", self.passed);
    }
}

/// Shows what became of a tenant's lines: none is lost, and those that are there twice are in different shards.
fn judge(tenant: &str, lines: &[Line], writers: &[(&str, u64)]) {
    let mut sums = [0; 5];
    for (writer, count) in writers {
        let found = tally(lines, writer, *count);
        let parts = [
            found.missing.len(),
            found.double.len(),
            found.apart,
            found.disorder.len(),
            found.strange.len(),
        ];
        for (sum, part) in sums.iter_mut().zip(parts) {
            *sum += part;
        }
        if parts != [0; 5] {
            show(&format!("{writer}: {found}"));
        }
    }
    let [lost, twice, apart, disorder, strange] = sums;
    show(&format!(
        "{tenant}: lost {lost}, twice {twice} (of them {apart} in another shard of Loki), out of order {disorder}"
    ));
    assert_eq!((lost, strange, twice - apart), (0, 0, 0), "{tenant}");
}

/// Troubles for so long, and pods that come and go in this namespace.
async fn chaos(scene: &Scene, proxy: &Proxy, namespace: &str, time: Duration) -> Storm {
    let cluster = &scene.cluster;
    let begin = Instant::now();
    let (mut storm, mut living, mut beat) = (Storm::default(), VecDeque::new(), 0_usize);
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
            storm.restarts += restart_loki(cluster).await;
        }
        // One that is cut off would be restarted by its kubelet alone, after longer and longer pauses.
        storm.kills += usize::from(kill_agent(cluster, "node1").await);
        if !cut {
            storm.kills += usize::from(kill_agent(cluster, "node2").await);
        }
        let passed = proxy.passed();
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
        storm.brief.push(name);
        for node in NODES {
            note_rotations(
                &cluster.folder(node, "/var/log/pods"),
                namespace,
                &mut storm.rotations,
            );
        }
        if cut {
            tokio::time::sleep(BEAT * 3 / 5).await;
            link(cluster, "up").await;
        }
        tokio::time::sleep(next.saturating_duration_since(Instant::now())).await;
        let passed = proxy.passed() - passed;
        match manner {
            Manner::Pass => storm.passed[0] += passed,
            Manner::Stall | Manner::Answer(_) => storm.passed[1] += passed,
            Manner::Slow(_) | Manner::Cut(_) => {}
        }
        beat += 1;
    }
    proxy.behave(Manner::Pass);
    for pod in &living {
        pod.until_done(cluster, PATIENCE).await;
    }
    storm
}

/// Deletes Loki's pods, for others to follow; how many.
async fn restart_loki(cluster: &Cluster) -> usize {
    let pods = list(cluster, "v1", "Pod", Some("loki"), "app=loki").await;
    for pod in &pods {
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
    pods.len()
}

/// Sets the second node's link up or down.
async fn link(cluster: &Cluster, state: &str) {
    let name = format!("sl-{}-node2", cluster.variable("CLUSTER"));
    cluster.run("ip", &["link", "set", &name, state]).await;
}
