//! What is in force, what is known of pods and what is found on disk in, cursors out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_engine::document::{Namespace, Pipeline, StartAt};
use sluice_engine::key::Key;
use sluice_engine::labels::ContainerFacts;
use sluice_engine::report::GapCause;

use super::Sink;
use super::choices::{replay, returning};
use super::container::Container;
use super::core::{Core, Lane};
use super::cursor::{Cursor, State};
use super::gaps::Backlog;
use crate::checkpoint::ledger::Entry;
use crate::checkpoint::record::{Identity, Output, Record, StreamBound, Watermark};
use crate::config::InForce;
use crate::discover::names::{ContainerKey, LogName, PodFolder};
use crate::metadata::PodFacts;
use crate::process::select::{Knowledge, Selected, select};
use crate::process::{Choice, rules_hash};
use crate::spill::record::Head;
use crate::tail::chain::Place;
use crate::tail::position::{CursorId, Mark, Position};

/// How long until a folder that changed while it was read is listed again.
const AGAIN: Duration = Duration::from_millis(100);

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// What is known of a container for its labels.
pub(super) fn container_facts<'a>(
    key: &'a ContainerKey,
    pod: &'a PodFolder,
    namespace: Option<&'a Namespace>,
    facts: Option<&'a PodFacts>,
    node: &'a str,
) -> ContainerFacts<'a> {
    ContainerFacts {
        namespace: &pod.namespace,
        namespace_labels: namespace.map_or(&NO_LABELS, |namespace| &namespace.labels),
        pod: &pod.pod,
        pod_labels: facts.map_or(&NO_LABELS, |facts| &facts.labels),
        controller: facts.and_then(|facts| facts.controller.as_deref()),
        container: &key.container,
        node,
    }
}

/// The document's entry of a namespace.
pub(super) fn namespace<'a>(pipeline: &'a Pipeline, name: &str) -> Option<&'a Namespace> {
    pipeline
        .pods
        .namespaces
        .iter()
        .find(|namespace| namespace.name == name)
}

fn identity(key: &ContainerKey, pipeline: &Pipeline, tenant: &Key) -> Identity {
    Identity {
        folder: key.folder.clone(),
        container: key.container.clone(),
        pipeline: pipeline.uid.clone(),
        tenant: tenant.to_string(),
    }
}

