//! The controllers in this process, with a fleet that the test plays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_engine::key::Key;
use sluice_engine::report::{OutputReport, PipelineReport, TenantReport};
use sluice_operator::admin::Metrics;
use sluice_operator::api::{LogPipeline, LokiTenant};
use sluice_operator::fleet::desired::{Desired, PipelineShare};
use sluice_operator::fleet::observed::{Agent, Node, Observed};
use sluice_operator::run::{Options, objects};
use tokio::sync::watch;

use crate::client;
use crate::loki;
use crate::rig::eventually;

pub(crate) async fn apply<K>(client: &Client, namespace: &str, text: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let mut value: Value = serde_saphyr::from_str(text).unwrap();
    value["apiVersion"] = json!(K::api_version(&()));
    value["kind"] = json!(K::kind(&()));
    let name = value["metadata"]["name"].as_str().unwrap().to_owned();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&value))
        .await
        .unwrap();
}

async fn cluster(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["logging", "team-a", "team-b"] {
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &object).await.unwrap();
    }
    apply::<ServiceAccount>(client, "team-a", "{metadata: {name: reader}}").await;
}

/// Status, reason and message of a condition.
async fn condition<K: CustomResourceExtra>(
    client: &Client,
    key: &Key,
    kind: &str,
) -> Option<(String, String, String)> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &K::api_resource());
    let object = api.get(&key.name).await.ok()?;
    let conditions = object.data.pointer("/status/conditions")?.as_array()?.clone();
    let found = conditions
        .into_iter()
        .find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

pub(crate) trait CustomResourceExtra: kube::CustomResourceExt {}
impl CustomResourceExtra for LogPipeline {}
impl CustomResourceExtra for LokiTenant {}

pub(crate) async fn expect<K: CustomResourceExtra>(
    client: &Client,
    key: &Key,
    kind: &str,
    status: &str,
    reason: &str,
) -> String {
    let last = std::sync::Mutex::new(None);
    let what = format!("{key} {kind}={status} {reason}");
    let wait = eventually(&what, 40, async || {
        let found = condition::<K>(client, key, kind).await;
        last.lock().unwrap().clone_from(&found);
        found.filter(|(s, r, _)| s == status && r == reason)
    });
    match tokio::time::timeout(Duration::from_secs(30), wait).await {
        Ok((_, _, message)) => message,
        Err(late) => panic!("{late}: {what}; it is {:?}", last.lock().unwrap()),
    }
}

fn share(desired: &Desired, key: &Key) -> Option<PipelineShare> {
    desired.snapshot().pipelines.get(key).cloned()
}

/// One node whose agent runs all that is wanted.
fn obedient(desired: &Desired) -> Observed {
    let shares = desired.snapshot();
    let pipelines = shares
        .pipelines
        .iter()
        .filter_map(|(key, share)| {
            let pipeline = share.pipeline.as_ref()?;
            let outputs = pipeline.tenants.iter();
            let outputs = outputs.map(|t| OutputReport {
                tenant: t.clone(),
                lag_seconds: 5,
                rejected: Vec::new(),
                lost: Vec::new(),
                gap_count: 0,
                gaps: Vec::new(),
            });
            let report = PipelineReport {
                name: key.clone(),
                uid: pipeline.uid.clone(),
                hash: pipeline.hash.clone(),
                generation: pipeline.generation,
                refused: None,
                containers: 1,
                unread: None,
                outputs: outputs.collect(),
                warnings: Vec::new(),
            };
            Some(report)
        })
        .collect();
    let tenants = shares.tenants.iter().map(|(key, share)| {
        let hash = share.tenant.hash.clone();
        TenantReport {
            name: key.clone(),
            hash,
            credentials: String::new(),
            problem: None,
        }
    });
    let agent = Agent {
        epoch: 1,
        document: "d".into(),
        pipelines,
        tenants: tenants.collect(),
        warnings: Vec::new(),
    };
    let node = Node {
        excused: false,
        agent: Some(Arc::new(agent)),
        silent_since: None,
    };
    Observed {
        nodes: [("n1".to_owned(), node)].into(),
        document: "d".into(),
        ..Observed::default()
    }
}

