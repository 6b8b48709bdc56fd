//! The mounted YAML file in, checked settings out: what the chart's values say about operator and agents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, LocalObjectReference, ResourceRequirements, SELinuxOptions, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_engine::well_known::{LOG_ROOT, STATE_DIR};

/// Everything that an installation decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// The operator's own namespace; not in the file, it comes from the pod.
    #[serde(skip)]
    pub namespace: String,
    /// Namespaces whose `LokiTenant`s count; empty means the operator's own.
    pub tenant_namespaces: BTreeSet<String>,
    /// Whether one review for all namespaces comes first; off for authorizers where "all" does not imply each.
    pub review_all_namespaces: bool,
    /// Whether a tenant's URL may lead to a loopback or link-local address.
    pub allow_local_addresses: bool,
    /// `error`, `warn`, `info`, `debug` or `trace`; also of the agents.
    pub log_level: String,
    /// How agents run.
    pub agent: AgentSettings,
}

/// How agents run: what reaches the `DaemonSet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AgentSettings {
    /// The agent's image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Secrets of the operator's namespace with the registry's credentials.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Requests and limits.
    pub resources: ResourceRequirements,
    /// Taints that agents bear; by default all.
    pub tolerations: Vec<Toleration>,
    /// Labels of the nodes that run an agent, beside `kubernetes.io/os: linux`.
    pub node_selector: BTreeMap<String, String>,
    /// Affinity; its required node affinity decides which nodes count.
    pub affinity: Option<Affinity>,
    /// Priority class.
    pub priority_class_name: Option<String>,
    /// Further annotations of the pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Further labels of the pods.
    pub pod_labels: BTreeMap<String, String>,
    /// Whether agents see folders of their node; without, logs are read through the API only and the agents' state does
    /// not outlive their pods.
    pub host_paths: bool,
    /// Which folders.
    pub paths: Paths,
    /// `SELinux` context, such as `{type: spc_t}`.
    pub se_linux_options: Option<SELinuxOptions>,
    /// Further environment, such as `RUST_LOG`.
    pub env: Vec<EnvVar>,
}

/// Folders of the node that agents see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Paths {
    /// Where the kubelet writes container logs; mounted read-only.
    pub log_root: String,
    /// Where agents keep their positions; the one folder that they write.
    pub state_dir: String,
    /// Further folders, mounted read-only, for runtimes whose log files are links into a folder of their own.
    pub extra: Vec<String>,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            log_root: LOG_ROOT.into(),
            state_dir: STATE_DIR.into(),
            extra: Vec::new(),
        }
    }
}

