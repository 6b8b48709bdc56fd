//! What vanished unread is told: which container, after and before which line, and why.
use std::fs;

use crate::files_rig::{POD, Rig, cri, gzip};
use sluice_agent::status::figures::OutputFigures;
use sluice_engine::key::Key;
use sluice_engine::report::{Gap, GapCause};

const SECOND: i64 = 1_000_000_000;
/// 2026-11-20T17:50:00Z.
const BEGIN: i64 = 1_795_197_000;

/// A line written so many seconds after the hour's fiftieth minute began.
fn line(second: u32, text: &str) -> String {
    format!("2026-11-20T17:50:{second:02}Z stdout F {text}\n")
}

#[expect(clippy::unnecessary_wraps, reason = "as a gap has it")]
fn at(second: i64) -> Option<i64> {
    Some((BEGIN + second) * SECOND)
}

fn output(rig: &mut Rig) -> OutputFigures {
    let figures = rig.core().figures();
    assert_ne!(figures.epoch, 0);
    figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")].clone()
}

fn gaps(rig: &mut Rig) -> Vec<(GapCause, Option<i64>, Option<i64>)> {
    let output = output(rig);
    assert_eq!(output.gap_count, output.gaps.len() as u64);
    let whose = |gap: &Gap| (gap.namespace.clone(), gap.pod.clone(), gap.container.clone());
    assert!(
        output
            .gaps
            .iter()
            .all(|gap| whose(gap) == ("a".into(), "web-0".into(), "c".into()))
    );
    output
        .gaps
        .iter()
        .map(|gap| (gap.cause, gap.after, gap.before))
        .collect()
}

/// The agent dies, `meanwhile` happens, and it starts again.
fn while_down(rig: &mut Rig, meanwhile: impl FnOnce(&Rig)) {
    rig.core = None;
    rig.under_way.clear();
    meanwhile(rig);
    rig.start();
    rig.run(3_000);
}

#[test]
fn files_deleted_while_the_agent_was_down_are_a_gap_between_two_timestamps() {
    let mut rig = Rig::new();
    rig.write("0.log", line(1, "1") + &line(2, "2"));
    rig.run(2_000);
    while_down(&mut rig, |rig| {
        rig.write("0.log", line(3, "3"));
        let folder = rig.folder();
        fs::remove_file(folder.join("0.log")).unwrap();
        rig.write("0.log.20261120-175010", line(9, "9"));
        gzip(&folder.join("0.log.20261120-175010"));
        rig.write("0.log", line(10, "10"));
    });
    assert_eq!(rig.lines(), ["1", "2", "9", "10"]);
    let expected = [(GapCause::FilesDeleted, at(2), at(9))];
    assert_eq!(gaps(&mut rig), expected);
    // It is told once, and is still known after a restart.
    while_down(&mut rig, |_| ());
    assert_eq!(gaps(&mut rig), expected);
}

#[test]
fn a_gap_is_told_at_once_and_once_though_the_agent_dies_before_it_is_journaled_what_follows() {
    let mut rig = Rig::new();
    rig.write("0.log", line(1, "1"));
    rig.run(2_000);
    while_down(&mut rig, |rig| {
        fs::remove_file(rig.folder().join("0.log")).unwrap();
        rig.write("0.log", "");
    });
    assert_eq!(gaps(&mut rig), [(GapCause::FilesDeleted, at(1), None)]);
    while_down(&mut rig, |rig| rig.write("0.log", line(5, "5")));
    assert_eq!(gaps(&mut rig), [(GapCause::FilesDeleted, at(1), at(5))]);
    // The line behind it was read and the gap journaled, but no acknowledgement came.
    while_down(&mut rig, |rig| {
        fs::remove_file(rig.folder().join("0.log")).unwrap();
        rig.write("0.log", line(8, "8"));
    });
    assert_eq!(gaps(&mut rig)[0], (GapCause::FilesDeleted, at(5), at(8)));
    assert_eq!(rig.lines(), ["1", "5", "8"]);
}

#[test]
fn a_pod_deleted_while_the_agent_was_down_is_a_gap_with_what_can_be_said() {
    let mut rig = Rig::new();
    rig.write("0.log", line(1, "1"));
    rig.run(2_000);
    let delete = |rig: &Rig| fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    while_down(&mut rig, delete);
    assert_eq!(gaps(&mut rig), [(GapCause::PodDeletedMeanwhile, at(1), None)]);

    // Another one: of its lines some were read and not acknowledged.
    rig.write("0.log", line(1, "1") + &line(2, "2"));
    rig.run(2_000);
    rig.write("0.log", line(3, "3"));
    for _ in 0..20 {
        rig.turn();
        rig.now += std::time::Duration::from_millis(100);
    }
    while_down(&mut rig, delete);
    assert_eq!(gaps(&mut rig)[0], (GapCause::PodDeleted, at(2), None));

    // One that never wrote a line has nothing to miss.
    rig.write("0.log", "");
    rig.run(2_000);
    while_down(&mut rig, delete);
    assert_eq!(gaps(&mut rig).len(), 2);
}

