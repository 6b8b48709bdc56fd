//! What chart and kustomize ship is what the operator reads.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use sluice_operator::settings::Settings;

#[test]
fn the_settings_of_kustomize_are_valid() {
    let settings = Settings::parse(
        include_str!("../../config/manager/settings.yaml"),
        "sluice-system",
    )
    .unwrap();
    assert_eq!(settings.agent.image, Settings::default().agent.image);
}

#[test]
fn defaults_of_the_chart_and_of_the_operator_agree() {
    let values: serde_json::Value =
        serde_saphyr::from_str(include_str!("../../charts/sluice/values.yaml")).unwrap();
    let defaults = serde_json::to_value(Settings::default().agent).unwrap();
    for key in [
        "resources",
        "tolerations",
        "nodeSelector",
        "podAnnotations",
        "podLabels",
        "hostPaths",
        "paths",
        "env",
    ] {
        assert_eq!(values["agent"][key], defaults[key], "{key}");
    }
}
