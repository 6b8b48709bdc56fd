//! Random histories of a container's log files against a model of what they held: nothing on disk is lost,
//! order is kept, and nothing comes twice but what a crash left unacknowledged.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod files_rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use files_rig::{Rig, cri, gzip};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    /// Whole lines.
    Lines(bool, u8),
    /// A piece of a line whose rest follows later.
    Piece(bool),
    /// kubelet rotates; the runtime may write so many lines into the old file before it opens the new one.
    Rotate(u8),
    /// kubelet compresses all rotated files but the youngest.
    Compress,
    /// kubelet deletes the oldest rotated file, which the agent has seen.
    DeleteOldest,
    /// The container starts anew.
    Restart,
    /// The agent is killed; `true`: right after it wrote its positions.
    Crash(bool),
    /// The agent is down for all that follows up to here.
    Down,
    /// So many requests are acknowledged.
    Ack(u8),
    /// Room in the sink.
    Room(u8),
    /// Time passes.
    Turn(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), 1..6_u8).prop_map(|(stderr, count)| Op::Lines(stderr, count)),
        3 => any::<bool>().prop_map(Op::Piece),
        3 => (0..3_u8).prop_map(Op::Rotate),
        2 => Just(Op::Compress),
        2 => Just(Op::DeleteOldest),
        1 => Just(Op::Restart),
        1 => any::<bool>().prop_map(Op::Crash),
        1 => Just(Op::Down),
        4 => (1..4_u8).prop_map(Op::Ack),
        1 => (1..8_u8).prop_map(Op::Room),
        6 => (1..4_u8).prop_map(Op::Turn),
    ]
}

/// A line as the container wrote it.
#[derive(Debug, Default)]
struct Line {
    stderr: bool,
    text: String,
    /// Files that its pieces are in.
    files: BTreeSet<u32>,
    /// It may be missing: its only copy was deleted before an acknowledgement, and then the agent died.
    excused: bool,
}

struct World {
    rig: Rig,
    lines: Vec<Line>,
    /// Index of the open line of each stream.
    open: [Option<usize>; 2],
    restart: u32,
    /// The tip's number, and rotated files with names, oldest first: (restart, stamp, number, compressed).
    tip: u32,
    rotated: Vec<(u32, String, u32, bool)>,
    deleted: BTreeSet<u32>,
    stamps: u32,
    files: u32,
    epochs: Vec<usize>,
    up: bool,
    tip_exists: bool,
}

impl World {
    fn new() -> Self {
        let rig = Rig::new();
        Self {
            rig,
            lines: Vec::new(),
            open: [None, None],
            restart: 0,
            tip: 0,
            rotated: Vec::new(),
            deleted: BTreeSet::new(),
            stamps: 0,
            files: 1,
            epochs: Vec::new(),
            up: true,
            tip_exists: false,
        }
    }

    fn tip_name(&self) -> String {
        format!("{}.log", self.restart)
    }

