//! Shell in, a pod that writes numbered lines out: `<writer> n=<number> …`, from 1 on, so that each can be asked after.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::objects::{Reference, apply, delete, until_object};
use crate::wait::PATIENCE;

/// A pod of one container, which is named `main`.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name, and the writer's in every line that [`burst`] and [`steady`] write.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// What its shell runs; the pod ends a second after it.
    pub script: String,
}

impl Pod {
    /// A pod that runs `script` once.
    pub fn new(namespace: &str, name: &str, node: &str, script: impl Into<String>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            script: script.into(),
        }
    }

    /// Its address.
    pub fn reference(&self) -> Reference {
        Reference::new("v1", "Pod", Some(&self.namespace), &self.name)
    }

    /// Its manifest, with the label `app`.
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": {"app": self.name}},
            "spec": {
                "nodeName": self.node,
                "restartPolicy": "OnFailure",
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{
                    "name": "main", "image": "busybox:1", "imagePullPolicy": "IfNotPresent",
                    // containerd may close the pipe of a container that has ended before it has read all of it, says
                    // "Failed to pipe stdout" in its own log, and the lines were never in a file (containerd#7289)
                    "command": ["/bin/sh", "-c", format!("({}); code=$?; sleep 1; exit $code", self.script)],
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                }],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
            },
        })
    }

    /// Starts it.
    pub async fn start(&self, cluster: &Cluster) {
        apply(cluster, &self.manifest()).await;
    }

    /// Waits until its script has ended well.
    pub async fn until_done(&self, cluster: &Cluster, limit: Duration) {
        self.until_phase(cluster, "Succeeded", limit).await;
    }

    /// Waits until its script runs.
    pub async fn until_running(&self, cluster: &Cluster) {
        self.until_phase(cluster, "Running", PATIENCE).await;
    }

    /// Deletes it, without grace.
    pub async fn delete(&self, cluster: &Cluster) {
        delete(cluster, &self.reference()).await;
    }

    async fn until_phase(&self, cluster: &Cluster, phase: &str, limit: Duration) {
        until_object(cluster, &self.reference(), phase, limit, |pod| {
            match &pod["status"]["phase"] {
                found if *found == phase => Ok(()),
                _ => Err(pod["status"].to_string()),
            }
        })
        .await;
    }
}

/// A script that writes `count` lines as fast as the pipe takes them.
pub fn burst(writer: &str, count: u64) -> String {
    format!(
        "awk 'BEGIN {{for (i = 1; i <= {count}; i++) print \"{writer} n=\" i \" of a burst, with some more words to be like a log line\"}}'"
    )
}

/// A script that writes `per_second` lines in each of `seconds` seconds, ten times a second a tenth of them.
pub fn steady(writer: &str, per_second: u64, seconds: u64) -> String {
    let (tenth, ticks) = (per_second.div_ceil(10), seconds * 10);
    format!(
        "tick=0; while [ $tick -lt {ticks} ]; do i=0; \
           while [ $i -lt {tenth} ]; do i=$((i + 1)); echo \"{writer} n=$((tick * {tenth} + i)) steadily\"; done; \
           tick=$((tick + 1)); usleep 90000; done"
    )
}

/// As [`steady`], in lines that are longer by so many bytes.
pub fn wide(writer: &str, per_second: u64, seconds: u64, bytes: usize) -> String {
    let script = steady(writer, per_second, seconds).replace("steadily", "$x");
    format!("x={}; {script}", "x".repeat(bytes))
}

/// As many lines as [`steady`] writes, longer by so many digits, of which hardly any come again: compressed they are still
/// long.
pub fn noise(writer: &str, per_second: u64, seconds: u64, digits: usize) -> String {
    let (tenth, ticks) = (per_second.div_ceil(10), seconds * 10);
    format!(
        "awk 'BEGIN {{srand(); for (t = 0; t < {ticks}; t++) {{for (i = 1; i <= {tenth}; i++) {{x = \"\"; \
           while (length(x) < {digits}) x = x substr(sprintf(\"%.15f\", rand()), 3); \
           print \"{writer} n=\" t * {tenth} + i \" \" x}} fflush(); system(\"usleep 90000\")}}}}'"
    )
}

/// How many lines [`steady`] writes.
pub fn steady_count(per_second: u64, seconds: u64) -> u64 {
    per_second.div_ceil(10) * seconds * 10
}
