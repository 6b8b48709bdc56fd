//! What a container, kubelet, the node and Loki do, and what of it the agent owes to each tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sluice_agent::checkpoint::ledger::Ledger;
use sluice_agent::config::InForce;
use sluice_engine::key::Key;

use super::files_rig::{Rig, Sent, gzip, in_force, pipeline, tenant};
use super::vanished::Vanished;

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Whole lines, to standard error or not.
    Lines(bool, u8),
    /// A piece of a line whose rest follows later.
    Piece(bool),
    /// A line whose end is written, and seen, later.
    Half(bool),
    /// kubelet rotates; the runtime may write so many lines into the old file before it opens the new one.
    Rotate(u8),
    /// The same, but the runtime opens no new file, and kubelet takes the renaming back.
    RotateInVain(u8),
    /// kubelet compresses all rotated files but the youngest.
    Compress,
    /// kubelet deletes the oldest rotated file, which the agent has seen if it is up.
    DeleteOldest,
    /// The file is cut: what was not read is gone.
    Truncate,
    /// The file is copied and cut.
    CopyTruncate,
    /// The youngest rotated file gets one more line, long after.
    Late,
    /// The container starts anew.
    Restart,
    /// The node's clock is set back, behind all there is.
    SetBack,
    /// The agent is killed, maybe right after it wrote its positions, maybe in the middle of a record.
    Crash {
        /// Positions were written.
        save: bool,
        /// A record was not written whole.
        torn: bool,
    },
    /// The agent is down for all that follows up to its next turn.
    Down,
    /// While it is down, all files get other inodes.
    Reboot,
    /// The pipeline is withdrawn, or given back.
    Withdraw,
    /// So many requests are acknowledged, the last ones first or not.
    Ack {
        /// How many.
        count: u8,
        /// The last ones.
        last: bool,
    },
    /// Room in the sink.
    Room(u8),
    /// One tenant takes nothing, or does again.
    Block(bool),
    /// So much time passes that unfinished lines are ended.
    Clock,
    /// Time passes.
    Turn(u8),
}

/// A line as the container wrote it.
#[derive(Debug, Default)]
struct Line {
    stderr: bool,
    pieces: u32,
    /// Files that its pieces are in.
    files: BTreeSet<u32>,
    /// When its last piece was written.
    written: Option<Instant>,
    /// A clock may have ended it before its last piece.
    split: bool,
    /// It came after its file had been left: in any order.
    late: bool,
    /// Tenants that may miss it: its only copy vanished before an acknowledgement.
    excused: BTreeSet<usize>,
}

#[derive(Debug)]
struct Rotated {
    restart: u32,
    stamp: String,
    file: u32,
    compressed: bool,
}

impl Rotated {
    fn name(&self) -> String {
        let suffix = if self.compressed { ".gz" } else { "" };
        format!("{}.log.{}{suffix}", self.restart, self.stamp)
    }
}

/// Everything outside the agent.
#[expect(
    clippy::struct_excessive_bools,
    reason = "what was done that does not depend on each other"
)]
pub(super) struct World {
    rig: Rig,
    all: InForce,
    tenants: Vec<Key>,
    lines: Vec<Line>,
    /// Index of the open line of each stream.
    open: [Option<usize>; 2],
    /// The rest of a line whose beginning is in the tip.
    half: Option<(usize, String)>,
    restart: u32,
    /// Numbers of what the tip holds, and rotated files with names, oldest first.
    tip: u32,
    rotated: Vec<Rotated>,
    vanished: Vanished,
    /// Files that end within a line, or to which one goes on that has no end: nothing follows in them.
    cut_off: BTreeSet<u32>,
    stamps: u32,
    clock: u32,
    /// The clock was set back: who did not see the files one by one cannot tell their order.
    set_back: bool,
    /// A file was cut, by somebody who is not kubelet: that and the clock together tell nothing of what was when.
    was_cut: bool,
    files: u32,
    epochs: Vec<usize>,
    /// How much was acknowledged when positions behind all that was written were saved.
    settled: Vec<usize>,
    /// An empty file was compressed, which is read like any other, but is no place that a position can name.
    empty_compressed: bool,
    up: bool,
    granted: bool,
    tip_exists: bool,
}

