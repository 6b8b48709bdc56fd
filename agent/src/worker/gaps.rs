//! What the journal knew, what is left of it and what the API shows no more in, gaps and counts out: lines that
//! vanished unread are told.

use std::time::{SystemTime, UNIX_EPOCH};

use sluice_engine::cri::Timestamp;
use sluice_engine::report::{Gap, GapCause};

use super::core::Core;
use super::cursor::{Cursor, State};
use super::{Sink, Vanished};
use crate::checkpoint::journal::Journal;
use crate::checkpoint::record::{Output, Record};
use crate::config::InForce;
use crate::discover::names::{ContainerKey, PodFolder};
use crate::process::select::{Knowledge, Selected, select};
use crate::tail::position::CursorId;

/// What the journal says of lines that wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog {
    /// There are some.
    pub(super) now: bool,
    /// There were some when this process began.
    pub(super) at_start: bool,
}

impl Backlog {
    /// As the journal has it.
    pub(super) fn of(behind: bool) -> Self {
        Self {
            now: behind,
            at_start: behind,
        }
    }
}

impl<S: Sink> Core<S> {
    /// Journals of each cursor whether lines are known to wait: when its container is gone after a restart, that
    /// is all there is to tell a loss by.
    pub(super) fn note_backlogs(&mut self, ids: &[CursorId]) {
        for id in ids {
            let Some(cursor) = self.cursors.get_mut(id) else {
                continue;
            };
            let behind = cursor.is_behind();
            if std::mem::replace(&mut cursor.backlog.now, behind) != behind {
                self.journal.append(&Record::Behind(*id, behind));
            }
        }
    }

    /// Cursors of the journal whose containers' folders are gone end here, and what can be said of their lines
    /// is said.
    pub(super) fn forget_vanished(&mut self) {
        let known: Vec<_> = self
            .journal
            .ledger()
            .cursors
            .iter()
            .map(|(id, entry)| (*id, entry.clone()))
            .collect();
        for (id, entry) in known {
            let identity = entry.identity;
            let key = ContainerKey {
                folder: identity.folder,
                container: identity.container,
            };
            // What was copied of it is still to be sent.
            if !self.discovery.is_gone(&key)
                || self.cursors.contains_key(&id)
                || self.containers.contains_key(&key)
            {
                continue;
            }
            tracing::debug!(container = %key, "gone while away");
            let cause = if entry.behind {
                GapCause::PodDeleted
            } else {
                GapCause::PodDeletedMeanwhile
            };
            // One that never wrote a line has nothing to miss.
            if let Some(pod) = PodFolder::parse(&key.folder)
                && (entry.behind || entry.watermark.is_some())
                && self.would_collect(&identity.pipeline, &pod, &key.container)
            {
                let after = entry.watermark.and_then(|mark| mark.previous);
                let output = Output {
                    pipeline: identity.pipeline,
                    tenant: identity.tenant,
                };
                tell(&mut self.journal, output, gap(&pod, &key.container, cause, after));
            }
            self.journal.append(&Record::Dropped(id));
        }
    }

    /// Journals a gap that reading through the API came upon, of everything that its pipeline sends.
    pub(super) fn vanished(&mut self, vanished: Vanished) {
        let reader = vanished.pod.reader.as_ref();
        let mut pipelines = self.config.pipelines.iter();
        let Some(pipeline) = pipelines.find(|pipeline| Some(&pipeline.uid) == reader) else {
            return;
        };
        let mut gap = gap(&vanished.pod, &vanished.container, vanished.cause, vanished.after);
        gap.before = vanished.before.map(nanos);
        for tenant in &pipeline.tenants {
            let output = Output {
                pipeline: pipeline.uid.clone(),
                tenant: tenant.to_string(),
            };
            tell(&mut self.journal, output, gap.clone());
        }
        self.journal.sync();
        // Who told of it may have ended meanwhile.
        let _heard = vanished.told.send(());
    }

    /// Whether a pipeline would collect a container that is gone. Before the first document nothing is known of any.
    fn would_collect(&self, uid: &str, pod: &PodFolder, container: &str) -> bool {
        let pipeline = self.config.pipelines.iter().find(|pipeline| pipeline.uid == uid);
        let known = Knowledge::Missing { collected: true };
        pipeline.map_or(self.config.document.is_empty(), |pipeline| {
            select(pipeline, &self.config.deny, pod, container, known) == Selected::Yes
        })
    }

