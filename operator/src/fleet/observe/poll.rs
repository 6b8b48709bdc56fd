//! One agent: its long-polls in, its whole report out, or since when it does not answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::report::{PipelineReport, Report, TenantReport, VERSION};
use sluice_engine::well_known::AGENT_STATUS_PORT;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::Told;
use super::access::Access;
use crate::fleet::observed::Agent;
use crate::fleet::reports::Pool;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Answers that come faster than this are not asked for again at once.
const SHORTEST_POLL: Duration = Duration::from_millis(50);
/// A report of a thousand pipelines is below 1 MiB.
const ANSWER_BYTES: usize = 16 << 20;
/// How long reading an answer may take, once it has begun.
const READ: Duration = Duration::from_secs(10);
/// Answers that are read at the same time: a new leader is told everything by all agents at once, and they need
/// not all be in memory before they are shared.
static READERS: Semaphore = Semaphore::const_new(16);

/// What all agents say, each thing once.
#[derive(Debug, Default)]
pub struct Pools {
    /// Of pipelines.
    pub pipelines: Pool<PipelineReport>,
    /// Of tenants.
    pub tenants: Pool<TenantReport>,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The agent's node.
    pub node: String,
    /// UID of its pod: the answer must carry it.
    pub pod_uid: String,
    /// Address of its pod.
    pub address: IpAddr,
}

/// Why an agent gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke, or it timed out, or TLS failed.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// Not 200.
    #[error("it answers with status {0}")]
    Status(u16),
    /// Too long.
    #[error("its answer is longer than {ANSWER_BYTES} bytes")]
    TooLong,
    /// It began and did not end.
    #[error("its answer does not end")]
    Endless,
    /// No report.
    #[error("its answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A version that this build does not know.
    #[error("its answer has version {0}, this operator reads version {VERSION}")]
    Version(u32),
    /// The address belongs to another pod by now.
    #[error("another pod answers")]
    AnotherPod,
}

/// Where an agent stands: the process and sequence that its next answer continues, and all it has said.
#[derive(Debug, Default)]
pub struct Conversation {
    process: u64,
    sequence: u64,
    agent: Agent,
}

impl Conversation {
    /// Takes an answer in; `None` when it cannot follow what was said before and all must be asked for anew.
    pub fn hear(&mut self, report: Report, pools: &Pools) -> Option<Agent> {
        let Report {
            process,
            sequence,
            full,
            epoch,
            document,
            pipelines,
            removed,
            tenants,
            removed_tenants,
            warnings,
            ..
        } = report;
        if !full && process != self.process {
            *self = Self::default();
            return None;
        }
        if full {
            self.agent = Agent::default();
        }
        let agent = &mut self.agent;
        for key in &removed {
            agent.pipelines.remove(key);
        }
        for key in &removed_tenants {
            agent.tenants.remove(key);
        }
        for report in pipelines {
            agent.pipelines.insert(pools.pipelines.share(report));
        }
        for report in tenants {
            agent.tenants.insert(pools.tenants.share(report));
        }
        agent.epoch = epoch;
        agent.document = document;
        agent.warnings = warnings;
        (self.process, self.sequence) = (process, sequence);
        Some(agent.clone())
    }

    fn url(&self, address: IpAddr) -> String {
        let peer = SocketAddr::new(address, AGENT_STATUS_PORT);
        if self.process == 0 {
            format!("https://{peer}/status")
        } else {
            format!(
                "https://{peer}/status?since={}&process={}",
                self.sequence, self.process
            )
        }
    }
}

/// Asks one agent for as long as it is polled; tells what it said, or that it does not answer.
pub async fn poll(
    peer: Peer,
    mut told: watch::Receiver<Told>,
    pools: Arc<Pools>,
    tell: impl Fn(Option<Arc<Agent>>),
) {
    let mut conversation = Conversation::default();
    let mut pause = FIRST_PAUSE;
    loop {
        let access = told.borrow_and_update().access.clone();
        let Some(access) = access else {
            if told.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        match ask(&peer, &access, &mut conversation, &pools).await {
            Ok(said) => {
                pause = FIRST_PAUSE;
                if let Some(agent) = said {
                    tell(Some(Arc::new(agent)));
                }
                tokio::time::sleep(SHORTEST_POLL.saturating_sub(began.elapsed())).await;
            }
            Err(error) => {
                tracing::debug!(node = peer.node, %error, "an agent does not answer");
                conversation = Conversation::default();
                tell(None);
                tokio::time::sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        }
    }
}

/// One long-poll; `None` when nothing changed.
async fn ask(
    peer: &Peer,
    access: &Access,
    conversation: &mut Conversation,
    pools: &Pools,
) -> Result<Option<Agent>, Error> {
    let request = access
        .client
        .get(conversation.url(peer.address))
        .bearer_auth(&access.token);
    let mut response = request.send().await?;
    match response.status().as_u16() {
        200 => {}
        204 | 304 => return Ok(None),
        other => return Err(Error::Status(other)),
    }
    // it is never closed
    let _turn = READERS.acquire().await.ok();
    let read = read(peer, &mut response);
    let report = tokio::time::timeout(READ, read)
        .await
        .map_err(|_| Error::Endless)??;
    Ok(conversation.hear(report, pools))
}

async fn read(peer: &Peer, response: &mut reqwest::Response) -> Result<Report, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(Error::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    let report: Report = serde_json::from_slice(&body)?;
    if report.version != VERSION {
        return Err(Error::Version(report.version));
    }
    if report.pod_uid != peer.pod_uid {
        return Err(Error::AnotherPod);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_engine::key::Key;
    use sluice_engine::report::PipelineReport;

    fn pipeline(name: &str, hash: &str) -> PipelineReport {
        PipelineReport {
            name: Key::new("a", name),
            uid: "1".into(),
            hash: hash.into(),
            generation: 1,
            refused: None,
            containers: 0,
            unread: None,
            outputs: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn report(process: u64, sequence: u64, full: bool, pipelines: Vec<PipelineReport>) -> Report {
        Report {
            version: VERSION,
            process,
            sequence,
            full,
            pipelines,
            ..Report::default()
        }
    }

    #[test]
    fn partial_answers_continue_full_ones() {
        let (mut conversation, pools) = (Conversation::default(), Pools::default());
        conversation
            .hear(
                report(7, 1, true, vec![pipeline("x", "1"), pipeline("y", "1")]),
                &pools,
            )
            .unwrap();
        let mut partial = report(7, 2, false, vec![pipeline("x", "2")]);
        partial.removed = vec![Key::new("a", "y")];
        let agent = conversation.hear(partial, &pools).unwrap();
        assert_eq!(agent.pipelines, [pipeline("x", "2")].into_iter().collect());
        assert_eq!(
            conversation.url("10.0.0.1".parse().unwrap()),
            "https://10.0.0.1:9881/status?since=2&process=7"
        );
    }

    #[test]
    fn a_new_process_is_asked_for_everything() {
        let (mut conversation, pools) = (Conversation::default(), Pools::default());
        conversation
            .hear(report(7, 9, true, vec![pipeline("x", "1")]), &pools)
            .unwrap();
        assert_eq!(conversation.hear(report(8, 1, false, Vec::new()), &pools), None);
        assert_eq!(
            conversation.url("fd00::1".parse().unwrap()),
            "https://[fd00::1]:9881/status"
        );
        let agent = conversation.hear(report(8, 2, true, Vec::new()), &pools).unwrap();
        assert_eq!(agent, Agent::default());
    }
}
