//! Files that are about to vanish in, synced copies out: what Loki has not acknowledged outlives its files.
//!
//! # Layout
//! - [`record`]: a piece of a file in, a record out, and back; pure
//! - [`store`]: the state folder; copies in the making, and those that are whole

pub mod record;
pub mod store;
