//! The `DaemonSet`'s numbers and events in; why agents cannot run, and what to do about it, out.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use sluice_engine::well_known::AGENT;

use crate::api::conditions::reasons;
use crate::fleet::observed::Obstacle;

/// How old a refusal may be: the `DaemonSet`'s controller tries again after 17 minutes at the latest, while an
/// event outlives its cause by an hour.
const FRESH: SignedDuration = SignedDuration::from_mins(20);
/// Characters of the API server's own words that are shown.
const QUOTED: usize = 300;

/// Whether fewer pods exist than nodes want.
pub fn lacks_pods(daemon_set: Option<&DaemonSet>) -> bool {
    daemon_set
        .and_then(|daemon_set| daemon_set.status.as_ref())
        .is_some_and(|status| status.current_number_scheduled < status.desired_number_scheduled)
}

/// Reads why pods could not be made.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn read(client: &Client, namespace: &str) -> Result<Option<Obstacle>, kube::Error> {
    let fields = format!("involvedObject.kind=DaemonSet,involvedObject.name={AGENT},reason=FailedCreate");
    let events = Api::<Event>::namespaced(client.clone(), namespace)
        .list(&ListParams::default().fields(&fields))
        .await?;
    Ok(newest(&events.items, Timestamp::now()).map(|message| explain(message, namespace)))
}

fn newest(events: &[Event], now: Timestamp) -> Option<&str> {
    let time = |event: &Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.max(event.event_time.as_ref().map(|time| time.0))
            .max(event.first_timestamp.as_ref().map(|time| time.0))
    };
    let newest = events.iter().max_by_key(|event| time(event))?;
    time(newest).filter(|at| now.duration_since(*at) <= FRESH)?;
    newest.message.as_deref()
}

/// What a `FailedCreate` event means, and what to do.
fn explain(message: &str, namespace: &str) -> Obstacle {
    let has = |part: &str| message.contains(part);
    let remedy = if has("violates PodSecurity") {
        format!(
            "Agents read log files of the node, which the namespace's Pod Security level forbids; run: \
             kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite; \
             or read through the API: set the chart's agent.hostPaths to false"
        )
    } else if has("security context constraint") {
        format!(
            "Agents need a SecurityContextConstraint that allows host paths; run: \
             oc adm policy add-scc-to-user privileged --serviceaccount={AGENT} --namespace={namespace}"
        )
    } else if has("exceeded quota") || has("insufficient quota") {
        format!(
            "The ResourceQuota of namespace {namespace} leaves no room for an agent on every node; raise it"
        )
    } else if has("PriorityClass") {
        "The priority class of agent.priorityClassName does not exist or may not be used here; change the setting".into()
    } else {
        format!("Remove what refuses them; see: kubectl describe daemonset {AGENT} --namespace {namespace}")
    };
    let quoted: String = message.chars().take(QUOTED).collect();
    Obstacle {
        reason: reasons::AGENT_PODS_REFUSED,
        message: format!("The agents' pods are refused. {remedy} ({quoted})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_remedy() {
        for (message, remedy) in [
            (
                r#"pods "a" is forbidden: violates PodSecurity "restricted:latest": hostPath"#,
                "kubectl label namespace own",
            ),
            (
                "unable to validate against any security context constraint: []",
                "oc adm policy",
            ),
            (
                "pods \"a\" is forbidden: exceeded quota: q",
                "ResourceQuota of namespace own",
            ),
            (
                "no PriorityClass with name high was found",
                "agent.priorityClassName",
            ),
            (
                "admission webhook \"x\" denied the request",
                "kubectl describe daemonset",
            ),
        ] {
            let obstacle = explain(message, "own");
            assert!(
                obstacle.message.contains(remedy) && obstacle.message.contains(message),
                "{obstacle:?}"
            );
        }
    }

    #[test]
    fn the_newest_event_counts_and_only_while_pods_are_missing() {
        let event = |message: &str, time: &str| -> Event {
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "involvedObject": {}, "message": message, "lastTimestamp": time,
            }))
            .unwrap()
        };
        let events = [
            event("old", "2026-01-01T00:00:00Z"),
            event("new", "2026-01-02T00:00:00Z"),
        ];
        let at = |time: &str| time.parse::<Timestamp>().unwrap();
        assert_eq!(newest(&events, at("2026-01-02T00:20:00Z")), Some("new"));
        assert_eq!(
            newest(&events, at("2026-01-02T00:21:00Z")),
            None,
            "the cause may be gone"
        );
        let counts = |current: i32| -> DaemonSet {
            let status = serde_json::json!({
                "currentNumberScheduled": current, "desiredNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 0,
            });
            serde_json::from_value(serde_json::json!({"status": status})).unwrap()
        };
        assert!(lacks_pods(Some(&counts(0))));
        assert!(!lacks_pods(Some(&counts(2))) && !lacks_pods(None));
    }
}
