//! A request, or a part of one, in, what the server decided about it out: it is sent until that is known.
//!
//! Up to a window of requests are at work. While the tenant is held, since nothing of it can get through, one of them
//! probes and the others wait. A stream that Loki does not take for a limit of its own waits beside them.

use std::future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sluice_engine::key::Key;
use sluice_engine::report::Problem;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::classify::{Answered, Verdict, classify};
use super::client::{Answer, Client};
use super::gate::Gate;
use super::problem::{Cause, of_content, problem};
use super::retry::Hold;
use super::split::Part;
use super::{Shared, lock};
use crate::batch::{Feedback, Limit, MOST_UNDER_WAY};
use crate::config::TenantInForce;

/// Failures of one request that are not worth a word: one 503 or 429 is daily life.
const QUIET_ATTEMPTS: u32 = 3;

/// How often others get through beside a request that does not, until the fault is taken to be in it: a firewall may not
/// like a line.
const ALONE: u32 = 2;

/// Bytes of a request that is not halved for its tenant's rate.
const SMALL: u64 = 128 << 10;
/// The longest that a request which came too fast waits for its turn.
const LONGEST_TURN: Duration = Duration::from_secs(30);

/// One tenant's state, shared by its requests.
pub(super) struct Tenant {
    pub(super) key: Key,
    pub(super) shared: Arc<Shared>,
    access: watch::Sender<Access>,
    gate: Gate,
    /// Requests at work at once; the batcher hands over no more.
    pub(super) window: Semaphore,
    pub(super) gone: CancellationToken,
    /// Streams that Loki refuses since the tenant has too many: one of them asks again, the others wait for their turn.
    asks: Semaphore,
    /// How often it was refused since Loki took one.
    refusals: AtomicU32,
    /// When the last of the requests that came too fast is sent again.
    next_turn: Mutex<Option<Instant>>,
    /// Requests that failed so often that the problem is told. Others succeed beside them when only some
    /// streams are refused; the problem is over when there is none left.
    troubled: AtomicUsize,
    unparsable_was_said: AtomicBool,
    /// Requests that were taken.
    taken: AtomicU64,
}

/// A request in trouble, for as long as it is.
struct Trouble<'a>(&'a AtomicUsize);

impl<'a> Trouble<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Trouble<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What others had taken when a request did not get through the last time, and how often they had meanwhile.
#[derive(Default)]
struct Alone {
    taken: Option<u64>,
    times: u32,
}

impl Alone {
    /// It did not get through again: whether that is its own fault.
    fn is_refused(&mut self, taken: u64) -> bool {
        self.times += u32::from(self.taken.replace(taken).is_some_and(|before| before < taken));
        self.times >= ALONE
    }
}