impl<S: Sink> Core<S> {
    pub(super) fn configure(&mut self, config: Arc<InForce>, now: Instant) {
        for entry in &config.tenants {
            let tenant = Arc::clone(&entry.tenant);
            self.sink.set_tenant(&tenant);
            if let Some(lane) = self.tenants.get_mut(&tenant.name) {
                lane.tenant = tenant;
                continue;
            }
            let returning = returning(self.journal.ledger(), &tenant.name);
            for (labels, bound) in self.journal.ledger().bounds_of(&tenant.name) {
                let cursors = returning.get(labels).copied().unwrap_or_default();
                self.sink.restore(&tenant.name, labels, bound, cursors);
            }
            self.tenants.insert(
                tenant.name.clone(),
                Lane {
                    tenant,
                    ready: VecDeque::new(),
                    since: now,
                    acknowledged: None,
                    held: false,
                },
            );
        }
        for pipeline in &config.pipelines {
            if !self.journal.ledger().pipelines.contains(&pipeline.uid) {
                self.journal.append(&Record::PipelineSeen(pipeline.uid.clone()));
                self.fresh.insert(pipeline.uid.clone(), now);
            }
        }
        self.uncount(&config);
        self.config = config;
        let keys: Vec<_> = self.containers.keys().cloned().collect();
        for key in &keys {
            self.withdraw(key);
        }
        self.relist.extend(keys);
        let config = Arc::clone(&self.config);
        let gone = |key: &Key| !config.tenants.iter().any(|entry| entry.tenant.name == *key);
        for key in self
            .tenants
            .keys()
            .filter(|key| gone(key))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.sink.remove_tenant(&key);
            self.tenants.remove(&key);
            let journal = &mut self.journal;
            let streams: Vec<String> = journal
                .ledger()
                .bounds_of(&key)
                .map(|(labels, _)| labels.to_owned())
                .collect();
            for labels in streams {
                journal.append(&Record::Bound(StreamBound {
                    tenant: key.to_string(),
                    labels,
                    seconds: None,
                }));
            }
        }
    }

    /// Ends the cursors of a container that are not, or no longer, to be; the others get their pipeline's
    /// newest content.
    pub(super) fn withdraw(&mut self, key: &ContainerKey) {
        let Some(container) = self.containers.get(key) else {
            return;
        };
        let mut ended = Vec::new();
        for id in &container.cursors {
            let Some(cursor) = self.cursors.get_mut(id) else {
                continue;
            };
            let pipeline = self
                .config
                .pipelines
                .iter()
                .find(|pipeline| pipeline.uid == cursor.pipeline.uid);
            let tenant = self
                .config
                .tenants
                .iter()
                .find(|entry| entry.tenant.name == *cursor.tenant);
            let facts = self.pods.get(key.pod_folder());
            let known = facts.map_or(Knowledge::Missing { collected: true }, Knowledge::Facts);
            let (pod, name) = (&container.pod, &key.container);
            let kept = pipeline.zip(tenant).filter(|(pipeline, _)| {
                pipeline.tenants.contains(&cursor.tenant)
                    && select(pipeline, &self.config.deny, pod, name, known) == Selected::Yes
            });
            let Some((pipeline, tenant)) = kept else {
                ended.push(*id);
                continue;
            };
            let namespace = namespace(pipeline, &pod.namespace);
            let limits = &tenant.tenant.limits;
            cursor.joiner.limit(limits.max_line_bytes);
            cursor.outlet.limit(&tenant.tenant);
            cursor.not_before = namespace
                .and_then(|namespace| namespace.created_at)
                .unwrap_or(i64::MIN);
            cursor.pod_known = facts.is_some() || !pipeline.labels.need_pod();
            let facts = container_facts(key, pod, namespace, facts, &self.settings.node_name);
            cursor.rules = rules_hash(&pipeline.labels, &facts, limits);
            cursor.pipeline = Arc::clone(pipeline);
        }
        for id in ended {
            self.remove_cursor(id);
        }
    }

    /// Ends a cursor; the journal keeps its position.
    pub(super) fn remove_cursor(&mut self, id: CursorId) {
        if let Some(cursor) = self.cursors.get_mut(&id) {
            cursor.tell_gap(&mut self.journal);
        }
        self.write_position(id);
        let Some(mut cursor) = self.cursors.remove(&id) else {
            return;
        };
        self.sink.drop_cursor(id);
        self.unblock();
        cursor.outlet.has_returned(&mut self.sink);
        if let Some(lane) = self.tenants.get_mut(&*cursor.tenant) {
            // Made again it has the same identifier, and would get two turns.
            lane.ready.retain(|other| *other != id);
        }
        for stream in cursor.outlet.choices.iter().flat_map(Choice::open) {
            self.sink.close_stream(stream);
        }
        self.stirred.insert(Arc::clone(&cursor.container));
        if let Some(container) = self.containers.get_mut(&cursor.container) {
            container.cursors.retain(|other| *other != id);
            if container.cursors.is_empty() && container.parked.is_none() {
                // With nobody to notice what happens to the files, what is known of them grows old.
                container.chain.forget();
            }
        }
    }

    pub(super) fn list_again(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.relist) {
            if self.containers.get(&key).is_some_and(|container| container.gone) {
                let (wanted, parked) = self.wanted(&key, now);
                if let Some(container) = self.containers.get_mut(&key) {
                    container.parked = parked;
                }
                self.admit(&key, wanted, now);
                continue;
            }
            let mut found = Vec::new();
            self.discovery.list(&key, &mut found);
            for found in found {
                self.found(found, now);
            }
        }
    }

    /// Takes in the files of a container that somebody wants, and gives each who wants them a cursor.
    pub(super) fn listed(&mut self, key: &Arc<ContainerKey>, names: Vec<LogName>, now: Instant) {
        let Some(pod) = PodFolder::parse(&key.folder) else {
            return;
        };
        if self.settings.own_pod_uid.as_ref() == Some(&pod.uid) {
            return;
        }
        let Some(root) = self.discovery.root(key) else {
            return;
        };
        let early = !self.swept;
        let container = self
            .containers
            .entry(Arc::clone(key))
            .or_insert_with(|| Container::new(root, Arc::clone(key), pod, early, now));
        (container.gone, container.listed) = (false, true);
        let (wanted, parked) = self.wanted(key, now);
        let Some(container) = self.containers.get_mut(key) else {
            return;
        };
        container.parked = parked;
        if wanted.is_empty() && parked.is_none() && container.cursors.is_empty() {
            return;
        }
        let from = if wanted.is_empty() && parked.is_none() {
            let marks = container.cursors.iter().filter_map(|id| self.cursors.get(id));
            marks
                .map(|cursor| cursor.watermark().position.generation)
                .min()
                .unwrap_or(0)
        } else {
            0
        };
        let youngest = container.chain.youngest();
        let complete = container.chain.reconcile(&names, from);
        // Without descriptors the next sweep lists it again.
        if !complete && !self.discovery.is_starved() {
            self.again.insert(Arc::clone(key));
            self.retry.get_or_insert(now + AGAIN);
        }
        if container.names != names || !complete || container.chain.youngest() != youngest {
            container.stir(now);
        } else {
            container.next_poll = Some(now);
        }
        container.names = if complete { names } else { Vec::new() };
        self.stirred.insert(Arc::clone(key));
        self.spilling.look.insert(Arc::clone(key));
        // With what is missing unknown, a cursor could take a younger file for its own.
        if complete {
            self.admit(key, wanted, now);
        }
    }

    /// The outputs that want a container and have no cursor, and until when others wait for its facts.
    fn wanted(&self, key: &ContainerKey, now: Instant) -> (Vec<(Arc<Pipeline>, Key)>, Option<Instant>) {
        let (mut wanted, mut parked) = (Vec::new(), None);
        let Some(container) = self.containers.get(key) else {
            return (wanted, parked);
        };
        let facts = self.pods.get(key.pod_folder());
        let since = self
            .synced
            .map_or(container.first_seen, |synced| synced.max(container.first_seen));
        let deadline = since + self.settings.pod_facts_wait;
        for pipeline in &self.config.pipelines {
            for tenant in &pipeline.tenants {
                let has = |id: &CursorId| {
                    self.cursors
                        .get(id)
                        .is_some_and(|c| c.pipeline.uid == pipeline.uid && *c.tenant == *tenant)
                };
                if !self.tenants.contains_key(tenant) || container.cursors.iter().any(has) {
                    continue;
                }
                let known = match facts {
                    Some(facts) => Knowledge::Facts(facts),
                    None if now < deadline => Knowledge::Awaited,
                    None => Knowledge::Missing {
                        collected: self
                            .journal
                            .ledger()
                            .find(&identity(key, pipeline, tenant))
                            .is_some(),
                    },
                };
                match select(pipeline, &self.config.deny, &container.pod, &key.container, known) {
                    Selected::Yes => wanted.push((Arc::clone(pipeline), tenant.clone())),
                    Selected::Unknown => parked = Some(deadline),
                    Selected::No => {}
                }
            }
        }
        (wanted, parked)
    }

    /// Lists containers anew whose pods' facts were waited for long enough.
    pub(super) fn unpark(&mut self, now: Instant) {
        for key in &self.stirred {
            let container = self.containers.get_mut(key);
            if let Some(container) = container.filter(|one| one.parked.is_some_and(|until| until <= now)) {
                container.parked = None;
                self.relist.insert(Arc::clone(key));
            }
        }
    }

    /// Gives each of these outputs a cursor of a container, where the journal says or where its rules begin.
    fn admit(&mut self, key: &Arc<ContainerKey>, wanted: Vec<(Arc<Pipeline>, Key)>, now: Instant) {
        self.stirred.insert(Arc::clone(key));
        for (pipeline, tenant) in wanted {
            let identity = identity(key, &pipeline, &tenant);
            let known = self.journal.ledger().find(&identity);
            let id = known.unwrap_or_else(|| CursorId(self.journal.ledger().next));
            if known.is_none() {
                self.journal.append(&Record::Defined(id, identity));
            }
            let Some(lane) = self.tenants.get_mut(&tenant) else {
                continue;
            };
            let Some(container) = self.containers.get_mut(key) else {
                continue;
            };
            let limits = &lane.tenant.limits;
            let mut cursor = Cursor::new(
                id,
                Arc::clone(key),
                Arc::clone(&pipeline),
                Arc::new(tenant),
                limits.max_line_bytes,
            );
            cursor.outlet.limit(&lane.tenant);
            let namespace = namespace(&pipeline, &container.pod.namespace);
            cursor.not_before = namespace
                .and_then(|namespace| namespace.created_at)
                .unwrap_or(i64::MIN);
            let facts = self.pods.get(key.pod_folder());
            cursor.pod_known = facts.is_some() || !pipeline.labels.need_pod();
            let facts = container_facts(key, &container.pod, namespace, facts, &self.settings.node_name);
            cursor.rules = rules_hash(&pipeline.labels, &facts, limits);

            let entry = self.journal.ledger().cursors.get(&id).cloned();
            let mut begins_at_end = false;
            if let Some(mark) = entry.as_ref().and_then(|entry| entry.watermark.as_ref()) {
                let left = entry.as_ref().and_then(|entry| entry.left.as_deref());
                if let Err(cause) = restore(&mut cursor, container, mark, left, now) {
                    tracing::warn!(container = %key, pipeline = %pipeline.name, ?cause,
                        "the file that was read last is gone, or a part of it: going on with the oldest that is left");
                    *self.figures.resets.entry("position_lost").or_default() += 1;
                    cursor.misses(&container.pod, cause);
                }
            } else {
                if self.journal.set_aside.is_some() && container.early && known.is_none() {
                    cursor.misses(&container.pod, GapCause::CheckpointDamaged);
                }
                let seen = self.fresh.get(&pipeline.uid);
                let existed = seen.is_some_and(|seen| container.early || container.first_seen <= *seen);
                // What is spooled was asked for already by where the pipeline begins.
                let at_end = existed && pipeline.pods.start_at == StartAt::Now && !key.is_spooled();
                (cursor.position, begins_at_end) = beginning(container, &cursor.output(), at_end);
            }
            if let Some(last) = entry.as_ref().and_then(|entry| entry.under_way) {
                cursor.tell_given_up(last, &container.pod, &mut self.journal);
            }
            if let Some(entry) = &entry {
                choose_again(&mut cursor, container, entry, &mut self.sink);
            }
            if self.returned.insert(id) {
                cursor.outlet.returns();
            }
            cursor.dirty = begins_at_end;
            cursor.backlog = Backlog::of(entry.is_some_and(|entry| entry.behind));
            cursor.state = State::Ready;
            lane.ready.push_back(id);
            container.cursors.push(id);
            container.stir(now);
            self.cursors.insert(id, cursor);
            if begins_at_end {
                self.write_position(id);
            }
        }
    }

    /// Everything on disk has been listed: what the journal knows beyond is gone.
    pub(super) fn swept(&mut self) {
        if !std::mem::replace(&mut self.swept, true) {
            self.forget_vanished();
            // Copies of what has no folder any more.
            for (key, container) in &mut self.containers {
                if !container.listed {
                    container.gone = true;
                    self.relist.insert(Arc::clone(key));
                }
            }
        }
        let containers = &self.containers;
        let (pods, deleted) = (&mut self.pods, &mut self.pods_deleted);
        deleted.retain(|folder| {
            let needed = containers.keys().any(|key| key.pod_folder() == folder);
            if !needed {
                pods.remove(folder);
            }
            needed
        });
    }
}

