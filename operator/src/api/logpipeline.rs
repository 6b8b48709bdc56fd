//! `LogPipeline`: which pods' logs, how they are labelled, to which tenants.

#![allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema derives from hidden copies of these types; columns repeat their attributes"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::document::{ReadFrom, StartAt};
use sluice_engine::labels::{FromNamespaceLabel, FromPodLabel, Profile};
use sluice_engine::selector::{ContainerSelector, LabelSelector};

/// What the author wants collected.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "LogPipeline",
    namespaced,
    status = "LogPipelineStatus",
    derive = "PartialEq",
    shortname = "lp",
    category = "sluice",
    doc = "Which pods' logs are collected, how they are labelled, and to which LokiTenants they go.",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "NODES", type_ = "string", json_path = ".status.display.nodes"),
    printcolumn(name = "TENANT", type_ = "string", json_path = ".status.display.tenants"),
    printcolumn(name = "LAG", type_ = "string", json_path = ".status.display.lag"),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LogPipelineSpec {
    /// Stop collecting; positions are kept. Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// ServiceAccount of this namespace whose right to `get pods/log` decides what is collected; default `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    )]
    pub service_account_name: Option<String>,
    /// Tenants that get every line, 1 to 4.
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(validation = Rule::new("self.all(r, self.exists_one(o, o.name == r.name && (has(o.__namespace__) ? o.__namespace__ : '') == (has(r.__namespace__) ? r.__namespace__ : '')))").message("tenantRefs lists a tenant twice: leave one out"))]
    pub tenant_refs: Vec<TenantRef>,
    /// What is read; at least one source.
    pub sources: Sources,
    /// How streams are labelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// A LokiTenant.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRef {
    /// The tenant's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; default the pipeline's own. Another one must allow it in `allowedNamespaces`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// What is read.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.pods)").message("sources names no source: add pods, {} reads the pods of this namespace"))]
pub struct Sources {
    /// Logs of pods' containers; `{}` reads every pod of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
}

/// Logs of pods' containers.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// Which namespaces; absent: the pipeline's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Namespaces>,
    /// Pods by label; absent: every pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("sources.pods.selector is empty: add matchLabels or matchExpressions, or leave selector out to read every pod"))]
    #[x_kube(validation = Rule::new("!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))").message("sources.pods.selector.matchExpressions: In and NotIn need values, Exists and DoesNotExist take none"))]
    pub selector: Option<LabelSelector>,
    /// Containers by name, `*` for any run of characters; absent: every container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<ContainerSelector>,
    /// Where files begin that are older than the pipeline: `Beginning` (default) or `Now`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_at: Option<StartAt>,
    /// Which way lines come: `Files` (default) of the node, or `API`, through `pods/log`, for clusters that forbid host
    /// paths. Through the API files that are rotated cannot be seen, nor which of the two outputs a line comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_from: Option<ReadFrom>,
}

/// Which namespaces: `names` and those `selector` matches, without `excludeNames`; or `all`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.all) && self.all) || !(has(self.names) || has(self.selector))").message("sources.pods.namespaces.all excludes names and selector: leave them out, or all"))]
#[x_kube(validation = Rule::new("!has(self.excludeNames) || has(self.names) || has(self.selector) || (has(self.all) && self.all)").message("sources.pods.namespaces.excludeNames needs something to exclude from: add all: true, names or selector"))]
pub struct Namespaces {
    /// Every namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Option<Vec<String>>,
    /// By label of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("sources.pods.namespaces.selector is empty: add matchLabels or matchExpressions, or write all: true"))]
    #[x_kube(validation = Rule::new("!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))").message("sources.pods.namespaces.selector.matchExpressions: In and NotIn need values, Exists and DoesNotExist take none"))]
    pub selector: Option<LabelSelector>,
    /// Left out, however they were selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exclude_names: Option<Vec<String>>,
}

