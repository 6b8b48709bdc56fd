//! Which file is which: copies, names that come back, inodes and devices that change, files that grow after they
//! were left. What is written arrives once and in order.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod files_rig;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use files_rig::{POD, Rig, cri, gzip, in_force, pipeline, tenant};

const A: &str = "0.log.20261120-175001";
const B: &str = "0.log.20261120-175011";
const C: &str = "0.log.20261120-175021";

fn copy(rig: &Rig, from: &str, to: &str) {
    fs::copy(rig.folder().join(from), rig.folder().join(to)).unwrap();
}

fn cut(rig: &Rig, name: &str) {
    File::create(rig.folder().join(name)).unwrap();
}

fn rename(rig: &Rig, from: &str, to: &str) {
    fs::rename(rig.folder().join(from), rig.folder().join(to)).unwrap();
}

/// Enough for a fingerprint that will not grow.
fn long(text: &str) -> String {
    format!("{text}{}", ".".repeat(1_200))
}

fn heads(rig: &Rig) -> Vec<&str> {
    rig.lines()
        .iter()
        .map(|line| line.trim_end_matches('.'))
        .collect()
}

fn write_late(file: &mut File, line: &str) {
    file.write_all(cri("stdout", "F", line).as_bytes()).unwrap();
}

#[test]
fn a_file_copied_and_cut_is_read_on_in_the_copy() {
    for first in ["1".to_owned(), long("1")] {
        for watches in [true, false] {
            let mut rig = Rig::new();
            if !watches {
                rig.core().without_watches();
            }
            rig.log("0.log", &[&first, "2"]);
            rig.run(1_500);
            rig.log("0.log", &["3"]);
            copy(&rig, "0.log", A);
            cut(&rig, "0.log");
            rig.log("0.log", &["4"]);
            rig.run(3_000);
            assert_eq!(heads(&rig), ["1", "2", "3", "4"], "watches: {watches}");
            rig.log("0.log", &["5"]);
            rig.run(1_500);
            // And once more, with the copy compressed as the next one is made.
            gzip(&rig.folder().join(A));
            rig.log("0.log", &["6"]);
            copy(&rig, "0.log", B);
            cut(&rig, "0.log");
            rig.log("0.log", &["7"]);
            rig.run(3_000);
            assert_eq!(heads(&rig), ["1", "2", "3", "4", "5", "6", "7"]);
            assert!(rig.core().figures().resets.is_empty());
            rig.crash();
            rig.run(3_000);
            assert_eq!(rig.acked.len(), 7);
        }
    }
}

#[test]
fn a_copy_compressed_at_once_is_read_on_too() {
    let mut rig = Rig::new();
    rig.log("0.log", &[&long("1")]);
    rig.run(1_500);
    rig.log("0.log", &["2"]);
    copy(&rig, "0.log", A);
    gzip(&rig.folder().join(A));
    cut(&rig, "0.log");
    rig.log("0.log", &["3"]);
    rig.run(3_000);
    assert_eq!(heads(&rig), ["1", "2", "3"]);
}

#[test]
fn a_file_copied_and_cut_while_down_is_read_on_in_the_copy() {
    for compressed in [true, false] {
        let mut rig = Rig::new();
        rig.log("0.log", &["1"]);
        rig.run(1_500);
        rig.core = None;
        rig.log("0.log", &["2"]);
        copy(&rig, "0.log", A);
        cut(&rig, "0.log");
        rig.log("0.log", &["3"]);
        if compressed {
            gzip(&rig.folder().join(A));
        }
        rig.start();
        rig.run(3_000);
        assert_eq!(rig.lines(), ["1", "2", "3"]);
    }
}

#[test]
fn a_copy_beside_its_file_is_not_read_and_does_not_stop_it() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2"]);
    rig.run(1_500);
    copy(&rig, "0.log", A);
    rig.run(3_000);
    rig.log("0.log", &["3"]);
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    // Found together, the one that the runtime writes to goes on.
    rig.crash();
    rig.log("0.log", &["4"]);
    rig.run(3_000);
    rig.log("0.log", &["5"]);
    rig.run(1_500);
    rename(&rig, "0.log", B);
    rig.log("0.log", &["6"]);
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5", "6"]);
}

