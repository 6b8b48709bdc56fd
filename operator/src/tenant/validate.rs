//! A `LokiTenant` in, its document entry and the Secrets that it wants out. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use sluice_engine::document::{self, Delivery, Header, Limits, StructuredMetadata, Tenant};
use sluice_engine::key::Key;
use sluice_engine::{loki, validate as rules};

use crate::api::LokiTenant;
use crate::api::conditions::reasons;
use crate::api::duration::milliseconds;
use crate::api::lokitenant::{self, AllowedNamespaces, SecretKeyRef};

/// Why a step refuses an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The condition's reason.
    pub reason: &'static str,
    /// One sentence with the remedy.
    pub message: String,
}

impl Rejection {
    /// A rejection.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The Secrets of its namespace that a tenant wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// User name and password.
    pub basic: Option<String>,
    /// A token.
    pub bearer: Option<SecretKeyRef>,
    /// A CA bundle.
    pub ca: Option<SecretKeyRef>,
    /// Client certificate and key.
    pub client: Option<String>,
}

impl Wanted {
    /// Their names.
    pub fn names(&self) -> BTreeSet<&str> {
        let keyed = [&self.bearer, &self.ca]
            .into_iter()
            .flatten()
            .map(|reference| reference.name.as_str());
        [&self.basic, &self.client]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .chain(keyed)
            .collect()
    }
}

/// A tenant whose spec is valid, and which counts in its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Its document entry, not sealed.
    pub entry: Tenant,
    /// The Secrets it wants.
    pub wanted: Wanted,
    /// Whose pipelines it serves.
    pub allowed: AllowedNamespaces,
}

/// Checks a tenant and applies the defaults.
///
/// # Errors
/// When its namespace is none for tenants, or a field breaks a rule.
pub fn validate(tenant: &LokiTenant, namespaces: &BTreeSet<String>) -> Result<Validated, Rejection> {
    let key = Key::new(tenant.namespace().unwrap_or_default(), tenant.name_any());
    if !namespaces.contains(&key.namespace) {
        let known = namespaces.iter().cloned().collect::<Vec<_>>().join(", ");
        return Err(Rejection::new(
            reasons::NAMESPACE_NOT_ALLOWED,
            format!(
                "LokiTenants do not count in namespace {}: create it in {known}, or add the namespace to the chart's tenantNamespaces",
                key.namespace
            ),
        ));
    }
    let spec = &tenant.spec;
    let push_url = loki::push_url(&spec.url)
        .map_err(|error| Rejection::new(reasons::INVALID, format!("url: {error}")))?;
    let auth = spec.auth.clone().unwrap_or_default();
    let tls = spec.tls.clone().unwrap_or_default();
    let entry = Tenant {
        name: key,
        uid: tenant.uid().unwrap_or_default(),
        generation: tenant.metadata.generation.unwrap_or_default(),
        hash: String::new(),
        push_url,
        tenant_id: spec.tenant_id.clone(),
        auth: match (&auth.basic, &auth.bearer) {
            (Some(_), _) => document::Auth::Basic,
            (None, Some(_)) => document::Auth::Bearer,
            (None, None) => document::Auth::None,
        },
        tls: document::Tls {
            ca: tls.ca_secret_ref.is_some(),
            client_certificate: tls.client_secret_ref.is_some(),
            server_name: tls.server_name.clone(),
            insecure_skip_verify: tls.insecure_skip_verify.unwrap_or_default(),
        },
        headers: spec
            .headers
            .iter()
            .flatten()
            .map(|header| Header {
                name: header.name.clone(),
                value: header.value.clone(),
            })
            .collect(),
        limits: limits(spec.limits.as_ref())?,
        delivery: delivery(spec.delivery.as_ref())?,
    };
    let violations = rules::tenant(&entry);
    if !violations.is_empty() {
        return Err(Rejection::new(reasons::INVALID, rules::join(&violations)));
    }
    let wanted = Wanted {
        basic: auth.basic.map(|basic| basic.secret_ref.name),
        bearer: auth.bearer.map(|bearer| bearer.secret_ref),
        ca: tls.ca_secret_ref,
        client: tls.client_secret_ref.map(|client| client.name),
    };
    Ok(Validated {
        entry,
        wanted,
        allowed: spec.allowed_namespaces.clone().unwrap_or_default(),
    })
}

/// Milliseconds of a duration as it stands in the spec.
fn duration(field: &str, text: &str) -> Result<u64, Rejection> {
    milliseconds(text).ok_or_else(|| {
        Rejection::new(
            reasons::INVALID,
            format!("{field}: {text:?} is no duration: write it as 1s or 250ms"),
        )
    })
}

fn limits(spec: Option<&lokitenant::Limits>) -> Result<Limits, Rejection> {
    let Some(spec) = spec else {
        return Ok(Limits::default());
    };
    let window = spec.out_of_order_window.as_ref();
    let window = window.map(|text| duration("limits.outOfOrderWindow", text));
    let max_age = spec.reject_old_samples_max_age.as_ref();
    let max_age = max_age.map(|text| duration("limits.rejectOldSamplesMaxAge", text));
    let default = Limits::default();
    let metadata = spec.structured_metadata.clone().unwrap_or_default();
    let metadata_default = StructuredMetadata::default();
    Ok(Limits {
        rate_bytes_per_second: spec
            .rate_bytes_per_second
            .unwrap_or(default.rate_bytes_per_second),
        burst_bytes: spec.burst_bytes.unwrap_or(default.burst_bytes),
        per_stream_rate_bytes_per_second: spec
            .per_stream_rate_bytes_per_second
            .unwrap_or(default.per_stream_rate_bytes_per_second),
        per_stream_burst_bytes: spec
            .per_stream_burst_bytes
            .unwrap_or(default.per_stream_burst_bytes),
        out_of_order_window_ms: window.transpose()?.unwrap_or(default.out_of_order_window_ms),
        reject_old_samples_max_age_ms: max_age.transpose()?,
        max_line_bytes: spec.max_line_bytes.unwrap_or(default.max_line_bytes),
        max_label_names: spec.max_label_names.unwrap_or(default.max_label_names),
        max_label_value_bytes: spec
            .max_label_value_bytes
            .unwrap_or(default.max_label_value_bytes),
        structured_metadata: StructuredMetadata {
            allowed: metadata.allowed.unwrap_or(metadata_default.allowed),
            max_bytes: metadata.max_bytes.unwrap_or(metadata_default.max_bytes),
            max_count: metadata.max_count.unwrap_or(metadata_default.max_count),
        },
    })
}

fn delivery(spec: Option<&lokitenant::Delivery>) -> Result<Delivery, Rejection> {
    let Some(spec) = spec else {
        return Ok(Delivery::default());
    };
    let default = Delivery::default();
    let read = |field: &str, text: Option<&String>, default: u64| match text {
        None => Ok(default),
        Some(text) => duration(&format!("delivery.{field}"), text),
    };
    Ok(Delivery {
        batch_bytes: spec.batch_bytes.unwrap_or(default.batch_bytes),
        batch_wait_ms: read("batchWait", spec.batch_wait.as_ref(), default.batch_wait_ms)?,
        request_timeout_ms: read(
            "requestTimeout",
            spec.request_timeout.as_ref(),
            default.request_timeout_ms,
        )?,
    })
}
