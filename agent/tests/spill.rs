//! What outlives its file, what does not and is told: a worker over a node's log folder, killed and begun anew.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests"
)]

mod files_rig;
#[path = "support/mounted.rs"]
mod mounted;

mod spill {
    mod disk;
    mod files;
    mod gaps;
}
