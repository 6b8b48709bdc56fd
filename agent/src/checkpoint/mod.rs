//! Acknowledgements in, durable positions out: an append-only journal in the state folder.

mod fields;
pub(crate) mod folder;
pub mod journal;
pub mod ledger;
pub mod record;