#[test]
fn a_file_cut_under_the_reader_is_a_gap_for_every_output() {
    let config = crate::files_rig::in_force(
        vec![crate::files_rig::pipeline("p", &["t", "u"])],
        vec![
            crate::files_rig::tenant("t", 4096),
            crate::files_rig::tenant("u", 4096),
        ],
    );
    let mut rig = Rig::with(config);
    rig.write("0.log", line(1, "1") + &line(2, "2"));
    rig.run(2_000);
    fs::write(rig.folder().join("0.log"), line(7, "7")).unwrap();
    rig.run(2_000);
    let figures = rig.core().figures();
    let outputs = &figures.pipelines[&Key::new("a", "p")].outputs;
    assert_eq!(outputs.len(), 2);
    for output in outputs.values() {
        let told: Vec<_> = output
            .gaps
            .iter()
            .map(|gap| (gap.cause, gap.after, gap.before))
            .collect();
        assert_eq!(told, [(GapCause::FileRewritten, at(2), at(7))]);
    }
}

/// The runtime does not sync what it writes.
#[test]
fn a_file_that_lost_its_end_in_a_power_cut_is_read_again_and_told() {
    let first = "1".repeat(2_000);
    let mut rig = Rig::new();
    rig.write("0.log", line(1, &first) + &line(2, "2") + &line(3, "3"));
    rig.run(2_000);
    while_down(&mut rig, |rig| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(rig.folder().join("0.log"));
        // Of the second line not all is left.
        let left = line(1, &first).len() + "2026-11-20T17".len();
        file.unwrap().set_len(left as u64).unwrap();
        rig.write("1.log", line(9, "9"));
    });
    assert_eq!(rig.lines(), [&first, "2", "3", &first, "2026-11-20T17", "9"]);
    assert_eq!(gaps(&mut rig), [(GapCause::FileRewritten, at(3), at(1))]);
}

#[test]
fn a_damaged_journal_is_a_gap_of_unknown_beginning_and_a_warning() {
    let mut rig = Rig::new();
    rig.write("0.log", line(1, "1"));
    rig.run(2_000);
    while_down(&mut rig, |rig| {
        let path = rig.dir.path().join("state/journal");
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, bytes).unwrap();
        rig.write("0.log", line(2, "2"));
    });
    assert_eq!(
        rig.lines(),
        ["1", "1", "2"],
        "what is on disk is sent from its beginning"
    );
    assert_eq!(gaps(&mut rig), [(GapCause::CheckpointDamaged, None, at(1))]);
    let warnings = rig.core().figures().warnings;
    assert!(warnings.iter().any(
        |warning| warning.reason == "CheckpointDamaged" && warning.message.contains("journal.corrupt-1")
    ));
    // A container that begins later has no such gap.
    let folder = rig.dir.path().join("pods/a_other-1_uid-2/c");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0.log"), line(3, "3")).unwrap();
    rig.run(2_000);
    assert_eq!(gaps(&mut rig).len(), 1);
}

#[test]
fn many_gaps_are_counted_and_the_newest_ten_told() {
    let mut rig = Rig::new();
    rig.write("0.log", line(0, "0"));
    rig.run(2_000);
    for second in 1..=12 {
        while_down(&mut rig, |rig| {
            fs::remove_file(rig.folder().join("0.log")).unwrap();
            rig.write("0.log", line(second, "x"));
        });
    }
    let output = output(&mut rig);
    assert_eq!(output.gap_count, 12);
    let ends: Vec<_> = output.gaps.iter().map(|gap| gap.before).collect();
    assert_eq!(ends, (3..=12).rev().map(at).collect::<Vec<_>>());
}

#[test]
fn a_deleted_pipelines_counts_are_forgotten() {
    let mut rig = Rig::new();
    rig.write("0.log", cri("stdout", "F", "1"));
    rig.run(2_000);
    while_down(&mut rig, |rig| {
        fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    });
    assert_eq!(gaps(&mut rig).len(), 1);
    let config = rig.config.clone();
    rig.apply(crate::files_rig::in_force(
        Vec::new(),
        vec![crate::files_rig::tenant("t", 4096)],
    ));
    rig.run(2_000);
    rig.apply(config);
    rig.run(2_000);
    assert_eq!(gaps(&mut rig).len(), 0);
}

#[test]
fn a_damaged_file_is_a_gap_up_to_the_next_ones_first_line() {
    let mut rig = Rig::new();
    rig.write("0.log", line(1, "1"));
    rig.run(2_000);
    while_down(&mut rig, |rig| {
        for n in 0..20_000_u64 {
            let text = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            rig.write("0.log", line(2, &text.to_string()));
        }
        let rotated = rig.folder().join("0.log.20261120-175003");
        fs::rename(rig.folder().join("0.log"), &rotated).unwrap();
        gzip(&rotated);
        let compressed = rig.folder().join("0.log.20261120-175003.gz");
        let mut bytes = fs::read(&compressed).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(&compressed, bytes).unwrap();
        rig.write("0.log", line(9, "9"));
    });
    assert_eq!(rig.lines().last(), Some(&"9"));
    assert_eq!(gaps(&mut rig), [(GapCause::FileUnreadable, at(2), at(9))]);
}
