//! Flags in; the parts wired and running until the process is told to end, or loses its office.

pub mod object_side;
mod streams;
mod watches;

use std::io::IsTerminal as _;
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{Metrics, serve};
use crate::cli::Run;
use crate::cluster::leader::Elector;
use crate::fleet;
use crate::fleet::desired::Desired;
use crate::fleet::observed::Observed;
use crate::settings::Settings;

pub use object_side::{Objects, Options, objects};

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are no good.
    #[error(transparent)]
    Settings(#[from] crate::settings::Error),
    /// No way to the API server is known.
    #[error("the API server cannot be reached: {0}")]
    Client(String),
    /// The probes cannot be served.
    #[error("{0} cannot be served: {1}")]
    Serve(std::net::SocketAddr, #[source] std::io::Error),
    /// Another process leads now.
    #[error("the Lease is lost: another process leads")]
    Lost,
    /// The fleet ended.
    #[error(transparent)]
    Fleet(#[from] fleet::Error),
}

/// Runs the operator until it is told to end.
///
/// # Errors
/// When it cannot begin, or loses its office.
pub async fn run(flags: Run) -> Result<(), Error> {
    let settings = Settings::load(flags.settings.as_deref(), &flags.namespace)?;
    log(&flags, &settings);
    let options = options(&flags, &settings);
    let client = Client::try_default()
        .await
        .map_err(|error| Error::Client(error.to_string()))?;
    let metrics = Metrics::default();
    metrics.with_registry(|registry| fleet::metrics().register(registry));
    let ended = told_to_end();
    let served = serve(flags.listen, metrics.clone(), ended.clone().cancelled_owned());
    let mut served = AbortOnDropHandle::new(tokio::spawn(served));
    // Both, the leader and who waits, do what they should.
    metrics.ready();
    let elector = Elector::new(client.clone(), &flags.namespace, &flags.identity);
    let leadership = tokio::select! {
        leadership = elector.acquire() => leadership,
        () = ended.cancelled() => return Ok(()),
        served = &mut served => return served_until(flags.listen, served),
    };
    metrics.leading();
    let result = tokio::select! {
        result = lead(client, settings, options, metrics, leadership.transitions) => result,
        () = leadership.lost() => return Err(Error::Lost),
        () = ended.cancelled() => Ok(()),
        served = &mut served => served_until(flags.listen, served),
    };
    // Nothing is written any more, so another process may lead at once.
    leadership.release().await;
    result
}

async fn lead(
    client: Client,
    settings: Settings,
    options: Options,
    metrics: Metrics,
    transitions: i32,
) -> Result<(), Error> {
    let desired = Desired::default();
    let (sender, observed) = watch::channel(Arc::new(Observed::default()));
    let fleet = fleet::run(client.clone(), settings, transitions, desired.clone(), sender);
    let objects = async {
        let objects = objects(client, options, metrics, desired.clone(), observed).await;
        objects.settled().await;
        desired.mark_complete();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = Box::pin(fleet) => result.map_err(Error::Fleet),
        () = Box::pin(objects) => Ok(()),
    }
}

fn served_until(
    listen: std::net::SocketAddr,
    served: Result<std::io::Result<()>, tokio::task::JoinError>,
) -> Result<(), Error> {
    served
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| Error::Serve(listen, error))
}

fn options(flags: &Run, settings: &Settings) -> Options {
    let mut tenant_namespaces = settings.tenant_namespaces.clone();
    tenant_namespaces.extend(flags.tenant_namespaces.iter().cloned());
    if tenant_namespaces.is_empty() {
        tenant_namespaces.insert(flags.namespace.clone());
    }
    Options {
        identity: flags.identity.clone(),
        tenant_namespaces,
        review_all_namespaces: flags
            .review_all_namespaces
            .unwrap_or(settings.review_all_namespaces),
        allow_local_addresses: flags.allow_local_addresses || settings.allow_local_addresses,
        host_paths: settings.agent.host_paths,
    }
}

fn log(flags: &Run, settings: &Settings) {
    let level = flags.log.as_deref().unwrap_or(&settings.log_level);
    let filter = tracing_subscriber::EnvFilter::new(level);
    // Colours are for people who watch; in `kubectl logs` they would be noise.
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stdout().is_terminal());
    if flags.log_json {
        format.json().init();
    } else {
        format.init();
    }
}

/// Cancelled when the process is told to end.
fn told_to_end() -> CancellationToken {
    let token = CancellationToken::new();
    let ended = token.clone();
    tokio::spawn(async move {
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(signal) => signal,
            Err(error) => {
                tracing::error!(%error, "SIGTERM cannot be awaited");
                return;
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        ended.cancel();
    });
    token
}
