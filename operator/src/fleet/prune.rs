//! What is live and what was applied in, deletions out: whatever nothing refers to any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, ResourceExt};
use sluice_engine::well_known::CREDENTIALS_PREFIX;

use super::apply::Applied;
use super::error::Error;
use super::render::document_parts::HASH_LABEL;
use super::render::pointer;
use super::view::Live;
use crate::cluster::prune::delete;

/// Documents that are kept, newest first, besides those that a pointer names.
const GENERATIONS: usize = 3;

/// What nothing refers to any more.
#[derive(Debug, Default)]
pub struct Obsolete {
    /// Pointers of nodes that are gone, and old documents.
    pub config_maps: Vec<Arc<ConfigMap>>,
    /// Credential Secrets without credentials.
    pub secrets: Vec<Arc<Secret>>,
}

/// Finds what nothing refers to any more. `document` is the hash that the pointers name now.
pub fn obsolete(live: &Live, applied: &Applied, document: &str) -> Obsolete {
    let gone = |name: &String| !applied.wanted.contains(name);
    let pointers = live
        .pointers
        .iter()
        .filter(|(name, _)| gone(name))
        .map(|(_, map)| Arc::clone(map));
    let keep = kept_documents(live, applied, document);
    let documents = live
        .documents
        .values()
        .filter(|map| !keep.contains(hash(map)))
        .map(Arc::clone);
    let secrets = live
        .secrets
        .iter()
        .filter(|(name, _)| name.starts_with(CREDENTIALS_PREFIX) && gone(name));
    Obsolete {
        config_maps: pointers.chain(documents).collect(),
        secrets: secrets.map(|(_, secret)| Arc::clone(secret)).collect(),
    }
}

fn kept_documents(live: &Live, applied: &Applied, document: &str) -> BTreeSet<String> {
    let mut keep = BTreeSet::from([document.to_owned()]);
    let named = live
        .pointers
        .iter()
        .filter(|(name, _)| applied.wanted.contains(*name));
    keep.extend(
        named
            .filter_map(|(_, map)| pointer::read(map))
            .map(|pointer| pointer.document.hash),
    );
    let mut newest: BTreeMap<&str, _> = BTreeMap::new();
    for map in live.documents.values() {
        let created = map.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let entry = newest.entry(hash(map)).or_insert(created);
        *entry = created.max(*entry);
    }
    let mut newest: Vec<_> = newest.into_iter().collect();
    newest.sort_by_key(|&(_, created)| std::cmp::Reverse(created));
    keep.extend(
        newest
            .into_iter()
            .take(GENERATIONS)
            .map(|(hash, _)| hash.to_owned()),
    );
    keep
}

fn hash(map: &ConfigMap) -> &str {
    map.metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(HASH_LABEL))
        .map_or("", String::as_str)
}

/// Deletes what nothing refers to any more; true when there was anything.
///
/// # Errors
/// When a deletion is refused.
pub async fn prune(client: &Client, namespace: &str, obsolete: &Obsolete) -> Result<bool, Error> {
    let Obsolete { config_maps, secrets } = obsolete;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for map in config_maps {
        delete(&api, map.as_ref())
            .await
            .map_err(Error::apply(map.as_ref()))?;
        tracing::info!(
            name = map.name_any(),
            "nothing refers to this ConfigMap any more: deleted"
        );
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for secret in secrets {
        delete(&api, secret.as_ref())
            .await
            .map_err(Error::apply(secret.as_ref()))?;
        tracing::info!(
            name = secret.name_any(),
            "no tenant has credentials in this Secret any more: deleted"
        );
    }
    Ok(!config_maps.is_empty() || !secrets.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    fn named(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        }
    }

    fn document(hash: &str, second: i64) -> (String, Arc<ConfigMap>) {
        let mut metadata = named(&format!("sluice-doc-{hash}"));
        metadata.labels = Some([(HASH_LABEL.to_owned(), hash.to_owned())].into());
        metadata.creation_timestamp = Some(Time(jiff::Timestamp::from_second(second).unwrap()));
        (
            metadata.name.clone().unwrap(),
            Arc::new(ConfigMap {
                metadata,
                ..ConfigMap::default()
            }),
        )
    }

    fn pointer_to(node: &str, hash: &str) -> (String, Arc<ConfigMap>) {
        let json = format!(r#"{{"version":1,"transitions":0,"document":{{"hash":"{hash}","parts":1}}}}"#);
        let data = Some([("pointer.json".to_owned(), json)].into());
        let map = ConfigMap {
            metadata: named(&format!("sluice-node-{node}")),
            data,
            ..ConfigMap::default()
        };
        (map.name_any(), Arc::new(map))
    }

    fn names(obsolete: &Obsolete) -> Vec<String> {
        let maps = obsolete.config_maps.iter().map(|map| map.name_any());
        maps.chain(obsolete.secrets.iter().map(|secret| secret.name_any()))
            .collect()
    }

    #[test]
    fn three_generations_and_what_pointers_name_are_kept() {
        let live = Live {
            documents: (1..=6).map(|n| document(&format!("d{n}"), n)).collect(),
            pointers: [pointer_to("here", "d2"), pointer_to("gone", "d1")].into(),
            ..Live::default()
        };
        let applied = Applied {
            wanted: ["sluice-node-here".to_owned()].into(),
            ..Applied::default()
        };
        assert_eq!(
            names(&obsolete(&live, &applied, "d6")),
            ["sluice-node-gone", "sluice-doc-d1", "sluice-doc-d3"]
        );
    }

    #[test]
    fn only_credential_secrets_are_pruned_and_only_empty_ones() {
        let secrets = ["sluice-credentials-0", "sluice-credentials-1", "sluice-ca"];
        let live = Live {
            secrets: secrets
                .map(|name| {
                    (
                        name.to_owned(),
                        Arc::new(Secret {
                            metadata: named(name),
                            ..Secret::default()
                        }),
                    )
                })
                .into(),
            ..Live::default()
        };
        let applied = Applied {
            wanted: ["sluice-credentials-1".to_owned()].into(),
            ..Applied::default()
        };
        assert_eq!(names(&obsolete(&live, &applied, "")), ["sluice-credentials-0"]);
    }
}
