//! Tenants kept apart: Lokis that stall, crawl, refuse or throttle cost no other tenant more than two seconds and no agent
//! its memory; afterwards nothing is missing anywhere. Nor does a container that writes more than its tenant takes cost
//! others of the tenant more.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use sluice_e2e::cluster::{Cluster, NODES};
use sluice_e2e::figures::show;
use sluice_e2e::objects::until_condition;
use sluice_e2e::proxy::{Manner, Proxy};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::tally::{assert_complete, assert_exact};
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, noise, steady, steady_count, wide};

const SECONDS: u64 = 60;
const PER_SECOND: u64 = 200;
/// Lines of the troubled tenants are longer and cannot be compressed, so that what waits for them is more than an agent may
/// hold.
const WIDE: usize = 2000;
const MOST_LAG: Duration = Duration::from_secs(2);
const MOST_MEMORY: u64 = 64 << 10;

/// A tenant, and what its network is going to be like.
struct Troubled {
    proxy: Proxy,
    manner: Manner,
    tenant: String,
    namespace: String,
    pods: [Pod; 2],
}

impl Troubled {
    async fn new(scene: &Scene, role: &str, manner: Manner) -> Self {
        let proxy = Proxy::start(scene.cluster.variable("SLUICE_HOST_IP"), server(&scene.cluster)).await;
        let url = format!("http://{}", proxy.address);
        // what hangs when the trouble ends is sent again after this time
        let spec = json!({"url": url, "delivery": {"requestTimeout": "10s"}});
        let tenant = scene.tenant_with(role, spec).await;
        let namespace = scene.namespace(role, json!({})).await;
        scene.reader(&namespace).await;
        let pipeline = scene.pipeline(&namespace, "app", &tenant, json!({})).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        let pods = NODES.map(|node| Pod::new(&namespace, node, node, noise(node, PER_SECOND, SECONDS, WIDE)));
        Self {
            proxy,
            manner,
            tenant,
            namespace,
            pods,
        }
    }
}

#[test]
fn four_troubled_tenants_do_not_delay_a_fifth() {
    play("apart", async |scene: &Scene| {
        let (namespace, healthy) = scene.ready_team("healthy").await;
        let writers = NODES.map(|node| Pod::new(&namespace, node, node, steady(node, PER_SECOND, SECONDS)));
        let mut troubled = Vec::new();
        for (role, manner) in [
            ("stalled", Manner::Stall),
            ("crawls", Manner::Slow(1)),
            ("throttles", Manner::Answer(429)),
            ("refuses", Manner::Answer(401)),
        ] {
            troubled.push(Troubled::new(scene, role, manner).await);
        }
        let pods = || troubled.iter().flat_map(|one| &one.pods).chain(&writers);
        for pod in pods() {
            pod.start(&scene.cluster).await;
        }
        for pod in pods() {
            pod.until_running(&scene.cluster).await;
        }
        let selector = |namespace: &str| format!("{{namespace=\"{namespace}\"}}");
        // In the midst of it.
        for Troubled {
            tenant, namespace, ..
        } in &troubled
        {
            scene
                .loki
                .until_count(tenant, &selector(namespace), 1, PATIENCE)
                .await;
        }
        for Troubled { proxy, manner, .. } in &troubled {
            proxy.behave(*manner);
        }
        let (lag, memory) = watch(scene, &healthy, &selector(&namespace)).await;
        let mut waits = Vec::new();
        for Troubled {
            tenant, namespace, ..
        } in &troubled
        {
            waits.push(behind(scene, tenant, &selector(namespace)).await);
        }
        show(&format!(
            "beside four troubled tenants that are {waits:.0?} late: greatest lag {:.2} s, most memory of an agent {memory} KiB",
            lag.as_secs_f64(),
        ));

        for Troubled { proxy, .. } in &troubled {
            proxy.behave(Manner::Pass);
        }
        let count = steady_count(PER_SECOND, SECONDS);
        for (tenant, namespace) in troubled
            .iter()
            .map(|one| (&one.tenant, &one.namespace))
            .chain([(&healthy, &namespace)])
        {
            let selector = selector(namespace);
            let lines = scene
                .loki
                .until_lines(tenant, &selector, 2 * count, PATIENCE)
                .await;
            for node in NODES {
                assert_complete(&lines, node, count);
            }
        }
        assert!(
            waits.iter().all(|wait| *wait > 3 * MOST_LAG),
            "a tenant had no trouble: {waits:?}"
        );
        assert!(lag < MOST_LAG, "a healthy tenant's lines are {lag:?} late");
        assert!(memory < MOST_MEMORY, "an agent takes {memory} KiB");
    });
}

