//! The worker's state, and one turn of it: what changed is taken in, lines are read while there is room,
//! requests are handed out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::document::Tenant;
use sluice_engine::key::Key;

use super::container::Container;
use super::cursor::{Cursor, State, TAIL};
use super::spilling::Spilling;
use super::tick::bound_record;
use super::{Command, Sink, WorkerSettings};
use crate::batch::{Fate, Outcome};
use crate::checkpoint::journal::{Journal, StartError};
use crate::checkpoint::record::{Count, Record};
use crate::config::InForce;
use crate::discover::Found;
use crate::discover::names::ContainerKey;
use crate::discover::roots::Roots;
use crate::metadata::{PodChange, PodFacts};
use crate::status::figures::Figures;
use crate::tail::position::CursorId;

/// What is read at once; a line that fills it is taken piecewise.
pub(super) const BUFFER: usize = 256 << 10;
/// Bytes read in one turn, so that commands do not wait.
const TURN: usize = 4 << 20;
/// How often positions are written and clocks looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often containers are looked at of which nothing is expected.
const WHOLE: Duration = Duration::from_mins(1);

/// Everything between the files and the requests.
#[derive(Debug)]
pub struct Core<S> {
    pub(super) settings: WorkerSettings,
    pub(super) sink: S,
    pub(super) journal: Journal,
    pub(super) discovery: Roots,
    pub(super) config: Arc<InForce>,
    pub(super) tenants: BTreeMap<Key, Lane>,
    /// By the pods' folders in the log root.
    pub(super) pods: HashMap<String, PodFacts>,
    pub(super) pods_deleted: BTreeSet<String>,
    pub(super) synced: Option<Instant>,
    /// Pipelines that this agent had never seen, and when it did.
    pub(super) fresh: BTreeMap<String, Instant>,
    pub(super) containers: BTreeMap<Arc<ContainerKey>, Container>,
    pub(super) spilling: Spilling,
    pub(super) cursors: BTreeMap<CursorId, Cursor>,
    pub(super) swept: bool,
    pub(super) buffer: Vec<u8>,
    /// Cursors that decompress, and when each did last; the one that did last stands at the end.
    pub(super) readers: VecDeque<(CursorId, Instant)>,
    pub(super) next_tick: Option<Instant>,
    pub(super) retry: Option<Instant>,
    /// Containers to be listed in the next turn, and those to be listed after a pause.
    pub(super) relist: BTreeSet<Arc<ContainerKey>>,
    pub(super) again: BTreeSet<Arc<ContainerKey>>,
    /// Cursors of this process: one made again has sent nothing before a restart that was not waited for.
    pub(super) returned: BTreeSet<CursorId>,
    /// Cursors whose streams have enough waiting.
    pub(super) held: Vec<CursorId>,
    pub(super) draining: bool,
    /// Something happened since that was asked last.
    busy: bool,
    /// Containers of which something is to be done at some time, whatever happens: what rests is not looked at.
    pub(super) stirred: BTreeSet<Arc<ContainerKey>>,
    /// When all of them were.
    all_stirred: Option<Instant>,
    pub(super) figures: Figures,
    /// Lines and bytes delivered since the process began, by the pipeline's UID and the tenant.
    pub(super) delivered: BTreeMap<(String, Key), (u64, u64)>,
}

/// One tenant's cursors that have something to read.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tenant: Arc<Tenant>,
    pub(super) ready: VecDeque<CursorId>,
    /// When it came into force, and when Loki took something last.
    pub(super) since: Instant,
    pub(super) acknowledged: Option<Instant>,
    /// There was no room for the first of them: it keeps its turn, and the others theirs behind it.
    pub(super) held: bool,
}

impl Lane {
    /// Whether one of its cursors may read now.
    pub(super) fn has_turn(&self) -> bool {
        !self.held && !self.ready.is_empty()
    }

    /// Takes out the first that need not wait for others.
    pub(super) fn take_first(&mut self, waits: impl Fn(&CursorId) -> bool) -> Option<CursorId> {
        for _ in 0..self.ready.len() {
            let id = self.ready.pop_front()?;
            if !waits(&id) {
                return Some(id);
            }
            self.ready.push_back(id);
        }
        None
    }
}

