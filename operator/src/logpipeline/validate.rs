//! A `LogPipeline` in; what it selects and the document entry without namespaces out. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use sluice_engine::document::{Pipeline, PodSource, ReadFrom, StartAt};
use sluice_engine::key::Key;
use sluice_engine::labels::LabelRules;
use sluice_engine::selector::{LabelSelector, Operator};
use sluice_engine::validate as rules;

use crate::api::LogPipeline;
use crate::api::conditions::reasons;
use crate::api::logpipeline::{Labels, Namespaces, Pods};
use crate::reviews::Account;
use crate::tenant::validate::Rejection;

/// Which namespaces a pipeline selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Every one.
    pub all: bool,
    /// Those that the author named, the pipeline's own included where nothing else is selected.
    pub names: BTreeSet<String>,
    /// By label.
    pub selector: Option<LabelSelector>,
    /// Left out.
    pub exclude: BTreeSet<String>,
}

/// A pipeline whose spec is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Its document entry: without namespaces, not sealed, and with every tenant that it mentions.
    pub entry: Pipeline,
    /// Which namespaces it selects.
    pub selection: Selection,
    /// Whose rights decide.
    pub account: Account,
    /// Whether its author stopped it.
    pub suspend: bool,
    /// What cannot be seen or may be lost by the way that lines come; for the condition.
    pub remark: Option<&'static str>,
}

/// What `pods/log` cannot show.
const THROUGH_API: &str = "read through the API: what kubelet rotates away before it is read cannot be seen, nor which output a line comes from, stdout or stderr";
/// The same for agents whose state does not outlive their pod.
const THROUGH_API_ALONE: &str = "read through the API, by agents without a folder of the node: what kubelet rotates away before it is read cannot be seen, nor which output a line comes from, stdout or stderr; when an agent's pod is replaced, what it had read and not delivered is read again as far as kubelet still has it, and lines that were delivered are sent again";

/// Checks a pipeline and applies the defaults. `host_paths` says whether agents see their node's files.
///
/// # Errors
/// When a field breaks a rule, or needs files that agents do not see.
pub fn validate(pipeline: &LogPipeline, host_paths: bool) -> Result<Validated, Rejection> {
    let key = Key::new(pipeline.namespace().unwrap_or_default(), pipeline.name_any());
    let spec = &pipeline.spec;
    let invalid = |message: String| Rejection::new(reasons::INVALID, message);
    let pods = spec.sources.pods.clone().ok_or_else(|| {
        invalid("sources names no source: add pods, {} reads the pods of this namespace".into())
    })?;
    let selection = selection(&key, pods.namespaces.clone());
    let read_from = pods.read_from.unwrap_or_default();
    if read_from == ReadFrom::Files && !host_paths {
        return Err(Rejection::new(
            reasons::HOST_PATHS_NOT_ALLOWED,
            "sources.pods.readFrom is Files, and agents of this installation see no files of their nodes: set readFrom to API, or have the chart's agent.hostPaths set to true",
        ));
    }
    for (path, selector) in [
        ("sources.pods.selector", &pods.selector),
        ("sources.pods.namespaces.selector", &selection.selector),
    ] {
        if let Some(selector) = selector {
            check(path, selector)?;
        }
    }
    let tenants = spec
        .tenant_refs
        .iter()
        .map(|tenant| {
            Key::new(
                tenant.namespace.clone().unwrap_or_else(|| key.namespace.clone()),
                &tenant.name,
            )
        })
        .collect();
    let account = spec
        .service_account_name
        .clone()
        .unwrap_or_else(|| "default".into());
    let entry = Pipeline {
        uid: pipeline.uid().unwrap_or_default(),
        generation: pipeline.metadata.generation.unwrap_or_default(),
        hash: String::new(),
        tenants,
        pods: source(pods, created_at(pipeline)),
        labels: labels(spec.labels.clone()),
        name: key.clone(),
    };
    let violations = rules::pipeline(&entry);
    if !violations.is_empty() {
        return Err(invalid(rules::join(&violations)));
    }
    Ok(Validated {
        entry,
        selection,
        account: Key::new(key.namespace, account),
        suspend: spec.suspend.unwrap_or_default(),
        remark: match (read_from, host_paths) {
            (ReadFrom::Files, _) => None,
            (ReadFrom::Api, true) => Some(THROUGH_API),
            (ReadFrom::Api, false) => Some(THROUGH_API_ALONE),
        },
    })
}

fn selection(key: &Key, spec: Option<Namespaces>) -> Selection {
    let spec = spec.unwrap_or_default();
    let all = spec.all.unwrap_or_default();
    let names: BTreeSet<String> = match spec.names {
        Some(names) => names.into_iter().collect(),
        None if !all && spec.selector.is_none() => [key.namespace.clone()].into(),
        None => BTreeSet::new(),
    };
    let exclude: BTreeSet<String> = spec.exclude_names.into_iter().flatten().collect();
    Selection {
        all,
        names: names.difference(&exclude).cloned().collect(),
        selector: spec.selector,
        exclude,
    }
}

