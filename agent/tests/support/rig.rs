//! Requests as a batcher would make them in, pushers with short waits and their outcomes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sluice_agent::batch::{Batch, Fate, Outcome};
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
    /// Of requests under way, how many streams have not ended, and what was refused of the others.
    under_way: BTreeMap<u64, (usize, BTreeMap<&'static str, u64>)>,
}

/// A request of which every stream ended.
pub(crate) struct Ended {
    pub(crate) id: u64,
    pub(crate) tenant: Arc<Key>,
    pub(crate) rejected: Vec<(&'static str, u64)>,
    pub(crate) body: Vec<u8>,
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
            under_way: BTreeMap::new(),
        }
    }

    pub(crate) fn send(&mut self, key: &Key, streams: &[(&str, &[&str])]) -> Vec<u8> {
        let batch = batch(self.next, key, streams);
        self.under_way.insert(self.next, (streams.len(), BTreeMap::new()));
        self.next += 1;
        let body = batch.body.clone();
        self.pushers.send(batch);
        body
    }

    /// The next request that ends as a whole.
    pub(crate) async fn outcome(&mut self) -> Ended {
        loop {
            let outcome = self.next_outcome().await;
            let Fate::Ended(refused) = outcome.fate else {
                continue;
            };
            // One that a test made by itself has one stream.
            let (left, all) = self
                .under_way
                .entry(outcome.id)
                .or_insert_with(|| (1, BTreeMap::new()));
            for (reason, lines) in refused {
                *all.entry(reason).or_default() += lines;
            }
            *left -= outcome.stream.map_or(*left, |_| 1);
            if *left == 0 {
                let (_, refused) = self.under_way.remove(&outcome.id).unwrap_or_default();
                return Ended {
                    id: outcome.id,
                    tenant: outcome.tenant,
                    rejected: refused.into_iter().collect(),
                    body: outcome.body,
                };
            }
        }
    }

    /// The next word about a request or a stream of one.
    pub(crate) async fn next_outcome(&mut self) -> Outcome {
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
