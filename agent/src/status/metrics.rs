//! Figures, problems and what is in force in, `OpenMetrics` out, made when somebody asks.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `sluice_agent_build_info` | `version` | always 1 |
//! | `sluice_agent_ready` | | 1 while a document is in force |
//! | `sluice_agent_open_files` | | log files open |
//! | `sluice_agent_spilled_bytes` | | copies on disk of files that vanished before they were acknowledged |
//! | `sluice_agent_pool_bytes` | | memory held by segments and requests in flight |
//! | `sluice_agent_read_bytes_total` | | bytes read from log files |
//! | `sluice_agent_malformed_lines_total` | | lines not in the runtime's format; sent as they are |
//! | `sluice_agent_too_old_lines_total` | | lines older than their namespace, not sent |
//! | `sluice_agent_resets_total` | `reason` | checkpoints or files set aside or begun anew |
//! | `sluice_agent_warning` | `reason` | 1 while the agent has something to say about itself |
//! | `sluice_agent_api_containers` | | containers read through the API |
//! | `sluice_agent_api_streams` | | requests for their logs under way |
//! | `sluice_agent_api_spool_bytes` | | bytes that were read so and are kept |
//! | `sluice_agent_api_full` | | containers that wait for room among them |
//! | `sluice_agent_api_troubled` | `reason` | containers that cannot be read through the API |
//! | `sluice_agent_api_lines_total` | | lines read through the API |
//! | `sluice_agent_containers` | `pipeline` | containers followed |
//! | `sluice_agent_pipeline_refused` | `pipeline` | 1 while newer content is refused |
//! | `sluice_agent_lag_seconds` | `pipeline`, `tenant` | age of the oldest line that is not acknowledged |
//! | `sluice_agent_delivered_lines_total` | `pipeline`, `tenant` | lines acknowledged |
//! | `sluice_agent_delivered_bytes_total` | `pipeline`, `tenant` | their bytes |
//! | `sluice_agent_rejected_lines_total` | `pipeline`, `tenant`, `reason` | lines that Loki refused for good |
//! | `sluice_agent_lost_lines_total` | `pipeline`, `tenant`, `reason` | lines read and given up |
//! | `sluice_agent_lost_bytes_total` | `pipeline`, `tenant`, `reason` | their bytes |
//! | `sluice_agent_gaps_total` | `pipeline`, `tenant` | times that lines vanished unread |
//! | `sluice_agent_tenant_problem` | `tenant`, `reason` | 1 while a tenant's lines are held back |
//! | `sluice_agent_push_requests_total` | `tenant`, `answer` | attempts by class of answer, `failed` where none came |
//! | `sluice_agent_push_sent_bytes_total` | `tenant` | bytes of bodies, each as often as it was sent |
//! | `sluice_agent_push_retries_total` | `tenant` | attempts to send what was sent before |
//! | `sluice_agent_push_splits_total` | `tenant` | requests that were sent in smaller ones |
//! | `sluice_agent_push_seconds_total` | `tenant` | time that all attempts took |
//!
//! Pipelines and tenants are written `namespace/name`. Counters begin anew with the process; those of rejected and
//! lost lines and of gaps with the agent's state on disk.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sluice_engine::key::Key;
use sluice_engine::report::Problem;
use tokio::sync::watch;

use super::figures::{Figures, OutputFigures};
use super::report::lag;
use crate::config::InForce;
use crate::follow::figures as follow;
use crate::push::figures as push;

/// Asks for the tenants whose lines are held back.
pub type Problems = Arc<dyn Fn() -> BTreeMap<Key, Problem> + Send + Sync>;

/// Asks for the pushers' counters.
pub type Pushed = Arc<dyn Fn() -> push::Figures + Send + Sync>;