impl World {
    /// Lives a history, to one tenant or two, and judges it.
    pub(super) fn run(two: bool, ops: &[Op]) -> Result<(), TestCaseError> {
        let names: &[&str] = if two { &["t", "u"] } else { &["t"] };
        let tenants: Vec<_> = names.iter().map(|name| tenant(name, 4096)).collect();
        let keys = tenants.iter().map(|tenant| tenant.name.clone()).collect();
        let all = in_force(vec![pipeline("p", names)], tenants);
        let mut world = Self {
            rig: Rig::with(all.clone()),
            all,
            tenants: keys,
            lines: Vec::new(),
            open: [None, None],
            half: None,
            restart: 0,
            tip: 0,
            rotated: Vec::new(),
            vanished: Vanished::default(),
            cut_off: BTreeSet::new(),
            stamps: 80_000,
            clock: 80_000,
            set_back: false,
            was_cut: false,
            files: 1,
            epochs: Vec::new(),
            settled: Vec::new(),
            empty_compressed: false,
            up: true,
            granted: true,
            tip_exists: false,
        };
        for op in ops {
            world.apply(op);
        }
        world.check()
    }

    fn tip_name(&self) -> String {
        format!("{}.log", self.restart)
    }

    /// A line as the runtime writes it; no two have the same time.
    fn stamped(&mut self, stream: &str, tag: &str, content: &str) -> String {
        self.clock += 1;
        let (minute, second) = (self.clock / 60, self.clock % 60);
        let (hour, minute) = (minute / 60, minute % 60);
        format!("2026-11-20T{hour:02}:{minute:02}:{second:02}Z {stream} {tag} {content}\n")
    }

    /// Further than a history has lines.
    fn set_back(&mut self) {
        (self.stamps, self.clock) = (self.stamps - 1_000, self.clock - 1_000);
        self.set_back = true;
    }

