//! The single writer of what all objects share: everything resolved in, objects applied and agents' answers out.
//!
//! `render → apply → observe`. Documents, pointers, credentials and the `DaemonSet` serve many objects, so one
//! task makes them from [`Desired`], and publishes what the nodes did with them as [`Observed`].
//!
//! - [`desired`], [`observed`]: what the controllers put in, and what they get back
//! - [`render`]: every object, a pure function; [`certificates`] are what chance adds
//! - [`view`]: what is live, from watches
//! - [`apply`](mod@apply), [`prune`](mod@prune): what differs is written, what nothing refers to is deleted
//! - [`observe`](mod@observe): what the agents say; [`reports`]: kept once, however many say it

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::settings::Settings;
use apply::Writer;
use certificates::Certificates;
use desired::{Desired, Shares};
use observe::access::Access;
use observe::assemble::Target;
use observe::{Told, nodes};
use observed::Observed;
use render::Inputs;
use render::document::Package;
use view::View;

pub mod apply;
pub mod certificates;
pub mod desired;
mod error;
pub mod observe;
pub mod observed;
pub mod prune;
pub mod render;
pub mod reports;
pub mod view;

pub use error::Error;

/// Changes are gathered for this long before a pass.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A pass is made this often at least, for certificates that end.
const PERIOD: Duration = Duration::from_hours(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Counters of this process.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Passes over the fleet.
    pub passes: Counter,
    /// Passes that failed.
    pub failures: Counter,
    /// Objects written.
    pub writes: Counter,
}

impl Metrics {
    /// Puts the counters into the registry that `/metrics` shows.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "sluice_fleet_passes",
            "Passes over what all objects share",
            self.passes.clone(),
        );
        registry.register(
            "sluice_fleet_failures",
            "Passes that failed and were tried again",
            self.failures.clone(),
        );
        registry.register(
            "sluice_fleet_writes",
            "Objects written by these passes",
            self.writes.clone(),
        );
    }
}

/// The counters of this process.
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::default)
}

/// Writes and observes the fleet for as long as it is polled. Only a leader may run it.
///
/// Nothing is written before [`Desired::mark_complete`]. Failures are logged, counted and tried again.
///
/// # Errors
/// When a later leader has taken over.
pub async fn run(
    client: Client,
    settings: Settings,
    transitions: i32,
    desired: Desired,
    observed: watch::Sender<Arc<Observed>>,
) -> Result<(), Error> {
    let view = Arc::new(View::watch(&client, &settings.namespace));
    view.ready().await;
    desired.complete().await;
    let (told, hears) = watch::channel(Told::default());
    let observing = observe::observe(
        client.clone(),
        settings.clone(),
        Arc::clone(&view),
        hears,
        observed,
    );
    let _observer = AbortOnDropHandle::new(tokio::spawn(observing));
    let mut fleet = Fleet {
        writer: Writer::new(client.clone(), &settings.namespace),
        client,
        settings,
        transitions,
        view,
        shares: Shares::default(),
        package: render::document::render(&Shares::default()),
        certificates: None,
    };

    let mut ours = fleet.view.ours.subscribe();
    let mut nodes_changed = fleet.view.nodes_changed.subscribe();
    let mut pause = FIRST_PAUSE;
    loop {
        // a change from here on wakes the next pass
        ours.mark_unchanged();
        nodes_changed.mark_unchanged();
        let nodes = fleet.nodes();
        match Box::pin(fleet.pass(desired.snapshot(), &nodes, &told)).await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error @ Error::Deposed { .. }) => return Err(error),
            Err(error) => {
                metrics().failures.inc();
                tracing::warn!(%error, "a pass over the fleet failed and is tried again");
                tokio::time::sleep(pause).await;
                pause = LONGEST_PAUSE.min(pause * 2);
                continue;
            }
        }
        loop {
            tokio::select! {
                () = desired.changed() => break,
                _ = ours.changed() => break,
                () = tokio::time::sleep(PERIOD) => break,
                // kubelets write their nodes all the time
                _ = nodes_changed.changed() => if fleet.nodes() != nodes { break },
            }
        }
        tokio::time::sleep(DEBOUNCE).await;
    }
}

struct Fleet {
    client: Client,
    settings: Settings,
    transitions: i32,
    view: Arc<View>,
    writer: Writer,
    /// What [`Fleet::package`] was made from.
    shares: Shares,
    package: Package,
    certificates: Option<Certificates>,
}

impl Fleet {
    fn nodes(&self) -> BTreeSet<String> {
        nodes::names(self.view.nodes().iter().map(Arc::as_ref), &self.settings.agent)
    }

    /// `render → apply → prune`, then the observer is told.
    async fn pass(
        &mut self,
        shares: Shares,
        nodes: &BTreeSet<String>,
        told: &watch::Sender<Told>,
    ) -> Result<(), Error> {
        metrics().passes.inc();
        if shares != self.shares {
            self.package = render::document::render(&shares);
            self.shares = shares;
        }
        let live = self.view.live();
        let owner = live.owner.clone().ok_or(Error::OwnerMissing)?;
        let certificates = self.certificates(&live)?;
        let rendered = render::render(
            &self.package,
            Inputs {
                shares: &self.shares,
                nodes,
                settings: &self.settings,
                owner: &owner,
                transitions: self.transitions,
                certificates: &certificates,
            },
        );
        let applied = match Box::pin(self.writer.apply(&live, rendered)).await {
            Ok(applied) => applied,
            Err(error) => {
                // the Secrets may be others than these by now
                self.certificates = None;
                return Err(error);
            }
        };
        self.tell(&applied, &certificates, told);
        self.view.caught_up(&applied.written).await;
        let obsolete = prune::obsolete(&self.view.live(), &applied, &self.package.hash);
        prune::prune(&self.client, &self.settings.namespace, &obsolete).await?;
        Ok(())
    }

    /// Once made they are kept here as well, so that a Secret that somebody deletes comes back as it was.
    fn certificates(&mut self, live: &view::Live) -> Result<Certificates, Error> {
        let now = Timestamp::now();
        if let Some(certificates) = self
            .certificates
            .as_ref()
            .filter(|known| !certificates::due(known, now))
        {
            return Ok(certificates.clone());
        }
        let secret = |name: &str| live.secrets.get(name).map(Arc::as_ref);
        let status = secret(sluice_engine::well_known::STATUS_SECRET);
        let certificates = certificates::ensure(secret(render::authority::NAME), status, now)?;
        self.certificates = Some(certificates.clone());
        Ok(certificates)
    }

    fn tell(&self, applied: &apply::Applied, certificates: &Certificates, told: &watch::Sender<Told>) {
        let target = Target {
            document: self.package.hash.clone(),
            pipelines: self.package.pipelines.clone(),
            tenants: self.package.tenants.clone(),
            credentials: applied.credentials.clone(),
        };
        told.send_if_modified(|told| {
            let mut changed = false;
            if *told.target != target {
                told.target = Arc::new(target);
                changed = true;
            }
            if !told
                .access
                .as_ref()
                .is_some_and(|access| access.fits(certificates))
            {
                match Access::new(certificates) {
                    Ok(access) => told.access = Some(Arc::new(access)),
                    Err(error) => tracing::error!(%error, "agents cannot be asked"),
                }
                changed = true;
            }
            changed
        });
    }
}
