//! Requests in, a Loki double's answers, acknowledgements out: every row of Loki's status codes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::{Entry, PushRequest, Stream, Timestamp};
use prost::Message as _;
use sluice_agent::batch::{Batch, Outcome};
use sluice_agent::config::TenantInForce;
use sluice_agent::push::{PushSettings, Pushers, Timing};
use sluice_engine::credentials::{Basic, Credentials};
use sluice_engine::document::{Auth, Delivery, Header, Limits, Tenant, Tls};
use sluice_engine::key::Key;
use sluice_engine::report::ProblemReason;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

#[path = "support/double.rs"]
mod double;
#[path = "support/proto.rs"]
mod proto;
#[path = "support/whole.rs"]
mod whole;

use double::{Double, Reply};

const TIMING: Timing = Timing {
    first: Duration::from_millis(10),
    most: Duration::from_millis(40),
    refused: (Duration::from_millis(20), Duration::from_millis(40)),
    blocked: (Duration::from_millis(20), Duration::from_millis(40)),
};
const LONG: Duration = Duration::from_secs(20);

/// Pushers with short waits, and their outcomes.
struct Rig {
    pushers: Pushers,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    next: u64,
}

impl Rig {
    fn new(timing: Timing, allow_local_addresses: bool) -> Self {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let settings = PushSettings { allow_local_addresses, ..PushSettings::default() };
        let pushers = Pushers::with_timing(Handle::current(), settings, timing, move |outcome| {
            let _gone = sender.send(outcome);
        });
        Self { pushers, outcomes, next: 1 }
    }

    fn send(&mut self, key: &Key, streams: &[(&str, &[&str])]) -> Vec<u8> {
        let batch = batch(self.next, key, streams);
        self.next += 1;
        let body = batch.body.clone();
        self.pushers.send(batch);
        body
    }

    async fn outcome(&mut self) -> Outcome {
        tokio::time::timeout(LONG, self.outcomes.recv()).await.expect("an outcome").unwrap()
    }

