//! The document, what is denied and the Secrets' versions in, one small `ConfigMap` per node out.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use sluice_engine::pointer::{Denial, DocumentRef, Pointer, VERSION};
use sluice_engine::well_known::{POINTER_KEY, pointer_name};

use crate::cluster::names::{Owner, metadata};
use crate::fleet::desired::Shares;

/// Component label of pointers.
pub const COMPONENT: &str = "pointer";
/// Annotation with the node's name, which a long name's pointer does not show.
pub const NODE_ANNOTATION: &str = "sluice.dev/node";

/// Every node's pointer, but for the versions of the credential Secrets, which are known once these are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// The operator's namespace.
    pub namespace: String,
    /// Owner of the objects.
    pub owner: Owner,
    /// Nodes that get one.
    pub nodes: BTreeSet<String>,
    /// The Lease's transitions.
    pub transitions: i32,
    /// The document that they name.
    pub document: DocumentRef,
    /// What is withdrawn.
    pub deny: Vec<Denial>,
    /// Credential Secrets that the document's tenants need.
    pub needed: BTreeSet<String>,
}

/// What may not be collected, of all pipelines.
pub fn deny(shares: &Shares) -> Vec<Denial> {
    let all: BTreeSet<&Denial> = shares.pipelines.values().flat_map(|share| &share.deny).collect();
    all.into_iter().cloned().collect()
}

impl Pointers {
    /// Renders one node's pointer. `versions` are the `resourceVersion`s of the credential Secrets, `current` is
    /// what the node's pointer says now: one that differs in nothing but older transitions stays as it is, so
    /// that a change of leader touches no agent.
    pub fn render(
        &self,
        node: &str,
        versions: &BTreeMap<String, String>,
        current: Option<&Pointer>,
    ) -> ConfigMap {
        let mut pointer = Pointer {
            version: VERSION,
            transitions: self.transitions,
            document: self.document.clone(),
            deny: self.deny.clone(),
            credentials: self.credentials(versions),
        };
        if let Some(current) = current.filter(|current| current.transitions < self.transitions) {
            let renumbered = Pointer {
                transitions: self.transitions,
                ..current.clone()
            };
            if renumbered == pointer {
                pointer.transitions = current.transitions;
            }
        }
        let json = serde_json::to_string(&pointer).unwrap_or_default();
        let mut metadata = metadata(&self.namespace, pointer_name(node), COMPONENT, &self.owner);
        metadata.annotations = Some(BTreeMap::from([(NODE_ANNOTATION.into(), node.to_owned())]));
        ConfigMap {
            metadata,
            data: Some(BTreeMap::from([(POINTER_KEY.into(), json)])),
            ..ConfigMap::default()
        }
    }

    /// The versions that pointers name.
    pub fn credentials(&self, versions: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        versions
            .iter()
            .filter(|(name, _)| self.needed.contains(*name))
            .map(|(name, version)| (name.clone(), version.clone()))
            .collect()
    }
}

/// What a pointer `ConfigMap` says; `None` when it cannot be read.
pub fn read(config_map: &ConfigMap) -> Option<Pointer> {
    serde_json::from_str(config_map.data.as_ref()?.get(POINTER_KEY)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::render::tests::rendered;

    #[test]
    fn a_change_of_leader_alone_rewrites_nothing() {
        let mut pointers = rendered().pointers;
        let versions = BTreeMap::from([("sluice-credentials-0".to_owned(), "7".to_owned())]);
        let before = pointers.render("node1", &versions, None);
        let current = read(&before);
        pointers.transitions += 5;
        assert_eq!(pointers.render("node1", &versions, current.as_ref()), before);
        pointers.deny.clear();
        let after = pointers.render("node1", &versions, current.as_ref());
        assert_eq!(
            read(&after).map(|pointer| pointer.transitions),
            Some(pointers.transitions)
        );
    }

    #[test]
    fn only_versions_that_are_needed_are_named() {
        let mut pointers = rendered().pointers;
        pointers.needed = BTreeSet::from(["sluice-credentials-a".to_owned()]);
        let versions = ["sluice-credentials-a", "sluice-credentials-b"]
            .map(|name| (name.to_owned(), "1".to_owned()))
            .into();
        assert_eq!(pointers.credentials(&versions).len(), 1);
    }
}
