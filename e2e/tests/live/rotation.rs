//! The kubelet rotates a log again and again while a container writes as fast as it can: no line lost, order kept.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use sluice_e2e::figures::show;
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::tally::{assert_exact, number};
use sluice_e2e::wait::{PATIENCE, until};
use sluice_e2e::workload::Pod;

const SECONDS: u64 = 24;

#[test]
fn a_fast_writer_loses_nothing_over_five_rotations() {
    play("rotation", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        // `date` is asked once in 20,000 lines, or the loop would measure `date`
        let script = format!(
            "x=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; end=$(($(date +%s) + {SECONDS})); n=0; \
             while [ $(date +%s) -lt $end ]; do i=0; \
               while [ $i -lt 20000 ]; do i=$((i + 1)); n=$((n + 1)); echo \"fast n=$n $x\"; done; done; \
             echo \"total n=$n\""
        );
        let pod = Pod::new(&namespace, "fast", "node2", script);
        pod.start(&scene.cluster).await;
        pod.until_running(&scene.cluster).await;
        let folder = scene.cluster.folder("node2", "/var/log/pods");
        let mut rotations = BTreeSet::new();
        let done = pod.until_done(&scene.cluster, PATIENCE);
        tokio::pin!(done);
        while tokio::time::timeout(Duration::from_millis(200), &mut done)
            .await
            .is_err()
        {
            note_rotations(&folder, &namespace, &mut rotations);
        }

        let last = format!("{{namespace=\"{namespace}\"}} |= \"total\"");
        let count = until("the writer's last line", PATIENCE, async || {
            let lines = scene.loki.lines(&tenant, &last).await;
            lines
                .first()
                .and_then(|line| number(&line.text))
                .ok_or_else(|| "not there".to_owned())
        })
        .await;
        show(&format!(
            "{count} lines of 100 bytes in {SECONDS} s: {} lines/s; {} rotations",
            count / SECONDS,
            rotations.len()
        ));
        let selector = format!("{{namespace=\"{namespace}\"}}");
        let lines = scene
            .loki
            .until_lines(&tenant, &selector, count + 1, PATIENCE)
            .await;
        assert_exact(&lines, "fast", count);
        assert!(
            rotations.len() >= 5,
            "the kubelet rotated {} times only: the test proves less than it says",
            rotations.len()
        );
    });
}

/// Adds the rotations that a namespace's pods show now, as `<namespace>_<pod>_<uid>/<time>`: rotated generations are
/// named `0.log.<time>`, later `0.log.<time>.gz`.
pub(crate) fn note_rotations(folder: &Path, namespace: &str, rotations: &mut BTreeSet<String>) {
    let pods = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for pod in pods.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{namespace}_"))
    }) {
        for file in std::fs::read_dir(pod.path().join("main"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = file.file_name().to_string_lossy().into_owned();
            let time = name
                .trim_start_matches("0.log")
                .trim_start_matches('.')
                .split('.')
                .next();
            let time = time.filter(|time| !time.is_empty());
            rotations.extend(time.map(|time| format!("{}/{time}", pod.file_name().display())));
        }
    }
}
