//! The binary without a cluster, from files to a Loki double: every line arrives once, over a restart too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "shared with tests that use more of it")]
#[path = "support/double.rs"]
mod double;
#[allow(dead_code, reason = "shared with tests that use more of it")]
#[path = "support/proto.rs"]
mod proto;

use double::{Double, Reply};

const LONG: Duration = Duration::from_secs(20);

struct Host {
    dir: tempfile::TempDir,
    listen: SocketAddr,
    loki: Double,
    written: usize,
}

impl Host {
    fn new(loki: Double) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["state", "credentials"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let listen = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let host = Self {
            dir,
            listen,
            loki,
            written: 0,
        };
        fs::create_dir_all(host.log().parent().unwrap()).unwrap();
        host.document("workshop");
        host.token("one");
        host
    }

    fn log(&self) -> PathBuf {
        self.dir
            .path()
            .join("pods/shop_web-0_5f3c0a5e-0000-0000-0000-000000000001/app/0.log")
    }

    fn document(&self, cluster: &str) {
        let document = serde_json::json!({"version": 1,
            "pipelines": [{"name": "default/web", "uid": "web", "tenants": ["default/ops"],
                "pods": {"namespaces": [{"name": "shop"}]}, "labels": {"static": {"cluster": cluster}}}],
            "tenants": [{"name": "default/ops", "uid": "ops", "tenantId": "ops", "auth": "Bearer",
                "pushUrl": format!("http://{}/loki/api/v1/push", self.loki.address),
                "delivery": {"batchWaitMs": 100}}]});
        fs::write(self.dir.path().join("document.json"), document.to_string()).unwrap();
    }

    fn token(&self, token: &str) {
        let credentials = serde_json::json!({"bearer": token});
        fs::write(self.dir.path().join("credentials/ops"), credentials.to_string()).unwrap();
    }

    fn write(&mut self, lines: usize) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        for _ in 0..lines {
            let (second, line) = (self.written % 60, self.written);
            writeln!(
                file,
                "2026-11-20T10:00:{second:02}.{line:09}Z stdout F line {line:05}"
            )
            .unwrap();
            self.written += 1;
        }
    }

    fn start(&self) -> Child {
        let path = |name: &str| self.dir.path().join(name);
        Command::new(env!("CARGO_BIN_EXE_sluice-agent"))
            .arg("--document")
            .arg(path("document.json"))
            .arg("--log-root")
            .arg(path("pods"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--credentials-dir")
            .arg(path("credentials"))
            .args([
                "--node-name",
                "host-1",
                "--allow-local-addresses",
                "--drain-timeout",
                "5s",
                "--listen",
            ])
            .arg(self.listen.to_string())
            .env_remove("RUST_LOG")
            .spawn()
            .unwrap()
    }

    async fn arrived(&self) {
        self.until("every line", || self.loki.lines().len() >= self.written)
            .await;
        let expected: Vec<_> = (0..self.written).map(|line| format!("line {line:05}")).collect();
        assert_eq!(self.loki.lines(), expected);
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(
                begun.elapsed() < LONG,
                "{what}: {} of {}",
                self.loki.lines().len(),
                self.written
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let begun = Instant::now();
        loop {
            match client.get(format!("http://{}{path}", self.listen)).send().await {
                Ok(answer) if answer.status().is_success() => return answer.text().await.unwrap(),
                answer => assert!(begun.elapsed() < LONG, "{answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill")
            .args([name, &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
}

async fn end(child: &mut Child) {
    signal(child, "-TERM");
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(0));
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "SIGTERM");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends the process with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn every_line_arrives_once_over_a_restart() {
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut host = Host::new(Double::scripted([]).await);
    host.write(500);
    let mut agent = Running(host.start());
    host.arrived().await;
    let asked = host.loki.asked();
    assert_eq!(asked[0].path, "/loki/api/v1/push");
    assert_eq!(asked[0].headers["x-scope-orgid"], "ops");
    assert_eq!(asked[0].headers["authorization"], "Bearer one");
    let labels = host
        .loki
        .memory(|memory| memory.stored.keys().cloned().collect::<Vec<_>>());
    assert_eq!(labels.len(), 1);
    for label in [
        r#"namespace="shop""#,
        r#"container="app""#,
        r#"node_name="host-1""#,
        r#"cluster="workshop""#,
    ] {
        assert!(labels[0].contains(label), "{labels:?}");
    }

    assert_eq!(host.get("/healthz").await, "ok\n");
    assert_eq!(host.get("/readyz").await, "ok\n");
    let delivered = r#"sluice_agent_delivered_lines_total{pipeline="default/web",tenant="default/ops"} 500"#;
    let begun = Instant::now();
    while !host.get("/metrics").await.contains(delivered) {
        assert!(begun.elapsed() < LONG, "{}", host.get("/metrics").await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    host.write(100);
    host.arrived().await;
    end(&mut agent.0).await;
    let requests = host.loki.asked().len();
    let mut agent = Running(host.start());
    host.get("/readyz").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(host.loki.asked().len(), requests, "a restart sends nothing again");
    host.write(1);
    host.arrived().await;
    end(&mut agent.0).await;
}

#[tokio::test]
async fn a_changed_document_and_credential_act_without_a_restart() {
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let wants_two = |asked: &double::Asked| match asked.headers["authorization"].as_str() {
        "Bearer two" => Reply::Stored,
        _ => Reply::Status(401, "", String::new()),
    };
    let mut host = Host::new(Double::deciding(wants_two).await);
    host.write(50);
    let mut agent = Running(host.start());
    host.until("a refusal", || !host.loki.asked().is_empty()).await;
    let metrics = host.get("/metrics").await;
    assert!(
        metrics.contains(r#"sluice_agent_tenant_problem{tenant="default/ops",reason="Unauthorized"} 1"#),
        "{metrics}"
    );
    host.token("two");
    signal(&agent.0, "-HUP");
    host.arrived().await;

    host.document("elsewhere");
    signal(&agent.0, "-HUP");
    tokio::time::sleep(Duration::from_secs(1)).await;
    host.write(50);
    host.arrived().await;
    let labels = host
        .loki
        .memory(|memory| memory.stored.keys().cloned().collect::<Vec<_>>());
    assert!(
        labels
            .iter()
            .any(|labels| labels.contains(r#"cluster="elsewhere""#)),
        "{labels:?}"
    );
    end(&mut agent.0).await;
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut count = 0;
    let away_after_one = move |_: &double::Asked| {
        count += 1;
        if (2..6).contains(&count) {
            Reply::Status(503, "", String::new())
        } else {
            Reply::Stored
        }
    };
    let mut host = Host::new(Double::deciding(away_after_one).await);
    host.write(200);
    let mut agent = Running(host.start());
    host.until("a first request", || !host.loki.lines().is_empty())
        .await;
    host.write(200);
    host.until("a refusal", || host.loki.asked().len() >= 2).await;
    agent.0.kill().unwrap();
    agent.0.wait().unwrap();
    host.write(200);
    let mut agent = Running(host.start());
    host.until("every line", || {
        let mut lines = host.loki.lines();
        lines.dedup();
        lines.len() == host.written
    })
    .await;
    end(&mut agent.0).await;
}
