//! A pod's metadata in, its facts out; lists and events in, changes out. Pure.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;

use super::{PodChange, PodFacts};

/// Kubelet names a static pod's folder by this hash; the API's UID belongs to its mirror.
const STATIC_POD: &str = "kubernetes.io/config.hash";

/// What is known of a pod; `None` for an object without a name.
pub fn facts(metadata: ObjectMeta) -> Option<PodFacts> {
    let uid = metadata
        .annotations
        .and_then(|mut all| all.remove(STATIC_POD))
        .or(metadata.uid)?;
    let controller = metadata
        .owner_references
        .into_iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.name);
    Some(PodFacts {
        uid,
        namespace: metadata.namespace?,
        name: metadata.name?,
        labels: metadata.labels.unwrap_or_default(),
        controller,
    })
}

/// The folders that the worker was told of, and nothing else: it owns the rest.
#[derive(Debug, Default)]
pub struct Known {
    folders: HashSet<String>,
    listing: HashSet<String>,
}

impl Known {
    /// Turns an event into changes. A list that follows a gap ends with the deletions that the gap hid.
    pub fn changes(&mut self, event: Event<ObjectMeta>) -> Vec<PodChange> {
        match event {
            Event::Apply(metadata) => facts(metadata).map_or_else(Vec::new, |facts| {
                self.folders.insert(facts.folder());
                vec![PodChange::Applied(Box::new(facts))]
            }),
            Event::Delete(metadata) => facts(metadata).map_or_else(Vec::new, |facts| {
                let folder = facts.folder();
                self.folders.remove(&folder);
                vec![PodChange::Deleted(folder)]
            }),
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(metadata) => facts(metadata).map_or_else(Vec::new, |facts| {
                self.listing.insert(facts.folder());
                vec![PodChange::Applied(Box::new(facts))]
            }),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let before = std::mem::replace(&mut self.folders, listed);
                let gone = before
                    .into_iter()
                    .filter(|folder| !self.folders.contains(folder))
                    .map(PodChange::Deleted);
                gone.chain([PodChange::Synced]).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, extra: &serde_json::Value) -> ObjectMeta {
        let mut json = serde_json::json!({"name": format!("pod-{uid}"), "namespace": "team", "uid": uid});
        json.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json).unwrap()
    }

    fn plain(uid: &str) -> ObjectMeta {
        pod(uid, &serde_json::json!({}))
    }

    fn shown(changes: &[PodChange]) -> Vec<String> {
        let mut shown: Vec<_> = changes
            .iter()
            .map(|change| match change {
                PodChange::Applied(facts) => format!("+{}", facts.folder()),
                PodChange::Deleted(folder) => format!("-{folder}"),
                PodChange::Synced => "synced".to_owned(),
            })
            .collect();
        shown.sort();
        shown
    }

    #[test]
    fn the_controller_and_a_static_pods_folder() {
        let owners = serde_json::json!({
            "labels": {"app": "web"},
            "annotations": {"kubernetes.io/config.hash": "abc"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "X", "name": "other", "uid": "1"},
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "2", "controller": true}]});
        let facts = facts(pod("api-uid", &owners)).unwrap();
        assert_eq!(
            (facts.uid.as_str(), facts.controller.as_deref()),
            ("abc", Some("web-5d"))
        );
        assert_eq!(
            (facts.namespace.as_str(), facts.name.as_str()),
            ("team", "pod-api-uid")
        );
        assert_eq!(facts.labels["app"], "web");
    }

    #[test]
    fn a_list_after_a_gap_ends_with_what_is_gone() {
        let mut known = Known::default();
        assert!(known.changes(Event::Init).is_empty());
        assert_eq!(
            shown(&known.changes(Event::InitApply(plain("a")))),
            ["+team_pod-a_a"]
        );
        known.changes(Event::InitApply(plain("b")));
        assert_eq!(shown(&known.changes(Event::InitDone)), ["synced"]);
        known.changes(Event::Apply(plain("c")));
        assert_eq!(
            shown(&known.changes(Event::Delete(plain("b")))),
            ["-team_pod-b_b"]
        );
        known.changes(Event::Init);
        known.changes(Event::InitApply(plain("d")));
        // A list that breaks off deletes nothing.
        known.changes(Event::Init);
        known.changes(Event::InitApply(plain("c")));
        assert_eq!(
            shown(&known.changes(Event::InitDone)),
            ["-team_pod-a_a", "synced"]
        );
    }
}
