//! The single writer of what all objects share: everything resolved in, objects applied and agents' answers out.
//!
//! `render → apply → observe`. Documents, pointers, credentials and the `DaemonSet` serve many objects, so one
//! task makes them from [`Desired`], and publishes what the nodes did with them as [`Observed`].

pub mod desired;
pub mod observed;
