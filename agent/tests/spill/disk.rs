//! A disk that runs full or cannot be written: lines are given up and counted where no copy of them can be kept.
use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::files::{copies, die, hold, output, output_of, rotate};
use crate::files_rig::{Rig, cri, in_force, pipeline, tenant};
use crate::mounted::Mounted;
use sluice_engine::key::Key;
use sluice_engine::report::GapCause;

const TENANTS: [&str; 2] = ["t", "u"];

fn warnings(rig: &mut Rig) -> Vec<String> {
    let warnings = rig.core().figures().warnings;
    warnings.into_iter().map(|warning| warning.reason).collect()
}

/// The agent begins anew with both folders on one file system, as on a node.
fn both_folders_on_a_disk(rig: &mut Rig) -> Mounted {
    die(rig);
    let disk = Mounted::new(&rig.dir.path().join("pods"), 4 << 20);
    let state = rig.dir.path().join("state");
    fs::remove_dir_all(&state).unwrap();
    fs::create_dir(disk.0.join("state")).unwrap();
    std::os::unix::fs::symlink(disk.0.join("state"), &state).unwrap();
    rig.start();
    disk
}

#[test]
fn without_room_lines_are_given_up_and_counted_exactly() {
    let mut rig = Rig::new();
    let disk = both_folders_on_a_disk(&mut rig);

    // The first file finds room for its copy.
    let first = rotate(&rig, 1, &["1", "2"]);
    rig.log("0.log", &["3"]);
    rig.turn();
    rig.core().sink().window = 0;
    hold(&mut rig, 2_000);
    fs::remove_file(first).unwrap();
    hold(&mut rig, 300);
    assert_eq!(copies(&rig), 1);

    // The second does not. Its first line is under way to Loki already, the others are not read yet.
    let second = rotate(&rig, 2, &["4", "5 is long", "6"]);
    rig.log("0.log", &["7"]);
    hold(&mut rig, 2_000);
    disk.fill(400 << 10);
    fs::remove_file(second).unwrap();
    hold(&mut rig, 3_000);
    let output_then = output(&mut rig);
    assert_eq!(output_then.lost["no_space"], (3, "456 is long".len() as u64));
    assert!(warnings(&mut rig).contains(&"SpillStopped".to_owned()));
    assert_eq!(copies(&rig), 1, "what has a copy is not given up");

    // Room again: what comes then is copied again, and what was kept is sent.
    disk.empty();
    let third = rotate(&rig, 3, &["8"]);
    rig.log("0.log", &["9"]);
    hold(&mut rig, 11_000);
    fs::remove_file(third).unwrap();
    hold(&mut rig, 2_000);
    assert_eq!(copies(&rig), 2);
    assert!(!warnings(&mut rig).contains(&"SpillStopped".to_owned()));
    die(&mut rig);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "7", "8", "9"]);
    let output_now = output(&mut rig);
    assert_eq!(output_now.lost, output_then.lost);
    // The line that was under way has no file, and the process that had it died: not counted, but told. The next
    // process finds that what followed the copy is gone, whether or not it was counted.
    let told: Vec<_> = output_now.gaps.iter().map(|gap| gap.cause).collect();
    assert_eq!(told, [GapCause::FilesDeleted, GapCause::NoSpace]);
    die(&mut rig);
    drop(disk);
}

#[test]
fn a_full_disk_stops_no_line_is_said_and_heals() {
    let mut rig = Rig::new();
    die(&mut rig);
    let disk = Mounted::new(&rig.dir.path().join("state"), 1 << 20);
    rig.start();
    rig.log("0.log", &["1"]);
    rig.run(1_500);
    disk.fill(0);
    for n in 2..200 {
        rig.log("0.log", &[&n.to_string()]);
        rig.run(300);
        // A journal's own block has room for some records more.
        if n > 30 && warnings(&mut rig).contains(&"CheckpointNotWritable".to_owned()) {
            break;
        }
    }
    assert!(warnings(&mut rig).contains(&"CheckpointNotWritable".to_owned()));
    let sent = rig.lines().len();
    rig.log("0.log", &["more"]);
    rig.run(1_500);
    assert_eq!(rig.lines().len(), sent + 1, "delivery goes on");
    disk.empty();
    rig.log("0.log", &["last"]);
    rig.run(3_000);
    assert_eq!(warnings(&mut rig), [""; 0]);
    let sent = rig.lines().len();
    die(&mut rig);
    rig.start();
    rig.run(2_000);
    assert_eq!(rig.lines().len(), sent, "positions are on disk again");
    die(&mut rig);
    drop(disk);
}

