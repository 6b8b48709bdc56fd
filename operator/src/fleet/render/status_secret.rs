//! Certificates and token in, the Secret out that agents serve `/status` with.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sluice_engine::well_known::STATUS_SECRET;

use crate::cluster::names::{Owner, metadata};
use crate::fleet::certificates::{Certificates, EXPIRES};

/// Key of the PEM server certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of its PEM key.
pub const KEY: &str = "tls.key";
/// Key of the authority's PEM certificate.
pub const AUTHORITY: &str = "ca.crt";
/// Key of the bearer token.
pub const TOKEN: &str = "token";

/// Renders the Secret.
pub fn render(certificates: &Certificates, namespace: &str, owner: &Owner) -> Secret {
    let Certificates {
        authority,
        server,
        token,
    } = certificates;
    let mut metadata = metadata(namespace, STATUS_SECRET, "certificates", owner);
    metadata.annotations = Some(BTreeMap::from([(EXPIRES.into(), server.expires.to_string())]));
    let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
    Secret {
        metadata,
        data: Some(
            [
                entry(CERTIFICATE, &server.certificate),
                entry(KEY, &server.key),
                entry(AUTHORITY, &authority.certificate),
                entry(TOKEN, token),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}
