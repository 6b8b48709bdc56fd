//! The node's pods in, their labels out, and their containers where something is read through the API.
//!
//! - [`convert`]: a pod's metadata in, its facts out; lists and events in, changes out
//! - [`watch`](mod@watch): the watch that feeds it
//! - [`backoff`]: failures in, the time to wait out

use std::collections::BTreeMap;

pub mod backoff;
pub mod convert;
pub mod watch;

/// What the agent knows of a pod, from its metadata alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// The UID that its log folder carries: a static pod's folder has the annotation
    /// `kubernetes.io/config.hash` instead of the API's UID.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the controlling owner.
    pub controller: Option<String>,
}

impl PodFacts {
    /// The name of its log folder. Facts are known by all three parts, since the annotation of static pods is
    /// anybody's to set: a pod that claims another one's UID must not stand in its place.
    pub fn folder(&self) -> String {
        format!("{}_{}_{}", self.namespace, self.name, self.uid)
    }
}

/// One container of a pod, init and ephemeral ones included, as the pod's status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// Name.
    pub name: String,
    /// The number of its newest instance, from 0 on: also that of its log file.
    pub restarts: u32,
    /// What there is of the newest instance's log.
    pub log: Log,
    /// Whether the log of the instance before is there too.
    pub previous: bool,
    /// When the newest instance began, in seconds since 1970.
    pub started_at: Option<i64>,
}

/// What there is of an instance's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Nothing: it has not begun.
    None,
    /// It is written.
    Growing,
    /// Nothing more will be written.
    Ended,
}

/// A change of the node's pods.
#[derive(Clone, Debug)]
pub enum PodChange {
    /// A pod is new or changed.
    Applied(Box<PodFacts>),
    /// The pod with this [folder](PodFacts::folder) is gone; its files may still be there.
    Deleted(String),
    /// The first list is complete: a pod that is not known by now was deleted earlier.
    Synced,
}
