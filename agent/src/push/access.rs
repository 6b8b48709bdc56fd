//! A tenant as it is in force in, the client that reaches it or what is wrong out.

use std::sync::Arc;

use sluice_engine::credentials::Credentials;
use sluice_engine::document::Tenant as Document;
use sluice_engine::report::Problem;

use super::PushSettings;
use super::client::Client;
use crate::config::TenantInForce;

/// How the tenant is reached.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// Not set yet.
    Unknown,
    /// By this client, made of this.
    Ready(Arc<Client>, Made),
    /// Not at all, since this is wrong.
    Wrong(Problem, Made),
}

/// What a client was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    tenant: Arc<Document>,
    version: String,
    credentials: Option<Arc<Credentials>>,
}

impl Access {
    /// A client for this, or what keeps it from being one.
    pub(super) fn new(tenant: &TenantInForce, settings: &PushSettings) -> Self {
        match Client::new(tenant, settings) {
            Ok(client) => Self::Ready(Arc::new(client), Made::of(tenant)),
            Err(problem) => Self::Wrong(problem, Made::of(tenant)),
        }
    }

    /// Whether this would be made again.
    pub(super) fn is_made_of(&self, tenant: &TenantInForce) -> bool {
        match self {
            Self::Unknown => false,
            Self::Ready(_, made) | Self::Wrong(_, made) => *made == Made::of(tenant),
        }
    }
}

impl Made {
    fn of(tenant: &TenantInForce) -> Self {
        Self {
            tenant: Arc::clone(&tenant.tenant),
            version: tenant.version.clone(),
            credentials: tenant.credentials.clone(),
        }
    }
}
