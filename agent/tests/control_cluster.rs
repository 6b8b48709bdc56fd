//! The watches against a real API server: changes, withdrawals, credentials, an outage, a restart from the
//! cache. Needs the programs that `e2e/cluster/tools/build.sh` builds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sluice_agent::config::InForce;
use sluice_agent::config::cluster::{self, Source};
use sluice_agent::metadata::{Log, PodChange, watch as pods};
use sluice_engine::document::content_hash;
use sluice_engine::well_known::{DOCUMENT_KEY, POINTER_KEY, credentials_secret, document_name, pointer_name};
use tokio::sync::{mpsc, watch};

const NAMESPACE: &str = "sluice-system";
const NODE: &str = "node-1";

/// etcd and an API server that lets everybody do everything.
struct Server {
    programs: PathBuf,
    dir: tempfile::TempDir,
    ports: [u16; 3],
    etcd: Child,
    apiserver: Child,
}

fn programs() -> PathBuf {
    let cache = std::env::var("SLUICE_CACHE")
        .unwrap_or_else(|_| format!("{}/.cache/sluice", std::env::var("HOME").unwrap()));
    let found = std::fs::read_dir(cache)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut found: Vec<_> = found
        .filter(|path| path.join("kube-apiserver").exists())
        .collect();
    found.sort();
    found
        .pop()
        .expect("no kube-apiserver: run e2e/cluster/tools/build.sh")
}

fn launch(program: &Path, log: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .unwrap();
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Server {
    async fn start() -> Self {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (programs, dir) = (programs(), tempfile::tempdir().unwrap());
        let free = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free
            .each_ref()
            .map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let (etcd_url, peer_url) = (
            format!("http://127.0.0.1:{}", ports[0]),
            format!("http://127.0.0.1:{}", ports[1]),
        );
        let arguments = [
            format!("--data-dir={}", dir.path().join("etcd").display()),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls={peer_url}"),
        ];
        let etcd = launch(&programs.join("etcd"), &dir.path().join("etcd.log"), &arguments);
        let apiserver = Self::apiserver(&programs, dir.path(), ports);
        let server = Self {
            programs,
            dir,
            ports,
            etcd,
            apiserver,
        };
        server.wait().await;
        server
    }

    fn apiserver(programs: &Path, dir: &Path, ports: [u16; 3]) -> Child {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
        std::fs::write(dir.join("tokens.csv"), "letmein,test,1,system:masters\n").unwrap();
        let arguments = [
            format!("--etcd-servers=http://127.0.0.1:{}", ports[0]),
            format!("--secure-port={}", ports[2]),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", dir.join("certificates").display()),
            "--authorization-mode=AlwaysAllow".to_owned(),
            format!("--token-auth-file={}", dir.join("tokens.csv").display()),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={data}/tls.crt"),
            format!("--service-account-signing-key-file={data}/tls.key"),
        ];
        launch(
            &programs.join("kube-apiserver"),
            &dir.join("apiserver.log"),
            &arguments,
        )
    }

    fn client(&self) -> Client {
        let mut config = kube::Config::new(format!("https://127.0.0.1:{}", self.ports[2]).parse().unwrap());
        config.accept_invalid_certs = true;
        config.proxy_url = None;
        config.auth_info = serde_json::from_value(json!({"token": "letmein"})).unwrap();
        Client::try_from(config).unwrap()
    }

    async fn wait(&self) {
        let begun = Instant::now();
        let namespaces: Api<Namespace> = Api::all(self.client());
        while namespaces.get("default").await.is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(90),
                "no API server, see {}",
                self.dir.path().display()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn stop_apiserver(&mut self) {
        self.apiserver.kill().unwrap();
        self.apiserver.wait().unwrap();
    }

    async fn restart_apiserver(&mut self) {
        self.apiserver = Self::apiserver(&self.programs, self.dir.path(), self.ports);
        self.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in [&mut self.apiserver, &mut self.etcd] {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// A document with one pipeline, in two parts, and its hash.
async fn write_document(client: &Client, pipeline_hash: &str) -> String {
    let document = json!({"version": 1,
        "pipelines": [{"name": "team/web", "uid": "u", "hash": pipeline_hash, "tenants": ["logging/ops"],
            "pods": {"namespaces": [{"name": "team"}]}}],
        "tenants": [{"name": "logging/ops", "uid": "t", "hash": "t1", "auth": "Bearer",
            "pushUrl": "http://loki/loki/api/v1/push"}]})
    .to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(document.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let hash = content_hash(document.as_bytes());
    let (left, right) = compressed.split_at(compressed.len() / 2);
    for (part, bytes) in [(0, left), (1, right)] {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(document_name(&hash, part));
        object.binary_data = Some(BTreeMap::from([(
            DOCUMENT_KEY.to_owned(),
            ByteString(bytes.to_vec()),
        )]));
        Api::namespaced(client.clone(), NAMESPACE)
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }
    hash
}

async fn write_secret(client: &Client, token: &str) -> String {
    let name = credentials_secret("t");
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"t": json!({"bearer": token}).to_string()}});
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let written = api
        .patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object))
        .await
        .unwrap();
    written.metadata.resource_version.unwrap()
}

async fn write_pointer(client: &Client, transitions: i32, hash: &str, secret: &str, deny: bool) {
    let deny = if deny {
        json!([{"pipeline": "team/web"}])
    } else {
        json!([])
    };
    let pointer = json!({"version": 1, "transitions": transitions, "document": {"hash": hash, "parts": 2},
        "deny": deny, "credentials": {credentials_secret("t"): secret}});
    let name = pointer_name(NODE);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {POINTER_KEY: pointer.to_string()}});
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object))
        .await
        .unwrap();
}