const PIPELINE: &str = "{metadata: {name: web}, spec: {serviceAccountName: reader, tenantRefs: [{name: ops, namespace: logging}], sources: {pods: {}}}}";
const BINDING: &str = "{metadata: {name: sluice-log-reader}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: sluice-log-reader}, subjects: [{kind: ServiceAccount, name: reader, namespace: team-a}]}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_refused_tenant_to_lines_and_back() {
    let client = client().await;
    cluster(&client).await;
    let desired = Desired::default();
    let (observe, observed) = watch::channel(Arc::new(Observed::default()));
    let options = Options {
        identity: "test".into(),
        tenant_namespaces: ["logging".to_owned()].into(),
        review_all_namespaces: true,
        allow_local_addresses: true,
        host_paths: true,
    };
    let side = objects(
        client.clone(),
        options,
        Metrics::default(),
        desired.clone(),
        observed,
    )
    .await;
    side.settled().await;
    let url = loki::start().await;
    tenants(&client, &url, &desired).await;
    pipelines(&client, &url, &desired, &observe).await;
}

async fn tenants(client: &Client, url: &str, desired: &Desired) {
    let misplaced = Key::new("team-a", "own");
    apply::<LokiTenant>(
        client,
        "team-a",
        &format!("{{metadata: {{name: own}}, spec: {{url: '{url}'}}}}"),
    )
    .await;
    let message = expect::<LokiTenant>(client, &misplaced, "Accepted", "False", "NamespaceNotAllowed").await;
    assert!(message.contains("tenantNamespaces"), "{message}");

    let ops = Key::new("logging", "ops");
    let tenant = format!(
        "{{metadata: {{name: ops}}, spec: {{url: '{url}', auth: {{basic: {{secretRef: {{name: s}}}}}}}}}}"
    );
    apply::<LokiTenant>(client, "logging", &tenant).await;
    expect::<LokiTenant>(client, &ops, "Ready", "False", "SecretNotFound").await;
    assert!(desired.snapshot().tenants.is_empty());
    apply::<Secret>(
        client,
        "logging",
        "{metadata: {name: s}, stringData: {username: u, password: wrong}}",
    )
    .await;
    let message = expect::<LokiTenant>(client, &ops, "Ready", "False", "SecretNotLabelled").await;
    assert!(
        message.contains("kubectl label secret s -n logging sluice.dev/credentials=true"),
        "{message}"
    );
    let labelled = |data: &str| {
        format!("{{metadata: {{name: s, labels: {{sluice.dev/credentials: 'true'}}}}, stringData: {data}}}")
    };
    apply::<Secret>(client, "logging", &labelled("{username: u, password: wrong}")).await;
    expect::<LokiTenant>(client, &ops, "Ready", "False", "Unauthorized").await;
    expect::<LokiTenant>(client, &ops, "Stalled", "True", "Unauthorized").await;
    apply::<Secret>(client, "logging", &labelled("{username: u, password: p}")).await;
    expect::<LokiTenant>(client, &ops, "Ready", "True", "Ready").await;
    let wrong = format!("{{metadata: {{name: wrong}}, spec: {{url: '{url}/push'}}}}");
    apply::<LokiTenant>(client, "logging", &wrong).await;
    expect::<LokiTenant>(
        client,
        &Key::new("logging", "wrong"),
        "Reachable",
        "False",
        "WrongPath",
    )
    .await;
    let nowhere = "{metadata: {name: nowhere}, spec: {url: 'http://nowhere.invalid'}}";
    apply::<LokiTenant>(client, "logging", nowhere).await;
    expect::<LokiTenant>(
        client,
        &Key::new("logging", "nowhere"),
        "Reachable",
        "False",
        "AddressNotFound",
    )
    .await;
    let closed = "{metadata: {name: closed}, spec: {url: 'http://127.0.0.1:1'}}";
    apply::<LokiTenant>(client, "logging", closed).await;
    expect::<LokiTenant>(
        client,
        &Key::new("logging", "closed"),
        "Reachable",
        "False",
        "Unreachable",
    )
    .await;
}

