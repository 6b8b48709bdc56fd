//! Where nothing changes nothing is written, and who does the writing may go: another takes over and writes nothing anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_e2e::figures::show;
use sluice_e2e::objects::{Reference, delete, list, until_condition};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{OPERATOR_PODS, agents_untouched, leader, timed, until_ready};
use sluice_e2e::wait::{PATIENCE, until};
use sluice_engine::well_known::NAMESPACE;

const QUIET: Duration = Duration::from_mins(1);

#[test]
fn a_quiet_cluster_writes_nothing() {
    play("quiet", async |scene: &Scene| {
        scene.ready_team("a").await;
        settle(scene).await;
        let before = versions(scene, &every_kind(scene).await).await;
        let requests = requests(scene);
        tokio::time::sleep(QUIET).await;
        let after = versions(scene, &every_kind(scene).await).await;
        let asked = self::requests(scene);
        let asked: Vec<String> = asked
            .iter()
            .map(|(what, times)| format!("{what}: {}", times - requests.get(what).unwrap_or(&0)))
            .filter(|line| !line.ends_with(": 0"))
            .collect();
        show(&format!(
            "{} objects; requests of a quiet minute: {}",
            before.len(),
            asked.join(", ")
        ));
        assert_eq!(
            changed(&before, &after),
            Vec::<String>::new(),
            "objects written in a quiet minute"
        );
    });
}

#[test]
fn a_restarted_operator_rewrites_nothing() {
    play("operator-restart", async |scene: &Scene| {
        scene.ready_team("a").await;
        settle(scene).await;
        let kinds = "configmaps,secrets,daemonsets.apps,services,serviceaccounts,rolebindings.rbac.authorization.k8s.io,logpipelines.sluice.dev,lokitenants.sluice.dev";
        let before = versions(scene, kinds).await;
        let agents = agents_untouched(&scene.cluster).await;
        for pod in list(&scene.cluster, "v1", "Pod", Some(NAMESPACE), OPERATOR_PODS).await {
            delete(
                &scene.cluster,
                &Reference::new(
                    "v1",
                    "Pod",
                    Some(NAMESPACE),
                    pod["metadata"]["name"].as_str().unwrap(),
                ),
            )
            .await;
        }
        timed("both operators killed to a new leader", PATIENCE, async || {
            another_leads(scene, "").await
        })
        .await;
        // a new leader asks everything anew; time enough to write, if it were to
        tokio::time::sleep(Duration::from_secs(20)).await;
        let after = versions(scene, kinds).await;
        assert_eq!(
            changed(&before, &after),
            Vec::<String>::new(),
            "objects rewritten by a new operator"
        );
        assert_eq!(
            agents_untouched(&scene.cluster).await,
            agents,
            "agents were touched"
        );
    });
}

#[test]
fn another_operator_takes_over_within_20_seconds() {
    play("leader", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        // two that run, or there is nobody to take over
        scene
            .cluster
            .run(
                "kubectl",
                &[
                    "wait",
                    "--for=condition=Ready",
                    "pod",
                    "-n",
                    NAMESPACE,
                    "-l",
                    OPERATOR_PODS,
                    "--timeout=60s",
                ],
            )
            .await;
        let old = leader(&scene.cluster).await;
        let pods = list(&scene.cluster, "v1", "Pod", Some(NAMESPACE), OPERATOR_PODS).await;
        let pod = pods.iter().find(|pod| {
            pod["metadata"]["name"]
                .as_str()
                .is_some_and(|name| old.starts_with(name))
        });
        let pod = pod.unwrap_or_else(|| panic!("the leader {old:?} is none of the operator's pods"));
        let (node, name) = (
            pod["spec"]["nodeName"].as_str().unwrap(),
            pod["metadata"]["name"].as_str().unwrap(),
        );

        let killed = Instant::now();
        kill_pod_process(scene, node, pod).await;
        delete(
            &scene.cluster,
            &Reference::new("v1", "Pod", Some(NAMESPACE), name),
        )
        .await;
        timed(
            "leader killed to another leader",
            Duration::from_secs(20),
            async || another_leads(scene, &old).await,
        )
        .await;
        let pipeline = scene
            .pipeline(
                &namespace,
                "app",
                &tenant,
                json!({"labels": {"static": {"version": "two"}}}),
            )
            .await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        show(&format!(
            "leader killed to a change applied and Ready: {:.1} s",
            killed.elapsed().as_secs_f64()
        ));
        until_ready(&scene.cluster).await;
    });
}

