//! Labels that a tenant's limits do not let through in, a warning of their pipeline out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use sluice_engine::document::{Limits, StructuredMetadata};
use sluice_engine::key::Key;
use sluice_engine::labels::{FromNamespaceLabel, LabelRules};

mod files_rig;

use files_rig::{Rig, in_force, pipeline, tenant};

#[test]
fn labels_that_a_tenant_has_no_room_for_are_told_of_its_pipeline() {
    let mut labelled = pipeline("p", &["t", "wide"]);
    labelled.pods.namespaces[0].labels = BTreeMap::from([("team".to_owned(), "ä".repeat(200))]);
    labelled.labels = LabelRules {
        fixed: BTreeMap::from([("cluster".to_owned(), "ops".to_owned())]),
        from_namespace_labels: vec![FromNamespaceLabel {
            label: "team".to_owned(),
            namespace_label: "team".to_owned(),
        }],
        ..LabelRules::default()
    };
    let mut narrow = tenant("t", 4096);
    narrow.limits = Limits {
        max_label_names: 6,
        max_label_value_bytes: 253,
        structured_metadata: StructuredMetadata {
            max_bytes: 300,
            ..StructuredMetadata::default()
        },
        ..narrow.limits
    };
    let other = pipeline("q", &["t"]);
    let mut rig = Rig::with(in_force(
        vec![labelled, other],
        vec![narrow, tenant("wide", 4096)],
    ));
    rig.log("0.log", &["x"]);
    rig.run(200);
    let sent = |tenant: &str| {
        let mut of = rig.acked.iter().filter(|sent| sent.tenant.name == tenant);
        of.find(|sent| sent.metadata.contains("cluster") || sent.labels.contains("cluster"))
            .unwrap()
    };
    // 126 characters of two bytes each are the most that end within 253 bytes.
    assert_eq!(
        sent("t").metadata,
        format!("pod=web-0;cluster=ops;team={};stream=stdout;", "ä".repeat(126))
    );
    assert!(sent("wide").labels.contains(&format!(
        r#"cluster="ops", container="c", namespace="a", node_name="node1", team="{}""#,
        "ä".repeat(200)
    )));
    let figures = rig.core().figures();
    let of = |name: &str| &figures.pipelines[&Key::new("a", name)].warnings;
    let told: Vec<_> = of("p")
        .iter()
        .map(|warning| (warning.reason.as_str(), warning.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [(
            "LabelsCurtailed",
            "The limits of LokiTenant logging/t do not let every label through: cluster, team are structured metadata; team is cut. Choose fewer or shorter labels, or raise spec.limits.maxLabelNames, maxLabelValueBytes or structuredMetadata with Loki's own limits."
        )]
    );
    assert!(of("q").is_empty() && figures.warnings.is_empty());
    // It holds after a restart, which reads the choice from the journal.
    rig.crash();
    rig.run(200);
    assert_eq!(
        rig.core().figures().pipelines[&Key::new("a", "p")].warnings.len(),
        1
    );
}
