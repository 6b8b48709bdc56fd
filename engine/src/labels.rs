//! A pod's facts and a pipeline's rules in, one stream's labels and structured metadata out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::Limits;
use crate::loki;

/// How a pipeline labels its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelRules {
    /// The set of labels to begin with.
    pub profile: Profile,
    /// Labels with fixed values.
    #[serde(rename = "static", skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed: BTreeMap<String, String>,
    /// Labels from labels of the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_pod_labels: Vec<FromPodLabel>,
    /// Labels from labels of the namespace object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from_namespace_labels: Vec<FromNamespaceLabel>,
    /// Labels of the profile to leave out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// Named sets of labels. Each has `namespace` and `node_name`: one writer per stream costs some
/// cardinality and buys delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Profile {
    /// `namespace`, `app`, `container`, `node_name`; `pod` and `stream` as structured metadata.
    #[default]
    Minimal,
    /// What the Promtail chart 6.17 produces, without `filename`: `namespace`, `pod`, `container`, `app`,
    /// `instance`, `component`, `job`, `node_name`; `stream` as structured metadata.
    Promtail,
}

/// A label copied from a pod's label; absent where the pod has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromPodLabel {
    /// The stream's label.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 63)))]
    pub label: String,
    /// The pod's label.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 317)))]
    pub pod_label: String,
}

/// A label copied from a label of the namespace object; absent where it has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromNamespaceLabel {
    /// The stream's label.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 63)))]
    pub label: String,
    /// The namespace's label.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 317)))]
    pub namespace_label: String,
}

impl LabelRules {
    /// Whether a pod's labels or owner can change what [`choose`] returns.
    pub fn need_pod(&self) -> bool {
        !self.from_pod_labels.is_empty() || !self.drop.iter().any(|name| name == "app")
    }
}

/// What is known of a container when its streams are labelled.
#[derive(Clone, Copy, Debug)]
pub struct ContainerFacts<'a> {
    /// Namespace, from the path.
    pub namespace: &'a str,
    /// Labels of the namespace object, as the document carries them.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Pod, from the path.
    pub pod: &'a str,
    /// The pod's labels; empty where the pod object is not known.
    pub pod_labels: &'a BTreeMap<String, String>,
    /// Name of the pod's controlling owner.
    pub controller: Option<&'a str>,
    /// Container, from the path.
    pub container: &'a str,
    /// The agent's node.
    pub node: &'a str,
}

/// Labels of one container's streams: journaled when chosen, so that a replay sends to the same stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// Labels as Loki reads them, such as `{app="web", container="c"}`, sorted by name.
    pub labels: String,
    /// Structured metadata of every line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
    /// Whether `stream` (`stdout` or `stderr`) is added to the structured metadata.
    #[serde(default)]
    pub stream: bool,
    /// Labels that the tenant's limit on their number left no room for, and values that were cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curtailed: Vec<String>,
}