#[test]
fn what_a_file_gets_long_after_it_was_left_is_read() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    let mut old = OpenOptions::new()
        .append(true)
        .open(rig.folder().join("0.log"))
        .unwrap();
    rig.run(500);
    rename(&rig, "0.log", A);
    rig.log("0.log", &["2"]);
    rig.run(5_000);
    write_late(&mut old, "late");
    rig.log("0.log", &["3"]);
    rig.run(15_000);
    rig.log("0.log", &["4"]);
    rig.run(15_000);
    let mut lines = rig.lines();
    assert_eq!(lines.pop(), Some("4"), "the tip is read on");
    lines.sort_unstable();
    assert_eq!(lines, ["1", "2", "3", "late"]);
    // The old container's writer may be late as well.
    rig.log("1.log", &["5"]);
    rig.run(5_000);
    write_late(&mut old, "later");
    rig.run(15_000);
    rig.log("1.log", &["6"]);
    rig.run(15_000);
    assert_eq!(rig.lines()[5..].len(), 3);
    assert_eq!(rig.lines().last(), Some(&"6"));
    assert_eq!(rig.core().figures().open_files, 1);
}

#[test]
fn a_late_line_of_a_file_that_is_not_acknowledged_yet_is_read_before_it_is_closed() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    let mut old = OpenOptions::new()
        .append(true)
        .open(rig.folder().join("0.log"))
        .unwrap();
    rig.turn();
    rename(&rig, "0.log", A);
    rig.log("0.log", &["2"]);
    for _ in 0..40 {
        rig.turn();
        rig.now += std::time::Duration::from_millis(100);
    }
    write_late(&mut old, "late");
    fs::remove_file(rig.folder().join(A)).unwrap();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "late"]);
}

#[test]
fn a_name_that_comes_back_is_read_on() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(500);
    // The runtime did not open a new file, so kubelet took the renaming back.
    rename(&rig, "0.log", A);
    rig.run(500);
    rename(&rig, A, "0.log");
    rig.log("0.log", &["2"]);
    rig.run(1_500);
    // It did after all, and the new file lost its name.
    rename(&rig, "0.log", A);
    rig.log("0.log", &["3"]);
    rig.run(5_000);
    rename(&rig, A, "0.log");
    rig.run(500);
    rig.log("0.log", &["4"]);
    rig.run(15_000);
    rig.log("0.log", &["5"]);
    rig.run(15_000);
    rename(&rig, "0.log", B);
    rig.log("0.log", &["6"]);
    rig.run(5_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5", "6"]);
}

fn device(path: &Path) -> u64 {
    fs::metadata(path).unwrap().dev()
}

/// A folder on another file system than `path`.
fn on_another_device(path: &Path) -> tempfile::TempDir {
    let places = [
        "/tmp",
        "/dev/shm",
        env!("CARGO_TARGET_TMPDIR"),
        "/var/tmp",
        "/run",
    ];
    let folders = places
        .into_iter()
        .filter_map(|place| tempfile::tempdir_in(place).ok());
    let mut others = folders.filter(|folder| device(folder.path()) != device(path));
    others
        .next()
        .expect("a second file system to write to, such as /dev/shm")
}

#[test]
fn files_of_another_device_after_a_reboot_are_the_same() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2"]);
    rig.run(500);
    rename(&rig, "0.log", A);
    rig.log("0.log", &["3"]);
    rig.run(3_000);
    rig.core = None;
    let before = device(&rig.folder().join(A));
    // Another device and other inodes.
    let elsewhere = on_another_device(rig.dir.path());
    let moved = elsewhere.path().join("c");
    fs::create_dir(&moved).unwrap();
    for name in [A, "0.log"] {
        fs::copy(rig.folder().join(name), moved.join(name)).unwrap();
    }
    let pods = rig.dir.path().join("pods");
    fs::remove_dir_all(&pods).unwrap();
    let other = elsewhere.path().join("pods");
    fs::create_dir_all(other.join(POD)).unwrap();
    fs::rename(&moved, other.join(POD).join("c")).unwrap();
    std::os::unix::fs::symlink(&other, &pods).unwrap();
    assert_ne!(device(&rig.folder().join(A)), before);
    rig.log("0.log", &["4"]);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4"]);
}

