//! A pod's facts and a pipeline's rules in, one stream's labels and structured metadata out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    /// What the tenant's limits did to them.
    #[serde(default, skip_serializing_if = "Curtailed::is_empty")]
    pub curtailed: Curtailed,
}

/// Names of labels that a tenant's limits did not let through as the rules gave them, each sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Curtailed {
    /// They are structured metadata instead: the stream has all the labels that the tenant takes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub demoted: BTreeSet<String>,
    /// There was no room for them as structured metadata either.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub left_out: BTreeSet<String>,
    /// Their values were longer than the tenant takes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub cut: BTreeSet<String>,
}

impl Curtailed {
    /// Adds what befell another container of the same rules.
    pub fn merge(&mut self, other: &Self) {
        self.demoted.extend(other.demoted.iter().cloned());
        self.left_out.extend(other.left_out.iter().cloned());
        self.cut.extend(other.cut.iter().cloned());
    }

    /// Whether nothing was curtailed.
    pub fn is_empty(&self) -> bool {
        self.demoted.is_empty() && self.left_out.is_empty() && self.cut.is_empty()
    }
}

impl fmt::Display for Curtailed {
    /// What happened and to which labels, such as `a, b are structured metadata; c is left out; d is cut`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (names, what) in [
            (&self.demoted, "structured metadata"),
            (&self.left_out, "left out"),
            (&self.cut, "cut"),
        ] {
            let verb = match names.len() {
                0 => continue,
                1 => "is",
                _ => "are",
            };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            write!(f, "{separator}{} {verb} {what}", names.join(", "))?;
            separator = "; ";
        }
        Ok(())
    }
}

/// Chooses the labels of a container's streams. Where several rules give one name, the later wins: static,
/// then namespace labels, then pod labels; evidence of origin never yields. Where the tenant takes fewer
/// labels than the rules give, the least important become structured metadata: pod labels first, then
/// namespace labels, fixed labels, the profile's; the evidence of origin last.
pub fn choose(rules: &LabelRules, facts: &ContainerFacts<'_>, limits: &Limits) -> Chosen {
    // Two stay free for `late` and `part`, which the agent adds where a stream alone would not take the lines.
    let most = (limits.max_label_names as usize).saturating_sub(2);
    let mut chosen = Chosen::default();
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let mut demoted: Vec<(String, String)> = Vec::new();
    for (name, mut value) in ranked(rules, facts) {
        let evidence = labels.contains_key(&name) && loki::RESERVED_LABELS.contains(&name.as_str());
        if value.is_empty() || evidence {
            continue;
        }
        // However it is escaped, Loki (3.7.8) writes it out plainly between its own parts, and then refuses it.
        if value.contains(char::REPLACEMENT_CHARACTER) {
            value = value.replace(char::REPLACEMENT_CHARACTER, "?");
        }
        if cut(&mut value, limits.max_label_value_bytes as usize) {
            chosen.curtailed.cut.insert(name.clone());
        } else {
            chosen.curtailed.cut.remove(&name);
        }
        if labels.contains_key(&name) || labels.len() < most {
            labels.insert(name, value);
        } else if let Some((_, earlier)) = demoted.iter_mut().find(|(known, _)| *known == name) {
            *earlier = value;
        } else {
            demoted.push((name, value));
        }
    }
    chosen.labels = render(&labels);

    let room = &limits.structured_metadata;
    let dropped = |name: &str| rules.drop.iter().any(|dropped| dropped == name);
    chosen.stream =
        room.allowed && !dropped("stream") && room.max_count > 0 && room.max_bytes as usize >= STREAM.len();
    let mut bytes = if chosen.stream { STREAM.len() } else { 0 };
    let mut count = usize::from(chosen.stream);
    let mut fits = |name: &str, value: &str| {
        // A line says itself which stream it is of; two values of one name would be a riddle.
        let is_free = !(chosen.stream && name == "stream");
        let size = name.len() + value.len();
        let fits = room.allowed
            && is_free
            && count < room.max_count as usize
            && bytes + size <= room.max_bytes as usize;
        if fits {
            count += 1;
            bytes += size;
        }
        fits
    };
    if !labels.contains_key("pod") && !dropped("pod") && fits("pod", facts.pod) {
        chosen.metadata.push(("pod".to_owned(), facts.pod.to_owned()));
    }
    for (name, value) in demoted {
        if fits(&name, &value) {
            chosen.curtailed.demoted.insert(name.clone());
            chosen.metadata.push((name, value));
        } else {
            chosen.curtailed.cut.remove(&name);
            chosen.curtailed.left_out.insert(name);
        }
    }
    chosen
}

/// What `stream` takes of the room for structured metadata; `stderr` is as long.
const STREAM: &str = "streamstdout";

