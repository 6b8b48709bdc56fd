//! Many files and little room: who gets a turn, and what is read for it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod files_rig;
#[path = "support/noise.rs"]
mod noise;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;

use files_rig::{Rig, cri, gzip};
use sluice_engine::key::Key;

const FILES: usize = 20;
const LINE: usize = 1 << 10;
/// Lines of a file's turn, which is 256 KiB.
const TURN: usize = 256;

/// Files of so many lines of 1 KiB in containers of their own.
fn backlog(rig: &Rig, lines: usize) -> u64 {
    let mut bytes = 0;
    for file in 0..FILES {
        let folder = rig
            .dir
            .path()
            .join("pods")
            .join(format!("a_web-{file}_uid-{file}/c"));
        fs::create_dir_all(&folder).unwrap();
        let head = cri("stdout", "F", "").len();
        let all: String = (0..lines)
            .map(|n| cri("stdout", "F", &format!("{n:>width$}", width = LINE - head)))
            .collect();
        bytes += all.len() as u64;
        fs::write(folder.join("0.log"), all).unwrap();
    }
    bytes
}

/// Bytes and calls of this thread's reads; those of the other tests are not among them.
fn reads() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    let of = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap().trim().parse().unwrap()
    };
    (of("rchar:"), of("syscr:"))
}

fn lines_of_each(rig: &Rig) -> BTreeMap<&str, usize> {
    let mut of = BTreeMap::new();
    for sent in &rig.acked {
        *of.entry(sent.metadata.as_str()).or_default() += 1;
    }
    of
}

#[test]
fn a_full_pool_costs_no_reads_and_every_file_gets_its_turn() {
    let mut rig = Rig::new();
    rig.core().sink().room = 256;
    rig.core().sink().window = 2;
    let bytes = backlog(&rig, 1024);
    let (before, _) = reads();
    let mut turns = 0;
    while rig.acked.len() < FILES * 1024 {
        // Nothing is acknowledged for a while, as where a rate is kept.
        for _ in 0..5 {
            rig.turn();
            rig.now += std::time::Duration::from_millis(100);
        }
        rig.ack(1);
        turns += 1;
        assert!(turns < 1000);
        if rig.acked.len() >= 1024 * FILES / 2 && turns % 4 == 0 {
            let each = lines_of_each(&rig);
            assert_eq!(each.len(), FILES, "somebody got nothing: {each:?}");
            let (least, most) = (each.values().min().unwrap(), each.values().max().unwrap());
            assert!(most - least <= 512, "from {least} to {most} lines");
        }
    }
    let (after, _) = reads();
    let read = after - before;
    assert!(
        read < bytes * 9 / 4,
        "{read} bytes were read of files with {bytes}"
    );
    for lines in lines_of_each(&rig).values() {
        assert_eq!(*lines, 1024);
    }
}

/// Slow files beside the one that is never read to its end.
const SLOW: usize = 100;
/// Entries of a request.
const REQUEST: usize = 32;

#[test]
fn a_file_at_full_speed_does_not_starve_a_hundred_slow_ones() {
    const STEPS: usize = 300;
    let mut rig = Rig::new();
    rig.core().sink().room = REQUEST;
    rig.core().sink().window = 2;
    let fast = cri("stdout", "F", &"x".repeat(LINE - cri("stdout", "F", "").len()));
    let all = STEPS * REQUEST + 2 * TURN;
    rig.write("0.log", fast.repeat(all));
    let slow = |rig: &Rig, file: usize, line: &str| {
        let folder = rig.dir.path().join(format!("pods/a_slow-{file}_uid-{file}/c"));
        fs::create_dir_all(&folder).unwrap();
        let mut log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("0.log"))
            .unwrap();
        log.write_all(cri("stdout", "F", line).as_bytes()).unwrap();
    };
    // Each slow file writes a line every ten seconds; one request is acknowledged in each step of a tenth of a second.
    let mut written = BTreeMap::new();
    for step in 0..STEPS {
        let line = format!("slow {step}");
        slow(&rig, step % SLOW, &line);
        written.insert(line, rig.acked.len());
        rig.turn();
        rig.now += std::time::Duration::from_millis(100);
        rig.ack(1);
        assert!(rig.acked.len() >= step * REQUEST, "the tenant was idle");
    }
    // Before a line are: what was under way, what goes out until its file is looked at, half a second later at most, and
    // one turn of the fast file, with what a read may take beyond it.
    let most = (2 + 5) * REQUEST + 2 * TURN;
    let mut worst = 0;
    for (place, sent) in rig.acked.iter().enumerate() {
        if let Some(at) = written.remove(&sent.line) {
            worst = worst.max(place - at);
        }
    }
    let waiting = written.values().min().map_or(0, |at| rig.acked.len() - at);
    println!("at most {worst} lines passed before a slow one, {waiting} so far before the oldest that waits");
    assert!(worst.max(waiting) <= most, "{worst}, {waiting}");
    assert!(rig.acked.len() + TURN < all, "the fast file was read to its end");
}