#[test]
fn an_inode_used_again_while_down_is_not_read_on() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2", "3"]);
    rig.run(1_500);
    rig.core = None;
    // Same name, same inode, longer than what was read.
    cut(&rig, "0.log");
    rig.log("0.log", &["4", "5", "6", "7"]);
    rig.start();
    rig.run(1_500);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5", "6", "7"]);
}

#[test]
fn files_that_begin_alike_are_not_taken_for_each_other() {
    // Longer than what a fingerprint is of.
    let alike = cri("stdout", "F", &long("alike"));
    let lines = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| cri("stdout", "F", line))
            .collect::<String>()
    };
    let mut rig = Rig::new();
    let other = rig.dir.path().join("pods/a_web-1_uid-2/c");
    fs::create_dir_all(&other).unwrap();
    rig.write("0.log", alike.clone() + &lines(&["1", "2"]));
    fs::write(other.join("0.log"), alike.clone() + &lines(&["a"])).unwrap();
    rig.run(1_500);
    rig.core = None;
    // Two containers, each with a position of its own behind it, and a third without one.
    rig.log("0.log", &["3"]);
    fs::write(other.join("0.log"), alike.clone() + &lines(&["a", "b", "c"])).unwrap();
    let third = rig.dir.path().join("pods/a_web-2_uid-3/c");
    fs::create_dir_all(&third).unwrap();
    fs::write(third.join("0.log"), alike.clone() + &lines(&["x", "y", "z", "!"])).unwrap();
    rig.start();
    rig.run(1_500);
    let of = |rig: &Rig, pod: &str| {
        let sent = rig.acked.iter().filter(|sent| sent.metadata.contains(pod));
        let lines: String = sent.map(|sent| sent.line.trim_end_matches('.')).collect();
        lines
    };
    assert_eq!(of(&rig, "web-0"), "alike123");
    assert_eq!(of(&rig, "web-1"), "alikeabc");
    assert_eq!(of(&rig, "web-2"), "alikexyz!");
    // One in the place of another: what was read of that one last is not in it.
    let next = rig.dir.path().join("next");
    fs::write(&next, alike + &lines(&["4", "5", "6", "7", "8"])).unwrap();
    fs::rename(next, rig.folder().join("0.log")).unwrap();
    rig.run(3_000);
    assert_eq!(of(&rig, "web-0"), "alike123alike45678");
    assert_eq!(rig.core().figures().resets["file_rewritten"], 1);
}

#[test]
fn files_compressed_while_nobody_wanted_them_are_read_on() {
    let mut rig = Rig::new();
    rig.log("0.log", &[&long("1")]);
    rig.run(1_500);
    rig.apply(in_force(Vec::new(), Vec::new()));
    rig.log("0.log", &["2"]);
    rig.run(1_500);
    rename(&rig, "0.log", A);
    rig.log("0.log", &["3"]);
    rig.run(1_500);
    gzip(&rig.folder().join(A));
    rig.run(1_500);
    rig.apply(in_force(vec![pipeline("p", &["t"])], vec![tenant("t", 4096)]));
    rig.run(3_000);
    assert_eq!(heads(&rig), ["1", "2", "3"]);
}

#[test]
fn a_clock_turned_back_for_winter_does_not_turn_files_around() {
    let line = |time: &str, zone: &str, text: &str| format!("2026-10-25T{time}{zone} stdout F {text}\n");
    let mut rig = Rig::new();
    rig.core = None;
    // Kubelet names files by local time: the second was rotated at 02:10 for the second time that night.
    rig.write("0.log.20261025-025500", line("02:40:00", "+02:00", "1"));
    rig.write("0.log.20261025-021000", line("02:55:00", "+02:00", "2"));
    gzip(&rig.folder().join("0.log.20261025-025500"));
    rig.write("0.log", line("02:10:00", "+01:00", "3"));
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
}

