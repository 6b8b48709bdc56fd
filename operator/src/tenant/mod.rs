//! One `LokiTenant` in; its share of the fleet, what pipelines may know of it, and its status out.
//!
//! `validate → resolve → (share) → reach → status`: [`validate`] and [`status`] are pure, [`resolve`] reads
//! Secrets of the tenant's own namespace, [`reach`] asks its Loki.

pub mod book;
pub mod probe;
pub mod reach;
pub mod resolve;
pub mod status;
pub mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource as _, ResourceExt as _};
use sluice_engine::key::Key;
use sluice_engine::loki;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::admin::Metrics;
use crate::api::LokiTenant;
use crate::api::conditions::reasons;
use crate::api::lokitenant::LokiTenantStatus;
use crate::api::verdict::{Moment, Verdict};
use crate::api::writer::{self, Writer, Written};
use crate::cluster::events::Events;
use crate::fleet::desired::{Desired, TenantShare};
use crate::fleet::observed::Observed;
use book::{Book, Facts};
use probe::Probe;
use resolve::Resolved;
use status::Findings;
use validate::Rejection;

/// How many Lokis are asked at the same time.
pub const TURNS: usize = 32;

/// A tenant, or what could not be read as one.
pub type Object = DeserializeGuard<LokiTenant>;

/// What the controller works with.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Namespaces where tenants count.
    pub namespaces: BTreeSet<String>,
    /// Whether loopback and link-local addresses may be used.
    pub allow_local: bool,
    /// Tenants that exist.
    pub tenants: Store<Object>,
    /// Labelled Secrets by namespace.
    pub secrets: BTreeMap<String, Store<Secret>>,
    /// Where pipelines learn of tenants.
    pub book: Book,
    /// Where the fleet learns of them.
    pub desired: Desired,
    /// What the agents say.
    pub observed: watch::Receiver<Arc<Observed>>,
    /// Writes status.
    pub writer: Writer,
    /// Publishes events.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// What each Loki said last.
    pub probes: Mutex<BTreeMap<Key, Probe>>,
    /// Whose turn it is to ask a Loki, so that many which do not answer keep nothing but each other waiting.
    pub turns: Semaphore,
}

/// A reconciliation that has to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Secret could not be looked up.
    #[error("Secrets cannot be read: {0}")]
    Resolve(#[source] resolve::Error),
    /// The status could not be read or written.
    #[error("the status cannot be read or written: {0}")]
    Write(#[source] kube::Error),
}

/// Reconciles one tenant.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn reconcile(object: Arc<Object>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let key = key_of(object.as_ref());
    let (mut findings, again) = judge(&object, &key, &context).await?;
    let trouble = findings.ready();
    let mut facts = context.book.get(&key).unwrap_or_default();
    facts.trouble = (trouble.standing == crate::api::verdict::Standing::False).then_some(trouble.reason);
    context.book.publish(&key, Some(facts));
    // Deleted while it was judged: what was said of it must not stay. The cache learns of a deletion before
    // `gone` does: what is not seen here, `gone` undoes.
    let reference = ObjectRef::new(&key.name).within(&key.namespace);
    if context.tenants.get(&reference).is_none() {
        gone(&key, &context);
        return Ok(Action::await_change());
    }

    let old = match &object.0 {
        Ok(tenant) => tenant.status.clone().unwrap_or_default(),
        Err(_) => writer::stored::<LokiTenant, _>(&context.client, &key)
            .await
            .map_err(Error::Write)?,
    };
    // A new leader does not know yet what the last one knew.
    findings.pipelines = findings.pipelines.or(old.pipelines);
    let moment = Moment {
        old: &old.conditions,
        generation: object.meta().generation.unwrap_or_default(),
        now: Timestamp::now(),
    };
    let new = status::status(&findings, &moment);
    let written = write(&object, &key, &context, &old, &new).await?;
    context.metrics.reconciled("LokiTenant", began.elapsed());
    Ok(Action::requeue(match written {
        Written::Later(rest) => rest.min(again),
        Written::Same | Written::Now => again,
    }))
}

async fn write(
    object: &Object,
    key: &Key,
    context: &Context,
    old: &LokiTenantStatus,
    new: &LokiTenantStatus,
) -> Result<Written, Error> {
    let written = context
        .writer
        .write::<LokiTenant, _>(&context.client, key, old, new)
        .await;
    let written = match written {
        // It was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Written::Same,
        other => other.map_err(Error::Write)?,
    };
    if written == Written::Now {
        context.metrics.wrote("LokiTenant");
        context
            .events
            .ready_changed(&object.object_ref(&()), &old.conditions, &new.conditions)
            .await;
    }
    Ok(written)
}