    async fn problem(&self, key: &Key, reason: ProblemReason) -> String {
        let mut changed = self.pushers.changed();
        let wait = async {
            loop {
                if let Some(problem) = self.pushers.problems().get(key).filter(|found| found.reason == reason) {
                    return problem.message.clone();
                }
                changed.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(LONG, wait).await;
        found.unwrap_or_else(|_| panic!("no {reason:?} but {:?}", self.pushers.problems()))
    }
}

fn key(name: &str) -> Key {
    Key::new("logging", name)
}

fn in_force(name: &str, url: String) -> TenantInForce {
    let mut tenant = Tenant {
        name: key(name),
        uid: "u".to_owned(),
        generation: 1,
        hash: String::new(),
        push_url: url,
        tenant_id: Some("ops".to_owned()),
        auth: Auth::None,
        tls: Tls::default(),
        headers: Vec::new(),
        limits: Limits::default(),
        delivery: Delivery::default(),
    };
    tenant.seal();
    TenantInForce { tenant: Arc::new(tenant), credentials: None, version: String::new() }
}

fn changed(in_force: &TenantInForce, change: impl FnOnce(&mut Tenant)) -> TenantInForce {
    let mut tenant = (*in_force.tenant).clone();
    change(&mut tenant);
    tenant.seal();
    TenantInForce { tenant: Arc::new(tenant), ..in_force.clone() }
}

fn url(double: &Double) -> String {
    format!("http://{}/loki/api/v1/push", double.address)
}

fn batch(id: u64, key: &Key, streams: &[(&str, &[&str])]) -> Batch {
    let stream = |(labels, lines): &(&str, &[&str])| Stream {
        labels: (*labels).to_owned(),
        entries: lines
            .iter()
            .zip(1..)
            .map(|(line, nanos)| Entry {
                timestamp: Some(Timestamp { seconds: 1_795_197_000, nanos }),
                line: (*line).to_owned(),
                metadata: Vec::new(),
            })
            .collect(),
    };
    let request = PushRequest { streams: streams.iter().map(stream).collect() };
    Batch {
        id,
        tenant: Arc::new(key.clone()),
        body: snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap(),
        streams: u32::try_from(streams.len()).unwrap(),
        lines: u32::try_from(request.lines()).unwrap(),
        bytes: 0,
        feedback: Arc::default(),
    }
}

const A: &str = r#"{app="a"}"#;
const B: &str = r#"{app="b"}"#;
const TOO_OLD: &str = "entry for stream '{app=\"a\"}' has timestamp too old: x, oldest acceptable timestamp is: y\n";
const PER_STREAM: &str = "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec)', user";

fn status(status: u16, body: &str) -> Reply {
    Reply::Status(status, "", body.to_owned())
}

/// Answers before 204, requests in all, lines refused.
type Row = (Vec<Reply>, usize, Vec<(&'static str, u64)>);

#[tokio::test]
async fn every_row_ends_with_every_line_stored_once_or_counted() {
    let html = "<html><h1>Error</h1></html>";
    let grpc = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)";
    let behind = "entry with timestamp x ignored, reason: 'entry too far behind, entry timestamp is: x, oldest acceptable timestamp is: y',\nuser 'ops', total ignored: 1 out of 2 for stream: {app=\"a\"}";
    let rows: Vec<Row> = vec![
        (vec![], 1, vec![]),
        (vec![status(260, "ingestion blocked for user 'ops' until x with status code '260'")], 2, vec![]),
        (vec![status(201, ""), status(200, html)], 3, vec![]),
        (vec![Reply::Status(302, "location: /elsewhere\r\n", String::new())], 2, vec![]),
        (vec![status(400, html), status(400, "")], 3, vec![]),
        (vec![status(400, TOO_OLD)], 3, vec![]), // then each stream alone
        (vec![status(429, PER_STREAM)], 3, vec![]),
        (vec![status(400, TOO_OLD), Reply::StoredBut("a2", 400, TOO_OLD.to_owned())], 3, vec![("greater_than_max_sample_age", 1)]),
        (vec![status(400, "snappy: corrupt"), Reply::StoredBut("a1", 400, behind.to_owned())], 3, vec![("too_far_behind", 1)]),
        (vec![status(401, "no org id"), status(403, html), status(407, "")], 4, vec![]),
        (vec![status(404, html), status(405, "")], 3, vec![]),
        (vec![status(408, ""), status(425, ""), status(499, ""), status(500, html)], 5, vec![]),
        (vec![status(502, html), status(503, ""), status(504, "")], 4, vec![]),
        (vec![Reply::Cut, Reply::Cut], 3, vec![]),
        (vec![status(429, "ingestion rate limit exceeded for user ops (limit: 1000 bytes/sec) while attempting to ingest '4' lines totaling '900' bytes")], 2, vec![]),
        (vec![status(413, html)], 3, vec![]),
        (vec![status(500, grpc)], 3, vec![]),
        (vec![status(422, "error at least one valid stream is required for ingestion")], 1, vec![("", 4)]),
    ];
    for (replies, requests, refused) in rows {
        let context = format!("{replies:?}");
        let double = Double::scripted(replies).await;
        let mut rig = Rig::new(TIMING, true);
        rig.pushers.set_tenant(&in_force("ops", url(&double)));
        let body = rig.send(&key("ops"), &[(A, &["a1", "a2"]), (B, &["b1", "b2"])]);
        let outcome = rig.outcome().await;
        assert_eq!(outcome.id, 1);
        let asked = double.asked();
        assert_eq!(asked.len(), requests, "{context}");
        assert_eq!(asked[0].body, body, "{context}");
        // 422 is the answer to a request without streams: nothing was there to be stored.
        let counted: Vec<(&str, u64)> = refused.iter().copied().filter(|(reason, _)| !reason.is_empty()).collect();
        assert_eq!(outcome.rejected, counted, "{context}");
        let lost: u64 = refused.iter().map(|(_, lines)| lines).sum();
        assert_eq!(double.lines().len() as u64 + lost, 4, "{context}: {:?}", double.lines());
        assert!(rig.pushers.problems().is_empty(), "{context}");
    }
}

#[tokio::test]
async fn retries_send_the_identical_bytes_over_one_connection() {
    let double = Double::scripted([status(503, ""), status(500, "x"), status(401, "no"), status(429, "")]).await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    let body = rig.send(&key("ops"), &[(A, &["a1"]), (B, &["b1"])]);
    rig.outcome().await;
    let asked = double.asked();
    assert_eq!(asked.len(), 5);
    assert!(asked.iter().all(|asked| asked.body == body));
    assert_eq!(double.memory(|memory| memory.connections), 1);
    let figures = &rig.pushers.figures().tenants[&key("ops")];
    assert_eq!(figures.requests, BTreeMap::from([("2xx", 1), ("4xx", 1), ("429", 1), ("5xx", 2)]));
    assert_eq!((figures.retries, figures.sent_bytes), (4, 5 * body.len() as u64));
}

#[tokio::test]
async fn a_slow_answer_is_sent_again_and_retry_after_is_honoured() {
    let double = Double::scripted([
        Reply::Silent(Duration::from_secs(5)),
        Reply::Status(503, "retry-after: 1\r\n", String::new()),
    ])
    .await;
    let mut rig = Rig::new(TIMING, true);
    let tenant = changed(&in_force("ops", url(&double)), |tenant| tenant.delivery.request_timeout_ms = 100);
    rig.pushers.set_tenant(&tenant);
    rig.send(&key("ops"), &[(A, &["a1"])]);
    let begun = Instant::now();
    rig.outcome().await;
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1_050) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(double.lines(), ["a1"]);
}

#[tokio::test]
async fn halves_until_it_fits_and_counts_a_line_that_never_does() {
    let double = Double::deciding(|asked| {
        let poison = asked.request.streams.iter().flat_map(|stream| &stream.entries).any(|entry| entry.line == "huge");
        if asked.request.lines() > 3 || poison { status(413, "<html>") } else { Reply::Stored }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    let lines: Vec<String> = (10..40).map(|n| n.to_string()).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.insert(13, "huge");
    rig.send(&key("ops"), &[(A, &lines), (B, &["50", "51"])]);
    assert_eq!(rig.outcome().await.rejected, [("too_large", 1)]);
    let stored = double.memory(|memory| memory.stored.clone());
    let mut expected = lines.clone();
    expected.retain(|line| *line != "huge");
    assert_eq!(stored[A], expected);
    assert_eq!(stored[B], ["50", "51"]);
    assert!(rig.pushers.figures().tenants[&key("ops")].splits > 4);
}

#[tokio::test]
async fn a_poison_line_is_found_and_the_rest_is_stored() {
    let double = Double::deciding(|asked| {
        let poison = asked.request.streams.iter().flat_map(|stream| &stream.entries).any(|entry| entry.line == "poison");
        if poison { status(400, "proto: illegal wireType 7\n") } else { Reply::Stored }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(A, &["a1", "a2", "poison", "a3"]), (B, &["b1"])]);
    assert_eq!(rig.outcome().await.rejected, [("unparsable", 1)]);
    assert_eq!(double.lines(), ["a1", "a2", "a3", "b1"]);
}

#[tokio::test]
async fn a_request_over_the_burst_is_halved_after_it_was_refused_again_and_again() {
    let double = Double::deciding(|asked| {
        if asked.request.lines() > 2 {
            status(429, "ingestion rate limit exceeded for user ops (limit: 10 bytes/sec) while attempting to ingest '4' lines totaling '11' bytes, reduce")
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(A, &["a1", "a2", "a3", "a4"])]);
    assert!(rig.outcome().await.rejected.is_empty());
    assert_eq!(double.lines(), ["a1", "a2", "a3", "a4"]);
}

#[tokio::test]
async fn rotated_credentials_act_at_once_on_a_held_request() {
    let double = Double::deciding(|asked| {
        let good = asked.headers.get("authorization").is_some_and(|value| value == "Basic b3BzOm5ldw==");
        if good { Reply::Stored } else { status(401, "<html>secret words</html>") }
    })
    .await;
    let hour = Duration::from_hours(1);
    let mut rig = Rig::new(Timing { refused: (hour, hour), ..TIMING }, true);
    let basic = |password: &str| {
        let basic = Basic { username: "ops".to_owned(), password: password.to_owned() };
        Some(Arc::new(Credentials { basic: Some(basic), ..Credentials::default() }))
    };
    let tenant = changed(&in_force("ops", url(&double)), |tenant| tenant.auth = Auth::Basic);
    rig.pushers.set_tenant(&tenant);
    let message = rig.problem(&key("ops"), ProblemReason::CredentialsMissing).await;
    assert!(message.contains("no user name and password"), "{message}");
    rig.send(&key("ops"), &[(A, &["a1"])]);
    rig.pushers.set_tenant(&TenantInForce { credentials: basic("old"), version: "1".to_owned(), ..tenant.clone() });
    let message = rig.problem(&key("ops"), ProblemReason::Unauthorized).await;
    assert!(message.contains("(401)") && message.contains(&double.address.to_string()), "{message}");
    assert!(!message.contains("secret") && !message.contains("old"), "{message}");
    rig.send(&key("ops"), &[(B, &["b1"])]);
    rig.pushers.set_tenant(&TenantInForce { credentials: basic("new"), version: "2".to_owned(), ..tenant });
    rig.outcome().await;
    rig.outcome().await;
    assert_eq!(double.lines(), ["a1", "b1"]);
    assert!(rig.pushers.problems().is_empty());
    assert!(!format!("{:?}", rig.pushers).contains("new"));
}

#[tokio::test]
async fn while_held_one_request_probes() {
    let double = Double::deciding(|_| status(404, "")).await;
    let pause = Duration::from_millis(100);
    let mut rig = Rig::new(Timing { refused: (pause, pause), ..TIMING }, true);
    let tenant = in_force("ops", url(&double));
    rig.pushers.set_tenant(&tenant);
    for _ in 0..4 {
        rig.send(&key("ops"), &[(A, &["a1"])]);
    }
    rig.problem(&key("ops"), ProblemReason::WrongPath).await;
    tokio::time::sleep(Duration::from_millis(550)).await;
    let asked = double.asked().len();
    assert!((5..=10).contains(&asked), "{asked}");
    let good = Double::scripted([]).await;
    rig.pushers.set_tenant(&changed(&tenant, |tenant| tenant.push_url = url(&good)));
    for _ in 0..4 {
        rig.outcome().await;
    }
    assert_eq!(good.lines().len(), 4);
}

#[tokio::test]
async fn one_stalled_tenant_does_not_delay_another() {
    let stalled = Double::deciding(|_| Reply::Silent(LONG)).await;
    let good = Double::scripted([]).await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("stalled", url(&stalled)));
    rig.pushers.set_tenant(&in_force("good", url(&good)));
    for _ in 0..4 {
        rig.send(&key("stalled"), &[(A, &["a1"])]);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        rig.send(&key("good"), &[(A, &["a1"])]);
        let outcome = rig.outcome().await;
        assert_eq!(*outcome.tenant, key("good"));
        assert!(outcome.body.capacity() > 0);
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    // One that is removed ends without an outcome, and nothing of it stays.
    rig.pushers.remove_tenant(&key("stalled"));
    assert!(tokio::time::timeout(Duration::from_millis(50), rig.outcomes.recv()).await.is_err());
    assert!(!rig.pushers.figures().tenants.contains_key(&key("stalled")));
}

#[tokio::test]
async fn a_request_carries_what_loki_wants() {
    let double = Double::scripted([]).await;
    let mut rig = Rig::new(TIMING, true);
    let tenant = changed(&in_force("ops", url(&double)), |tenant| {
        tenant.auth = Auth::Bearer;
        tenant.headers = vec![Header { name: "X-Team".to_owned(), value: "a".to_owned() }];
    });
    let credentials = Some(Arc::new(Credentials { bearer: Some("token".to_owned()), ..Credentials::default() }));
    rig.pushers.send(batch(7, &key("ops"), &[(A, &["a1"])]));
    rig.pushers.set_tenant(&TenantInForce { credentials, ..tenant });
    assert_eq!(rig.outcome().await.id, 7);
    let asked = double.asked().remove(0);
    assert_eq!(asked.path, "/loki/api/v1/push");
    for (name, value) in [
        ("content-type", "application/x-protobuf"),
        ("x-scope-orgid", "ops"),
        ("user-agent", concat!("sluice-agent/", env!("CARGO_PKG_VERSION"))),
        ("authorization", "Bearer token"),
        ("x-team", "a"),
    ] {
        assert_eq!(asked.headers[name], value);
    }
    assert!(!asked.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn addresses_are_judged() {
    let double = Double::scripted([]).await;
    let port = double.address.port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, allow, reason) in [
        (format!("http://127.0.0.1:{port}/p"), false, ProblemReason::AddressNotAllowed),
        (format!("http://[::1]:{port}/p"), false, ProblemReason::AddressNotAllowed),
        (format!("http://localhost:{port}/p"), false, ProblemReason::AddressNotAllowed),
        (format!("http://loki.invalid:{port}/p"), true, ProblemReason::AddressNotFound),
        (format!("http://{closed}/p"), true, ProblemReason::Unreachable),
        (format!("https://127.0.0.1:{port}/p"), true, ProblemReason::TlsFailed),
    ] {
        let mut rig = Rig::new(TIMING, allow);
        let tenant = changed(&in_force("ops", url.clone()), |tenant| tenant.tls.insecure_skip_verify = true);
        rig.pushers.set_tenant(&tenant);
        rig.send(&key("ops"), &[(A, &["a1"])]);
        let message = rig.problem(&key("ops"), reason).await;
        assert!(message.contains(&format!(":{port}")) || message.contains(&closed.to_string()), "{url}: {message}");
    }
    assert!(double.asked().is_empty());
}

#[tokio::test]
async fn tls_is_verified_as_the_tenant_wants_it() {
    let ca = include_str!("support/tls/ca.pem").to_owned();
    let credentials = |client: bool| Credentials {
        ca: Some(ca.clone()),
        client_certificate: client.then(|| include_str!("support/tls/client.pem").to_owned()),
        client_key: client.then(|| include_str!("support/tls/client.key").to_owned()),
        ..Credentials::default()
    };
    let open = Double::with_tls(false).await;
    let closed = Double::with_tls(true).await;
    let named = Some("loki.test".to_owned());
    let tls = |ca: bool, server_name: &Option<String>| Tls { ca, server_name: server_name.clone(), ..Tls::default() };
    let insecure = Tls { insecure_skip_verify: true, ..Tls::default() };
    let with_client = Tls { client_certificate: true, ..tls(true, &named) };
    let rows = [
        (&open, tls(true, &named), credentials(false), None),
        (&open, insecure.clone(), Credentials::default(), None),
        (&closed, with_client.clone(), credentials(true), None),
        (&open, tls(true, &None), credentials(false), Some((ProblemReason::TlsFailed, "is for another name"))),
        (&closed, tls(true, &named), credentials(false), Some((ProblemReason::TlsFailed, "refuses the client certificate"))),
        (&closed, with_client, credentials(false), Some((ProblemReason::CredentialsMissing, "no client certificate"))),
        (&open, tls(true, &Some("127.0.0.1".to_owned())), credentials(false), Some((ProblemReason::TlsFailed, "not a DNS name"))),
    ];
    for (double, tls, credentials, expected) in rows {
        let context = format!("{tls:?}");
        let mut rig = Rig::new(TIMING, true);
        let url = format!("https://localhost:{}/loki/api/v1/push", double.address.port());
        let tenant = changed(&in_force("ops", url), |tenant| tenant.tls = tls);
        rig.pushers.set_tenant(&TenantInForce { credentials: Some(Arc::new(credentials)), ..tenant });
        rig.send(&key("ops"), &[(A, &["a1"])]);
        match expected {
            None => {
                rig.outcome().await;
                let host = double.asked().pop().unwrap().headers["host"].clone();
                assert_eq!(host, format!("localhost:{}", double.address.port()), "{context}");
            }
            Some((reason, words)) => {
                let message = rig.problem(&key("ops"), reason).await;
                assert!(message.contains(words), "{context}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_does_not_hide_behind_one_that_flows() {
    let double = Double::deciding(|asked| {
        let refused = asked.request.streams.iter().any(|stream| stream.labels == B);
        let words = "maximum active stream limit exceeded when trying to create stream {app=\"b\"}, reduce";
        if refused { status(429, words) } else { Reply::Stored }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(B, &["b1"])]);
    let message = rig.problem(&key("ops"), ProblemReason::RateLimited).await;
    assert!(message.contains("(429): maximum active stream limit exceeded"), "{message}");
    for _ in 0..5 {
        rig.send(&key("ops"), &[(A, &["a1"])]);
        rig.outcome().await;
        assert_eq!(rig.pushers.problems().len(), 1);
    }
}