    /// Adds a piece to the stream's open line, or begins one; returns the line of the file.
    fn piece(&mut self, file: u32, stderr: bool, tag: &str) -> String {
        let slot = usize::from(stderr);
        let at = self.open[slot].unwrap_or_else(|| {
            self.lines.push(Line {
                stderr,
                ..Line::default()
            });
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        let piece = format!("{at}.{};", line.pieces);
        line.pieces += 1;
        line.files.insert(file);
        line.written = Some(self.rig.now);
        self.open[slot] = (tag == "P").then_some(at);
        self.stamped(if stderr { "stderr" } else { "stdout" }, tag, &piece)
    }

    fn put(&mut self, name: &str, file: u32, stderr: bool, tag: &str) {
        self.finish_half();
        let piece = self.piece(file, stderr, tag);
        self.rig.write(name, piece);
        self.tip_exists = true;
    }

    fn finish_half(&mut self) {
        if let Some((_, rest)) = self.half.take() {
            self.rig.write(&self.tip_name(), rest);
        }
    }

    fn new_file(&mut self) -> u32 {
        self.files += 1;
        self.files - 1
    }

    fn new_stamp(&mut self) -> String {
        self.stamps += 1;
        format!("20261120-{:06}", self.stamps)
    }

    fn start(&mut self) {
        if !self.up {
            self.rig.start();
            self.up = true;
            self.rig.turn();
        }
    }

    /// If all that was written is acknowledged to this process, or was when positions were saved before, they are behind
    /// it now: no later process may send it again.
    fn settle(&mut self) {
        let (saved, begun) = (self.settled.last().copied(), self.epochs.last().copied());
        let (before, own) = (
            &self.rig.acked[..saved.unwrap_or(0)],
            &self.rig.acked[begun.unwrap_or(0)..],
        );
        let all = |tenant: &Key| {
            let of_tenant = before.iter().chain(own).filter(|sent| sent.tenant == *tenant);
            let known: BTreeSet<_> = of_tenant.flat_map(|sent| pieces(&sent.line)).collect();
            let mut lines = self.lines.iter().enumerate();
            lines.all(|(at, line)| (0..line.pieces).all(|piece| known.contains(&(at, piece))))
        };
        if self.granted && self.tenants.iter().all(all) {
            self.settled.push(self.rig.acked.len());
        }
    }

    fn die(&mut self, save: bool, torn: bool) {
        if !self.up {
            return;
        }
        if save {
            self.rig.core().save();
            self.settle();
        }
        self.rig.core = None;
        self.up = false;
        if torn {
            let path = self.rig.dir.path().join("state/journal");
            let mut journal = fs::OpenOptions::new().append(true).open(path).unwrap();
            journal.write_all(&[90, 0, 0, 0, 1, 2, 3, 4, 3]).unwrap();
        }
        self.forget();
    }

    /// What was read and not acknowledged has to be read again, so files that vanished are gone for good.
    fn forget(&mut self) {
        self.rig.under_way.clear();
        self.epochs.push(self.rig.acked.len());
        self.excuse();
        self.vanished.die();
    }

    fn excuse(&mut self) {
        let open = self.open;
        for tenant in 0..self.tenants.len() {
            let delivered = self.delivered(tenant);
            for (at, line) in self.lines.iter_mut().enumerate() {
                let done = !open.contains(&Some(at))
                    && (0..line.pieces).all(|piece| delivered.contains(&(at, piece)));
                if !done && line.files.iter().any(|file| self.vanished.is_lost(*file)) {
                    line.excused.insert(tenant);
                }
            }
        }
    }

    fn delivered(&self, tenant: usize) -> BTreeSet<(usize, u32)> {
        let sent = self
            .rig
            .acked
            .iter()
            .filter(|sent| sent.tenant == self.tenants[tenant]);
        sent.flat_map(|sent| pieces(&sent.line)).collect()
    }

    /// What is done by others than the container and kubelet; false when it was none of it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are of `apply`")]
    fn around(&mut self, op: &Op) -> bool {
        match op {
            Op::Crash { save, torn } => {
                self.die(*save, *torn);
                self.start();
            }
            Op::Down => self.die(false, false),
            Op::Reboot => {
                self.die(false, false);
                let folder = self.rig.folder();
                for entry in fs::read_dir(&folder).unwrap() {
                    let path = entry.unwrap().path();
                    let copy = path.with_extension("other");
                    fs::copy(&path, &copy).unwrap();
                    fs::rename(&copy, &path).unwrap();
                }
            }
            Op::Withdraw if self.up => {
                self.rig.ack(usize::MAX);
                self.granted = !self.granted;
                let none = in_force(Vec::new(), Vec::new());
                self.rig.apply(if self.granted { self.all.clone() } else { none });
                if !self.granted {
                    // Nobody is left to have copies for.
                    self.vanished.withdraw();
                    self.settled.clear();
                    self.forget();
                }
                self.rig.turn();
            }
            Op::Ack { count, last } if self.up => {
                if *last {
                    self.rig.under_way.reverse();
                }
                self.rig.ack(usize::from(*count));
                if *last {
                    self.rig.under_way.reverse();
                }
            }
            Op::Room(room) => {
                self.start();
                self.rig.core().sink().room = usize::from(*room);
                self.rig.core().sink().window = 4;
            }
            Op::Block(block) => {
                self.start();
                let last = self.tenants.last().cloned();
                self.rig.core().sink().blocked = last.filter(|_| *block).into_iter().collect();
            }
            Op::Clock => {
                self.start();
                self.rig.turn();
                self.pass(Duration::from_secs(31));
                self.turn();
                self.turn();
            }
            Op::Turn(times) => {
                self.start();
                for _ in 0..*times {
                    self.turn();
                }
            }
            _ => return false,
        }
        true
    }

    #[expect(
        clippy::too_many_lines,
        clippy::wildcard_enum_match_arm,
        reason = "an operation each; those of `around` are done"
    )]
    fn apply(&mut self, op: &Op) {
        if self.around(op) {
            return;
        }
        match op {
            Op::Lines(stderr, count) => {
                for _ in 0..*count {
                    self.put(&self.tip_name(), self.tip, *stderr, "F");
                }
            }
            Op::Piece(stderr) => self.put(&self.tip_name(), self.tip, *stderr, "P"),
            Op::Half(stderr) => {
                self.finish_half();
                let at = self.open[usize::from(*stderr)].unwrap_or(self.lines.len());
                let line = self.piece(self.tip, *stderr, "F");
                let (now, later) = line.split_at(line.len() * 2 / 3);
                self.rig.write(&self.tip_name(), now);
                self.half = Some((at, later.to_owned()));
                self.tip_exists = true;
            }
            Op::Rotate(late) if self.tip_exists => {
                self.rotate(*late);
                self.tip = self.new_file();
                self.rig.write(&self.tip_name(), "");
            }
            Op::RotateInVain(late) if self.tip_exists => {
                self.rotate(*late);
                let back = self.rotated.pop().unwrap();
                let folder = self.rig.folder();
                fs::rename(folder.join(back.name()), folder.join(self.tip_name())).unwrap();
            }
            Op::Compress => {
                let last = self.rotated.len().saturating_sub(1);
                for rotated in self
                    .rotated
                    .iter_mut()
                    .take(last)
                    .filter(|rotated| !rotated.compressed)
                {
                    let path = self.rig.folder().join(rotated.name());
                    self.empty_compressed |= fs::metadata(&path).unwrap().len() == 0;
                    gzip(&path);
                    rotated.compressed = true;
                }
            }
            Op::DeleteOldest if !self.rotated.is_empty() => {
                if self.up {
                    self.rig.turn();
                }
                let oldest = (0..self.rotated.len()).min_by_key(|at| self.rotated[*at].name());
                let rotated = self.rotated.remove(oldest.unwrap());
                fs::remove_file(self.rig.folder().join(rotated.name())).unwrap();
                if self.up {
                    self.vanished.seen(rotated.file);
                } else {
                    let missed_by = self.known(rotated.file);
                    self.vanished.unseen(rotated.file, missed_by);
                }
                if !self.up || !self.granted {
                    self.excuse();
                }
            }
            Op::Truncate if self.tip_exists && !self.set_back => {
                self.was_cut = true;
                self.finish_half();
                self.vanished.cut(self.tip);
                self.excuse();
                File::create(self.rig.folder().join(self.tip_name())).unwrap();
                self.tip = self.new_file();
            }
            Op::CopyTruncate if self.tip_exists && !self.set_back => {
                self.was_cut = true;
                self.finish_half();
                self.vanished.moved();
                let (folder, stamp) = (self.rig.folder(), self.new_stamp());
                let copied = Rotated {
                    restart: self.restart,
                    stamp,
                    file: self.tip,
                    compressed: false,
                };
                fs::copy(folder.join(self.tip_name()), folder.join(copied.name())).unwrap();
                File::create(folder.join(self.tip_name())).unwrap();
                self.rotated.push(copied);
                self.tip = self.new_file();
            }
            Op::Late => self.late(),
            Op::SetBack if !self.was_cut => self.set_back(),
            Op::Restart if self.tip_exists => {
                self.finish_half();
                // None of those has the line's end, which its container does not write any more.
                let cut = self
                    .open
                    .into_iter()
                    .flatten()
                    .filter_map(|at| self.lines[at].files.last())
                    .flat_map(|last| *last..=self.tip);
                self.cut_off.extend(cut);
                self.open = [None, None];
                // kubelet leaves the last file of the restart as it is: its name is as good as a rotated one.
                self.restart += 1;
                self.tip = self.new_file();
                self.put(&self.tip_name(), self.tip, false, "F");
            }
            _ => {}
        }
    }