/// Where the metrics come from.
pub struct Sources {
    /// The worker's figures.
    pub figures: watch::Receiver<Arc<Figures>>,
    /// What reading through the API comes to.
    pub followed: watch::Receiver<Arc<follow::Figures>>,
    /// What is in force.
    pub in_force: watch::Receiver<Arc<InForce>>,
    /// Tenants in trouble.
    pub problems: Problems,
    /// The pushers' counters.
    pub pushed: Pushed,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// A registry of all metrics.
pub fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::with_prefix("sluice_agent");
    registry.register_collector(Box::new(sources));
    registry
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = Arc::clone(&self.figures.borrow());
        let in_force = Arc::clone(&self.in_force.borrow());
        let mut out = Writer(encoder);
        out.gauge(
            "build_info",
            "Always 1",
            [([("version", env!("CARGO_PKG_VERSION"))], 1)],
        )?;
        out.gauge(
            "ready",
            "1 while a document is in force",
            [([], i64::from(!in_force.document.is_empty()))],
        )?;
        let followed = Arc::clone(&self.followed.borrow());
        process(&mut out, &figures, &followed)?;
        through_api(&mut out, &followed)?;
        pipelines(&mut out, &figures)?;
        let refused: Vec<_> = in_force
            .refused
            .iter()
            .map(|(name, _)| name.to_string())
            .collect();
        let refused = refused.iter().map(|name| ([("pipeline", name.as_str())], 1));
        out.gauge("pipeline_refused", "1 while newer content is refused", refused)?;
        let problems: Vec<_> = (self.problems)()
            .iter()
            .map(|(name, p)| (name.to_string(), format!("{:?}", p.reason)))
            .collect();
        let problems = problems
            .iter()
            .map(|(name, reason)| ([("tenant", name.as_str()), ("reason", reason.as_str())], 1));
        out.gauge(
            "tenant_problem",
            "1 while a tenant's lines are held back",
            problems,
        )?;
        tenants(&mut out, &(self.pushed)())
    }
}

fn process(out: &mut Writer<'_>, figures: &Figures, followed: &follow::Figures) -> fmt::Result {
    out.gauge("open_files", "Log files open", [([], whole(figures.open_files))])?;
    out.gauge(
        "spilled_bytes",
        "Copies on disk of files that vanished before they were acknowledged",
        [([], whole(figures.spilled_bytes))],
    )?;
    out.gauge(
        "pool_bytes",
        "Memory held by segments and requests in flight",
        [([], whole(figures.pool_bytes))],
    )?;
    out.counter(
        "read_bytes",
        "Bytes read from log files",
        [([], figures.read_bytes)],
    )?;
    let malformed = [([], figures.malformed_lines)];
    out.counter(
        "malformed_lines",
        "Lines that were not in the runtime's format",
        malformed,
    )?;
    let too_old = [([], figures.too_old_lines)];
    out.counter(
        "too_old_lines",
        "Lines older than their namespace, not sent",
        too_old,
    )?;
    let resets = figures
        .resets
        .iter()
        .map(|(reason, count)| ([("reason", *reason)], *count));
    out.counter("resets", "Checkpoints or files set aside or begun anew", resets)?;
    let warnings = figures
        .warnings
        .iter()
        .chain(&followed.warnings)
        .map(|warning| ([("reason", warning.reason.as_str())], 1));
    out.gauge(
        "warning",
        "1 while the agent has something to say about itself",
        warnings,
    )
}

fn through_api(out: &mut Writer<'_>, followed: &follow::Figures) -> fmt::Result {
    let gauges = [
        (
            "api_containers",
            "Containers read through the API",
            followed.containers,
        ),
        (
            "api_streams",
            "Requests for their logs under way",
            followed.streams,
        ),
        (
            "api_spool_bytes",
            "Bytes that were read so and are kept",
            followed.spool_bytes,
        ),
        (
            "api_full",
            "Containers that wait for room among them",
            followed.full,
        ),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, [([], whole(value))])?;
    }
    let troubled = followed
        .troubled
        .iter()
        .map(|(reason, count)| ([("reason", *reason)], whole(*count)));
    out.gauge(
        "api_troubled",
        "Containers that cannot be read through the API",
        troubled,
    )?;
    out.counter("api_lines", "Lines read through the API", [([], followed.lines)])
}

