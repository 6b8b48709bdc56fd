//! The Lease in, an office out: one operator writes, the others wait.
//!
//! Expiry is judged from when *we* last saw the Lease change, as client-go does: clocks of different machines
//! need not agree. Every write carries the `resourceVersion` that the decision rests on, so of two that see
//! the same expired Lease one gets 409 and goes on waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use sluice_engine::well_known::AGENT;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::names::{self, Owner};

/// Name of the Lease.
pub const LEASE: &str = "sluice-operator";
/// How long a Lease holds without being renewed.
pub const DURATION: Duration = Duration::from_secs(10);
/// How long a holder tries to renew before it gives up; well below [`DURATION`].
pub const DEADLINE: Duration = Duration::from_secs(6);
/// How often it is renewed, and looked at by those who wait.
pub const PERIOD: Duration = Duration::from_secs(2);

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody holds it: take it.
    Acquire,
    /// It is ours: keep it.
    Renew,
    /// Somebody else holds it: look again after this long at the latest.
    Wait(Duration),
}

/// Decides about a Lease, given when we last saw it change.
pub fn decide(lease: Option<&LeaseSpec>, me: &str, observed_at: Instant, now: Instant) -> Decision {
    let holder = lease
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder.is_empty() {
        return Decision::Acquire;
    }
    if holder == me {
        return Decision::Renew;
    }
    let seconds = lease
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok());
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    let left = duration.saturating_sub(now.saturating_duration_since(observed_at));
    if left.is_zero() {
        Decision::Acquire
    } else {
        Decision::Wait(left)
    }
}