async fn judge(object: &Object, key: &Key, context: &Context) -> Result<(Findings, Duration), Error> {
    let validated = match &object.0 {
        Ok(tenant) => validate::validate(tenant, &context.namespaces),
        Err(invalid) => Err(Rejection::new(
            reasons::INVALID,
            format!("the object cannot be read: {}", invalid.error),
        )),
    };
    let mut findings = Findings {
        accepted: Verdict::yes(reasons::ACCEPTED, "the spec is valid"),
        resolved: Verdict::pending("the spec is not accepted"),
        reachable: Verdict::pending("not asked yet"),
        push_url: None,
        pipelines: context.book.pipelines(key),
    };
    let validated = match validated {
        Ok(validated) => validated,
        Err(rejection) => {
            withdraw(key, context, Facts::default());
            findings.accepted = Verdict::no(rejection.reason, rejection.message);
            return Ok((findings, Duration::from_mins(5)));
        }
    };
    findings.push_url = Some(validated.entry.push_url.clone());
    let allowed = validated.allowed.clone();
    let found = resolve::look_up(&context.client, context.secrets.get(&key.namespace), &validated).await;
    let secrets = match found {
        Ok(secrets) => secrets,
        Err(resolve::Error::Forbidden(namespace)) => {
            // What was shared stays: an API server that starts refuses for a moment what is allowed.
            if context.book.get(key).is_none() {
                let facts = Facts {
                    allowed,
                    ..Facts::default()
                };
                context.book.publish(key, Some(facts));
            }
            findings.resolved = Verdict::no(
                reasons::NAMESPACE_NOT_ALLOWED,
                format!(
                    "the operator may not read Secrets in namespace {namespace}: add it to the chart's tenantNamespaces"
                ),
            );
            return Ok((findings, probe::EVERY));
        }
        Err(error) => return Err(Error::Resolve(error)),
    };
    let resolved = match resolve::resolve(validated, &secrets) {
        Ok(resolved) => resolved,
        Err(rejection) => {
            withdraw(
                key,
                context,
                Facts {
                    allowed,
                    ..Facts::default()
                },
            );
            findings.resolved = Verdict::no(rejection.reason, rejection.message);
            return Ok((findings, probe::EVERY));
        }
    };
    findings.resolved = Verdict::yes(reasons::RESOLVED_REFS, "all references are resolved");
    share(key, context, &resolved);
    let (problem, again) = probe::probe(key, context, &resolved).await;
    let reported = status::reported(&context.observed.borrow(), key, &resolved.entry.hash);
    findings.reachable = if let Some(problem) = problem.or(reported) {
        status::unreachable(&problem)
    } else {
        let labels = loki::labels_url(&resolved.entry.push_url);
        Verdict::yes(reasons::REACHABLE, format!("Loki answers at {labels}"))
    };
    Ok((findings, again))
}

fn share(key: &Key, context: &Context, resolved: &Resolved) {
    let facts = context.book.get(key).unwrap_or_default();
    let hash = Some(resolved.entry.hash.clone());
    context.book.publish(
        key,
        Some(Facts {
            allowed: resolved.allowed.clone(),
            hash,
            ..facts
        }),
    );
    let share = TenantShare {
        tenant: resolved.entry.clone(),
        credentials: resolved.credentials.clone(),
    };
    context.desired.set_tenant(key, Some(share));
}

fn withdraw(key: &Key, context: &Context, facts: Facts) {
    let trouble = context.book.get(key).and_then(|facts| facts.trouble);
    context.book.publish(key, Some(Facts { trouble, ..facts }));
    context.desired.set_tenant(key, None);
}

/// What to do after an error.
#[allow(clippy::needless_pass_by_value, reason = "kube's signature")]
pub fn error_policy(object: Arc<Object>, error: &Error, context: Arc<Context>) -> Action {
    let class = match error {
        Error::Resolve(_) => "resolve",
        Error::Write(_) => "write",
    };
    context.metrics.failed("LokiTenant", class);
    tracing::warn!(%error, tenant = %key_of(object.as_ref()), "a tenant could not be reconciled");
    let again = if matches!(error, Error::Resolve(resolve::Error::NotListed(_))) {
        1
    } else {
        5
    };
    Action::requeue(Duration::from_secs(again))
}

/// A tenant is gone.
pub fn gone(key: &Key, context: &Context) {
    context.desired.set_tenant(key, None);
    context.book.publish(key, None);
    context.writer.forget(key);
    context
        .probes
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(key);
}

/// Namespace and name of an object.
pub fn key_of<K: kube::Resource>(object: &K) -> Key {
    Key::new(object.namespace().unwrap_or_default(), object.name_any())
}
