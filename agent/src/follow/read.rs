//! One `pods/log` request out, its lines in the spool.
//!
//! The API server is asked by name alone, so an answer may come from a younger pod of the same name or from
//! another instance of the container. It is what was meant when it begins with lines that the spool holds;
//! otherwise the pod, and where lines would be missing the previous instance's log, is looked at before anything of
//! it is taken, and what is missing is told first.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::AsyncBufReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use kube::core::ApiResource;
use sluice_engine::cri::Timestamp;
use sluice_engine::report::GapCause;
use tokio::sync::oneshot;

use super::known::Known;
use super::record::Splitter;
use super::spool::Spool;
use crate::discover::names::PodFolder;
use crate::metadata::ContainerState;
use crate::metadata::convert::{Seen, Statuses, facts};
use crate::worker::{Command, Mailbox, Vanished};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The pod.
    pub pod: PodFolder,
    /// The container.
    pub container: String,
    /// The number of its newest instance when this was decided.
    pub restarts: u32,
    /// Number of the instance that is read.
    pub instance: u32,
    /// It is the one before the newest.
    pub previous: bool,
    /// Whether to go on when there is no more for now.
    pub follow: bool,
    /// The first second that is wanted; all of it otherwise.
    pub since: Option<i64>,
    /// The first second from which the spool may hold what comes.
    pub known_from: i64,
    /// Where the spool ends, when it holds lines of this instance: they must come again.
    pub expects: Option<Timestamp>,
    /// Set while lines before the next one are missing and nobody was told.
    pub missed: Arc<Mutex<Option<Missed>>>,
    /// What is known of it while it is under way.
    pub signs: Arc<Signs>,
}

/// What is known of a request that is under way.
#[derive(Debug, Default)]
pub struct Signs {
    /// The answer has begun.
    pub answered: AtomicBool,
    /// Lines that went into the spool; to be taken.
    pub lines: AtomicU64,
}

/// Lines that the API shows no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The last line that was read before them.
    pub after: Option<Timestamp>,
}

/// How a request ended.
#[derive(Debug)]
pub struct Outcome {
    /// Lines that were not known.
    pub lines: u64,
    /// Why.
    pub end: End,
}

/// Why a request ended.
#[derive(Debug)]
pub enum End {
    /// There is no more; what its last line would be, which has no line feed.
    Over(Rest),
    /// The spool is full.
    Full,
    /// It was not what was meant: another pod, or another instance.
    Stale,
    /// kubelet answered with words of its own.
    NoLog,
    /// The API server or kubelet refused, with the status and its message.
    Refused(u16, String),
    /// No connection, or it broke.
    Broken(String),
    /// The spool cannot be read or written.
    Spool(io::Error),
    /// Lines are missing, and nobody took that down.
    Unheard,
}

/// Records of a line that its container left unfinished, unless it is still written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    records: Vec<u8>,
    newest: Timestamp,
}

impl Rest {
    /// The log is over: what is left of it goes into the spool as well.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, spool: &Mutex<Spool>, instance: u32) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        append(spool, instance, &self.records, self.newest)
    }
}

/// Reads until there is no more. Dropped at any time it leaves whole records behind.
pub async fn read(
    client: kube::Client,
    request: Request,
    spool: Arc<Mutex<Spool>>,
    worker: Mailbox,
) -> Outcome {
    let mut reading = Reading {
        request,
        spool,
        worker,
        known: Known::default(),
        splitter: Splitter::default(),
        fresh: Vec::new(),
        newest: Timestamp::default(),
        first: None,
        matched: false,
        proven: false,
        lines: 0,
        unwritten: 0,
    };
    let end = match reading.run(client).await {
        Ok(end) | Err(end) => end,
    };
    Outcome {
        lines: reading.lines,
        end,
    }
}

struct Reading {
    request: Request,
    spool: Arc<Mutex<Spool>>,
    /// Takes down what is missing.
    worker: Mailbox,
    known: Known,
    splitter: Splitter,
    /// Records that are not in the spool, the newest of this time, the first of that.
    fresh: Vec<u8>,
    newest: Timestamp,
    first: Option<Timestamp>,
    /// Some record was in the spool already.
    matched: bool,
    /// The answer comes from the pod and the instance that were meant.
    proven: bool,
    lines: u64,
    unwritten: u64,
}

impl Reading {
    async fn run(&mut self, client: kube::Client) -> Result<End, End> {
        let request = self.request.clone();
        let known = lock(&self.spool).known(request.known_from);
        self.known = known.map_err(End::Spool)?;
        let api: Api<Pod> = Api::namespaced(client.clone(), &request.pod.namespace);
        let answer = api.log_stream(&request.pod.pod, &params(&request)).await;
        let answer = answer.map_err(refused)?;
        self.request.signs.answered.store(true, Ordering::Relaxed);
        let mut body = pin!(answer);
        loop {
            let chunk = body
                .fill_buf()
                .await
                .map_err(|error| End::Broken(error.to_string()))?;
            let len = chunk.len();
            if len == 0 {
                break;
            }
            self.take(chunk);
            body.consume_unpin(len);
            if !self.proven && (self.matched || !self.fresh.is_empty()) {
                self.prove(&client).await?;
            }
            self.write()?;
            if lock(&self.spool).is_full() {
                return Ok(End::Full);
            }
        }
        if self.lines == 0 && !self.matched && self.splitter.foreign > 0 {
            return Ok(End::NoLog);
        }
        let (known, mut rest) = (&mut self.known, Rest::default());
        self.splitter.finish(&mut |timestamp, record| {
            if !known.take(timestamp, record) {
                rest.records.extend_from_slice(record);
                rest.newest = timestamp;
            }
        });
        Ok(End::Over(rest))
    }

