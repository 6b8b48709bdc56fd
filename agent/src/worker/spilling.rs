//! Files that vanish before Loki has taken them in, copies in the state folder out; without room for one, what is
//! given up is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::cri::Timestamp;
use sluice_engine::report::Gap;

use super::Sink;
use super::container::Container;
use super::core::{BUFFER, Core};
use super::cursor::{Cursor, Long, State};
use super::reading::Step;
use crate::checkpoint::journal::{StartError, is_shortage};
use crate::checkpoint::record::{Count, Record};
use crate::discover::beneath::LogRoot;
use crate::discover::names::{ContainerKey, PodFolder};
use crate::discover::roots::Roots;
use crate::parse::join::Joiner;
use crate::spill::record::Head;
use crate::spill::store::{Spilled, Store, Writer, has_reserve};
use crate::tail::compressed::Compressed;
use crate::tail::kept::Danger;
use crate::tail::position::{CursorId, Position};

/// What one stream's requests wait for does not stop its tenant: nor does a turn of hundreds of files last so long.
const STANDS: Duration = Duration::from_mins(1);
/// A tenant that acknowledged nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(2);
/// Bytes copied in one turn, so that nothing else waits.
const TURN: u64 = 4 << 20;
/// How long until a disk that took nothing more is tried again.
const PAUSE: Duration = Duration::from_secs(10);
/// Why lines are given up: no copy of them can be kept.
pub(super) const NO_SPACE: &str = "no_space";

/// How many lines, and their bytes.
type Lines = (u64, u64);

/// Copies in the making.
#[derive(Debug)]
pub(super) struct Spilling {
    store: Store,
    /// Containers whose files may be vanishing.
    pub(super) look: BTreeSet<Arc<ContainerKey>>,
    copying: Option<Copying>,
    /// Why no copies are made, and until when none is tried.
    pub(super) stopped: Option<(String, Instant)>,
}

/// One copy in the making.
#[derive(Debug)]
struct Copying {
    key: Arc<ContainerKey>,
    number: u32,
    writer: Writer,
    reader: Option<(u32, Compressed)>,
}

impl Spilling {
    /// What an earlier process left, by container.
    pub(super) fn begin(
        state_dir: &Path,
        discovery: &Roots,
        now: Instant,
    ) -> Result<(Self, Vec<Container>), StartError> {
        let unusable = |error| StartError::Unusable(state_dir.to_owned(), error);
        let (store, found) = Store::open(state_dir).map_err(unusable)?;
        let mut containers: Vec<Container> = Vec::new();
        // For an agent that sees no files any more: what was copied of them is sent all the same.
        let nowhere = Arc::new(LogRoot::new(state_dir.to_owned(), Vec::new()));
        for spilled in found {
            let key = ContainerKey {
                folder: spilled.head().folder.clone(),
                container: spilled.head().container.clone(),
            };
            let at = containers.iter().position(|container| *container.key == key);
            let Some(pod) = PodFolder::parse(&key.folder) else {
                continue;
            };
            let at = at.unwrap_or_else(|| {
                let root = discovery.root(&key).unwrap_or(&nowhere);
                containers.push(Container::new(root, Arc::new(key), pod, true, now));
                containers.len() - 1
            });
            let Some(container) = containers.get_mut(at) else {
                continue;
            };
            container.chain.attach(spilled);
        }
        let spilling = Self {
            store,
            look: BTreeSet::new(),
            copying: None,
            stopped: None,
        };
        Ok((spilling, containers))
    }

    /// Copies that were found damaged at the start.
    pub(super) fn damaged(&self) -> u32 {
        self.store.damaged
    }

    /// Whether a copy is in the making.
    pub(super) fn is_busy(&self) -> bool {
        self.copying.is_some() || !self.look.is_empty()
    }
}

impl<S: Sink> Core<S> {
    /// Copies a little of what is vanishing, or gives it up where there is no room.
    pub(super) fn spill(&mut self, now: Instant) {
        let mut left = TURN;
        while left > 0 {
            if self.spilling.copying.is_some() {
                left = left.saturating_sub(self.copy(left, now));
                continue;
            }
            let Some(key) = self.spilling.look.pop_first() else {
                return;
            };
            self.look_after(&key, now);
        }
    }

