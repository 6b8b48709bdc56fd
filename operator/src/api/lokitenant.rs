//! `LokiTenant`: one tenant of a Grafana Loki, its address, credentials, limits, and who may use it.

#![allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "KubeSchema derives from hidden copies of these types; columns repeat their attributes"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_engine::selector::LabelSelector;

/// What the author wants of a tenant.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "LokiTenant",
    namespaced,
    status = "LokiTenantStatus",
    derive = "PartialEq",
    shortname = "lt",
    category = "sluice",
    doc = "One tenant of a Grafana Loki: address, credentials, limits, and whose LogPipelines may use it.",
    printcolumn(
        name = "READY",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "TENANT-ID", type_ = "string", json_path = ".spec.tenantID"),
    printcolumn(name = "PIPELINES", type_ = "integer", json_path = ".status.pipelines"),
    printcolumn(
        name = "REASON",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LokiTenantSpec {
    /// Base or full push URL; `/loki/api/v1/push` is added when the path is empty or `/`.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''").message("url is not an http or https URL: write http(s)://host[:port][/path]"))]
    #[x_kube(validation = Rule::new("!self.matches('^[^/]*//[^/?#]*@')").message("url holds credentials: put them into a Secret and name it in auth.basic.secretRef"))]
    #[x_kube(validation = Rule::new("!self.contains('?') && !self.contains('#')").message("url has a query or a fragment: leave it out"))]
    pub url: String,
    /// Sent as `X-Scope-OrgID`. Absent: a Loki without tenants, no header.
    #[serde(rename = "tenantID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 150))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9!_.*\\'()-]+$') && self != '.' && self != '..'").message("tenantID is not one that Loki takes: use letters, digits and !-_.*'(), not . or .."))]
    pub tenant_id: Option<String>,
    /// Credentials of requests; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// How an https server is verified; absent: by the system's CAs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Further request headers; no credentials, they belong into a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Option<Vec<Header>>,
    /// Whose LogPipelines may refer to this tenant; absent: those of its own namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// What this Loki takes; the agent stays below it, so that nothing is refused. Defaults are Loki's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Batching and time-outs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
}

/// Credentials of requests.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.basic) != has(self.bearer)").message("auth needs exactly one of basic and bearer: keep one, or leave auth out for a Loki without credentials"))]
pub struct Auth {
    /// User name and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuth>,
}

/// User name and password.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// A Secret of this namespace with the keys `username` and `password`.
    pub secret_ref: SecretRef,
}

/// A bearer token.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BearerAuth {
    /// A Secret of this namespace and the key that holds the token.
    pub secret_ref: SecretKeyRef,
}

/// A Secret of the tenant's namespace, labelled `sluice.dev/credentials: "true"`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A key of a Secret of the tenant's namespace, labelled `sluice.dev/credentials: "true"`.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How an https server is verified.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// A PEM bundle of CAs that replaces the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// A Secret with the keys `tls.crt` and `tls.key`: the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<SecretRef>,
    /// Name that the server's certificate must carry instead of the URL's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// Accept any certificate; default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

/// A request header.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The header's name.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    #[x_kube(validation = Rule::new("!(self.lowerAscii() in ['x-scope-orgid', 'authorization', 'host', 'transfer-encoding', 'connection', 'proxy-authorization', 'te', 'upgrade']) && !self.lowerAscii().startsWith('content-')").message("headers.name is a header that Sluice sets itself: use tenantID for X-Scope-OrgID, auth for Authorization, and leave the others out"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 1024), regex(pattern = r"^[\t -~]*$"))]
    pub value: String,
}

