//! etcd and an API server with RBAC, the rights of `config/`, nodes and a speaking agent.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sluice_engine::report::{Report, VERSION};
use sluice_operator::fleet::desired::{PipelineShare, TenantShare};

pub(crate) const NAMESPACE: &str = "sluice-system";

/// etcd and an API server.
pub(crate) struct Server {
    port: u16,
    programs: PathBuf,
    dir: tempfile::TempDir,
    processes: Vec<Child>,
}

fn programs() -> PathBuf {
    let cache = std::env::var("SLUICE_CACHE")
        .unwrap_or_else(|_| format!("{}/.cache/sluice", std::env::var("HOME").unwrap()));
    let mut found: Vec<_> = std::fs::read_dir(cache)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    found.retain(|path| path.join("kube-apiserver").exists());
    found.sort();
    found
        .pop()
        .expect("no kube-apiserver: run e2e/cluster/tools/build.sh")
}

fn launch(program: &Path, log: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::create(log).unwrap();
    Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (programs, dir) = (programs(), tempfile::tempdir().unwrap());
        let file = |name: &str| dir.path().join(name);
        let free = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [etcd, peer, port] = free
            .each_ref()
            .map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(file("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(file("key.pub"), key.public_key_pem()).unwrap();
        let tokens =
            "admin,admin,1,system:masters\noperator,system:serviceaccount:sluice-system:sluice-operator,2\n";
        std::fs::write(file("tokens.csv"), tokens).unwrap();
        let processes = vec![
            launch(
                &programs.join("etcd"),
                &file("etcd.log"),
                &[
                    format!("--data-dir={}", file("etcd").display()),
                    "--unsafe-no-fsync".into(),
                    format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
                    format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
                    format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                ],
            ),
            launch(
                &programs.join("kube-apiserver"),
                &file("apiserver.log"),
                &[
                    format!("--etcd-servers=http://127.0.0.1:{etcd}"),
                    format!("--secure-port={port}"),
                    "--bind-address=127.0.0.1".into(),
                    format!("--cert-dir={}", file("certificates").display()),
                    "--authorization-mode=RBAC".into(),
                    format!("--token-auth-file={}", file("tokens.csv").display()),
                    "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".into(),
                    "--service-cluster-ip-range=10.96.0.0/16".into(),
                    "--service-account-issuer=https://kubernetes.default.svc".into(),
                    format!("--service-account-key-file={}", file("key.pub").display()),
                    format!("--service-account-signing-key-file={}", file("key.pem").display()),
                ],
            ),
        ];
        let server = Self {
            port,
            programs,
            dir,
            processes,
        };
        let namespaces: Api<Namespace> = Api::all(server.client("admin"));
        let began = Instant::now();
        while namespaces.get("default").await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(90), "no API server");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/default");
        let applied = Command::new(server.programs.join("kubectl"))
            .args([
                "--token=admin",
                "--insecure-skip-tls-verify",
                &format!("--server=https://127.0.0.1:{port}"),
            ])
            .args(["--kubeconfig=/dev/null", "apply", "--server-side", "-k", config])
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .unwrap();
        assert!(
            applied.status.success(),
            "{}",
            String::from_utf8_lossy(&applied.stderr)
        );
        server
    }

    /// Starts the controllers of `DaemonSet`s and garbage.
    pub(crate) fn start_controllers(&mut self) {
        let kubeconfig = self.dir.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true,
            }}],
            "users": [{"name": "test", "user": {"token": "admin"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let arguments = [
            format!("--kubeconfig={}", kubeconfig.display()),
            "--controllers=daemonset-controller,garbage-collector-controller".to_owned(),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        let log = self.dir.path().join("controllers.log");
        self.processes.push(launch(
            &self.programs.join("kube-controller-manager"),
            &log,
            &arguments,
        ));
    }

    /// A client with the rights of `admin` or `operator`.
    pub(crate) fn client(&self, who: &str) -> Client {
        let mut config = kube::Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.accept_invalid_certs = true;
        config.proxy_url = None;
        config.auth_info = serde_json::from_value(json!({"token": who})).unwrap();
        Client::try_from(config).unwrap()
    }

    pub(crate) async fn add_node(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.client("admin"));
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}});
        nodes
            .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// A running pod of the `DaemonSet`; returns its UID.
    pub(crate) async fn add_agent(&self, node: &str, address: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client("admin"), NAMESPACE);
        let labels =
            json!({"app.kubernetes.io/name": "sluice-agent", "app.kubernetes.io/component": "agent"});
        let pod = json!({
            "metadata": {"name": format!("sluice-agent-{node}"), "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "agent"}]},
        });
        let pod = pods
            .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
            .await
            .unwrap();
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
        pod.uid().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            _ = process.kill();
            _ = process.wait();
        }
    }
}

/// Waits up to 20 s until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One pipeline and its tenant, with credentials.
pub(crate) fn shares(revision: &str) -> (PipelineShare, TenantShare) {
    let pipeline = json!({
        "name": "team-a/app", "uid": "uid-app", "tenants": ["logging/ops"],
        "pods": {"namespaces": [{"name": "team-a", "uid": revision}]},
    });
    let tenant = json!({
        "name": "logging/ops", "uid": "uid-ops", "auth": "Basic", "pushUrl": "http://loki/loki/api/v1/push",
    });
    let credentials = json!({"basic": {"username": "ops", "password": "word"}});
    (
        PipelineShare {
            pipeline: Some(serde_json::from_value(pipeline).unwrap()),
            deny: Vec::new(),
        },
        TenantShare {
            tenant: serde_json::from_value(tenant).unwrap(),
            credentials: Some(serde_json::from_value(credentials).unwrap()),
        },
    )
}

/// An agent's `/status`, until it is dropped.
pub(crate) struct Agent(Arc<AtomicBool>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Serves one report to who shows the token.
pub(crate) fn agent(status: &Secret, address: &str, pod_uid: &str) -> Agent {
    let text = |key: &str| String::from_utf8(status.data.as_ref().unwrap()[key].0.clone()).unwrap();
    let certificate = CertificateDer::pem_slice_iter(text("tls.crt").as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(text("tls.key").as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificate, key)
        .unwrap();
    let (config, bearer) = (
        Arc::new(config),
        format!("authorization: bearer {}", text("token").to_lowercase()),
    );
    let report = Report {
        version: VERSION,
        process: 7,
        sequence: 1,
        full: true,
        pod_uid: pod_uid.to_owned(),
        node: "node1".into(),
        document: "d1".into(),
        ..Report::default()
    };
    let body = serde_json::to_string(&report).unwrap();
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            let Ok((socket, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            socket.set_nonblocking(false).unwrap();
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(rustls::StreamOwned::new(connection, socket));
            let mut request = Vec::new();
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                request.push(std::mem::take(&mut line).trim().to_lowercase());
            }
            let answer = if request.contains(&bearer) {
                format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            } else {
                "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned()
            };
            let stream = stream.get_mut();
            _ = stream.write_all(answer.as_bytes());
            stream.conn.send_close_notify();
            _ = stream.flush();
        }
    });
    Agent(stop)
}
