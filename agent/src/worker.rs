//! The thread that runs discover to batch and owns all their state: commands in, requests and figures out.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::Outcome;
use crate::config::InForce;
use crate::metadata::PodChange;

/// What the rest of the agent tells the worker.
#[derive(Debug)]
pub enum Command {
    /// Run this from now on.
    Config(Arc<InForce>),
    /// A pod of this node changed.
    Pod(PodChange),
    /// A request ended.
    Outcome(Outcome),
    /// Stop reading, send what is read, wait this long for acknowledgements, write positions, end.
    Drain(Duration),
}
