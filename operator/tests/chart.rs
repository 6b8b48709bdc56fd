//! The chart as Helm renders it, and kustomize beside it. Needs what `make tools` builds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod rig;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use sluice_operator::cluster::names::Owner;
use sluice_operator::fleet::render::daemon_set;
use sluice_operator::settings::Settings;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/sluice");

fn helm(values: &Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    std::fs::write(&file, values.to_string()).unwrap();
    let program: PathBuf = rig::cached("helm-", "helm");
    Command::new(program)
        .args(["template", "sluice", CHART, "--namespace=sluice-system"])
        .args(["--kube-version=1.34.0", "--values"])
        .arg(file)
        .output()
        .unwrap()
}

fn documents(output: &Output) -> Vec<Value> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let all: Vec<Value> = text
        .split("\n---")
        .filter(|part| {
            part.lines()
                .any(|line| !line.starts_with('#') && !line.trim().is_empty())
        })
        .map(|part| serde_saphyr::from_str(part.trim_start_matches("---")).unwrap())
        .collect();
    assert!(all.len() > 5);
    all
}

/// Rules, subjects and role references by kind, namespace and name; labels that make a role part of others.
fn rights(documents: &[Value]) -> BTreeMap<String, Value> {
    let aggregated = |object: &Value| -> Value {
        let labels = object["metadata"]["labels"].as_object().unwrap().clone();
        labels
            .into_iter()
            .filter(|(label, _)| label.starts_with("rbac."))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    documents
        .iter()
        .filter(|object| {
            let kind = object["kind"].as_str().unwrap();
            kind.contains("Role") || kind == "ServiceAccount"
        })
        .map(|object| {
            let metadata = &object["metadata"];
            let name = format!(
                "{} {} {}",
                object["kind"], metadata["namespace"], metadata["name"]
            );
            let parts = ["rules", "roleRef", "subjects"].map(|part| object[part].clone());
            (name, json!([parts, aggregated(object)]))
        })
        .collect()
}

#[test]
fn chart_and_kustomize_give_the_same_rights() {
    let chart = rights(&documents(&helm(&json!({}))));
    let kustomize = Command::new(rig::cached("kube-", "kubectl"))
        .args([
            "kustomize",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../config/default"),
        ])
        .output()
        .unwrap();
    let kustomize = rights(&documents(&kustomize));
    assert_eq!(
        chart.keys().collect::<Vec<_>>(),
        kustomize.keys().collect::<Vec<_>>()
    );
    for (name, right) in &chart {
        assert_eq!(Some(right), kustomize.get(name), "{name}");
    }
    assert!(chart.len() >= 12, "{:?}", chart.keys());
    let text = serde_json::to_string(&chart["\"ClusterRole\" null \"sluice-operator\""]).unwrap();
    for forbidden in ["pods/log", "escalate", "impersonate", "\"*\"", "secrets"] {
        assert!(!text.contains(forbidden), "{forbidden}");
    }
}

fn settings(values: &Value) -> Settings {
    let all = documents(&helm(values));
    let map = all
        .iter()
        .find(|object| {
            let name = object["metadata"]["name"].as_str();
            name.is_some_and(|name| name.starts_with("sluice-settings-"))
        })
        .unwrap();
    Settings::parse(map["data"]["settings.yaml"].as_str().unwrap(), "sluice-system").unwrap()
}

fn rendered(values: &Value) -> Value {
    let owner = Owner { uid: "1".into() };
    serde_json::to_value(daemon_set::render(&settings(values), &owner)).unwrap()
}

/// A value of the agent's, where it has to arrive, and as what.
type Case = (&'static str, Value, String, Value);

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let pod = |rest: &str| format!("/spec/template/spec{rest}");
    let container = |rest: &str| pod(&format!("/containers/0{rest}"));
    let affinity = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
    vec![
        (
            "image",
            json!({"repository": "r/a", "tag": "t"}),
            container("/image"),
            json!("r/a:t"),
        ),
        (
            "image",
            json!({"pullPolicy": "Always"}),
            container("/imagePullPolicy"),
            json!("Always"),
        ),
        (
            "imagePullSecrets",
            json!([{"name": "x"}]),
            pod("/imagePullSecrets"),
            json!([{"name": "x"}]),
        ),
        (
            "resources",
            json!({"limits": {"memory": "77Mi"}}),
            container("/resources/limits/memory"),
            json!("77Mi"),
        ),
        (
            "tolerations",
            json!([{"key": "k"}]),
            pod("/tolerations"),
            json!([{"key": "k"}]),
        ),
        (
            "nodeSelector",
            json!({"pool": "web"}),
            pod("/nodeSelector/pool"),
            json!("web"),
        ),
        ("affinity", affinity.clone(), pod("/affinity"), affinity),
        (
            "priorityClassName",
            json!("high"),
            pod("/priorityClassName"),
            json!("high"),
        ),
        (
            "podAnnotations",
            json!({"a": "1"}),
            "/spec/template/metadata/annotations/a".into(),
            json!("1"),
        ),
        (
            "podLabels",
            json!({"b": "2"}),
            "/spec/template/metadata/labels/b".into(),
            json!("2"),
        ),
        (
            "hostPaths",
            json!(false),
            container("/args/0"),
            json!("--no-log-root"),
        ),
        (
            "paths",
            json!({"logRoot": "/logs"}),
            pod("/volumes/0/hostPath/path"),
            json!("/logs"),
        ),
        (
            "paths",
            json!({"stateDir": "/state"}),
            pod("/volumes/1/hostPath/path"),
            json!("/state"),
        ),
        (
            "paths",
            json!({"extra": ["/extra"]}),
            pod("/volumes/4/hostPath/path"),
            json!("/extra"),
        ),
        (
            "seLinuxOptions",
            json!({"type": "spc_t"}),
            pod("/securityContext/seLinuxOptions/type"),
            json!("spc_t"),
        ),
        (
            "env",
            json!([{"name": "A", "value": "b"}]),
            container("/env/4/value"),
            json!("b"),
        ),
    ]
}

#[test]
fn every_value_of_the_agent_reaches_the_daemon_set() {
    let cases = cases();
    for (key, value, place, expected) in &cases {
        let object = rendered(&json!({"agent": {*key: value}}));
        assert_eq!(object.pointer(place), Some(expected), "agent.{key}");
    }
    let values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(format!("{CHART}/values.yaml")).unwrap()).unwrap();
    for key in values["agent"].as_object().unwrap().keys() {
        assert!(cases.iter().any(|case| case.0 == key), "agent.{key} has no case");
    }
    let debug = rendered(&json!({"logLevel": "debug", "allowLocalAddresses": true})).to_string();
    assert!(debug.contains("--log-level=debug") && debug.contains("--allow-local-addresses"));
    let all = settings(&json!({"tenantNamespaces": ["logging"], "reviewAllNamespaces": false}));
    assert_eq!(all.tenant_namespaces, ["logging".to_owned()].into());
    assert!(!all.review_all_namespaces);
}

