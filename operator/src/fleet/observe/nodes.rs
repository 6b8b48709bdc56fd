//! Nodes in, where agents should run and who is excused out.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::affinity::allows;
use crate::settings::AgentSettings;

/// A node that joined less long ago is not counted as behind while its agent does not answer.
const NEW: SignedDuration = SignedDuration::from_secs(120);

/// What is known of a node where an agent should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// An agent is expected.
    Expected,
    /// It joined a moment ago: excused until its agent answers.
    New,
    /// Not Ready or being deleted: excused whatever its agent says.
    Excused,
}

/// Names of the nodes where an agent should run.
pub fn names<'a>(nodes: impl Iterator<Item = &'a Node>, agent: &AgentSettings) -> BTreeSet<String> {
    nodes
        .filter(|node| allows(node, agent))
        .filter_map(|node| node.metadata.name.clone())
        .collect()
}

/// The nodes where an agent should run, each with its state.
pub fn targets<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    agent: &AgentSettings,
    now: Timestamp,
) -> BTreeMap<String, State> {
    nodes
        .filter(|node| allows(node, agent))
        .filter_map(|node| Some((node.metadata.name.clone()?, state(node, now))))
        .collect()
}

fn state(node: &Node, now: Timestamp) -> State {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if !ready || node.metadata.deletion_timestamp.is_some() {
        return State::Excused;
    }
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if created.is_some_and(|created| now.duration_since(created) < NEW) {
        State::New
    } else {
        State::Expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn node(created: &str, ready: &str, gone: Option<&str>) -> Node {
        let mut json = serde_json::json!({
            "metadata": {"name": "n", "creationTimestamp": created, "labels": {"kubernetes.io/os": "linux"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        if let Some(time) = gone {
            json["metadata"]["deletionTimestamp"] = time.into();
        }
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_node_is_excused_when_not_ready_going_or_new() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-01T00:08:01Z");
        assert_eq!(state(&node(old, "True", None), now), State::Expected);
        assert_eq!(state(&node(old, "Unknown", None), now), State::Excused);
        assert_eq!(state(&node(old, "True", Some(old)), now), State::Excused);
        assert_eq!(state(&node(new, "True", None), now), State::New);
        let agent = Settings::default().agent;
        assert_eq!(targets([node(old, "True", None)].iter(), &agent, now).len(), 1);
    }
}
