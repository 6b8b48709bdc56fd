//! Inputs of the report in, `/status` with a token out: `/status?since=<sequence>&process=<id>` waits until
//! something changed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::report::Reporter;
use super::tls::TlsFiles;

/// Below the 30 s after which proxies and clients lose patience.
const LONG_POLL: Duration = Duration::from_secs(25);

/// The report, shared between those who change it and those who ask for it.
#[derive(Clone, Debug)]
pub struct Shared {
    reporter: Arc<Mutex<Reporter>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Shared {
    /// Shares a report.
    pub fn new(reporter: Reporter) -> Self {
        let changed = Arc::new(watch::Sender::new(reporter.sequence()));
        Self {
            reporter: Arc::new(Mutex::new(reporter)),
            changed,
        }
    }

    /// Changes the report with `update`, which gets the time in seconds since 1970 and says whether anything
    /// changed; wakes those who wait for it.
    pub fn update(&self, update: impl FnOnce(&mut Reporter, i64) -> bool) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut reporter = self.lock();
        if update(&mut reporter, i64::try_from(now).unwrap_or(0)) {
            self.changed.send_replace(reporter.sequence());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reporter> {
        self.reporter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes of the status port.
pub fn router(shared: Shared, tls: Arc<TlsFiles>) -> Router {
    Router::new()
        .route("/status", get(status))
        .with_state((shared, tls))
}

#[derive(Debug, Deserialize)]
struct Asked {
    since: Option<u64>,
    process: Option<u64>,
}

async fn status(
    State((shared, tls)): State<(Shared, Arc<TlsFiles>)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    if !headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| tls.admits(value.as_bytes()))
    {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response();
    }
    let mut changed = shared.changed.subscribe();
    let deadline = Instant::now() + LONG_POLL;
    while shared.lock().is_known(asked.since, asked.process) {
        if !matches!(
            tokio::time::timeout_at(deadline, changed.changed()).await,
            Ok(Ok(()))
        ) {
            break;
        }
    }
    let report = shared.lock().answer(asked.since, asked.process);
    match serde_json::to_vec(&report) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
