//! Files that vanish before Loki has taken them, and an agent that dies meanwhile.
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::files_rig::{POD, Rig, cri, gzip};
use sluice_agent::status::figures::OutputFigures;
use sluice_engine::key::Key;
use sluice_engine::report::GapCause;

pub(super) fn output(rig: &mut Rig) -> OutputFigures {
    output_of(rig, "t")
}

pub(super) fn output_of(rig: &mut Rig, tenant: &str) -> OutputFigures {
    rig.core().figures().pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", tenant)].clone()
}

pub(super) fn copies(rig: &Rig) -> usize {
    fs::read_dir(rig.dir.path().join("state/spill")).map_or(0, Iterator::count)
}

/// Turns without any acknowledgement.
pub(super) fn hold(rig: &mut Rig, millis: u64) {
    for _ in 0..=millis / 100 {
        rig.turn();
        rig.now += Duration::from_millis(100);
    }
}

pub(super) fn die(rig: &mut Rig) {
    rig.core = None;
    rig.under_way.clear();
}

/// The container writes `lines` into a file that is rotated away at once.
pub(super) fn rotate(rig: &Rig, second: u32, lines: &[&str]) -> PathBuf {
    rig.log("0.log", lines);
    let rotated = rig.folder().join(format!("0.log.20261120-1750{second:02}"));
    fs::rename(rig.folder().join("0.log"), &rotated).unwrap();
    rotated
}

#[test]
fn a_file_that_loses_its_last_name_is_copied_and_outlives_a_crash() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1_500);
    rig.log("0.log", &["2"]);
    let rotated = rotate(&rig, 1, &["3"]);
    rig.log("0.log", &["4"]);
    hold(&mut rig, 2_500);
    assert_eq!(copies(&rig), 0);
    fs::remove_file(rotated).unwrap();
    hold(&mut rig, 100);
    assert_eq!(copies(&rig), 1, "at once");
    assert!(rig.core().figures().spilled_bytes > 0);
    assert_eq!(rig.core().figures().open_files, 1, "nothing is pinned any more");

    for _ in 0..3 {
        die(&mut rig);
        rig.start();
        hold(&mut rig, 1_500);
        assert_eq!(copies(&rig), 1);
    }
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4"]);
    assert_eq!(copies(&rig), 0, "what is acknowledged is not kept");
    die(&mut rig);
    rig.start();
    rig.run(2_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "4"]);
    let output = output(&mut rig);
    assert_eq!((output.gap_count, output.lost.len()), (0, 0));
}

#[test]
fn many_files_are_replayed_in_order_before_newer_lines() {
    let mut rig = Rig::new();
    let mut expected = Vec::new();
    for round in 0..30_u32 {
        let lines: Vec<String> = (0..20).map(|n| format!("{round}-{n}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        expected.extend(lines.iter().map(|line| (*line).to_owned()));
        let rotated = rotate(&rig, round, &lines);
        rig.log("0.log", &[]);
        rig.write("0.log", "");
        if round % 3 == 0 {
            gzip(&rotated);
        }
        hold(&mut rig, 300);
        if round > 4 {
            let old = format!("0.log.20261120-1750{:02}", round - 4);
            let _plain = fs::remove_file(rig.folder().join(&old));
            let _gz = fs::remove_file(rig.folder().join(format!("{old}.gz")));
        }
        hold(&mut rig, 300);
        if round % 7 == 6 {
            hold(&mut rig, 1_500);
            die(&mut rig);
            rig.start();
        }
    }
    assert!(copies(&rig) > 15, "{}", copies(&rig));
    rig.run(6_000);
    assert_eq!(rig.lines(), expected);
    rig.log("0.log", &["last"]);
    rig.run(3_000);
    assert_eq!(copies(&rig), 0);
    assert_eq!(output(&mut rig).gap_count, 0);
}

#[test]
fn a_deleted_pod_is_sent_by_the_next_process() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2"]);
    hold(&mut rig, 500);
    rig.write("0.log", cri("stdout", "P", "an unfinished"));
    rig.write("0.log", cri("stderr", "F", "error"));
    hold(&mut rig, 500);
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    hold(&mut rig, 300);
    assert_eq!(copies(&rig), 1);
    die(&mut rig);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "error", "an unfinished"]);
    assert_eq!(copies(&rig), 0);
    let output = output(&mut rig);
    assert_eq!((output.gap_count, output.lost.len()), (0, 0));
}