/// Whose LogPipelines may refer to a tenant.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(has(self.from) && self.from == 'Selector') == has(self.selector)").message("allowedNamespaces.selector goes with from: Selector, and only with it: set both or neither"))]
pub struct AllowedNamespaces {
    /// `Same` (default), `All`, or `Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<From>,
    /// Namespaces by label.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("allowedNamespaces.selector is empty: add matchLabels or matchExpressions, or write from: All"))]
    #[x_kube(validation = Rule::new("!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))").message("allowedNamespaces.selector.matchExpressions: In and NotIn need values, Exists and DoesNotExist take none"))]
    pub selector: Option<LabelSelector>,
}

/// From where a tenant may be referred to; default `Same`.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum From {
    /// The tenant's own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Namespaces that `selector` matches.
    Selector,
}

/// What a Loki takes. Each default is Loki's own.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Ceiling per agent (`ingestion_rate_mb`); default 4194304.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_u64))]
    pub rate_bytes_per_second: Option<u64>,
    /// Largest burst (`ingestion_burst_size_mb`); default 6291456.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_u64))]
    pub burst_bytes: Option<u64>,
    /// Rate of one stream (`per_stream_rate_limit`); default 3145728.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_u64))]
    pub per_stream_rate_bytes_per_second: Option<u64>,
    /// Largest burst of one stream (`per_stream_rate_limit_burst`); default 15728640.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_u64))]
    pub per_stream_burst_bytes: Option<u64>,
    /// How far a line may lie behind the newest one of its stream: half of Loki's `max_chunk_age`; default 1h. Lines older
    /// than that, as of a replica that was read late, go to streams of their own with the label `late`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s') && duration(self) <= duration('168h')").message("limits.outOfOrderWindow is out of range: use 10s to 168h, half of Loki's max_chunk_age"))]
    pub out_of_order_window: Option<String>,
    /// Lines older than this are not sent but counted as rejected (`reject_old_samples_max_age`); absent: all are sent, and
    /// their age is Loki's to judge.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m')").message("limits.rejectOldSamplesMaxAge is out of range: use at least 1m, or leave it out to send lines of any age"))]
    pub reject_old_samples_max_age: Option<String>,
    /// Longest line (`max_line_size`); longer ones are cut into marked pieces; default 262144.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 3_145_728))]
    pub max_line_bytes: Option<u64>,
    /// Labels of one stream (`max_label_names_per_series`); default 15. Not less than four that every profile has, `late` and `part`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 6, max = 1000))]
    pub max_label_names: Option<u32>,
    /// Bytes of one label value (`max_label_value_length`); default 2048. Not less than a node's name may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 253, max = 65_536))]
    pub max_label_value_bytes: Option<u32>,
    /// Limits of structured metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub structured_metadata: Option<StructuredMetadata>,
}

/// Limits of structured metadata.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StructuredMetadata {
    /// Whether any is taken (`allow_structured_metadata`); default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// Bytes per line (`max_structured_metadata_size`); default 65536.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_048_576))]
    pub max_bytes: Option<u32>,
    /// Entries per line (`max_structured_metadata_entries_count`); default 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1024))]
    pub max_count: Option<u32>,
}

/// Batching and time-outs.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Uncompressed bytes of a request at most; default 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16_384, max = 3_670_016))]
    pub batch_bytes: Option<u64>,
    /// How long a line waits for company; default 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('50ms') && duration(self) <= duration('10s')").message("delivery.batchWait is out of range: use 50ms to 10s"))]
    pub batch_wait: Option<String>,
    /// Time-out of a request; below Loki's own 30s every time-out may mean a duplicate; default 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = "^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('5m')").message("delivery.requestTimeout is out of range: use 1s to 5m"))]
    pub request_timeout: Option<String>,
}

/// What Sluice found.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LokiTenantStatus {
    /// The generation that this status is about; -1 before the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled; Accepted, ResolvedRefs, Reachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Option<Vec<Condition>>", length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Where lines are pushed.
    #[serde(rename = "pushURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub push_url: Option<String>,
    /// How many LogPipelines refer to this tenant and may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipelines: Option<u32>,
    /// The worst cause and what to do, in one sentence; absent while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub diagnosis: Option<String>,
}
