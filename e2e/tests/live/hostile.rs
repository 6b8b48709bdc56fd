//! Files that nobody should have put into a log folder cost neither other files nor the agent.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sluice_e2e::scene::{Scene, play};
use sluice_e2e::sluice::agents_untouched;
use sluice_e2e::tally::assert_exact;
use sluice_e2e::wait::{PATIENCE, until};
use sluice_e2e::workload::{Pod, steady, steady_count};

const SECRET: &str = "a secret of the node, outside of the log root";

#[test]
fn hostile_files_cost_neither_other_files_nor_the_agent() {
    play("hostile", async |scene: &Scene| {
        let (namespace, tenant) = scene.ready_team("a").await;
        let before = agents_untouched(&scene.cluster).await;
        let pod = Pod::new(&namespace, "writer", "node2", steady("writer", 500, 20));
        pod.start(&scene.cluster).await;
        pod.until_running(&scene.cluster).await;

        let root = scene.cluster.folder("node2", "/var/log/pods");
        let own = until("the pod's folder", PATIENCE, async || {
            folder_of(&root, &namespace)
        })
        .await;
        let outside = scene.cluster.folder("node2", "/var/log/sluice-e2e-secret");
        fs::write(&outside, line(SECRET)).unwrap();
        let stray = plant(&own, &root, &namespace);
        // it had been read, and now it shrinks
        tokio::time::sleep(Duration::from_secs(3)).await;
        fs::write(own.join("shrinks/0.log"), line("short")).unwrap();

        pod.until_done(&scene.cluster, PATIENCE).await;
        let count = steady_count(500, 20);
        let selector = format!("{{namespace=\"{namespace}\", container=\"main\"}}");
        let lines = scene.loki.until_lines(&tenant, &selector, count, PATIENCE).await;
        assert_exact(&lines, "writer", count);

        let fine = format!("{{namespace=\"{namespace}\", container=\"torn\"}} |= \"after the torn ones\"");
        scene.loki.until_count(&tenant, &fine, 1, PATIENCE).await;
        let leaked = scene
            .loki
            .lines(&tenant, &format!("{{namespace=~\".+\"}} |= \"{SECRET}\""))
            .await;
        assert!(leaked.is_empty(), "read outside of the log root: {leaked:?}");
        assert_eq!(
            agents_untouched(&scene.cluster).await,
            before,
            "the agent neither died nor was restarted"
        );

        for path in stray {
            // The kubelet may have been quicker: it clears away folders of pods that it does not know.
            drop(fs::remove_dir_all(path));
        }
        fs::remove_file(outside).unwrap();
    });
}

/// Puts the hostile files beside the pod's own containers, and folders that are no pod's into the log root; these it returns.
fn plant(own: &Path, root: &Path, namespace: &str) -> Vec<PathBuf> {
    let container = |name: &str| {
        let folder = own.join(name);
        fs::create_dir_all(&folder).unwrap();
        folder.join("0.log")
    };
    let torn = [
        "\n",
        "no header at all\n",
        "2026-01-01T00:00",
        "\n",
        "2026-01-01T00:00:00.000000000Z stdout\n",
        "\u{0}\u{0}\u{0}\n",
        "9999-99-99T99:99:99Z stdout F x\n",
    ];
    fs::write(
        container("torn"),
        format!("{}{}", torn.concat(), line("after the torn ones")),
    )
    .unwrap();
    // 1 GiB without an end, that takes no room on the disk
    let huge = container("huge");
    fs::write(&huge, line("h").trim_end()).unwrap();
    let huge = fs::File::options().append(true).open(huge).unwrap();
    huge.set_len(1 << 30).unwrap();
    fs::write(container("shrinks"), line("first").repeat(1000)).unwrap();

    let unreadable = container("unreadable");
    fs::write(&unreadable, line("nobody may read this")).unwrap();
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(container("folder")).unwrap();
    symlink("/var/log/sluice-e2e-secret", container("absolute-link")).unwrap();
    symlink("../../../sluice-e2e-secret", container("relative-link")).unwrap();
    symlink("0.log", container("loop")).unwrap();

    let strays = [
        "no-pod",
        &format!("{namespace}_only-two-parts"),
        &format!("{namespace}_a_b_c_d"),
        &format!("{namespace}_ghost_00000000-0000-0000-0000-000000000000"),
    ];
    let strays: Vec<PathBuf> = strays.iter().map(|name| root.join(name)).collect();
    for stray in &strays {
        fs::create_dir_all(stray.join("main")).unwrap();
        fs::write(stray.join("main/0.log"), line("of no pod")).unwrap();
        fs::write(stray.join("main/not-a-number.log"), line("of no container")).unwrap();
    }
    strays
}

/// A line as the runtime would write it now: older ones than its namespace are nobody's.
fn line(text: &str) -> String {
    format!("{:.9} stdout F {text}\n", Timestamp::now())
}

fn folder_of(root: &Path, namespace: &str) -> Result<PathBuf, String> {
    let mut pods = fs::read_dir(root).map_err(|error| error.to_string())?.flatten();
    let own = pods.find(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{namespace}_writer_"))
    });
    own.map(|entry| entry.path())
        .ok_or_else(|| "not there".to_owned())
}