impl Default for AgentSettings {
    fn default() -> Self {
        let quantity = |name: &str, value: &str| (name.to_owned(), Quantity(value.to_owned()));
        Self {
            image: format!("ghcr.io/sluice-dev/sluice-agent:{}", env!("CARGO_PKG_VERSION")),
            image_pull_policy: "IfNotPresent".into(),
            image_pull_secrets: Vec::new(),
            resources: ResourceRequirements {
                requests: Some([quantity("cpu", "10m"), quantity("memory", "24Mi")].into()),
                limits: Some([quantity("memory", "128Mi")].into()),
                ..ResourceRequirements::default()
            },
            tolerations: vec![Toleration {
                operator: Some("Exists".into()),
                ..Toleration::default()
            }],
            node_selector: BTreeMap::new(),
            affinity: None,
            priority_class_name: None,
            pod_annotations: BTreeMap::new(),
            pod_labels: BTreeMap::new(),
            host_paths: true,
            paths: Paths::default(),
            se_linux_options: None,
            env: Vec::new(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: sluice_engine::well_known::NAMESPACE.into(),
            tenant_namespaces: BTreeSet::new(),
            review_all_namespaces: true,
            allow_local_addresses: false,
            log_level: "info".into(),
            agent: AgentSettings::default(),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the settings {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML, or a key has a value of the wrong type.
    #[error("the settings are not valid: {0}")]
    Yaml(String),
    /// A key that nothing reads, most often misspelt.
    #[error("the settings hold the unknown key {0}")]
    Unknown(String),
    /// A value that cannot be right.
    #[error("the setting {key} is not valid: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Settings {
    /// Reads the file at `path`; without one every setting has its default.
    ///
    /// # Errors
    /// When the file cannot be read or a setting in it is wrong; the error names the key.
    pub fn load(path: Option<&Path>, namespace: &str) -> Result<Self, Error> {
        match path {
            Some(path) => {
                let read = std::fs::read_to_string(path);
                Self::parse(
                    &read.map_err(|source| Error::Read {
                        path: path.into(),
                        source,
                    })?,
                    namespace,
                )
            }
            None => Self::parse("{}", namespace),
        }
    }

    /// Reads settings from YAML.
    ///
    /// # Errors
    /// When a setting is wrong; the error names the key.
    pub fn parse(yaml: &str, namespace: &str) -> Result<Self, Error> {
        let invalid = |error: serde_saphyr::Error| Error::Yaml(error.to_string());
        let text = if yaml.trim().is_empty() { "{}" } else { yaml };
        let given: Value = serde_saphyr::from_str(text).map_err(invalid)?;
        let mut settings: Self = serde_saphyr::from_str(text).map_err(invalid)?;
        // Kubernetes' own types overlook keys that they do not know
        let understood = serde_json::to_value(&settings).map_err(|error| Error::Yaml(error.to_string()))?;
        if let Some(path) = unknown("", &given, &understood) {
            return Err(Error::Unknown(path));
        }
        namespace.clone_into(&mut settings.namespace);
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |key, problem: &str| {
            Err(Error::Value {
                key,
                problem: problem.to_owned(),
            })
        };
        if !["error", "warn", "info", "debug", "trace"].contains(&self.log_level.as_str()) {
            return wrong("logLevel", "it must be error, warn, info, debug or trace");
        }
        if let Some(name) = self.tenant_namespaces.iter().find(|name| !is_namespace(name)) {
            return wrong(
                "tenantNamespaces",
                &format!("{name:?} cannot be the name of a namespace"),
            );
        }
        if self.agent.image.trim().is_empty() {
            return wrong("agent.image", "it must name an image");
        }
        if !["Always", "IfNotPresent", "Never"].contains(&self.agent.image_pull_policy.as_str()) {
            return wrong(
                "agent.imagePullPolicy",
                "it must be Always, IfNotPresent or Never",
            );
        }
        let Paths {
            log_root,
            state_dir,
            extra,
        } = &self.agent.paths;
        let absolute = |path: &String| {
            path.starts_with('/') && path.len() > 1 && !path.split('/').any(|part| part == "..")
        };
        if !absolute(log_root) || !extra.iter().all(absolute) {
            return wrong(
                "agent.paths",
                "logRoot and extra must be absolute paths without ..",
            );
        }
        if !absolute(state_dir) {
            return wrong("agent.paths.stateDir", "it must be an absolute path without ..");
        }
        let reserved = |name: &str| crate::fleet::render::daemon_set::ENVIRONMENT.contains(&name);
        if let Some(taken) = self.agent.env.iter().find(|variable| reserved(&variable.name)) {
            return wrong("agent.env", &format!("{} is set by the operator", taken.name));
        }
        Ok(())
    }
}

/// Whether this can be the name of a namespace. An empty one would mean all of them to the API server.
pub fn is_namespace(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The path of the first key in `given` that did not survive in `understood`.
fn unknown(path: &str, given: &Value, understood: &Value) -> Option<String> {
    let join = |key: &str| {
        if path.is_empty() {
            key.to_owned()
        } else {
            format!("{path}.{key}")
        }
    };
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            given.iter().find_map(|(key, value)| match understood.get(key) {
                Some(found) => unknown(&join(key), value, found),
                None if value.is_null() => None,
                None => Some(join(key)),
            })
        }
        (Value::Array(given), Value::Array(understood)) => given
            .iter()
            .zip(understood)
            .enumerate()
            .find_map(|(index, (given, understood))| unknown(&format!("{path}[{index}]"), given, understood)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
