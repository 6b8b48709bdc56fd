//! etcd and an API server with RBAC and what `config/` installs: what the binaries of these tests share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "no binary uses all of it; a test may panic"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

pub(crate) const NAMESPACE: &str = "sluice-system";

/// etcd and an API server.
pub(crate) struct Server {
    port: u16,
    programs: PathBuf,
    dir: tempfile::TempDir,
    processes: Vec<Child>,
}

/// A program in the newest folder of this name that `make tools` left in its cache.
pub(crate) fn cached(folder: &str, program: &str) -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let cache = std::env::var_os("SLUICE_CACHE").map_or_else(|| home.join(".cache/sluice"), PathBuf::from);
    let mut found: Vec<PathBuf> = std::fs::read_dir(&cache)
        .unwrap_or_else(|error| panic!("{}: {error}: run make tools", cache.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(folder))
        .map(|path| path.join(program))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("no {folder}*/{program} in {}: run make tools", cache.display()))
}

/// The folder with `etcd` and Kubernetes' programs.
fn programs() -> PathBuf {
    cached("kube-", "kube-apiserver").parent().unwrap().to_owned()
}

/// Starts a program that ends with this process, however that ends: its shell waits for the end of its own input.
fn launch(program: &Path, log: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::create(log).unwrap();
    Command::new("sh")
        .args([
            "-c",
            "\"$@\" </dev/null & program=$!; read end; kill -9 $program",
            "sh",
        ])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
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
            // it closes the shell's input
            _ = process.wait();
        }
    }
}

/// Asks until there is an answer, and says how long that took; panics after `seconds`.
pub(crate) async fn eventually<T>(what: &str, seconds: u64, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "not within {seconds} s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