    /// Looks whether a container's files are vanishing, and begins the first copy that is needed.
    fn look_after(&mut self, key: &Arc<ContainerKey>, now: Instant) {
        let Some(container) = self.containers.get_mut(key) else {
            return;
        };
        if key.is_spooled() {
            // Its files are in the state folder already, and nobody else deletes them.
            return;
        }
        container.chain.settle_copied();
        let (waiting, stands) = waiting(container, &mut self.cursors, now);
        if waiting.is_empty() {
            return;
        }
        // The copy is in the file's place for those as well that have not looked yet at what was written last.
        let all = container.cursors.iter().filter_map(|id| self.cursors.get(id));
        let needed = all.filter(|cursor| cursor.state != State::Finished || cursor.is_behind());
        let Some(begin) = needed.clone().map(|cursor| cursor.watermark().position).min() else {
            return;
        };
        let mut marks = waiting.iter().filter_map(|id| self.cursors.get(id));
        let stuck = stands
            || marks.any(|cursor| {
                let lane = self.tenants.get(&*cursor.tenant);
                lane.is_some_and(|lane| match lane.acknowledged {
                    Some(at) => now.duration_since(at) >= STUCK,
                    // An agent that dies every second in an outage must not begin to wait each time.
                    None => cursor.backlog.at_start || now.duration_since(lane.since) >= STUCK,
                })
            });
        let danger = Danger {
            gone: container.gone,
            stuck,
        };
        let Some(number) = container.chain.at_risk(begin.generation, danger) else {
            return;
        };
        let outputs = needed.map(Cursor::output).collect();
        let Some(head) = container.chain.head_of(number) else {
            return;
        };
        // From its first byte on: whoever comes later begins there, and copies of later restarts are known to be younger.
        let head = Head {
            folder: key.folder.clone(),
            container: key.container.clone(),
            outputs,
            ..head
        };
        let writer = if self
            .spilling
            .stopped
            .as_ref()
            .is_some_and(|(_, until)| *until > now)
        {
            None
        } else {
            // Another process begins at the positions on disk: a copy that begins behind them would be no use to it.
            self.write_positions();
            self.journal.sync();
            self.begin_copy(head, now)
        };
        match writer {
            Some(writer) => {
                self.spilling.copying = Some(Copying {
                    key: Arc::clone(key),
                    number,
                    writer,
                    reader: None,
                });
            }
            None => self.give_up(key, number, danger, now),
        }
    }

    fn begin_copy(&mut self, head: Head, now: Instant) -> Option<Writer> {
        if !self.spilling.store.has_reserve() {
            self.stop_spilling("less than 15 % of its file system is free".to_owned(), now);
            return None;
        }
        match self.spilling.store.begin(head) {
            Ok(writer) => Some(writer),
            Err(error) => {
                self.stop_spilling(error.to_string(), now);
                None
            }
        }
    }

    fn stop_spilling(&mut self, why: String, now: Instant) {
        if self.spilling.stopped.is_none() {
            tracing::warn!(why, folder = %self.settings.state_dir.display(), "files that vanish are not copied any more");
        }
        self.spilling.stopped = Some((why, now + PAUSE));
    }

