//! The fleet against a real API server, with the rights that `config/` gives: what it writes, what it restores,
//! what it leaves alone, what it hears. Needs the programs that `make tools` builds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod fleet_rig;
mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_rig::{agent, shares};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rig::{NAMESPACE, Server};
use serde_json::json;
use sluice_engine::document::ReadFrom;
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;
use sluice_operator::cluster::leader::Elector;
use sluice_operator::fleet::desired::{Desired, PipelineShare};
use sluice_operator::fleet::observed::Observed;
use sluice_operator::fleet::{self, metrics};
use sluice_operator::settings::Settings;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Counters are the process's: who looks at them is alone.
static COUNTED: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Running {
    client: Client,
    desired: Desired,
    observed: watch::Receiver<Arc<Observed>>,
    _task: AbortOnDropHandle<()>,
}

fn run(client: &Client, transitions: i32, revision: &str) -> Running {
    let desired = Desired::default();
    let (sender, observed) = watch::channel(Arc::default());
    let settings = Settings::parse("agent: {resources: {requests: {cpu: 1000m}}}", NAMESPACE).unwrap();
    let running = fleet::run(client.clone(), settings, transitions, desired.clone(), sender);
    let task = tokio::spawn(async move { Box::pin(running).await.unwrap() });
    set(&desired, revision);
    desired.mark_complete();
    Running {
        client: client.clone(),
        desired,
        observed,
        _task: AbortOnDropHandle::new(task),
    }
}

fn set(desired: &Desired, revision: &str) {
    let (pipeline, tenant) = shares(revision);
    desired.set_tenant(&Key::new("logging", "ops"), Some(tenant));
    desired.set_pipeline(&Key::new("team-a", "app"), Some(pipeline));
}

/// Waits up to 20 s until something holds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    rig::eventually(what, 20, async || holds().await.then_some(())).await;
}

/// `resourceVersion`s of everything of ours.
async fn versions(client: &Client) -> BTreeMap<String, String> {
    async fn of<K>(client: &Client) -> Vec<(String, String)>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let managed = ListParams::default().labels("app.kubernetes.io/managed-by=sluice-operator");
        let found = Api::<K>::namespaced(client.clone(), NAMESPACE)
            .list(&managed)
            .await
            .unwrap();
        let version = |object: &K| {
            (
                format!("{} {}", K::kind(&()), object.name_any()),
                object.resource_version().unwrap(),
            )
        };
        found.items.iter().map(version).collect()
    }
    let mut all = of::<ConfigMap>(client).await;
    all.extend(of::<Secret>(client).await);
    all.extend(of::<ServiceAccount>(client).await);
    all.extend(of::<DaemonSet>(client).await);
    all.into_iter().collect()
}

