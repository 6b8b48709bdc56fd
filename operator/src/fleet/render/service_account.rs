//! Settings in, the agents' `ServiceAccount` out; the chart binds its rights.

use k8s_openapi::api::core::v1::ServiceAccount;
use sluice_engine::well_known::AGENT;

use crate::cluster::names::{Owner, metadata};
use crate::settings::Settings;

/// Renders the `ServiceAccount`.
pub fn render(settings: &Settings, owner: &Owner) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(&settings.namespace, AGENT, "agent", owner),
        ..ServiceAccount::default()
    }
}
