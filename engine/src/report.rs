//! What an agent answers on `/status`: which content it runs, what it holds back, and why.
//!
//! Figures are stepped (lag) or rarely change (counts of what went wrong), so that a long-poll is quiet
//! while all is well; delivered totals are metrics.

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// The version of the report's format that this build writes and reads.
pub const VERSION: u32 = 1;

/// The steps in which lag is shown, in seconds.
pub const LAG_STEPS: [u32; 6] = [0, 5, 10, 30, 60, 300];

/// The largest of [`LAG_STEPS`] that `seconds` reaches.
pub fn lag_step(seconds: u64) -> u32 {
    LAG_STEPS
        .iter()
        .rev()
        .copied()
        .find(|&step| u64::from(step) <= seconds)
        .unwrap_or(0)
}

/// The answer of `/status?since=<sequence>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Format version, [`VERSION`].
    pub version: u32,
    /// The process that answers: a new one begins its sequence anew. Random, chosen at its start.
    pub process: u64,
    /// Grows with every change; the next call passes it as `since`.
    pub sequence: u64,
    /// True when the lists are complete, false when they hold only what changed after `since`.
    pub full: bool,
    /// The agent's pod.
    pub pod_uid: String,
    /// The agent's node.
    pub node: String,
    /// Version of the agent.
    pub agent: String,
    /// Hash of the document that is in force; empty before the first.
    pub document: String,
    /// Pipelines in force or refused; with `full: false` only the changed ones.
    pub pipelines: Vec<PipelineReport>,
    /// Pipelines that are gone since `since`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Key>,
    /// Tenants in force; with `full: false` only the changed ones.
    pub tenants: Vec<TenantReport>,
    /// Tenants that are gone since `since`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_tenants: Vec<Key>,
    /// What is wrong with the agent itself, such as watches that ran out. Always complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// One pipeline on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineReport {
    /// The pipeline.
    pub name: Key,
    /// UID of the pipeline object that is in force.
    pub uid: String,
    /// Content hash in force; empty when none ever was.
    pub hash: String,
    /// Generation in force, for display.
    pub generation: i64,
    /// Why newer content was refused; the content in force stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Containers that are followed.
    pub containers: u32,
    /// Why some of them cannot be read at present, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
    /// One entry per tenant.
    pub outputs: Vec<OutputReport>,
}

/// What a pipeline has not delivered to one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutputReport {
    /// The tenant.
    pub tenant: Key,
    /// Age of the oldest line that Loki has not acknowledged, a value of [`LAG_STEPS`].
    pub lag_seconds: u32,
    /// Lines that Loki refused for good, by reason, since the counters' beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
}

/// Lines refused for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rejected {
    /// Loki's reason, such as `line_too_long`.
    pub reason: String,
    /// How many lines.
    pub lines: u64,
}

/// One tenant as seen from one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantReport {
    /// The tenant.
    pub name: Key,
    /// Content hash in force.
    pub hash: String,
    /// `resourceVersion` of the credential Secret in force; empty for a tenant without.
    #[serde(default)]
    pub credentials: String,
    /// Why lines are held back, absent while they flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Why a tenant's lines are held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The class of trouble.
    pub reason: ProblemReason,
    /// One sentence without any of the server's text but messages of Loki that are recognised.
    pub message: String,
}

/// Classes of trouble with a tenant. The operator shows them as condition reasons of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProblemReason {
    /// The address does not resolve.
    AddressNotFound,
    /// The address resolves to one that is not allowed, such as loopback.
    AddressNotAllowed,
    /// No connection, or it broke, or it timed out.
    Unreachable,
    /// The certificate or the handshake failed.
    TlsFailed,
    /// 401, 403 or 407.
    Unauthorized,
    /// 404 or a redirect: not Loki's push path.
    WrongPath,
    /// 429.
    RateLimited,
    /// 260: the tenant is blocked.
    IngestionBlocked,
    /// 408, 5xx.
    ServerError,
    /// The credential is missing on the node.
    CredentialsMissing,
    /// An answer that no rule covers.
    UnexpectedAnswer,
}

/// Something wrong with the agent itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A stable word, such as `WatchesExhausted`.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_shown_in_steps() {
        assert_eq!(
            [0, 4, 5, 29, 30, 299, 300, 9_000].map(lag_step),
            [0, 0, 5, 10, 30, 60, 300, 300]
        );
    }
}