async fn names(client: &Client, part: &str) -> Vec<String> {
    versions(client)
        .await
        .into_keys()
        .filter(|name| name.contains(part))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_written_kept_and_left_alone() {
    let _alone = COUNTED.lock().await;
    let server = Server::start().await;
    let (admin, operator) = (server.client("admin"), server.client("operator"));
    for node in ["node1", "node2"] {
        server.add_node(node).await;
    }
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), NAMESPACE);
    let daemon_sets: Api<DaemonSet> = Api::namespaced(admin.clone(), NAMESPACE);

    // everything is written, with the operator's own rights
    let running = run(&operator, 0, "1");
    eventually("the DaemonSet is written last", async || {
        !names(&admin, "DaemonSet").await.is_empty()
    })
    .await;
    let first = versions(&admin).await;
    assert_eq!(first.len(), 8, "{first:?}");
    let pointer = maps.get("sluice-node-node1").await.unwrap();
    assert!(pointer.data.unwrap()["pointer.json"].contains("sluice-credentials-"));

    // a quiet fleet writes nothing
    tokio::time::sleep(Duration::from_secs(1)).await;
    let writes = metrics().writes.get();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        (versions(&admin).await, metrics().writes.get()),
        (first.clone(), writes)
    );

    // nor does a new leader; the DaemonSet's quantities, which the server rewrote, cost it one request
    drop(running);
    let running = run(&operator, 1, "1");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(versions(&admin).await, first);
    assert!(metrics().writes.get() <= writes + 1);

    // what others delete or edit comes back
    comes_back(&admin, &maps, &daemon_sets).await;

    // changes: documents are kept for three generations, agents keep their pods
    let generation = daemon_sets.get("sluice-agent").await.unwrap().metadata.generation;
    for revision in 2..8 {
        set(&running.desired, &revision.to_string());
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    eventually("old documents go", async || {
        names(&admin, "sluice-doc-").await.len() == 3
    })
    .await;
    assert_eq!(
        daemon_sets.get("sluice-agent").await.unwrap().metadata.generation,
        generation
    );

    rights_follow_pipelines(&admin, &running).await;

    // what nothing refers to goes
    Api::<Node>::all(admin.clone())
        .delete("node2", &DeleteParams::default())
        .await
        .unwrap();
    running.desired.set_pipeline(&Key::new("team-a", "app"), None);
    eventually("the node's pointer and the empty Secret go", async || {
        names(&admin, "sluice-node-").await.len() == 1
            && names(&admin, "sluice-credentials-").await.is_empty()
    })
    .await;

    withdrawals_do_not_wait(&running, &maps).await;
    assert_eq!(names(&admin, "sluice-credentials-").await, Vec::<String>::new());
}

/// Agents may read through the API where a pipeline does, and nowhere else; by the operator's own rights.
async fn rights_follow_pipelines(admin: &Client, running: &Running) {
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let team = json!({"metadata": {"name": "team-a"}});
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(team).unwrap())
        .await
        .unwrap();
    let bindings: Api<RoleBinding> = Api::all(admin.clone());
    let bound = async || {
        let all = bindings.list(&ListParams::default()).await.unwrap();
        let ours = all
            .items
            .into_iter()
            .filter(|one| one.role_ref.name == "sluice-agent-podlogs");
        ours.collect::<Vec<_>>()
    };
    assert!(bound().await.is_empty());
    let (mut share, _) = shares("9");
    share.pipeline.as_mut().unwrap().pods.read_from = ReadFrom::Api;
    running
        .desired
        .set_pipeline(&Key::new("team-a", "app"), Some(share));
    eventually("the right is bound", async || !bound().await.is_empty()).await;
    let binding = bound().await.remove(0);
    assert_eq!(binding.namespace().as_deref(), Some("team-a"));
    let subject = &binding.subjects.as_ref().unwrap()[0];
    assert_eq!(
        (subject.name.as_str(), subject.namespace.as_deref()),
        ("sluice-agent", Some(NAMESPACE))
    );
    assert_eq!(binding.owner_references()[0].name, "sluice-agent");

    // no other binding, and none under another name, is the operator's to make
    let operator = Api::<RoleBinding>::namespaced(running.client.clone(), "team-a");
    let mut other = binding.clone();
    other.metadata = serde_json::from_value(json!({"name": "other"})).unwrap();
    let refused = operator.create(&PostParams::default(), &other).await.unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");
    set(&running.desired, "9");
    eventually("the right is taken back", async || bound().await.is_empty()).await;
}