/// Chooses the labels of a container's streams. Where the tenant takes fewer labels than the rules give,
/// the least important become structured metadata: pod labels first, then namespace labels, fixed
/// labels, the profile's; the evidence of origin last.
pub fn choose(rules: &LabelRules, facts: &ContainerFacts<'_>, limits: &Limits) -> Chosen {
    let mut ranked = profile_labels(rules.profile, facts);
    ranked.retain(|(name, _)| is_origin(name) || !rules.drop.iter().any(|dropped| dropped == name));
    ranked.extend(
        rules
            .fixed
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    for rule in &rules.from_namespace_labels {
        if let Some(value) = facts.namespace_labels.get(&rule.namespace_label) {
            ranked.push((rule.label.clone(), value.clone()));
        }
    }
    for rule in &rules.from_pod_labels {
        if let Some(value) = facts.pod_labels.get(&rule.pod_label) {
            ranked.push((rule.label.clone(), value.clone()));
        }
    }

    let mut chosen = Chosen::default();
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let mut demoted: Vec<(String, String)> = Vec::new();
    for (name, mut value) in ranked {
        if value.is_empty() {
            continue;
        }
        if cut(&mut value, limits.max_label_value_bytes as usize) {
            chosen.curtailed.push(name.clone());
        }
        // A later rule of the same name overrides, but never the evidence of origin.
        if labels.contains_key(&name) {
            if !loki::RESERVED_LABELS.contains(&name.as_str()) {
                labels.insert(name, value);
            }
        } else if labels.len() < limits.max_label_names as usize {
            labels.insert(name, value);
        } else {
            chosen.curtailed.push(name.clone());
            demoted.push((name, value));
        }
    }
    chosen.labels = render(&labels);

    let room = &limits.structured_metadata;
    if room.allowed {
        let pod_is_label = labels.contains_key("pod");
        let dropped = |name: &str| rules.drop.iter().any(|dropped| dropped == name);
        let mut metadata = Vec::new();
        if !pod_is_label && !dropped("pod") {
            metadata.push(("pod".to_owned(), facts.pod.to_owned()));
        }
        chosen.stream = !dropped("stream") && room.max_count > 0 && room.max_bytes > 16;
        let mut bytes = if chosen.stream { "streamstdout".len() } else { 0 };
        let mut count = usize::from(chosen.stream);
        for (name, value) in metadata.into_iter().chain(demoted) {
            let size = name.len() + value.len();
            if count < room.max_count as usize && bytes + size <= room.max_bytes as usize {
                count += 1;
                bytes += size;
                chosen.metadata.push((name, value));
            }
        }
    }
    chosen
}

/// Labels that no spec may drop: `namespace` is evidence, `node_name` gives each stream one writer.
fn is_origin(name: &str) -> bool {
    matches!(name, "namespace" | "node_name")
}

/// A profile's labels, most important first.
fn profile_labels(profile: Profile, facts: &ContainerFacts<'_>) -> Vec<(String, String)> {
    let app = app(facts);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut labels = vec![
        pair("namespace", facts.namespace),
        pair("node_name", facts.node),
        pair("container", facts.container),
    ];
    match profile {
        Profile::Minimal => labels.push(pair("app", app)),
        Profile::Promtail => {
            labels.push(pair("pod", facts.pod));
            labels.push(pair("app", app));
            labels.push(("job".to_owned(), format!("{}/{app}", facts.namespace)));
            for (name, keys) in [
                ("instance", ["app.kubernetes.io/instance", "instance"]),
                ("component", ["app.kubernetes.io/component", "component"]),
            ] {
                if let Some(value) = first_label(facts.pod_labels, &keys) {
                    labels.push(pair(name, value));
                }
            }
        }
    }
    labels
}

/// The Promtail chart's fall-back chain: `app.kubernetes.io/name`, `app`, the controller's name without a
/// `ReplicaSet`'s hash, the pod's name.
fn app<'a>(facts: &ContainerFacts<'a>) -> &'a str {
    first_label(facts.pod_labels, &["app.kubernetes.io/name", "app"])
        .or_else(|| facts.controller.map(without_template_hash))
        .unwrap_or(facts.pod)
}

fn first_label<'a>(labels: &'a BTreeMap<String, String>, keys: &[&str]) -> Option<&'a str> {
    keys.iter()
        .filter_map(|key| labels.get(*key))
        .map(String::as_str)
        .find(|value| !value.is_empty())
}

/// Cuts `-<8 to 10 hex digits>` off the end, as the chart's `([0-9a-z-.]+?)(-[0-9a-f]{8,10})?` does.
fn without_template_hash(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((stem, hash))
            if !stem.is_empty()
                && (8..=10).contains(&hash.len())
                && hash
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) =>
        {
            stem
        }
        _ => name,
    }
}

/// Cuts a text at a character's boundary; whether anything was cut.
fn cut(value: &mut String, max: usize) -> bool {
    if value.len() <= max {
        return false;
    }
    value.truncate(value.floor_char_boundary(max));
    true
}

