//! A cluster in; which objects of Sluice there are, in which version, and who asked for what, out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_engine::pointer::Pointer;
use sluice_engine::well_known::{NAMESPACE, POINTER_KEY};

use crate::cluster::Cluster;
use crate::objects::list;
use crate::wait::until;

/// How long nothing changes in what is at rest.
const REST: Duration = Duration::from_secs(10);

/// `resourceVersion` by kind, namespace and name.
pub type Versions = BTreeMap<String, String>;

/// What was asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Name of the `ServiceAccount`.
    pub account: String,
    /// Such as `watch`.
    pub verb: String,
    /// Such as `pods`.
    pub resource: String,
}

/// Every namespaced kind that can be listed, as kubectl takes it, except the Lease, which is allowed to change, and
/// events, which the API server itself forgets after an hour.
pub async fn every_kind(cluster: &Cluster) -> String {
    let arguments = ["api-resources", "--namespaced", "--verbs=list", "-o", "name"];
    let kinds = cluster.run("kubectl", &arguments).await;
    let counts = |kind: &&str| !kind.starts_with("leases.") && !kind.starts_with("events");
    kinds.lines().filter(counts).collect::<Vec<_>>().join(",")
}

/// Versions of all objects of these kinds in the operator's namespace, and of all custom resources.
pub async fn versions(cluster: &Cluster, kinds: &str) -> Versions {
    let fields = "{.kind} {.metadata.namespace}/{.metadata.name} {.metadata.resourceVersion}";
    let output = format!("jsonpath={{range .items[*]}}{fields}{{\"\\n\"}}{{end}}");
    let ours = ["get", kinds, "-n", NAMESPACE, "-o", &output];
    let resources = ["get", "logpipelines,lokitenants", "-A", "-o", &output];
    let text = cluster.run("kubectl", &ours).await + &cluster.run("kubectl", &resources).await;
    let pairs = text.lines().filter_map(|line| line.rsplit_once(' '));
    pairs
        .map(|(object, version)| (object.to_owned(), version.to_owned()))
        .collect()
}

/// Names of what is new, written or gone.
pub fn changed(before: &Versions, after: &Versions) -> Vec<String> {
    let written = after
        .iter()
        .filter(|(name, version)| before.get(*name) != Some(version));
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let written = written.map(|(name, _)| name.clone());
    written.chain(gone.map(|name| format!("{name} (gone)"))).collect()
}

/// Waits until what earlier tests left has come to rest: nothing changes, and what was deleted need not be denied any more,
/// which a pointer does for a minute.
pub async fn settle(cluster: &Cluster) {
    let kinds = every_kind(cluster).await;
    let mut last = versions(cluster, &kinds).await;
    let mut since = Instant::now();
    until("rest", Duration::from_mins(5), async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = versions(cluster, &kinds).await;
        if now != last {
            let moved = changed(&last, &now).join(", ");
            (last, since) = (now, Instant::now());
            return Err(moved);
        }
        if since.elapsed() < REST {
            return Err("at rest, but not for long".to_owned());
        }
        match denials(cluster).await {
            0 => Ok(()),
            denials => Err(format!("{denials} denials in pointers")),
        }
    })
    .await;
}

async fn denials(cluster: &Cluster) -> usize {
    let maps = list(cluster, "v1", "ConfigMap", Some(NAMESPACE), "").await;
    let pointers = maps.iter().filter_map(|map| map["data"][POINTER_KEY].as_str());
    let pointers =
        pointers.map(|text| serde_json::from_str::<Pointer>(text).expect("a pointer that can be read"));
    pointers.map(|pointer| pointer.deny.len()).sum()
}

/// How often Sluice's accounts asked for what so far, by the cluster's audit log.
pub fn requests(cluster: &Cluster) -> BTreeMap<Request, u64> {
    let path = Path::new(cluster.variable("SLUICE_CLUSTER_STATE")).join("logs/audit.log");
    let log = std::fs::read_to_string(path).expect("the cluster writes an audit log");
    let mut requests = BTreeMap::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let account = text("/user/username")
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .to_owned();
        let (verb, resource) = (text("/verb").to_owned(), text("/objectRef/resource").to_owned());
        *requests
            .entry(Request {
                account,
                verb,
                resource,
            })
            .or_default() += 1;
    }
    requests
}