    fn rotate(&mut self, late: u8) {
        self.finish_half();
        let (folder, stamp) = (self.rig.folder(), self.new_stamp());
        let rotated = Rotated {
            restart: self.restart,
            stamp,
            file: self.tip,
            compressed: false,
        };
        let name = rotated.name();
        fs::rename(folder.join(self.tip_name()), folder.join(&name)).unwrap();
        self.rotated.push(rotated);
        for n in 0..late {
            self.turn();
            self.put(&name, self.tip, n == 1, "F");
        }
    }

    /// One more line in the last rotated file; kubelet does not touch it for ten seconds.
    fn late(&mut self) {
        let Some(rotated) = self.rotated.last().filter(|rotated| !rotated.compressed) else {
            return;
        };
        let file = rotated.file;
        let goes_on = |line: &Line| {
            !line.stderr && line.files.first() <= Some(&file) && line.files.last() > Some(&file)
        };
        // kubelet rotates no empty file: its first line tells its age.
        let is_empty = !self.lines.iter().any(|line| line.files.contains(&file));
        if is_empty
            || self.cut_off.contains(&file)
            || self.open[0].is_some()
            || self.lines.iter().any(goes_on)
        {
            return;
        }
        let name = rotated.name();
        let line = Line {
            pieces: 1,
            files: [file].into(),
            late: true,
            ..Line::default()
        };
        let text = format!("{}.0;", self.lines.len());
        let written = self.stamped("stdout", "F", &text);
        self.rig.write(&name, written);
        self.lines.push(line);
        if !self.up || !self.granted {
            self.excuse();
        }
        for _ in 0..if self.up { 12 } else { 0 } {
            self.turn_for(Duration::from_secs(1));
        }
    }

