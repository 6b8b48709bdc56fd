//! Where nothing changes nothing is written, and who does the writing may go: another takes over and writes nothing anew.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_e2e::census::{Request, changed, every_kind, requests, settle, versions};
use sluice_e2e::figures::show;
use sluice_e2e::objects::{Reference, delete, list, until_condition};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{OPERATOR_PODS, agents_untouched, leader, timed, until_ready};
use sluice_e2e::wait::PATIENCE;
use sluice_engine::well_known::NAMESPACE;

const QUIET: Duration = Duration::from_mins(1);

#[test]
fn a_quiet_cluster_writes_nothing_and_a_new_operator_rewrites_nothing() {
    play("quiet", async |scene: &Scene| {
        scene.ready_team("a").await;
        settle(&scene.cluster).await;
        quiet_minute(scene).await;
        new_operators(scene).await;
    });
}

async fn quiet_minute(scene: &Scene) {
    let kinds = every_kind(&scene.cluster).await;
    let (before, asked) = (versions(&scene.cluster, &kinds).await, requests(&scene.cluster));
    tokio::time::sleep(QUIET).await;
    let (after, answered) = (versions(&scene.cluster, &kinds).await, requests(&scene.cluster));

    let new = answered.iter().filter_map(|(request, times)| {
        let times = times - asked.get(request).unwrap_or(&0);
        (times > 0).then_some((request, times))
    });
    let new: Vec<(&Request, u64)> = new.collect();
    show(&format!(
        "{} objects, none written; requests of a quiet minute:",
        before.len()
    ));
    for (
        Request {
            account,
            verb,
            resource,
        },
        times,
    ) in &new
    {
        show(&format!("  {account}: {times} x {verb} {resource}"));
    }
    assert_eq!(
        changed(&before, &after),
        Vec::<String>::new(),
        "objects written in a quiet minute"
    );
    // reviews are questions, though their verb is create
    let writes = |request: &Request| !["get", "list", "watch"].contains(&request.verb.as_str());
    let exempt = |request: &Request| request.resource == "leases" || request.resource.ends_with("reviews");
    let written: Vec<_> = new
        .iter()
        .filter(|(request, _)| writes(request) && !exempt(request))
        .collect();
    assert!(written.is_empty(), "writes in a quiet minute: {written:?}");
}

/// Both operators killed: others take over, write nothing anew and touch no agent.
async fn new_operators(scene: &Scene) {
    let kinds = "configmaps,secrets,daemonsets.apps,services,serviceaccounts,rolebindings.rbac.authorization.k8s.io,logpipelines.sluice.dev,lokitenants.sluice.dev";
    let before = versions(&scene.cluster, kinds).await;
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
    let after = versions(&scene.cluster, kinds).await;
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