async fn pipelines(client: &Client, url: &str, desired: &Desired, observe: &watch::Sender<Arc<Observed>>) {
    let web = Key::new("team-a", "web");
    apply::<LogPipeline>(client, "team-a", PIPELINE).await;
    expect::<LogPipeline>(client, &web, "ResolvedRefs", "False", "RefNotPermitted").await;
    let open = format!(
        "{{metadata: {{name: ops}}, spec: {{url: '{url}', auth: {{basic: {{secretRef: {{name: s}}}}}}, allowedNamespaces: {{from: All}}}}}}"
    );
    apply::<LokiTenant>(client, "logging", &open).await;
    expect::<LogPipeline>(client, &web, "ResolvedRefs", "True", "ResolvedRefs").await;

    // No permission: the condition shows the command that helps.
    let message = expect::<LogPipeline>(client, &web, "Authorized", "False", "NotAuthorized").await;
    let command = "kubectl create rolebinding sluice-log-reader -n team-a --clusterrole=sluice-log-reader --serviceaccount=team-a:reader";
    assert!(message.contains(command), "{message}");
    assert_eq!(share(desired, &web).unwrap().pipeline, None);

    // Granted: the share is there, and Ready follows the nodes.
    apply::<RoleBinding>(client, "team-a", BINDING).await;
    eventually("the share is set", 10, async || share(desired, &web)?.pipeline).await;
    expect::<LogPipeline>(client, &web, "Authorized", "True", "Authorized").await;
    assert_ne!(
        condition::<LogPipeline>(client, &web, "Ready").await.unwrap().0,
        "True"
    );
    observe.send_replace(Arc::new(obedient(desired)));
    expect::<LogPipeline>(client, &web, "Ready", "True", "Ready").await;
    let pipelines: Api<LogPipeline> = Api::namespaced(client.clone(), "team-a");
    let status = pipelines.get("web").await.unwrap().status.unwrap();
    let display = status.display.unwrap();
    assert_eq!(
        (
            display.nodes.as_str(),
            display.tenants.as_str(),
            display.lag.as_str()
        ),
        ("1/1", "logging/ops", "5s")
    );
    assert_eq!(status.namespaces.unwrap().granted, ["team-a"]);
    expect::<LokiTenant>(client, &Key::new("logging", "ops"), "Ready", "True", "Ready").await;

    quiet(client).await;

    // Revoked: the share is withdrawn.
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), "team-a");
    let began = Instant::now();
    bindings
        .delete("sluice-log-reader", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the share is withdrawn", 10, async || {
        share(desired, &web)?.pipeline.is_none().then_some(())
    })
    .await;
    assert!(!share(desired, &web).unwrap().deny.is_empty());
    println!("withdrawn after {:?}", began.elapsed());
    expect::<LogPipeline>(client, &web, "Stalled", "True", "NotAuthorized").await;

    // Suspended: Ready False, never Stalled, and denied on the nodes.
    apply::<RoleBinding>(client, "team-a", BINDING).await;
    expect::<LogPipeline>(client, &web, "Authorized", "True", "Authorized").await;
    apply::<LogPipeline>(
        client,
        "team-a",
        &PIPELINE.replace("spec: {", "spec: {suspend: true, "),
    )
    .await;
    expect::<LogPipeline>(client, &web, "Ready", "False", "Suspended").await;
    assert_eq!(condition::<LogPipeline>(client, &web, "Stalled").await, None);
    assert_eq!(share(desired, &web).unwrap().deny.len(), 1);

    // Deleted: denied at once.
    pipelines.delete("web", &DeleteParams::default()).await.unwrap();
    eventually("the pipeline is denied", 10, async || {
        share(desired, &web)?.pipeline.is_none().then_some(())
    })
    .await;
}

/// Nothing is written while nothing changes.
async fn quiet(client: &Client) {
    let versions = async || -> Vec<(String, String)> {
        let tenants: Api<LokiTenant> = Api::all(client.clone());
        let pipelines: Api<LogPipeline> = Api::all(client.clone());
        let tenants = tenants.list(&kube::api::ListParams::default()).await.unwrap();
        let pipelines = pipelines.list(&kube::api::ListParams::default()).await.unwrap();
        let tenants = tenants
            .iter()
            .map(|object| (object.name_any(), object.resource_version().unwrap()));
        tenants
            .chain(
                pipelines
                    .iter()
                    .map(|object| (object.name_any(), object.resource_version().unwrap())),
            )
            .collect()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = versions().await;
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(before, versions().await);
}
