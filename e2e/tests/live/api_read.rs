//! Read through the API: nothing lost or doubled across restarts, killed agents and an API server that goes away; the
//! right to it where it is used and nowhere else; and without any folder of the node in a restricted namespace.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_e2e::cluster::NODES;
use sluice_e2e::figures::show;
use sluice_e2e::objects::{Reference, condition, delete, list, read, until_condition};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{agents, install, kill_agent, timed, until_ready};
use sluice_e2e::tally::assert_exact;
use sluice_e2e::wait::{PATIENCE, until};
use sluice_e2e::workload::{Pod, burst, steady, steady_count};
use sluice_engine::well_known::NAMESPACE;

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const THROUGH_API: &str = "sluice-agent-podlogs";
const PER_SECOND: u64 = 200;
const SECONDS: u64 = 75;

fn sources() -> Value {
    json!({"sources": {"pods": {"readFrom": "API"}}})
}

/// Namespaces where agents may read through the API.
async fn bound(scene: &Scene) -> Vec<String> {
    let all = list(&scene.cluster, RBAC, "RoleBinding", None, "").await;
    all.iter()
        .filter(|binding| binding["metadata"]["name"] == THROUGH_API)
        .map(|binding| binding["metadata"]["namespace"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn restarts_killed_agents_and_a_lost_api_server_lose_nothing() {
    play("api", async |scene: &Scene| {
        let namespace = scene.namespace("a", json!({})).await;
        scene.reader(&namespace).await;
        let tenant = scene.tenant("a").await;
        assert_eq!(
            bound(scene).await,
            Vec::<String>::new(),
            "nobody reads through the API"
        );
        let pipeline = scene.pipeline(&namespace, "app", &tenant, sources()).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        assert_eq!(bound(scene).await, [namespace.as_str()]);
        let object = read(&scene.cluster, &pipeline).await.unwrap();
        let accepted = condition(&object, "Accepted")["message"].to_string();
        assert!(accepted.contains("rotates away"), "{accepted}");

        for node in NODES {
            let name = format!("writer-{node}");
            Pod::new(&namespace, &name, node, steady(&name, PER_SECOND, SECONDS))
                .start(&scene.cluster)
                .await;
            // Its first instance fails in the middle, the second goes on.
            let twice = format!("twice-{node}");
            let half = |from: u32, to: u32| {
                format!(
                    "i={from}; while [ $i -le {to} ]; do echo \"{twice} n=$i of two lives\"; i=$((i + 1)); done"
                )
            };
            let script = format!(
                "if [ -e /scratch/second ]; then {}; else touch /scratch/second; {}; sleep 5; exit 1; fi",
                half(501, 1000),
                half(1, 500)
            );
            Pod::new(&namespace, &twice, node, script)
                .start(&scene.cluster)
                .await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        for _ in 0..3 {
            for node in NODES {
                assert!(kill_agent(&scene.cluster, node).await, "no agent runs on {node}");
            }
            until_ready(&scene.cluster).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        scene.cluster.stop("apiserver").await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        scene.cluster.start("apiserver").await;

        let selector = format!("{{namespace=\"{namespace}\"}}");
        let steadily = steady_count(PER_SECOND, SECONDS);
        let all = 2 * (steadily + 1_000);
        let lines = scene
            .loki
            .until_lines(&tenant, &selector, all, Duration::from_mins(3))
            .await;
        show(&format!("read through the API: {} of {all} lines", lines.len()));
        for node in NODES {
            assert_exact(&lines, &format!("writer-{node}"), steadily);
            assert_exact(&lines, &format!("twice-{node}"), 1_000);
        }

        delete(&scene.cluster, &pipeline).await;
        timed(
            "pipeline deleted to right withdrawn",
            PATIENCE,
            async || match bound(scene).await {
                none if none.is_empty() => Ok(()),
                bound => Err(format!("bound in {bound:?}")),
            },
        )
        .await;
    });
}

#[test]
fn without_host_paths_in_a_restricted_namespace() {
    play("no-host-paths", async |scene: &Scene| {
        let level = "pod-security.kubernetes.io/enforce";
        let label = async |value: &str| {
            let label = format!("{level}{value}");
            let arguments = ["label", "namespace", NAMESPACE, "--overwrite", &label];
            scene.cluster.run("kubectl", &arguments).await
        };
        label("=restricted").await;
        install(&scene.cluster, &[("hostPaths", json!(false))]).await;
        until("agents without host paths", PATIENCE, async || {
            let pods = agents(&scene.cluster).await;
            let bare = |pod: &&Value| !pod["spec"]["volumes"].to_string().contains("hostPath");
            match pods.iter().filter(bare).count() {
                count if count == NODES.len() && pods.len() == count => Ok(()),
                count => Err(format!("{count} of {}", pods.len())),
            }
        })
        .await;
        until_ready(&scene.cluster).await;

        let namespace = scene.namespace("a", json!({})).await;
        scene.reader(&namespace).await;
        let tenant = scene.tenant("a").await;
        let files = scene.pipeline(&namespace, "files", &tenant, json!({})).await;
        let message = until_condition(
            &scene.cluster,
            &files,
            "Accepted",
            "False",
            Some("HostPathsNotAllowed"),
            PATIENCE,
        )
        .await;
        show(&format!("a pipeline of files: {message}"));
        let pipeline = scene.pipeline(&namespace, "app", &tenant, sources()).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        for node in NODES {
            let name = format!("burst-{node}");
            let pod = Pod::new(&namespace, &name, node, burst(&name, 5_000));
            pod.start(&scene.cluster).await;
            pod.until_done(&scene.cluster, PATIENCE).await;
        }
        let selector = format!("{{namespace=\"{namespace}\"}}");
        let lines = scene.loki.until_lines(&tenant, &selector, 10_000, PATIENCE).await;
        for node in NODES {
            assert_exact(&lines, &format!("burst-{node}"), 5_000);
        }
        let reference = Reference::new("v1", "Namespace", None, NAMESPACE);
        let object = read(&scene.cluster, &reference).await.unwrap();
        assert_eq!(object["metadata"]["labels"][level], "restricted");
        label("=privileged").await;
        install(&scene.cluster, &[]).await;
    });
}
