//! A document in, what is in force out: each pipeline and tenant is taken on its own, and what is refused
//! keeps its last good content. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_engine::document::{Document, Pipeline, Refused, Tenant};
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;
use sluice_engine::validate;

use super::credentials::Store;
use super::{InForce, TenantInForce};

/// The last good content of everything that is in force.
#[derive(Debug, Default)]
pub struct Merged {
    document: String,
    pipelines: BTreeMap<Key, Arc<Pipeline>>,
    tenants: BTreeMap<Key, Arc<Tenant>>,
    refused: BTreeMap<Key, String>,
    deny: Vec<Denial>,
}

impl Merged {
    /// Hash of the document that is in force; empty before the first.
    pub fn document(&self) -> &str {
        &self.document
    }

    /// Pipelines whose newest content is not in force, or not all of it, and why.
    pub fn refused(&self) -> &BTreeMap<Key, String> {
        &self.refused
    }

    /// What is withdrawn.
    pub fn deny(&self) -> &[Denial] {
        &self.deny
    }

    /// Replaces what is withdrawn; says whether that changed anything.
    pub fn set_deny(&mut self, deny: Vec<Denial>) -> bool {
        let changed = self.deny != deny;
        self.deny = deny;
        changed
    }

    /// Says of every pipeline that its newest content is refused; for a document that cannot be read at all.
    pub fn refuse_all(&mut self, error: &str) {
        self.refused = self
            .pipelines
            .keys()
            .map(|name| (name.clone(), error.to_owned()))
            .collect();
    }

    /// Takes a document, as [`Document::read`] returned it. The result lists what was refused and has no
    /// name to report it under.
    pub fn apply(&mut self, hash: &str, document: Document, unreadable: Vec<Refused>) -> Vec<String> {
        let (mut refused_pipelines, mut refused_tenants) = (BTreeMap::new(), BTreeMap::new());
        let mut nameless = Vec::new();
        for refused in unreadable {
            let list = if refused.path.starts_with("tenants") {
                &mut refused_tenants
            } else {
                &mut refused_pipelines
            };
            match refused.name {
                Some(name) => _ = list.insert(name, refused.error),
                None => nameless.push(format!("{}: {}", refused.path, refused.error)),
            }
        }
        let tenants = self.tenants(document.tenants, &mut refused_tenants);
        let pipelines = self.pipelines(
            document.pipelines,
            &tenants,
            &refused_tenants,
            &mut refused_pipelines,
        );
        // Last good content needs the tenants that it was made with, also those which are gone since.
        let old = std::mem::replace(&mut self.tenants, tenants);
        for name in pipelines.values().flat_map(|pipeline| &pipeline.tenants) {
            if let (false, Some(tenant)) = (self.tenants.contains_key(name), old.get(name)) {
                self.tenants.insert(name.clone(), Arc::clone(tenant));
            }
        }
        self.pipelines = pipelines;
        self.refused = refused_pipelines;
        hash.clone_into(&mut self.document);
        nameless
    }

    /// The tenants to run: new ones that are valid, last good ones of those that are refused.
    fn tenants(&self, new: Vec<Tenant>, refused: &mut BTreeMap<Key, String>) -> BTreeMap<Key, Arc<Tenant>> {
        let mut tenants = BTreeMap::new();
        for tenant in new {
            let name = tenant.name.clone();
            let violations = validate::tenant(&tenant);
            if !violations.is_empty() {
                refused.insert(name, validate::join(&violations));
            } else if tenants.contains_key(&name) {
                refused.insert(name, "stands twice in the document: leave one out".to_owned());
            } else {
                tenants.insert(name.clone(), keep_equal(self.tenants.get(&name), tenant));
            }
        }
        for name in refused.keys() {
            if let (false, Some(last)) = (tenants.contains_key(name), self.tenants.get(name)) {
                tenants.insert(name.clone(), Arc::clone(last));
            }
        }
        tenants
    }

