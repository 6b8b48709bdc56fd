//! One container that a pipeline reads through the API: how it is and how its requests end in, its next request
//! out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_engine::cri::Timestamp;
use sluice_engine::report::GapCause;
use tokio::task::AbortHandle;

use super::read::{End, Missed, Outcome, Request, Rest, lock};
use super::spool::{OVERLAP, Spool};
use super::step::{self, Progress};
use super::wanted::Wanted;
use crate::discover::names::PodFolder;
use crate::metadata::backoff::Backoff;
use crate::metadata::{ContainerState, Log};

/// A container may write some seconds before kubelet says that it began.
const EARLY: i64 = 5;
/// How long a full spool waits before it is looked at again.
const FULL: Duration = Duration::from_secs(1);

/// A request under way.
#[derive(Debug)]
pub struct Open {
    /// Tells it from the others of the same container.
    pub id: u64,
    /// What was asked for.
    pub request: Request,
    /// Ends it.
    pub abort: AbortHandle,
    /// When it began.
    pub since: Instant,
    /// Since when another instance is the newest one: kubelet ends the answer, unless it came from there already.
    pub outdated: Option<Instant>,
}

/// Why nothing comes, in a word that stays and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Such as `forbidden`.
    pub class: &'static str,
    /// What the API server said.
    pub message: String,
}

/// One container.
#[derive(Debug)]
pub struct Container {
    /// Its pod.
    pub pod: PodFolder,
    /// Its name.
    pub name: String,
    /// What was read.
    pub spool: Arc<Mutex<Spool>>,
    /// Who wants it; `None` for what an earlier process left of a pod that nobody knows.
    pub wanted: Option<Wanted>,
    /// Its request.
    pub stream: Option<Open>,
    /// When its last request ended.
    pub last_turn: Option<Instant>,
    /// When its pod was gone.
    pub gone: Option<Instant>,
    /// Why its last request brought nothing, and since when that is so.
    pub trouble: Option<(Trouble, Instant)>,
    not_before: Option<Instant>,
    delays: Backoff,
    progress: Progress,
    /// What the last read of an ended instance left.
    rest: Option<Rest>,
    /// Its last request came to the end of what there was.
    at_end: bool,
    /// Number of its newest instance, when that has a log, as its pod said last.
    newest: Option<u32>,
    /// Lines before the next one are missing.
    missed: Arc<Mutex<Option<Missed>>>,
    /// What its pod took with it is told.
    buried: bool,
}

impl Container {
    /// A container whose spool is as it is.
    pub fn new(pod: PodFolder, name: String, spool: Spool) -> Self {
        let progress = Progress {
            instance: spool.instance(),
            complete: false,
        };
        Self {
            pod,
            name,
            spool: Arc::new(Mutex::new(spool)),
            wanted: None,
            stream: None,
            last_turn: None,
            gone: None,
            trouble: None,
            not_before: None,
            delays: Backoff::default(),
            progress,
            rest: None,
            at_end: false,
            newest: None,
            missed: Arc::default(),
            buried: false,
        }
    }

    /// Takes what is known of it now.
    pub fn want(&mut self, wanted: Wanted, now: Instant) {
        if let (Some(open), Some(state)) = (&mut self.stream, &wanted.state)
            && open.request.restarts != state.restarts
        {
            open.outdated.get_or_insert(now);
        }
        if self.wanted.as_ref().map(|old| &old.state) != Some(&wanted.state) {
            self.not_before = None;
        }
        if let Some(state) = &wanted.state {
            let has_log = wanted.granted && state.log != Log::None;
            self.newest = has_log.then_some(state.restarts);
            self.buried = false;
        }
        self.wanted = Some(wanted);
    }