#[test]
fn a_container_that_its_tenant_cannot_follow_does_not_delay_the_others_of_it() {
    play("loud", async |scene: &Scene| {
        // Half of what the loud ones write. A request's worth of it takes an eighth of a second.
        let spec = json!({
            "limits": {"rateBytesPerSecond": 2 << 20, "burstBytes": 2 << 20},
            "delivery": {"batchBytes": 256 << 10},
        });
        let tenant = scene.tenant_with("a", spec).await;
        let namespace = scene.namespace("a", json!({})).await;
        scene.reader(&namespace).await;
        let pipeline = scene.pipeline(&namespace, "app", &tenant, json!({})).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        let loud = NODES.map(|node| {
            Pod::new(
                &namespace,
                &format!("loud-{node}"),
                node,
                wide("loud", 1000, SECONDS, 4000),
            )
        });
        let writers = NODES.map(|node| Pod::new(&namespace, node, node, steady(node, 10, SECONDS)));
        for pod in loud.iter().chain(&writers) {
            pod.start(&scene.cluster).await;
        }
        for pod in loud.iter().chain(&writers) {
            pod.until_running(&scene.cluster).await;
        }
        let slow = format!("{{namespace=\"{namespace}\", app=~\"node.\"}}");
        let (lag, memory) = watch(scene, &tenant, &slow).await;
        let mut waits = Vec::new();
        for pod in &loud {
            let own = format!("{{namespace=\"{namespace}\", app=\"{}\"}}", pod.name);
            waits.push(behind(scene, &tenant, &own).await);
        }
        show(&format!(
            "beside loud ones that are {:.0?} late: greatest lag {:.2} s, most memory of an agent {memory} KiB",
            waits,
            lag.as_secs_f64(),
        ));
        for pod in &writers {
            pod.until_done(&scene.cluster, PATIENCE).await;
        }
        let count = steady_count(10, SECONDS);
        let lines = scene.loki.until_lines(&tenant, &slow, 2 * count, PATIENCE).await;
        for node in NODES {
            assert_exact(&lines, node, count);
        }
        assert!(
            waits.iter().all(|wait| *wait > 3 * MOST_LAG),
            "the tenant had room for all: {waits:?}"
        );
        assert!(lag < MOST_LAG, "a slow container's lines are {lag:?} late");
        assert!(memory < MOST_MEMORY, "an agent takes {memory} KiB");
    });
}

fn server(cluster: &Cluster) -> SocketAddr {
    let url = cluster.variable("SLUICE_LOKI_URL");
    let address = url.trim_start_matches("http://");
    address.parse().expect("the cluster's Loki has an address")
}

/// While the writers write: how far the newest line in Loki was behind the clock at most, and the KiB that an agent took.
async fn watch(scene: &Scene, tenant: &str, selector: &str) -> (Duration, u64) {
    let (mut lag, mut memory) = (Duration::ZERO, 0);
    let begin = Instant::now();
    // The first lines are late by what the kubelet needs to start a pod; the last ones' end is not a lag.
    tokio::time::sleep(Duration::from_secs(10)).await;
    while begin.elapsed() < Duration::from_secs(SECONDS - 20) {
        for node in NODES {
            let of_node = selector.replace('}', &format!(", node_name=\"{node}\"}}"));
            lag = lag.max(behind(scene, tenant, &of_node).await);
            memory = memory.max(resident(&scene.cluster, node).await);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (lag, memory)
}

/// How far the newest line in Loki is behind the clock.
async fn behind(scene: &Scene, tenant: &str, selector: &str) -> Duration {
    let now = Timestamp::now();
    let newest = scene.loki.newest(tenant, selector).await;
    let newest = newest.unwrap_or_else(|error| panic!("{error}"));
    let behind = i128::from(newest)
        .saturating_sub(now.as_nanosecond())
        .min(0)
        .unsigned_abs();
    Duration::from_nanos(u64::try_from(behind).unwrap_or(u64::MAX))
}

/// KiB of memory that a node's agent takes, without what the kernel can drop at any time.
async fn resident(cluster: &Cluster, node: &str) -> u64 {
    let script = "grep RssAnon /proc/$(pgrep -x sluice-agent | head -n 1)/status";
    let text = cluster.on_node(node, &["sh", "-c", script]).await;
    text.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no memory of the agent on {node}: {text}"))
}
