//! A node that has run out of something: the agent goes on with less, says so, and recovers by itself.
//!
//! Limits hold for a whole process, so each test runs again in one of its own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod files_rig;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use files_rig::{Rig, cri, gzip};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice_engine::report::GapCause;

const ALONE: &str = "SLUICE_TEST_ALONE";

/// True in a process that runs this test and nothing else. In the others: has one run it, behind `wrapper`.
fn alone(test: &str, wrapper: &[&str]) -> bool {
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let mut command = match wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(own);
            command
        }
        None => Command::new(own),
    };
    let output = command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let needs = match wrapper {
        ["unshare", ..] => "needs a user namespace: root, and user.max_user_namespaces above 0\n",
        _ => "",
    };
    assert!(output.status.success(), "{needs}{said}");
    assert!(said.contains("1 passed"), "{said}");
    false
}

fn limit_descriptors(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(current);
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

fn reasons(rig: &mut Rig) -> Vec<String> {
    let warnings = rig.core().figures().warnings;
    warnings.into_iter().map(|warning| warning.reason).collect()
}

/// So many pods with a container each, which write a line with this text.
fn write(dir: &Path, pods: std::ops::Range<usize>, text: &str) {
    for n in pods {
        let folder = dir.join(format!("pods/a_web-{n}_uid-{n}/c"));
        fs::create_dir_all(&folder).unwrap();
        let mut log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("0.log"))
            .unwrap();
        std::io::Write::write_all(&mut log, cri("stdout", "F", &format!("{n}/{text}")).as_bytes()).unwrap();
    }
}

fn assert_once(rig: &Rig, pods: usize, texts: &[&str]) {
    let mut expected: Vec<String> = (0..pods)
        .flat_map(|n| texts.iter().map(move |text| format!("{n}/{text}")))
        .collect();
    let mut lines = rig.lines();
    expected.sort();
    lines.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn more_files_than_descriptors_are_all_read() {
    if !alone("more_files_than_descriptors_are_all_read", &[]) {
        return;
    }
    limit_descriptors(96);
    let mut rig = Rig::new();
    write(rig.dir.path(), 0..120, "1");
    rig.run(3_000);
    write(rig.dir.path(), 0..120, "2");
    // Compressed ones among them.
    for n in (0..120).step_by(3) {
        let folder = rig.dir.path().join(format!("pods/a_web-{n}_uid-{n}/c"));
        fs::rename(folder.join("0.log"), folder.join("0.log.20261120-175001")).unwrap();
        fs::write(folder.join("0.log"), "").unwrap();
    }
    rig.run(12_000);
    for n in (0..120).step_by(3) {
        let folder = rig.dir.path().join(format!("pods/a_web-{n}_uid-{n}/c"));
        gzip(&folder.join("0.log.20261120-175001"));
    }
    write(rig.dir.path(), 0..120, "3");
    rig.run(12_000);
    assert_once(&rig, 120, &["1", "2", "3"]);
    assert_eq!(reasons(&mut rig), ["DescriptorsExhausted"]);
    assert!(rig.core().figures().open_files <= 64);
    rig.crash();
    rig.run(12_000);
    assert_once(&rig, 120, &["1", "2", "3"]);
    // Most pods go, and with them the trouble.
    for n in 10..120 {
        fs::remove_dir_all(rig.dir.path().join(format!("pods/a_web-{n}_uid-{n}"))).unwrap();
    }
    rig.run(12_000);
    assert!(reasons(&mut rig).is_empty());
    write(rig.dir.path(), 0..10, "4");
    rig.run(3_000);
    assert_eq!(rig.acked.len(), 370);
}

#[test]
fn what_is_deleted_unread_for_want_of_descriptors_is_told() {
    if !alone("what_is_deleted_unread_for_want_of_descriptors_is_told", &[]) {
        return;
    }
    limit_descriptors(96);
    let mut rig = Rig::new();
    write(rig.dir.path(), 0..64, "1");
    rig.core().sink().window = 0;
    rig.turn();
    rig.log("0.log", &["gone"]);
    rig.run(1_000);
    fs::remove_file(rig.folder().join("0.log")).unwrap();
    rig.log("1.log", &["left"]);
    rig.run(1_000);
    rig.core().sink().window = 10;
    rig.run(5_000);
    assert!(rig.lines().contains(&"left") && !rig.lines().contains(&"gone"));
    let figures = rig.core().figures();
    assert_eq!(figures.resets["file_vanished"], 1);
    let outputs = figures
        .pipelines
        .values()
        .flat_map(|pipeline| pipeline.outputs.values());
    let told: Vec<_> = outputs
        .flat_map(|output| &output.gaps)
        .map(|gap| gap.cause)
        .collect();
    assert_eq!(told, [GapCause::FilesDeleted]);
}

#[test]
fn without_any_descriptor_left_files_wait_and_it_is_said() {
    if !alone("without_any_descriptor_left_files_wait_and_it_is_said", &[]) {
        return;
    }
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1_000);
    limit_descriptors(96);
    let mut all = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        all.push(file);
    }
    // The files below are written with one descriptor that is given back.
    all.pop();
    rig.log("0.log", &["2"]);
    fs::create_dir_all(rig.dir.path().join("pods/a_new_uid-new/c")).unwrap();
    fs::write(
        rig.dir.path().join("pods/a_new_uid-new/c/0.log"),
        cri("stdout", "F", "new"),
    )
    .unwrap();
    all.push(fs::File::open("/dev/null").unwrap());
    rig.run(15_000);
    assert_eq!(rig.lines(), ["1", "2"], "what is open is read on");
    assert!(reasons(&mut rig).contains(&"DescriptorsExhausted".to_owned()));
    let due = rig.turn();
    assert!(
        due > rig.now + Duration::from_millis(50),
        "not busy: {:?}",
        due - rig.now
    );
    drop(all);
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "new"]);
    rig.run(12_000);
    assert!(reasons(&mut rig).is_empty());
}

