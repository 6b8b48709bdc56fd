//! Pods that a node's kubelet runs from a file are followed like any other.

use sluice_e2e::scene::{Scene, play};
use sluice_e2e::tally::assert_exact;
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, burst};

#[test]
fn a_static_pod_is_followed() {
    play("static", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        let mut manifest = Pod::new(
            &namespace,
            "writer",
            "node1",
            format!("{}; sleep 1000000", burst("writer", 1000)),
        )
        .manifest();
        // The kubelet that reads the file is the node.
        manifest["spec"].as_object_mut().unwrap().remove("nodeName");
        let file = scene
            .cluster
            .folder("node1", &format!("/etc/manifests/{namespace}.yaml"));
        std::fs::write(&file, manifest.to_string()).unwrap();
        let file = Removed(file);

        let selector = format!("{{namespace=\"{namespace}\"}}");
        let lines = scene.loki.until_lines(&tenant, &selector, 1000, PATIENCE).await;
        assert_exact(&lines, "writer", 1000);
        assert!(
            lines
                .iter()
                .all(|line| line.label("pod") == "writer-node1" && line.label("app") == "writer"),
            "labels of the mirror pod: {:?}",
            lines[0].labels
        );
        drop(file);
    });
}

/// Removes a file at its end, also when the test fails: the kubelet would keep the pod for ever.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}
