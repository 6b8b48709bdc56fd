//! A packed document in, its immutable `ConfigMap`s out, named by content.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use sluice_engine::well_known::{DOCUMENT_KEY, document_name};

use super::document::Package;
use crate::cluster::names::{Owner, metadata};

/// Component label of documents.
pub const COMPONENT: &str = "document";
/// Label with a document's hash, the same on all its parts.
pub const HASH_LABEL: &str = "sluice.dev/document";

/// Renders the parts of a document.
pub fn render(package: &Package, namespace: &str, owner: &Owner) -> Vec<ConfigMap> {
    (0..)
        .zip(&package.parts)
        .map(|(part, bytes)| render_part(package, part, bytes, namespace, owner))
        .collect()
}

fn render_part(package: &Package, part: u32, bytes: &[u8], namespace: &str, owner: &Owner) -> ConfigMap {
    let mut metadata = metadata(namespace, document_name(&package.hash, part), COMPONENT, owner);
    metadata
        .labels
        .get_or_insert_default()
        .insert(HASH_LABEL.into(), package.hash.clone());
    ConfigMap {
        metadata,
        immutable: Some(true),
        binary_data: Some(BTreeMap::from([(
            DOCUMENT_KEY.into(),
            ByteString(bytes.to_vec()),
        )])),
        data: None,
    }
}
