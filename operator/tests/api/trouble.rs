//! A leader that begins while Lokis are down, a tenant that is deleted while its Loki is asked, and an object that
//! cannot be read: none of them stops another, and none is told wrongly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _};
use serde_json::json;
use sluice_engine::key::Key;
use sluice_operator::admin::Metrics;
use sluice_operator::api::{LogPipeline, LokiTenant};
use sluice_operator::fleet::desired::Desired;
use sluice_operator::fleet::observed::Observed;
use sluice_operator::run::{Options, objects};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::controllers::{apply, expect};
use crate::rig::{Server, eventually};

/// Tenants of the same Loki, more than are asked at the same time.
const TENANTS: usize = 100;

/// The address of a server that takes connections and says nothing.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            held.push(socket);
        }
    });
    format!("http://{address}")
}

/// A pipeline whose spec was valid once, in another version of the definition.
async fn malformed(client: &Client) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut definition = definitions.get("logpipelines.sluice.dev").await.unwrap();
    let open = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    definition.spec.versions[0].schema = Some(serde_json::from_value(open).unwrap());
    definitions
        .replace("logpipelines.sluice.dev", &PostParams::default(), &definition)
        .await
        .unwrap();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "team", &LogPipeline::api_resource());
    let object = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "LogPipeline",
        "metadata": {"name": "old", "namespace": "team"}, "spec": {"tenantRefs": 7},
    });
    eventually("the definition is open", 20, async || {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        api.create(&PostParams::default(), &object).await.ok()
    })
    .await;
    api
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_of_one_is_nobody_elses() {
    let server = Server::start().await;
    let client = server.client("admin");
    for name in ["outage", "team"] {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }
    let url = silent().await;
    let tenant = |name: &str| {
        format!("{{metadata: {{name: {name}}}, spec: {{url: '{url}', allowedNamespaces: {{from: All}}}}}}")
    };
    for index in 0..TENANTS {
        apply::<LokiTenant>(&client, "outage", &tenant(&format!("t{index}"))).await;
    }
    let old = malformed(&client).await;

    let desired = Desired::default();
    let (_observe, observed) = watch::channel(Arc::new(Observed::default()));
    let options = Options {
        identity: "test".into(),
        tenant_namespaces: ["outage".to_owned()].into(),
        review_all_namespaces: true,
        allow_local_addresses: true,
        host_paths: true,
    };
    let began = Instant::now();
    let side = objects(
        client.clone(),
        options,
        Metrics::default(),
        desired.clone(),
        observed,
    )
    .await;
    // Otherwise their pipelines would be withdrawn from every node because Loki is down.
    assert_eq!(desired.snapshot().tenants.len(), TENANTS);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    side.settled().await;

    expect::<LogPipeline>(&client, &Key::new("team", "old"), "Accepted", "False", "Invalid").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let version = old.get("old").await.unwrap().resource_version();
    let written = Instant::now();

    // Deleted while it is asked: gone, and not merely in trouble.
    let tenants: Api<LokiTenant> = Api::namespaced(client.clone(), "outage");
    apply::<LokiTenant>(&client, "outage", &tenant("brief")).await;
    let brief = Key::new("outage", "brief");
    eventually("the tenant is wanted", 10, async || {
        desired.snapshot().tenants.contains_key(&brief).then_some(())
    })
    .await;
    tenants.delete("brief", &DeleteParams::default()).await.unwrap();
    let pipeline = "{metadata: {name: web}, spec: {tenantRefs: [{name: brief}], sources: {pods: {}}}}";
    apply::<LogPipeline>(&client, "outage", pipeline).await;
    let web = Key::new("outage", "web");
    expect::<LogPipeline>(&client, &web, "ResolvedRefs", "False", "TenantNotFound").await;
    assert!(!desired.snapshot().tenants.contains_key(&brief));

    // By then the answer of its Loki was awaited in vain, and what cannot be read was looked at again.
    tokio::time::sleep(Duration::from_secs(30).saturating_sub(written.elapsed())).await;
    assert_eq!(old.get("old").await.unwrap().resource_version(), version);
    expect::<LogPipeline>(&client, &web, "ResolvedRefs", "False", "TenantNotFound").await;
}