async fn comes_back(admin: &Client, maps: &Api<ConfigMap>, daemon_sets: &Api<DaemonSet>) {
    maps.delete("sluice-node-node2", &DeleteParams::default())
        .await
        .unwrap();
    let edit = json!({"spec": {"template": {"spec": {"containers": [{"name": "agent", "image": "other"}]}}}});
    daemon_sets
        .patch("sluice-agent", &PatchParams::default(), &Patch::Strategic(edit))
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), NAMESPACE);
    let status = secrets.get("sluice-status").await.unwrap();
    secrets
        .delete("sluice-status", &DeleteParams::default())
        .await
        .unwrap();
    eventually("the pointer comes back", async || {
        maps.get_opt("sluice-node-node2").await.unwrap().is_some()
    })
    .await;
    eventually("the image comes back", async || {
        let spec = daemon_sets
            .get("sluice-agent")
            .await
            .unwrap()
            .spec
            .unwrap()
            .template
            .spec
            .unwrap();
        spec.containers[0].image.as_deref() != Some("other")
    })
    .await;
    eventually("the certificates come back as they were", async || {
        secrets
            .get_opt("sluice-status")
            .await
            .unwrap()
            .is_some_and(|secret| secret.data == status.data)
    })
    .await;
}

/// What cannot be stored, here a Secret above 1 MiB, keeps no withdrawal from the nodes.
async fn withdrawals_do_not_wait(running: &Running, maps: &Api<ConfigMap>) {
    let (pipeline, mut tenant) = shares("1");
    if let Some(credentials) = &mut tenant.credentials {
        credentials.ca = Some("x".repeat(1 << 20));
    }
    running
        .desired
        .set_tenant(&Key::new("logging", "ops"), Some(tenant));
    running
        .desired
        .set_pipeline(&Key::new("team-a", "app"), Some(pipeline));
    let denial = Denial {
        pipeline: Key::new("team-b", "withdrawn"),
        namespace: None,
    };
    let withdrawn = PipelineShare {
        pipeline: None,
        deny: vec![denial.clone()],
    };
    running.desired.set_pipeline(&denial.pipeline, Some(withdrawn));
    eventually("the withdrawal reaches the node", async || {
        let pointer = maps.get("sluice-node-node1").await.unwrap();
        pointer.data.unwrap()["pointer.json"].contains("team-b/withdrawn")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agents_say_is_heard_and_their_silence_too() {
    let _alone = COUNTED.lock().await;
    let server = Server::start().await;
    let (admin, operator) = (server.client("admin"), server.client("operator"));
    server.add_node("node1").await;
    let running = run(&operator, 0, "1");
    let mut observed = running.observed.clone();
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), NAMESPACE);
    eventually("the certificates", async || {
        secrets.get_opt("sluice-status").await.unwrap().is_some()
    })
    .await;
    let status = secrets.get("sluice-status").await.unwrap();
    let uid = server.add_agent("node1", "127.0.0.77").await;
    let agent = agent(&status, "127.0.0.77:9881", &uid);
    let heard = observed.wait_for(|observed| {
        observed
            .nodes
            .get("node1")
            .is_some_and(|node| node.agent.is_some())
    });
    let snapshot = tokio::time::timeout(Duration::from_secs(20), heard)
        .await
        .unwrap()
        .unwrap()
        .clone();
    let node = &snapshot.nodes["node1"];
    assert_eq!(
        (
            node.agent.as_ref().unwrap().document.as_str(),
            node.silent_since,
            node.excused
        ),
        ("d1", None, false)
    );
    assert_eq!(snapshot.pipelines.len(), 1);
    assert_eq!(snapshot.credentials.len(), 1);

    drop(agent);
    let silent = observed.wait_for(|observed| observed.nodes["node1"].silent_since.is_some());
    tokio::time::timeout(Duration::from_secs(20), silent)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_the_next_takes_over_at_once() {
    let server = Server::start().await;
    let client = server.client("operator");
    let first = Elector::new(client.clone(), NAMESPACE, "first").acquire().await;
    let transitions = first.transitions;
    let waiting = tokio::spawn({
        let elector = Elector::new(client.clone(), NAMESPACE, "second");
        async move { elector.acquire().await }
    });
    tokio::time::sleep(Duration::from_secs(13)).await;
    assert!(!waiting.is_finished(), "the Lease is renewed");
    first.release().await;
    let second = tokio::time::timeout(Duration::from_secs(4), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(second.transitions, transitions + 1);

    // a holder that is robbed knows
    let leases =
        Api::<k8s_openapi::api::coordination::v1::Lease>::namespaced(server.client("admin"), NAMESPACE);
    let lease = leases.get("sluice-operator").await.unwrap();
    assert_eq!(lease.metadata.owner_references.unwrap()[0].name, "sluice-agent");
    let robbed = json!({"spec": {"holderIdentity": "third"}});
    leases
        .patch("sluice-operator", &PatchParams::default(), &Patch::Merge(robbed))
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(8), second.lost())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_pods_are_explained_and_an_uninstall_leaves_nothing() {
    let _alone = COUNTED.lock().await;
    let mut server = Server::start().await;
    let (admin, operator) = (server.client("admin"), server.client("operator"));
    server.add_node("node1").await;
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let level = async |level: &str| {
        let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
        namespaces
            .patch(NAMESPACE, &PatchParams::default(), &Patch::Merge(label))
            .await
            .unwrap();
    };
    level("restricted").await;
    server.start_controllers();
    let running = run(&operator, 0, "1");
    let mut observed = running.observed.clone();
    let refused = observed.wait_for(|observed| observed.obstacle.is_some());
    let found = tokio::time::timeout(Duration::from_secs(30), refused)
        .await
        .unwrap()
        .unwrap();
    let message = found.obstacle.clone().unwrap().message;
    drop(found);
    assert!(
        message.contains("kubectl label namespace sluice-system"),
        "{message}"
    );

    level("privileged").await;
    let cured = observed.wait_for(|observed| observed.obstacle.is_none());
    tokio::time::timeout(Duration::from_mins(1), cured)
        .await
        .unwrap()
        .unwrap();

    // the operator goes first, then what the chart made
    drop(running);
    assert!(versions(&admin).await.len() >= 7);
    Api::<ClusterRole>::all(admin.clone())
        .delete("sluice-agent", &DeleteParams::default())
        .await
        .unwrap();
    let began = std::time::Instant::now();
    while !versions(&admin).await.is_empty() {
        assert!(
            began.elapsed() < Duration::from_mins(1),
            "{:?}",
            versions(&admin).await
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let events = Api::<Event>::all(admin)
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(
        !events
            .items
            .iter()
            .any(|event| event.reason.as_deref() == Some("OwnerRefInvalidNamespace"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_nodes_take_seconds() {
    let _alone = COUNTED.lock().await;
    let server = Server::start().await;
    let (admin, operator) = (server.client("admin"), server.client("operator"));
    let names: Vec<_> = (0..1_000).map(|node| format!("node{node}")).collect();
    futures::stream::iter(&names)
        .for_each_concurrent(16, |name| server.add_node(name))
        .await;
    let running = run(&operator, 0, "1");
    eventually("the DaemonSet", async || {
        !names_of_daemon_sets(&admin).await.is_empty()
    })
    .await;
    let hash = running
        .observed
        .clone()
        .wait_for(|observed| observed.pipelines.len() == 1)
        .await
        .unwrap()
        .document
        .clone();
    let began = std::time::Instant::now();
    set(&running.desired, "2");
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), NAMESPACE);
    let pointers = ListParams::default().labels("app.kubernetes.io/component=pointer");
    loop {
        let list = maps.list(&pointers).await.unwrap().items;
        let new = list
            .iter()
            .filter(|map| !map.data.as_ref().unwrap()["pointer.json"].contains(&hash))
            .count();
        if new == 1_000 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{new}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("a change reached a thousand pointers in {:?}", began.elapsed());
}

async fn names_of_daemon_sets(client: &Client) -> Vec<String> {
    let found = Api::<DaemonSet>::namespaced(client.clone(), NAMESPACE)
        .list(&ListParams::default())
        .await
        .unwrap();
    found.items.iter().map(ResourceExt::name_any).collect()
}
