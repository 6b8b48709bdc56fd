//! What one node collects and to which tenants it sends: written by the operator as JSON, read by the agent.
//!
//! A document holds no credentials and nothing of one node, so nodes that run the same share one. Its hash
//! is the SHA-256 of its canonical JSON; pipelines and tenants carry hashes of their own content, so that
//! status can compare content instead of counters.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::key::Key;
use crate::labels::LabelRules;
use crate::selector::{ContainerSelector, LabelSelector};

/// The version of the document's format that this build writes and reads.
pub const VERSION: u32 = 1;

/// Everything a node needs to know to collect logs, but for credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// Format version, [`VERSION`].
    pub version: u32,
    /// Pipelines, sorted by name. [`Document::read`] reads each on its own, so that one which this agent
    /// cannot read does not hide the others.
    #[serde(default)]
    pub pipelines: Vec<Pipeline>,
    /// Tenants that the pipelines refer to, sorted by name.
    #[serde(default)]
    pub tenants: Vec<Tenant>,
}

/// One `LogPipeline`, resolved: which containers, which labels, which tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pipeline {
    /// The pipeline's namespace and name.
    pub name: Key,
    /// The object's UID: positions belong to it, so a pipeline deleted and created anew starts anew.
    pub uid: String,
    /// `metadata.generation` that this content was made from; for display.
    #[serde(default)]
    pub generation: i64,
    /// Content hash, see [`Pipeline::seal`].
    #[serde(default)]
    pub hash: String,
    /// Tenants that get every line, 1 to 4.
    pub tenants: Vec<Key>,
    /// Which pods' containers are read.
    pub pods: PodSource,
    /// How streams are labelled.
    #[serde(default)]
    pub labels: LabelRules,
}

/// Containers whose logs a pipeline reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSource {
    /// Namespaces that the pipeline's `ServiceAccount` may read, sorted by name.
    pub namespaces: Vec<Namespace>,
    /// Pods by label; empty selects every pod of the namespaces.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Containers by name.
    #[serde(default)]
    pub containers: ContainerSelector,
    /// Where files begin that are older than the pipeline.
    #[serde(default)]
    pub start_at: StartAt,
    /// Which way the lines come; absent in JSON for the node's files.
    #[serde(default, skip_serializing_if = "ReadFrom::is_files")]
    pub read_from: ReadFrom,
    /// With [`ReadFrom::Api`] and [`StartAt::Now`]: the pipeline's creation in seconds since 1970. Of containers
    /// that are older nothing older is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

/// One namespace that a pipeline reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    /// The namespace's name.
    pub name: String,
    /// UID of the namespace object; absent in a document written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Creation of the namespace object in seconds since 1970. Lines older than this are not sent: a
    /// namespace created anew may belong to somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
    /// The labels of the namespace object that `fromNamespaceLabels` names, no others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where a pipeline begins in files that are older than itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum StartAt {
    /// At the beginning of what exists, as `kubectl logs` would show it.
    #[default]
    Beginning,
    /// At the end of what exists when the agent first sees the pipeline.
    Now,
}

/// Which way lines come: from the files of the node, or from the API server's `pods/log`, for clusters that forbid host
/// paths; through the API neither rotated files can be seen nor which of its two outputs a container wrote to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ReadFrom {
    /// From the kubelet's log files on the node.
    #[default]
    Files,
    /// From the API server, `pods/log`: for clusters that forbid host paths.
    #[serde(rename = "API")]
    Api,
}

impl ReadFrom {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_files(&self) -> bool {
        *self == Self::Files
    }
}

/// One tenant of a Loki, without its credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// The tenant object's namespace and name.
    pub name: Key,
    /// The object's UID; names its entry in the credential Secrets.
    pub uid: String,
    /// `metadata.generation` that this content was made from; for display.
    #[serde(default)]
    pub generation: i64,
    /// Content hash, see [`Tenant::seal`].
    #[serde(default)]
    pub hash: String,
    /// The full push URL, as [`crate::loki::push_url`] makes it.
    pub push_url: String,
    /// `X-Scope-OrgID`; absent for a Loki without tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Which credentials the requests carry; their values come separately.
    #[serde(default)]
    pub auth: Auth,
    /// How the server is verified.
    #[serde(default)]
    pub tls: Tls,
    /// Further request headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// What this Loki takes.
    #[serde(default)]
    pub limits: Limits,
    /// Batching and time-outs.
    #[serde(default)]
    pub delivery: Delivery,
}

/// Kind of credentials a tenant's requests carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Auth {
    /// None.
    #[default]
    None,
    /// User name and password (RFC 7617).
    Basic,
    /// A bearer token (RFC 6750).
    Bearer,
}

