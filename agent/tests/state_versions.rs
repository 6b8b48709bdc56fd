//! A state folder as a version wrote it, in `data/state/<version>`: what it says is understood by this version.
//!
//! A folder is never replaced. When what is written changes, another one is added with the version's number:
//! `SLUICE_STATE_VERSION=0.2.0 cargo test --test state_versions -- --ignored` writes it, and what it says beyond the
//! older ones goes into `write` and, for that version and later ones, into `ledger`. What the older ones say stays as it
//! is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod files_rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use files_rig::{POD, Rig, cri};
use sluice_agent::checkpoint::journal::Journal;
use sluice_agent::checkpoint::ledger::{Counts, Entry, Ledger};
use sluice_agent::checkpoint::record::{
    Count, Flush, Identity, LabelChoice, Output, Record, StreamBound, Watermark,
};
use sluice_agent::spill::record::Head;
use sluice_agent::spill::store::Store;
use sluice_agent::tail::chain::Place;
use sluice_agent::tail::fingerprint::Fingerprint;
use sluice_agent::tail::position::{CursorId, Resume};
use sluice_engine::cri::Timestamp;
use sluice_engine::key::Key;
use sluice_engine::report::{Gap, GapCause};

fn states() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/state")
}

fn log() -> String {
    ["1", "2", "3"].map(|line| cri("stdout", "F", line)).concat()
}

/// Hashes are as they were: one that is made otherwise finds no file of the version before.
fn log_print() -> Fingerprint {
    Fingerprint {
        hash: 0x31ec_0ef7_0d82_c62b_4e92_3e66_2743_f2b1,
        len: 102,
    }
}

fn other_print() -> Fingerprint {
    Fingerprint {
        hash: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        len: 1024,
    }
}

/// The second line of the copied file, which was acknowledged up to there.
fn in_copy() -> Watermark {
    Watermark {
        place: Place {
            restart: 0,
            print: log_print(),
            offset: 34,
        },
        before: Fingerprint::default(),
        previous: Some(second(1)),
        resume: None,
    }
}

fn in_other() -> Watermark {
    Watermark {
        place: other_place(9_000_000_000),
        before: log_print(),
        previous: None,
        resume: Some(Resume {
            slot: 1,
            part: 7,
            timestamp: second(2),
        }),
    }
}

fn other_place(offset: u64) -> Place {
    Place {
        restart: 3,
        print: other_print(),
        offset,
    }
}

fn second(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 5 }
}

fn identity(folder: &str, pipeline: &str) -> Identity {
    Identity {
        folder: folder.into(),
        container: "c".into(),
        pipeline: pipeline.into(),
        tenant: "logging/t".into(),
    }
}

fn output(pipeline: &str) -> Output {
    Output {
        pipeline: pipeline.into(),
        tenant: "logging/t".into(),
    }
}

