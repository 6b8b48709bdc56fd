//! Names in, the bytes that the API server holds out: documents checked against their hash, Secrets.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use sluice_engine::document::content_hash;
use sluice_engine::pointer::DocumentRef;
use sluice_engine::well_known::{DOCUMENT_KEY, document_name};

use super::keeper::Missing;

/// A document is never larger, compressed or not.
pub const MAX_DOCUMENT_BYTES: u64 = 64 << 20;
/// A connection that died silently must not hold up a change.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The API server said no, or nothing.
    #[error("{name}: {cause}")]
    Api {
        /// The object.
        name: String,
        /// What the API server said.
        cause: String,
    },
    /// The object has no such key.
    #[error("{0} has no {DOCUMENT_KEY} in binaryData")]
    NoContent(String),
    /// The bytes are not the document that the pointer names.
    #[error("document {hash}: {cause}")]
    Corrupt {
        /// The hash in the pointer.
        hash: String,
        /// What is wrong with the bytes.
        cause: String,
    },
}

/// A Secret that was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// Its name.
    pub name: String,
    /// The version that the pointer names.
    pub asked: String,
    /// The version that was fetched.
    pub version: String,
    /// Its data.
    pub data: BTreeMap<String, ByteString>,
}

/// Everything that one attempt brought.
#[derive(Debug, Default)]
pub struct Answer {
    /// The document's JSON.
    pub document: Option<Vec<u8>>,
    /// Secrets.
    pub secrets: Vec<Fetched>,
    /// What could not be fetched, to be tried again.
    pub errors: Vec<FetchError>,
}

/// Fetches what is missing: credentials first, so that no new tenant is told to lack them.
pub async fn all(client: kube::Client, namespace: String, missing: Missing) -> Answer {
    let mut answer = Answer::default();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    for (name, asked) in missing.secrets {
        match in_time(&name, secrets.get(&name)).await {
            Ok(secret) => answer.secrets.push(Fetched {
                name,
                asked,
                version: secret.metadata.resource_version.unwrap_or_default(),
                data: secret.data.unwrap_or_default(),
            }),
            Err(error) => answer.errors.push(error),
        }
    }
    if let Some(reference) = missing.document {
        match document(&Api::namespaced(client, &namespace), &reference).await {
            Ok(json) => answer.document = Some(json),
            Err(error) => answer.errors.push(error),
        }
    }
    answer
}

async fn document(api: &Api<ConfigMap>, reference: &DocumentRef) -> Result<Vec<u8>, FetchError> {
    let mut compressed = Vec::new();
    for part in 0..reference.parts.clamp(1, 64) {
        let name = document_name(&reference.hash, part);
        let mut object = in_time(&name, api.get(&name)).await?;
        let bytes = object
            .binary_data
            .as_mut()
            .and_then(|data| data.remove(DOCUMENT_KEY));
        compressed.extend(bytes.ok_or(FetchError::NoContent(name))?.0);
    }
    unpack(&compressed, &reference.hash)
}

/// Decompresses a document's bytes and checks that they are what the hash names.
///
/// # Errors
/// When they are not gzip, too large, or something else.
pub fn unpack(compressed: &[u8], hash: &str) -> Result<Vec<u8>, FetchError> {
    let corrupt = |cause: String| FetchError::Corrupt {
        hash: hash.to_owned(),
        cause,
    };
    let mut json = Vec::new();
    MultiGzDecoder::new(compressed)
        .take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut json)
        .map_err(|error| corrupt(error.to_string()))?;
    if json.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(corrupt(format!("it is larger than {MAX_DOCUMENT_BYTES} bytes")));
    }
    let found = content_hash(&json);
    if found == hash {
        Ok(json)
    } else {
        Err(corrupt(format!("its content has the hash {found}")))
    }
}

async fn in_time<T>(name: &str, get: impl Future<Output = kube::Result<T>>) -> Result<T, FetchError> {
    let cause = match tokio::time::timeout(TIMEOUT, get).await {
        Ok(Ok(object)) => return Ok(object),
        // Its text would quote what it could not read, and that may be a Secret.
        Ok(Err(kube::Error::SerdeError(_))) => "the API server's answer cannot be read".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the API server did not answer within {} s", TIMEOUT.as_secs()),
    };
    Err(FetchError::Api {
        name: name.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn only_what_the_hash_names_is_taken() {
        let hash = content_hash(b"{}");
        assert_eq!(unpack(&gzip(b"{}"), &hash).unwrap(), b"{}");
        assert!(
            unpack(&gzip(b"[]"), &hash)
                .unwrap_err()
                .to_string()
                .contains("has the hash")
        );
        assert!(unpack(b"{}", &hash).is_err());
        let whole = gzip(b"{}");
        assert!(unpack(&whole[..whole.len() - 2], &hash).is_err());
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = gzip(&vec![0; usize::try_from(MAX_DOCUMENT_BYTES).unwrap() + 2]);
        assert!(
            unpack(&bomb, "x")
                .unwrap_err()
                .to_string()
                .contains("larger than")
        );
    }
}