    /// Copies on; returns the bytes copied, at least one.
    fn copy(&mut self, most: u64, now: Instant) -> u64 {
        let Some(mut copying) = self.spilling.copying.take() else {
            return 1;
        };
        let Some(container) = self.containers.get_mut(&copying.key) else {
            return 1;
        };
        let mut copied = 1;
        while copied < most {
            let from = copying.writer.end();
            let read = {
                let into = self.buffer.get_mut(..BUFFER).unwrap_or_default();
                container
                    .chain
                    .read(copying.number, from, into, true, &mut copying.reader)
            };
            let data = match &read {
                Ok(read) => self.buffer.get(..*read).unwrap_or_default(),
                // It is there, and can be read when there are descriptors.
                Err(error) if is_shortage(error) => {
                    self.stop_spilling(error.to_string(), now);
                    self.spilling.look.insert(copying.key);
                    return copied;
                }
                Err(error) => {
                    tracing::warn!(container = %copying.key, %error, "a vanishing log file cannot be read on: what was read is kept");
                    &[]
                }
            };
            if data.is_empty() {
                let is_damaged = |(_, file): &(u32, Compressed)| file.is_damaged();
                let whole = read.is_ok() && !copying.reader.as_ref().is_some_and(is_damaged);
                let ended = copying.writer.finish(whole);
                self.keep(&copying.key, copying.number, ended, now);
                return copied;
            }
            copied += data.len() as u64;
            if let Err(error) = copying.writer.append(data) {
                self.stop_spilling(error.to_string(), now);
                self.spilling.look.insert(copying.key);
                return copied;
            }
        }
        if !self.spilling.store.has_reserve() {
            self.stop_spilling("less than 15 % of its file system is free".to_owned(), now);
            self.spilling.look.insert(copying.key);
        } else if let Err(error) = copying.writer.sync() {
            self.stop_spilling(error.to_string(), now);
            self.spilling.look.insert(copying.key);
        } else {
            self.spilling.copying = Some(copying);
        }
        copied
    }

    fn keep(&mut self, key: &Arc<ContainerKey>, number: u32, ended: std::io::Result<Spilled>, now: Instant) {
        match ended {
            Ok(spilled) => {
                if self.spilling.stopped.take().is_some() {
                    tracing::info!("files that vanish are copied again");
                }
                if let Some(container) = self.containers.get_mut(key) {
                    container.chain.keep(number, spilled);
                    for id in &container.cursors {
                        // A decompressor holds a descriptor of its own.
                        if let Some(cursor) = self.cursors.get_mut(id) {
                            cursor.reader = None;
                        }
                    }
                } else {
                    spilled.remove();
                }
            }
            Err(error) => self.stop_spilling(error.to_string(), now),
        }
        // There may be more to copy of it.
        self.spilling.look.insert(Arc::clone(key));
    }

    /// No copy can be made of a generation: it is held open for as long as its file system has room, and then
    /// read to its end and counted. What is under way to Loki by then is not given up.
    fn give_up(&mut self, key: &Arc<ContainerKey>, number: u32, danger: Danger, now: Instant) {
        let Some(container) = self.containers.get_mut(key) else {
            return;
        };
        let has_room = self.settings.log_root.as_deref().is_none_or(has_reserve);
        if !container.chain.is_pinned(number, danger.gone) || has_room {
            return;
        }
        let (mut all_passed, mut came_back) = (true, Vec::new());
        for id in container.cursors.clone() {
            all_passed &= self.read_past(id, number, now, &mut came_back);
        }
        if !all_passed {
            // Those that came back read the same lines again.
            return;
        }
        for (id, lost) in came_back {
            self.count_as_lost(id, lost);
        }
        if let Some(container) = self.containers.get_mut(key) {
            container.chain.abandon(number);
            self.spilling.look.insert(Arc::clone(key));
        }
    }

