//! Containers that pipelines read through the API in, their lines in the spool out.
//!
//! For clusters that forbid host paths: `GET pods/log` of the node's own pods takes the place of kubelet's files.
//! What comes is written in the runtime's format below the state folder, one folder for each container and
//! pipeline, and the worker reads it as any files: acknowledgement, checkpoint and tenants are the same.
//! A full spool is not read into: the runtime's files hold the rest.
//!
//! - [`wanted`](mod@wanted): pods and what is in force in, the containers that are read out
//! - [`step`]: how a container is and how far it was read in, what to read next out
//! - [`container`]: one container, its requests and what became of them
//! - [`read`](mod@read): one request out, its lines in the spool
//! - [`record`], [`known`]: an answer's bytes in, lines that are new out
//! - [`spool`]: lines in, files out; what is delivered is deleted
//! - [`follower`]: all of it driven, a bounded number of requests at a time
//! - [`figures`]: what it comes to

use std::path::PathBuf;
use std::time::Duration;

pub mod container;
pub mod figures;
pub mod follower;
pub mod known;
pub mod read;
pub mod record;
pub mod spool;
pub mod step;
pub mod wanted;

use spool::Bounds;

/// Where and how much is read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The spool.
    pub root: PathBuf,
    /// UID of the agent's own pod, which is never read.
    pub own_pod_uid: Option<String>,
    /// Requests under way at most.
    pub streams: usize,
    /// How long a request may last while another container waits for one.
    pub turn: Duration,
    /// Bytes that the spool may take.
    pub bounds: Bounds,
}

impl Settings {
    /// What an agent uses: 100 requests, turns of 10 s, 64 MiB for a container and 1 GiB in all.
    pub fn new(root: PathBuf, own_pod_uid: Option<String>) -> Self {
        Self {
            root,
            own_pod_uid,
            streams: 100,
            turn: Duration::from_secs(10),
            bounds: Bounds {
                file: 512 << 10,
                container: 64 << 20,
                total: 1 << 30,
                free: 15,
            },
        }
    }
}