    fn turn(&mut self) {
        if self.up {
            // Slow enough that few unfinished lines are ended by the clock.
            self.turn_for(Duration::from_millis(120));
        }
    }

    fn turn_for(&mut self, time: Duration) {
        self.rig.turn();
        if self.granted {
            self.vanished.turn(self.youngest(), self.rig.now);
        }
        self.pass(time);
    }

    /// The last file with anything in it. With the clock set back only the tip is known to follow others.
    fn youngest(&self) -> u32 {
        let last = self.lines.iter().filter_map(|line| line.files.last());
        let last = last.max().copied().unwrap_or(0);
        if self.set_back && last < self.tip { 0 } else { last }
    }

    /// The tenants whose positions in the container are on disk, and behind all that is left of what is older than a
    /// file: it is missed there.
    fn known(&self, file: u32) -> BTreeSet<usize> {
        let mut older = self.lines.iter().flat_map(|line| line.files.range(..file));
        let is_left = older.any(|older| !self.vanished.all.contains(older));
        // What a file got late is read behind it, and tells nothing of what lay between.
        if is_left || self.lines.iter().any(|line| line.late) {
            return BTreeSet::new();
        }
        let journal = fs::read(self.rig.dir.path().join("state/journal"));
        let ledger = Ledger::decode(&journal.unwrap_or_default()).0;
        let placed = ledger.cursors.values().filter(|entry| entry.watermark.is_some());
        let tenants = placed.filter_map(|entry| {
            let is_its = |tenant: &Key| tenant.to_string() == entry.identity.tenant;
            self.tenants.iter().position(is_its)
        });
        tenants.collect()
    }

    /// Time passes, and a clock may end lines that are unfinished for half a minute.
    fn pass(&mut self, time: Duration) {
        self.rig.now += time;
        let half = self.half.as_ref().map(|(at, _)| *at);
        for at in self.open.into_iter().chain([half]).flatten() {
            let line = &mut self.lines[at];
            let since = line.written.map(|written| self.rig.now.duration_since(written));
            line.split |= since.is_some_and(|since| since >= Duration::from_secs(30));
        }
    }

    fn check(mut self) -> Result<(), TestCaseError> {
        self.start();
        if !self.granted {
            self.rig.apply(self.all.clone());
        }
        self.rig.core().sink().room = 1_000_000;
        self.rig.core().sink().window = 1_000_000;
        self.rig.core().sink().blocked.clear();
        self.finish_half();
        if !self.vanished.unseen.is_empty() {
            // What is missing is told with the line that follows.
            self.put(&self.tip_name(), self.tip, false, "F");
        }
        self.rig.run(12_000);
        // Now the clock ends what is unfinished, which may let others be begun, and sweeps find what was late.
        for _ in 0..4 {
            self.rig.now += Duration::from_secs(31);
            self.rig.run(3_000);
        }
        self.epochs.push(self.rig.acked.len());

        for tenant in 0..self.tenants.len() {
            let mut begin = 0;
            for end in &self.epochs {
                self.check_epoch(tenant, &self.rig.acked[begin..*end])?;
                begin = *end;
            }
            let delivered = self.delivered(tenant);
            for (at, line) in self.lines.iter().enumerate() {
                let whole = (0..line.pieces).all(|piece| delivered.contains(&(at, piece)));
                prop_assert!(line.excused.contains(&tenant) || whole, "lost: {} {:?}", at, line);
            }
        }
        self.check_settled()?;
        let figures = self.rig.core().figures();
        for tenant in 0..self.tenants.len() {
            let delivered = self.delivered(tenant);
            let unseen = &self.vanished.unseen;
            let is_known = |file: &u32| unseen.get(file).is_some_and(|by| by.contains(&tenant));
            let lost = self.lines.iter().enumerate().find(|(at, line)| {
                let all = (0..line.pieces).all(|piece| delivered.contains(&(*at, piece)));
                !all && !line.late && line.files.iter().all(is_known)
            });
            let mut outputs = figures.pipelines.values().flat_map(|pipeline| &pipeline.outputs);
            let is_told = outputs.any(|(key, output)| *key == self.tenants[tenant] && output.gap_count > 0);
            prop_assert!(lost.is_none() || is_told || self.set_back, "not told: {:?}", lost);
        }
        prop_assert_eq!(figures.malformed_lines, 0);
        if self.vanished.all.is_empty() {
            prop_assert!(!figures.resets.contains_key("file_rewritten"));
        }
        if self.vanished.unseen.is_empty() {
            prop_assert!(!figures.resets.contains_key("file_vanished"));
        }
        Ok(())
    }

