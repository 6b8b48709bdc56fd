//! What the fleet found on the nodes: the input of every object's status.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_engine::key::Key;
use sluice_engine::report::{PipelineReport, TenantReport, Warning};

use super::reports::Reports;

/// A snapshot, published whenever its meaning changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Nodes where an agent should run, by name.
    pub nodes: BTreeMap<String, Node>,
    /// Hash of the document that every pointer names; empty before the first was written.
    pub document: String,
    /// Content hashes of that document's pipelines.
    pub pipelines: BTreeMap<Key, String>,
    /// Content hashes of that document's tenants.
    pub tenants: BTreeMap<Key, String>,
    /// `resourceVersion`s of the credential Secrets that the pointers name.
    pub credentials: BTreeMap<String, String>,
    /// Why agents cannot run at all, such as pods refused by Pod Security; for every pipeline's status.
    pub obstacle: Option<Obstacle>,
}

/// A node where an agent should run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Not counted as behind: not Ready, being deleted, or joined less than two minutes ago.
    pub excused: bool,
    /// What its agent says; absent while it does not answer. Shared: a snapshot copies no answers.
    pub agent: Option<Arc<Agent>>,
    /// Since when it does not answer, in seconds since 1970; absent while it does.
    pub silent_since: Option<i64>,
}

/// An agent's last complete answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// Which counters its reports hold.
    pub epoch: u64,
    /// Hash of the document in force.
    pub document: String,
    /// By pipeline.
    pub pipelines: Reports<PipelineReport>,
    /// By tenant.
    pub tenants: Reports<TenantReport>,
    /// What is wrong with the agent itself.
    pub warnings: Vec<Warning>,
}

/// Something that keeps agents from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// A condition reason.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}
