//! Every rule of a document: a pipeline or tenant in, all its errors out, each with its path.
//!
//! The API server checks what one object can show and the operator the rest; the agent asks here once more,
//! since a document can also be written by hand.

use std::fmt;

use crate::document::{Pipeline, Tenant};
use crate::loki;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `labels.static[x-y]`.
    pub path: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// All violations as one text.
pub fn join(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

struct Violations(Vec<Violation>);

impl Violations {
    fn check(&mut self, holds: bool, path: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.0.push(Violation {
                path: path.into(),
                message: message.into(),
            });
        }
    }
}

/// Checks a pipeline.
pub fn pipeline(pipeline: &Pipeline) -> Vec<Violation> {
    let mut found = Violations(Vec::new());
    let tenants = pipeline.tenants.len();
    found.check(
        (1..=4).contains(&tenants),
        "tenants",
        format!("has {tenants} entries, 1 to 4 are allowed"),
    );
    for (index, tenant) in pipeline.tenants.iter().enumerate() {
        let again = pipeline
            .tenants
            .iter()
            .take(index)
            .any(|earlier| earlier == tenant);
        found.check(
            !again,
            format!("tenants[{index}]"),
            format!("{tenant} is listed twice: leave one out"),
        );
    }
    let labels = &pipeline.labels;
    let names = labels
        .fixed
        .keys()
        .map(|name| (format!("labels.static[{name}]"), name))
        .chain(
            labels
                .from_pod_labels
                .iter()
                .enumerate()
                .map(|(index, rule)| (format!("labels.fromPodLabels[{index}].label"), &rule.label)),
        )
        .chain(
            labels
                .from_namespace_labels
                .iter()
                .enumerate()
                .map(|(index, rule)| (format!("labels.fromNamespaceLabels[{index}].label"), &rule.label)),
        );
    for (path, name) in names {
        found.check(
            loki::is_label_name(name),
            path,
            format!(
                "{name:?} cannot be a label: use letters, digits and _, not beginning with a digit or __, and none of {}",
                loki::RESERVED_LABELS.join(", ")
            ),
        );
    }
    for (index, name) in labels.drop.iter().enumerate() {
        found.check(
            !matches!(name.as_str(), "namespace" | "node_name"),
            format!("labels.drop[{index}]"),
            format!(
                "{name} cannot be dropped: it is evidence of a line's origin and gives each stream one writer"
            ),
        );
    }
    found.0
}

/// Checks a tenant.
pub fn tenant(tenant: &Tenant) -> Vec<Violation> {
    let mut found = Violations(Vec::new());
    match loki::push_url(&tenant.push_url) {
        Ok(url) => found.check(
            url == tenant.push_url,
            "pushUrl",
            format!("{:?} is not the full push URL: write {url:?}", tenant.push_url),
        ),
        Err(error) => found.check(false, "pushUrl", error.to_string()),
    }
    if let Some(id) = &tenant.tenant_id {
        found.check(
            loki::is_tenant_id(id),
            "tenantId",
            format!("{id:?} is not a tenant ID: use 1 to 150 letters, digits and !-_.*'(), not . or .."),
        );
    }
    for (index, header) in tenant.headers.iter().enumerate() {
        found.check(
            loki::is_header_name(&header.name),
            format!("headers[{index}].name"),
            format!(
                "{:?} cannot be set: Content-*, {} are Sluice's own",
                header.name,
                loki::RESERVED_HEADERS.join(", ")
            ),
        );
        found.check(
            header
                .value
                .bytes()
                .all(|b| b == b'\t' || (b' '..=b'~').contains(&b)),
            format!("headers[{index}].value"),
            "has a character that a header cannot hold: use printable ASCII",
        );
    }
    figures(tenant, &mut found);
    found.0
}

