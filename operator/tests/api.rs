//! The object side against a real kube-apiserver and etcd, which this binary starts and stops.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "a test may panic; tables are long"
)]

mod rig;

use tokio::sync::OnceCell;

/// A client of one server for all tests, as its administrator.
async fn client() -> kube::Client {
    static SERVER: OnceCell<rig::Server> = OnceCell::const_new();
    SERVER.get_or_init(rig::Server::start).await.client("admin")
}

#[path = "api/cel.rs"]
mod cel;

#[path = "api/loki.rs"]
mod loki;

#[path = "api/controllers.rs"]
mod controllers;

#[path = "api/trouble.rs"]
mod trouble;