impl<S: Sink> Core<S> {
    /// A worker that has read its journal and nothing else.
    ///
    /// # Errors
    /// When the state folder cannot be used.
    pub fn new(settings: WorkerSettings, sink: S) -> Result<Self, StartError> {
        let journal = Journal::open(&settings.state_dir)?;
        let discovery = Roots::new(
            settings.log_root.clone(),
            &settings.link_roots,
            settings.follow_root.clone(),
        );
        let (spilling, kept) = Spilling::begin(&settings.state_dir, &discovery, Instant::now())?;
        let mut figures = Figures::default();
        if spilling.damaged() > 0 {
            figures.resets.insert("spill_damaged", spilling.damaged().into());
        }
        if journal.set_aside.is_some() {
            figures.resets.insert("journal_corrupt", 1);
        }
        Ok(Self {
            settings,
            sink,
            journal,
            discovery,
            config: Arc::default(),
            tenants: BTreeMap::new(),
            pods: HashMap::new(),
            pods_deleted: BTreeSet::new(),
            synced: None,
            fresh: BTreeMap::new(),
            containers: kept
                .into_iter()
                .map(|container| (Arc::clone(&container.key), container))
                .collect(),
            spilling,
            cursors: BTreeMap::new(),
            swept: false,
            buffer: vec![0; TAIL + BUFFER],
            readers: VecDeque::new(),
            next_tick: None,
            retry: None,
            relist: BTreeSet::new(),
            again: BTreeSet::new(),
            returned: BTreeSet::new(),
            held: Vec::new(),
            draining: false,
            busy: false,
            stirred: BTreeSet::new(),
            all_stirred: None,
            figures,
            delivered: BTreeMap::new(),
        })
    }

    /// Goes on as where the kernel has no watches left.
    pub fn without_watches(&mut self) {
        self.discovery.without_watches();
    }

