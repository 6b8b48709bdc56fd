//! A node and the `DaemonSet`'s node selector, affinity and tolerations in; whether a pod of it may run there out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

use crate::settings::AgentSettings;

/// Whether an agent may run on `node`. Cordoned nodes count: the `DaemonSet`'s controller ignores cordons.
pub fn allows(node: &Node, agent: &AgentSettings) -> bool {
    let unlabelled = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&unlabelled);
    let linux = labels.get("kubernetes.io/os").is_some_and(|os| os == "linux");
    linux
        && agent
            .node_selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
        && required(agent).is_none_or(|terms| terms.iter().any(|term| term_matches(term, node, labels)))
        && taints(node)
            .iter()
            .all(|taint| tolerated(taint, &agent.tolerations))
}

fn required(agent: &AgentSettings) -> Option<&[NodeSelectorTerm]> {
    let node_affinity = agent.affinity.as_ref()?.node_affinity.as_ref()?;
    Some(
        &node_affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()?
            .node_selector_terms,
    )
}

/// A term without any expression matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| {
        (key == "metadata.name")
            .then_some(node.metadata.name.as_deref())
            .flatten()
    };
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|wanted| holds(wanted, labels.get(&wanted.key).map(String::as_str)))
        && fields.iter().all(|wanted| holds(wanted, field(&wanted.key)))
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let (have, limit) = (number(value), number(values.first().map(String::as_str)));
    match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => have.zip(limit).is_some_and(|(have, limit)| have > limit),
        "Lt" => have.zip(limit).is_some_and(|(have, limit)| have < limit),
        _ => false,
    }
}

/// Taints that keep pods away, but for those that every `DaemonSet` bears (`node.kubernetes.io/not-ready` …).
fn taints(node: &Node) -> Vec<&Taint> {
    let all = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    all.iter()
        .filter(|taint| taint.effect != "PreferNoSchedule" && !taint.key.starts_with("node.kubernetes.io/"))
        .collect()
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || (key.is_empty() && exists))
            && (exists || value == taint.value.as_deref().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn node(json: &serde_json::Value) -> Node {
        serde_json::from_value(json.clone()).unwrap()
    }

    fn linux(label: (&str, &str)) -> Node {
        node(
            &serde_json::json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux", label.0: label.1}}}),
        )
    }

    fn agent(yaml: &str) -> AgentSettings {
        Settings::parse(&format!("agent: {yaml}"), "own").unwrap().agent
    }

    fn with_term(term: &str) -> AgentSettings {
        agent(&format!(
            "{{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{term}]}}}}}}}}"
        ))
    }

    #[test]
    fn only_linux_nodes_and_only_those_selected() {
        assert!(!allows(
            &node(&serde_json::json!({"metadata": {"labels": {"kubernetes.io/os": "windows"}}})),
            &agent("{}")
        ));
        assert!(allows(
            &linux(("pool", "web")),
            &agent("{nodeSelector: {pool: web}}")
        ));
        assert!(!allows(
            &linux(("pool", "db")),
            &agent("{nodeSelector: {pool: web}}")
        ));
    }

    #[test]
    fn affinity_is_read_as_the_scheduler_reads_it() {
        let web = linux(("pool", "web"));
        for (term, allowed) in [
            (
                "{matchExpressions: [{key: pool, operator: In, values: [web, db]}]}",
                true,
            ),
            (
                "{matchExpressions: [{key: pool, operator: NotIn, values: [web]}]}",
                false,
            ),
            (
                "{matchExpressions: [{key: pool, operator: NotIn, values: [db]}, {key: pool, operator: Exists}]}",
                true,
            ),
            ("{matchExpressions: [{key: gpu, operator: DoesNotExist}]}", true),
            (
                "{matchExpressions: [{key: pool, operator: Gt, values: ['1']}]}",
                false,
            ),
            (
                "{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}",
                true,
            ),
            ("{}", false),
            (
                "{matchExpressions: [{key: gpu, operator: Exists}]}, {matchExpressions: [{key: pool, operator: Exists}]}",
                true,
            ),
        ] {
            assert_eq!(allows(&web, &with_term(term)), allowed, "{term}");
        }
        assert!(allows(
            &linux(("size", "7")),
            &with_term("{matchExpressions: [{key: size, operator: Gt, values: ['5']}]}")
        ));
    }

    #[test]
    fn taints_keep_agents_away_unless_tolerated() {
        let tainted = |key: &str, effect: &str| {
            let taints = serde_json::json!([{"key": key, "value": "x", "effect": effect}]);
            node(
                &serde_json::json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}, "spec": {"taints": taints}}),
            )
        };
        assert!(
            allows(&tainted("a", "NoSchedule"), &agent("{}")),
            "by default agents bear every taint"
        );
        let none = agent("{tolerations: []}");
        assert!(!allows(&tainted("a", "NoSchedule"), &none));
        assert!(allows(&tainted("a", "PreferNoSchedule"), &none));
        assert!(
            allows(&tainted("node.kubernetes.io/unschedulable", "NoSchedule"), &none),
            "cordoned nodes count"
        );
        assert!(allows(
            &tainted("a", "NoSchedule"),
            &agent("{tolerations: [{key: a, value: x, effect: NoSchedule}]}")
        ));
        assert!(!allows(
            &tainted("a", "NoSchedule"),
            &agent("{tolerations: [{key: a, value: y}]}")
        ));
    }
}