#[test]
fn a_read_only_disk_at_the_start_stops_no_line_is_said_and_heals() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1_500);
    die(&mut rig);
    let state = rig.dir.path().join("state");
    let journal = fs::read(state.join("journal")).unwrap();
    let disk = Mounted::new(&state, 1 << 20);
    fs::write(state.join("journal"), journal).unwrap();
    disk.remount("ro");
    rig.start();
    rig.log("0.log", &["2"]);
    rig.run(1_500);
    assert_eq!(rig.lines(), ["1", "2"], "positions are read");
    assert!(warnings(&mut rig).contains(&"CheckpointNotWritable".to_owned()));
    disk.remount("rw");
    rig.log("0.log", &["3"]);
    rig.run(2_500);
    assert_eq!(warnings(&mut rig), [""; 0]);
    die(&mut rig);
    rig.start();
    rig.run(1_500);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    die(&mut rig);
    drop(disk);
}

fn two_outputs_on_a_disk() -> (Rig, Mounted) {
    let tenants = TENANTS.map(|name| tenant(name, 4096));
    let mut rig = Rig::with(in_force(vec![pipeline("p", &TENANTS)], tenants.to_vec()));
    let disk = both_folders_on_a_disk(&mut rig);
    (rig, disk)
}

/// A younger file is given up while two outputs stand in an older one, which has its copy.
#[test]
fn what_is_older_than_a_given_up_file_is_sent_all_the_same() {
    // From the first line on, and in the middle of one.
    for begun in [false, true] {
        let (mut rig, disk) = two_outputs_on_a_disk();
        rig.write("0.log", cri("stdout", "P", "1 in "));
        if begun {
            rig.turn();
        }
        rig.core().sink().window = 0;
        let first = rotate(&rig, 1, &["two pieces", "2"]);
        rig.log("0.log", &["3"]);
        hold(&mut rig, 2_000);
        fs::remove_file(first).unwrap();
        hold(&mut rig, 300);
        assert_eq!(copies(&rig), 1);

        let second = rotate(&rig, 2, &["4 is long", "5"]);
        rig.log("0.log", &["6"]);
        hold(&mut rig, 2_000);
        disk.fill(400 << 10);
        fs::remove_file(second).unwrap();
        // The file may still be written to at first: it cannot be read to its end at once.
        hold(&mut rig, 5_000);
        for tenant in TENANTS {
            let lost = &output_of(&mut rig, tenant).lost;
            assert_eq!(
                lost["no_space"],
                (3, "34 is long5".len() as u64),
                "{tenant} {begun}"
            );
        }
        assert_eq!(copies(&rig), 1, "what has a copy is not given up");

        // The same process goes on where it stood.
        rig.core().sink().window = 9;
        rig.run(3_000);
        die(&mut rig);
        rig.start();
        rig.run(3_000);
        for tenant in TENANTS {
            assert_eq!(rig.lines_of(tenant), ["1 in two pieces", "2", "6"], "{begun}");
            let output = output_of(&mut rig, tenant);
            assert_eq!(output.lost["no_space"].0, 3, "{tenant} {begun}");
            assert_eq!(output.gap_count, 0, "what is counted is not told as well");
        }
        die(&mut rig);
        drop(disk);
    }
}

/// One output cannot leave it yet for a line of standard error that is open: the other one tries again and again.
#[test]
fn a_file_that_not_every_output_can_leave_is_counted_once() {
    let (mut rig, disk) = two_outputs_on_a_disk();
    rig.core().sink().blocked.push(Key::new("logging", "t"));
    rig.write("0.log", cri("stderr", "P", "half a line"));
    let first = rotate(&rig, 1, &["1"]);
    rig.log("0.log", &["2"]);
    rig.run(2_000);
    // What comes late is not joined with a line that is still written.
    let mut late = OpenOptions::new().append(true).open(&first).unwrap();
    late.write_all(cri("stdout", "F", "late").as_bytes()).unwrap();
    rig.run(2_000);
    fs::remove_file(first).unwrap();
    rig.run(2_000);
    assert_eq!(copies(&rig), 2);

    let second = rotate(&rig, 2, &["3"]);
    rig.run(1_000);
    disk.fill(400 << 10);
    fs::remove_file(second).unwrap();
    rig.run(10_000);
    assert_eq!(rig.lines_of("u"), ["1", "2", "3"], "the line is still open");
    assert_eq!(output(&mut rig).lost.len(), 0, "there may be room before it ends");
    rig.run(30_000);
    assert_eq!(output(&mut rig).lost["no_space"], (2, 2));
    rig.core().sink().blocked.clear();
    rig.run(3_000);
    assert_eq!(rig.lines_of("t"), ["1", "half a line", "late"]);
    assert_eq!(rig.lines_of("u"), ["1", "2", "3", "half a line", "late"]);
    assert_eq!(output(&mut rig).lost["no_space"], (2, 2));
    assert_eq!(output_of(&mut rig, "u").lost.len(), 0);
    die(&mut rig);
    drop(disk);
}
