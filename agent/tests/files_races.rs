//! Orders of events that come seldom: each lost, doubled or misreported lines once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod files_rig;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use files_rig::{POD, Rig, cri, gzip, in_force, pipeline, tenant};
use sluice_agent::discover::beneath::LogRoot;
use sluice_agent::discover::names::{ContainerKey, LogName};
use sluice_agent::metadata::{PodChange, PodFacts};
use sluice_agent::tail::chain::{Chain, Next};
use sluice_agent::tail::position::Position;
use sluice_agent::worker::Command;
use sluice_engine::key::Key;

fn oldest(rig: &mut Rig) -> Option<i64> {
    let figures = rig.core().figures();
    figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")].oldest_unacknowledged
}

#[test]
fn a_pod_deleted_right_after_a_rotation_is_read_to_its_end() {
    let mut rig = Rig::new();
    let folder = rig.folder();
    rig.log("0.log", &["1"]);
    rig.run(500);
    fs::rename(folder.join("0.log"), folder.join("0.log.20261120-175001")).unwrap();
    rig.log("0.log", &["2"]);
    rig.turn();
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2"]);
    assert_eq!(rig.core().figures().open_files, 0);
}

#[test]
fn a_new_limit_does_not_change_a_line_that_is_being_cut() {
    for (before, after) in [(1_024, 4_096), (4_096, 1_024)] {
        let mut rig = Rig::with(in_force(vec![pipeline("p", &["t"])], vec![tenant("t", before)]));
        let text = "0123456789".repeat(1_400);
        rig.core().sink().room = 2;
        rig.core().sink().window = 1;
        rig.write("0.log", cri("stdout", "F", &text));
        rig.turn();
        rig.turn();
        rig.apply(in_force(vec![pipeline("p", &["t"])], vec![tenant("t", after)]));
        rig.run(5_000);
        let lines = rig.lines().into_iter().enumerate();
        let parts =
            lines.map(|(at, line)| line.strip_suffix(&format!(" [sluice: part {}]", at + 1)).unwrap());
        assert_eq!(parts.collect::<String>(), text);
    }
}

#[test]
fn a_line_in_place_of_one_that_was_being_cut_is_sent_whole() {
    let mut rig = Rig::with(in_force(vec![pipeline("p", &["t"])], vec![tenant("t", 1_024)]));
    rig.core().sink().room = 2;
    rig.core().sink().window = 1;
    rig.write("0.log", cri("stdout", "F", &"x".repeat(14_000)));
    rig.turn();
    rig.turn();
    // Rewritten in place before any of it counted as read.
    fs::write(rig.folder().join("0.log"), cri("stdout", "F", &"y".repeat(5_000))).unwrap();
    rig.run(5_000);
    let sent = rig.lines().concat();
    assert_eq!(sent.matches('y').count(), 5_000);
}

#[test]
fn start_at_now_holds_after_a_restart_though_the_tip_was_empty() {
    let mut now = pipeline("p", &["t"]);
    now.pods.start_at = sluice_engine::document::StartAt::Now;
    let mut rig = Rig::with(in_force(vec![now], vec![tenant("t", 4096)]));
    rig.log("0.log.20261120-175001", &["old"]);
    gzip(&rig.folder().join("0.log.20261120-175001"));
    let other = rig.dir.path().join("pods/a_web-1_uid-2/c");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("0.log.20261120-175001"), cri("stdout", "F", "old")).unwrap();
    rig.write("0.log", "");
    fs::write(other.join("0.log"), "").unwrap();
    rig.run(1_500);
    rig.crash();
    rig.log("0.log", &["1"]);
    fs::write(other.join("0.log"), cri("stdout", "F", "2")).unwrap();
    rig.run(1_500);
    assert_eq!(rig.lines(), ["1", "2"]);
}

