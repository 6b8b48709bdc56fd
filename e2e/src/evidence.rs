//! A test that failed in; what to read out: its custom resources, the logs of operator and agents, events, pods.

use crate::cluster::Cluster;
use crate::figures::show;

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
    let ours = sluice_engine::well_known::NAMESPACE;
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
    show("---- end of evidence ----");
}

async fn kubectl(cluster: &Cluster, arguments: &[&str]) {
    let text = cluster
        .try_run("kubectl", arguments, "")
        .await
        .unwrap_or_else(|error| error);
    show(&format!("$ kubectl {}\n{text}", arguments.join(" ")));
}