#[test]
fn a_tip_that_seemed_older_than_a_rotated_file_is_read_on_behind_that() {
    let at = |time: &str, text: &str| format!("2026-11-20T{time}Z stdout F {text}\n");
    // It is read before it has its name back, or after that.
    for room in [100, 0] {
        let mut rig = Rig::new();
        rig.core = None;
        rig.write(A, at("17:50:00", "1"));
        // The clock was set back, and kubelet takes the second renaming back after the folder was listed.
        let renamed = "0.log.20261120-165001";
        rig.write(renamed, at("16:50:00", "2"));
        rig.start();
        rig.core().sink().room = room;
        rig.turn();
        rename(&rig, renamed, "0.log");
        rig.run(1_000);
        rig.core().sink().room = 100;
        rig.run(3_000);
        rig.write("0.log", at("16:50:02", "3"));
        // Before the next listing.
        rig.run(2_000);
        assert_eq!(rig.lines(), ["2", "1", "3"]);
    }
}

#[test]
fn files_that_were_read_are_not_sent_again_when_the_last_one_is_gone() {
    let mut rig = Rig::new();
    let at = |second: u32, text: &str| format!("2026-11-20T17:50:{second:02}Z stdout F {text}\n");
    for (second, name) in [(1, A), (2, B), (3, C)] {
        rig.write(name, at(second, &second.to_string()));
    }
    rig.write("0.log", at(4, "4"));
    rig.run(5_000);
    rig.core = None;
    fs::remove_file(rig.folder().join("0.log")).unwrap();
    rig.write("0.log", at(6, "6"));
    rig.start();
    rig.run(5_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "6"]);
    assert_eq!(rig.core().figures().resets["position_lost"], 1);
}

#[test]
fn members_of_a_compressed_file_are_one_content() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2"]);
    rig.run(1_500);
    rig.log("0.log", &["3", "4"]);
    rig.core = None;
    let path = rig.folder().join("0.log");
    let whole = fs::read(&path).unwrap();
    // The first ends within what was read, the second within a line.
    let mut file = File::create(rig.folder().join(format!("{A}.gz"))).unwrap();
    for part in [
        &whole[..10],
        &whole[10..whole.len() - 7],
        &whole[whole.len() - 7..],
    ] {
        let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    fs::remove_file(path).unwrap();
    rig.log("0.log", &["5"]);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn leftovers_of_compressing_are_passed_over() {
    let mut rig = Rig::new();
    rig.log(A, &["1"]);
    let whole = cri("stdout", "F", "1");
    let half = whole.get(..20).unwrap();
    rig.write(&format!("{A}.tmp"), half);
    rig.write(&format!("{A}.gz.tmp"), "x");
    rig.log(B, &["2"]);
    gzip(&rig.folder().join(B));
    // Compressed, and the plain one not deleted yet.
    rig.log(B, &["2"]);
    rig.log("0.log", &["3"]);
    rig.run(3_000);
    fs::remove_file(rig.folder().join(B)).unwrap();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    rig.crash();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
}

#[test]
fn a_compressed_file_that_was_sent_is_not_sent_again() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(500);
    rename(&rig, "0.log", A);
    rig.log("0.log", &["2"]);
    rig.run(3_000);
    gzip(&rig.folder().join(A));
    rig.run(3_000);
    rig.crash();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2"]);
}

#[test]
fn a_file_that_cannot_be_read_is_told_and_keeps_nobody_back() {
    let mut rig = Rig::new();
    rig.core = None;
    // Reads of this file fail, as those of a bad disk do.
    let own = format!("/proc/{}", std::process::id());
    let folder = rig.folder();
    std::os::unix::fs::symlink(Path::new(&own).join("mem"), folder.join("0.log")).unwrap();
    rig.links.push(own.into());
    rig.log("1.log", &["1"]);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1"]);
    let warnings = rig.core().figures().warnings;
    assert_eq!(warnings[0].reason, "LogFilesNotRead");
    fs::remove_file(folder.join("0.log")).unwrap();
    rig.run(11_000);
    assert!(rig.core().figures().warnings.is_empty());
}
