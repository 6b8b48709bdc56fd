//! What the operator counts in; `/healthz`, `/readyz` and `/metrics` out.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Class {
    kind: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answer {
    answer: &'static str,
}

/// The operator's metrics; clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciles: Family<Kind, Histogram, fn() -> Histogram>,
    errors: Family<Class, Counter>,
    reviews: Family<Answer, Counter>,
    writes: Family<Kind, Counter>,
    agents: Gauge,
    nodes: Gauge,
    leading: Gauge,
    reconciled: Arc<AtomicU64>,
    ready: Arc<AtomicBool>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new([0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0]);
        let metrics = Self {
            registry: Arc::default(),
            reconciles: Family::new_with_constructor(histogram),
            errors: Family::default(),
            reviews: Family::default(),
            writes: Family::default(),
            agents: Gauge::default(),
            nodes: Gauge::default(),
            leading: Gauge::default(),
            reconciled: Arc::default(),
            ready: Arc::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let r = registry.sub_registry_with_prefix("sluice_operator");
        r.register(
            "reconcile_duration_seconds",
            "Time to reconcile one object",
            self.reconciles.clone(),
        );
        r.register(
            "reconcile_errors",
            "Failed reconciliations by class",
            self.errors.clone(),
        );
        r.register("reviews", "SubjectAccessReviews by answer", self.reviews.clone());
        r.register("status_writes", "Writes of status", self.writes.clone());
        r.register("agents_connected", "Agents that answer", self.agents.clone());
        r.register("nodes", "Nodes where an agent should run", self.nodes.clone());
        r.register(
            "leading",
            "1 while this process holds the Lease",
            self.leading.clone(),
        );
    }

    /// Lets another part register its own metrics.
    pub fn with_registry(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// An object was reconciled.
    pub fn reconciled(&self, kind: &'static str, took: Duration) {
        self.reconciles
            .get_or_create(&Kind { kind })
            .observe(took.as_secs_f64());
        self.reconciled.fetch_add(1, Ordering::Relaxed);
    }

    /// A reconciliation failed.
    pub fn failed(&self, kind: &'static str, class: &'static str) {
        self.errors.get_or_create(&Class { kind, class }).inc();
    }

    /// A review was answered, or with `None` failed.
    pub fn review(&self, answer: Option<bool>) {
        let answer = match answer {
            Some(true) => "allowed",
            Some(false) => "denied",
            None => "failed",
        };
        self.reviews.get_or_create(&Answer { answer }).inc();
    }

    /// A status was written.
    pub fn wrote(&self, kind: &'static str) {
        self.writes.get_or_create(&Kind { kind }).inc();
    }

    /// Nodes, and how many agents answer.
    pub fn agents(&self, nodes: usize, connected: usize) {
        self.nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
        self.agents.set(i64::try_from(connected).unwrap_or(i64::MAX));
    }

    /// This process holds the Lease.
    pub fn leading(&self) {
        self.leading.set(1);
    }

    /// The process can do its work, as leader or in waiting.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Serves probes and metrics until `stop` resolves.
///
/// # Errors
/// When the address cannot be bound, or the server fails.
pub async fn serve(
    listen: SocketAddr,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(encode))
        .with_state(metrics);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn ready(State(metrics): State<Metrics>) -> StatusCode {
    if metrics.ready.load(Ordering::Relaxed) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn encode(State(metrics): State<Metrics>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics.encode() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        metrics.review(Some(true));
        metrics.wrote("LogPipeline");
        metrics.agents(3, 2);
        let text = metrics.encode().unwrap();
        for line in [
            "sluice_operator_reviews_total{answer=\"allowed\"} 1",
            "sluice_operator_status_writes_total{kind=\"LogPipeline\"} 1",
            "sluice_operator_agents_connected 2",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