/// TLS towards a tenant; certificates and keys come with the credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// The credentials hold a CA bundle that replaces the system's.
    #[serde(default)]
    pub ca: bool,
    /// The credentials hold a client certificate and key.
    #[serde(default)]
    pub client_certificate: bool,
    /// Name that the server's certificate must carry instead of the URL's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Accept any certificate.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// A request header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The header's name.
    pub name: String,
    /// Its value; no credentials, they belong into a Secret.
    pub value: String,
}

/// What a tenant's Loki takes; the agent stays below, so that nothing is refused. Defaults are Loki 3.7's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Limits {
    /// Ceiling per agent in bytes of lines and structured metadata per second (`ingestion_rate_mb`).
    pub rate_bytes_per_second: u64,
    /// Largest burst in bytes (`ingestion_burst_size_mb`); no request is larger.
    pub burst_bytes: u64,
    /// Bytes per second of one stream (`per_stream_rate_limit`); the agent uses 0.8 of it.
    pub per_stream_rate_bytes_per_second: u64,
    /// Largest burst of one stream in bytes (`per_stream_rate_limit_burst`).
    pub per_stream_burst_bytes: u64,
    /// How far a line may lie behind the newest one of its stream, in milliseconds: half of Loki's
    /// `max_chunk_age`. Older ones go to streams of their own.
    pub out_of_order_window_ms: u64,
    /// Age in milliseconds from which on lines are not sent, but counted (`reject_old_samples_max_age`). Absent:
    /// all are sent, and age is Loki's to judge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reject_old_samples_max_age_ms: Option<u64>,
    /// Longest line in bytes (`max_line_size`); longer ones are cut into marked pieces.
    pub max_line_bytes: u64,
    /// Labels of one stream at most (`max_label_names_per_series`).
    pub max_label_names: u32,
    /// Bytes of one label value at most (`max_label_value_length`).
    pub max_label_value_bytes: u32,
    /// Structured metadata.
    pub structured_metadata: StructuredMetadata,
}

/// Limits of structured metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct StructuredMetadata {
    /// Whether the tenant takes any (`allow_structured_metadata`).
    pub allowed: bool,
    /// Bytes per line at most (`max_structured_metadata_size`).
    pub max_bytes: u32,
    /// Entries per line at most (`max_structured_metadata_entries_count`).
    pub max_count: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rate_bytes_per_second: 4 << 20,
            burst_bytes: 6 << 20,
            per_stream_rate_bytes_per_second: 3 << 20,
            per_stream_burst_bytes: 15 << 20,
            out_of_order_window_ms: 3_600_000,
            reject_old_samples_max_age_ms: None,
            max_line_bytes: 256 << 10,
            max_label_names: 15,
            max_label_value_bytes: 2048,
            structured_metadata: StructuredMetadata::default(),
        }
    }
}

impl Default for StructuredMetadata {
    fn default() -> Self {
        Self {
            allowed: true,
            max_bytes: 64 << 10,
            max_count: 128,
        }
    }
}

/// How a tenant's lines are batched and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Delivery {
    /// Uncompressed bytes of a request at most; 3.5 MiB is the ceiling, since Loki's ingesters refuse 4 MiB.
    pub batch_bytes: u64,
    /// How long a line waits for company, in milliseconds.
    pub batch_wait_ms: u64,
    /// Time-out of a request in milliseconds; below Loki's own 30 s every time-out may mean a duplicate.
    pub request_timeout_ms: u64,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            batch_bytes: 1 << 20,
            batch_wait_ms: 1_000,
            request_timeout_ms: 30_000,
        }
    }
}

/// A document that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON, or not of this shape.
    #[error("the document is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// A version that this build does not know.
    #[error("the document has version {found}, this agent reads version {VERSION}: update the agent")]
    Version {
        /// The version found.
        found: u64,
    },
}

/// One pipeline or tenant that could not be read; the others can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where it stands, such as `pipelines[2]`.
    pub path: String,
    /// Its `name`, where that much could be read.
    pub name: Option<Key>,
    /// What is wrong.
    pub error: String,
}

