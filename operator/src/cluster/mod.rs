//! What every writer of objects needs: an object in, one request or none out.
//!
//! - [`apply`]: server-side apply, left out when the live object already holds all that is wanted
//! - [`prune`]: deletion of exactly the object that was seen
//! - [`names`]: labels and the owner of what the operator creates
//! - [`events`]: a change of `Ready` in, one event out
//! - [`leader`]: who writes at all; [`lease`]: the decision about it, pure

pub mod apply;
pub mod events;
pub mod leader;
pub mod lease;
pub mod names;
pub mod prune;