    /// The pipelines to run, likewise, without the outputs whose tenant is missing.
    fn pipelines(
        &self,
        new: Vec<Pipeline>,
        tenants: &BTreeMap<Key, Arc<Tenant>>,
        refused_tenants: &BTreeMap<Key, String>,
        refused: &mut BTreeMap<Key, String>,
    ) -> BTreeMap<Key, Arc<Pipeline>> {
        let mut pipelines = BTreeMap::new();
        for mut pipeline in new {
            let name = pipeline.name.clone();
            let violations = validate::pipeline(&pipeline);
            if !violations.is_empty() {
                refused.insert(name, validate::join(&violations));
                continue;
            }
            if pipelines.contains_key(&name) {
                refused.insert(name, "stands twice in the document: leave one out".to_owned());
                continue;
            }
            let mut notes = Vec::new();
            pipeline.tenants.retain(|tenant| {
                let present = tenants.contains_key(tenant);
                match (refused_tenants.get(tenant), present) {
                    (Some(error), true) => {
                        notes.push(format!("tenant {tenant} keeps its last good content: {error}"));
                    }
                    (Some(error), false) => {
                        notes.push(format!("nothing is sent to tenant {tenant}: {error}"));
                    }
                    (None, false) => {
                        notes.push(format!(
                            "nothing is sent to tenant {tenant}: it is not in the document"
                        ));
                    }
                    (None, true) => {}
                }
                present
            });
            if !notes.is_empty() {
                refused.insert(name.clone(), notes.join("; "));
            }
            if !pipeline.tenants.is_empty() {
                pipelines.insert(name.clone(), keep_equal(self.pipelines.get(&name), pipeline));
            }
        }
        for name in refused.keys() {
            if let (false, Some(last)) = (pipelines.contains_key(name), self.pipelines.get(name)) {
                pipelines.insert(name.clone(), Arc::clone(last));
            }
        }
        pipelines
    }

    /// What is in force, with the credentials that the node has.
    pub fn in_force(&self, credentials: &Store) -> InForce {
        InForce {
            document: self.document.clone(),
            pipelines: self.pipelines.values().cloned().collect(),
            tenants: self
                .tenants
                .values()
                .map(|tenant| TenantInForce {
                    tenant: Arc::clone(tenant),
                    credentials: credentials.of(tenant),
                    version: credentials.version(tenant),
                })
                .collect(),
            deny: self.deny.clone(),
            refused: self
                .refused
                .iter()
                .map(|(name, error)| (name.clone(), error.clone()))
                .collect(),
        }
    }

    /// The content in force as a document, for the cache.
    pub fn content(&self) -> Document {
        Document {
            version: sluice_engine::document::VERSION,
            pipelines: self
                .pipelines
                .values()
                .map(|pipeline| Pipeline::clone(pipeline))
                .collect(),
            tenants: self
                .tenants
                .values()
                .map(|tenant| Tenant::clone(tenant))
                .collect(),
        }
    }

    /// Takes back what [`Merged::content`] gave, after a restart. It was checked when it came into force.
    pub fn restored(
        hash: String,
        content: Document,
        refused: BTreeMap<Key, String>,
        deny: Vec<Denial>,
    ) -> Self {
        Self {
            document: hash,
            pipelines: content
                .pipelines
                .into_iter()
                .map(|p| (p.name.clone(), Arc::new(p)))
                .collect(),
            tenants: content
                .tenants
                .into_iter()
                .map(|t| (t.name.clone(), Arc::new(t)))
                .collect(),
            refused,
            deny,
        }
    }
}

/// The old allocation where nothing changed: those who hold it see at once that they have nothing to do.
fn keep_equal<T: PartialEq>(old: Option<&Arc<T>>, new: T) -> Arc<T> {
    match old {
        Some(old) if **old == new => Arc::clone(old),
        _ => Arc::new(new),
    }
}

#[cfg(test)]
mod tests;