#[test]
fn the_oldest_compressed_file_is_copied_while_its_tenant_is_stuck() {
    let mut rig = Rig::new();
    let first = rotate(&rig, 1, &["1"]);
    let second = rotate(&rig, 2, &["2"]);
    rig.log("0.log", &["3"]);
    gzip(&first);
    hold(&mut rig, 1_000);
    assert_eq!(copies(&rig), 0, "a tenant that is a moment late is not stuck");
    hold(&mut rig, 3_000);
    assert_eq!(copies(&rig), 1);
    // kubelet deletes it while the agent is down: the copy is all there is.
    die(&mut rig);
    fs::remove_file(first.with_extension("20261120-175001.gz")).unwrap();
    gzip(&second);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    assert_eq!(output(&mut rig).gap_count, 0);
}

#[test]
fn what_an_earlier_restart_left_keeps_no_file_of_this_one_from_being_copied() {
    let mut rig = Rig::new();
    rig.log("0.log", &["0"]);
    rig.run(1_500);
    // kubelet keeps what the dead container wrote, and rotates the living one's file.
    let mut rotated = Vec::new();
    for (second, line) in [(1, "1"), (2, "2")] {
        rig.log("1.log", &[line]);
        let to = rig.folder().join(format!("1.log.20261120-17500{second}"));
        fs::rename(rig.folder().join("1.log"), &to).unwrap();
        rotated.push(to);
    }
    rig.log("1.log", &["3"]);
    gzip(&rotated[0]);
    hold(&mut rig, 4_000);
    assert_eq!(copies(&rig), 1);
    die(&mut rig);
    fs::remove_file(rotated[0].with_extension("20261120-175001.gz")).unwrap();
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["0", "1", "2", "3"]);
    assert_eq!(output(&mut rig).gap_count, 0);
}

#[test]
fn what_a_dead_container_wrote_is_copied_before_the_next_one_dies() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.log("1.log", &["2"]);
    hold(&mut rig, 1_000);
    assert_eq!(copies(&rig), 0, "a tenant that is a moment late is not stuck");
    hold(&mut rig, 3_000);
    assert_eq!(copies(&rig), 1);
    die(&mut rig);
    fs::remove_file(rig.folder().join("0.log")).unwrap();
    rig.log("2.log", &["3"]);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    assert_eq!(output(&mut rig).gap_count, 0);
}

#[test]
fn a_dead_containers_file_is_copied_though_the_next_one_wrote_nothing_yet() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    hold(&mut rig, 500);
    fs::write(rig.folder().join("1.log"), "").unwrap();
    hold(&mut rig, 500);
    fs::remove_file(rig.folder().join("0.log")).unwrap();
    hold(&mut rig, 500);
    assert_eq!(copies(&rig), 1);
    die(&mut rig);
    rig.start();
    rig.log("1.log", &["2"]);
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2"]);
    assert_eq!(output(&mut rig).gap_count, 0);
}

#[test]
fn lines_that_their_stream_has_no_room_for_are_copied_for_each_output() {
    for tenants in [&["t"][..], &["t", "u"]] {
        let config = crate::files_rig::in_force(
            vec![crate::files_rig::pipeline("p", tenants)],
            tenants
                .iter()
                .map(|name| crate::files_rig::tenant(name, 4096))
                .collect(),
        );
        let mut rig = Rig::with(config);
        rig.log("0.log", &["1"]);
        rig.run(1_500);
        // A replica of the same labels has filled the stream of one tenant; the other one's flows, with a request under way.
        rig.core().sink().full = vec![Key::new("logging", "t")];
        rig.log("0.log", &["2", "3"]);
        rig.run(2_000);
        rig.log("0.log", &["4"]);
        hold(&mut rig, 1_500);
        fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
        hold(&mut rig, 500);
        assert_eq!(copies(&rig), 1, "{tenants:?}");
        rig.core().sink().full.clear();
        if tenants.len() == 1 {
            die(&mut rig);
            rig.start();
        }
        rig.run(3_000);
        for tenant in tenants {
            assert_eq!(rig.lines_of(tenant), ["1", "2", "3", "4"], "{tenant}");
        }
    }
}