    fn put(&mut self, name: &str, file: u32, stderr: bool, tag: &str) {
        let slot = usize::from(stderr);
        let at = self.open[slot].unwrap_or_else(|| {
            self.lines.push(Line {
                stderr,
                ..Line::default()
            });
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        let piece = if line.text.is_empty() {
            format!("#{at};")
        } else {
            format!("{at}+")
        };
        line.text += &piece;
        line.files.insert(file);
        self.open[slot] = (tag == "P").then_some(at);
        self.rig
            .write(name, cri(if stderr { "stderr" } else { "stdout" }, tag, &piece));
        self.tip_exists = true;
    }

    fn start(&mut self) {
        if !self.up {
            self.rig.start();
            self.up = true;
            self.rig.turn();
        }
    }

    fn die(&mut self, save: bool) {
        if !self.up {
            return;
        }
        if save {
            self.rig.core().save();
        }
        self.rig.core = None;
        self.rig.under_way.clear();
        self.up = false;
        self.epochs.push(self.rig.acked.len());
        let acked: BTreeSet<&str> = self.rig.lines().into_iter().collect();
        let open = self.open;
        for (at, line) in self.lines.iter_mut().enumerate() {
            let delivered = acked.contains(line.text.as_str()) && !open.contains(&Some(at));
            line.excused |= !delivered && line.files.iter().any(|file| self.deleted.contains(file));
        }
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Lines(stderr, count) => {
                for _ in 0..*count {
                    self.put(&self.tip_name(), self.tip, *stderr, "F");
                }
            }
            Op::Piece(stderr) => self.put(&self.tip_name(), self.tip, *stderr, "P"),
            Op::Rotate(late) if self.tip_exists => {
                let folder = self.rig.folder();
                self.stamps += 1;
                let stamp = format!("20261120-{:06}", self.stamps);
                let old = format!("{}.log.{stamp}", self.restart);
                fs::rename(folder.join(self.tip_name()), folder.join(&old)).unwrap();
                self.rotated.push((self.restart, stamp, self.tip, false));
                for n in 0..*late {
                    self.turn();
                    self.put(&old, self.tip, n == 1, "F");
                }
                self.tip = self.files;
                self.files += 1;
                self.rig.write(&self.tip_name(), "");
            }
            Op::Compress => {
                let last = self.rotated.len().saturating_sub(1);
                for (restart, stamp, _, compressed) in self.rotated.iter_mut().take(last) {
                    if !*compressed {
                        gzip(&self.rig.folder().join(format!("{restart}.log.{stamp}")));
                        *compressed = true;
                    }
                }
            }
            Op::DeleteOldest if !self.rotated.is_empty() && self.up => {
                self.rig.turn();
                let (restart, stamp, file, compressed) = self.rotated.remove(0);
                let suffix = if compressed { ".gz" } else { "" };
                fs::remove_file(self.rig.folder().join(format!("{restart}.log.{stamp}{suffix}"))).unwrap();
                self.deleted.insert(file);
            }
            Op::Restart if self.tip_exists => {
                self.open = [None, None];
                // kubelet leaves the last file of the restart as it is: its name is as good as a rotated one.
                self.restart += 1;
                self.tip = self.files;
                self.files += 1;
                self.put(&self.tip_name(), self.tip, false, "F");
            }
            Op::Crash(save) => {
                self.die(*save);
                self.start();
            }
            Op::Down => self.die(false),
            Op::Ack(count) if self.up => self.rig.ack(usize::from(*count)),
            Op::Room(room) => {
                self.start();
                self.rig.core().sink().room = usize::from(*room);
                self.rig.core().sink().window = 4;
            }
            Op::Turn(times) => {
                self.start();
                for _ in 0..*times {
                    self.turn();
                }
            }
            Op::Rotate(_) | Op::DeleteOldest | Op::Restart | Op::Ack(_) => {}
        }
    }

    fn turn(&mut self) {
        if self.up {
            self.rig.turn();
            // Slow enough that no unfinished line is ended by the clock.
            self.rig.now += Duration::from_millis(120);
        }
    }

    fn check(mut self) -> Result<(), TestCaseError> {
        self.start();
        self.rig.core().sink().room = 1_000_000;
        self.rig.core().sink().window = 1_000_000;
        self.rig.run(12_000);
        // Now the clock ends what is unfinished.
        self.rig.now += Duration::from_secs(31);
        self.rig.run(3_000);
        self.epochs.push(self.rig.acked.len());

        let number: BTreeMap<&str, usize> = self
            .lines
            .iter()
            .enumerate()
            .map(|(at, line)| (line.text.as_str(), at))
            .collect();
        let mut seen = BTreeSet::new();
        let mut begin = 0;
        for end in &self.epochs {
            let mut last: [Option<usize>; 2] = [None, None];
            for sent in &self.rig.acked[begin..*end] {
                let Some(at) = number.get(sent.line.as_str()).copied() else {
                    // The rest of a line whose beginning was deleted before the position behind it was written.
                    let cut = |line: &Line| line.files.iter().any(|file| self.deleted.contains(file));
                    let rest = self
                        .lines
                        .iter()
                        .any(|line| cut(line) && line.text.ends_with(&sent.line));
                    prop_assert!(rest && self.epochs.len() > 1, "never written: {:?}", sent);
                    continue;
                };
                let line = &self.lines[at];
                let stream = if line.stderr { "stderr" } else { "stdout" };
                prop_assert!(sent.metadata.contains(stream));
                let last = &mut last[usize::from(line.stderr)];
                prop_assert!(
                    last.is_none_or(|last| last < at),
                    "out of order or twice: {}",
                    sent.line
                );
                *last = Some(at);
                seen.insert(at);
            }
            begin = *end;
        }
        for (at, line) in self.lines.iter().enumerate() {
            prop_assert!(line.excused || seen.contains(&at), "lost: {:?}", line);
        }
        let figures = self.rig.core().figures();
        prop_assert_eq!(figures.malformed_lines, 0);
        prop_assert!(!figures.resets.contains_key("file_rewritten"));
        Ok(())
    }
}

/// Few by default; `PROPTEST_CASES` for a long run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.check()?;
    }
}
