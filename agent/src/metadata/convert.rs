//! A pod's metadata in, its facts out; lists and events in, changes out. Pure.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::object::{NotUsed, Object};
use kube::runtime::watcher::Event;
use serde::{Deserialize, Serialize};

use super::{ContainerState, Log, PodChange, PodFacts};

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

/// A pod without its spec, which nobody needs.
pub type Statuses = Object<NotUsed, PodStatuses>;

/// What of a pod's status says how its containers are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PodStatuses {
    #[serde(rename = "initContainerStatuses")]
    init: Vec<ContainerStatus>,
    #[serde(rename = "containerStatuses")]
    main: Vec<ContainerStatus>,
    #[serde(rename = "ephemeralContainerStatuses")]
    ephemeral: Vec<ContainerStatus>,
}

/// A pod as the watch shows it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its containers; empty while nobody asks for them.
    pub containers: Vec<ContainerState>,
}

impl From<ObjectMeta> for Seen {
    fn from(metadata: ObjectMeta) -> Self {
        Self {
            metadata,
            containers: Vec::new(),
        }
    }
}

impl From<Statuses> for Seen {
    fn from(pod: Statuses) -> Self {
        let status = pod.status.unwrap_or_default();
        let all = [status.init, status.main, status.ephemeral];
        Self {
            metadata: pod.metadata,
            containers: all.into_iter().flatten().map(container).collect(),
        }
    }
}

/// Which instance kubelet shows the log of: `validateContainerLogStatus` of `pkg/kubelet/kubelet_pods.go`. While a
/// container waits for its next start it is the last one.
fn container(status: ContainerStatus) -> ContainerState {
    let state = status.state.unwrap_or_default();
    let last = status.last_state.unwrap_or_default();
    let has_log =
        |ended: &ContainerStateTerminated| ended.container_id.as_ref().is_some_and(|id| !id.is_empty());
    let before = last.terminated.filter(has_log);
    let ended = state.terminated.filter(has_log);
    let began = |ended: &ContainerStateTerminated| ended.started_at.as_ref().map(|time| time.0.as_second());
    let (log, started_at, previous) = match (state.running, ended, before) {
        (Some(running), _, before) => {
            let started = running.started_at.map(|time| time.0.as_second());
            (Log::Growing, started, before.is_some())
        }
        (None, Some(ended), before) => (Log::Ended, began(&ended), before.is_some()),
        (None, None, Some(last)) => (Log::Ended, began(&last), false),
        (None, None, None) => (Log::None, None, false),
    };
    ContainerState {
        name: status.name,
        restarts: u32::try_from(status.restart_count).unwrap_or(0),
        log,
        previous,
        started_at,
    }
}

/// A change, and the containers of a pod that is there.
pub type Change = (PodChange, Vec<ContainerState>);

/// The folders that the worker was told of, and nothing else: it owns the rest.
#[derive(Debug, Default)]
pub struct Known {
    folders: HashSet<String>,
    listing: HashSet<String>,
}

impl Known {
    /// Turns an event into changes. A list that follows a gap ends with the deletions that the gap hid.
    pub fn changes(&mut self, event: Event<Seen>) -> Vec<Change> {
        let alone = |change| (change, Vec::new());
        match event {
            Event::Apply(pod) => facts(pod.metadata).map_or_else(Vec::new, |facts| {
                self.folders.insert(facts.folder());
                vec![(PodChange::Applied(Box::new(facts)), pod.containers)]
            }),
            Event::Delete(pod) => facts(pod.metadata).map_or_else(Vec::new, |facts| {
                let folder = facts.folder();
                self.folders.remove(&folder);
                vec![alone(PodChange::Deleted(folder))]
            }),
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(pod) => facts(pod.metadata).map_or_else(Vec::new, |facts| {
                self.listing.insert(facts.folder());
                vec![(PodChange::Applied(Box::new(facts)), pod.containers)]
            }),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let before = std::mem::replace(&mut self.folders, listed);
                let gone = before
                    .into_iter()
                    .filter(|folder| !self.folders.contains(folder))
                    .map(PodChange::Deleted);
                gone.chain([PodChange::Synced]).map(alone).collect()
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

    fn plain(uid: &str) -> Seen {
        pod(uid, &serde_json::json!({})).into()
    }

    fn shown(changes: &[Change]) -> Vec<String> {
        let mut shown: Vec<_> = changes
            .iter()
            .map(|(change, _)| match change {
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

    fn state(state: &serde_json::Value, last: &serde_json::Value) -> (Log, bool, Option<i64>) {
        let pod = serde_json::json!({"metadata": {"name": "web", "namespace": "team", "uid": "u"},
            "spec": {}, "status": {"containerStatuses": [{"name": "main", "image": "i", "imageID": "i", "ready": false,
                "restartCount": 3, "state": state, "lastState": last}]}});
        let seen = Seen::from(serde_json::from_value::<Statuses>(pod).unwrap());
        let main = &seen.containers[0];
        assert_eq!((main.name.as_str(), main.restarts), ("main", 3));
        (main.log, main.previous, main.started_at)
    }

    #[test]
    fn the_instance_whose_log_kubelet_shows() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let none = json("{}");
        let running = json(r#"{"running": {"startedAt": "2026-11-20T17:50:01Z"}}"#);
        let ended = json(
            r#"{"terminated": {"exitCode": 1, "containerID": "c://1", "startedAt": "2026-11-20T17:50:00Z"}}"#,
        );
        let unstarted = json(r#"{"terminated": {"exitCode": 128}}"#);
        let waiting = json(r#"{"waiting": {"reason": "CrashLoopBackOff"}}"#);
        let at = Some(1_795_197_000);
        assert_eq!(state(&running, &none), (Log::Growing, false, Some(1_795_197_001)));
        assert_eq!(state(&running, &ended), (Log::Growing, true, Some(1_795_197_001)));
        assert_eq!(state(&ended, &none), (Log::Ended, false, at));
        assert_eq!(state(&ended, &ended), (Log::Ended, true, at));
        assert_eq!(state(&waiting, &ended), (Log::Ended, false, at));
        assert_eq!(state(&unstarted, &ended), (Log::Ended, false, at));
        assert_eq!(state(&waiting, &none), (Log::None, false, None));
        assert_eq!(state(&none, &none), (Log::None, false, None));
    }
}
