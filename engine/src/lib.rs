//! The contract between Sluice's operator and agent, and the pure engine that both run.
//!
//! The operator writes a [`Document`](document::Document) for each node and a small
//! [`Pointer`](pointer::Pointer) to it; the agent reads both and answers with a
//! [`Report`](report::Report). Everything here is a function of data: no I/O, no clock, no kube, no tokio.
//!
//! # Layout
//! - [`document`]: what one node collects, and to which tenants; the operator writes it, the agent reads it
//! - [`validate`]: every rule of a document, all errors at once, each with its path
//! - [`pointer`]: which document a node runs, and what must act at once
//! - [`credentials`]: what a tenant's Secret holds, never part of a document
//! - [`report`]: what an agent answers on `/status`
//! - [`cri`]: container log lines as the runtime writes them
//! - [`labels`]: a pod's facts in, a stream's labels and structured metadata out
//! - [`selector`]: Kubernetes label selectors and container name patterns
//! - [`loki`]: names, quoting and limits as Loki judges them
//! - [`key`]: namespace and name of an object
//! - [`well_known`]: names, ports and paths that both sides rely on

pub mod credentials;
pub mod cri;
pub mod document;
pub mod key;
pub mod labels;
pub mod loki;
pub mod pointer;
pub mod report;
pub mod selector;
pub mod validate;
pub mod well_known;
