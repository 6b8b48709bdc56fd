//! Which document a node runs, and what must act at once: a small `ConfigMap` per node, watched by its agent.
//!
//! Since every node has its own pointer, a canary is a node whose pointer names a newer document.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// The version of the pointer's format that this build writes and reads.
pub const VERSION: u32 = 1;

/// What the `ConfigMap` `sluice-node-<node>` holds under `pointer.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pointer {
    /// Format version, [`VERSION`].
    pub version: u32,
    /// The Lease's transitions when this was written: an agent refuses a lower number than it has seen, so
    /// that a leader which lost its office cannot turn anything back.
    pub transitions: i32,
    /// The document to run.
    pub document: DocumentRef,
    /// What is withdrawn, whatever the document says; acts at once, no rollback restores it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Denial>,
    /// `resourceVersion` of each credential Secret that the document's tenants need, by the Secret's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, String>,
}

/// Names a document, stored in one or more `ConfigMap`s (see [`crate::well_known::document_name`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRef {
    /// [`crate::document::Document::hash`].
    pub hash: String,
    /// Number of parts that its compressed bytes are cut into, at least 1.
    pub parts: u32,
}

/// Something that may no longer be collected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Denial {
    /// The pipeline concerned.
    pub pipeline: Key,
    /// One namespace of it; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Pointer {
    /// Whether this pointer forbids `pipeline` to read `namespace`.
    pub fn denies(&self, pipeline: &Key, namespace: &str) -> bool {
        self.deny
            .iter()
            .any(|d| d.pipeline == *pipeline && d.namespace.as_deref().is_none_or(|n| n == namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_without_a_namespace_covers_the_whole_pipeline() {
        let web = Key::new("a", "web");
        let mut pointer = Pointer {
            version: VERSION,
            transitions: 1,
            document: DocumentRef {
                hash: "0".into(),
                parts: 1,
            },
            deny: vec![Denial {
                pipeline: web.clone(),
                namespace: Some("x".into()),
            }],
            credentials: BTreeMap::new(),
        };
        assert!(pointer.denies(&web, "x"));
        assert!(!pointer.denies(&web, "y"));
        assert!(!pointer.denies(&Key::new("a", "db"), "x"));
        pointer.deny[0].namespace = None;
        assert!(pointer.denies(&web, "y"));
    }
}