    /// What one process had saved no later one sends again, unless it was read out of its turn or what it was read from is
    /// gone.
    fn check_settled(&self) -> Result<(), TestCaseError> {
        let is_late = self.lines.iter().any(|line| line.late);
        if is_late || self.empty_compressed || !self.vanished.all.is_empty() || self.set_back {
            return Ok(());
        }
        for at in &self.settled {
            let (before, after) = self.rig.acked.split_at(*at);
            let of = |sent: &Sent| -> Vec<_> {
                let tenant = |piece| (sent.tenant.clone(), piece);
                pieces(&sent.line).into_iter().map(tenant).collect()
            };
            let settled: BTreeSet<_> = before.iter().flat_map(of).collect();
            let again = after.iter().flat_map(of).find(|piece| settled.contains(piece));
            let is_split = |(_, (line, _)): &(Key, (usize, u32))| self.lines[*line].split;
            prop_assert!(again.as_ref().is_none_or(is_split), "sent again: {:?}", again);
        }
        Ok(())
    }

    /// Whether something vanished between a line's first piece and its last.
    fn is_cut(&self, line: &Line) -> bool {
        let ends = line.files.first().zip(line.files.last());
        ends.is_some_and(|(first, last)| {
            let mut between = self.vanished.all.range(first..=last);
            between.any(|file| self.vanished.is_lost(*file))
        })
    }

    /// What one process sent of what it could read: in order, once, and whole but where a clock or a loss cut.
    fn check_epoch(&self, tenant: usize, acked: &[Sent]) -> Result<(), TestCaseError> {
        let mut newest: BTreeMap<(bool, bool), (usize, u32)> = BTreeMap::new();
        let mut acked: Vec<_> = acked
            .iter()
            .filter(|sent| sent.tenant == self.tenants[tenant])
            .collect();
        acked.sort_by_key(|sent| sent.request);
        for sent in acked {
            let found = pieces(&sent.line);
            prop_assert!(!found.is_empty(), "never written: {:?}", sent);
            // Pieces of one line each; the next one's can only follow where the rest of the line vanished.
            let runs: Vec<_> = found
                .chunk_by(|one, next| *next == (one.0, one.1 + 1))
                .map(|run| (run[0], run[run.len() - 1]))
                .collect();
            for (at, (first, end)) in runs.iter().enumerate() {
                let line = &self.lines[first.0];
                let stream = if line.stderr { "stderr" } else { "stdout" };
                prop_assert!(sent.metadata.contains(stream));
                let lost = self.is_cut(line);
                let whole = first.1 == 0 && end.1 + 1 == line.pieces;
                // What was read behind late lines, or before a file that is gone, is read again after a crash, not
                // always from a line's beginning.
                let reread = self.lines.iter().any(|line| line.late) || !self.vanished.all.is_empty();
                let reread = reread && self.epochs.len() > 1;
                // A line that goes on in the next file waits behind what is late in older ones, until the clock ends it.
                let waited = line.files.len() > 1 && self.lines.iter().any(|line| line.late);
                prop_assert!(
                    whole || line.split || lost || reread || waited || self.set_back,
                    "cut: {}",
                    sent.line
                );
                prop_assert!(
                    lost || reread || self.set_back || at + 1 == runs.len(),
                    "mixed: {}",
                    sent.line
                );
                let before = newest.insert((line.stderr, line.late), *end);
                prop_assert!(
                    line.late || self.set_back || before.is_none_or(|before| before < *first),
                    "out of order or twice: {}",
                    sent.line
                );
            }
        }
        Ok(())
    }
}

/// The pieces `<line>.<number>;` that a sent line consists of.
fn pieces(line: &str) -> Vec<(usize, u32)> {
    let parts = line.split_terminator(';').map(|part| {
        let (at, piece) = part.split_once('.')?;
        Some((at.parse().ok()?, piece.parse().ok()?))
    });
    parts.collect::<Option<_>>().unwrap_or_default()
}
