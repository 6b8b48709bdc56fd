//! Pods and what is in force in, the containers that pipelines read through the API out. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_engine::document::{Pipeline, ReadFrom};

use crate::config::InForce;
use crate::discover::names::{ContainerKey, PodFolder};
use crate::metadata::{ContainerState, PodFacts};
use crate::process::select::{Knowledge, Selected, select};

/// A pod of the node.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its facts.
    pub facts: PodFacts,
    /// Its containers.
    pub containers: Vec<ContainerState>,
    /// The API knows it no more.
    pub deleted: bool,
}

/// A container that a pipeline reads through the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The pod's folder in the spool, taken apart.
    pub pod: PodFolder,
    /// How it is; `None` when its pod is gone.
    pub state: Option<ContainerState>,
    /// In seconds since 1970: of a container that is older nothing older is read.
    pub since: Option<i64>,
    /// False while its pipeline is suspended or withdrawn: what is spooled stays, nothing is read.
    pub granted: bool,
}

/// Pipelines that read through the API.
pub fn readers(in_force: &InForce) -> impl Iterator<Item = &Arc<Pipeline>> {
    // The UID becomes part of a folder's name.
    let is_plain = |uid: &str| uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !uid.is_empty();
    in_force
        .pipelines
        .iter()
        .filter(move |pipeline| pipeline.pods.read_from == ReadFrom::Api && is_plain(&pipeline.uid))
}

/// The containers that are read, by their place in the spool.
pub fn wanted(
    in_force: &InForce,
    pods: &BTreeMap<String, Pod>,
    own_pod: Option<&str>,
) -> BTreeMap<ContainerKey, Wanted> {
    let mut found = BTreeMap::new();
    for pipeline in readers(in_force) {
        for pod in pods
            .values()
            .filter(|pod| Some(pod.facts.uid.as_str()) != own_pod)
        {
            let folder = format!("{}_{}", pod.facts.folder(), pipeline.uid);
            let Some(parsed) = PodFolder::parse(&folder) else {
                continue;
            };
            for container in &pod.containers {
                let selects = |deny| {
                    let known = Knowledge::Facts(&pod.facts);
                    select(pipeline, deny, &parsed, &container.name, known) == Selected::Yes
                };
                if !selects(&[]) {
                    continue;
                }
                let key = ContainerKey {
                    folder: folder.clone(),
                    container: container.name.clone(),
                };
                let one = Wanted {
                    pod: parsed.clone(),
                    state: (!pod.deleted).then(|| container.clone()),
                    since: pipeline.pods.since,
                    granted: selects(&in_force.deny),
                };
                found.insert(key, one);
            }
        }
    }
    found
}

/// Whether a container whose pod nobody knows would be read.
pub fn would_read(in_force: &InForce, pod: &PodFolder, container: &str) -> bool {
    let known = Knowledge::Missing { collected: true };
    readers(in_force).any(|pipeline| {
        pod.reader.as_ref() == Some(&pipeline.uid)
            && select(pipeline, &in_force.deny, pod, container, known) == Selected::Yes
    })
}

/// Whether what is spooled of a container whose pod nobody knows may be sent yet.
pub fn is_kept(in_force: &InForce, pod: &PodFolder) -> bool {
    readers(in_force).any(|pipeline| {
        pod.reader.as_ref() == Some(&pipeline.uid)
            && pipeline.pods.namespaces.iter().any(|ns| ns.name == pod.namespace)
    })
}

#[cfg(test)]
mod tests {
    use sluice_engine::document::{Namespace, PodSource};
    use sluice_engine::key::Key;
    use sluice_engine::labels::LabelRules;
    use sluice_engine::pointer::Denial;

    use super::*;
    use crate::metadata::Log;

    fn pipeline(name: &str, read_from: ReadFrom) -> Arc<Pipeline> {
        Arc::new(Pipeline {
            name: Key::new("a", name),
            uid: format!("u-{name}"),
            generation: 1,
            hash: String::new(),
            tenants: Vec::new(),
            pods: PodSource {
                namespaces: vec![Namespace {
                    name: "a".into(),
                    uid: None,
                    created_at: None,
                    labels: BTreeMap::new(),
                }],
                read_from,
                ..PodSource::default()
            },
            labels: LabelRules::default(),
        })
    }

    fn pod(namespace: &str, uid: &str) -> (String, Pod) {
        let facts = PodFacts {
            uid: uid.into(),
            namespace: namespace.into(),
            name: "web".into(),
            labels: BTreeMap::new(),
            controller: None,
        };
        let container = |name: &str| ContainerState {
            name: name.into(),
            restarts: 0,
            log: Log::Growing,
            previous: false,
            started_at: None,
        };
        let pod = Pod {
            containers: vec![container("main"), container("side")],
            deleted: false,
            facts,
        };
        (pod.facts.folder(), pod)
    }

    #[test]
    fn each_pipeline_has_its_own_place_for_each_container() {
        let mut in_force = InForce {
            pipelines: vec![
                pipeline("files", ReadFrom::Files),
                pipeline("one", ReadFrom::Api),
                pipeline("two", ReadFrom::Api),
            ],
            ..InForce::default()
        };
        let pods = BTreeMap::from([pod("a", "1"), pod("b", "2"), pod("a", "own")]);
        let shown = |in_force: &InForce| -> Vec<(String, bool)> {
            let found = wanted(in_force, &pods, Some("own"));
            found
                .iter()
                .map(|(key, one)| (key.to_string(), one.granted))
                .collect()
        };
        let all = [
            "a_web_1_u-one/main",
            "a_web_1_u-one/side",
            "a_web_1_u-two/main",
            "a_web_1_u-two/side",
        ];
        assert_eq!(shown(&in_force), all.map(|name| (name.to_owned(), true)));
        in_force.deny = vec![Denial {
            pipeline: Key::new("a", "one"),
            namespace: None,
        }];
        assert_eq!(
            shown(&in_force).iter().filter(|(_, granted)| *granted).count(),
            2,
            "kept, and not read"
        );
        let gone = |name: &str| PodFolder::parse(name).unwrap();
        assert!(is_kept(&in_force, &gone("a_old_9_u-one")));
        assert!(!is_kept(&in_force, &gone("b_old_9_u-one")) && !is_kept(&in_force, &gone("a_old_9_u-files")));
    }
}