/// Checks a tenant's limits and delivery.
fn figures(tenant: &Tenant, found: &mut Violations) {
    let limits = &tenant.limits;
    let line = limits.max_line_bytes;
    found.check(
        (1_024..=3 << 20).contains(&line),
        "limits.maxLineBytes",
        format!("is {line}, 1024 to 3145728 are allowed"),
    );
    found.check(
        limits.max_label_names >= 6,
        "limits.maxLabelNames",
        "is below 6: every profile has four labels, and late or spread lines get two more",
    );
    found.check(
        limits.max_label_value_bytes >= 253,
        "limits.maxLabelValueBytes",
        format!(
            "is {}, at least 253 is needed: a node's name that is cut could be another's",
            limits.max_label_value_bytes
        ),
    );
    for (path, value) in [
        ("limits.rateBytesPerSecond", limits.rate_bytes_per_second),
        ("limits.burstBytes", limits.burst_bytes),
        (
            "limits.perStreamRateBytesPerSecond",
            limits.per_stream_rate_bytes_per_second,
        ),
        ("limits.perStreamBurstBytes", limits.per_stream_burst_bytes),
    ] {
        found.check(
            value >= 1_024,
            path,
            format!("is {value}, at least 1024 is needed"),
        );
    }
    let window = limits.out_of_order_window_ms;
    found.check(
        (10_000..=7 * 86_400_000).contains(&window),
        "limits.outOfOrderWindowMs",
        format!("is {window}, 10000 to 604800000 are allowed: write half of Loki's max_chunk_age"),
    );
    if let Some(age) = limits.reject_old_samples_max_age_ms {
        found.check(
            age >= 60_000,
            "limits.rejectOldSamplesMaxAgeMs",
            format!("is {age}, at least 60000 is needed"),
        );
    }
    let delivery = &tenant.delivery;
    found.check(
        (16_384..=loki::MAX_REQUEST_BYTES).contains(&delivery.batch_bytes),
        "delivery.batchBytes",
        format!(
            "is {}, 16384 to {} are allowed",
            delivery.batch_bytes,
            loki::MAX_REQUEST_BYTES
        ),
    );
    found.check(
        (50..=10_000).contains(&delivery.batch_wait_ms),
        "delivery.batchWaitMs",
        format!("is {}, 50 to 10000 are allowed", delivery.batch_wait_ms),
    );
    found.check(
        (1_000..=300_000).contains(&delivery.request_timeout_ms),
        "delivery.requestTimeoutMs",
        format!("is {}, 1000 to 300000 are allowed", delivery.request_timeout_ms),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn document() -> Document {
        let json = br#"{"version":1,
            "tenants":[{"name":"logging/ops","uid":"u","pushUrl":"http://loki/loki/api/v1/push"}],
            "pipelines":[{"name":"team-a/web","uid":"u","tenants":["logging/ops"],"pods":{"namespaces":[{"name":"team-a"}]}}]}"#;
        let (document, refused) = Document::read(json).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        document
    }

    #[test]
    fn the_smallest_document_is_valid() {
        let document = document();
        assert_eq!(pipeline(&document.pipelines[0]), []);
        assert_eq!(tenant(&document.tenants[0]), []);
    }

    #[test]
    fn every_pipeline_violation_names_its_field() {
        let mut bad = document().pipelines.remove(0);
        bad.tenants.push(bad.tenants[0].clone());
        bad.labels.fixed.insert("a-b".into(), "x".into());
        bad.labels.drop.push("node_name".into());
        let paths: Vec<_> = pipeline(&bad)
            .into_iter()
            .map(|violation| violation.path)
            .collect();
        assert_eq!(paths, ["tenants[1]", "labels.static[a-b]", "labels.drop[0]"]);
    }

    #[test]
    fn every_tenant_violation_names_its_field() {
        let mut bad = document().tenants.remove(0);
        bad.push_url = "http://loki".into();
        bad.tenant_id = Some("a/b".into());
        bad.headers.push(crate::document::Header {
            name: "Host".into(),
            value: "x\n".into(),
        });
        bad.limits.max_line_bytes = 1;
        bad.limits.out_of_order_window_ms = 1;
        bad.limits.reject_old_samples_max_age_ms = Some(1);
        bad.limits.max_label_value_bytes = 252;
        bad.delivery.batch_wait_ms = 1;
        let found = tenant(&bad);
        let paths: Vec<_> = found.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "pushUrl",
                "tenantId",
                "headers[0].name",
                "headers[0].value",
                "limits.maxLineBytes",
                "limits.maxLabelValueBytes",
                "limits.outOfOrderWindowMs",
                "limits.rejectOldSamplesMaxAgeMs",
                "delivery.batchWaitMs"
            ]
        );
        assert!(join(&found).contains("/loki/api/v1/push"));
    }
}
