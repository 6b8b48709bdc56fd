//! What the bench's programs share: shapes and places of log files in, requests and counts of lines out.
//!
//! - `lines` writes log files, at once or at a rate: [`shape`], [`layout`]
//! - `limit` sends them with the least work possible: [`header`], [`request`]
//! - `sink` answers 204, and counts lines where asked: [`count`]
//! - `bench/run` lets the agent and `limit` do the same in turn, and prints the figures

pub mod count;
pub mod header;
pub mod layout;
pub mod request;
pub mod shape;