/// What the rules give, most important first; a name may come again.
fn ranked(rules: &LabelRules, facts: &ContainerFacts<'_>) -> Vec<(String, String)> {
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
    ranked
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

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn pod_label(label: &str, pod_label: &str) -> FromPodLabel {
        FromPodLabel {
            label: label.into(),
            pod_label: pod_label.into(),
        }
    }

    #[test]
    fn of_rules_that_give_one_name_the_last_that_has_a_value_wins() {
        let pod = Pod::with(&[("a", "from a"), ("b", "from b"), ("empty", "")]);
        for (rules, expected) in [
            (vec![pod_label("team", "a"), pod_label("team", "b")], "from b"),
            (vec![pod_label("team", "b"), pod_label("team", "a")], "from a"),
            (vec![pod_label("team", "a"), pod_label("team", "none")], "from a"),
            (vec![pod_label("team", "a"), pod_label("team", "empty")], "from a"),
            (vec![pod_label("team", "none")], "a"),
            (vec![], "a"),
        ] {
            for max_label_names in [15, 6] {
                let rules = LabelRules {
                    fixed: map(&[("team", "fixed")]),
                    from_namespace_labels: vec![FromNamespaceLabel {
                        label: "team".into(),
                        namespace_label: "team".into(),
                    }],
                    from_pod_labels: rules.clone(),
                    ..LabelRules::default()
                };
                let limits = Limits {
                    max_label_names,
                    ..Limits::default()
                };
                let chosen = choose(&rules, &pod.facts(None), &limits);
                if max_label_names == 15 {
                    assert!(
                        chosen.labels.contains(&format!(r#"team="{expected}""#)),
                        "{chosen:?}"
                    );
                } else {
                    // As structured metadata there is one of a name as well.
                    let found = chosen.metadata.iter().filter(|(name, _)| name == "team");
                    assert_eq!(found.map(|(_, value)| value).collect::<Vec<_>>(), [expected]);
                    assert_eq!(chosen.curtailed.demoted, names(&["team"]));
                }
            }
        }
    }

    #[test]
    fn the_least_important_labels_become_structured_metadata_and_are_named() {
        let pod = Pod::with(&[("l", "0123456789")]);
        let rules = LabelRules {
            fixed: map(&[("cluster", "ops"), ("stream", "mine")]),
            from_pod_labels: vec![pod_label("x", "l")],
            from_namespace_labels: vec![FromNamespaceLabel {
                label: "team".into(),
                namespace_label: "team".into(),
            }],
            ..LabelRules::default()
        };
        // Rows: labels for the rules, bytes of metadata and entries of metadata that the tenant takes; what becomes of them.
        for (max_label_names, max_bytes, max_count, labels, demoted, left_out) in [
            (
                8,
                999,
                9,
                &["cluster", "stream", "team", "x"][..],
                &[][..],
                &[][..],
            ),
            (7, 999, 9, &["cluster", "stream", "team"], &["x"], &[]),
            (6, 999, 9, &["cluster", "stream"], &["team", "x"], &[]),
            (5, 999, 9, &["cluster"], &["team", "x"], &["stream"]),
            (4, 999, 9, &[], &["cluster", "team", "x"], &["stream"]),
            (4, 999, 4, &[], &["cluster", "team"], &["stream", "x"]),
            (4, 39, 9, &[], &["team"], &["cluster", "stream", "x"]),
            (4, 0, 9, &[], &["cluster", "team", "x"], &["stream"]),
        ] {
            let structured_metadata = crate::document::StructuredMetadata {
                // Zero stands for a tenant that takes none.
                allowed: max_bytes > 0,
                max_bytes,
                max_count,
            };
            // Two more for those that the agent adds.
            let limits = Limits {
                max_label_names: max_label_names + 2,
                structured_metadata,
                ..Limits::default()
            };
            let chosen = choose(&rules, &pod.facts(None), &limits);
            let context = format!("{max_label_names} {max_bytes} {max_count}: {chosen:?}");
            for name in ["cluster", "stream", "team", "x"] {
                let found = chosen.labels.contains(&format!("{name}=\""));
                assert_eq!(found, labels.contains(&name), "{name}: {context}");
            }
            let curtailed = if max_bytes > 0 {
                (names(demoted), names(left_out))
            } else {
                (names(&[]), names(&["cluster", "stream", "team", "x"]))
            };
            let found = (chosen.curtailed.demoted, chosen.curtailed.left_out);
            assert_eq!(found, curtailed, "{context}");
            let bytes: usize = chosen.metadata.iter().map(|(n, v)| n.len() + v.len()).sum();
            let stream = usize::from(chosen.stream);
            assert!(bytes + stream * STREAM.len() <= max_bytes as usize, "{context}");
            assert!(chosen.metadata.len() + stream <= max_count as usize, "{context}");
        }
    }

    #[test]
    fn values_are_cut_at_a_characters_border_and_named() {
        let value = format!("{}äöü€😀", "x".repeat(60));
        let pod = Pod::with(&[]);
        let rules = LabelRules {
            fixed: map(&[("long", &value)]),
            ..LabelRules::default()
        };
        for (max, kept) in [
            (60, "x".repeat(60)),
            (61, "x".repeat(60)),
            (62, "x".repeat(60) + "ä"),
            (66, "x".repeat(60) + "äöü"),
            (68, "x".repeat(60) + "äöü"),
            (69, "x".repeat(60) + "äöü€"),
            (72, "x".repeat(60) + "äöü€"),
            (73, value.clone()),
            (2048, value.clone()),
        ] {
            let limits = Limits {
                max_label_value_bytes: max,
                ..Limits::default()
            };
            let chosen = choose(&rules, &pod.facts(None), &limits);
            assert!(
                chosen.labels.contains(&format!(r#"long="{kept}""#)),
                "{max}: {chosen:?}"
            );
            assert_eq!(chosen.curtailed.cut.contains("long"), kept != value, "{max}");
        }
    }

    #[test]
    fn a_character_that_loki_refuses_is_replaced() {
        let rules = LabelRules {
            fixed: map(&[("x", "a\u{fffd}b")]),
            ..LabelRules::default()
        };
        let chosen = choose(&rules, &Pod::with(&[]).facts(None), &Limits::default());
        assert!(chosen.labels.contains(r#"x="a?b""#), "{chosen:?}");
    }

    #[test]
    fn what_was_curtailed_is_said_in_words() {
        let curtailed = Curtailed {
            demoted: names(&["b", "a"]),
            left_out: names(&["c"]),
            cut: names(&["d"]),
        };
        assert_eq!(
            curtailed.to_string(),
            "a, b are structured metadata; c is left out; d is cut"
        );
        assert!(Curtailed::default().is_empty());
    }
}
