//! What the live tests stand on: a cluster, a Loki, workloads and an installed Sluice in; exact counts and evidence out.
//!
//! # Layout
//! - [`scene`]: one test's world: namespaces, tenants and pipelines of its own, evidence when it fails, everything deleted at its end
//! - [`cluster`]: the two-node cluster: its API, its machines, its processes
//! - [`objects`]: JSON objects in, applied, read, waited for and deleted
//! - [`sluice`]: the one installation that the tests of a run share
//! - [`workload`]: pods that write numbered lines
//! - [`loki`]: what a tenant holds, exactly
//! - [`tally`]: lines in, what is missing, double or out of order out
//! - [`proxy`]: a server behind a bad network
//! - [`census`]: which objects there are in which version, and who asked for what
//! - [`wait`], [`figures`], [`evidence`]: deadlines that name the last state; figures always shown; what to read after a failure
#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "support of tests: whatever is not as expected ends the test with a sentence; indexing a JSON value yields null"
)]

pub mod census;
pub mod cluster;
pub mod evidence;
pub mod figures;
pub mod loki;
pub mod objects;
pub mod proxy;
pub mod scene;
pub mod sluice;
pub mod tally;
pub mod wait;
pub mod workload;
