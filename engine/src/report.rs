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

/// How many gaps an output's report names, the newest ones.
pub const GAPS: usize = 10;

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
    /// Which counters these are: they are kept across restarts, and begin anew with another number when the
    /// agent's state was lost. 0 where an agent does not say.
    #[serde(default)]
    pub epoch: u64,
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
    /// What its author should know although lines arrive, such as labels that a tenant has no room for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
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
    /// Lines that were read and given up, by reason, since the counters' beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// How often lines vanished unread, since the counters' beginning.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap_count: u64,
    /// The newest of these, the newest first, at most [`GAPS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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

/// Lines read and given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Why, such as `no_space`.
    pub reason: String,
    /// How many lines.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Lines of a container that vanished before they were read: how many is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The container's namespace.
    pub namespace: String,
    /// The container's pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// Why.
    pub cause: GapCause,
    /// Timestamp of the last line before the gap, in nanoseconds since 1970; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
    /// Timestamp of the first line behind the gap; absent when nothing is left of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// When the agent noticed, in seconds since 1970.
    pub noticed: i64,
}

/// Why lines vanished unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GapCause {
    /// kubelet deleted files while the agent was down, or before the agent, which held others open, came to them.
    FilesDeleted,
    /// The pod was deleted while the agent was down, and lines of it were known to wait.
    PodDeleted,
    /// The pod was deleted while the agent was down, or, where it is read through the API, before its end was read
    /// a second time; all that had been seen of it was read before.
    PodDeletedMeanwhile,
    /// Somebody cut or rewrote a file.
    FileRewritten,
    /// The agent's journal was damaged, so what was read before is not known.
    CheckpointDamaged,
    /// A spilled copy could not be read back.
    SpillDamaged,
    /// A file was given up for want of space while lines of it were under way, and the agent ended before they
    /// were acknowledged.
    NoSpace,
    /// A file could not be read, or not to its end, and was left for a younger one.
    FileUnreadable,
    /// The API showed them no more when they were asked for: kubelet had rotated them away, or they were of an
    /// instance before the previous one, or of a pod that was deleted.
    ApiLogsGone,
}

impl GapCause {
    /// All of them, in the order of their codes in the agent's journal.
    pub const ALL: [Self; 9] = [
        Self::FilesDeleted,
        Self::PodDeleted,
        Self::PodDeletedMeanwhile,
        Self::FileRewritten,
        Self::CheckpointDamaged,
        Self::SpillDamaged,
        Self::NoSpace,
        Self::FileUnreadable,
        Self::ApiLogsGone,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FilesDeleted => "FilesDeleted",
            Self::PodDeleted => "PodDeleted",
            Self::PodDeletedMeanwhile => "PodDeletedMeanwhile",
            Self::FileRewritten => "FileRewritten",
            Self::CheckpointDamaged => "CheckpointDamaged",
            Self::SpillDamaged => "SpillDamaged",
            Self::NoSpace => "NoSpace",
            Self::FileUnreadable => "FileUnreadable",
            Self::ApiLogsGone => "ApiLogsGone",
        }
    }
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

/// Something that does not keep lines from arriving, mostly: of the agent itself, or of a pipeline on its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// A stable word, such as `WatchesExhausted`.
    pub reason: String,
    /// One sentence.
    pub message: String,
}

impl Warning {
    /// The agent can list no log of its node: no pipeline's lines arrive from there.
    pub const LOG_ROOT_UNREADABLE: &str = "LogRootUnreadable";
    /// A tenant's limits do not let a pipeline's labels through as they are.
    pub const LABELS_CURTAILED: &str = "LabelsCurtailed";
    /// Log files cannot be read: of the agent how many, of a pipeline which.
    pub const LOG_FILES_NOT_READ: &str = "LogFilesNotRead";
    /// Containers cannot be read through the API: of the agent how many; [`PipelineReport::unread`] says which.
    pub const API_READ_FAILING: &str = "ApiReadFailing";

    /// Whether the pipelines that it concerns tell it themselves, so that the agent's says nothing of the others.
    pub fn is_told_by_pipelines(&self) -> bool {
        [Self::LOG_FILES_NOT_READ, Self::API_READ_FAILING].contains(&self.reason.as_str())
    }
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
