//! Requests as a batcher would make them in, pushers with short waits and their outcomes out.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sluice_agent::batch::{Batch, Outcome};
use sluice_agent::config::TenantInForce;
use sluice_agent::push::{PushSettings, Pushers, Timing};
use sluice_engine::document::{Auth, Delivery, Limits, Tenant, Tls};
use sluice_engine::key::Key;
use sluice_engine::report::ProblemReason;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::double::{Double, Reply};
use super::proto::{Entry, PushRequest, Stream, Timestamp};

pub(crate) const TIMING: Timing = Timing {
    first: Duration::from_millis(10),
    most: Duration::from_millis(40),
    refused: (Duration::from_millis(20), Duration::from_millis(40)),
    blocked: (Duration::from_millis(20), Duration::from_millis(40)),
};
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Pushers with short waits, and their outcomes.
pub(crate) struct Rig {
    pub(crate) pushers: Pushers,
    pub(crate) outcomes: mpsc::UnboundedReceiver<Outcome>,
    pub(crate) next: u64,
}

impl Rig {
    pub(crate) fn new(timing: Timing, allow_local_addresses: bool) -> Self {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let settings = PushSettings {
            allow_local_addresses,
            ..PushSettings::default()
        };
        let pushers = Pushers::with_timing(Handle::current(), settings, timing, move |outcome| {
            let _gone = sender.send(outcome);
        });
        Self {
            pushers,
            outcomes,
            next: 1,
        }
    }

    pub(crate) fn send(&mut self, key: &Key, streams: &[(&str, &[&str])]) -> Vec<u8> {
        let batch = batch(self.next, key, streams);
        self.next += 1;
        let body = batch.body.clone();
        self.pushers.send(batch);
        body
    }

    pub(crate) async fn outcome(&mut self) -> Outcome {
        tokio::time::timeout(LONG, self.outcomes.recv())
            .await
            .expect("an outcome")
            .unwrap()
    }

    pub(crate) async fn problem(&self, key: &Key, reason: ProblemReason) -> String {
        let mut changed = self.pushers.changed();
        let wait = async {
            loop {
                if let Some(problem) = self
                    .pushers
                    .problems()
                    .get(key)
                    .filter(|found| found.reason == reason)
                {
                    return problem.message.clone();
                }
                changed.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(LONG, wait).await;
        found.unwrap_or_else(|_| panic!("no {reason:?} but {:?}", self.pushers.problems()))
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("logging", name)
}

pub(crate) fn in_force(name: &str, url: String) -> TenantInForce {
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
    TenantInForce {
        tenant: Arc::new(tenant),
        credentials: None,
        version: String::new(),
    }
}

pub(crate) fn changed(in_force: &TenantInForce, change: impl FnOnce(&mut Tenant)) -> TenantInForce {
    let mut tenant = (*in_force.tenant).clone();
    change(&mut tenant);
    tenant.seal();
    TenantInForce {
        tenant: Arc::new(tenant),
        ..in_force.clone()
    }
}

pub(crate) fn url(double: &Double) -> String {
    format!("http://{}/loki/api/v1/push", double.address)
}

pub(crate) fn batch(id: u64, key: &Key, streams: &[(&str, &[&str])]) -> Batch {
    let stream = |(labels, lines): &(&str, &[&str])| Stream {
        labels: (*labels).to_owned(),
        entries: lines
            .iter()
            .zip(1..)
            .map(|(line, nanos)| Entry {
                timestamp: Some(Timestamp {
                    seconds: 1_795_197_000,
                    nanos,
                }),
                line: (*line).to_owned(),
                metadata: Vec::new(),
            })
            .collect(),
    };
    let request = PushRequest {
        streams: streams.iter().map(stream).collect(),
    };
    Batch {
        id,
        tenant: Arc::new(key.clone()),
        body: snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap(),
        streams: u32::try_from(streams.len()).unwrap(),
        lines: u32::try_from(request.lines()).unwrap(),
        bytes: 0,
        feedback: Arc::default(),
    }
}

pub(crate) const A: &str = r#"{app="a"}"#;
pub(crate) const B: &str = r#"{app="b"}"#;

pub(crate) fn status(status: u16, body: &str) -> Reply {
    Reply::Status(status, "", body.to_owned())
}