    /// Where entries go.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// The descriptors that tell of changed folders; while draining nobody would hear them, and sleep on them.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.discovery.descriptors().filter(|_| !self.draining)
    }

    /// Takes a command in. [`Command::Drain`]'s deadline is the caller's to keep.
    pub fn command(&mut self, command: Command, now: Instant) {
        self.busy = true;
        match command {
            Command::Config(config) => self.configure(config, now),
            Command::Pod(change) => self.pod(change, now),
            Command::Outcome(outcome) => self.outcome(outcome, now),
            Command::Vanished(vanished) => self.vanished(vanished),
            Command::Drain(_) => {
                self.draining = true;
                self.sink.drain();
            }
        }
    }

    /// One turn; requests go to `send`. Returns when to come again at the latest.
    pub fn turn(&mut self, now: Instant, send: &dyn Fn(S::Batch)) -> Instant {
        if !self.draining {
            for found in self.discovery.turn(now) {
                self.busy = true;
                self.found(found, now);
            }
            self.unpark(now);
            if self.retry.is_some_and(|due| due <= now) {
                self.retry = None;
                self.unblock();
                self.relist.append(&mut self.again);
            }
            self.list_again(now);
            self.poll(now);
            let (mut budget, mut sealed) = (TURN, TURN);
            while budget > 0 && self.visit(&mut budget, now) {
                self.busy = true;
                // What is full goes out, which may make room for what waits.
                if sealed - budget >= BUFFER || self.tenants.values().any(|lane| lane.held) {
                    self.seal(now, send);
                    sealed = budget;
                }
            }
        }
        self.seal(now, send);
        self.spill(now);
        if self.next_tick.is_none_or(|due| due <= now) {
            self.tick(now);
            self.next_tick = Some(now + TICK);
        }
        self.next_due(now)
    }

    /// Whether nothing more is to be waited for when draining.
    pub fn is_settled(&self) -> bool {
        !self.spilling.is_busy() && self.cursors.values().all(Cursor::is_settled)
    }

    /// Whether anything happened since this was asked last that figures may tell of.
    pub fn was_busy(&mut self) -> bool {
        std::mem::take(&mut self.busy) || self.spilling.is_busy()
    }

    /// Writes all positions and makes them durable.
    pub fn save(&mut self) {
        self.write_positions();
        let all: Vec<_> = self.cursors.keys().copied().collect();
        self.note_backlogs(&all);
        self.journal.sync();
    }

    fn seal(&mut self, now: Instant, send: &dyn Fn(S::Batch)) {
        let mut sealed = false;
        while let Some(batch) = self.sink.seal(now) {
            self.remember_bounds();
            // A replay must make the same choices: they are on disk before the first line that shows them.
            self.journal.sync_urgent();
            send(batch);
            sealed = true;
        }
        if sealed {
            self.unblock();
        }
    }

    /// Journals how new the lines of streams are, before those are sent: a line that is read later is judged by it.
    fn remember_bounds(&mut self) {
        let raised = self.sink.raised();
        if raised.is_empty() {
            return;
        }
        // What is acknowledged must not be judged anew by a bound that it was not judged by.
        self.write_positions();
        for bound in &raised {
            let record = bound_record(bound, Some(bound.seconds));
            self.journal.append_urgent(&Record::Bound(record));
        }
    }

    fn outcome(&mut self, outcome: Outcome, now: Instant) {
        let mut rejected = match &outcome.fate {
            Fate::Ended(rejected) => rejected.clone(),
            Fate::Waits(_) => Vec::new(),
        };
        if matches!(outcome.fate, Fate::Ended(_))
            && let Some(lane) = self.tenants.get_mut(&*outcome.tenant)
        {
            lane.acknowledged = Some(now);
        }
        for finished in self.sink.complete(outcome) {
            let Some(cursor) = self.cursors.get_mut(&finished.cursor) else {
                continue;
            };
            let Some((mut lines, bytes)) = cursor.finish(finished) else {
                continue;
            };
            self.stirred.insert(Arc::clone(&cursor.container));
            let total = self
                .delivered
                .entry((cursor.pipeline.uid.clone(), (*cursor.tenant).clone()))
                .or_default();
            // Loki names no lines: a request's refusals are counted on its first pieces.
            for (reason, left) in &mut rejected {
                let share = (*left).min(lines);
                if share > 0 {
                    let count = Count::Rejected {
                        reason: (*reason).to_owned(),
                        lines: share,
                    };
                    self.journal.append(&Record::Counted(cursor.output(), count));
                    *left -= share;
                    lines -= share;
                }
            }
            total.0 += lines;
            if lines > 0 {
                total.1 += bytes;
            }
        }
        self.unblock();
    }

    /// Lets those who wait for room try again.
    pub(super) fn unblock(&mut self) {
        for lane in self.tenants.values_mut() {
            lane.held = false;
        }
        for id in std::mem::take(&mut self.held) {
            let held = self
                .cursors
                .get_mut(&id)
                .filter(|cursor| cursor.state == State::Held);
            if let Some(cursor) = held
                && let Some(lane) = self.tenants.get_mut(&*cursor.tenant)
            {
                cursor.state = State::Ready;
                lane.ready.push_back(id);
            }
        }
    }

    fn pod(&mut self, change: PodChange, now: Instant) {
        let folder = match change {
            PodChange::Applied(facts) => {
                let folder = facts.folder();
                self.pods_deleted.remove(&folder);
                if self
                    .pods
                    .insert(folder.clone(), *facts.clone())
                    .is_some_and(|known| known == *facts)
                {
                    return;
                }
                folder
            }
            PodChange::Deleted(folder) => {
                // Its files outlive it, and its facts with them.
                self.pods_deleted.insert(folder);
                return;
            }
            PodChange::Synced => {
                self.synced.get_or_insert(now);
                return;
            }
        };
        let of_pod: Vec<_> = self
            .containers
            .keys()
            .filter(|key| key.pod_folder() == folder)
            .map(Arc::clone)
            .collect();
        for key in &of_pod {
            self.withdraw(key);
        }
        self.relist.extend(of_pod);
    }

    pub(super) fn found(&mut self, found: Found, now: Instant) {
        match found {
            Found::Listing(key, names) => self.listed(&key, names, now),
            Found::Grown(key) => {
                if let Some(container) = self.containers.get_mut(&key) {
                    container.stir(now);
                    self.stirred.insert(key);
                }
            }
            Found::Gone(key) => {
                if let Some(container) = self.containers.get_mut(&key) {
                    container.gone = true;
                    container.stir(now);
                    self.stirred.insert(Arc::clone(&key));
                    self.spilling.look.insert(key);
                }
            }
            Found::Swept => {
                self.swept();
                for bound in self.sink.forget(now) {
                    self.journal.append(&Record::Bound(bound_record(&bound, None)));
                }
                if self.all_stirred.is_none_or(|last| now >= last + WHOLE) {
                    self.stirred.extend(self.containers.keys().map(Arc::clone));
                    self.all_stirred = Some(now);
                }
            }
        }
    }

    fn next_due(&self, now: Instant) -> Instant {
        let always = [self.sink.next_due(now), self.next_tick];
        let due = if self.spilling.is_busy() {
            Some(now)
        } else if self.draining {
            always.into_iter().flatten().min()
        } else if !self.relist.is_empty() || self.tenants.values().any(Lane::has_turn) {
            Some(now)
        } else {
            let stirred = self.stirred.iter().filter_map(|key| self.containers.get(key));
            stirred
                .flat_map(|container| [container.next_poll, container.parked])
                .chain(always)
                .chain([self.discovery.next_due(), self.retry])
                .flatten()
                .min()
        };
        due.map_or(now + TICK, |due| due.max(now))
    }
}