/// Every object in `value`, as a path of keys.
fn objects(value: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    if let Some(object) = value.as_object() {
        found.push(path.to_vec());
        for (key, value) in object {
            objects(value, &[path, std::slice::from_ref(key)].concat(), found);
        }
    }
}

#[test]
fn a_misspelt_value_is_refused() {
    let values: Value =
        serde_saphyr::from_str(&std::fs::read_to_string(format!("{CHART}/values.yaml")).unwrap()).unwrap();
    let mut paths = Vec::new();
    objects(&values, &[], &mut paths);
    // whose keys are the user's
    let free = [
        "nodeSelector",
        "podAnnotations",
        "podLabels",
        "requests",
        "limits",
    ];
    let mut seen = 0;
    for path in &paths {
        if path.last().is_some_and(|last| free.contains(&last.as_str())) {
            continue;
        }
        let misspelt = path
            .iter()
            .rev()
            .fold(json!({"misspelt": "x"}), |inner, key| json!({key: inner}));
        let output = helm(&misspelt);
        assert!(!output.status.success(), "{path:?} takes any key");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("misspelt"), "{text}");
        seen += 1;
    }
    assert!(seen >= 10, "{paths:?}");
    for list in ["tolerations", "env", "imagePullSecrets"] {
        let output = helm(&json!({"agent": {list: [{"name": "x", "misspelt": "x"}]}}));
        assert!(!output.status.success(), "{list}");
    }
}