// The limits of a user namespace of its own.
const NO_INSTANCES: &str = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
const FEW_WATCHES: &str = "echo 2 > /proc/sys/user/max_inotify_watches && exec \"$@\"";

#[test]
fn without_an_inotify_instance_folders_are_listed_until_there_is_one() {
    let test = "without_an_inotify_instance_folders_are_listed_until_there_is_one";
    let wrapper = ["unshare", "-Ur", "sh", "-c", NO_INSTANCES, "sh"];
    if !alone(test, &wrapper) {
        return;
    }
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(8_000);
    rig.log("0.log", &["2"]);
    rig.log("1.log", &["3"]);
    rig.run(1_500);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    assert_eq!(reasons(&mut rig), ["WatchesExhausted"]);
    fs::write("/proc/sys/user/max_inotify_instances", "9").unwrap();
    rig.run(1_500);
    assert!(reasons(&mut rig).is_empty());
    rig.log("2.log", &["4"]);
    rig.turn();
    rig.ack(9);
    assert_eq!(rig.lines(), ["1", "2", "3", "4"], "told by a watch at once");
}

#[test]
fn with_too_few_watches_nothing_is_missed_and_they_are_used_again() {
    let test = "with_too_few_watches_nothing_is_missed_and_they_are_used_again";
    let wrapper = ["unshare", "-Ur", "sh", "-c", FEW_WATCHES, "sh"];
    if !alone(test, &wrapper) {
        return;
    }
    let mut rig = Rig::new();
    write(rig.dir.path(), 0..20, "1");
    rig.run(8_000);
    write(rig.dir.path(), 0..20, "2");
    rig.run(1_500);
    assert_once(&rig, 20, &["1", "2"]);
    assert_eq!(reasons(&mut rig), ["WatchesExhausted"]);
    // The root's watch is never lost and tells of new pods, so what counts is a folder whose own watch failed.
    let folder = rig.dir.path().join("pods/a_web-19_uid-19/c");
    fs::write(folder.join("1.log"), cri("stdout", "F", "3")).unwrap();
    rig.turn();
    rig.ack(9);
    assert_ne!(rig.lines().last(), Some(&"3"), "nothing tells of it");
    rig.run(1_500);
    assert_eq!(rig.lines().last(), Some(&"3"), "found by a listing");
    fs::write("/proc/sys/user/max_inotify_watches", "1000").unwrap();
    rig.run(1_500);
    assert!(reasons(&mut rig).is_empty());
    fs::write(folder.join("2.log"), cri("stdout", "F", "4")).unwrap();
    rig.turn();
    rig.ack(9);
    assert_eq!(rig.lines().last(), Some(&"4"), "told by a watch at once");
}

/// The most that this process had resident, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn pieces_without_an_end_take_no_more_memory_than_a_line() {
    if !alone("pieces_without_an_end_take_no_more_memory_than_a_line", &[]) {
        return;
    }
    let mut rig = Rig::new();
    rig.core().sink().room = 1_000;
    let pieces = cri("stdout", "P", &"x".repeat(16 << 10)).repeat(64);
    // Whatever is needed once.
    rig.write("0.log", &pieces);
    rig.run(1_000);
    let before = peak();
    for _ in 0..128 {
        rig.write("0.log", &pieces);
        rig.run(200);
        rig.acked.clear();
    }
    let grown = peak() - before;
    assert!(grown < 16 << 10, "128 MiB of pieces took {grown} KiB");
    rig.log("0.log", &["end"]);
    rig.run(1_000);
    assert!(
        rig.lines().iter().any(|line| line.contains("end")),
        "{:?}",
        rig.lines()
    );
}