    fn take(&mut self, chunk: &[u8]) {
        let Self {
            splitter,
            known,
            fresh,
            newest,
            first,
            matched,
            lines,
            unwritten,
            ..
        } = self;
        splitter.push(chunk, &mut |timestamp, record| {
            if known.take(timestamp, record) {
                *matched = true;
                return;
            }
            fresh.extend_from_slice(record);
            *newest = (*newest).max(timestamp);
            first.get_or_insert(timestamp);
            *lines += 1;
            *unwritten += 1;
        });
    }

    /// Makes sure that the answer is what was meant.
    async fn prove(&mut self, client: &kube::Client) -> Result<(), End> {
        self.proven = true;
        if self.matched {
            return Ok(());
        }
        let request = &self.request;
        let api: Api<Statuses> = Api::namespaced_with(
            client.clone(),
            &request.pod.namespace,
            &ApiResource::erase::<Pod>(&()),
        );
        let params = ListParams::default().fields(&format!("metadata.name={}", request.pod.pod));
        let pods = api.list(&params).await.map_err(refused);
        let lines = std::mem::take(&mut self.lines);
        let pods = pods?;
        let is_meant = |pod: Statuses| {
            let Seen { metadata, containers } = pod.into();
            let same = |state: &ContainerState| {
                state.name == request.container && state.restarts == request.restarts
            };
            facts(metadata).is_some_and(|facts| facts.uid == request.pod.uid) && containers.iter().any(same)
        };
        if !pods.items.into_iter().any(is_meant) {
            return Err(End::Stale);
        }
        let cut = request.expects.map(|after| Missed { after: Some(after) });
        if cut.is_some() && !request.previous && self.is_outdated(client).await? {
            return Err(End::Stale);
        }
        let request = &self.request;
        let missed = *lock(&request.missed);
        if let Some(missed) = cut.or(missed) {
            self.tell(missed).await?;
        }
        self.lines = lines;
        if cut.is_some() && lock(&self.spool).is_unfinished() {
            // The rest of that line is gone: what comes now must not be joined to it.
            let end = jiff::Timestamp::new(self.newest.seconds, 0).unwrap_or_default();
            self.fresh.splice(..0, format!("{end} stdout F \n").into_bytes());
        }
        Ok(())
    }

    /// Whether kubelet shows what the spool ends with as the previous instance's log: it has begun another one, of
    /// which the API server has not heard yet.
    async fn is_outdated(&self, client: &kube::Client) -> Result<bool, End> {
        let request = &self.request;
        let mut known = lock(&self.spool).known(request.known_from).map_err(End::Spool)?;
        let params = LogParams {
            previous: true,
            follow: false,
            ..params(request)
        };
        let api: Api<Pod> = Api::namespaced(client.clone(), &request.pod.namespace);
        let answer = match api.log_stream(&request.pod.pod, &params).await.map_err(refused) {
            // There is none.
            Err(End::Refused(400, _)) => return Ok(false),
            answer => answer?,
        };
        let (mut body, mut splitter, mut found) = (pin!(answer), Splitter::default(), false);
        // Lines that are younger than all that is known end it.
        while !found && !known.is_empty() {
            let chunk = body.fill_buf().await;
            let chunk = chunk.map_err(|error| End::Broken(error.to_string()))?;
            let len = chunk.len();
            if len == 0 {
                break;
            }
            splitter.push(chunk, &mut |timestamp, record| {
                found |= known.take(timestamp, record);
            });
            body.consume_unpin(len);
        }
        Ok(found)
    }

    /// Tells that lines are missing before the first one that came, and waits until that is on disk: once the line is
    /// in the spool, no later process would see that something is missing.
    async fn tell(&self, missed: Missed) -> Result<(), End> {
        let (told, is_told) = oneshot::channel();
        self.worker.send(Command::Vanished(Vanished {
            pod: self.request.pod.clone(),
            container: self.request.container.clone(),
            cause: GapCause::ApiLogsGone,
            after: missed.after,
            before: self.first,
            told,
        }));
        is_told.await.map_err(|_| End::Unheard)?;
        *lock(&self.request.missed) = None;
        Ok(())
    }

    fn write(&mut self) -> Result<(), End> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let appended = append(&self.spool, self.request.instance, &self.fresh, self.newest);
        self.fresh.clear();
        let lines = std::mem::take(&mut self.unwritten);
        if appended.is_ok() {
            self.request.signs.lines.fetch_add(lines, Ordering::Relaxed);
        }
        appended.map_err(End::Spool)
    }
}

fn params(request: &Request) -> LogParams {
    LogParams {
        container: Some(request.container.clone()),
        follow: request.follow,
        previous: request.previous,
        since_time: request
            .since
            .and_then(|since| jiff::Timestamp::from_second(since).ok()),
        timestamps: true,
        ..LogParams::default()
    }
}

fn append(spool: &Mutex<Spool>, instance: u32, records: &[u8], newest: Timestamp) -> io::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    lock(spool).append(instance, records, newest, now)
}

/// The lock of what a request shares with its container.
pub fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(error: kube::Error) -> End {
    if let kube::Error::Api(status) = error {
        return End::Refused(status.code, status.message);
    }
    End::Broken(error.to_string())
}
