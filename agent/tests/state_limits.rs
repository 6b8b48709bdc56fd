//! The state folder where descriptors run out: copies stay as good as they are, positions go on being written, and
//! nothing has to be mended by hand.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod files_rig;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use files_rig::{FakeSink, POD, Rig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice_agent::checkpoint::journal::{Journal, StartError};
use sluice_agent::checkpoint::ledger::Ledger;
use sluice_agent::checkpoint::record::{End, Record};
use sluice_agent::spill::record::Head;
use sluice_agent::spill::store::Store;
use sluice_agent::worker::Core;
use sluice_engine::key::Key;

/// Limits hold for the whole process: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

/// The process may open no more than it has, until this is dropped.
struct Scarce {
    ballast: Vec<File>,
    before: Rlimit,
    _one: MutexGuard<'static, ()>,
}

impl Scarce {
    fn limited(current: u64) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = getrlimit(Resource::Nofile);
        let limit = Rlimit {
            current: Some(current),
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, limit).unwrap();
        Self {
            ballast: Vec::new(),
            before,
            _one: one,
        }
    }

    fn exhaust(&mut self, spare: usize) {
        while let Ok(file) = File::open("/dev/null") {
            self.ballast.push(file);
        }
        self.ballast.truncate(self.ballast.len() - spare);
    }

    fn relieve(&mut self) {
        self.ballast.clear();
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        self.ballast.clear();
        setrlimit(Resource::Nofile, self.before).unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn gaps(rig: &mut Rig) -> u64 {
    let figures = rig.core().figures();
    figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")].gap_count
}

/// A container whose files are all copied and gone, each with one line; the agent is down.
fn copied(rotations: usize) -> (Rig, Vec<String>) {
    let mut rig = Rig::new();
    let lines: Vec<String> = (0..rotations).map(|n| n.to_string()).collect();
    rig.core().sink().window = 0;
    rig.write("0.log", "");
    hold(&mut rig, 1_500);
    for line in &lines {
        rig.log("0.log", &[line]);
        let rotated = rig.folder().join(format!("0.log.20261120-{line:0>6}"));
        fs::rename(rig.folder().join("0.log"), &rotated).unwrap();
        rig.write("0.log", "");
        hold(&mut rig, 300);
        fs::remove_file(rotated).unwrap();
        hold(&mut rig, 300);
    }
    fs::remove_dir_all(rig.dir.path().join("pods").join(POD)).unwrap();
    hold(&mut rig, 1_500);
    assert_eq!(names(&spill(&rig)).len(), rotations);
    rig.core = None;
    rig.under_way.clear();
    (rig, lines)
}

fn spill(rig: &Rig) -> PathBuf {
    rig.dir.path().join("state/spill")
}

/// Turns without any acknowledgement.
fn hold(rig: &mut Rig, millis: u64) {
    for _ in 0..=millis / 100 {
        rig.turn();
        rig.now += std::time::Duration::from_millis(100);
    }
}

#[test]
fn more_copies_than_descriptors_are_all_sent_in_order() {
    let _scarce = Scarce::limited(64);
    let (mut rig, lines) = copied(100);
    rig.start();
    hold(&mut rig, 2_000);
    assert_eq!(names(&spill(&rig)).len(), 100);
    rig.run(6_000);
    assert_eq!(rig.lines(), lines);
    assert_eq!((gaps(&mut rig), names(&spill(&rig)).len()), (0, 0));
}

#[test]
fn a_copy_waits_for_as_long_as_there_is_no_descriptor_to_read_it_with() {
    let mut scarce = Scarce::limited(96);
    let (mut rig, lines) = copied(3);
    rig.start();
    rig.core().sink().window = 0;
    hold(&mut rig, 2_000);
    scarce.exhaust(0);
    rig.core().sink().window = 9;
    // Longer than an idle file is looked at, and than one is tried that cannot be read.
    rig.run(60_000);
    assert_eq!(rig.lines(), [""; 0]);
    scarce.relieve();
    rig.run(2_000);
    assert_eq!(rig.lines(), lines);
    assert_eq!(gaps(&mut rig), 0);
}

#[test]
fn an_agent_that_cannot_read_its_state_for_want_of_descriptors_begins_with_all_of_it_later() {
    let mut scarce = Scarce::limited(96);
    let (mut rig, lines) = copied(3);
    let state = rig.dir.path().join("state");
    let (copies, journal) = (names(&spill(&rig)), fs::read(state.join("journal")).unwrap());
    let mut refused = 0;
    for spare in 0..12 {
        scarce.exhaust(spare);
        let started = Core::new(rig.settings(), FakeSink::default());
        refused += u32::from(started.is_err());
        if let Ok(core) = started {
            assert_eq!(core.figures().resets, BTreeMap::new(), "{spare} spare");
        }
        scarce.relieve();
        assert_eq!(names(&spill(&rig)), copies, "{spare} spare");
        assert_eq!(fs::read(state.join("journal")).unwrap(), journal, "{spare} spare");
        assert_eq!(names(&state), ["journal", "lock", "spill"], "{spare} spare");
    }
    assert!((1..12).contains(&refused), "{refused}");
    rig.start();
    rig.run(3_000);
    assert_eq!(rig.lines(), lines);
    assert_eq!(gaps(&mut rig), 0);
}

#[test]
fn a_copy_that_cannot_be_finished_leaves_nothing() {
    let mut scarce = Scarce::limited(96);
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Store::open(dir.path()).unwrap().0.begin(Head::default()).unwrap();
    writer.append(b"x").unwrap();
    scarce.exhaust(0);
    let finished = writer.finish(true);
    scarce.relieve();
    assert!(finished.is_err());
    assert_eq!(names(&dir.path().join("spill")), [""; 0]);
}

fn seen(uid: usize) -> Record {
    Record::PipelineSeen(uid.to_string())
}

fn pipelines(dir: &Path) -> usize {
    let (ledger, end) = Ledger::decode(&fs::read(dir.join("journal")).unwrap());
    assert_eq!(end, End::Clean);
    ledger.pipelines.len()
}

#[test]
fn a_journal_that_cannot_be_shortened_is_written_on_and_shortened_later() {
    let mut scarce = Scarce::limited(96);
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    scarce.exhaust(0);
    for round in 1..=3 {
        for _ in 0..40_000 {
            journal.append(&seen(0));
        }
        journal.append(&seen(round));
        journal.sync();
        assert_eq!(journal.failure, None);
    }
    scarce.relieve();
    assert_eq!(pipelines(dir.path()), 4, "on disk though no descriptor was left");
    let len = || fs::metadata(dir.path().join("journal")).unwrap().len();
    assert!(len() > 1_000_000, "{}", len());
    for _ in 0..40_000 {
        journal.append(&seen(0));
    }
    journal.sync();
    assert!(len() < 1_000, "{}", len());
    assert_eq!(pipelines(dir.path()), 4);
}

#[test]
fn a_journal_that_no_descriptor_is_left_to_read_is_not_a_damaged_one() {
    let mut scarce = Scarce::limited(96);
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.append(&seen(0));
    journal.sync();
    drop(journal);
    // For the lock.
    scarce.exhaust(1);
    let refused = Journal::open(dir.path());
    assert!(matches!(refused, Err(StartError::Unusable(..))), "{refused:?}");
    scarce.relieve();
    let journal = Journal::open(dir.path()).unwrap();
    assert_eq!((journal.ledger().pipelines.len(), &journal.set_aside), (1, &None));
}

#[test]
fn positions_are_written_though_no_descriptor_is_left() {
    let mut scarce = Scarce::limited(96);
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1_000);
    // Written with the last descriptor, which is gone then.
    scarce.exhaust(1);
    rig.log("0.log", &["2"]);
    scarce.exhaust(0);
    rig.run(3_000);
    assert_eq!(rig.lines(), ["1", "2"]);
    rig.core = None;
    scarce.relieve();
    rig.crash();
    rig.log("0.log", &["3"]);
    rig.run(2_000);
    assert_eq!(rig.lines(), ["1", "2", "3"]);
}

#[test]
fn a_journal_that_has_to_be_written_anew_is_once_there_is_a_descriptor() {
    let mut scarce = Scarce::limited(96);
    let dir = tempfile::tempdir().unwrap();
    // It could not be written at the start.
    fs::create_dir(dir.path().join("journal.new")).unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    assert!(journal.failure.is_some());
    fs::remove_dir(dir.path().join("journal.new")).unwrap();
    scarce.exhaust(0);
    for uid in 0..3 {
        journal.append(&seen(uid));
        journal.sync();
        assert!(journal.failure.is_some());
    }
    scarce.relieve();
    journal.sync();
    assert_eq!(journal.failure, None);
    assert_eq!(pipelines(dir.path()), 3);
}