#[test]
fn a_look_at_a_file_is_one_read() {
    let mut rig = Rig::new();
    rig.log("0.log", &["first"]);
    rig.run(1500);
    let own = {
        let (_, first) = reads();
        reads().1 - first
    };
    let mut calls = Vec::new();
    for n in 0..10 {
        rig.log("0.log", &[&format!("line {n}")]);
        rig.now += std::time::Duration::from_millis(500);
        let (_, before) = reads();
        rig.turn();
        let (_, after) = reads();
        rig.ack(1);
        calls.push(after - before - own);
    }
    calls.sort_unstable();
    // The other asks the folders' watch. A turn that writes positions reads more.
    assert_eq!(calls[5], 2, "{calls:?}");
    assert_eq!(rig.acked.len(), 11);
}

#[test]
fn an_idle_file_is_not_polled_and_wakes_by_its_watch() {
    let mut rig = Rig::new();
    let bytes = backlog(&rig, 1);
    rig.run(12_000);
    assert_eq!(rig.acked.len(), FILES);
    assert_eq!(rig.core().figures().read_bytes, bytes);
    let own = {
        let (_, first) = reads();
        reads().1 - first
    };
    // As the worker sleeps: until something is due.
    let (end, mut turns) = (rig.now + std::time::Duration::from_secs(10), 0);
    let (_, before) = reads();
    while rig.now < end {
        rig.now = rig.turn();
        turns += 1;
    }
    let (_, after) = reads();
    // Each turn asks the folders' watch, and reads no file. The clock of unfinished lines has a second.
    assert_eq!(after - before - own, turns);
    assert!(turns <= 11, "{turns}");
    rig.log("0.log", &["another"]);
    fs::OpenOptions::new()
        .append(true)
        .open(rig.dir.path().join("pods/a_web-7_uid-7/c/0.log"))
        .unwrap()
        .write_all(cri("stdout", "F", "more").as_bytes())
        .unwrap();
    rig.turn();
    rig.ack(9);
    let mut lines = rig.lines().split_off(FILES);
    lines.sort_unstable();
    assert_eq!(lines, ["another", "more"]);
}

#[test]
fn a_file_that_is_read_to_its_end_does_not_lag_while_its_tenant_has_no_room() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1500);
    rig.core().sink().blocked = vec![Key::new("logging", "t")];
    rig.run(1500);
    let lag = |rig: &mut Rig| {
        let figures = rig.core().figures();
        figures.pipelines[&Key::new("a", "p")].outputs[&Key::new("logging", "t")].oldest_unacknowledged
    };
    assert_eq!(lag(&mut rig), None);
    rig.log("0.log", &["2"]);
    rig.run(1500);
    assert_eq!(lag(&mut rig), Some(1_795_197_001));
    // What was rewritten meanwhile is noticed before anything is read on.
    fs::write(
        rig.folder().join("0.log"),
        cri("stdout", "F", "another, and longer than before"),
    )
    .unwrap();
    rig.core().sink().blocked.clear();
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "another, and longer than before"]);
    assert_eq!(lag(&mut rig), None);
}

#[test]
fn a_folder_that_comes_back_is_not_taken_for_rewritten_after_a_rest_without_line_feed() {
    let mut rig = Rig::new();
    rig.log("0.log", &["1"]);
    rig.run(1500);
    let mut rest = fs::read_to_string(rig.folder().join("0.log")).unwrap();
    rest.push_str(cri("stdout", "F", "2").trim_end());
    fs::write(rig.folder().join("0.log"), rest).unwrap();
    rig.run(1500);
    assert_eq!(rig.lines(), ["1"]);
    let wait = |rig: &mut Rig| {
        for _ in 0..15 {
            rig.turn();
            rig.now += std::time::Duration::from_millis(100);
        }
    };
    let folder = rig.folder();
    let away = rig.dir.path().join("away");
    fs::rename(folder.parent().unwrap(), &away).unwrap();
    wait(&mut rig);
    fs::rename(&away, folder.parent().unwrap()).unwrap();
    // Its end is not acknowledged yet, so its reader is the same.
    wait(&mut rig);
    rig.run(1500);
    assert_eq!(rig.lines(), ["1", "2"]);
    assert!(rig.core().figures().resets.is_empty());
}

#[test]
fn more_compressed_files_than_decompressors_are_each_decompressed_once() {
    let mut rig = Rig::new();
    rig.core = None;
    let (pods, lines) = (24, 1_200);
    let mut state = 7_u64;
    let mut digits = |len: usize| -> String {
        let bytes = noise::noise(len, &mut state).into_iter();
        bytes
            .map(|byte| char::from_digit(u32::from(byte >> 4), 16).unwrap())
            .collect()
    };
    let mut bytes = 0;
    for n in 0..pods {
        let folder = rig.dir.path().join(format!("pods/a_web-{n}_uid-{n}/c"));
        fs::create_dir_all(&folder).unwrap();
        // More than a turn takes.
        let text: String = (0..lines).map(|_| cri("stdout", "F", &digits(4_000))).collect();
        let file = folder.join("0.log.20261120-175001");
        fs::write(&file, text).unwrap();
        gzip(&file);
        bytes += fs::metadata(folder.join("0.log.20261120-175001.gz"))
            .unwrap()
            .len();
    }
    let (before, _) = reads();
    rig.start();
    rig.core().sink().window = 2;
    while rig.acked.len() < pods * lines {
        rig.turn();
        rig.ack(1);
        rig.now += std::time::Duration::from_millis(100);
    }
    let (after, _) = reads();
    let read = after - before;
    assert!(
        read < bytes * 5 / 4,
        "{read} bytes were read of files with {bytes}"
    );
}
