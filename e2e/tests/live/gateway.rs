//! The gateway of Loki's chart: basic authentication over TLS with a CA of one's own, and the user is the tenant.

use serde_json::json;
use sluice_e2e::cluster::NODES;
use sluice_e2e::objects::{Reference, until_condition};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::TENANTS;
use sluice_e2e::tally::assert_exact;
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, burst};

const URL: &str = "https://loki-gateway.loki.svc.cluster.local";
const LINES: u64 = 10_000;

#[test]
fn basic_authentication_over_tls_chooses_the_tenant() {
    play("gateway", async |scene: &Scene| {
        let ca = std::fs::read_to_string(scene.cluster.variable("SLUICE_LOKI_CA")).unwrap();
        let ca = scene.credentials("ca", json!({"ca.crt": ca})).await;
        let mut teams = Vec::new();
        for user in scene.cluster.variable("SLUICE_GATEWAY_USERS").split(' ') {
            let (user, password) = user.split_once(':').unwrap();
            let secret = scene
                .credentials(user, json!({"username": user, "password": password}))
                .await;
            let spec = json!({
                "url": URL, "tenantID": null,
                "auth": {"basic": {"secretRef": {"name": secret}}},
                "tls": {"caSecretRef": {"name": ca, "key": "ca.crt"}},
            });
            let tenant = scene.tenant_with(user, spec).await;
            let namespace = scene.namespace(user, json!({})).await;
            scene.reader(&namespace).await;
            let pipeline = scene.pipeline(&namespace, "app", &tenant, json!({})).await;
            until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
            teams.push((namespace, user.to_owned()));
        }
        for (namespace, _) in &teams {
            for node in NODES {
                Pod::new(
                    namespace,
                    &format!("writer-{node}"),
                    node,
                    burst(&format!("writer-{node}"), LINES),
                )
                .start(&scene.cluster)
                .await;
            }
        }
        for (namespace, user) in &teams {
            let selector = format!("{{namespace=\"{namespace}\"}}");
            scene.loki.until_count(user, &selector, 2 * LINES, PATIENCE).await;
            let lines = scene.loki.lines(user, &selector).await;
            for node in NODES {
                assert_exact(&lines, &format!("writer-{node}"), LINES);
            }
            for (_, other) in teams.iter().filter(|(_, other)| other != user) {
                assert_eq!(
                    scene.loki.count(other, &selector).await.unwrap(),
                    0,
                    "{other} sees lines of {user}"
                );
            }
        }
    });
}

#[test]
fn an_unknown_ca_is_said_to_be_the_cause() {
    play("tls", async |scene: &Scene| {
        let namespace = scene.namespace("a", json!({})).await;
        scene.reader(&namespace).await;
        let tenant = scene.tenant_with("a", json!({"url": URL})).await;
        scene.pipeline(&namespace, "app", &tenant, json!({})).await;
        let tenant = Reference::tenant(TENANTS, &tenant);
        until_condition(
            &scene.cluster,
            &tenant,
            "Reachable",
            "False",
            Some("TlsFailed"),
            PATIENCE,
        )
        .await;
    });
}
