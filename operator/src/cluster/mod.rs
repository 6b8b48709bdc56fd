//! What every writer of objects needs: an object in, one request or none out.
//!
//! - [`events`]: a change of `Ready` in, one event out

pub mod events;
