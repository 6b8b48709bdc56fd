//! Figures in, `/status`, `/metrics` and probes out.
//!
//! - [`figures`]: what the worker publishes
//! - [`report`]: figures, problems and what is in force in, the answer of `/status` out
//! - [`metrics`]: the same in, `OpenMetrics` out
//! - [`server`]: `/status` with TLS and a token
//! - [`admin`]: `/healthz`, `/readyz`, `/metrics` on the plain port
//! - [`tls`]: certificate, key and token as the operator rotates them
//! - [`listen`]: a port and a router in, answers out; shared by both ports

pub mod admin;
pub mod figures;
pub mod listen;
pub mod metrics;
pub mod report;
pub mod server;
pub mod tls;
