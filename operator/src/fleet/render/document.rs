//! Shares in, the document out: cut down to what belongs together, serialised and compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use flate2::{Compression, GzBuilder};
use sluice_engine::document::{Document, content_hash};
use sluice_engine::key::Key;
use sluice_engine::pointer::DocumentRef;
use sluice_engine::well_known::credentials_secret;

use crate::fleet::desired::Shares;

/// Compressed bytes of one `ConfigMap` at most; etcd takes 1.5 MiB, the API server 1 MiB of data.
const PART_BYTES: usize = 900_000;

/// A document, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// [`Document::hash`].
    pub hash: String,
    /// Compressed bytes, in parts; at least one.
    pub parts: Vec<Vec<u8>>,
    /// Content hashes of the pipelines in it.
    pub pipelines: BTreeMap<Key, String>,
    /// Content hashes of the tenants in it.
    pub tenants: BTreeMap<Key, String>,
    /// Credential Secrets that its tenants need.
    pub secrets: BTreeSet<String>,
}

impl Package {
    /// The document as pointers name it.
    pub fn reference(&self) -> DocumentRef {
        DocumentRef {
            hash: self.hash.clone(),
            parts: u32::try_from(self.parts.len()).unwrap_or(u32::MAX),
        }
    }
}

/// Renders the document of everything that may be collected.
///
/// A tenant reaches it only when a pipeline refers to it. A tenant that is gone is cut from its pipelines:
/// agents would refuse them otherwise and go on sending with their last content.
pub fn render(shares: &Shares) -> Package {
    let mut pipelines: Vec<_> = shares
        .pipelines
        .values()
        .filter_map(|share| share.pipeline.clone())
        .collect();
    for pipeline in &mut pipelines {
        pipeline
            .tenants
            .retain(|tenant| shares.tenants.contains_key(tenant));
    }
    pipelines.retain(|pipeline| !pipeline.tenants.is_empty());
    let wanted: BTreeSet<&Key> = pipelines.iter().flat_map(|pipeline| &pipeline.tenants).collect();
    let tenants: Vec<_> = shares
        .tenants
        .iter()
        .filter(|(key, _)| wanted.contains(key))
        .map(|(_, share)| share.tenant.clone())
        .collect();
    let secrets = shares
        .tenants
        .iter()
        .filter(|(key, share)| wanted.contains(key) && share.credentials.is_some())
        .map(|(_, share)| credentials_secret(&share.tenant.uid))
        .collect();

    let document = Document::new(pipelines, tenants);
    let json = document.to_json();
    Package {
        hash: content_hash(&json),
        parts: compress(&json, PART_BYTES),
        pipelines: document
            .pipelines
            .into_iter()
            .map(|pipeline| (pipeline.name, pipeline.hash))
            .collect(),
        tenants: document
            .tenants
            .into_iter()
            .map(|tenant| (tenant.name, tenant.hash))
            .collect(),
        secrets,
    }
}

/// Compresses without a time in the header, so that equal content gives equal bytes.
fn compress(json: &[u8], part_bytes: usize) -> Vec<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    // a Vec takes everything that it is given
    encoder.write_all(json).ok();
    let bytes = encoder.finish().unwrap_or_default();
    bytes.chunks(part_bytes).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::render::tests::{key, shares};
    use flate2::read::MultiGzDecoder;
    use std::io::Read;

    fn read(package: &Package) -> Document {
        let mut json = Vec::new();
        MultiGzDecoder::new(package.parts.concat().as_slice())
            .read_to_end(&mut json)
            .unwrap();
        assert_eq!(content_hash(&json), package.hash);
        let (document, refused) = Document::read(&json).unwrap();
        assert_eq!(refused, []);
        document
    }

    #[test]
    fn a_document_comes_back_as_it_was() {
        let package = render(&shares());
        let document = read(&package);
        assert_eq!(document.pipelines.len(), 2);
        assert_eq!(document.hash(), package.hash);
        assert_eq!(package, render(&shares()), "equal shares give equal bytes");
    }

    #[test]
    fn a_tenant_that_nobody_refers_to_stays_out() {
        let package = render(&shares());
        assert!(package.tenants.contains_key(&key("logging/ops")));
        assert!(!package.tenants.contains_key(&key("logging/unused")));
    }

    #[test]
    fn a_tenant_that_is_gone_is_cut_from_its_pipelines() {
        let mut shares = shares();
        shares.tenants.remove(&key("logging/dev"));
        let document = read(&render(&shares));
        let names: Vec<_> = document
            .pipelines
            .iter()
            .map(|pipeline| pipeline.name.to_string())
            .collect();
        assert_eq!(names, ["team-a/app"], "team-b/app had no other tenant");
        assert_eq!(document.pipelines[0].tenants, [key("logging/ops")]);
    }

    #[test]
    fn parts_together_are_the_document() {
        let noise: Vec<u8> = (0u32..5_000)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let parts = compress(&noise, 1_000);
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= 1_000));
        let mut back = Vec::new();
        MultiGzDecoder::new(parts.concat().as_slice())
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back, noise);
    }

    #[test]
    fn an_empty_fleet_has_a_document_as_well() {
        let package = render(&Shares::default());
        assert_eq!(package.parts.len(), 1);
        assert_eq!(read(&package).pipelines, []);
    }
}
