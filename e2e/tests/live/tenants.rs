//! Each trouble of a tenant has its own reason on its object within 30 s, and other pipelines deliver on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_e2e::figures::show;
use sluice_e2e::objects::{Reference, condition, read, until_condition};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::TENANTS;
use sluice_e2e::tally::assert_exact;
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, steady, steady_count};

const BOUND: Duration = Duration::from_secs(30);
const LOKI: &str = "http://loki.loki.svc.cluster.local";
const GATEWAY: &str = "http://loki-gateway.loki.svc.cluster.local";

#[test]
fn each_trouble_has_its_reason_and_harms_no_other() {
    play("troubles", async |scene: &Scene| {
        let (namespace, good) = scene.ready_team("good").await;
        let writer = Pod::new(&namespace, "writer", "node1", steady("writer", 100, 60));
        writer.start(&scene.cluster).await;
        writer.until_running(&scene.cluster).await;

        let start = Instant::now();
        let mut judged = Vec::new();
        for (role, spec, kind, reason) in troubles(scene).await {
            let tenant = scene.tenant_with(role, spec).await;
            let pipeline = scene.pipeline(&namespace, role, &tenant, json!({})).await;
            let tenant = Reference::tenant(TENANTS, &tenant);
            judged.push((tenant.clone(), kind, reason));
            judged.push((tenant, "Ready", reason));
            judged.push((pipeline, "Ready", "TenantNotReady"));
        }
        let spec = json!({"allowedNamespaces": {"from": "Same"}});
        let closed = scene.tenant_with("closed", spec).await;
        let refused = scene.pipeline(&namespace, "closed", &closed, json!({})).await;
        judged.push((refused, "ResolvedRefs", "RefNotPermitted"));

        for (object, kind, reason) in judged {
            let left = BOUND.saturating_sub(start.elapsed()).max(Duration::from_secs(1));
            let message = until_condition(&scene.cluster, &object, kind, "False", Some(reason), left).await;
            let seconds = start.elapsed().as_secs_f64();
            show(&format!("{seconds:4.1} s  {object}: {kind} {reason}: {message}"));
        }

        let app = Reference::pipeline(&namespace, "app");
        let healthy = read(&scene.cluster, &app).await.unwrap();
        let status = &healthy["status"];
        assert_eq!(
            condition(&healthy, "Ready")["status"],
            "True",
            "a healthy pipeline is not touched: {status}"
        );
        writer.until_done(&scene.cluster, PATIENCE).await;
        let selector = format!("{{namespace=\"{namespace}\"}}");
        let count = steady_count(100, 60);
        let lines = scene
            .loki
            .until_lines(&good, &selector, count, Duration::from_secs(20))
            .await;
        assert_exact(&lines, "writer", count);
        let stolen = scene.loki.count(&closed, &selector).await.unwrap();
        assert_eq!(stolen, 0, "a tenant that does not consent gets nothing");
    });
}

/// Each trouble: the tenant's role, what its spec has instead of the usual, and the condition and reason that are right.
async fn troubles(scene: &Scene) -> [(&'static str, Value, &'static str, &'static str); 6] {
    let unlabelled = scene
        .unlabelled_secret(
            "unlabelled",
            json!({"username": "ops", "password": "ops-password"}),
        )
        .await;
    let wrong = scene
        .credentials("wrong", json!({"username": "ops", "password": "wrong"}))
        .await;
    let basic = |secret: &str| json!({"basic": {"secretRef": {"name": secret}}});
    let refused = json!({"url": GATEWAY, "tenantID": null, "auth": basic(&wrong)});
    let path = json!({"url": format!("{LOKI}:3100/wrong/push")});
    let port = json!({"url": format!("{LOKI}:3999")});
    let address = json!({"url": "http://loki.nowhere.svc.cluster.local:3100"});
    [
        (
            "no-secret",
            json!({"auth": basic("nowhere")}),
            "ResolvedRefs",
            "SecretNotFound",
        ),
        (
            "no-label",
            json!({"auth": basic(&unlabelled)}),
            "ResolvedRefs",
            "SecretNotLabelled",
        ),
        ("password", refused, "Reachable", "Unauthorized"),
        ("address", address, "Reachable", "AddressNotFound"),
        ("port", port, "Reachable", "Unreachable"),
        ("path", path, "Reachable", "WrongPath"),
    ]
}

#[test]
fn a_misspelt_or_unsafe_spec_is_refused_at_once() {
    play("refused", async |scene: &Scene| {
        let namespace = scene.namespace("a", json!({})).await;
        let pipeline = |spec: Value| json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "LogPipeline", "metadata": {"name": "app", "namespace": namespace}, "spec": spec});
        for (spec, named) in [
            (
                json!({"tenantRefs": [{"name": "x"}], "sources": {"pods": {}}, "serviceAcountName": "y"}),
                "serviceAcountName",
            ),
            (json!({"tenantRefs": [{"name": "x"}], "sources": {}}), "sources"),
            (
                json!({"tenantRefs": [{"name": "x"}], "sources": {"pods": {}}, "labels": {"static": {"namespace": "forged"}}}),
                "namespace",
            ),
        ] {
            let refusal = sluice_e2e::objects::try_apply(&scene.cluster, &pipeline(spec))
                .await
                .unwrap_err();
            show(&refusal);
            assert!(refusal.contains(named), "{refusal:?} names {named}");
        }
    });
}
