//! A document in, the agent's own binary at work out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    process: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

/// The binary beside this test's own.
fn binary() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join("sluice-agent");
    assert!(
        path.exists(),
        "{} is missing: cargo build -p sluice-agent",
        path.display()
    );
    path
}

/// A document for one tenant that gets everything of the namespace `n`.
pub(crate) fn document(url: &str, tenant: &str, limits: &Value) -> Value {
    json!({
        "version": 1,
        "pipelines": [{"name": "n/p", "uid": "p", "tenants": ["n/t"], "pods": {"namespaces": [{"name": "n"}]},
            // Replicas of one app share a stream, as they do where their owner is known.
            "labels": {"drop": ["app"]}}],
        "tenants": [{
            "name": "n/t", "uid": "t", "pushUrl": format!("{url}/loki/api/v1/push"), "tenantId": tenant,
            "limits": limits, "delivery": {"batchWaitMs": 200},
        }],
    })
}

impl Agent {
    /// Starts an agent on the log root `pods` of a folder, with its state beside it.
    pub(crate) fn start(folder: &Path, node: &str, document: &Value) -> Self {
        let file = folder.join("document.json");
        fs::write(&file, serde_json::to_vec(document).unwrap()).unwrap();
        fs::create_dir_all(folder.join("pods")).unwrap();
        fs::create_dir_all(folder.join("credentials")).unwrap();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("agent.log"))
            .unwrap();
        let process = Command::new(binary())
            .arg("--document")
            .arg(file)
            .arg("--log-root")
            .arg(folder.join("pods"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--credentials-dir")
            .arg(folder.join("credentials"))
            .args([
                "--node-name",
                node,
                "--listen",
                "127.0.0.1:0",
                "--allow-local-addresses",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process }
    }
}
