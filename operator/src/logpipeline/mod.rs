//! One `LogPipeline` in; its share of the fleet and its status out.
//!
//! `validate → authorize → resolve → (share) → status`, all pure; this driver gathers the facts, leaves the
//! share, and writes the status where it differs.

pub mod authorize;
pub mod context;
pub mod gaps;
pub mod nodes;
pub mod resolve;
pub mod status;
pub mod totals;
pub mod touched;
pub mod validate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;
use tokio::time::Instant;

use crate::api::LogPipeline;
use crate::api::conditions::reasons;
use crate::api::logpipeline::LogPipelineStatus;
use crate::api::verdict::Moment;
use crate::api::writer::{self, Written};
use crate::fleet::desired::PipelineShare;
use crate::fleet::observed::Observed;
use crate::tenant::key_of;
use crate::tenant::validate::Rejection;
use authorize::{Authorized, Facts, NamespaceFact};
pub use context::{Context, Object, Progress};
use resolve::Resolved;

/// How long after its start a leader waits for the nodes before it writes what it does not see.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// The status could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the status cannot be read or written: {0}")]
pub struct Error(#[source] kube::Error);

/// Reconciles one pipeline.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn reconcile(object: Arc<Object>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let key = key_of(object.as_ref());
    let validated = match &object.0 {
        Ok(pipeline) => validate::validate(pipeline, context.host_paths),
        Err(invalid) => Err(Rejection::new(
            reasons::INVALID,
            format!("the object cannot be read: {}", invalid.error),
        )),
    };
    let old = match &object.0 {
        Ok(pipeline) => pipeline.status.clone().unwrap_or_default(),
        Err(_) => writer::stored::<LogPipeline, _>(&context.client, &key)
            .await
            .map_err(Error)?,
    };
    let moment = Moment {
        old: &old.conditions,
        generation: object.meta().generation.unwrap_or_default(),
        now: Timestamp::now(),
    };
    let observed = Arc::clone(&context.observed.borrow());
    let new = match validated {
        Err(rejection) => {
            refuse(&key, &context);
            if is_gone(&key, &context) {
                return Ok(Action::await_change());
            }
            status::rejected(&rejection, &moment)
        }
        Ok(validated) => {
            let namespaces = context.namespaces();
            let authorized = authorize(validated, &namespaces, &context);
            if !context.decide(&key, authorized.pending) {
                return Ok(Action::requeue(Duration::from_millis(500)));
            }
            let resolved = resolve::resolve(authorized, &namespaces, &|tenant| context.book.get(tenant));
            share(&key, &resolved, &context);
            if is_gone(&key, &context) {
                return Ok(Action::await_change());
            }
            if is_first_look(&observed, &old, &moment, &context) {
                return Ok(Action::requeue(Duration::from_secs(2)));
            }
            let uid = object.meta().uid.as_deref().unwrap_or_default();
            let totals = context.count(&key, uid, &old, &observed);
            status::status(&resolved, &observed, &totals, &old, &moment)
        }
    };
    let written = write(&object, &key, &context, &old, &new).await?;
    context.metrics.reconciled("LogPipeline", began.elapsed());
    let again = Duration::from_secs(if new.diagnosis.is_some() { 20 } else { 300 });
    let again = nodes::next_silence(&observed, moment.now.as_second()).map_or(again, |next| next.min(again));
    Ok(Action::requeue(match written {
        Written::Later(rest) => rest.min(again),
        Written::Same | Written::Now => again,
    }))
}

/// Whether the object was deleted while its share was made, which then must not stay. The cache learns of a
/// deletion before [`gone`] does: what this does not see, `gone` undoes.
fn is_gone(key: &Key, context: &Arc<Context>) -> bool {
    let reference = ObjectRef::new(&key.name).within(&key.namespace);
    let is_gone = context.pipelines.get(&reference).is_none();
    if is_gone {
        gone(key, context);
    }
    is_gone
}

fn authorize(
    validated: validate::Validated,
    namespaces: &BTreeMap<String, NamespaceFact>,
    context: &Context,
) -> Authorized {
    let account = validated.account.clone();
    let selected = authorize::selected(&validated.selection, namespaces);
    context.reviews.want(&validated.entry.name, &account, &selected);
    let reference = ObjectRef::new(&account.name).within(&account.namespace);
    let facts = Facts {
        namespaces,
        account: context.accounts.get(&reference).is_some(),
        allowed: &|namespace| context.reviews.allowed(&account, namespace),
    };
    authorize::authorize(validated, &facts)
}

fn share(key: &Key, resolved: &Resolved, context: &Context) {
    let mentions = resolved
        .authorized
        .validated
        .entry
        .tenants
        .iter()
        .cloned()
        .collect();
    let served = resolved.tenants.iter().map(|tenant| tenant.key.clone()).collect();
    context.desired.set_pipeline(key, Some(resolved.share.clone()));
    context.book.refer(key, mentions, &served);
}

fn refuse(key: &Key, context: &Context) {
    context.decide(key, false);
    context.desired.set_pipeline(key, Some(tombstone(key)));
    context.reviews.forget(key);
    context.book.forget(key);
}

fn tombstone(key: &Key) -> PipelineShare {
    PipelineShare {
        pipeline: None,
        deny: vec![Denial {
            pipeline: key.clone(),
            namespace: None,
        }],
    }
}

/// Whether a new leader has not seen the nodes yet, while the status of its predecessor still tells.
fn is_first_look(
    observed: &Observed,
    old: &LogPipelineStatus,
    moment: &Moment<'_>,
    context: &Context,
) -> bool {
    observed.document.is_empty()
        && old.observed_generation == Some(moment.generation)
        && context.started.elapsed() < FIRST_LOOK
}

async fn write(
    object: &Object,
    key: &Key,
    context: &Context,
    old: &LogPipelineStatus,
    new: &LogPipelineStatus,
) -> Result<Written, Error> {
    let written = match context
        .writer
        .write::<LogPipeline, _>(&context.client, key, old, new)
        .await
    {
        // It was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => Written::Same,
        other => other.map_err(Error)?,
    };
    if written == Written::Now {
        context.metrics.wrote("LogPipeline");
        context
            .events
            .ready_changed(&object.object_ref(&()), &old.conditions, &new.conditions)
            .await;
    }
    Ok(written)
}

/// What to do after an error.
#[allow(clippy::needless_pass_by_value, reason = "kube's signature")]
pub fn error_policy(object: Arc<Object>, error: &Error, context: Arc<Context>) -> Action {
    context.metrics.failed("LogPipeline", "write");
    tracing::warn!(%error, pipeline = %key_of(object.as_ref()), "a pipeline could not be reconciled");
    Action::requeue(Duration::from_secs(5))
}

/// A pipeline is gone: it is denied at once, and forgotten when every node has had time to act.
pub fn gone(key: &Key, context: &Arc<Context>) {
    context.reviews.forget(key);
    context.book.forget(key);
    context.writer.forget(key);
    context.uncount(key);
    {
        let mut progress = context.progress();
        progress.decided.remove(key);
        progress.waiting.remove(key);
    }
    context.desired.set_pipeline(key, Some(tombstone(key)));
    let (key, context) = (key.clone(), Arc::clone(context));
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_mins(1)).await;
        if context
            .pipelines
            .get(&ObjectRef::new(&key.name).within(&key.namespace))
            .is_none()
        {
            context.desired.set_pipeline(&key, None);
        }
    });
}