/// SIGKILL to the operator's process itself, by the cgroup of its pod: both operators may run on one node.
async fn kill_pod_process(scene: &Scene, node: &str, pod: &Value) {
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let script = format!(
        "for pid in $(pgrep -x sluice-operator); do if grep -q '{uid}' /proc/$pid/cgroup; then kill -KILL $pid && echo killed; fi; done"
    );
    let said = scene.cluster.on_node(node, &["sh", "-c", &script]).await;
    assert_eq!(
        said.trim(),
        "killed",
        "the leader's process is found by its pod's cgroup"
    );
}

async fn another_leads(scene: &Scene, old: &str) -> Result<(), String> {
    let leases = list(
        &scene.cluster,
        "coordination.k8s.io/v1",
        "Lease",
        Some(NAMESPACE),
        "",
    )
    .await;
    let pods = list(&scene.cluster, "v1", "Pod", Some(NAMESPACE), OPERATOR_PODS).await;
    let holder = leases
        .first()
        .and_then(|lease| lease["spec"]["holderIdentity"].as_str())
        .unwrap_or_default();
    let lives = pods.iter().any(|pod| {
        pod["metadata"]["name"]
            .as_str()
            .is_some_and(|name| holder.starts_with(name))
    });
    if lives && holder != old {
        Ok(())
    } else {
        Err(format!("{holder:?} holds the Lease"))
    }
}

/// Waits until what earlier tests left has come to rest: nothing changed for 15 s.
async fn settle(scene: &Scene) {
    let kinds = every_kind(scene).await;
    let mut last = versions(scene, &kinds).await;
    let mut since = Instant::now();
    until("rest", Duration::from_mins(4), async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = versions(scene, &kinds).await;
        if now != last {
            let moved = changed(&last, &now);
            last = now;
            since = Instant::now();
            return Err(moved.join(", "));
        }
        if since.elapsed() >= Duration::from_secs(15) {
            Ok(())
        } else {
            Err("at rest, but not for long".to_owned())
        }
    })
    .await;
}

/// Every namespaced kind that can be listed, ours among them, except the Lease and what merely mirrors others.
async fn every_kind(scene: &Scene) -> String {
    let kinds = scene
        .cluster
        .run(
            "kubectl",
            &["api-resources", "--namespaced", "--verbs=list", "-o", "name"],
        )
        .await;
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("leases.") && !kind.ends_with("metrics.k8s.io"))
        .collect();
    kinds.join(",")
}

/// `resourceVersion` by kind and name: of all objects of the operator's namespace, and of all custom resources.
async fn versions(scene: &Scene, kinds: &str) -> BTreeMap<String, String> {
    let template = "{range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
    let output = format!("jsonpath={template}");
    let ours = scene
        .cluster
        .run("kubectl", &["get", kinds, "-n", NAMESPACE, "-o", &output])
        .await;
    let resources = scene
        .cluster
        .run(
            "kubectl",
            &["get", "logpipelines,lokitenants", "-A", "-o", &output],
        )
        .await;
    let lines = ours.lines().chain(resources.lines());
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(object, version)| (object.to_owned(), version.to_owned()))
        .collect()
}

fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut names: Vec<String> = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version))
        .map(|(name, _)| name.clone())
        .collect();
    names.extend(
        before
            .keys()
            .filter(|name| !after.contains_key(*name))
            .map(|name| format!("{name} (gone)")),
    );
    names
}

/// How often Sluice's accounts asked what of the API server, by the cluster's audit log.
fn requests(scene: &Scene) -> BTreeMap<String, u64> {
    let path = std::path::Path::new(scene.cluster.variable("SLUICE_CLUSTER_STATE")).join("logs/audit.log");
    let mut times = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        *times
            .entry(format!("{} {}", text("/verb"), text("/objectRef/resource")))
            .or_default() += 1;
    }
    times
}
