//! Pointer, document and credentials in, what is in force out.
//!
//! - [`merge`]: a document in, what is in force out; what is refused keeps its last good content
//! - [`credentials`]: files and Secrets in, each tenant's credentials out
//! - [`keeper`]: pointers and what was fetched in, what is in force and what to fetch next out
//! - [`fetch`]: names in, the bytes that the API server holds out
//! - [`cache`]: what is in force in, the same after a restart without the API server out
//! - [`cluster`]: the node's pointer watched, all of the above driven by it
//! - [`standalone`]: a document's file in, what is in force out, without a cluster

use std::sync::Arc;

use sluice_engine::credentials::Credentials;
use sluice_engine::document::{Pipeline, Tenant};
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;

pub mod cache;
pub mod cluster;
pub mod credentials;
pub mod fetch;
pub mod keeper;
pub mod merge;
pub mod standalone;

/// What the agent runs: read, checked, and with credentials. Pipelines that were refused stand here with
/// their last good content.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// Hash of the document this comes from; empty before the first.
    pub document: String,
    /// Pipelines, each with all its tenants present in `tenants`.
    pub pipelines: Vec<Arc<Pipeline>>,
    /// Tenants.
    pub tenants: Vec<TenantInForce>,
    /// What is withdrawn, whatever the document says.
    pub deny: Vec<Denial>,
    /// Pipelines whose newest content was refused, and why.
    pub refused: Vec<(Key, String)>,
}

/// A tenant with its credentials.
#[derive(Clone, Debug)]
pub struct TenantInForce {
    /// The document's entry.
    pub tenant: Arc<Tenant>,
    /// Its credentials; `None` when the entry wants some and the node has none.
    pub credentials: Option<Arc<Credentials>>,
    /// `resourceVersion` of the Secret they come from; empty for those read from a file.
    pub version: String,
}
