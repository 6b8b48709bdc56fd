//! `CLUSTER` (test, unless set) in; that cluster's API, machines and processes out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The names of the cluster's nodes.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// A running cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Its API, as its administrator.
    pub client: kube::Client,
    environment: BTreeMap<String, String>,
}

impl Cluster {
    /// The cluster that `e2e/cluster/cluster env` describes; it has to run already (`make cluster-up`).
    pub async fn connect() -> Self {
        // A second installation of the same provider is refused, and changes nothing.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let environment = environment().await;
        let path = &environment["KUBECONFIG"];
        let kubeconfig = Kubeconfig::read_from(path)
            .unwrap_or_else(|error| panic!("no cluster: {error}; start it with `make cluster-up`"));
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the cluster's own kubeconfig is complete");
        let client = kube::Client::try_from(config).expect("a client for the cluster");
        Self { client, environment }
    }

    /// A variable of `cluster env`.
    pub fn variable(&self, name: &str) -> &str {
        self.environment
            .get(name)
            .unwrap_or_else(|| panic!("`cluster env` does not export {name}"))
    }

    /// A node's own folder for `path`: where this host sees, say, the node's `/var/log/pods`.
    pub fn folder(&self, node: &str, path: &str) -> PathBuf {
        Path::new(self.variable(&format!("SLUICE_{}_ROOT", node.to_uppercase())))
            .join(path.trim_start_matches('/'))
    }

    /// Runs a command on a node, in its network, mounts and processes; its output, whatever its exit code.
    pub async fn on_node(&self, node: &str, command: &[&str]) -> String {
        let script = self.variable("SLUICE_CLUSTER");
        let arguments = [&["exec-node", node], command].concat();
        self.try_run(script, &arguments, "")
            .await
            .unwrap_or_else(|output| output)
    }

    /// Stops a component of the cluster, such as `apiserver`, with SIGKILL.
    pub async fn stop(&self, component: &str) {
        self.run(self.variable("SLUICE_CLUSTER"), &["stop", component])
            .await;
    }

    /// Starts a component of the cluster again and waits until it serves.
    pub async fn start(&self, component: &str) {
        self.run(self.variable("SLUICE_CLUSTER"), &["start", component])
            .await;
    }

    /// Runs a program of the cluster's `PATH` (kubectl, helm, …); its output. A failure ends the test.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.run_with(program, arguments, "").await
    }

    /// As [`Cluster::run`], with standard input.
    pub async fn run_with(&self, program: &str, arguments: &[&str], input: &str) -> String {
        self.try_run(program, arguments, input)
            .await
            .unwrap_or_else(|output| panic!("{program} {}: failed:\n{output}", arguments.join(" ")))
    }

    /// Runs a program: `Ok` with its output, or `Err` with all it said when it failed.
    pub async fn try_run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new("/usr/bin/env")
            .arg("--")
            .arg(program)
            .args(arguments)
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("/usr/bin/env starts");
        let mut stdin = child.stdin.take().expect("a pipe was asked for");
        // A program that does not read its input closes it; what it says then tells more than the broken pipe.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
        let output = child.wait_with_output().await.expect("a child can be waited for");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}

/// The workspace's root, from where `charts/` and `config/` are reached.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn environment() -> BTreeMap<String, String> {
    let script = workspace().join("e2e/cluster/cluster");
    let output = Command::new("bash")
        .args(["-c", "set -e; exports=$(\"$0\" env); eval \"$exports\"; env -0"])
        .arg(&script)
        .output()
        .await
        .expect("bash starts");
    assert!(
        output.status.success(),
        "{} env: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
