//! The thread that runs discover to batch and owns all their state: commands in, requests and figures out.
//!
//! [`Core`] is a state machine that is told the time; [`spawn`] runs it.

mod admit;
mod choices;
mod container;
mod core;
mod cursor;
mod file_end;
mod gaps;
mod look;
mod mailbox;
mod outlet;
mod publish;
mod reading;
mod sink;
mod spilling;
mod thread;
mod tick;
mod trouble;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_engine::cri::Timestamp;
use sluice_engine::report::GapCause;
use tokio::sync::oneshot;

use crate::batch::Outcome;
use crate::config::InForce;
use crate::discover::names::PodFolder;
use crate::metadata::PodChange;

pub use self::core::Core;
pub use mailbox::{Mailbox, Post, mailbox};
pub use sink::{Sink, Taken};
pub use thread::spawn;

/// What the rest of the agent tells the worker.
#[derive(Debug)]
pub enum Command {
    /// Run this from now on.
    Config(Arc<InForce>),
    /// A pod of this node changed.
    Pod(PodChange),
    /// A request ended.
    Outcome(Outcome),
    /// Lines vanished before they could be read through the API.
    Vanished(Vanished),
    /// Stop reading, send what is read, wait this long for acknowledgements, write positions, end.
    Drain(Duration),
}

/// Lines of a container that the API shows no more, and that were not read before.
#[derive(Debug)]
pub struct Vanished {
    /// The pod, and who reads it.
    pub pod: PodFolder,
    /// The container.
    pub container: String,
    /// Why.
    pub cause: GapCause,
    /// The last line before them.
    pub after: Option<Timestamp>,
    /// The first one behind them.
    pub before: Option<Timestamp>,
    /// Answered when it is journaled; dropped when the worker does not know the pipeline.
    pub told: oneshot::Sender<()>,
}

/// Where the worker reads and writes, and who it is.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Where kubelet keeps the pods' log folders; none for an agent without host paths.
    pub log_root: Option<PathBuf>,
    /// Where [`follow`](crate::follow) keeps what it reads through the API; none without a cluster.
    pub follow_root: Option<PathBuf>,
    /// Folders of the container runtime that symbolic links below the log root may lead into.
    pub link_roots: Vec<PathBuf>,
    /// Where the journal is kept.
    pub state_dir: PathBuf,
    /// Value of the label `node_name`.
    pub node_name: String,
    /// UID of the agent's own pod, which is never collected.
    pub own_pod_uid: Option<String>,
    /// How long a container waits for facts of its pod; zero where nobody sends any.
    pub pod_facts_wait: Duration,
}