/// How a part of a request ended.
pub(super) enum Settled {
    /// Nothing more to do; these lines are refused.
    Done(Vec<(&'static str, u64)>),
    /// Each stream alone.
    Apart,
    /// Two halves, and the reason for a line that cannot be halved.
    Halve(&'static str),
    /// It is refused for a limit of its one stream, and has to be settled patiently.
    Waits(Limit),
    /// It does not get through, and others do: each stream of it waits by itself.
    Refused,
}

impl Tenant {
    pub(super) fn new(key: Key, shared: Arc<Shared>) -> Self {
        Self {
            key,
            shared,
            access: watch::Sender::new(Access::Unknown),
            gate: Gate::new(),
            window: Semaphore::new(MOST_UNDER_WAY),
            gone: CancellationToken::new(),
            asks: Semaphore::new(1),
            refusals: AtomicU32::new(0),
            next_turn: Mutex::default(),
            troubled: AtomicUsize::new(0),
            unparsable_was_said: AtomicBool::new(false),
            taken: AtomicU64::new(0),
        }
    }

    /// New content or credentials; the same once more keeps the connections.
    pub(super) fn set(&self, tenant: &TenantInForce) {
        if self.access.borrow().is_made_of(tenant) {
            return;
        }
        let access = Access::new(tenant, &self.shared.settings);
        if let Access::Wrong(problem, _) = &access {
            self.say(Some(problem.clone()));
        }
        self.gate.expect_change();
        let usable = matches!(access, Access::Ready(..));
        let before = self.access.send_replace(access);
        // What was wrong with the configuration is right now, whether or not a line comes to show it.
        if usable && matches!(before, Access::Wrong(..)) {
            self.say(None);
        }
    }

    /// Ends all its requests.
    pub(super) fn cancel(&self) {
        self.gone.cancel();
    }

    /// Says what is wrong; a request that ends late says nothing about a tenant that is gone.
    fn say(&self, problem: Option<Problem>) {
        if !self.gone.is_cancelled() {
            self.shared.set_problem(&self.key, problem);
        }
    }

    /// Nothing gets through.
    fn hold(&self, hold: Hold, problem: Problem) {
        self.say(Some(problem));
        self.gate.hold(hold);
    }

    /// Sends a part until the server has decided about it. With the limit that it waits for, it has no window to give
    /// back, and is tried again and again.
    pub(super) async fn settle(&self, part: &Part, feedback: &Feedback, waits: Option<Limit>) -> Settled {
        let mut access = self.access.subscribe();
        let mut permit = None;
        let mut attempt = u32::from(waits.is_some());
        let mut trouble = None;
        let mut alone = Alone::default();
        loop {
            let turn = self.turn_to_ask(waits).await;
            permit = self.gate.leave(&self.shared.timing, permit, &mut access).await;
            let Some(client) = self.client(&mut access).await else {
                continue;
            };
            let (answer, took) = self.attempt(&client, part, attempt > 0).await;
            attempt += 1;
            let verdict = judge(&answer, part);
            if turn.is_some() && !matches!(verdict, Verdict::Retry { .. } | Verdict::Hold { .. }) {
                self.refusals.store(0, Ordering::Relaxed);
            }
            if !matches!(verdict, Verdict::Hold { .. }) {
                self.gate.release();
            }
            match verdict {
                Verdict::Acknowledged | Verdict::Rejected(_) => {
                    feedback.answered(took);
                    drop(trouble);
                    self.flows();
                    return Settled::Done(verdict.refused());
                }
                Verdict::Apart => return Settled::Apart,
                Verdict::Halve(reason) => return Settled::Halve(reason),
                Verdict::Hold { cause, hold } => {
                    // The next probe is another request's: this one may be all that does not get through.
                    permit = None;
                    let problem = problem(cause, client.host());
                    if waits == Some(Limit::Content) {
                        trouble.get_or_insert_with(|| Trouble::new(&self.troubled));
                        self.say(Some(of_content(problem)));
                        pause(self.pause(attempt, None, None), &mut access).await;
                    } else if alone.is_refused(self.taken.load(Ordering::Relaxed)) {
                        return Settled::Refused;
                    } else {
                        self.hold(hold, problem);
                    }
                }
                Verdict::Retry {
                    cause,
                    retry_after,
                    oversize,
                    limit,
                } => {
                    permit = None;
                    if let Some(limit) = limit.filter(|_| waits.is_none()) {
                        return Settled::Waits(limit);
                    }
                    // What is too much for one stream is not too much for the tenant.
                    let too_fast = cause.status == Some(429) && limit.is_none();
                    if too_fast {
                        feedback.throttled(part.bytes());
                    }
                    let asks = turn.is_some() && limit == Some(Limit::Streams);
                    if self.is_worth_a_word(attempt, asks) {
                        trouble.get_or_insert_with(|| Trouble::new(&self.troubled));
                        self.say(Some(problem(cause, client.host())));
                    }
                    // One that is as large as what the tenant takes at a time may wait for ever beside smaller ones.
                    let is_stuck =
                        attempt >= QUIET_ATTEMPTS && (oversize || (too_fast && part.bytes() >= SMALL));
                    if is_stuck && part.lines > 1 {
                        return Settled::Halve("too_large");
                    }
                    if asks {
                        continue;
                    }
                    let takes = too_fast.then(|| feedback.time_of(part.bytes()));
                    pause(self.pause(attempt, retry_after, takes), &mut access).await;
                }
            }
        }
    }

    /// The client, when the tenant is set and has one; else the next attempt has to look again.
    async fn client(&self, access: &mut watch::Receiver<Access>) -> Option<Arc<Client>> {
        let current = access.borrow_and_update().clone();
        match current {
            Access::Ready(client, _) => return Some(client),
            Access::Unknown => {
                if access.changed().await.is_err() {
                    future::pending::<()>().await;
                }
            }
            Access::Wrong(problem, _) => self.hold(Hold::Refused, problem),
        }
        None
    }

    /// Whether a request's failures are told; one that asks for a stream counts those of all that do.
    fn is_worth_a_word(&self, attempt: u32, asks: bool) -> bool {
        let refusals = self.refusals.fetch_add(u32::from(asks), Ordering::Relaxed);
        attempt.max(if asks { refusals + 1 } else { 0 }) >= QUIET_ATTEMPTS
    }

    /// How long to wait before the next attempt. After the tenant's rate was exceeded the request takes its turn among
    /// those that were refused as well, each for the time that its bytes take at the rate.
    fn pause(&self, attempt: u32, retry_after: Option<Duration>, takes: Option<Duration>) -> Duration {
        let timing = &self.shared.timing;
        let Some(takes) = takes.filter(|takes| !takes.is_zero()) else {
            return timing.back_off(attempt, retry_after, rand::random());
        };
        let now = Instant::now();
        let mut next = lock(&self.next_turn);
        let from = next.map_or(now, |next| next.max(now));
        let turn = (from + takes.mul_f64(0.5 + rand::random::<f64>())).min(now + LONGEST_TURN);
        *next = Some(turn);
        let least = timing.back_off(1, retry_after, 0.0);
        turn.saturating_duration_since(now).max(least)
    }

    /// Where the tenant has too many streams, waits for the turn to ask whether Loki takes one more, and until it is time.
    async fn turn_to_ask(&self, waits: Option<Limit>) -> Option<SemaphorePermit<'_>> {
        if waits != Some(Limit::Streams) {
            return None;
        }
        let turn = self.asks.acquire().await.ok();
        let refusals = self.refusals.load(Ordering::Relaxed);
        let pause = self.shared.timing.back_off(refusals + 1, None, rand::random());
        tokio::time::sleep(pause).await;
        turn
    }

    pub(super) fn flows(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.gate.release();
        if self.troubled.load(Ordering::Relaxed) == 0 {
            self.say(None);
        }
    }

    async fn attempt(&self, client: &Client, part: &Part, again: bool) -> (Answer, Duration) {
        let begun = Instant::now();
        let answer = client.push(part.body.clone()).await;
        let took = begun.elapsed();
        self.count(&answer, part.body.len(), took, again);
        (answer, took)
    }

    fn count(&self, answer: &Answer, bytes: usize, took: Duration, again: bool) {
        let status = match answer {
            Answer::Response { status, .. } => Some(*status),
            Answer::Failed(Cause { status, .. }) => *status,
        };
        let mut figures = lock(&self.shared.figures);
        figures
            .tenants
            .entry(self.key.clone())
            .or_default()
            .attempt(status, bytes, took, again);
    }

    /// A request is sent in smaller ones.
    pub(super) fn count_split(&self) {
        let mut figures = lock(&self.shared.figures);
        figures.tenants.entry(self.key.clone()).or_default().splits += 1;
    }

    /// Lines that no answer would ever take.
    pub(super) fn give_up(&self, reason: &'static str) {
        if reason == "unparsable" && !self.unparsable_was_said.swap(true, Ordering::Relaxed) {
            tracing::error!(tenant = %self.key, "Loki cannot decode a line that was sent: it is counted as unparsable");
        }
    }
}

/// Waits; a new configuration ends it.
async fn pause(pause: Duration, changed: &mut watch::Receiver<Access>) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        _ = changed.changed() => {}
    }
}

/// What to do after an attempt; without an answer, the same again.
fn judge(answer: &Answer, part: &Part) -> Verdict {
    match answer {
        Answer::Response {
            status,
            retry_after,
            body,
        } => {
            let (streams, lines) = (part.streams, part.lines);
            classify(&Answered {
                status: *status,
                body,
                retry_after: *retry_after,
                streams,
                lines,
            })
        }
        Answer::Failed(cause) => Verdict::Retry {
            cause: *cause,
            retry_after: None,
            oversize: false,
            limit: None,
        },
    }
}