impl Document {
    /// A document of these parts, sorted and sealed.
    pub fn new(mut pipelines: Vec<Pipeline>, mut tenants: Vec<Tenant>) -> Self {
        pipelines.iter_mut().for_each(Pipeline::seal);
        tenants.iter_mut().for_each(Tenant::seal);
        pipelines.sort_by(|a, b| a.name.cmp(&b.name));
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            version: VERSION,
            pipelines,
            tenants,
        }
    }

    /// Canonical JSON: what is stored, and what the hash covers.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// SHA-256 of [`Document::to_json`], 32 hex digits of it: the name's unique part.
    pub fn hash(&self) -> String {
        content_hash(&self.to_json())
    }

    /// Reads a document part by part: what cannot be read is listed, the rest is there.
    ///
    /// # Errors
    /// When it is no JSON object, or of a version that this build does not know.
    pub fn read(json: &[u8]) -> Result<(Self, Vec<Refused>), ReadError> {
        #[derive(Deserialize)]
        struct Raw {
            version: u64,
            #[serde(default)]
            pipelines: Vec<serde_json::Value>,
            #[serde(default)]
            tenants: Vec<serde_json::Value>,
        }
        let raw: Raw = serde_json::from_slice(json)?;
        if raw.version != u64::from(VERSION) {
            return Err(ReadError::Version { found: raw.version });
        }
        let mut refused = Vec::new();
        let pipelines = read_each(raw.pipelines, "pipelines", &mut refused);
        let tenants = read_each(raw.tenants, "tenants", &mut refused);
        Ok((
            Self {
                version: VERSION,
                pipelines,
                tenants,
            },
            refused,
        ))
    }
}

fn read_each<T: serde::de::DeserializeOwned>(
    values: Vec<serde_json::Value>,
    list: &str,
    refused: &mut Vec<Refused>,
) -> Vec<T> {
    let mut read = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let name = value
            .get("name")
            .and_then(|name| name.as_str())
            .and_then(|name| name.parse().ok());
        match serde_json::from_value(value) {
            Ok(item) => read.push(item),
            Err(error) => {
                refused.push(Refused {
                    path: format!("{list}[{index}]"),
                    name,
                    error: error.to_string(),
                });
            }
        }
    }
    read
}

impl Pipeline {
    /// Sets `hash` from the content, which is everything but `generation` and `hash`.
    pub fn seal(&mut self) {
        let content = Self {
            generation: 0,
            hash: String::new(),
            ..self.clone()
        };
        self.hash = content_hash(&serde_json::to_vec(&content).unwrap_or_default());
    }
}

impl Tenant {
    /// Sets `hash` from the content, which is everything but `generation` and `hash`.
    pub fn seal(&mut self) {
        let content = Self {
            generation: 0,
            hash: String::new(),
            ..self.clone()
        };
        self.hash = content_hash(&serde_json::to_vec(&content).unwrap_or_default());
    }
}

/// SHA-256 as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _infallible = write!(hex, "{byte:02x}");
            hex
        })
}

/// The first 32 hex digits of SHA-256: short enough for names, long enough never to collide.
pub fn content_hash(bytes: &[u8]) -> String {
    let mut hex = sha256_hex(bytes);
    hex.truncate(32);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(name: &str) -> Pipeline {
        Pipeline {
            name: Key::new("team-a", name),
            uid: "u".into(),
            generation: 3,
            hash: String::new(),
            tenants: vec![Key::new("logging", "ops")],
            pods: PodSource {
                namespaces: vec![Namespace {
                    name: "team-a".into(),
                    uid: None,
                    created_at: None,
                    labels: BTreeMap::new(),
                }],
                selector: LabelSelector::default(),
                containers: ContainerSelector::default(),
                ..PodSource::default()
            },
            labels: LabelRules::default(),
        }
    }

    #[test]
    fn a_document_reads_back_as_it_was_written() {
        let document = Document::new(vec![pipeline("b"), pipeline("a")], Vec::new());
        let (read, refused) = Document::read(&document.to_json()).unwrap();
        assert!(refused.is_empty());
        assert_eq!(read, document);
        assert_eq!(read.hash(), document.hash());
    }

    #[test]
    fn one_unreadable_pipeline_does_not_hide_the_others() {
        let mut json =
            serde_json::to_value(Document::new(vec![pipeline("a"), pipeline("b")], Vec::new())).unwrap();
        json["pipelines"][0]["future"] = true.into();
        let (read, refused) = Document::read(json.to_string().as_bytes()).unwrap();
        assert_eq!(read.pipelines.len(), 1);
        assert_eq!(refused[0].path, "pipelines[0]");
        assert_eq!(refused[0].name, Some(Key::new("team-a", "a")));
        assert!(refused[0].error.contains("future"), "{}", refused[0].error);
    }

    #[test]
    fn a_newer_format_is_refused_whole() {
        let error = Document::read(br#"{"version":2}"#).unwrap_err();
        assert!(error.to_string().contains("update the agent"), "{error}");
    }

    #[test]
    fn the_hash_is_of_the_content_not_of_the_generation() {
        let (mut one, mut other) = (pipeline("a"), pipeline("a"));
        other.generation = 4;
        one.seal();
        other.seal();
        assert_eq!(one.hash, other.hash);
        other.labels.drop.push("app".into());
        other.seal();
        assert_ne!(one.hash, other.hash);
    }
}