fn pipelines(out: &mut Writer<'_>, figures: &Figures) -> fmt::Result {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let now = whole(now);
    let names: Vec<_> = figures
        .pipelines
        .iter()
        .map(|(name, figures)| (name.to_string(), figures))
        .collect();
    let containers = names
        .iter()
        .map(|(name, figures)| ([("pipeline", name.as_str())], i64::from(figures.containers)));
    out.gauge("containers", "Containers followed", containers)?;
    let outputs: Vec<(&str, String, &OutputFigures)> = names
        .iter()
        .flat_map(|(name, figures)| {
            figures
                .outputs
                .iter()
                .map(|(t, output)| (name.as_str(), t.to_string(), output))
        })
        .collect();
    let each = || {
        outputs
            .iter()
            .map(|(p, t, output)| ([("pipeline", *p), ("tenant", t.as_str())], *output))
    };
    let lags = each().map(|(labels, output)| (labels, whole(lag(output, now))));
    out.gauge(
        "lag_seconds",
        "Age of the oldest line that is not acknowledged",
        lags,
    )?;
    let lines = each().map(|(labels, output)| (labels, output.delivered_lines));
    out.counter("delivered_lines", "Lines acknowledged", lines)?;
    let bytes = each().map(|(labels, output)| (labels, output.delivered_bytes));
    out.counter("delivered_bytes", "Bytes of lines acknowledged", bytes)?;
    let rejected = each().flat_map(|([pipeline, tenant], output)| {
        output
            .rejected
            .iter()
            .map(move |(reason, lines)| ([pipeline, tenant, ("reason", reason.as_str())], *lines))
    });
    out.counter("rejected_lines", "Lines that Loki refused for good", rejected)?;
    let lost = || {
        each().flat_map(|([pipeline, tenant], output)| {
            output
                .lost
                .iter()
                .map(move |(reason, lost)| ([pipeline, tenant, ("reason", reason.as_str())], *lost))
        })
    };
    let lines = lost().map(|(labels, (lines, _))| (labels, lines));
    out.counter("lost_lines", "Lines read and given up", lines)?;
    let bytes = lost().map(|(labels, (_, bytes))| (labels, bytes));
    out.counter("lost_bytes", "Bytes of lines read and given up", bytes)?;
    let gaps = each().map(|(labels, output)| (labels, output.gap_count));
    out.counter("gaps", "Times that lines vanished unread", gaps)
}