    /// Its pod is gone: says once, when nothing more comes, why lines may be missing, and the last one before them.
    pub fn bury(&mut self) -> Option<(GapCause, Option<Timestamp>)> {
        if self.stream.is_some() || std::mem::replace(&mut self.buried, true) {
            return None;
        }
        if let Some(missed) = lock(&self.missed).take() {
            return Some((GapCause::ApiLogsGone, missed.after));
        }
        let newest = self.newest?;
        let is_last = self.progress.instance >= Some(newest);
        if is_last && self.progress.complete {
            if let Err(error) = lock(&self.spool).end() {
                tracing::debug!(pod = self.pod.pod, container = self.name, %error, "its end cannot be noted");
            }
            return None;
        }
        let cause = if is_last && self.at_end {
            GapCause::PodDeletedMeanwhile
        } else {
            GapCause::ApiLogsGone
        };
        Some((cause, lock(&self.spool).last()))
    }

    fn is_gone(&self) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_some_and(|wanted| wanted.state.is_none())
    }

    /// When it may be asked for; `None` when there is nothing to ask for.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let wanted = self.wanted.as_ref().filter(|wanted| wanted.granted)?;
        let state = wanted.state.as_ref()?;
        step::next(state, self.progress, !is_older(state, wanted.since))?;
        Some(self.not_before.unwrap_or(now))
    }

    /// Whether its spool takes nothing more; looked at again in a while.
    pub fn is_full(&mut self, now: Instant) -> bool {
        let is_full = lock(&self.spool).is_full();
        if is_full {
            self.not_before = Some(now + FULL);
        }
        is_full
    }

    /// The next request.
    pub fn request(&mut self) -> Option<Request> {
        let wanted = self.wanted.as_ref()?;
        let state = wanted.state.as_ref()?;
        let since = wanted.since.filter(|_| is_older(state, wanted.since));
        let step = step::next(state, self.progress, since.is_none())?;
        if self.progress.instance != Some(step.instance) {
            self.progress = Progress {
                instance: Some(step.instance),
                complete: false,
            };
            self.rest = None;
        }
        if step.missed {
            let after = lock(&self.spool).last();
            lock(&self.missed).get_or_insert(Missed { after });
        }
        let newest = lock(&self.spool).newest(step.instance);
        let began = state.started_at.map(|began| began.saturating_sub(EARLY));
        let from = match newest {
            // What seems to be its end may be the next one's beginning, read under its number.
            Some(newest) if step.previous => Some(newest.seconds.min(began.unwrap_or(i64::MAX))),
            Some(newest) => Some(newest.seconds),
            None => None,
        };
        let again = from.map(|from| from.saturating_sub(OVERLAP));
        let first = if step.previous { None } else { began };
        Some(Request {
            pod: self.pod.clone(),
            container: self.name.clone(),
            restarts: state.restarts,
            instance: step.instance,
            previous: step.previous,
            follow: step.growing,
            since: again.or(since),
            known_from: again.or(since).or(first).unwrap_or(i64::MIN),
            expects: newest,
            missed: Arc::clone(&self.missed),
            signs: Arc::default(),
        })
    }

    /// Takes the end of its request.
    pub fn ended(&mut self, outcome: Outcome, now: Instant) {
        let Some(open) = self.stream.take() else {
            return;
        };
        self.last_turn = Some(now);
        self.at_end = matches!(outcome.end, End::Over(_));
        if outcome.lines > 0 {
            self.delays = Backoff::default();
        }
        let trouble = match outcome.end {
            End::Over(rest) if open.request.follow && !self.is_gone() => {
                // kubelet ended it: the pod's status will say why.
                drop(rest);
                self.wait(now);
                None
            }
            End::Over(rest) => self.over(rest, outcome.lines, open.request.instance, now),
            End::Full => None,
            End::Stale | End::Unheard => {
                self.wait(now);
                None
            }
            End::NoLog => Some(self.fail("no_log", "kubelet has no log of it", now)),
            End::Refused(400, _) if open.request.previous => {
                // Its log was there when the pod's status was written.
                self.progress.complete = true;
                // Of a container that nothing was read of before, nothing is missed.
                let after = open.request.expects.or_else(|| lock(&self.spool).last());
                if after.is_some() {
                    lock(&self.missed).get_or_insert(Missed { after });
                }
                None
            }
            End::Refused(403, message) => Some(self.fail("forbidden", &message, now)),
            End::Refused(404, message) => Some(self.fail("not_found", &message, now)),
            End::Refused(_, message) => Some(self.fail("refused", &message, now)),
            End::Broken(message) => Some(self.fail("unreachable", &message, now)),
            End::Spool(error) => Some(self.fail("spool", &error.to_string(), now)),
        };
        let since = self.trouble.take().map_or(now, |(_, since)| since);
        self.trouble = trouble.map(|trouble| (trouble, since));
    }

    /// An instance that has ended is complete when it was read twice to the same end; one whose pod is gone cannot be
    /// read again.
    fn over(&mut self, rest: Rest, lines: u64, instance: u32, now: Instant) -> Option<Trouble> {
        if !self.is_gone() && (lines > 0 || self.rest.as_ref() != Some(&rest)) {
            self.rest = Some(rest);
            return None;
        }
        match rest.write(&self.spool, instance) {
            Ok(()) => {
                self.progress.complete = true;
                None
            }
            Err(error) => Some(self.fail("spool", &error.to_string(), now)),
        }
    }

    fn wait(&mut self, now: Instant) {
        self.not_before = Some(now + self.delays.delay());
    }

    fn fail(&mut self, class: &'static str, message: &str, now: Instant) -> Trouble {
        tracing::debug!(
            pod = self.pod.pod,
            container = self.name,
            message,
            "cannot be read through the API"
        );
        self.wait(now);
        Trouble {
            class,
            message: message.to_owned(),
        }
    }

    /// Ends its request; what of it is in the spool stays.
    pub fn stop(&mut self, now: Instant) {
        if let Some(open) = self.stream.take() {
            open.abort.abort();
            self.at_end = false;
            self.last_turn = Some(now);
        }
    }
}

