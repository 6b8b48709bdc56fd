//! A component's name in, the metadata of an object of ours out: labels and the one cluster-scoped owner.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sluice_engine::well_known::AGENT;

/// Field manager of everything but status.
pub const FIELD_MANAGER: &str = "sluice-operator";
/// Field manager of the status of custom resources.
pub const STATUS_MANAGER: &str = "sluice-status";
/// Label that marks what the operator created.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label that tells kinds of our objects apart.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Label with the name of the program that an object serves.
pub const NAME: &str = "app.kubernetes.io/name";

/// The `ClusterRole` `sluice-agent`: it owns everything that the operator creates, so that removing the chart
/// removes that as well, whichever goes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// UID of the `ClusterRole`.
    pub uid: String,
}

impl Owner {
    /// The owner as a reference. A cluster-scoped owner is legal for any dependent; without
    /// `blockOwnerDeletion` no right on the owner is needed.
    pub fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: "rbac.authorization.k8s.io/v1".into(),
            kind: "ClusterRole".into(),
            name: AGENT.into(),
            uid: self.uid.clone(),
            ..OwnerReference::default()
        }
    }
}

/// Selects what the operator created.
pub fn managed_selector() -> String {
    format!("{MANAGED_BY}={FIELD_MANAGER}")
}

/// The labels of an object of ours. `app.kubernetes.io/instance` is never among them: Argo CD takes what
/// carries it for part of the application, and prunes it.
pub fn labels(component: &str) -> BTreeMap<String, String> {
    [
        (NAME, AGENT),
        ("app.kubernetes.io/part-of", "sluice"),
        (MANAGED_BY, FIELD_MANAGER),
        (COMPONENT, component),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Metadata of an object of ours.
pub fn metadata(namespace: &str, name: impl Into<String>, component: &str, owner: &Owner) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(component)),
        owner_references: Some(vec![owner.reference()]),
        ..ObjectMeta::default()
    }
}