/// An empty selector, or `NotIn` without values, would silently select everything.
fn check(path: &str, selector: &LabelSelector) -> Result<(), Rejection> {
    if selector.is_empty() {
        return Err(Rejection::new(
            reasons::INVALID,
            format!("{path} is empty: add matchLabels or matchExpressions, or leave it out"),
        ));
    }
    let broken = selector
        .match_expressions
        .iter()
        .find(|e| matches!(e.operator, Operator::In | Operator::NotIn) == e.values.is_empty());
    match broken {
        Some(expression) => Err(Rejection::new(
            reasons::INVALID,
            format!(
                "{path}.matchExpressions[{}]: In and NotIn need values, Exists and DoesNotExist take none",
                expression.key
            ),
        )),
        None => Ok(()),
    }
}

fn created_at(pipeline: &LogPipeline) -> Option<i64> {
    let created = pipeline.metadata.creation_timestamp.as_ref();
    created.map(|time| time.0.as_second())
}

fn source(pods: Pods, created_at: Option<i64>) -> PodSource {
    let (read_from, start_at) = (
        pods.read_from.unwrap_or_default(),
        pods.start_at.unwrap_or_default(),
    );
    // Through the API a container's end cannot be asked for, but lines from some second on can.
    let skips = read_from == ReadFrom::Api && start_at == StartAt::Now;
    PodSource {
        read_from,
        since: created_at.filter(|_| skips),
        namespaces: Vec::new(),
        selector: pods.selector.unwrap_or_default(),
        containers: pods.containers.unwrap_or_default(),
        start_at,
    }
}

fn labels(spec: Option<Labels>) -> LabelRules {
    let spec = spec.unwrap_or_default();
    LabelRules {
        profile: spec.profile.unwrap_or_default(),
        fixed: spec.fixed.unwrap_or_default(),
        from_pod_labels: spec.from_pod_labels.unwrap_or_default(),
        from_namespace_labels: spec.from_namespace_labels.unwrap_or_default(),
        drop: spec.drop.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(namespaces: &str) -> Validated {
        let text = format!(
            "{{apiVersion: sluice.dev/v1alpha1, kind: LogPipeline, metadata: {{name: web, namespace: a}}, spec: {{tenantRefs: [{{name: ops}}], sources: {{pods: {{namespaces: {namespaces}}}}}}}}}"
        );
        validate(&serde_saphyr::from_str(&text).unwrap(), true).unwrap()
    }

    #[test]
    fn absent_selectors_select_the_own_namespace_only() {
        for empty in ["null", "{}", "{all: false}"] {
            assert_eq!(
                pipeline(empty).selection.names,
                ["a".to_owned()].into(),
                "{empty}"
            );
        }
        assert!(pipeline("{all: true}").selection.names.is_empty());
        assert_eq!(
            pipeline("{names: [x, y], excludeNames: [y]}").selection.names,
            ["x".to_owned()].into()
        );
        assert_eq!(pipeline("null").account, Key::new("a", "default"));
    }

    #[test]
    fn a_tenant_named_twice_in_two_ways_is_refused() {
        let text = "{apiVersion: sluice.dev/v1alpha1, kind: LogPipeline, metadata: {name: web, namespace: a}, spec: {tenantRefs: [{name: ops}, {name: ops, namespace: a}], sources: {pods: {}}}}";
        let error = validate(&serde_saphyr::from_str(text).unwrap(), true).unwrap_err();
        assert!(error.message.contains("listed twice"), "{error}");
    }

    #[allow(clippy::unwrap_in_result, reason = "a test may panic")]
    fn reading(pods: &str, host_paths: bool) -> Result<Validated, Rejection> {
        let text = format!(
            "{{apiVersion: sluice.dev/v1alpha1, kind: LogPipeline, metadata: {{name: web, namespace: a, creationTimestamp: '2026-11-20T17:50:00Z'}}, spec: {{tenantRefs: [{{name: ops}}], sources: {{pods: {pods}}}}}}}"
        );
        let pipeline: LogPipeline = serde_saphyr::from_str(&text).expect("YAML");
        validate(&pipeline, host_paths)
    }

    #[test]
    fn files_need_host_paths_and_the_api_says_what_it_hides() {
        for pods in ["{}", "{readFrom: Files}"] {
            assert_eq!(reading(pods, true).unwrap().remark, None);
            let refused = reading(pods, false).unwrap_err();
            assert_eq!(refused.reason, reasons::HOST_PATHS_NOT_ALLOWED);
            assert!(refused.message.contains("set readFrom to API"), "{refused}");
        }
        let kept = reading("{readFrom: API}", true).unwrap();
        assert_eq!(
            (kept.entry.pods.read_from, kept.entry.pods.since),
            (ReadFrom::Api, None)
        );
        let lost = reading("{readFrom: API}", false).unwrap();
        for remark in [kept.remark.unwrap(), lost.remark.unwrap()] {
            assert!(
                remark.contains("what kubelet rotates away before it is read cannot be seen"),
                "{remark}"
            );
            assert!(
                remark.contains("nor which output a line comes from, stdout or stderr"),
                "{remark}"
            );
        }
        assert!(lost.remark.unwrap().contains("pod is replaced"));
        assert!(!kept.remark.unwrap().contains("pod is replaced"));
    }

    #[test]
    fn a_pipeline_that_begins_now_asks_the_api_from_its_creation_on() {
        let now = reading("{readFrom: API, startAt: Now}", true).unwrap();
        assert_eq!(now.entry.pods.since, Some(1_795_197_000));
        assert_eq!(reading("{startAt: Now}", true).unwrap().entry.pods.since, None);
    }
}
