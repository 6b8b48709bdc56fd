//! What is wanted in, every object of ours out. Pure: no clock, no client, no chance.
//!
//! One file per object. Two things come later, since they are known only after a write: the pointers, which
//! name `resourceVersion`s of Secrets, are made by [`pointer::Pointers`].

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;

use super::certificates::Certificates;
use super::desired::Shares;
use crate::cluster::names::Owner;
use crate::settings::Settings;
use document::Package;
use pointer::Pointers;

pub mod authority;
pub mod credentials;
pub mod daemon_set;
pub mod document;
pub mod document_parts;
pub mod pod_logs;
pub mod pointer;
pub mod service_account;
pub mod status_secret;

/// What [`render`] is made from, beside the document.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Everything that is resolved.
    pub shares: &'a Shares,
    /// Nodes where an agent should run.
    pub nodes: &'a BTreeSet<String>,
    /// What the installation decides.
    pub settings: &'a Settings,
    /// Owner of every object.
    pub owner: &'a Owner,
    /// The Lease's transitions.
    pub transitions: i32,
    /// Certificates and token of the agents' `/status` port.
    pub certificates: &'a Certificates,
}

/// Every object of ours. `apply` takes it apart without `..`, so that none can be forgotten.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Identity of the agents.
    pub service_account: ServiceAccount,
    /// The authority's certificate and key, for the operator alone.
    pub authority: Secret,
    /// What agents serve `/status` with.
    pub status_secret: Secret,
    /// Credentials of the document's tenants, in shards; only those that are not empty.
    pub credentials: Vec<Secret>,
    /// The document's parts.
    pub documents: Vec<ConfigMap>,
    /// One pointer per node, once the credentials' versions are known.
    pub pointers: Pointers,
    /// What lets agents read through the API, one in each namespace where they do.
    pub role_bindings: Vec<RoleBinding>,
    /// The agents.
    pub daemon_set: DaemonSet,
}

/// Renders every object.
pub fn render(package: &Package, inputs: Inputs<'_>) -> Rendered {
    let Inputs {
        shares,
        nodes,
        settings,
        owner,
        transitions,
        certificates,
    } = inputs;
    let namespace = settings.namespace.as_str();
    Rendered {
        service_account: service_account::render(settings, owner),
        authority: authority::render(certificates, namespace, owner),
        status_secret: status_secret::render(certificates, namespace, owner),
        credentials: credentials::render(package, shares, namespace, owner),
        documents: document_parts::render(package, namespace, owner),
        pointers: Pointers {
            namespace: namespace.to_owned(),
            owner: owner.clone(),
            nodes: nodes.clone(),
            transitions,
            document: package.reference(),
            deny: pointer::deny(shares),
            needed: package.secrets.clone(),
        },
        role_bindings: pod_logs::render(shares, namespace, owner),
        daemon_set: daemon_set::render(settings, owner),
    }
}

#[cfg(test)]
mod tests;