/// Whether a container began before its lines are wanted.
fn is_older(state: &ContainerState, since: Option<i64>) -> bool {
    since.is_some_and(|since| state.log != Log::None && state.started_at.is_some_and(|began| began < since))
}

#[cfg(test)]
mod tests {
    use super::super::spool::Bounds;
    use super::*;

    fn wanted(pod: &PodFolder, is_there: bool) -> Wanted {
        let state = ContainerState {
            name: "main".into(),
            restarts: 0,
            log: Log::Growing,
            previous: false,
            started_at: None,
        };
        Wanted {
            pod: pod.clone(),
            state: is_there.then_some(state),
            since: None,
            granted: true,
        }
    }

    #[tokio::test]
    async fn what_is_told_of_a_deleted_pod_depends_on_how_far_it_was_read() {
        let over = || Some(End::Over(Rest::default()));
        let (gone, meanwhile) = (GapCause::ApiLogsGone, GapCause::PodDeletedMeanwhile);
        // How its request ended, whether the pod was there until then, and what is told.
        for (end, was_there, told) in [
            (None, true, Some(gone)),
            (Some(End::Full), true, Some(gone)),
            (Some(End::Broken(String::new())), false, Some(gone)),
            (over(), true, Some(meanwhile)),
            (over(), false, None),
        ] {
            let case = format!("{end:?} {was_there}");
            let dir = tempfile::tempdir().unwrap();
            let bounds = Bounds {
                file: 100,
                container: 100,
                total: 100,
                free: 0,
            };
            let spool = Spool::open(dir.path().to_owned(), bounds, Arc::default()).unwrap();
            let pod = PodFolder::parse("a_web_1_p").unwrap();
            let mut container = Container::new(pod.clone(), "main".into(), spool);
            let now = Instant::now();
            container.want(wanted(&pod, true), now);
            if let Some(end) = end {
                container.stream = Some(Open {
                    id: 1,
                    request: container.request().unwrap(),
                    abort: tokio::spawn(async {}).abort_handle(),
                    since: now,
                    outdated: None,
                });
                if !was_there {
                    container.want(wanted(&pod, false), now);
                    assert_eq!(container.bury(), None, "more may come");
                }
                container.ended(Outcome { lines: 0, end }, now);
            }
            container.want(wanted(&pod, false), now);
            assert_eq!(container.bury(), told.map(|cause| (cause, None)), "{case}");
            assert_eq!(container.bury(), None, "told once");
            assert_eq!(lock(&container.spool).is_over(), told.is_none(), "{case}");
        }
    }
}
