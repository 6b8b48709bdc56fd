//! What stands before Loki: basic authentication over TLS with a CA of one's own, client certificates, bearer tokens, headers.

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
            let lines = scene.loki.until_lines(user, &selector, 2 * LINES, PATIENCE).await;
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
fn a_client_certificate_and_a_server_name_reach_their_tenant() {
    play("certified", async |scene: &Scene| {
        let file = |path: String| std::fs::read_to_string(path).unwrap();
        let ca = file(scene.cluster.variable("SLUICE_LOKI_CA").to_owned());
        let ca = scene.credentials("ca", json!({"ca.crt": ca})).await;
        let pair = scene.cluster.variable("SLUICE_GATEWAY_CLIENT");
        let (certificate, key) = (file(format!("{pair}.crt")), file(format!("{pair}.key")));
        let client = scene
            .credentials("client", json!({"tls.crt": certificate, "tls.key": key}))
            .await;
        let url = format!("{URL}:8444");
        let authority = json!({"name": ca, "key": "ca.crt"});
        let spec = json!({"url": url, "tenantID": null, "tls": {
            "caSecretRef": authority, "clientSecretRef": {"name": client},
            "serverName": scene.cluster.variable("SLUICE_GATEWAY_OTHER_NAME"),
        }});
        // The certificate carries another name than the URL.
        let spec_of_url = json!({"url": url, "tenantID": null, "tls": {"caSecretRef": authority, "clientSecretRef": {"name": client}}});
        let unnamed = scene.tenant_with("unnamed", spec_of_url).await;
        arrives(scene, spec, scene.cluster.variable("SLUICE_GATEWAY_CERTIFIED")).await;
        let unnamed = Reference::tenant(TENANTS, &unnamed);
        let reason = Some("TlsFailed");
        until_condition(&scene.cluster, &unnamed, "Reachable", "False", reason, PATIENCE).await;
    });
}

#[test]
fn a_bearer_token_and_a_header_reach_their_tenant() {
    play("tokened", async |scene: &Scene| {
        let (tenant, token) = scene
            .cluster
            .variable("SLUICE_GATEWAY_TOKEN")
            .split_once(':')
            .unwrap();
        let url = "http://loki-gateway.loki.svc.cluster.local:8081";
        let spec = |secret: &str| {
            json!({
                "url": url, "tenantID": null,
                "auth": {"bearer": {"secretRef": {"name": secret, "key": "token"}}},
                "headers": [{"name": "X-Team", "value": "blue"}],
            })
        };
        let right = scene.credentials("right", json!({"token": token})).await;
        let wrong = scene.credentials("wrong", json!({"token": "another"})).await;
        let refused = scene.tenant_with("refused", spec(&wrong)).await;
        arrives(scene, spec(&right), &format!("{tenant}-blue")).await;
        let refused = Reference::tenant(TENANTS, &refused);
        let reason = Some("Unauthorized");
        until_condition(&scene.cluster, &refused, "Reachable", "False", reason, PATIENCE).await;
    });
}

/// Lines of a pod on each node reach this tenant of Loki by a `LokiTenant` of this spec, each once.
async fn arrives(scene: &Scene, spec: serde_json::Value, tenant: &str) {
    let through = scene.tenant_with("a", spec).await;
    let namespace = scene.namespace("a", json!({})).await;
    scene.reader(&namespace).await;
    let pipeline = scene.pipeline(&namespace, "app", &through, json!({})).await;
    until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
    let selector = format!("{{namespace=\"{namespace}\"}}");
    for node in NODES {
        Pod::new(&namespace, node, node, burst(node, LINES))
            .start(&scene.cluster)
            .await;
    }
    let lines = scene
        .loki
        .until_lines(tenant, &selector, 2 * LINES, PATIENCE)
        .await;
    for node in NODES {
        assert_exact(&lines, node, LINES);
    }
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
