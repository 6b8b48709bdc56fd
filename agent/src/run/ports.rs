//! The data path and what is in force in, both ports' answers out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use super::End;
use super::path::DataPath;
use crate::cli::Settings;
use crate::config::InForce;
use crate::status::admin::{self, Admin};
use crate::status::figures::Figures;
use crate::status::listen;
use crate::status::metrics::{self, Sources};
use crate::status::report::{Identity, Reporter};
use crate::status::server::{self, Shared};
use crate::status::tls::TlsFiles;

/// How often lag is looked at.
const TICK: Duration = Duration::from_secs(1);

/// Answers probes and scrapers.
pub(super) fn serve_plain(listener: TcpListener, path: &DataPath, in_force: &watch::Receiver<Arc<InForce>>) {
    let (problems, pushed) = (path.clone(), path.clone());
    let registry = metrics::registry(Sources {
        figures: path.figures(),
        followed: path.followed(),
        in_force: in_force.clone(),
        problems: Arc::new(move || problems.problems()),
        pushed: Arc::new(move || pushed.pushed()),
    });
    let (alive, ready) = (path.clone(), in_force.clone());
    let router = admin::router(Admin {
        alive: Arc::new(move || alive.is_alive()),
        ready: Arc::new(move || !ready.borrow().document.is_empty()),
        registry: Arc::new(registry),
    });
    tokio::spawn(listen::serve(listener, None, router));
}

/// Answers the operator.
pub(super) fn serve_status(
    listener: TcpListener,
    tls: TlsFiles,
    settings: &Settings,
    path: &DataPath,
    in_force: &watch::Receiver<Arc<InForce>>,
) {
    let shared = Shared::new(Reporter::new(Identity {
        process: rand::random(),
        pod_uid: settings.pod_uid.clone(),
        node: settings.node.clone(),
    }));
    let tls = Arc::new(tls);
    let router = server::router(shared.clone(), Arc::clone(&tls));
    tokio::spawn(listen::serve(listener, Some(tls), router));
    tokio::spawn(report(shared, path.clone(), in_force.clone()));
}

/// Keeps the report up to date: at once when something changed, and each second since lag grows by itself.
async fn report(shared: Shared, path: DataPath, mut in_force: watch::Receiver<Arc<InForce>>) {
    let mut figures = path.figures();
    let mut followed = path.followed();
    let mut problems = path.problems_changed();
    loop {
        let runs = Arc::clone(&in_force.borrow_and_update());
        let mut counts = Figures::clone(&figures.borrow_and_update());
        followed.borrow_and_update().tell(&mut counts);
        shared.update(|reporter, now| reporter.update(&runs, &counts, &path.problems(), now));
        let alive = tokio::select! {
            changed = in_force.changed() => changed.is_ok(),
            changed = figures.changed() => changed.is_ok(),
            changed = followed.changed() => changed.is_ok(),
            changed = problems.changed() => changed.is_ok(),
            () = sleep(TICK) => true,
        };
        if !alive {
            return;
        }
    }
}

/// Takes an address, or says which flag gave it.
pub(super) async fn bind(flag: &str, address: SocketAddr) -> Result<TcpListener, End> {
    listen::bind(address).await.map_err(|error| {
        End::Settings(format!(
            "{flag} {address}: {error}: give an address that is free on this host"
        ))
    })
}
