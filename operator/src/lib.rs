//! Sluice's operator: `LogPipeline` and `LokiTenant` in; RBAC, documents, a `DaemonSet` and truthful status out.
//!
//! # Layout
//! - [`api`]: the custom resources, their conditions and reasons
//! - [`tenant`], [`logpipeline`]: one controller per kind: validate, authorize, resolve; and status at the end
//! - [`fleet`]: the single writer of what all objects share: render, apply, observe
//! - [`reviews`]: may this `ServiceAccount` read pod logs in this namespace? asked once, kept, re-asked
//! - [`cluster`]: apply, prune, events, names, leader election
//! - [`cli`], [`run`], [`admin`], [`settings`]: flags in, the parts above wired and running

pub mod admin;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod fleet;
pub mod logpipeline;
pub mod reviews;
pub mod run;
pub mod settings;
pub mod tenant;
