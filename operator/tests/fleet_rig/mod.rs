//! What a fleet is made of: shares, and an agent that speaks.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sluice_engine::report::{Report, VERSION};
use sluice_operator::fleet::desired::{PipelineShare, TenantShare};

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
