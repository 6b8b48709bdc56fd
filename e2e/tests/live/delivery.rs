//! Every line is in its tenant once and in none other, whatever it holds and however short its pod lives.

use serde_json::json;
use sluice_e2e::cluster::NODES;
use sluice_e2e::figures::show;
use sluice_e2e::objects::until_condition;
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::tally::assert_exact;
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, burst};

const LINES_PER_POD: u64 = 50_000;

#[test]
fn two_teams_lines_are_each_in_their_tenant_once() {
    play("delivery", async |scene: &Scene| {
        let teams = [scene.ready_team("a").await, scene.ready_team("b").await];
        let mut pods = Vec::new();
        for (namespace, _) in &teams {
            for node in NODES {
                let name = format!("writer-{node}");
                pods.push(Pod::new(namespace, &name, node, burst(&name, LINES_PER_POD)));
            }
        }
        let start = std::time::Instant::now();
        for pod in &pods {
            pod.start(&scene.cluster).await;
        }
        let total = LINES_PER_POD * NODES.len() as u64;
        for (namespace, tenant) in &teams {
            scene
                .loki
                .until_count(tenant, &format!("{{namespace=\"{namespace}\"}}"), total, PATIENCE)
                .await;
        }
        show(&format!(
            "2 x {total} lines from two nodes are in Loki after {:.1} s",
            start.elapsed().as_secs_f64()
        ));

        for (namespace, tenant) in &teams {
            let lines = scene.loki.lines(tenant, "{namespace=~\".+\"}").await;
            assert_eq!(
                lines.len() as u64,
                total,
                "tenant {tenant} holds its own lines and no others"
            );
            for node in NODES {
                assert_exact(&lines, &format!("writer-{node}"), LINES_PER_POD);
            }
            for line in &lines {
                assert_eq!(line.label("namespace"), namespace);
                assert_eq!(line.label("container"), "main");
                assert_eq!(
                    line.label("app"),
                    line.label("pod"),
                    "the pod's label app, and the pod as structured metadata"
                );
                assert_eq!(format!("writer-{}", line.label("node_name")), line.label("pod"));
            }
        }
    });
}

#[test]
fn lines_of_every_shape_arrive_as_they_were_written() {
    play("shapes", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        let script = "echo to stdout; echo to stderr >&2; echo; echo x; \
             head -c 16384 /dev/zero | tr '\\0' a; echo; \
             head -c 100000 /dev/zero | tr '\\0' b; echo; \
             printf 'bad \\377\\376 bytes\\n'; sleep 1; printf 'no newline at the end'";
        Pod::new(&namespace, "shapes", "node2", script)
            .start(&scene.cluster)
            .await;
        let selector = format!("{{namespace=\"{namespace}\"}}");
        let lines = scene.loki.until_lines(&tenant, &selector, 8, PATIENCE).await;

        let mut found: Vec<(String, String)> = Vec::new();
        for line in lines {
            // One replacement character or one for each bad byte: both say the same.
            let text = line.text.replace("\u{fffd}\u{fffd}", "\u{fffd}");
            found.push((line.label("stream").to_owned(), text));
        }
        let mut expected: Vec<(String, String)> = [
            "to stdout".to_owned(),
            String::new(),
            "x".to_owned(),
            "a".repeat(16_384),
            "b".repeat(100_000),
            "bad \u{fffd} bytes".to_owned(),
            "no newline at the end".to_owned(),
        ]
        .map(|text| ("stdout".to_owned(), text))
        .into();
        expected.push(("stderr".to_owned(), "to stderr".to_owned()));
        found.sort();
        expected.sort();
        let brief = |lines: &[(String, String)]| {
            lines
                .iter()
                .map(|(stream, text)| format!("{stream} {} bytes {:.40}", text.len(), text))
                .collect::<Vec<_>>()
        };
        assert_eq!(brief(&found), brief(&expected));
        assert!(found == expected, "same lengths, other bytes");
    });
}

#[test]
fn a_container_that_restarts_loses_nothing() {
    play("restart", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        let script = "run=$(cat /scratch/run || echo 0); \
             i=0; while [ $i -lt 500 ]; do i=$((i + 1)); echo \"again n=$((run * 500 + i)) of run $run\"; done; \
             run=$((run + 1)); echo $run >/scratch/run; [ $run -ge 3 ]";
        let script = format!("exec 2>/dev/null; {script}");
        let pod = Pod::new(&namespace, "again", "node1", script);
        pod.start(&scene.cluster).await;
        pod.until_done(&scene.cluster, PATIENCE).await;
        let selector = format!("{{namespace=\"{namespace}\"}}");
        let lines = scene.loki.until_lines(&tenant, &selector, 1500, PATIENCE).await;
        assert_exact(&lines, "again", 1500);
    });
}

#[test]
fn a_pod_that_lives_for_a_second_is_caught() {
    play("brief", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        for node in NODES {
            let pod = Pod::new(&namespace, &format!("brief-{node}"), node, burst("brief", 1000));
            pod.start(&scene.cluster).await;
            pod.until_done(&scene.cluster, PATIENCE).await;
            pod.delete(&scene.cluster).await;
        }
        let selector = format!("{{namespace=\"{namespace}\"}}");
        scene.loki.until_count(&tenant, &selector, 2000, PATIENCE).await;
        for node in NODES {
            let one = format!("{{namespace=\"{namespace}\", node_name=\"{node}\"}}");
            assert_exact(&scene.loki.lines(&tenant, &one).await, "brief", 1000);
        }
    });
}

#[test]
fn one_pipeline_serves_two_tenants() {
    play("fan-out", async |scene: &Scene| {
        let namespace = scene.namespace("a", json!({})).await;
        scene.reader(&namespace).await;
        let tenants = [scene.tenant("first").await, scene.tenant("second").await];
        let refs: Vec<_> = tenants
            .iter()
            .map(|name| json!({"name": name, "namespace": sluice_e2e::sluice::TENANTS}))
            .collect();
        let pipeline = scene
            .pipeline(&namespace, "app", &tenants[0], json!({"tenantRefs": refs}))
            .await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        Pod::new(&namespace, "writer", "node1", burst("writer", 10_000))
            .start(&scene.cluster)
            .await;
        for tenant in &tenants {
            let selector = format!("{{namespace=\"{namespace}\"}}");
            let lines = scene.loki.until_lines(tenant, &selector, 10_000, PATIENCE).await;
            assert_exact(&lines, "writer", 10_000);
        }
    });
}
