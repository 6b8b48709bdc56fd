//! Sluice's node agent: container log files in, acknowledged Loki pushes out.
//!
//! # Layout
//! The path of a line, each step a module:
//! - [`discover`]: the log root in, containers and their files out
//! - [`tail`]: files in, bytes of whole lines and their positions out, oldest generation first
//! - [`parse`]: bytes in, joined lines out
//! - [`process`]: lines and the labels chosen for their container in, entries out
//! - [`batch`]: entries in, sealed and compressed requests out
//! - [`push`]: requests in, Loki's acknowledgements out
//! - [`checkpoint`]: acknowledgements in, durable positions out
//! - [`spill`]: files that are about to vanish in, synced copies out
//!
//! Where no files can be read:
//! - [`follow`]: the node's pods in, their lines as the API server gives them out, into files for the path above
//!
//! Around it:
//! - [`worker`]: the thread that runs discover to batch and owns all their state
//! - [`config`]: pointer, document and credentials in, what is in force out
//! - [`metadata`]: the node's pods in, their labels out
//! - [`status`]: figures in, `/status`, `/metrics` and probes out
//! - [`cli`], [`run`]: flags in, the parts above wired and running

pub mod batch;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod discover;
pub mod follow;
pub mod metadata;
pub mod parse;
pub mod process;
pub mod push;
pub mod run;
pub mod spill;
pub mod status;
pub mod tail;
pub mod worker;
