//! An authorized pipeline and what tenants say of themselves in; its share of the fleet out. Pure, since
//! tenants publish what others may know.

use std::collections::BTreeMap;

use sluice_engine::document::Pipeline;
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;

use super::authorize::{Authorized, NamespaceFact};
use crate::api::conditions::reasons;
use crate::api::lokitenant::{AllowedNamespaces, From};
use crate::api::verdict::Verdict;
use crate::fleet::desired::PipelineShare;
use crate::tenant::book::Facts;

/// A tenant that serves a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The tenant.
    pub key: Key,
    /// Content hash of its document entry; absent while it cannot be used.
    pub hash: Option<String>,
    /// Reason of its trouble.
    pub trouble: Option<&'static str>,
}

/// A pipeline with the tenants that serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The pipeline and its namespaces.
    pub authorized: Authorized,
    /// Tenants that serve it.
    pub tenants: Vec<Served>,
    /// The condition.
    pub verdict: Verdict,
    /// Its share of the fleet.
    pub share: PipelineShare,
}

/// Whether a tenant serves pipelines of a namespace.
pub fn consents(
    tenant: &Key,
    allowed: &AllowedNamespaces,
    namespace: &str,
    fact: Option<&NamespaceFact>,
) -> bool {
    match allowed.from.unwrap_or_default() {
        From::Same => tenant.namespace == namespace,
        From::All => true,
        From::Selector => {
            let selector = allowed.selector.as_ref().filter(|selector| !selector.is_empty());
            tenant.namespace == namespace
                || selector
                    .zip(fact)
                    .is_some_and(|(selector, fact)| selector.matches(&fact.labels))
        }
    }
}

/// Finds the tenants that serve a pipeline.
pub fn resolve(
    authorized: Authorized,
    namespaces: &BTreeMap<String, NamespaceFact>,
    tenant: &dyn Fn(&Key) -> Option<Facts>,
) -> Resolved {
    let own = authorized.validated.entry.name.namespace.clone();
    let mut served = Vec::new();
    let mut refused = None;
    for key in &authorized.validated.entry.tenants {
        let facts = tenant(key);
        match facts.filter(|facts| consents(key, &facts.allowed, &own, namespaces.get(&own))) {
            Some(facts) => served.push(Served {
                key: key.clone(),
                hash: facts.hash,
                trouble: facts.trouble,
            }),
            None => {
                refused.get_or_insert_with(|| refusal(key, &own));
            }
        }
    }
    let verdict = refused
        .or_else(|| unusable(&served))
        .unwrap_or_else(|| Verdict::yes(reasons::RESOLVED_REFS, "all tenants are resolved"));
    let share = share(&authorized, &served);
    Resolved {
        authorized,
        tenants: served,
        verdict,
        share,
    }
}

fn refusal(tenant: &Key, own: &str) -> Verdict {
    if tenant.namespace == own {
        let message = format!(
            "the LokiTenant {} does not exist in namespace {own}: create it, or name its namespace in tenantRefs",
            tenant.name
        );
        return Verdict::no(reasons::TENANT_NOT_FOUND, message);
    }
    let message = format!(
        "the LokiTenant {tenant} does not exist, or does not allow namespace {own}: ask its owner to add {own} to its allowedNamespaces"
    );
    Verdict::no(reasons::REF_NOT_PERMITTED, message)
}

fn unusable(served: &[Served]) -> Option<Verdict> {
    let tenant = served.iter().find(|tenant| tenant.hash.is_none())?;
    Some(troubled(tenant))
}

/// A tenant's trouble as its pipelines show it.
pub fn troubled(tenant: &Served) -> Verdict {
    let reason = tenant.trouble.unwrap_or(reasons::PENDING);
    let Key { namespace, name } = &tenant.key;
    let message = format!(
        "the LokiTenant {} is not ready ({reason}): see `kubectl get lt {name} -n {namespace} -o yaml`",
        tenant.key
    );
    Verdict::no(reasons::TENANT_NOT_READY, message)
}

/// The entry holds what may be collected; the deny list what acts at once. A suspended pipeline keeps its
/// entry, so that agents keep its positions.
fn share(authorized: &Authorized, served: &[Served]) -> PipelineShare {
    let name = &authorized.validated.entry.name;
    let whole = Denial {
        pipeline: name.clone(),
        namespace: None,
    };
    if served.is_empty() || authorized.granted.is_empty() {
        return PipelineShare {
            pipeline: None,
            deny: vec![whole],
        };
    }
    let mut pipeline = Pipeline {
        tenants: served.iter().map(|tenant| tenant.key.clone()).collect(),
        ..authorized.validated.entry.clone()
    };
    pipeline.pods.namespaces.clone_from(&authorized.granted);
    pipeline.seal();
    let deny = if authorized.validated.suspend {
        vec![whole]
    } else {
        let withheld = authorized.withheld.iter();
        withheld
            .map(|namespace| Denial {
                namespace: Some(namespace.clone()),
                ..whole.clone()
            })
            .collect()
    };
    PipelineShare {
        pipeline: Some(pipeline),
        deny,
    }
}