#[test]
fn the_oldest_compressed_file_is_copied_while_one_stream_of_a_tenant_is_stuck() {
    let mut rig = Rig::new();
    let first = rotate(&rig, 1, &["1"]);
    rotate(&rig, 2, &["2"]);
    rig.log("0.log", &["3"]);
    gzip(&first);
    rig.turn();
    // Loki takes nothing of this stream, and the tenant's others flow.
    let held = std::mem::take(&mut rig.under_way);
    assert_eq!(held.len(), 1);
    let other = rig.dir.path().join("pods/a_other_uid-other/main");
    fs::create_dir_all(&other).unwrap();
    for second in 0..62_u32 {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(other.join("0.log"))
            .unwrap();
        file.write_all(cri("stdout", "F", &format!("other {second}")).as_bytes())
            .unwrap();
        rig.run(1_000);
        assert!(second > 50 || copies(&rig) == 0, "after {second} s");
    }
    assert_eq!(copies(&rig), 1);
}

#[test]
fn a_copy_whose_file_still_has_its_name_is_not_read_twice() {
    let mut rig = Rig::new();
    let first = rotate(&rig, 1, &["1", "2"]);
    rig.log("0.log", &["3"]);
    gzip(&first);
    hold(&mut rig, 4_000);
    assert_eq!(copies(&rig), 1);
    for _ in 0..2 {
        die(&mut rig);
        rig.start();
        hold(&mut rig, 2_500);
    }
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
    assert_eq!(copies(&rig), 0);
    die(&mut rig);
    rig.start();
    rig.run(2_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
}

#[test]
fn copies_are_deleted_with_the_pipeline_and_its_permission_and_never_sent() {
    for restart in [false, true] {
        let mut rig = Rig::new();
        rig.log("0.log", &["1"]);
        hold(&mut rig, 500);
        fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
        hold(&mut rig, 300);
        assert_eq!(copies(&rig), 1);
        let config = rig.config.clone();
        let without = crate::files_rig::in_force(Vec::new(), vec![crate::files_rig::tenant("t", 4096)]);
        if restart {
            die(&mut rig);
            rig.config = without;
            rig.start();
        } else {
            rig.under_way.clear();
            rig.apply(without);
        }
        rig.run(3_000);
        assert_eq!(copies(&rig), 0, "restart: {restart}");
        rig.apply(config);
        rig.run(3_000);
        assert_eq!(rig.lines(), [""; 0], "restart: {restart}");
    }
}

#[test]
fn before_the_first_document_nothing_is_thrown_away() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    hold(&mut rig, 500);
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    hold(&mut rig, 300);
    die(&mut rig);
    let config = std::mem::take(&mut rig.config);
    rig.start();
    rig.run(15_000);
    assert_eq!(copies(&rig), 1);
    rig.apply(config);
    rig.run(2_000);
    assert_eq!(rig.lines(), ["1"]);
}

#[test]
fn a_copy_outlives_a_damaged_journal() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2"]);
    hold(&mut rig, 500);
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    hold(&mut rig, 1_500);
    die(&mut rig);
    let path = rig.dir.path().join("state/journal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2"]);
    assert_eq!(copies(&rig), 0);
}

