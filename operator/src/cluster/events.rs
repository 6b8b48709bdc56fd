//! A change of `Ready` in, one Kubernetes event out; a failure is logged and forgotten.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::api::conditions::types;
use crate::api::verdict::clip;

/// Publishes events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events reported by `instance`.
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter {
            controller: "sluice-operator".into(),
            instance: Some(instance.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Publishes an event when `Ready` is not what it was.
    pub async fn ready_changed(&self, object: &ObjectReference, old: &[Condition], new: &[Condition]) {
        let Some(event) = transition(old, new) else { return };
        if let Err(error) = self.recorder.publish(&event, object).await {
            tracing::debug!(%error, "an event was not published");
        }
    }
}

fn transition(old: &[Condition], new: &[Condition]) -> Option<Event> {
    let ready = |conditions: &[Condition]| conditions.iter().find(|c| c.type_ == types::READY).cloned();
    let (old, new) = (ready(old), ready(new)?);
    if old.is_some_and(|old| old.status == new.status) || new.status == "Unknown" {
        return None;
    }
    let type_ = if new.status == "True" {
        EventType::Normal
    } else {
        EventType::Warning
    };
    Some(Event {
        type_,
        reason: new.reason,
        note: Some(clip(&new.message, 1000)),
        action: "Report".into(),
        secondary: None,
    })
}
