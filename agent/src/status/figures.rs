//! What the worker knows about its progress: plain numbers, published twice a second when they changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_engine::key::Key;
use sluice_engine::report::{Gap, Warning};

use crate::discover::names::ContainerKey;

/// A snapshot of the worker's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Which counters the rejected, lost and gap ones are: they are kept across restarts.
    pub epoch: u64,
    /// Hash of the document that the worker runs; empty before the first.
    pub document: String,
    /// Pipelines that the worker runs, by name.
    pub pipelines: BTreeMap<Key, PipelineFigures>,
    /// What is wrong with the agent itself.
    pub warnings: Vec<Warning>,
    /// Files open.
    pub open_files: u64,
    /// Bytes on disk of copies of files that vanished before they were acknowledged.
    pub spilled_bytes: u64,
    /// Bytes held by the segment pool and bodies in flight.
    pub pool_bytes: u64,
    /// Bytes read from files.
    pub read_bytes: u64,
    /// Lines that were not in the runtime's format; sent as they are.
    pub malformed_lines: u64,
    /// Lines older than the namespace they are in; not sent.
    pub too_old_lines: u64,
    /// Times that a checkpoint or file had to be set aside or begun anew, by reason.
    pub resets: BTreeMap<&'static str, u64>,
    /// Containers that are read through the API and delivered to somebody, and up to where the journal has them;
    /// `None` before the first acknowledgement.
    pub spooled: BTreeMap<Arc<ContainerKey>, Option<SpoolPlace>>,
}

/// A place in a container's spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolPlace {
    /// Name of the file; everything in older ones is delivered.
    pub name: String,
    /// Bytes of it that are delivered.
    pub offset: u64,
}

/// One pipeline's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineFigures {
    /// UID of the pipeline object.
    pub uid: String,
    /// Content hash that the worker runs.
    pub hash: String,
    /// Its generation.
    pub generation: i64,
    /// Containers followed.
    pub containers: u32,
    /// Why some of them cannot be read at present.
    pub unread: Option<String>,
    /// By tenant.
    pub outputs: BTreeMap<Key, OutputFigures>,
    /// What its author should know.
    pub warnings: Vec<Warning>,
}

/// What one pipeline sends to one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputFigures {
    /// Timestamp in seconds since 1970 of the oldest line that is read or waiting in a file and not
    /// acknowledged; `None` when there is none.
    pub oldest_unacknowledged: Option<i64>,
    /// Lines acknowledged since the process began.
    pub delivered_lines: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Lines refused for good since the counters' beginning, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Lines read and given up since the counters' beginning, and their bytes, by reason.
    pub lost: BTreeMap<String, (u64, u64)>,
    /// How often lines vanished unread since the counters' beginning.
    pub gap_count: u64,
    /// The newest of these, the newest first, at most [`sluice_engine::report::GAPS`].
    pub gaps: Vec<Gap>,
}