#[test]
fn a_tenant_that_is_stalled_for_long_does_not_split_lines() {
    let mut rig = Rig::new();
    rig.write("0.log", cri("stdout", "P", "one "));
    rig.run(500);
    rig.core().sink().blocked = vec![Key::new("logging", "t")];
    rig.write("0.log", cri("stdout", "F", "line"));
    rig.run(60_000);
    rig.core().sink().blocked.clear();
    rig.run(1_000);
    assert_eq!(rig.lines(), ["one line"]);
}

#[test]
fn a_rotated_file_waits_for_a_tenant_that_is_stalled_for_long() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(500);
    rig.core().sink().blocked = vec![Key::new("logging", "t")];
    rig.log("0.log", &["2"]);
    let rotated = rig.folder().join("0.log.20261120-175001");
    fs::rename(rig.folder().join("0.log"), rotated).unwrap();
    rig.log("0.log", &["3"]);
    rig.run(60_000);
    rig.core().sink().blocked.clear();
    rig.run(2_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
}

#[test]
fn a_stalled_tenant_costs_one_attempt_at_a_time() {
    let mut rig = Rig::new();
    rig.core().sink().blocked = vec![Key::new("logging", "t")];
    for n in 0..50 {
        let folder = rig.dir.path().join(format!("pods/a_web-{n}_uid-{n}/c"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("0.log"), cri("stdout", "F", "x")).unwrap();
    }
    rig.run(1_000);
    rig.core().sink().refused = 0;
    rig.run(1_000);
    assert!(rig.core().sink().refused <= 12, "{}", rig.core().sink().refused);
    rig.core().sink().blocked.clear();
    rig.run(1_000);
    assert_eq!(rig.lines().len(), 50);
}

#[test]
fn lag_is_the_age_of_lines_that_wait_and_of_no_others() {
    let mut rig = Rig::new();
    rig.write("0.log", "2020-01-01T00:00:00Z stdout F long ago\n");
    rig.run(500);
    assert_eq!(oldest(&mut rig), None);
    // An idle file waits for its turn behind a crowd.
    for n in 0..30 {
        let folder = rig.dir.path().join(format!("pods/a_busy-{n}_uid-busy-{n}/c"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("0.log"),
            cri("stdout", "F", &"x".repeat(4_000)).repeat(100),
        )
        .unwrap();
    }
    rig.now += Duration::from_millis(200);
    rig.turn();
    assert_eq!(oldest(&mut rig), Some(1_795_197_001));
    rig.run(2_000);
    assert_eq!(oldest(&mut rig), None);
    // Nothing of a new container was ever taken, and its line waits all the same.
    rig.core().sink().blocked = vec![Key::new("logging", "t")];
    let folder = rig.dir.path().join("pods/a_new_uid-new/c");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0.log"), cri("stdout", "F", "x")).unwrap();
    rig.run(500);
    assert_eq!(oldest(&mut rig), Some(1_795_197_001));
    rig.core().sink().blocked.clear();
    rig.run(500);
    assert_eq!(oldest(&mut rig), None);
}

#[test]
fn while_draining_changed_folders_do_not_wake_the_worker() {
    let mut rig = Rig::new();
    assert!(rig.core().descriptors().count() == 1);
    let now = rig.now;
    rig.core().command(Command::Drain(Duration::from_secs(1)), now);
    assert!(rig.core().descriptors().count() == 0);
}

#[test]
fn a_link_that_leads_nowhere_keeps_nobody_busy_and_is_said() {
    let mut rig = Rig::new();
    let folder = rig.folder();
    std::os::unix::fs::symlink(rig.dir.path().join("runtime/x/0.log"), folder.join("0.log")).unwrap();
    rig.log("1.log", &["1"]);
    rig.run(7_000);
    assert_eq!(rig.lines(), ["1"]);
    let due = rig.turn();
    assert!(due >= rig.now + Duration::from_millis(500), "{:?}", due - rig.now);
    let warnings = rig.core().figures().warnings;
    assert!(
        warnings.iter().any(|warning| warning.reason == "LogFilesNotRead"),
        "{warnings:?}"
    );
    // What appears late is told, and does not stand in the younger one's place.
    let runtime = rig.dir.path().join("runtime/x");
    fs::create_dir_all(&runtime).unwrap();
    fs::write(runtime.join("0.log"), cri("stdout", "F", "late")).unwrap();
    rig.run(11_000);
    assert!(rig.core().figures().warnings[0].reason == "LogFilesNotRead");
    rig.log("1.log", &["2"]);
    rig.run(1_000);
    assert_eq!(rig.lines(), ["1", "2"]);
    fs::remove_file(folder.join("0.log")).unwrap();
    rig.run(1_000);
    assert!(rig.core().figures().warnings.is_empty());
    // Numbers that begin anew, once the later file is gone.
    fs::remove_file(folder.join("1.log")).unwrap();
    rig.log("0.log", &["3"]);
    rig.run(11_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
}

/// As Docker's shim kept logs: the name is a link into the runtime's folder.
#[test]
fn a_link_that_is_turned_loses_no_line_of_either_file() {
    let mut rig = Rig::new();
    let (folder, runtime) = (rig.folder(), rig.dir.path().join("runtime/x"));
    fs::create_dir_all(&runtime).unwrap();
    let (link, next) = (folder.join("0.log"), folder.join("next"));
    let mut expected = Vec::new();
    for turn in 0..6 {
        let target = runtime.join(format!("{turn}-json.log"));
        let lines: Vec<String> = (0..3).map(|n| format!("{turn}.{n}")).collect();
        let write = |lines: &[String]| {
            let text: String = lines.iter().map(|line| cri("stdout", "F", line)).collect();
            let mut file = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&target)
                .unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        };
        write(&lines[..1]);
        std::os::unix::fs::symlink(&target, &next).unwrap();
        fs::rename(&next, &link).unwrap();
        rig.run(1_500);
        write(&lines[1..]);
        // Turned when all of it was read, and when it was not.
        if turn % 2 > 0 {
            rig.run(1_500);
        }
        expected.extend(lines);
    }
    rig.run(12_000);
    let mut lines = rig.lines();
    lines.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn a_pod_that_claims_the_folder_of_another_changes_nothing() {
    let facts = |namespace: &str, name: &str| {
        let facts = PodFacts {
            uid: "uid-1".into(),
            namespace: namespace.into(),
            name: name.into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            controller: None,
        };
        Command::Pod(PodChange::Applied(Box::new(facts)))
    };
    let mut selective = pipeline("p", &["t"]);
    selective.pods.selector.match_labels = [("app".to_owned(), "web".to_owned())].into();
    let mut rig = Rig::with(in_force(vec![selective], vec![tenant("t", 4096)]));
    let now = rig.now;
    rig.core().command(facts("a", "web-0"), now);
    rig.log("0.log", &["1"]);
    rig.run(500);
    // The annotation of static pods is anybody's to set.
    rig.core().command(facts("b", "evil"), now);
    rig.log("0.log", &["2"]);
    rig.run(500);
    assert_eq!(rig.lines(), ["1", "2"]);
}

fn names(names: &[&str]) -> Vec<LogName> {
    names.iter().map(|name| LogName::parse(name).unwrap()).collect()
}

/// Of the folder `pod/c` beneath `dir`.
fn chain(dir: &Path) -> Chain {
    let root = Arc::new(LogRoot::new(dir.to_owned(), Vec::new()));
    let key = ContainerKey {
        folder: "pod".into(),
        container: "c".into(),
    };
    Chain::new(root, &key)
}

fn begins_with(chain: &mut Chain, generation: u32, text: &str) {
    let mut read = vec![0; 100];
    let len = chain.read(generation, 0, &mut read, false, &mut None).unwrap();
    assert_eq!(std::str::from_utf8(&read[..len]).unwrap(), text);
}

#[test]
fn a_rotation_between_listing_and_opening_does_not_turn_files_around() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("pod/c");
    fs::create_dir_all(&at).unwrap();
    fs::write(at.join("0.log.20261120-175001"), "older\n").unwrap();
    fs::write(at.join("0.log"), "newer\n").unwrap();
    let mut chain = chain(dir.path());
    assert!(!chain.reconcile(&names(&["0.log"]), 0));
    assert!(chain.reconcile(&names(&["0.log.20261120-175001", "0.log"]), 0));
    let begin = chain.beginning().generation;
    begins_with(&mut chain, begin, "older\n");
}

/// A file is deleted, and another one gets its name and its inode. File systems seldom do that when asked: the name
/// goes, what it held goes, and the name comes back.
fn made_again(file: &Path, away: &Path, text: &str) {
    fs::rename(file, away).unwrap();
    fs::write(away, text).unwrap();
    fs::rename(away, file).unwrap();
}

#[test]
fn an_inode_used_again_is_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("pod/c");
    fs::create_dir_all(&at).unwrap();
    let mut chain = chain(dir.path());
    fs::write(at.join("0.log"), "first\n").unwrap();
    let inode = || fs::metadata(at.join("0.log")).unwrap().ino();
    let first = inode();
    assert!(chain.reconcile(&names(&["0.log"]), 0));
    // Nobody wants the container for a while.
    chain.forget();
    fs::write(at.join("0.log.20261120-175001"), "second\n").unwrap();
    made_again(&at.join("0.log"), &dir.path().join("away"), "third\n");
    assert_eq!(inode(), first);
    assert!(chain.reconcile(&names(&["0.log.20261120-175001", "0.log"]), 0));
    let begin = chain.beginning().generation;
    begins_with(&mut chain, begin, "second\n");
    let at = Position {
        generation: begin,
        offset: 7,
    };
    let Next::Move { to, .. } = chain.after(at, false, Instant::now()) else {
        panic!("the third file is not found");
    };
    begins_with(&mut chain, to.generation, "third\n");
}

#[test]
fn an_inode_used_again_while_nobody_wants_the_container_is_read_from_its_beginning() {
    let mut rig = Rig::new();
    let inode = |rig: &Rig| fs::metadata(rig.folder().join("0.log")).unwrap().ino();
    rig.log("0.log", &["1", "2"]);
    rig.run(1_500);
    let first = inode(&rig);
    rig.apply(in_force(Vec::new(), Vec::new()));
    rig.run(1_500);
    // Closed, so that the inode is free.
    assert_eq!(rig.core().figures().open_files, 0);
    // Longer than what was read of the first.
    let text = ["3", "4", "5"].map(|line| cri("stdout", "F", line)).concat();
    made_again(&rig.folder().join("0.log"), &rig.dir.path().join("away"), &text);
    assert_eq!(inode(&rig), first);
    rig.run(1_500);
    rig.apply(in_force(vec![pipeline("p", &["t"])], vec![tenant("t", 4096)]));
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn the_next_file_has_the_inode_of_one_that_was_compressed() {
    let mut rig = Rig::new();
    let at = |name: &str| rig.folder().join(name);
    let [tip, first, second] = ["0.log", "0.log.20261120-175001", "0.log.20261120-175011"].map(at);
    rig.log("0.log", &["1"]);
    rig.run(1_500);
    fs::rename(&tip, &first).unwrap();
    rig.log("0.log", &["2"]);
    // Long enough for the first file to be closed.
    rig.run(4_000);
    let copy = rig.dir.path().join("copy");
    fs::copy(&first, &copy).unwrap();
    gzip(&copy);
    let compressed = rig.folder().join("0.log.20261120-175001.gz");
    fs::rename(rig.dir.path().join("copy.gz"), compressed).unwrap();
    fs::rename(&tip, &second).unwrap();
    fs::write(&first, cri("stdout", "F", "3")).unwrap();
    fs::rename(&first, &tip).unwrap();
    rig.run(1_000);
    rig.log("0.log", &["4"]);
    rig.run(12_000);
    fs::rename(&tip, rig.folder().join("0.log.20261120-175021")).unwrap();
    rig.log("0.log", &["5"]);
    rig.run(12_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5"]);
}
