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

use super::lease::{Decision, decide, next};
use super::names::{self, Owner};

/// Name of the Lease.
pub const LEASE: &str = "sluice-operator";
/// How long a holder tries to renew before it gives up; well below [`DURATION`](super::lease::DURATION).
pub const DEADLINE: Duration = Duration::from_secs(6);
/// How often it is renewed, and looked at by those who wait.
pub const PERIOD: Duration = Duration::from_secs(2);

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
