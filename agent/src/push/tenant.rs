//! One tenant's requests in, each sent until it is acknowledged or refused for good.
//!
//! Each request is a task, up to a window of them at work. While the tenant is held, since nothing of it can
//! get through, one of them probes and the others wait.

use std::collections::BTreeMap;
use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_engine::key::Key;
use sluice_engine::report::Problem;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::classify::{Answered, STREAM_LIMIT, Verdict, classify};
use super::client::Answer;
use super::gate::Gate;
use super::problem::{Cause, problem};
use super::retry::Hold;
use super::split::{self, Part};
use super::{Shared, lock};
use crate::batch::{Batch, Feedback, Outcome};
use crate::config::TenantInForce;

/// Requests at work at once; the batcher hands over no more.
const WINDOW: usize = 4;
/// Failures of one request that are not worth a word: one 503 or 429 is daily life.
const QUIET_ATTEMPTS: u32 = 3;

/// One tenant's state, shared by its requests.
pub(super) struct Tenant {
    key: Key,
    shared: Arc<Shared>,
    access: watch::Sender<Access>,
    gate: Gate,
    window: Semaphore,
    gone: CancellationToken,
    /// Requests that failed so often that the problem is told. Others succeed beside them when only some
    /// streams are refused; the problem is over when there is none left.
    troubled: AtomicUsize,
    unparsable_was_said: AtomicBool,
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

/// How a part of a request ended.
enum Settled {
    /// Nothing more to do; these lines are refused.
    Done(Vec<(&'static str, u64)>),
    /// Each stream alone.
    Apart,
    /// Two halves, and the reason for a line that cannot be halved.
    Halve(&'static str),
}

impl Tenant {
    pub(super) fn new(key: Key, shared: Arc<Shared>) -> Self {
        Self {
            key,
            shared,
            access: watch::Sender::new(Access::Unknown),
            gate: Gate::new(),
            window: Semaphore::new(WINDOW),
            gone: CancellationToken::new(),
            troubled: AtomicUsize::new(0),
            unparsable_was_said: AtomicBool::new(false),
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

    /// Sends a part until the server has decided about it.
    async fn settle(&self, part: &Part, feedback: &Feedback) -> Settled {
        let mut access = self.access.subscribe();
        let mut permit = None;
        let mut attempt = 0;
        let mut trouble = None;
        loop {
            permit = self.gate.leave(&self.shared.timing, permit, &mut access).await;
            let current = access.borrow_and_update().clone();
            let client = match current {
                Access::Ready(client, _) => client,
                Access::Unknown => {
                    if access.changed().await.is_err() {
                        future::pending::<()>().await;
                    }
                    continue;
                }
                Access::Wrong(problem, _) => {
                    self.hold(Hold::Refused, problem);
                    continue;
                }
            };
            let begun = Instant::now();
            let answer = client.push(part.body.clone()).await;
            let took = begun.elapsed();
            self.count(&answer, part.body.len(), took, attempt > 0);
            attempt += 1;
            match judge(&answer, part) {
                Verdict::Acknowledged => {
                    feedback.answered(took);
                    drop(trouble);
                    self.flows();
                    return Settled::Done(Vec::new());
                }
                Verdict::Rejected(refused) => {
                    feedback.answered(took);
                    drop(trouble);
                    self.flows();
                    return Settled::Done(refused);
                }
                Verdict::Apart => {
                    self.gate.release();
                    return Settled::Apart;
                }
                Verdict::Halve(reason) => {
                    self.gate.release();
                    return Settled::Halve(reason);
                }
                Verdict::Hold { cause, hold } => self.hold(hold, problem(cause, client.host())),
                Verdict::Retry {
                    cause,
                    retry_after,
                    oversize,
                } => {
                    self.gate.release();
                    permit = None;
                    // Too many streams are not too many bytes.
                    if cause.status == Some(429) && cause.detail != STREAM_LIMIT {
                        feedback.throttled();
                    }
                    if attempt >= QUIET_ATTEMPTS {
                        trouble.get_or_insert_with(|| Trouble::new(&self.troubled));
                        self.say(Some(problem(cause, client.host())));
                        if oversize && part.lines > 1 {
                            return Settled::Halve("too_large");
                        }
                    }
                    let pause = self.shared.timing.back_off(attempt, retry_after, rand::random());
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = access.changed() => {}
                    }
                }
            }
        }
    }

    fn flows(&self) {
        self.gate.release();
        if self.troubled.load(Ordering::Relaxed) == 0 {
            self.say(None);
        }
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

    /// Lines that no answer would ever take.
    fn give_up(&self, reason: &'static str) {
        if reason == "unparsable" && !self.unparsable_was_said.swap(true, Ordering::Relaxed) {
            tracing::error!(tenant = %self.key, "Loki cannot decode a line that was sent: it is counted as unparsable");
        }
    }

    /// Sends a request, in parts where the answers ask for it; returns the lines that are refused for good.
    async fn send(&self, whole: Part, feedback: &Feedback) -> Vec<(&'static str, u64)> {
        let mut refused: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            let (smaller, reason) = match self.settle(&part, feedback).await {
                Settled::Done(reasons) => {
                    for (reason, lines) in reasons {
                        *refused.entry(reason).or_default() += lines;
                    }
                    continue;
                }
                Settled::Apart => (split::apart(&part.body), "unparsable"),
                Settled::Halve(reason) => (split::halves(&part.body).map(Vec::from), reason),
            };
            if let Some(smaller) = smaller {
                lock(&self.shared.figures)
                    .tenants
                    .entry(self.key.clone())
                    .or_default()
                    .splits += 1;
                // The last is taken first, and a stream's lines keep their order.
                parts.extend(smaller.into_iter().rev());
            } else {
                self.give_up(reason);
                // It was the server's last word: what was wrong before it is over.
                self.flows();
                *refused.entry(reason).or_default() += u64::from(part.lines);
            }
        }
        refused.into_iter().collect()
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
        },
    }
}

/// Sends a request until it is acknowledged or refused for good, and says so; silent when the tenant goes.
pub(super) async fn deliver(tenant: Arc<Tenant>, batch: Batch) {
    let Batch {
        id,
        tenant: key,
        body,
        streams,
        lines,
        feedback,
        bytes: _,
    } = batch;
    let body = Bytes::from(body);
    let work = async {
        // A closed semaphore lets everything through; it is never closed.
        let _permit = tenant.window.acquire().await.ok();
        tenant
            .send(
                Part {
                    body: body.clone(),
                    streams,
                    lines,
                },
                &feedback,
            )
            .await
    };
    let rejected = tokio::select! {
        () = tenant.gone.cancelled() => return,
        rejected = work => rejected,
    };
    // The connection may still hold a copy for a moment; then the memory is not worth a wait.
    let body = if body.is_unique() {
        Vec::from(body)
    } else {
        Vec::new()
    };
    (tenant.shared.outcomes)(Outcome {
        id,
        tenant: key,
        rejected,
        body,
    });
}
