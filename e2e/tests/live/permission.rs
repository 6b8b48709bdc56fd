//! Nothing is collected without the right to read it; the right given starts the collection, the right taken ends it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sluice_e2e::cluster::NODES;
use sluice_e2e::figures::show;
use sluice_e2e::objects::{Reference, delete, list, until_condition};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::timed;
use sluice_e2e::wait::PATIENCE;
use sluice_e2e::workload::{Pod, steady};

const BOUND: Duration = Duration::from_secs(10);

#[test]
fn a_right_starts_the_collection_and_its_loss_ends_it() {
    play("permission", async |scene: &Scene| {
        let namespace = scene.namespace("a", json!({})).await;
        scene.account(&namespace).await;
        let tenant = scene.tenant("a").await;
        let pipeline = scene.pipeline(&namespace, "app", &tenant, json!({})).await;
        for node in NODES {
            let name = format!("writer-{node}");
            Pod::new(&namespace, &name, node, steady(&name, 20, 180))
                .start(&scene.cluster)
                .await;
        }

        let message = until_condition(
            &scene.cluster,
            &pipeline,
            "Authorized",
            "False",
            Some("NotAuthorized"),
            PATIENCE,
        )
        .await;
        show(&format!("without the right: {message}"));
        let selector = format!("{{namespace=\"{namespace}\"}}");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(
            scene.loki.count(&tenant, &selector).await.unwrap(),
            0,
            "nothing may be read yet"
        );

        // The remedy that the condition names is run as it stands there.
        scene.cluster.run("sh", &["-c", remedy(&message)]).await;
        timed(
            "right given to first line",
            Duration::from_secs(30),
            async || match scene.loki.count(&tenant, &selector).await? {
                0 => Err("no line".to_owned()),
                _ => Ok(()),
            },
        )
        .await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;

        let group = "rbac.authorization.k8s.io/v1";
        for binding in list(&scene.cluster, group, "RoleBinding", Some(&namespace), "").await {
            let name = binding["metadata"]["name"].as_str().unwrap();
            delete(
                &scene.cluster,
                &Reference::new(group, "RoleBinding", Some(&namespace), name),
            )
            .await;
        }
        let revoked = Timestamp::now();
        until_condition(
            &scene.cluster,
            &pipeline,
            "Authorized",
            "False",
            Some("NotAuthorized"),
            BOUND,
        )
        .await;
        tokio::time::sleep(2 * BOUND).await;
        let lines = scene.loki.lines(&tenant, &selector).await;
        let last = lines.iter().map(|line| line.nanoseconds).max().unwrap();
        let after = Timestamp::from_nanosecond(last.into())
            .unwrap()
            .duration_since(revoked);
        let after = after.as_secs_f64().max(0.0);
        show(&format!("right taken to last line read: {after:.2} s"));
        assert!(
            after <= BOUND.as_secs_f64(),
            "a line was read {after} s after the right to it was gone"
        );
    });
}

/// The command in a message: from `kubectl` to the end of its quotes, or of the text.
fn remedy(message: &str) -> &str {
    let start = message
        .find("kubectl create rolebinding")
        .unwrap_or_else(|| panic!("no remedy in {message:?}"));
    let (before, command) = message.split_at(start);
    let quote = before.chars().last().filter(|c| "`'\"".contains(*c));
    let end = quote
        .and_then(|quote| command.find(quote))
        .or_else(|| command.find(['\n', ';']));
    end.map_or(command, |end| command.split_at(end).0)
        .trim_end_matches('.')
}
