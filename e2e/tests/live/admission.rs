//! A cluster that refuses the agents' pods: the pipelines say so with the remedy, and work once it is followed.

use serde_json::json;
use sluice_e2e::figures::show;
use sluice_e2e::objects::{Reference, delete, list, until_condition, until_object};
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::{AGENT_PODS, until_ready};
use sluice_e2e::wait::PATIENCE;
use sluice_engine::well_known::NAMESPACE;

const LEVEL: &str = "pod-security.kubernetes.io/enforce";

#[test]
fn refused_pods_are_told_with_their_remedy() {
    play("admission", async |scene: &Scene| {
        let (namespace, _) = scene.ready_team("a").await;
        let pipeline = Reference::pipeline(&namespace, "app");
        let level = format!("{LEVEL}=baseline");
        scene
            .cluster
            .run(
                "kubectl",
                &["label", "namespace", NAMESPACE, &level, "--overwrite"],
            )
            .await;
        for pod in list(&scene.cluster, "v1", "Pod", Some(NAMESPACE), AGENT_PODS).await {
            let name = pod["metadata"]["name"].as_str().unwrap();
            delete(
                &scene.cluster,
                &Reference::new("v1", "Pod", Some(NAMESPACE), name),
            )
            .await;
        }
        let reason = Some("AgentPodsRefused");
        let message = until_condition(&scene.cluster, &pipeline, "Ready", "False", reason, PATIENCE).await;
        show(&message);
        // as a user would: the command from the condition, as it stands there
        let (_, rest) = message.split_once("run: ").expect("a remedy to run");
        let (remedy, _) = rest.split_once(';').expect("an end of the command");
        scene.cluster.run("sh", &["-c", remedy]).await;
        assert!(message.contains("violates PodSecurity \"baseline"), "{message}");
        until_ready(&scene.cluster).await;
        until_condition(&scene.cluster, &pipeline, "Ready", "True", None, PATIENCE).await;
        let own = Reference::new("v1", "Namespace", None, NAMESPACE);
        until_object(
            &scene.cluster,
            &own,
            "the level that the remedy sets",
            PATIENCE,
            |object| match &object["metadata"]["labels"][LEVEL] {
                level if *level == json!("privileged") => Ok(()),
                other => Err(other.to_string()),
            },
        )
        .await;
    });
}
