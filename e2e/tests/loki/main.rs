//! A real Loki with small limits, and two senders of the same lines: one as agents are, which loses lines behind 204s, and
//! the agent, which loses none.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use tokio::sync::RwLock;

mod agent;
mod gateway;
mod limits;
mod lines;
mod naive;
mod server;
mod shared;
mod twice;

/// Read by those who share the machine, written by who measures how long something takes.
static MACHINE: RwLock<()> = RwLock::const_new(());
