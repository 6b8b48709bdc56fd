//! The state of the process in, `/healthz`, `/readyz` and `/metrics` on the plain port out. No error texts.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Says yes or no about the process.
pub type Check = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the probes ask.
#[derive(Clone)]
pub struct Admin {
    /// Whether the worker's thread makes progress: without it, a restart helps.
    pub alive: Check,
    /// Whether a document is in force, be it the cached one.
    pub ready: Check,
    /// The metrics.
    pub registry: Arc<Registry>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// The routes of the plain port.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route(
            "/healthz",
            get(|State(admin): State<Admin>| async move { answer((admin.alive)(), "the worker is stuck\n") }),
        )
        .route(
            "/readyz",
            get(|State(admin): State<Admin>| async move { answer((admin.ready)(), "no document yet\n") }),
        )
        .route("/metrics", get(metrics))
        .with_state(admin)
}

fn answer(yes: bool, otherwise: &'static str) -> Response {
    if yes {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, otherwise).into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &admin.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
