//! A change is live on every node within seconds, and touches no agent.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_e2e::cluster::NODES;
use sluice_e2e::objects::{apply, condition, read, until_condition};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{TENANTS, agents_untouched, timed};
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, steady};

#[test]
fn a_changed_pipeline_is_applied_without_a_restart() {
    play("change", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        write_on_both_nodes(scene, &namespace).await;
        let before = agents_untouched(&scene.cluster).await;
        for version in ["one", "two", "three"] {
            let pipeline = scene
                .pipeline(
                    &namespace,
                    "app",
                    &tenant,
                    json!({"labels": {"static": {"version": version}}}),
                )
                .await;
            timed("apply to the last node's acknowledgement", PATIENCE, async || {
                let object = read(&scene.cluster, &pipeline).await?;
                let programmed = condition(&object, "Programmed");
                let current = programmed["observedGeneration"] == object["metadata"]["generation"]
                    && programmed["status"] == "True";
                if current && object["status"]["nodes"]["applied"] == NODES.len() {
                    Ok(())
                } else {
                    Err(object["status"].to_string())
                }
            })
            .await;
            timed("and to lines of both nodes with it", PATIENCE, async || {
                both_nodes(scene, &tenant, &format!("{{version=\"{version}\"}}")).await
            })
            .await;
        }
        assert_eq!(agents_untouched(&scene.cluster).await, before);
    });
}

#[test]
fn a_rotated_password_is_live_without_a_restart() {
    play("password", async |scene: &Scene| {
        let user = "ops";
        let namespace = scene.namespace("a", json!({})).await;
        scene.reader(&namespace).await;
        let secret = scene
            .credentials("password", json!({"username": user, "password": "ops-password"}))
            .await;
        let tenant = scene
            .tenant_with("gateway", json!({"url": "http://loki-gateway.loki.svc.cluster.local", "tenantID": null, "auth": {"basic": {"secretRef": {"name": secret}}}}))
            .await;
        let pipeline = scene.pipeline(&namespace, "app", &tenant, json!({})).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        write_on_both_nodes(scene, &namespace).await;
        let selector = format!("{{namespace=\"{namespace}\"}}");
        timed("first lines of both nodes", PATIENCE, async || {
            both_nodes(scene, user, &selector).await
        })
        .await;

        let before = agents_untouched(&scene.cluster).await;
        let reference = sluice_e2e::objects::Reference::tenant(TENANTS, &tenant);
        scene
            .credentials("password", json!({"username": user, "password": "mistyped"}))
            .await;
        until_condition(
            &scene.cluster,
            &reference,
            "Reachable",
            "False",
            Some("Unauthorized"),
            Duration::from_secs(30),
        )
        .await;
        let held = scene.loki.count(user, &selector).await.unwrap();
        scene
            .credentials("password", json!({"username": user, "password": "ops-password"}))
            .await;
        timed("right password to lines of both nodes", PATIENCE, async || {
            both_nodes(scene, user, &selector).await?;
            let found = scene.loki.count(user, &selector).await?;
            if found > held + 100 {
                Ok(())
            } else {
                Err(format!("{found} lines, {held} before"))
            }
        })
        .await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        assert_eq!(agents_untouched(&scene.cluster).await, before);
    });
}

#[test]
fn a_changed_namespace_label_is_live_without_a_restart() {
    play("label", async |scene: &Scene| {
        let home = scene.namespace("home", json!({})).await;
        scene.account(&home).await;
        let pick = scene.unique("picked");
        let namespace = scene.namespace("a", json!({"pick": pick, "team": "red"})).await;
        scene.grant(&namespace, &home).await;
        let tenant = scene.tenant("a").await;
        let changes = json!({
            "sources": {"pods": {"namespaces": {"selector": {"matchLabels": {"pick": pick}}}}},
            "labels": {"fromNamespaceLabels": [{"label": "team", "namespaceLabel": "team"}]},
        });
        let pipeline = scene.pipeline(&home, "app", &tenant, changes).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        write_on_both_nodes(scene, &namespace).await;
        timed("first lines of both nodes", PATIENCE, async || {
            both_nodes(scene, &tenant, "{team=\"red\"}").await
        })
        .await;

        let before = agents_untouched(&scene.cluster).await;
        relabel(scene, &namespace, json!({"pick": pick, "team": "blue"})).await;
        timed(
            "another label to lines of both nodes with it",
            PATIENCE,
            async || both_nodes(scene, &tenant, "{team=\"blue\"}").await,
        )
        .await;

        relabel(scene, &namespace, json!({"team": "blue"})).await;
        let selector = format!("{{namespace=\"{namespace}\"}}");
        // 10 s until nothing is read any more, and what a slow request still carries
        tokio::time::sleep(Duration::from_secs(15)).await;
        let settled = scene.loki.count(&tenant, &selector).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(
            scene.loki.count(&tenant, &selector).await.unwrap(),
            settled,
            "a namespace that is no longer selected is no longer read"
        );
        assert_eq!(agents_untouched(&scene.cluster).await, before);
    });
}

async fn write_on_both_nodes(scene: &Scene, namespace: &str) {
    for node in NODES {
        let name = format!("writer-{node}");
        let pod = Pod::new(namespace, &name, node, steady(&name, 20, 300));
        pod.start(&scene.cluster).await;
        pod.until_running(&scene.cluster).await;
    }
}

/// Whether a selector has entries of the last ten seconds from every node.
async fn both_nodes(scene: &Scene, tenant: &str, selector: &str) -> Result<(), String> {
    let matchers = selector.trim_end_matches('}');
    for node in NODES {
        let one = format!("{matchers}, node_name=\"{node}\"}}");
        if scene.loki.count(tenant, &one).await? == 0 {
            return Err(format!("no line of {one}"));
        }
    }
    Ok(())
}

async fn relabel(scene: &Scene, namespace: &str, labels: Value) {
    apply(
        &scene.cluster,
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}),
    )
    .await;
}