/// Where an output begins of whose lines nothing is acknowledged, or of which the journal no longer knows; and
/// whether that is the end of what there is.
fn beginning(container: &mut Container, output: &Output, at_end: bool) -> (Position, bool) {
    let chain = &mut container.chain;
    match chain.spilled_for(|head| head.outputs.contains(output)) {
        Some(kept) => (kept, false),
        None if at_end => {
            let end = chain.end();
            chain.leave_below(end.generation, None, |_| false);
            (end, true)
        }
        None => (chain.beginning(), false),
    }
}

/// Gives a cursor the choices that the journal has of it.
fn choose_again<S: Sink>(cursor: &mut Cursor, container: &Container, entry: &Entry, sink: &mut S) {
    for choice in &entry.choices {
        let from = choice.from.and_then(|place| container.chain.locate(&place));
        if let Some(choice) = replay(choice, from.unwrap_or_default(), &cursor.tenant, sink) {
            cursor.outlet.choose(choice);
        }
    }
    for flush in &entry.flushes {
        let at = container.chain.locate(&flush.place).unwrap_or_default();
        cursor.flushed.push((at, flush.slot));
    }
}

/// Puts a cursor where the journal says, or behind what is gone of that; says why it is.
fn restore(
    cursor: &mut Cursor,
    container: &mut Container,
    mark: &Watermark,
    left: Option<&[Place]>,
    now: Instant,
) -> Result<(), GapCause> {
    cursor.previous = mark.previous;
    let found = container.chain.find(&mark.place, mark.before);
    cursor.position = found.unwrap_or_else(|gone| gone.next);
    let output = cursor.output();
    let is_output = |head: &Head| head.outputs.contains(&output);
    container
        .chain
        .leave_below(cursor.position.generation, left, is_output);
    if let Some(resume) = mark.resume.filter(|_| found.is_ok()) {
        let mark = Mark {
            position: cursor.position,
            previous: mark.previous,
            resume: Some(resume),
        };
        cursor.joiner.resume(mark, resume, now);
    }
    // Copies that are not needed any more can go, though nothing follows.
    cursor.journaled = found.ok().map(|_| cursor.watermark());
    match found {
        Ok(_) => Ok(()),
        Err(gone) if gone.cut => Err(GapCause::FileRewritten),
        Err(_) => Err(GapCause::FilesDeleted),
    }
}