    /// Reads a cursor past a generation by the ordinary way, counting instead of sending; one that is still before
    /// it comes back, since what is older has its copy, and is not counted yet. False when it could not be read to its
    /// end.
    fn read_past(
        &mut self,
        id: CursorId,
        number: u32,
        now: Instant,
        came_back: &mut Vec<(CursorId, Lines)>,
    ) -> bool {
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return true;
        };
        let container = self.containers.get(&cursor.container);
        let Some(found) = container.and_then(|container| container.chain.at_or_after(number)) else {
            return true;
        };
        let begin = found.beginning();
        let has_read = cursor.position > begin;
        if has_read && !cursor.is_settled() && cursor.watermark().position.generation <= number {
            // They may still arrive; if this process ends before, their file is gone.
            let last = cursor.previous.unwrap_or_default();
            self.journal.append(&Record::UnderWay(id, Some(last)));
            cursor.under_way = Some(number);
        }
        if cursor.position.generation > number {
            return true;
        }
        self.stirred.insert(Arc::clone(&cursor.container));
        let detour = (cursor.position < begin).then(|| cursor.detour(begin));
        cursor.outlet.lost = Some((0, 0));
        let passed = loop {
            let step = self.step(id, now);
            let Some(cursor) = self.cursors.get(&id) else {
                return true;
            };
            if cursor.position.generation > number || matches!(step, Step::Finished) {
                break true;
            }
            if !matches!(step, Step::Read(_)) {
                break false;
            }
        };
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return true;
        };
        let lost = cursor.outlet.lost.take().unwrap_or_default();
        if let Some(detour) = detour {
            cursor.come_back(detour);
            came_back.push((id, lost));
        } else {
            self.count_as_lost(id, lost);
        }
        passed
    }

    fn count_as_lost(&mut self, id: CursorId, (lines, bytes): Lines) {
        let Some(cursor) = self.cursors.get(&id).filter(|_| lines > 0) else {
            return;
        };
        tracing::warn!(container = %cursor.container, pipeline = %cursor.pipeline.name, lines, bytes,
            "no space is left to keep lines that Loki does not take: given up");
        let count = Count::Lost {
            reason: NO_SPACE.to_owned(),
            lines,
            bytes,
        };
        self.journal.append(&Record::Counted(cursor.output(), count));
    }

    /// Tries again after a pause, and forgets a trouble that does not come back.
    pub(super) fn spill_again(&mut self, ids: &[CursorId], now: Instant) {
        if self
            .spilling
            .stopped
            .as_ref()
            .is_some_and(|(_, until)| *until + PAUSE < now)
        {
            self.spilling.stopped = None;
        }
        let cursors = ids.iter().filter_map(|id| self.cursors.get(id));
        let behind = cursors.filter(|cursor| {
            let container = self.containers.get(&cursor.container);
            container.is_some_and(|container| is_waiting(cursor, container))
        });
        self.spilling
            .look
            .extend(behind.map(|cursor| Arc::clone(&cursor.container)));
    }
}

/// Those of these cursors whose lines wait for their delivery, and whether one of them has stood still for long.
fn waiting(
    container: &Container,
    cursors: &mut BTreeMap<CursorId, Cursor>,
    now: Instant,
) -> (Vec<CursorId>, bool) {
    let (mut waiting, mut stands) = (Vec::new(), false);
    for id in &container.cursors {
        let Some(cursor) = cursors.get_mut(id) else {
            continue;
        };
        if is_waiting(cursor, container) {
            waiting.push(*id);
        }
        if cursor.is_behind() {
            stands |= cursor.stands_for(now) >= STANDS;
        } else {
            cursor.stands = None;
        }
    }
    (waiting, stands)
}

/// Whether lines of a cursor wait, or what files got late waits for the end of a line that is still written.
fn is_waiting(cursor: &Cursor, container: &Container) -> bool {
    cursor.is_behind() || container.chain.is_late_after(cursor.position.generation)
}

/// Where a cursor was before it looked at something younger.
pub(super) struct Detour {
    position: Position,
    previous: Option<Timestamp>,
    joiner: Joiner,
    long: Option<Long>,
    waits: Option<Timestamp>,
    tail: Vec<u8>,
    gap: Option<Gap>,
    expired: Vec<(Position, u64)>,
}

impl Cursor {
    fn detour(&mut self, to: Position) -> Detour {
        let detour = Detour {
            position: self.position,
            previous: self.previous,
            joiner: self.joiner.clone(),
            long: self.long,
            waits: self.waits,
            tail: std::mem::take(&mut self.tail),
            gap: self.gap.take(),
            expired: self.expired.clone(),
        };
        self.joiner.forget();
        (self.position, self.long, self.reader) = (to, None, None);
        detour
    }

    fn come_back(&mut self, detour: Detour) {
        (self.position, self.previous, self.joiner) = (detour.position, detour.previous, detour.joiner);
        (self.long, self.waits, self.tail, self.gap) = (detour.long, detour.waits, detour.tail, detour.gap);
        self.expired = detour.expired;
        self.reader = None;
    }
}
