//! The status port as the operator's leader meets it: TLS, token, long-poll, rotation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_agent::config::InForce;
use sluice_agent::status::figures::{Figures, PipelineFigures};
use sluice_agent::status::listen;
use sluice_agent::status::report::{Identity, Reporter};
use sluice_agent::status::server::{self, Shared};
use sluice_agent::status::tls::TlsFiles;
use sluice_engine::key::Key;
use sluice_engine::report::Report;

const CERTIFICATE: &str = include_str!("data/tls.crt");
/// Made for these tests, used nowhere else.
const KEY: &str = include_str!("data/tls.key");

struct Port {
    address: SocketAddr,
    shared: Shared,
    dir: tempfile::TempDir,
}

async fn port(with_files: bool) -> Port {
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    if with_files {
        write(&dir, "token-1");
    }
    let shared = Shared::new(Reporter::new(Identity {
        process: 7,
        pod_uid: "pod".into(),
        node: "node".into(),
    }));
    let tls = Arc::new(TlsFiles::new(dir.path().to_owned()));
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = server::router(shared.clone(), Arc::clone(&tls));
    tokio::spawn(listen::serve(listener, Some(tls), router));
    Port { address, shared, dir }
}

fn write(dir: &tempfile::TempDir, token: &str) {
    for (name, content) in [("tls.crt", CERTIFICATE), ("tls.key", KEY), ("token", token)] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
}

impl Port {
    async fn get(&self, query: &str, token: &str) -> reqwest::Result<reqwest::Response> {
        let url = format!("https://sluice-agent:{}/status{query}", self.address.port());
        client(self.address).get(url).bearer_auth(token).send().await
    }

    async fn report(&self, query: &str) -> Report {
        let bytes = self.get(query, "token-1").await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn run(&self, hash: &str) {
        let figures = PipelineFigures {
            hash: hash.to_owned(),
            ..PipelineFigures::default()
        };
        let pipelines = BTreeMap::from([(Key::new("team", "web"), figures)]);
        let figures = Figures {
            document: "d".to_owned(),
            pipelines,
            ..Figures::default()
        };
        self.shared
            .update(|reporter, now| reporter.update(&InForce::default(), &figures, &BTreeMap::new(), now));
    }
}

fn client(address: SocketAddr) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(CERTIFICATE.as_bytes()).unwrap()])
        .resolve("sluice-agent", address)
        .no_proxy()
        .build()
        .unwrap()
}

#[tokio::test]
async fn only_the_token_opens_the_report() {
    let port = port(true).await;
    for wrong in ["", "token-2", "token-11", "token-"] {
        let answer = port.get("", wrong).await.unwrap();
        assert_eq!(answer.status().as_u16(), 401);
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    let report = port.report("").await;
    assert!(report.full);
    assert_eq!(
        (report.process, report.node.as_str(), report.pod_uid.as_str()),
        (7, "node", "pod")
    );
}

#[tokio::test]
async fn a_long_poll_waits_for_a_change_and_returns_it_alone() {
    let port = port(true).await;
    port.run("1");
    let first = port.report("").await;
    assert_eq!(first.pipelines.len(), 1);
    let query = format!("?since={}&process=7", first.sequence);
    let (second, ()) = tokio::join!(port.report(&query), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        port.run("1");
        tokio::time::sleep(Duration::from_millis(300)).await;
        port.run("2");
    });
    assert!(!second.full);
    assert_eq!(second.pipelines[0].hash, "2");
    assert!(second.sequence > first.sequence);
    // Who knows too little, or another process, does not wait.
    let begun = Instant::now();
    assert!(!port.report(&query).await.full);
    assert!(
        port.report(&format!("?since={}&process=8", second.sequence))
            .await
            .full
    );
    assert!(port.report(&format!("?since={}", second.sequence)).await.full);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(
        port.get("?since=x", "token-1").await.unwrap().status().as_u16(),
        400
    );
}

#[tokio::test]
async fn a_rotated_token_is_taken_and_a_broken_file_changes_nothing() {
    let port = port(false).await;
    assert!(
        port.get("", "token-1").await.is_err(),
        "without a certificate nobody is answered"
    );
    write(&port.dir, "token-1\n");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(port.get("", "token-1").await.unwrap().status().as_u16(), 200);
    std::fs::write(port.dir.path().join("tls.key"), "nonsense").unwrap();
    write(&port.dir, "token-22");
    std::fs::write(port.dir.path().join("tls.crt"), "nonsense").unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(port.get("", "token-1").await.unwrap().status().as_u16(), 200);
    write(&port.dir, "token-22");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(port.get("", "token-1").await.unwrap().status().as_u16(), 401);
    assert_eq!(port.get("", "token-22").await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn plain_text_is_not_answered() {
    let port = port(true).await;
    let url = format!("http://127.0.0.1:{}/status", port.address.port());
    let answer = client(port.address).get(url).bearer_auth("token-1").send().await;
    assert!(answer.is_err() || !answer.unwrap().status().is_success());
}

#[tokio::test]
async fn the_unspecified_address_takes_ipv4_too() {
    let listener = listen::bind("[::]:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok());
}
