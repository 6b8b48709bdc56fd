//! A test that failed in; what to read out: its custom resources, the logs of operator and agents, events, pods.

use sluice_engine::well_known::{AGENT_PORT, NAMESPACE};

use crate::cluster::Cluster;
use crate::figures::show;
use crate::sluice::AGENT_PODS;

/// Each object's diagnosis and conditions, as `kubectl get --output` takes it.
const CONDITIONS: &str = r#"jsonpath={range .items[*]}{.kind} {.metadata.name}: {.status.diagnosis}{"\n"}{range .status.conditions[*]}  {.type} {.status} {.reason}: {.message}{"\n"}{end}{end}"#;

/// Shows everything that explains a failure in these namespaces.
pub async fn show_all(cluster: &Cluster, namespaces: &[String]) {
    show("---- evidence ----");
    for namespace in namespaces {
        kubectl(
            cluster,
            &["get", "logpipelines,lokitenants", "-n", namespace, "-o", "yaml"],
        )
        .await;
        kubectl(
            cluster,
            &[
                "get",
                "pods,serviceaccounts,rolebindings",
                "-n",
                namespace,
                "-o",
                "wide",
            ],
        )
        .await;
    }
    let ours = NAMESPACE;
    kubectl(
        cluster,
        &[
            "get",
            "pods,daemonsets,configmaps,leases",
            "-n",
            ours,
            "-o",
            "wide",
        ],
    )
    .await;
    kubectl(
        cluster,
        &["get", "events", "-n", ours, "--sort-by=.lastTimestamp"],
    )
    .await;
    let pods = cluster
        .try_run("kubectl", &["get", "pods", "-n", ours, "-o", "name"], "")
        .await;
    for pod in pods.unwrap_or_default().lines() {
        kubectl(cluster, &["logs", "-n", ours, pod, "--tail=60"]).await;
        // What a container said before it was restarted; there is none where it never was.
        if let Ok(text) = cluster
            .try_run(
                "kubectl",
                &["logs", "-n", ours, pod, "--tail=30", "--previous"],
                "",
            )
            .await
        {
            show(&format!("$ kubectl logs {pod} --previous\n{text}"));
        }
    }
    // Last, where they are seen first.
    for namespace in namespaces {
        let kinds = "logpipelines,lokitenants";
        let arguments = ["get", kinds, "-n", namespace, "-o", CONDITIONS];
        let text = cluster.try_run("kubectl", &arguments, "").await;
        show(&format!(
            "conditions in {namespace}:\n{}",
            text.unwrap_or_else(|error| error)
        ));
    }
    warnings(cluster).await;
    show("---- end of evidence ----");
}

/// What the agents have to say about themselves, such as that a disk is full.
async fn warnings(cluster: &Cluster) {
    let name = "jsonpath={.items[*].metadata.name}";
    let arguments = ["get", "pods", "-n", NAMESPACE, "-l", AGENT_PODS, "-o", name];
    let pods = cluster.try_run("kubectl", &arguments, "").await;
    for pod in pods.unwrap_or_default().split_whitespace() {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{AGENT_PORT}/proxy/metrics");
        let metrics = cluster.try_run("kubectl", &["get", "--raw", &path], "").await;
        let metrics = metrics.unwrap_or_else(|error| format!("sluice_agent_warning: {error}"));
        for line in metrics
            .lines()
            .filter(|line| line.starts_with("sluice_agent_warning"))
        {
            show(&format!("{pod}: {line}"));
        }
    }
}

async fn kubectl(cluster: &Cluster, arguments: &[&str]) {
    let text = cluster
        .try_run("kubectl", arguments, "")
        .await
        .unwrap_or_else(|error| error);
    show(&format!("$ kubectl {}\n{text}", arguments.join(" ")));
}
