//! What the API server accepts and refuses, and with which words.

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, CustomResourceExt as _};
use serde_json::{Value, json};
use sluice_operator::api::{LogPipeline, LokiTenant};

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn merge(base: &mut Value, change: Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            for (key, value) in change {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, change) => *base = change,
    }
}

async fn create(client: &Client, kind: &str, spec: Value) -> Result<(), String> {
    let resource = if kind == "LokiTenant" {
        LokiTenant::api_resource()
    } else {
        LogPipeline::api_resource()
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let object = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": kind, "metadata": {"name": "x", "namespace": "default"}, "spec": spec,
    });
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    api.create(&dry, &object)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

async fn check(kind: &str, base: &str, cases: &[(&str, &str)]) {
    let client = crate::client().await;
    let mut wrong = Vec::new();
    for (change, expected) in cases {
        let mut spec = yaml(base);
        merge(&mut spec, yaml(change));
        let found = create(&client, kind, spec).await;
        match (&found, *expected) {
            (Ok(()), "") => {}
            (Err(message), expected) if !expected.is_empty() && message.contains(expected) => {}
            _ => wrong.push(format!("{change}\n   wanted {expected:?}\n   found {found:?}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn lokitenants() {
    let cases: &[(&str, &str)] = &[
        ("{}", ""),
        (
            "{url: 'https://loki.example.com:3100/prefix/loki/api/v1/push'}",
            "",
        ),
        ("{url: 'http://[fd00::1]:3100'}", ""),
        (
            "{url: loki}",
            "url is not an http or https URL: write http(s)://host[:port][/path]",
        ),
        ("{url: 'ftp://loki'}", "url is not an http or https URL"),
        ("{url: 'http://'}", "url is not an http or https URL"),
        (
            "{url: 'http://u:p@loki'}",
            "url holds credentials: put them into a Secret",
        ),
        (
            "{url: 'http://loki/?a=b'}",
            "url has a query or a fragment: leave it out",
        ),
        (
            "{url: 'http://loki/#a'}",
            "url has a query or a fragment: leave it out",
        ),
        ("{tenantID: \"a-B_1!.*'()\"}", ""),
        ("{tenantID: 'a|b'}", "tenantID is not one that Loki takes"),
        ("{tenantID: '..'}", "tenantID is not one that Loki takes"),
        ("{tenantID: ''}", "spec.tenantID"),
        ("{auth: {basic: {secretRef: {name: s}}}}", ""),
        ("{auth: {bearer: {secretRef: {name: s, key: k}}}}", ""),
        (
            "{auth: {bearer: {secretRef: {name: s}}}}",
            "spec.auth.bearer.secretRef.key: Required value",
        ),
        (
            "{auth: {basic: {secretRef: {name: s}}, bearer: {secretRef: {name: s, key: k}}}}",
            "auth needs exactly one of basic and bearer",
        ),
        ("{auth: {}}", "auth needs exactly one of basic and bearer"),
        (
            "{tls: {caSecretRef: {name: s}}}",
            "spec.tls.caSecretRef.key: Required value",
        ),
        (
            "{tls: {caSecretRef: {name: s, key: k}, clientSecretRef: {name: s}, serverName: loki, insecureSkipVerify: true}}",
            "",
        ),
        ("{headers: [{name: X-Team, value: ops}]}", ""),
        (
            "{headers: [{name: x-scope-orgid, value: ops}]}",
            "headers.name is a header that Sluice sets itself",
        ),
        (
            "{headers: [{name: Authorization, value: ops}]}",
            "headers.name is a header that Sluice sets itself",
        ),
        (
            "{headers: [{name: Content-Type, value: ops}]}",
            "headers.name is a header that Sluice sets itself",
        ),
        (
            "{headers: [{name: Host, value: ops}]}",
            "headers.name is a header that Sluice sets itself",
        ),
        (
            "{headers: [{name: Transfer-Encoding, value: ops}]}",
            "headers.name is a header that Sluice sets itself",
        ),
        (
            "{headers: [{name: A, value: b}, {name: A, value: c}]}",
            "Duplicate value",
        ),
        ("{headers: [{name: 'a b', value: b}]}", "spec.headers[0].name"),
        (
            "{headers: [{name: a, value: \"b\\nc\"}]}",
            "spec.headers[0].value",
        ),
        ("{allowedNamespaces: {}}", ""),
        ("{allowedNamespaces: {from: All}}", ""),
        (
            "{allowedNamespaces: {from: Selector, selector: {matchLabels: {a: b}}}}",
            "",
        ),
        (
            "{allowedNamespaces: {from: Selector}}",
            "allowedNamespaces.selector goes with from: Selector, and only with it",
        ),
        (
            "{allowedNamespaces: {from: All, selector: {matchLabels: {a: b}}}}",
            "allowedNamespaces.selector goes with from: Selector",
        ),
        (
            "{allowedNamespaces: {selector: {matchLabels: {a: b}}}}",
            "allowedNamespaces.selector goes with from: Selector",
        ),
        (
            "{allowedNamespaces: {from: Selector, selector: {}}}",
            "allowedNamespaces.selector is empty",
        ),
        (
            "{allowedNamespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: NotIn}]}}}",
            "In and NotIn need values",
        ),
        ("{allowedNamespaces: {from: Some}}", "Unsupported value"),
        (
            "{limits: {maxLineBytes: 1024, maxLabelNames: 6, rateBytesPerSecond: 1024, structuredMetadata: {allowed: false}}}",
            "",
        ),
        (
            "{limits: {outOfOrderWindow: 10s, rejectOldSamplesMaxAge: 1m}}",
            "",
        ),
        (
            "{limits: {outOfOrderWindow: 168h, rejectOldSamplesMaxAge: 8760h}}",
            "",
        ),
        (
            "{limits: {outOfOrderWindow: 9s}}",
            "limits.outOfOrderWindow is out of range: use 10s to 168h",
        ),
        (
            "{limits: {outOfOrderWindow: 168h1s}}",
            "limits.outOfOrderWindow is out of range: use 10s to 168h",
        ),
        ("{limits: {outOfOrderWindow: 1d}}", "spec.limits.outOfOrderWindow"),
        (
            "{limits: {rejectOldSamplesMaxAge: 59s}}",
            "limits.rejectOldSamplesMaxAge is out of range: use at least 1m",
        ),
        (
            "{limits: {rejectOldSamplesMaxAge: ''}}",
            "spec.limits.rejectOldSamplesMaxAge",
        ),
        (
            "{limits: {maxLineBytes: 1023}}",
            "spec.limits.maxLineBytes in body should be greater than or equal to 1024",
        ),
        (
            "{limits: {maxLineBytes: 3145729}}",
            "spec.limits.maxLineBytes in body should be less than or equal to 3145728",
        ),
        (
            "{limits: {maxLabelNames: 5}}",
            "spec.limits.maxLabelNames in body should be greater than or equal to 6",
        ),
        (
            "{limits: {burstBytes: 1}}",
            "spec.limits.burstBytes in body should be greater",
        ),
        (
            "{limits: {perStreamBurstBytes: 1}}",
            "spec.limits.perStreamBurstBytes in body should be greater",
        ),
        (
            "{limits: {perStreamRateBytesPerSecond: 1}}",
            "spec.limits.perStreamRateBytesPerSecond in body should be greater",
        ),
        (
            "{delivery: {batchBytes: 16384, batchWait: 50ms, requestTimeout: 5m}}",
            "",
        ),
        (
            "{delivery: {batchBytes: 16383}}",
            "spec.delivery.batchBytes in body should be greater than or equal to 16384",
        ),
        (
            "{delivery: {batchBytes: 3670017}}",
            "spec.delivery.batchBytes in body should be less than or equal to 3670016",
        ),
        (
            "{delivery: {batchWait: 49ms}}",
            "delivery.batchWait is out of range: use 50ms to 10s",
        ),
        (
            "{delivery: {batchWait: 10s1ms}}",
            "delivery.batchWait is out of range: use 50ms to 10s",
        ),
        ("{delivery: {batchWait: 1}}", "spec.delivery.batchWait"),
        ("{delivery: {batchWait: '1'}}", "spec.delivery.batchWait"),
        (
            "{delivery: {requestTimeout: 999ms}}",
            "delivery.requestTimeout is out of range: use 1s to 5m",
        ),
        (
            "{delivery: {requestTimeout: 301s}}",
            "delivery.requestTimeout is out of range: use 1s to 5m",
        ),
    ];
    check("LokiTenant", "{url: 'http://loki:3100'}", cases).await;
}

#[tokio::test]
async fn logpipelines() {
    let cases: &[(&str, &str)] = &[
        ("{}", ""),
        ("{suspend: true, serviceAccountName: log-reader}", ""),
        ("{serviceAccountName: 'a/b'}", "spec.serviceAccountName"),
        (
            "{tenantRefs: []}",
            "spec.tenantRefs in body should have at least 1 items",
        ),
        ("{tenantRefs: [{name: a}, {name: b}, {name: c}, {name: d}]}", ""),
        (
            "{tenantRefs: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}]}",
            "spec.tenantRefs: Too many",
        ),
        (
            "{tenantRefs: [{name: a}, {name: a}]}",
            "tenantRefs lists a tenant twice: leave one out",
        ),
        (
            "{tenantRefs: [{name: a, namespace: x}, {name: a, namespace: z}]}",
            "",
        ),
        (
            "{tenantRefs: [{name: a, namespace: x}, {name: a, namespace: x}]}",
            "tenantRefs lists a tenant twice",
        ),
        ("{sources: {pods: null}}", "sources names no source: add pods"),
        ("{sources: {pods: {readFrom: API}}}", ""),
        ("{sources: {pods: {readFrom: Files}}}", ""),
        (
            "{sources: {pods: {readFrom: Journal}}}",
            "supported values: \"Files\", \"API\"",
        ),
        ("{sources: {pods: {namespaces: {all: true}}}}", ""),
        (
            "{sources: {pods: {namespaces: {all: true, excludeNames: [x]}}}}",
            "",
        ),
        (
            "{sources: {pods: {namespaces: {all: true, names: [x]}}}}",
            "sources.pods.namespaces.all excludes names and selector",
        ),
        (
            "{sources: {pods: {namespaces: {all: true, selector: {matchLabels: {a: b}}}}}}",
            "sources.pods.namespaces.all excludes names and selector",
        ),
        (
            "{sources: {pods: {namespaces: {excludeNames: [x]}}}}",
            "sources.pods.namespaces.excludeNames needs something to exclude from",
        ),
        (
            "{sources: {pods: {namespaces: {names: [x, x]}}}}",
            "Duplicate value",
        ),
        (
            "{sources: {pods: {namespaces: {names: [x], selector: {matchLabels: {a: b}}, excludeNames: [z]}}}}",
            "",
        ),
        (
            "{sources: {pods: {namespaces: {selector: {}}}}}",
            "sources.pods.namespaces.selector is empty",
        ),
        (
            "{sources: {pods: {namespaces: {selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}}}}",
            "In and NotIn need values, Exists and DoesNotExist take none",
        ),
        (
            "{sources: {pods: {selector: {}}}}",
            "sources.pods.selector is empty",
        ),
        (
            "{sources: {pods: {selector: {matchLabels: {}}}}}",
            "sources.pods.selector is empty",
        ),
        (
            "{sources: {pods: {selector: {matchExpressions: [{key: a, operator: NotIn, values: []}]}}}}",
            "In and NotIn need values",
        ),
        (
            "{sources: {pods: {selector: {matchExpressions: [{key: a, operator: In, values: [b]}]}}}}",
            "",
        ),
        (
            "{sources: {pods: {containers: {include: ['*'], exclude: [istio-proxy]}, startAt: Now}}}",
            "",
        ),
        (
            "{sources: {pods: {containers: {include: []}}}}",
            "spec.sources.pods.containers.include",
        ),
        ("{sources: {pods: {startAt: Later}}}", "Unsupported value"),
        (
            "{labels: {profile: Promtail, static: {cluster: ops}, drop: [component]}}",
            "",
        ),
        ("{labels: {profile: K8sMonitoring}}", "Unsupported value"),
        (
            "{labels: {static: {'a-b': c}}}",
            "labels.static has a name that cannot be a label",
        ),
        (
            "{labels: {static: {'1a': c}}}",
            "labels.static has a name that cannot be a label",
        ),
        (
            "{labels: {static: {__a: c}}}",
            "labels.static has a name that cannot be a label",
        ),
        (
            "{labels: {static: {namespace: c}}}",
            "labels.static sets namespace, pod, container or node_name",
        ),
        ("{labels: {static: {a: ''}}}", "spec.labels.static.a"),
        (
            "{labels: {fromPodLabels: [{label: team, podLabel: example.com/team}]}}",
            "",
        ),
        (
            "{labels: {fromPodLabels: [{label: a-b, podLabel: x}]}}",
            "labels.fromPodLabels has a label that cannot be one",
        ),
        (
            "{labels: {fromPodLabels: [{label: pod, podLabel: x}]}}",
            "labels.fromPodLabels sets namespace, pod, container or node_name",
        ),
        (
            "{labels: {fromPodLabels: [{label: a, podLabel: x}, {label: a, podLabel: y}]}}",
            "Duplicate value",
        ),
        (
            "{labels: {fromNamespaceLabels: [{label: team, namespaceLabel: team}]}}",
            "",
        ),
        (
            "{labels: {fromNamespaceLabels: [{label: __a, namespaceLabel: x}]}}",
            "labels.fromNamespaceLabels has a label that cannot be one",
        ),
        (
            "{labels: {fromNamespaceLabels: [{label: node_name, namespaceLabel: x}]}}",
            "labels.fromNamespaceLabels sets namespace, pod, container or node_name",
        ),
        (
            "{labels: {drop: [namespace]}}",
            "labels.drop names namespace or node_name",
        ),
        (
            "{labels: {drop: [node_name]}}",
            "labels.drop names namespace or node_name",
        ),
    ];
    check(
        "LogPipeline",
        "{tenantRefs: [{name: ops}], sources: {pods: {}}}",
        cases,
    )
    .await;
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_strict_validation() {
    let client = crate::client().await;
    let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &LogPipeline::api_resource());
    let object = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "LogPipeline", "metadata": {"name": "strict"},
        "spec": {"tenantRefs": [{"name": "ops"}], "sources": {"pods": {"selectors": {"matchLabels": {"a": "b"}}}}},
    });
    let mut apply = PatchParams::apply("kubectl").dry_run();
    apply = apply.validation_strict();
    let error = api
        .patch("strict", &apply, &Patch::Apply(&object))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("selectors") && error.contains("field not declared in schema"),
        "{error}"
    );
}