    /// Forgets the counts of pipelines that are no more.
    pub(super) fn uncount(&mut self, config: &InForce) {
        let is_gone = |uid: &str| !config.pipelines.iter().any(|pipeline| pipeline.uid == uid);
        self.delivered.retain(|(uid, _), _| !is_gone(uid));
        // Before the first document nothing is known of any pipeline.
        if config.document.is_empty() {
            return;
        }
        let counted = self.journal.ledger().counts.keys();
        let mut gone: Vec<String> = counted
            .map(|output| output.pipeline.clone())
            .filter(|uid| is_gone(uid))
            .collect();
        gone.dedup();
        for uid in gone {
            self.journal.append(&Record::Uncounted(uid));
        }
    }
}

/// Journals a gap, but for one that was told before: it is found again, perhaps in a copy of the file, when a crash
/// came before the position behind it was on disk.
fn tell(journal: &mut Journal, output: Output, gap: Gap) {
    let is_known = |known: &Gap| {
        (&known.namespace, &known.pod, &known.container) == (&gap.namespace, &gap.pod, &gap.container)
            && known.after == gap.after
    };
    let told = journal.ledger().counts.get(&output);
    if told.is_some_and(|counts| counts.gaps.iter().any(is_known)) {
        return;
    }
    tracing::warn!(
        namespace = gap.namespace,
        pod = gap.pod,
        container = gap.container,
        cause = gap.cause.as_str(),
        after = gap.after,
        before = gap.before,
        pipeline = output.pipeline,
        tenant = output.tenant,
        "lines vanished unread"
    );
    journal.append(&Record::Gap(output, gap));
}

fn gap(pod: &PodFolder, container: &str, cause: GapCause, after: Option<Timestamp>) -> Gap {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Gap {
        namespace: pod.namespace.clone(),
        pod: pod.pod.clone(),
        container: container.to_owned(),
        cause,
        after: after.map(nanos),
        before: None,
        noticed: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
    }
}

fn nanos(timestamp: Timestamp) -> i64 {
    timestamp
        .seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(timestamp.nanos.into())
}

impl Cursor {
    /// Whose counts its lines are.
    pub(super) fn output(&self) -> Output {
        Output {
            pipeline: self.pipeline.uid.clone(),
            tenant: self.tenant.to_string(),
        }
    }

    /// Lines right before the next one that will be read are gone, which is told once that is read.
    pub(super) fn misses(&mut self, pod: &PodFolder, cause: GapCause) {
        if self.gap.is_none() {
            self.gap = Some(self.new_gap(pod, cause));
        }
    }

    /// A gap right before the next line that will be read.
    pub(super) fn new_gap(&self, pod: &PodFolder, cause: GapCause) -> Gap {
        gap(pod, &self.container.container, cause, self.previous)
    }

    /// Tells of lines that were under way when their file was given up: the process that had them ended before they
    /// were acknowledged.
    pub(super) fn tell_given_up(&mut self, last: Timestamp, pod: &PodFolder, journal: &mut Journal) {
        // Its place is gone for the same reason.
        self.gap = None;
        let mut gap = self.new_gap(pod, GapCause::NoSpace);
        gap.before = Some(nanos(last));
        tell(journal, self.output(), gap);
        journal.append(&Record::UnderWay(self.outlet.id, None));
    }

    /// Tells of the gap when what follows after it is known: the first line of `data` with a timestamp.
    pub(super) fn end_gap(&mut self, data: &[u8], journal: &mut Journal) {
        let Some(gap) = &mut self.gap else {
            return;
        };
        let mut lines = data.split(|byte| *byte == b'\n');
        let first = lines.find_map(|line| self.parser.parse(line).ok().map(|line| line.timestamp));
        if let Some(first) = first {
            gap.before = Some(nanos(first));
            self.tell_gap(journal);
        }
    }

    /// Tells of the gap, once what follows after it is known, or nothing will follow.
    pub(super) fn tell_gap(&mut self, journal: &mut Journal) {
        if let Some(gap) = self.gap.take() {
            tell(journal, self.output(), gap);
        }
    }

    /// Whether lines are known to wait for their delivery.
    pub(super) fn is_behind(&self) -> bool {
        let reads = matches!(self.state, State::Ready | State::Held);
        reads || !self.is_settled() || self.joiner.all().next().is_some()
    }

    /// Whether nothing is to be done for it before something happens.
    pub(super) fn rests(&self) -> bool {
        !self.is_behind() && !self.dirty && self.gap.is_none()
    }
}
