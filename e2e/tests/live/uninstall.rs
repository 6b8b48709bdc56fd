//! Everything goes with the chart, whichever part goes first; and kustomize installs the same.

use std::time::Duration;

use serde_json::json;
use sluice_e2e::cluster::workspace;
use sluice_e2e::figures::show;
use sluice_e2e::objects::until_condition;
use sluice_e2e::scene::{Scene, play, play_bare};
use sluice_e2e::sluice::{OPERATOR_PODS, RELEASE, TENANTS, ensure_installed, timed, uninstall, until_ready};
use sluice_e2e::tally::assert_exact;
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, burst};
use sluice_engine::well_known::NAMESPACE;

const BOUND: Duration = Duration::from_mins(1);

#[test]
fn chart_removed_leaves_nothing_but_what_users_made() {
    play("uninstall", async |scene: &Scene| {
        let (namespace, _) = scene.ready_team("a").await;
        uninstall(&scene.cluster).await;
        timed("uninstalled to nothing left", BOUND, async || {
            nothing_left(scene).await
        })
        .await;
        let kept = scene
            .cluster
            .run(
                "kubectl",
                &["get", "logpipelines", "-n", &namespace, "-o", "name"],
            )
            .await;
        assert_eq!(
            kept.trim(),
            "logpipeline.sluice.dev/app",
            "what a user made stays"
        );

        // once more, and the operator is the first to go: nobody is left to clean up but the garbage collector
        ensure_installed(&scene.cluster).await;
        let pipeline = sluice_e2e::objects::Reference::pipeline(&namespace, "app");
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        scene
            .cluster
            .run(
                "kubectl",
                &[
                    "delete",
                    "deployment",
                    "-n",
                    NAMESPACE,
                    "--all",
                    "--cascade=foreground",
                ],
            )
            .await;
        uninstall(&scene.cluster).await;
        timed(
            "uninstalled without an operator to nothing left",
            BOUND,
            async || nothing_left(scene).await,
        )
        .await;
        no_bad_owners(scene).await;
    });
}

#[test]
fn kustomize_installs_the_same() {
    play_bare("kustomize", async |scene: &Scene| {
        // a release that other tests left would own the same objects
        drop(
            scene
                .cluster
                .try_run(
                    "helm",
                    &["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"],
                    "",
                )
                .await,
        );
        let folder = workspace().join("config/default").display().to_string();
        let manifests = scene
            .cluster
            .run("kubectl", &["kustomize", &folder])
            .await
            .replace("ghcr.io/sluice-dev/", "localhost/");
        let apply = ["apply", "--server-side", "--force-conflicts", "--filename", "-"];
        scene.cluster.run_with("kubectl", &apply, &manifests).await;
        scene
            .cluster
            .run(
                "kubectl",
                &[
                    "rollout",
                    "status",
                    "deployment",
                    "-n",
                    NAMESPACE,
                    "--timeout=120s",
                ],
            )
            .await;
        until_ready(&scene.cluster).await;

        // kustomize's tenants live in the operator's own namespace
        let namespace = scene.namespace("a", json!({})).await;
        scene.reader(&namespace).await;
        let tenant = scene.unique("a");
        let object = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "LokiTenant", "metadata": {"name": tenant, "namespace": NAMESPACE},
            "spec": {"url": "http://loki.loki.svc.cluster.local:3100", "tenantID": tenant, "allowedNamespaces": {"from": "All"}},
        });
        sluice_e2e::objects::apply(&scene.cluster, &object).await;
        let pipeline = scene
            .pipeline(
                &namespace,
                "app",
                &tenant,
                json!({"tenantRefs": [{"name": tenant, "namespace": NAMESPACE}]}),
            )
            .await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        Pod::new(&namespace, "writer", "node1", burst("writer", 1000))
            .start(&scene.cluster)
            .await;
        let selector = format!("{{namespace=\"{namespace}\"}}");
        let lines = scene.loki.until_lines(&tenant, &selector, 1000, PATIENCE).await;
        assert_exact(&lines, "writer", 1000);

        let delete = ["delete", "--ignore-not-found", "--wait=false", "--filename", "-"];
        scene.cluster.run_with("kubectl", &delete, &manifests).await;
        timed("deleted to nothing left", BOUND, async || {
            nothing_left(scene).await
        })
        .await;
        no_bad_owners(scene).await;
    });
}

/// Nothing of Sluice in the API but the CRDs, the namespace and what every namespace holds by itself.
async fn nothing_left(scene: &Scene) -> Result<(), String> {
    let mut left = Vec::new();
    for (scope, place) in [
        ("--namespaced=true", "-A"),
        ("--namespaced=false", "--ignore-not-found"),
    ] {
        let kinds = scene
            .cluster
            .run("kubectl", &["api-resources", scope, "--verbs=list", "-o", "name"])
            .await;
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !is_exempt(kind)).collect();
        let output = "jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.labels}{\"\\n\"}{end}";
        let objects = scene
            .cluster
            .try_run("kubectl", &["get", &kinds.join(","), place, "-o", output], "")
            .await?;
        left.extend(
            objects
                .lines()
                .filter(|object| is_ours(object))
                .map(str::to_owned),
        );
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(left.join("; "))
    }
}

fn is_exempt(kind: &str) -> bool {
    kind.starts_with("events")
        || kind.ends_with(".sluice.dev")
        || ["namespaces", "customresourcedefinitions.apiextensions.k8s.io"].contains(&kind)
}

fn is_ours(object: &str) -> bool {
    let mut parts = object.splitn(3, ' ');
    let (kind, name, labels) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let natural = (kind == "ServiceAccount" && name.ends_with("/default"))
        || (kind == "ConfigMap" && name.ends_with("/kube-root-ca.crt"));
    // the tests' own namespace for tenants holds what tests made; the operator never writes there
    let place = name.split('/').next().unwrap_or_default();
    !natural
        && place != TENANTS
        && (place == NAMESPACE
            || name.contains("/sluice")
            || labels.contains("\"sluice")
            || labels.contains("sluice-operator"))
}

/// An owner in another namespace makes the garbage collector delete a live object; it says so in an event.
async fn no_bad_owners(scene: &Scene) {
    let events = scene
        .cluster
        .run(
            "kubectl",
            &[
                "get",
                "events",
                "-A",
                "--field-selector",
                "reason=OwnerRefInvalidNamespace",
                "-o",
                "name",
            ],
        )
        .await;
    assert_eq!(events.trim(), "", "owners in other namespaces");
    let operators = scene
        .cluster
        .run(
            "kubectl",
            &["get", "pods", "-A", "-l", OPERATOR_PODS, "-o", "name"],
        )
        .await;
    show(&format!("operators left: {}", operators.lines().count()));
}