fn tenants(out: &mut Writer<'_>, figures: &push::Figures) -> fmt::Result {
    let tenants: Vec<_> = figures
        .tenants
        .iter()
        .map(|(name, figures)| (name.to_string(), figures))
        .collect();
    let each = || {
        tenants
            .iter()
            .map(|(name, figures)| ([("tenant", name.as_str())], *figures))
    };
    let requests = each().flat_map(|([tenant], figures)| {
        figures
            .requests
            .iter()
            .map(move |(answer, count)| ([tenant, ("answer", *answer)], *count))
    });
    out.counter("push_requests", "Attempts by class of answer", requests)?;
    let sent = each().map(|(labels, figures)| (labels, figures.sent_bytes));
    out.counter(
        "push_sent_bytes",
        "Bytes of bodies, each as often as it was sent",
        sent,
    )?;
    let retries = each().map(|(labels, figures)| (labels, figures.retries));
    out.counter("push_retries", "Attempts to send what was sent before", retries)?;
    let splits = each().map(|(labels, figures)| (labels, figures.splits));
    out.counter("push_splits", "Requests that were sent in smaller ones", splits)?;
    let seconds = each().map(|(labels, figures)| (labels, figures.duration.as_secs_f64()));
    out.counter("push_seconds", "Time that all attempts took", seconds)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes families whose samples are known already.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], i64)>,
    ) -> fmt::Result {
        let samples = samples
            .into_iter()
            .map(|(labels, value)| (labels, ConstGauge::new(value)));
        self.family(name, help, MetricType::Gauge, samples)
    }

    fn counter<'l, const N: usize, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], V)>,
    ) -> fmt::Result {
        let samples = samples
            .into_iter()
            .map(|(labels, value)| (labels, ConstCounter::new(value)));
        self.family(name, help, MetricType::Counter, samples)
    }

    fn family<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl Iterator<Item = ([(&'l str, &'l str); N], impl EncodeMetric)>,
    ) -> fmt::Result {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let mut encoder: MetricEncoder<'_> = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, sample) in samples {
            if N == 0 {
                sample.encode(encoder)?;
                return Ok(());
            }
            sample.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluice_engine::report::{Gap, GapCause, ProblemReason, Warning};

    use super::super::figures::PipelineFigures;
    use super::*;

    fn output() -> OutputFigures {
        let gap = Gap {
            namespace: "team".into(),
            pod: "web-0".into(),
            container: "c".into(),
            cause: GapCause::FilesDeleted,
            after: None,
            before: None,
            noticed: 0,
        };
        OutputFigures {
            oldest_unacknowledged: Some(0),
            delivered_lines: 5,
            delivered_bytes: 50,
            rejected: BTreeMap::from([("line_too_long".into(), 2)]),
            lost: BTreeMap::from([("no_space".into(), (3, 30))]),
            // More than are listed.
            gap_count: 12,
            gaps: vec![gap],
        }
    }

    #[test]
    fn the_text_names_every_metric_of_the_table_and_no_error_text() {
        let pipeline = PipelineFigures {
            containers: 3,
            outputs: BTreeMap::from([(Key::new("logging", "ops"), output())]),
            ..PipelineFigures::default()
        };
        let figures = Figures {
            pipelines: BTreeMap::from([(Key::new("team", "web"), pipeline)]),
            warnings: vec![Warning {
                reason: "WatchesExhausted".into(),
                message: "some text".into(),
            }],
            read_bytes: 7,
            resets: BTreeMap::from([("corrupt", 1)]),
            ..Figures::default()
        };
        let followed = follow::Figures {
            troubled: BTreeMap::from([("forbidden", 1)]),
            ..follow::Figures::default()
        };
        let in_force = InForce {
            document: "d".into(),
            refused: vec![(Key::new("team", "web"), "some text".into())],
            ..InForce::default()
        };
        let problem = Problem {
            reason: ProblemReason::RateLimited,
            message: "some text".into(),
        };
        let registry = registry(Sources {
            figures: watch::channel(Arc::new(figures)).1,
            followed: watch::channel(Arc::new(followed)).1,
            in_force: watch::channel(Arc::new(in_force)).1,
            problems: Arc::new(move || BTreeMap::from([(Key::new("logging", "ops"), problem.clone())])),
            pushed: Arc::new(|| {
                let figures = push::TenantFigures {
                    requests: BTreeMap::from([("2xx", 4)]),
                    duration: std::time::Duration::from_millis(1_500),
                    ..push::TenantFigures::default()
                };
                push::Figures {
                    tenants: BTreeMap::from([(Key::new("logging", "ops"), figures)]),
                }
            }),
        });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let table = include_str!("metrics.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
        for metric in table {
            assert!(
                text.lines().any(|line| line.starts_with(metric)),
                "{metric} is missing in\n{text}"
            );
        }
        for line in [
            r#"sluice_agent_delivered_lines_total{pipeline="team/web",tenant="logging/ops"} 5"#,
            r#"sluice_agent_rejected_lines_total{pipeline="team/web",tenant="logging/ops",reason="line_too_long"} 2"#,
            r#"sluice_agent_lost_lines_total{pipeline="team/web",tenant="logging/ops",reason="no_space"} 3"#,
            r#"sluice_agent_lost_bytes_total{pipeline="team/web",tenant="logging/ops",reason="no_space"} 30"#,
            r#"sluice_agent_gaps_total{pipeline="team/web",tenant="logging/ops"} 12"#,
            r#"sluice_agent_tenant_problem{tenant="logging/ops",reason="RateLimited"} 1"#,
            r#"sluice_agent_push_requests_total{tenant="logging/ops",answer="2xx"} 4"#,
            r#"sluice_agent_push_seconds_total{tenant="logging/ops"} 1.5"#,
            "sluice_agent_read_bytes_total 7",
            "sluice_agent_ready 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("some text"));
        assert!(text.ends_with("# EOF\n"));
    }
}
