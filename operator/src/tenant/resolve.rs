//! A valid tenant and the Secrets it wants in; its sealed document entry and its credentials out.
//!
//! [`look_up`] reads; [`resolve`] is pure. Only Secrets of the tenant's own namespace that carry the label
//! are ever read; of others nothing but their existence is asked for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt as _};
use sluice_engine::credentials::{Basic, Credentials};
use sluice_engine::document::Tenant;
use sluice_engine::well_known::CREDENTIALS_LABEL;

use super::validate::{Rejection, Validated};
use crate::api::conditions::reasons;
use crate::api::lokitenant::AllowedNamespaces;

/// A Secret as far as a tenant may see it.
#[derive(Clone, PartialEq, Eq)]
pub enum Found {
    /// It is labelled: its data.
    Data(BTreeMap<String, Vec<u8>>),
    /// It exists, without the label.
    NotLabelled,
    /// It does not exist.
    Missing,
}

/// A tenant with its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Its document entry, sealed.
    pub entry: Tenant,
    /// Its credentials.
    pub credentials: Option<Credentials>,
    /// Whose pipelines it serves.
    pub allowed: AllowedNamespaces,
}

/// Secrets that could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator lacks the right.
    #[error("the Secrets of namespace {0} may not be read")]
    Forbidden(String),
    /// A Secret exists which the watch has not shown yet.
    #[error("the labelled Secrets of namespace {0} are not listed yet")]
    NotListed(String),
    /// The API server does not answer.
    #[error(transparent)]
    Api(kube::Error),
}

/// Finds the Secrets that a tenant wants.
///
/// # Errors
/// When the API server refuses or does not answer, or while the watch has not shown what there is.
pub async fn look_up(
    client: &Client,
    secrets: Option<&Store<Secret>>,
    tenant: &Validated,
) -> Result<BTreeMap<String, Found>, Error> {
    let namespace = &tenant.entry.name.namespace;
    let mut found = BTreeMap::new();
    for name in tenant.wanted.names() {
        let labelled = secrets.and_then(|store| store.get(&ObjectRef::new(name).within(namespace)));
        let secret = if let Some(secret) = labelled {
            let data = secret
                .data
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.0.clone()))
                .collect();
            Found::Data(data)
        } else {
            let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let found = api.get_metadata_opt(name).await.map_err(|error| {
                if matches!(&error, kube::Error::Api(status) if status.code == 403) {
                    Error::Forbidden(namespace.clone())
                } else {
                    Error::Api(error)
                }
            })?;
            match found {
                Some(found)
                    if found
                        .labels()
                        .get(CREDENTIALS_LABEL)
                        .is_some_and(|value| value == "true") =>
                {
                    return Err(Error::NotListed(namespace.clone()));
                }
                Some(_) => Found::NotLabelled,
                None => Found::Missing,
            }
        };
        found.insert(name.to_owned(), secret);
    }
    Ok(found)
}

/// Makes the credentials.
///
/// # Errors
/// When a Secret is missing, not labelled, or lacks a key.
pub fn resolve(tenant: Validated, secrets: &BTreeMap<String, Found>) -> Result<Resolved, Rejection> {
    let namespace = tenant.entry.name.namespace.clone();
    let value = |secret: &str, key: &str| text(&namespace, secret, key, secrets.get(secret));
    let wanted = &tenant.wanted;
    let mut credentials = Credentials::default();
    if let Some(secret) = &wanted.basic {
        credentials.basic = Some(Basic {
            username: value(secret, "username")?,
            password: value(secret, "password")?,
        });
    }
    if let Some(reference) = &wanted.bearer {
        credentials.bearer = Some(value(&reference.name, &reference.key)?.trim().to_owned());
    }
    if let Some(reference) = &wanted.ca {
        credentials.ca = Some(value(&reference.name, &reference.key)?);
    }
    if let Some(secret) = &wanted.client {
        credentials.client_certificate = Some(value(secret, "tls.crt")?);
        credentials.client_key = Some(value(secret, "tls.key")?);
    }
    let mut entry = tenant.entry;
    entry.seal();
    let credentials = (credentials != Credentials::default()).then_some(credentials);
    Ok(Resolved {
        entry,
        credentials,
        allowed: tenant.allowed,
    })
}

fn text(namespace: &str, secret: &str, key: &str, found: Option<&Found>) -> Result<String, Rejection> {
    let data = match found {
        Some(Found::Data(data)) => data,
        Some(Found::NotLabelled) => {
            return Err(Rejection::new(
                reasons::SECRET_NOT_LABELLED,
                format!(
                    "the Secret {secret} may not be read as credentials: run `kubectl label secret {secret} -n {namespace} {CREDENTIALS_LABEL}=true`"
                ),
            ));
        }
        Some(Found::Missing) | None => {
            return Err(Rejection::new(
                reasons::SECRET_NOT_FOUND,
                format!(
                    "the Secret {secret} does not exist: create it in namespace {namespace} with the label {CREDENTIALS_LABEL}=true"
                ),
            ));
        }
    };
    let missing = |what: &str| {
        Rejection::new(
            reasons::SECRET_KEY_MISSING,
            format!("the Secret {secret} {what} the key {key}: add it in namespace {namespace}"),
        )
    };
    let value = data
        .get(key)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| missing("lacks"))?;
    String::from_utf8(value.clone()).map_err(|_| missing("has no text under"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LokiTenant;
    use crate::tenant::validate::validate;

    fn tenant(auth: &str) -> Validated {
        let text = format!(
            "{{apiVersion: sluice.dev/v1alpha1, kind: LokiTenant, metadata: {{name: ops, namespace: logging, uid: u}}, spec: {{url: 'http://loki', auth: {auth}}}}}"
        );
        let tenant: LokiTenant = serde_saphyr::from_str(&text).unwrap();
        validate(&tenant, &["logging".to_owned()].into()).unwrap()
    }

    fn reason(auth: &str, found: Found) -> (&'static str, String) {
        let error = resolve(tenant(auth), &[("s".to_owned(), found)].into()).unwrap_err();
        (error.reason, error.message)
    }

    #[test]
    fn each_trouble_with_a_secret_has_its_reason_and_remedy() {
        let basic = "{basic: {secretRef: {name: s}}}";
        assert_eq!(reason(basic, Found::Missing).0, "SecretNotFound");
        let (labelled, message) = reason(basic, Found::NotLabelled);
        assert_eq!(labelled, "SecretNotLabelled");
        assert!(
            message.contains("kubectl label secret s -n logging sluice.dev/credentials=true"),
            "{message}"
        );
        let user = || ("username".to_owned(), b"u".to_vec());
        let (missing, message) = reason(basic, Found::Data([user()].into()));
        assert_eq!(missing, "SecretKeyMissing");
        assert!(message.contains("key password"), "{message}");
        let binary = ("password".to_owned(), vec![0xff]);
        assert_eq!(
            reason(basic, Found::Data([user(), binary].into())).0,
            "SecretKeyMissing"
        );
    }

    #[test]
    fn a_token_loses_its_newline_and_a_tenant_without_auth_has_no_credentials() {
        let found = Found::Data([("t".to_owned(), b"abc\n".to_vec())].into());
        let resolved = resolve(
            tenant("{bearer: {secretRef: {name: s, key: t}}}"),
            &[("s".to_owned(), found)].into(),
        )
        .unwrap();
        assert_eq!(resolved.credentials.unwrap().bearer.as_deref(), Some("abc"));
        assert_eq!(resolved.entry.hash.len(), 32);
        assert_eq!(
            resolve(tenant("null"), &BTreeMap::new()).unwrap().credentials,
            None
        );
    }
}
