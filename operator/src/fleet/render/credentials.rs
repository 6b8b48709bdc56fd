//! The document's tenants and their credentials in, up to 16 Secrets out: one value per tenant, keyed by its UID.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sluice_engine::well_known::credentials_secret;

use super::document::Package;
use crate::cluster::names::{Owner, metadata};
use crate::fleet::desired::Shares;

/// Component label of credential Secrets.
pub const COMPONENT: &str = "credentials";

/// Renders the Secrets that hold anything, sorted by name. A tenant that no pipeline uses is on no node.
pub fn render(package: &Package, shares: &Shares, namespace: &str, owner: &Owner) -> Vec<Secret> {
    let mut by_secret: BTreeMap<String, BTreeMap<String, ByteString>> = BTreeMap::new();
    for (key, share) in &shares.tenants {
        let Some(credentials) = share
            .credentials
            .as_ref()
            .filter(|_| package.tenants.contains_key(key))
        else {
            continue;
        };
        let json = serde_json::to_vec(credentials).unwrap_or_default();
        let shard = by_secret
            .entry(credentials_secret(&share.tenant.uid))
            .or_default();
        shard.insert(share.tenant.uid.clone(), ByteString(json));
    }
    by_secret
        .into_iter()
        .map(|(name, data)| Secret {
            metadata: metadata(namespace, name, COMPONENT, owner),
            data: Some(data),
            ..Secret::default()
        })
        .collect()
}