#[test]
fn a_damaged_file_of_which_a_copy_was_made_is_a_gap() {
    for (is_read, cause) in [(false, GapCause::SpillDamaged), (true, GapCause::FileUnreadable)] {
        let mut rig = Rig::new();
        rig.log("0.log", &["1"]);
        rig.run(1_500);
        die(&mut rig);
        let many: Vec<String> = (0..20_000_u64)
            .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_string())
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let rotated = rotate(&rig, 1, &many);
        gzip(&rotated);
        let compressed = rig.folder().join("0.log.20261120-175001.gz");
        let mut bytes = fs::read(&compressed).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(&compressed, bytes).unwrap();
        rig.log("0.log", &["last"]);
        rig.start();
        if !is_read {
            rig.core().sink().blocked.push(Key::new("logging", "t"));
        }
        hold(&mut rig, 4_000);
        assert_eq!(copies(&rig), 1);
        fs::remove_file(compressed).unwrap();
        hold(&mut rig, 1_500);
        assert_eq!(output(&mut rig).gaps.len(), usize::from(is_read));
        // Told once, though another process finds it again in the copy.
        die(&mut rig);
        rig.start();
        rig.run(4_000);
        let lines = rig.lines();
        assert_eq!((lines[1], lines[lines.len() - 1]), (many[0], "last"));
        assert!(lines.len() < many.len());
        let causes: Vec<_> = output(&mut rig).gaps.iter().map(|gap| gap.cause).collect();
        assert_eq!(causes, [cause]);
    }
}

#[test]
fn a_damaged_copy_is_a_gap() {
    let mut rig = Rig::new();
    let lines: Vec<String> = (0..6_000_u64).map(|n| format!("{n} {}", n * n * 7919)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let rotated = rotate(&rig, 1, &lines);
    rig.log("0.log", &["last"]);
    hold(&mut rig, 2_000);
    fs::remove_file(rotated).unwrap();
    hold(&mut rig, 500);
    die(&mut rig);
    let path = rig.dir.path().join("state/spill/0000000000000001");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    rig.start();
    rig.run(3_000);
    let sent = rig.lines();
    let (last, before) = sent.split_last().unwrap();
    assert_eq!(*last, "last");
    assert!(before.len() > 500 && before.len() < 5_000, "{}", before.len());
    // The line that the damage cut is what is left of it.
    assert_eq!(before[..before.len() - 1], lines[..before.len() - 1]);
    let output = output(&mut rig);
    assert_eq!(
        (output.gap_count, output.gaps[0].cause),
        (1, GapCause::SpillDamaged)
    );
}

#[test]
fn a_folder_that_comes_back_with_more_is_read_on() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1", "2"]);
    hold(&mut rig, 500);
    let (pods, away) = (rig.dir.path().join("pods").join(POD), rig.dir.path().join("away"));
    for restart in [false, true] {
        fs::rename(&pods, &away).unwrap();
        hold(&mut rig, 1_000);
        assert_eq!(copies(&rig), 1);
        if restart {
            die(&mut rig);
        }
        fs::rename(&away, &pods).unwrap();
        rig.log("0.log", &["3"]);
        if restart {
            rig.start();
        }
        hold(&mut rig, 1_000);
        assert_eq!(copies(&rig), 0, "the file has all of it");
    }
    rig.run(2_000);
    assert_eq!(rig.lines(), ["1", "2", "3", "3"]);
    assert_eq!(output(&mut rig).gap_count, 0);
}

#[test]
fn a_file_of_an_earlier_restart_that_outlives_a_copy_is_not_read_behind_it() {
    let mut rig = Rig::new();
    rig.log("0.log", &["0"]);
    rig.run(1_500);
    rig.log("1.log", &["1"]);
    fs::rename(
        rig.folder().join("1.log"),
        rig.folder().join("1.log.20261120-175001"),
    )
    .unwrap();
    rig.log("1.log", &["2"]);
    hold(&mut rig, 1_500);
    fs::remove_file(rig.folder().join("1.log.20261120-175001")).unwrap();
    hold(&mut rig, 1_500);
    assert_eq!(copies(&rig), 1);
    die(&mut rig);
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["0", "1", "2"]);
}

#[test]
fn files_that_vanish_behind_a_copy_while_the_agent_is_down_are_a_gap() {
    let mut rig = Rig::new();
    let first = rotate(&rig, 1, &["1"]);
    let second = rotate(&rig, 2, &["2"]);
    rig.log("0.log", &["3"]);
    hold(&mut rig, 1_000);
    fs::remove_file(first).unwrap();
    hold(&mut rig, 1_000);
    assert_eq!(copies(&rig), 1);
    die(&mut rig);
    fs::remove_file(second).unwrap();
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "3"]);
    let told: Vec<_> = output(&mut rig).gaps.iter().map(|gap| gap.cause).collect();
    assert_eq!(told, [GapCause::FilesDeleted]);
}