/// The Lease as `me` wants it next.
///
/// A Lease made anew begins to count at the minutes since 1970 instead of 0: nodes remember the highest number
/// that they have seen, also from an installation before this one, and refuse a lower one.
fn next(current: Option<&Lease>, me: &str, decision: Decision, now: MicroTime) -> Lease {
    let mut lease = current.cloned().unwrap_or_default();
    let spec = lease.spec.get_or_insert_default();
    if decision == Decision::Acquire {
        let fresh = i32::try_from(now.0.as_second() / 60).unwrap_or(0);
        let transitions = current.and(spec.lease_transitions);
        spec.lease_transitions = Some(transitions.map_or(fresh, |count| count.saturating_add(1)));
        spec.acquire_time = Some(now.clone());
    }
    spec.holder_identity = Some(me.to_owned());
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    spec.renew_time = Some(now);
    lease
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

/// Stands for election.
#[derive(Clone)]
pub struct Elector {
    client: Client,
    api: Api<Lease>,
    identity: String,
}

impl Elector {
    /// Stands for election in `namespace` as `identity`, which no other process may use.
    pub fn new(client: Client, namespace: &str, identity: impl Into<String>) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            client,
            identity: identity.into(),
        }
    }

    /// Waits until this process holds the Lease. Failures are logged and tried again.
    pub async fn acquire(&self) -> Leadership {
        let mut seen: Option<LeaseSpec> = None;
        let mut observed_at = Instant::now();
        loop {
            match tokio::time::timeout(DEADLINE, self.attempt(&mut seen, &mut observed_at)).await {
                Ok(Ok(Some(lease))) => return self.lead(lease),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be read or taken"),
                Err(_) => {
                    tracing::warn!("the Lease could not be read or taken: the API server does not answer");
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn attempt(
        &self,
        seen: &mut Option<LeaseSpec>,
        observed_at: &mut Instant,
    ) -> Result<Option<Lease>, kube::Error> {
        let current = self.api.get_opt(LEASE).await?;
        let spec = current.as_ref().and_then(|lease| lease.spec.clone());
        if *seen != spec {
            seen.clone_from(&spec);
            *observed_at = Instant::now();
        }
        let decision = decide(spec.as_ref(), &self.identity, *observed_at, Instant::now());
        if let Decision::Wait(_) = decision {
            return Ok(None);
        }
        let mut wanted = next(current.as_ref(), &self.identity, decision, now());
        if current.is_none() {
            wanted.metadata = self.metadata().await?;
        }
        let written = match current {
            Some(_) => self.api.replace(LEASE, &PostParams::default(), &wanted).await,
            None => self.api.create(&PostParams::default(), &wanted).await,
        };
        match written {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Metadata of a new Lease, owned as everything of ours is; without the chart's role it has no owner.
    async fn metadata(&self) -> Result<ObjectMeta, kube::Error> {
        let role = Api::<ClusterRole>::all(self.client.clone())
            .get_opt(AGENT)
            .await?;
        let owner = role.and_then(|role| role.metadata.uid).map(|uid| Owner { uid });
        Ok(ObjectMeta {
            name: Some(LEASE.into()),
            labels: Some(names::labels("operator")),
            owner_references: owner.map(|owner| vec![owner.reference()]),
            ..ObjectMeta::default()
        })
    }

    fn lead(&self, lease: Lease) -> Leadership {
        let transitions = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or(0);
        tracing::info!(identity = self.identity, transitions, "leading");
        let lost = CancellationToken::new();
        let lease = Arc::new(Mutex::new(lease));
        let renewal = tokio::spawn(renew(self.clone(), Arc::clone(&lease), lost.clone()));
        Leadership {
            transitions,
            elector: self.clone(),
            lease,
            lost,
            renewal: AbortOnDropHandle::new(renewal),
        }
    }
}

/// The office: held until it is released or lost.
pub struct Leadership {
    /// How often the office has changed hands; pointers carry it.
    pub transitions: i32,
    elector: Elector,
    lease: Arc<Mutex<Lease>>,
    lost: CancellationToken,
    renewal: AbortOnDropHandle<()>,
}

impl Leadership {
    /// Waits until the Lease is lost: then the process has to end, with exit code 1.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Gives the office up, so that the next takes over at once; for an orderly end, after the last write.
    pub async fn release(self) {
        self.renewal.abort();
        let mut lease = self.lease.lock().await.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(now());
        let params = PostParams::default();
        let written = self.elector.api.replace(LEASE, &params, &lease);
        match tokio::time::timeout(PERIOD, written).await {
            Ok(Ok(_)) => tracing::info!("the Lease is released"),
            Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be released; it expires by itself"),
            Err(_) => tracing::warn!("the Lease could not be released in time; it expires by itself"),
        }
    }
}

async fn renew(elector: Elector, lease: Arc<Mutex<Lease>>, lost: CancellationToken) {
    let mut renewed_at = Instant::now();
    loop {
        tokio::time::sleep(PERIOD).await;
        // the lock is held while the request is under way, so that a release starts from the newest version
        let mut held = lease.lock().await;
        let wanted = next(Some(&held), &elector.identity, Decision::Renew, now());
        let left = DEADLINE.saturating_sub(renewed_at.elapsed());
        match tokio::time::timeout(left, elector.api.replace(LEASE, &PostParams::default(), &wanted)).await {
            Ok(Ok(renewed)) => {
                *held = renewed;
                renewed_at = Instant::now();
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {
                match elector.api.get_opt(LEASE).await {
                    Ok(Some(current)) if holder(&current) == Some(elector.identity.as_str()) => {
                        *held = current;
                    }
                    Ok(_) => break,
                    Err(error) => tracing::warn!(%error, "the Lease could not be read"),
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the Lease could not be renewed"),
            Err(_) => tracing::warn!("the Lease could not be renewed: the API server does not answer"),
        }
        drop(held);
        if renewed_at.elapsed() >= DEADLINE {
            break;
        }
    }
    tracing::error!("the Lease is lost");
    lost.cancel();
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn nobodys_lease_is_taken() {
        let now = Instant::now();
        assert_eq!(decide(None, "me", now, now), Decision::Acquire);
        assert_eq!(
            decide(Some(&LeaseSpec::default()), "me", now, now),
            Decision::Acquire
        );
        assert_eq!(decide(Some(&held_by("", 10)), "me", now, now), Decision::Acquire);
    }

    #[test]
    fn our_lease_is_renewed_however_old() {
        let now = Instant::now();
        assert_eq!(
            decide(Some(&held_by("me", 10)), "me", now, now + DURATION * 9),
            Decision::Renew
        );
    }

    #[test]
    fn anothers_lease_is_respected_until_we_saw_no_change_for_its_duration() {
        let seen = Instant::now();
        let lease = held_by("other", 10);
        let after = |seconds| seen + Duration::from_secs(seconds);
        assert_eq!(decide(Some(&lease), "me", seen, seen), Decision::Wait(DURATION));
        assert_eq!(
            decide(Some(&lease), "me", seen, after(9)),
            Decision::Wait(Duration::from_secs(1))
        );
        assert_eq!(decide(Some(&lease), "me", seen, after(10)), Decision::Acquire);
    }

    #[test]
    fn the_holders_clock_does_not_matter() {
        let now = Instant::now();
        let lease = LeaseSpec {
            renew_time: Some(MicroTime(jiff::Timestamp::UNIX_EPOCH)),
            ..held_by("other", 10)
        };
        assert_eq!(decide(Some(&lease), "me", now, now), Decision::Wait(DURATION));
    }

    #[test]
    fn a_take_over_counts_as_a_transition_and_a_renewal_does_not() {
        let time = MicroTime(jiff::Timestamp::UNIX_EPOCH);
        let current = Lease {
            spec: Some(held_by("other", 10)),
            ..Lease::default()
        };
        let taken = next(Some(&current), "me", Decision::Acquire, time.clone());
        let spec = taken.spec.clone().unwrap();
        assert_eq!(
            (spec.lease_transitions, spec.holder_identity.as_deref()),
            (Some(4), Some("me"))
        );
        let renewed = next(Some(&taken), "me", Decision::Renew, time);
        assert_eq!(renewed.spec.unwrap().lease_transitions, Some(4));
    }

    #[test]
    fn a_lease_made_anew_counts_on_from_where_no_node_has_been() {
        let at = |second| MicroTime(jiff::Timestamp::from_second(second).unwrap());
        let count = |lease: Lease| lease.spec.unwrap().lease_transitions.unwrap();
        let before = next(None, "me", Decision::Acquire, at(1_790_000_000));
        let anew = next(None, "me", Decision::Acquire, at(1_790_000_600));
        assert_eq!(count(anew) - count(before), 10);
    }
}
