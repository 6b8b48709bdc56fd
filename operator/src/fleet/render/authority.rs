//! The authority in, its Secret out: it stays with the operator, agents never see the key.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::cluster::names::{Owner, metadata};
use crate::fleet::certificates::{Certificates, EXPIRES};

/// Name of the Secret.
pub const NAME: &str = "sluice-ca";
/// Key of the PEM certificate.
pub const CERTIFICATE: &str = "ca.crt";
/// Key of the PEM key.
pub const KEY: &str = "ca.key";

/// Renders the Secret.
pub fn render(certificates: &Certificates, namespace: &str, owner: &Owner) -> Secret {
    let authority = &certificates.authority;
    let mut metadata = metadata(namespace, NAME, "certificates", owner);
    metadata.annotations = Some(BTreeMap::from([(EXPIRES.into(), authority.expires.to_string())]));
    let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
    Secret {
        metadata,
        data: Some(
            [
                entry(CERTIFICATE, &authority.certificate),
                entry(KEY, &authority.key),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}
