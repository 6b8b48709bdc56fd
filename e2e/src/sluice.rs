//! A cluster in; one installation of Sluice by its chart, shared by all tests of a run, out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use sluice_engine::well_known::{AGENT, NAMESPACE};
use tokio::sync::Mutex;

use crate::cluster::{Cluster, NODES, workspace};
use crate::figures::show;
use crate::objects::{Reference, apply, list};
use crate::wait::{PATIENCE, until};

/// The namespace of the tests' `LokiTenant`s and their Secrets.
pub const TENANTS: &str = "e2e-logging";
/// The release's name.
pub const RELEASE: &str = "sluice";
/// Selects the operator's pods.
pub const OPERATOR_PODS: &str = "app.kubernetes.io/name=sluice-operator";
/// Selects the agents' pods.
pub const AGENT_PODS: &str = "app.kubernetes.io/name=sluice-agent";

static INSTALLED: AtomicBool = AtomicBool::new(false);
static INSTALLING: Mutex<()> = Mutex::const_new(());

/// Installs the chart unless this run has done so; operator and agents are ready afterwards.
pub async fn ensure_installed(cluster: &Cluster) {
    // Of tests that run beside each other one installs.
    let _one = INSTALLING.lock().await;
    if INSTALLED.load(Ordering::Relaxed) {
        return;
    }
    install(cluster, &[]).await;
    INSTALLED.store(true, Ordering::Relaxed);
}

/// Installs the chart, or upgrades it, with these values of `agent` beside the usual ones. The next test's installation
/// is the usual one again.
pub async fn install(cluster: &Cluster, agent: &[(&str, Value)]) {
    INSTALLED.store(false, Ordering::Relaxed);
    show("install the chart");
    apply(
        cluster,
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TENANTS}}),
    )
    .await;
    let chart = workspace().join("charts/sluice").display().to_string();
    let arguments = [
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
        "--timeout",
        "120s",
        "--values",
        "-",
    ];
    let mut values = values(cluster);
    for (key, value) in agent {
        values["agent"][*key] = value.clone();
    }
    cluster.run_with("helm", &arguments, &values.to_string()).await;
    until_ready(cluster).await;
}

/// Removes the release, as a user would; what it leaves is the caller's to judge.
pub async fn uninstall(cluster: &Cluster) {
    INSTALLED.store(false, Ordering::Relaxed);
    cluster
        .run("helm", &["uninstall", RELEASE, "--namespace", NAMESPACE])
        .await;
}

/// Waits until an operator leads and an agent is ready on every node.
pub async fn until_ready(cluster: &Cluster) {
    until("an agent ready on every node", PATIENCE, async || {
        let ready = agents(cluster)
            .await
            .iter()
            .filter(|agent| is_ready(agent))
            .count();
        if ready == NODES.len() {
            Ok(())
        } else {
            Err(format!("{ready} ready"))
        }
    })
    .await;
}

/// The agents' pods.
pub async fn agents(cluster: &Cluster) -> Vec<Value> {
    list(cluster, "v1", "Pod", Some(NAMESPACE), AGENT_PODS).await
}

/// What tells whether agents were touched: each pod's UID and restart count, by node, and the DaemonSet's generation.
pub async fn agents_untouched(cluster: &Cluster) -> Value {
    let pods = agents(cluster).await;
    let mut identities = json!({});
    for pod in &pods {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or("none");
        identities[node] = json!([
            pod["metadata"]["uid"],
            pod["status"]["containerStatuses"][0]["restartCount"]
        ]);
    }
    let daemon_set = Reference::new("apps/v1", "DaemonSet", Some(NAMESPACE), AGENT);
    let daemon_set = crate::objects::read(cluster, &daemon_set)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    identities["generation"] = daemon_set["metadata"]["generation"].clone();
    identities
}

/// Kills a node's agent with SIGKILL, then deletes its pod, so that its successor need not sit out the crash loop's pause.
/// False where none ran.
pub async fn kill_agent(cluster: &Cluster, node: &str) -> bool {
    let victims = agents(cluster).await;
    let script = "pkill -KILL -x \"$0\" && echo killed";
    let killed = cluster.on_node(node, &["sh", "-c", script, AGENT]).await;
    for pod in victims.iter().filter(|pod| pod["spec"]["nodeName"] == node) {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        crate::objects::delete(cluster, &Reference::new("v1", "Pod", Some(NAMESPACE), name)).await;
    }
    killed.trim() == "killed"
}

/// The name in the operator's Lease.
pub async fn leader(cluster: &Cluster) -> String {
    let leases = list(cluster, "coordination.k8s.io/v1", "Lease", Some(NAMESPACE), "").await;
    let holder = leases
        .first()
        .and_then(|lease| lease["spec"]["holderIdentity"].as_str());
    holder.unwrap_or_default().to_owned()
}

/// Time from now until `look` is content, shown as a figure.
pub async fn timed(what: &str, limit: Duration, look: impl AsyncFnMut() -> Result<(), String>) -> Duration {
    let start = std::time::Instant::now();
    until(what, limit, look).await;
    let taken = start.elapsed();
    show(&format!("{what}: {:.2} s", taken.as_secs_f64()));
    taken
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    }) && pod["metadata"]["deletionTimestamp"].is_null()
}

/// The chart's values: images of this checkout. Their time goes into the pods' annotations, so that rebuilt images start anew.
fn values(cluster: &Cluster) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let image = |part: &str| json!({"repository": format!("localhost/sluice-{part}"), "tag": version});
    let built = |part: &str| json!({"e2e.sluice.dev/built": built_at(cluster, &format!("sluice-{part}-{version}.tar"))});
    json!({
        "tenantNamespaces": [TENANTS],
        "operator": {"image": image("operator"), "podAnnotations": built("operator")},
        "agent": {"image": image("agent"), "podAnnotations": built("agent")},
    })
}

fn built_at(cluster: &Cluster, file: &str) -> String {
    let cache = std::env::var("SLUICE_CACHE")
        .unwrap_or_else(|_| format!("{}/.cache/sluice", cluster.variable("HOME")));
    let modified =
        std::fs::metadata(format!("{cache}/images/{file}")).and_then(|metadata| metadata.modified());
    let age = modified
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    age.map_or_else(String::new, |age| age.as_secs().to_string())
}
