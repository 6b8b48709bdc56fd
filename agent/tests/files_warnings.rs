//! Log files that cannot be read: who reads them is told which, everybody else that there are some.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod files_rig;

use files_rig::{Rig, in_force, pipeline, tenant};
use sluice_engine::key::Key;

#[test]
fn who_reads_a_container_is_told_that_a_file_of_it_cannot_be_read_and_nobody_else() {
    let mut other = pipeline("other", &["ops"]);
    other.pods.namespaces[0].name = "b".into();
    let both = pipeline("both", &["ops", "audit"]);
    let tenants = ["ops", "audit"].map(|name| tenant(name, 1 << 18));
    let mut rig = Rig::with(in_force(vec![both, other], tenants.to_vec()));
    let folder = rig.folder();
    std::os::unix::fs::symlink(rig.dir.path().join("runtime/x/0.log"), folder.join("0.log")).unwrap();
    rig.log("1.log", &["1"]);
    rig.run(3_000);
    let figures = rig.core().figures();
    let of_agent = &figures.warnings[0];
    assert_eq!(of_agent.reason, "LogFilesNotRead");
    assert!(
        of_agent
            .message
            .starts_with("Log files of 1 containers on this node")
            && !of_agent.message.contains("web"),
        "{of_agent:?}"
    );
    let of_pipeline = |name: &str| &figures.pipelines[&Key::new("a", name)].warnings;
    let [own] = &of_pipeline("both")[..] else {
        panic!("{figures:?}");
    };
    assert_eq!(own.reason, "LogFilesNotRead");
    assert!(
        own.message.starts_with("Log files of 1 containers") && own.message.contains("a/web-0/c"),
        "{own:?}"
    );
    assert!(of_pipeline("other").is_empty());
    std::fs::remove_file(folder.join("0.log")).unwrap();
    rig.run(1_000);
    let figures = rig.core().figures();
    assert!(
        figures
            .pipelines
            .values()
            .all(|pipeline| pipeline.warnings.is_empty())
    );
}