/// How streams are labelled.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Labels {
    /// The labels to begin with: `Minimal` (default) or `Promtail`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Labels with fixed values.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, LabelValue>>", extend("maxProperties" = 16))]
    #[x_kube(validation = Rule::new("self.all(k, size(k) <= 63 && k.matches('^[a-zA-Z_][a-zA-Z0-9_]*$') && !k.startsWith('__'))").message("labels.static has a name that cannot be a label: use letters, digits and _, at most 63, not beginning with a digit or __"))]
    #[x_kube(validation = Rule::new("!['namespace', 'pod', 'container', 'node_name'].exists(k, k in self)").message("labels.static sets namespace, pod, container or node_name, which are evidence of a line's origin: use another name"))]
    pub fixed: Option<BTreeMap<String, String>>,
    /// Labels from labels of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["label".into()]))]
    #[x_kube(validation = Rule::new("self.all(r, r.label.matches('^[a-zA-Z_][a-zA-Z0-9_]*$') && !r.label.startsWith('__'))").message("labels.fromPodLabels has a label that cannot be one: use letters, digits and _, not beginning with a digit or __"))]
    #[x_kube(validation = Rule::new("self.all(r, !(r.label in ['namespace', 'pod', 'container', 'node_name']))").message("labels.fromPodLabels sets namespace, pod, container or node_name, which are evidence of a line's origin: use another name"))]
    pub from_pod_labels: Option<Vec<FromPodLabel>>,
    /// Labels from labels of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["label".into()]))]
    #[x_kube(validation = Rule::new("self.all(r, r.label.matches('^[a-zA-Z_][a-zA-Z0-9_]*$') && !r.label.startsWith('__'))").message("labels.fromNamespaceLabels has a label that cannot be one: use letters, digits and _, not beginning with a digit or __"))]
    #[x_kube(validation = Rule::new("self.all(r, !(r.label in ['namespace', 'pod', 'container', 'node_name']))").message("labels.fromNamespaceLabels sets namespace, pod, container or node_name, which are evidence of a line's origin: use another name"))]
    pub from_namespace_labels: Option<Vec<FromNamespaceLabel>>,
    /// Labels of the profile to leave out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = Rule::new("!('namespace' in self) && !('node_name' in self)").message("labels.drop names namespace or node_name, which every stream needs: leave them out of drop"))]
    pub drop: Option<Vec<String>>,
}

/// The value of a fixed label; only its schema is used.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[allow(dead_code, reason = "stands for its schema")]
struct LabelValue(#[schemars(length(min = 1, max = 1024))] String);

/// What Sluice found.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPipelineStatus {
    /// The generation that this status is about; -1 before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled; Accepted, ResolvedRefs, Authorized, Programmed, Delivering.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>", length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many nodes run this generation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// Nodes in trouble, the worst first, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<WorstNode>>", length(max = 10))]
    pub worst_nodes: Vec<WorstNode>,
    /// Which namespaces are collected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<NamespaceCounts>,
    /// Lines that Loki refused for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<RejectedLines>>", length(max = 32))]
    pub rejected: Vec<RejectedLines>,
    /// Lines that were read and given up; absent while there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostLines>,
    /// Where lines vanished before they were read, on all nodes: those of the last day, the newest first, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Gap>>", length(max = 10))]
    pub gaps: Vec<Gap>,
    /// How often lines vanished before they were read; absent while they never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_count: Option<u64>,
    /// Texts for the columns of `kubectl get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<Display>,
    /// The worst cause and what to do, in one sentence; absent while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub diagnosis: Option<String>,
}

/// How many nodes run this generation.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounts {
    /// Where an agent should run.
    pub matched: u32,
    /// Which run this generation.
    pub applied: u32,
    /// Not Ready, being deleted or new: not waited for.
    pub excused: u32,
}

/// A node in trouble.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorstNode {
    /// The node's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The generation it runs; absent when none or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// Age of its oldest line that Loki has not acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<u32>,
    /// What it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub last_error: Option<String>,
}

/// Which namespaces are collected: names only of those that the spec names.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceCounts {
    /// Named by the spec and collected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<NamespaceName>>", length(max = 64))]
    pub granted: Vec<String>,
    /// Named by the spec, but the ServiceAccount may not read their logs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<NamespaceName>>", length(max = 64))]
    pub denied: Vec<String>,
    /// All that are collected.
    pub granted_count: u32,
    /// All that are selected, but the ServiceAccount may not read their logs.
    pub denied_count: u32,
}

/// A namespace's name; only its schema is used.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[allow(dead_code, reason = "stands for its schema")]
struct NamespaceName(#[schemars(length(max = 63))] String);

/// Lines that Loki refused for good.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedLines {
    /// Loki's reason, such as `line_too_long`.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// How many lines.
    pub lines: u64,
}

/// Lines that were read and given up.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostLines {
    /// How many lines.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Lines of a container that vanished before they were read; how many is not known.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// The container's namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// The container's pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// The container.
    #[schemars(length(max = 253))]
    pub container: String,
    /// Why, such as `FilesDeleted`.
    #[schemars(length(max = 64))]
    pub cause: String,
    /// Timestamp of the last line before the gap; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub after: Option<String>,
    /// Timestamp of the first line behind the gap; absent when nothing is left of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub before: Option<String>,
    /// When the agent noticed.
    #[schemars(length(max = 64))]
    pub noticed: String,
}

/// Texts for the columns of `kubectl get`.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Display {
    /// Such as `37/40`.
    #[schemars(length(max = 32))]
    pub nodes: String,
    /// Such as `logging/ops`.
    #[schemars(length(max = 1400))]
    pub tenants: String,
    /// Such as `0s`; `-` while unknown.
    #[schemars(length(max = 16))]
    pub lag: String,
}
