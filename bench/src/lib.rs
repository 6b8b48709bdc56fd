//! What the bench's programs share: shapes and places of log files in, requests and counts of lines out.
//!
//! - `lines` writes log files, at once or at a rate, and rotates them: [`shape`], [`layout`], [`logfile`]
//! - `limit` sends them with the least work possible: [`header`], [`request`]
//! - `sink` answers 204, and counts lines and delays where asked: [`count`], [`delay`]
//! - `snappy` compresses logs of several kinds with `snap` and with the agent's encoder: [`kinds`]
//! - `bench/run` lets the agent and `limit` do the same in turn, and prints the figures

pub mod count;
pub mod delay;
pub mod header;
pub mod kinds;
pub mod layout;
pub mod logfile;
pub mod request;
pub mod shape;
