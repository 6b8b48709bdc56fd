//! One container that a pipeline reads through the API: how it is and how its requests end in, its next request
//! out.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::read::{End, Outcome, Request, Rest, lock};
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
        self.wanted = Some(wanted);
    }

    /// Whether lines of it may be left that nobody asks for at present.
    pub fn is_unread(&self) -> bool {
        let wanted = self.wanted.as_ref();
        let has_log = wanted.is_some_and(|wanted| {
            let state = wanted.state.as_ref();
            wanted.granted && state.is_some_and(|state| state.log != Log::None)
        });
        has_log && !self.progress.complete && self.stream.is_none()
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

    /// The next request, and the gap that it leaves behind.
    pub fn request(&mut self) -> Option<(Request, bool)> {
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
        Some((
            Request {
                pod: self.pod.clone(),
                container: self.name.clone(),
                restarts: state.restarts,
                instance: step.instance,
                previous: step.previous,
                follow: step.growing,
                since: again.or(since),
                known_from: again.or(since).or(first).unwrap_or(i64::MIN),
                expects: newest,
                signs: Arc::default(),
            },
            step.missed,
        ))
    }

    /// Takes the end of its request; says whether the end of an instance cannot be read any more.
    pub fn ended(&mut self, outcome: Outcome, now: Instant) -> bool {
        let Some(open) = self.stream.take() else {
            return false;
        };
        self.last_turn = Some(now);
        let mut missed = false;
        if outcome.lines > 0 {
            self.delays = Backoff::default();
        }
        let trouble = match outcome.end {
            End::Over(rest) if open.request.follow => {
                // kubelet ended it: the pod's status will say why.
                drop(rest);
                self.wait(now);
                None
            }
            End::Over(rest) => self.over(rest, outcome.lines, open.request.instance, now),
            End::Full => None,
            End::Stale => {
                self.wait(now);
                None
            }
            End::NoLog => Some(self.fail("no_log", "kubelet has no log of it", now)),
            End::Refused(400, _) if open.request.previous => {
                // Its log was there when the pod's status was written.
                self.progress.complete = true;
                missed = open.request.expects.is_some();
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
        missed
    }

    /// An instance that has ended is complete when it was read twice to the same end.
    fn over(&mut self, rest: Rest, lines: u64, instance: u32, now: Instant) -> Option<Trouble> {
        if lines > 0 || self.rest.as_ref() != Some(&rest) {
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
            self.last_turn = Some(now);
        }
    }
}

/// Whether a container began before its lines are wanted.
fn is_older(state: &ContainerState, since: Option<i64>) -> bool {
    since.is_some_and(|since| state.log != Log::None && state.started_at.is_some_and(|began| began < since))
}