fn choice(from: Option<Place>, rules: &str) -> LabelChoice {
    LabelChoice {
        from,
        rules: rules.into(),
        chosen: format!(r#"{{"labels":"{{app=\"{rules}\"}}"}}"#),
    }
}

fn left() -> Vec<Place> {
    let log = Place {
        restart: 0,
        print: log_print(),
        offset: u64::MAX,
    };
    vec![other_place(5), log]
}

fn flush(offset: u64) -> Flush {
    Flush {
        place: other_place(offset),
        slot: 1,
    }
}

fn gap(cause: GapCause, after: Option<i64>) -> Gap {
    Gap {
        namespace: "a".into(),
        pod: "web-0".into(),
        container: "c".into(),
        cause,
        after,
        before: Some(8),
        noticed: 9,
    }
}

fn head() -> Head {
    Head {
        folder: POD.into(),
        container: "c".into(),
        restart: 0,
        base: 0,
        modified: Some(1_795_197_001),
        begin: log().into_bytes(),
        outputs: vec![output("uid-p")],
        next: b"what follows".to_vec(),
    }
}

/// Writes all that a state folder can say, by this version's means.
fn write(state: &Path) {
    let mut journal = Journal::open(state).unwrap();
    let bound = |labels: &str, seconds| {
        Record::Bound(StreamBound {
            tenant: "logging/t".into(),
            labels: labels.into(),
            seconds,
        })
    };
    let (first, gone, third) = (CursorId(0), CursorId(1), CursorId(2));
    let rejected = |lines| Count::Rejected {
        reason: "line_too_long".into(),
        lines,
    };
    let lost = Count::Lost {
        reason: "no_space".into(),
        lines: 3,
        bytes: 4_000,
    };
    let records = [
        Record::Epoch(77),
        Record::PipelineSeen("uid-p".into()),
        Record::PipelineSeen("uid-q".into()),
        Record::Defined(first, identity(POD, "uid-p")),
        Record::Acknowledged(first, in_copy()),
        Record::Defined(third, identity("a_other_uid-2", "uid-q")),
        Record::Chosen(third, choice(None, "one")),
        Record::Chosen(third, choice(Some(other_place(1)), "two")),
        Record::Flushed(third, flush(2)),
        Record::Flushed(third, flush(3)),
        Record::Pruned(third, 1, 1),
        Record::Left(third, vec![other_place(4)]),
        Record::Left(third, left()),
        Record::Acknowledged(third, in_other()),
        Record::Behind(third, true),
        Record::UnderWay(third, Some(second(3))),
        Record::Defined(gone, identity("a_gone_uid-3", "uid-p")),
        Record::Dropped(gone),
        Record::Counted(output("uid-p"), rejected(2)),
        Record::Counted(output("uid-p"), rejected(3)),
        Record::Counted(output("uid-p"), lost),
        Record::Counted(output("uid-p"), Count::Gaps(6)),
        Record::Gap(output("uid-p"), gap(GapCause::PodDeleted, None)),
        Record::Gap(output("uid-p"), gap(GapCause::FileUnreadable, Some(7))),
        Record::Counted(output("uid-r"), rejected(1)),
        Record::Uncounted("uid-r".into()),
        bound("{app=\"one\"}", Some(1_795_197_001)),
        bound("{app=\"two\"}", Some(-1)),
        bound("{app=\"two\"}", None),
    ];
    for record in &records {
        journal.append(record);
    }
    journal.sync();
    let mut writer = Store::open(state).unwrap().0.begin(head()).unwrap();
    for part in log().as_bytes().chunks(50) {
        writer.append(part).unwrap();
    }
    drop(writer.finish(true).unwrap());
}

/// What a version's journal says.
fn ledger(version: &str) -> Ledger {
    let first = Entry {
        identity: identity(POD, "uid-p"),
        choices: Vec::new(),
        watermark: Some(in_copy()),
        left: None,
        flushes: Vec::new(),
        behind: false,
        under_way: None,
    };
    let third = Entry {
        identity: identity("a_other_uid-2", "uid-q"),
        choices: vec![choice(Some(other_place(1)), "two")],
        watermark: Some(in_other()),
        left: (version != "0.1.0").then(left),
        flushes: vec![flush(3)],
        behind: true,
        under_way: Some(second(3)),
    };
    let counts = Counts {
        rejected: BTreeMap::from([("line_too_long".into(), 5)]),
        lost: BTreeMap::from([("no_space".into(), (3, 4_000))]),
        gap_count: 8,
        gaps: [
            gap(GapCause::PodDeleted, None),
            gap(GapCause::FileUnreadable, Some(7)),
        ]
        .into(),
    };
    let bounds = BTreeMap::from([("{app=\"one\"}".into(), 1_795_197_001)]);
    Ledger {
        cursors: BTreeMap::from([(CursorId(0), first), (CursorId(2), third)]),
        pipelines: BTreeSet::from(["uid-p".into(), "uid-q".into()]),
        epoch: 77,
        counts: BTreeMap::from([(output("uid-p"), counts)]),
        bounds: BTreeMap::from([("logging/t".into(), bounds)]),
        next: 3,
    }
}

fn check(version: &str, state: &Path) {
    let journal = Journal::open(state).unwrap();
    assert_eq!(*journal.ledger(), ledger(version), "{version}");
    assert_eq!(
        (&journal.set_aside, &journal.failure),
        (&None, &None),
        "{version}"
    );

    let (store, found) = Store::open(state).unwrap();
    assert_eq!((store.damaged, found.len()), (0, 1), "{version}");
    let copy = &found[0];
    assert_eq!(*copy.head(), head(), "{version}");
    let mut read = vec![0; 1_000];
    let len = copy.read_at(0, &mut read).unwrap();
    assert_eq!(std::str::from_utf8(&read[..len]).unwrap(), log(), "{version}");
    assert!(copy.end() == 102 && !copy.is_damaged(), "{version}");
}

/// What an agent sends that finds this state, and no file.
fn sent(state: &Path) -> Vec<String> {
    let mut rig = Rig::new();
    rig.core = None;
    let own = rig.dir.path().join("state");
    fs::remove_dir_all(&own).unwrap();
    copy(state, &own);
    rig.start();
    rig.run(3_000);
    let gaps =
        rig.core().figures().pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")].gap_count;
    // What followed the copy is gone.
    assert_eq!(gaps, 9);
    rig.lines().into_iter().map(str::to_owned).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("spill")).unwrap();
    for file in ["journal", "spill/0000000000000001"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[test]
fn what_each_version_wrote_is_understood() {
    let mut versions = Vec::new();
    for entry in fs::read_dir(states()).unwrap() {
        let entry = entry.unwrap();
        let version = entry.file_name().into_string().unwrap();
        let dir = tempfile::tempdir().unwrap();
        copy(&entry.path(), dir.path());
        check(&version, dir.path());
        // Written anew by this version it says the same.
        check(&version, dir.path());
        assert_eq!(sent(&entry.path()), ["2", "3"], "{version}");
        versions.push(version);
    }
    versions.sort();
    assert_eq!(versions, ["0.1.0", "0.1.0-2"]);
}

#[test]
fn what_is_written_now_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    check("now", dir.path());
}

#[test]
#[ignore = "writes a version's files, see above"]
fn write_a_versions_files() {
    let version = std::env::var("SLUICE_STATE_VERSION").unwrap();
    let (dir, to) = (tempfile::tempdir().unwrap(), states().join(version));
    assert!(!to.exists(), "a version's files are never replaced");
    write(dir.path());
    copy(dir.path(), &to);
}