fn render(labels: &BTreeMap<String, String>) -> String {
    let mut out = String::from("{");
    for (name, value) in labels {
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push('=');
        loki::quote(value, &mut out);
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    struct Pod {
        labels: BTreeMap<String, String>,
        namespace_labels: BTreeMap<String, String>,
    }

    impl Pod {
        fn with(labels: &[(&str, &str)]) -> Self {
            Self {
                labels: map(labels),
                namespace_labels: map(&[("team", "a")]),
            }
        }

        fn facts<'a>(&'a self, controller: Option<&'a str>) -> ContainerFacts<'a> {
            ContainerFacts {
                namespace: "team-a",
                namespace_labels: &self.namespace_labels,
                pod: "web-5d8f9c7b6-x2x4z",
                pod_labels: &self.labels,
                controller,
                container: "main",
                node: "node1",
            }
        }
    }

    #[test]
    fn minimal_has_four_labels_and_keeps_the_pod_as_metadata() {
        let pod = Pod::with(&[]);
        let chosen = choose(
            &LabelRules::default(),
            &pod.facts(Some("web-5d8f9c7b6")),
            &Limits::default(),
        );
        assert_eq!(
            chosen.labels,
            r#"{app="web", container="main", namespace="team-a", node_name="node1"}"#
        );
        assert_eq!(
            chosen.metadata,
            [("pod".to_owned(), "web-5d8f9c7b6-x2x4z".to_owned())]
        );
        assert!(chosen.stream);
        assert!(chosen.curtailed.is_empty());
    }

    #[test]
    fn promtail_follows_the_charts_table() {
        let pod = Pod::with(&[
            ("app.kubernetes.io/name", "shop"),
            ("app.kubernetes.io/instance", "shop-1"),
        ]);
        let rules = LabelRules {
            profile: Profile::Promtail,
            ..LabelRules::default()
        };
        let chosen = choose(&rules, &pod.facts(Some("web-5d8f9c7b6")), &Limits::default());
        assert_eq!(
            chosen.labels,
            r#"{app="shop", container="main", instance="shop-1", job="team-a/shop", namespace="team-a", node_name="node1", pod="web-5d8f9c7b6-x2x4z"}"#
        );
        assert!(chosen.metadata.is_empty() && chosen.stream);
    }

    #[test]
    fn app_falls_back_step_by_step() {
        let hash = Some("web-5d8f9c7b6");
        for (labels, controller, expected) in [
            (&[("app.kubernetes.io/name", "a"), ("app", "b")][..], hash, "a"),
            (&[("app", "b")][..], hash, "b"),
            (&[][..], hash, "web"),
            (&[][..], Some("web-main"), "web-main"),
            (&[][..], None, "web-5d8f9c7b6-x2x4z"),
        ] {
            assert_eq!(app(&Pod::with(labels).facts(controller)), expected);
        }
    }

    #[test]
    fn rules_add_and_drop_but_never_forge_the_origin() {
        let pod = Pod::with(&[("example.com/team", "blue")]);
        let rules = LabelRules {
            fixed: map(&[("cluster", "ops"), ("namespace", "forged")]),
            from_pod_labels: vec![FromPodLabel {
                label: "squad".into(),
                pod_label: "example.com/team".into(),
            }],
            from_namespace_labels: vec![FromNamespaceLabel {
                label: "team".into(),
                namespace_label: "team".into(),
            }],
            drop: vec!["app".into(), "node_name".into()],
            ..LabelRules::default()
        };
        let chosen = choose(&rules, &pod.facts(None), &Limits::default());
        assert_eq!(
            chosen.labels,
            r#"{cluster="ops", container="main", namespace="team-a", node_name="node1", squad="blue", team="a"}"#
        );
    }

    #[test]
    fn a_tenants_limits_are_kept() {
        let pod = Pod::with(&[("l", "0123456789")]);
        let rules = LabelRules {
            from_pod_labels: vec![FromPodLabel {
                label: "x".into(),
                pod_label: "l".into(),
            }],
            ..LabelRules::default()
        };
        let limits = Limits {
            max_label_names: 4,
            max_label_value_bytes: 8,
            ..Limits::default()
        };
        let chosen = choose(&rules, &pod.facts(None), &limits);
        assert_eq!(
            chosen.labels,
            r#"{app="web-5d8f", container="main", namespace="team-a", node_name="node1"}"#
        );
        assert_eq!(chosen.curtailed, ["app", "x", "x"]);
        assert_eq!(
            chosen.metadata.last(),
            Some(&("x".to_owned(), "01234567".to_owned()))
        );

        let mut without = limits;
        without.structured_metadata.allowed = false;
        let chosen = choose(&rules, &pod.facts(None), &without);
        assert!(chosen.metadata.is_empty() && !chosen.stream);
    }
}