async fn until(
    in_force: &mut watch::Receiver<Arc<InForce>>,
    what: &str,
    holds: impl FnMut(&Arc<InForce>) -> bool,
) -> Duration {
    let begun = Instant::now();
    let waited = tokio::time::timeout(Duration::from_secs(20), in_force.wait_for(holds)).await;
    assert!(waited.is_ok(), "{what}");
    begun.elapsed()
}

fn token(in_force: &InForce) -> Option<&str> {
    in_force.tenants.first()?.credentials.as_ref()?.bearer.as_deref()
}

fn begin(server: &Server, state: &Path) -> (watch::Receiver<Arc<InForce>>, tokio::task::JoinHandle<()>) {
    let source = Source {
        namespace: NAMESPACE.to_owned(),
        node: NODE.to_owned(),
        state_dir: state.to_owned(),
        credentials_dir: state.join("credentials"),
    };
    let keeper = cluster::begin(&source);
    let (out, in_force) = watch::channel(Arc::new(keeper.in_force()));
    (
        in_force,
        tokio::spawn(cluster::run(server.client(), source, keeper, out)),
    )
}

#[tokio::test]
async fn the_pointer_is_followed_through_an_outage() {
    let mut server = Server::start().await;
    let client = server.client();
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let state = tempfile::tempdir().unwrap();
    let (mut in_force, task) = begin(&server, state.path());

    let secret = write_secret(&client, "one").await;
    let first = write_document(&client, "h1").await;
    write_pointer(&client, 3, &first, &secret, false).await;
    let took = until(&mut in_force, "a first document", |now| {
        now.document == first && token(now) == Some("one")
    })
    .await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(in_force.borrow().tenants[0].version, secret);

    // A withdrawal acts although the document that the same pointer names cannot be fetched.
    write_pointer(&client, 3, "00000000000000000000000000000000", &secret, true).await;
    until(&mut in_force, "a withdrawal", |now| {
        now.deny.len() == 1 && now.document == first
    })
    .await;
    // Neither is an earlier leader followed ...
    write_pointer(&client, 2, &first, &secret, false).await;
    // ... nor a rotation missed.
    let secret = write_secret(&client, "two").await;
    write_pointer(&client, 3, &first, &secret, true).await;
    until(&mut in_force, "a rotation", |now| token(now) == Some("two")).await;
    assert_eq!(
        (
            in_force.borrow().deny.len(),
            in_force.borrow().tenants[0].version.as_str()
        ),
        (1, secret.as_str())
    );

    // An outage changes nothing, and a process that begins in it has everything but unmounted credentials.
    server.stop_apiserver();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(token(&in_force.borrow()), Some("two"));
    task.abort();
    let (mut in_force, _task) = begin(&server, state.path());
    assert_eq!(
        (in_force.borrow().document.as_str(), in_force.borrow().deny.len()),
        (first.as_str(), 1)
    );
    assert_eq!(token(&in_force.borrow()), None);
    server.restart_apiserver().await;
    until(&mut in_force, "credentials after the outage", |now| {
        token(now) == Some("two")
    })
    .await;
    let second = write_document(&client, "h2").await;
    write_pointer(&client, 4, &second, &secret, false).await;
    until(&mut in_force, "a document after the outage", |now| {
        now.document == second && now.deny.is_empty()
    })
    .await;
    assert_eq!(in_force.borrow().pipelines[0].hash, "h2");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, from the first pod to the last")]
async fn the_nodes_pods_are_followed_through_an_outage() {
    let mut server = Server::start().await;
    let api: Api<Pod> = Api::namespaced(server.client(), "default");
    let pod = |name: &str, node: &str| -> Pod {
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}}),
        )
        .unwrap()
    };
    let create = async |name: &str, node: &str| {
        api.create(&PostParams::default(), &pod(name, node))
            .await
            .unwrap()
            .metadata
            .uid
            .unwrap()
    };
    let a = create("a", NODE).await;
    create("other", "node-2").await;
    let (sender, mut changes) = mpsc::unbounded_channel();
    let (report, mut containers) = mpsc::unbounded_channel();
    let (whole, is_whole) = watch::channel(false);
    tokio::spawn(pods::pods(
        server.client(),
        NODE.to_owned(),
        is_whole,
        move |(change, containers)| {
            _ = report.send(containers);
            _ = sender.send(change);
        },
    ));
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(20), changes.recv())
            .await
            .unwrap()
            .unwrap()
    };

    let PodChange::Applied(facts) = next().await else {
        panic!("no pod")
    };
    assert_eq!(
        (facts.uid.as_str(), facts.labels["app"].as_str()),
        (a.as_str(), "a")
    );
    assert!(matches!(next().await, PodChange::Synced));
    let b = create("b", NODE).await;
    assert!(matches!(next().await, PodChange::Applied(facts) if facts.uid == b));
    let label = json!({"metadata": {"labels": {"app": "changed"}}});
    api.patch("b", &PatchParams::default(), &Patch::Merge(&label))
        .await
        .unwrap();
    assert!(matches!(next().await, PodChange::Applied(facts) if facts.labels["app"] == "changed"));

    server.stop_apiserver();
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.restart_apiserver().await;
    api.delete("a", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    loop {
        match next().await {
            PodChange::Deleted(folder) => break assert!(folder.ends_with(&format!("_a_{a}"))),
            PodChange::Applied(facts) => assert!(facts.uid == a || facts.uid == b),
            PodChange::Synced => {}
        }
    }
    while containers.try_recv().is_ok_and(|states| states.is_empty()) {}
    assert!(containers.is_empty(), "nobody asked for containers");
    let status = json!({"status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "i",
        "ready": false, "restartCount": 2, "state": {"running": {"startedAt": "2026-11-20T17:50:00Z"}}}]}});
    api.patch_status("b", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
    whole.send(true).unwrap();
    let state = async {
        loop {
            if let Some(state) = containers.recv().await.unwrap().pop() {
                break state;
            }
        }
    };
    let state = tokio::time::timeout(Duration::from_secs(20), state)
        .await
        .unwrap();
    assert_eq!(
        (state.name.as_str(), state.restarts, state.log),
        ("c", 2, Log::Growing)
    );
}
