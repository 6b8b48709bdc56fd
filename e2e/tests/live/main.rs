//! Sluice as its users have it: installed by its chart on two nodes, judged by what Loki holds and by what its objects say.
//!
//! They share one installation, and each has namespaces and tenants of its own. Those that the Makefile names run beside
//! each other, the rest one after the other (`--test-threads=1`); `uninstall` comes last, by its name.
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "tests: an unexpected value ends one; the steps of a test are one future"
)]

mod admission;
mod apart;
mod api_read;
mod change;
mod chaos;
mod delivery;
mod faults;
mod gateway;
mod hostile;
mod losses;
mod permission;
mod quiet;
mod rotation;
mod static_pods;
mod tenants;
mod uninstall;
