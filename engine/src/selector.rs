//! Kubernetes label selectors and container name patterns: a pod's facts in, yes or no out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A label selector as in `k8s.io/apimachinery` `meta/v1`; empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must have these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<BTreeMap<String, String>>", extend("maxProperties" = 32)))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "Option<Vec<Requirement>>", length(max = 32))
    )]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label's key.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 317)))]
    pub key: String,
    /// How its value is compared with `values`.
    pub operator: Operator,
    /// The values for `In` and `NotIn`; absent for `Exists` and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<String>>", length(max = 64)))]
    pub values: Vec<String>,
}

/// Operators of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Operator {
    /// The label exists and has one of the values.
    In,
    /// The label is missing or has none of the values.
    NotIn,
    /// The label exists.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether labels meet every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// Containers by name, with `*` for any run of characters; `exclude` wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ContainerSelector {
    /// Patterns of names to read; absent reads every container, init containers included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "Option<Vec<String>>",
            length(min = 1, max = 32),
            inner(length(min = 1, max = 63), pattern(r"^[a-z0-9*-]+$"))
        )
    )]
    pub include: Vec<String>,
    /// Patterns of names to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "Option<Vec<String>>",
            length(max = 32),
            inner(length(min = 1, max = 63), pattern(r"^[a-z0-9*-]+$"))
        )
    )]
    pub exclude: Vec<String>,
}

impl ContainerSelector {
    /// Whether a container of this name is read.
    pub fn matches(&self, container: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob(pattern, container));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement {
            key: key.into(),
            operator,
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        }
    }

    #[test]
    fn requirements_follow_apimachinery() {
        let web = labels(&[("app", "web")]);
        for (operator, values, with, without) in [
            (Operator::In, &["web", "db"][..], true, false),
            (Operator::NotIn, &["web"][..], false, true),
            (Operator::Exists, &[][..], true, false),
            (Operator::DoesNotExist, &[][..], false, true),
        ] {
            let selector = LabelSelector {
                match_expressions: vec![requirement("app", operator, values)],
                ..Default::default()
            };
            assert_eq!(selector.matches(&web), with, "{operator:?}");
            assert_eq!(
                selector.matches(&BTreeMap::new()),
                without,
                "{operator:?} without the label"
            );
        }
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(LabelSelector::default().matches(&BTreeMap::new()));
        assert!(ContainerSelector::default().matches("any"));
    }

    #[test]
    fn container_patterns() {
        for (pattern, name, expected) in [
            ("*", "web", true),
            ("web", "web", true),
            ("web", "web2", false),
            ("istio-*", "istio-proxy", true),
            ("*-proxy", "istio-proxy", true),
            ("i*o-p*y", "istio-proxy", true),
            ("a*a", "a", false),
            ("*x*", "abc", false),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} against {name}");
        }
    }

    #[test]
    fn exclude_wins() {
        let selector = ContainerSelector {
            include: vec!["*".into()],
            exclude: vec!["istio-proxy".into()],
        };
        assert!(selector.matches("web"));
        assert!(!selector.matches("istio-proxy"));
    }
}
