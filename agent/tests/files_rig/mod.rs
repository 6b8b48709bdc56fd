//! A node's log folder and a worker over it, with a clock that is told and a sink that shows every entry.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_agent::batch::{Bound, Entry, Fate, Finished, Outcome, PieceId, StreamId};
use sluice_agent::checkpoint::journal::StartError;
use sluice_agent::config::{InForce, TenantInForce};
use sluice_agent::tail::position::CursorId;
use sluice_agent::worker::{Command, Core, Sink, Taken, WorkerSettings};
use sluice_engine::document::{Auth, Delivery, Limits, Namespace, Pipeline, PodSource, StartAt, Tenant, Tls};
use sluice_engine::key::Key;
use sluice_engine::labels::LabelRules;
use sluice_engine::selector::{ContainerSelector, LabelSelector};

pub const POD: &str = "a_web-0_uid-1";

#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub tenant: Key,
    pub labels: String,
    pub metadata: String,
    pub seconds: i64,
    pub nanos: u32,
    pub line: String,
    /// The request that it was sent in; they grow.
    pub request: u64,
}

#[derive(Debug)]
pub struct Request {
    pub id: u64,
    pub tenant: Key,
    pub entries: Vec<Sent>,
}

type Open = (Vec<(CursorId, Sent)>, Vec<(StreamId, Finished)>);

#[derive(Debug)]
pub struct FakeSink {
    pub streams: Vec<(Key, String)>,
    /// Open entries by tenant, and the pieces they are in.
    open: BTreeMap<Key, Open>,
    sealed: BTreeMap<u64, Vec<Finished>>,
    /// Entries taken before a seal is needed.
    pub room: usize,
    /// Requests under way before nothing is taken.
    pub window: usize,
    pub blocked: Vec<Key>,
    /// Tenants whose streams have enough waiting.
    pub full: Vec<Key>,
    /// Entries that were not taken.
    pub refused: usize,
    next: u64,
}

impl Default for FakeSink {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            open: BTreeMap::new(),
            sealed: BTreeMap::new(),
            room: 1_000_000,
            window: 1_000_000,
            blocked: Vec::new(),
            full: Vec::new(),
            refused: 0,
            next: 1,
        }
    }
}

impl Sink for FakeSink {
    type Batch = Request;
    fn set_tenant(&mut self, _tenant: &Tenant) {}
    fn remove_tenant(&mut self, key: &Key) {
        self.open.remove(key);
    }
    fn open_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        let stream = (tenant.clone(), labels.to_owned());
        let at = self
            .streams
            .iter()
            .position(|known| *known == stream)
            .unwrap_or_else(|| {
                self.streams.push(stream);
                self.streams.len() - 1
            });
        StreamId(u32::try_from(at).unwrap())
    }
    fn open_late_stream(&mut self, tenant: &Key, labels: &str) -> StreamId {
        self.open_stream(tenant, labels)
    }
    fn close_stream(&mut self, _stream: StreamId) {}
    fn metadata(pairs: &[(&str, &str)]) -> Vec<u8> {
        pairs
            .iter()
            .flat_map(|(k, v)| [*k, "=", *v, ";"])
            .collect::<String>()
            .into_bytes()
    }
    fn has_room(&mut self, tenant: &Key) -> bool {
        let entries = self.open.get(tenant).map_or(0, |(entries, _)| entries.len());
        entries < self.room && self.sealed.len() < self.window && !self.blocked.contains(tenant)
    }
    fn rest(&mut self, _stream: StreamId) {}
    fn takes_more(&self, stream: StreamId) -> bool {
        let of = self.streams.get(stream.0 as usize);
        of.is_none_or(|(tenant, _)| !self.full.contains(tenant))
    }
    fn late_until(&self, _stream: StreamId) -> i64 {
        i64::MIN
    }
    fn raised(&mut self) -> Vec<Bound> {
        Vec::new()
    }
    fn restore(&mut self, _tenant: &Key, _labels: &str, _bound: i64, _returning: u32) {}
    fn returned(&mut self, _stream: StreamId) {}
    fn forget(&mut self, _now: Instant) -> Vec<Bound> {
        Vec::new()
    }
    fn append(&mut self, stream: StreamId, cursor: CursorId, entry: &Entry<'_>) -> Taken {
        let (tenant, labels) = self.streams[stream.0 as usize].clone();
        let (entries, pieces) = self.open.entry(tenant.clone()).or_default();
        if entries.len() >= self.room || self.sealed.len() >= self.window || self.blocked.contains(&tenant) {
            self.refused += 1;
            return Taken::NoRoom;
        }
        entries.push((
            cursor,
            Sent {
                tenant,
                labels,
                metadata: String::from_utf8(entry.metadata.to_vec()).unwrap(),
                seconds: entry.timestamp.seconds,
                nanos: entry.timestamp.nanos,
                line: String::from_utf8_lossy(&entry.line.concat()).into_owned(),
                request: 0,
            },
        ));
        if pieces
            .iter()
            .any(|(of, piece)| *of == stream && piece.cursor == cursor)
        {
            return Taken::Added;
        }
        let piece = PieceId(self.next);
        self.next += 1;
        pieces.push((stream, Finished { cursor, piece }));
        Taken::Opened(piece)
    }
    fn drop_cursor(&mut self, cursor: CursorId) {
        for (entries, pieces) in self.open.values_mut() {
            entries.retain(|(of, _)| *of != cursor);
            pieces.retain(|(_, piece)| piece.cursor != cursor);
        }
    }
    fn seal(&mut self, _now: Instant) -> Option<Request> {
        let tenant = self.open.iter().find(|(_, open)| !open.0.is_empty())?.0.clone();
        let (entries, pieces) = self.open.remove(&tenant)?;
        let id = self.next;
        self.next += 1;
        self.sealed
            .insert(id, pieces.into_iter().map(|(_, piece)| piece).collect());
        Some(Request {
            id,
            tenant,
            entries: entries
                .into_iter()
                .map(|(_, entry)| Sent { request: id, ..entry })
                .collect(),
        })
    }
    fn next_due(&self, _now: Instant) -> Option<Instant> {
        None
    }
    fn drain(&mut self) {}
    fn complete(&mut self, outcome: Outcome) -> Vec<Finished> {
        self.sealed.remove(&outcome.id).unwrap_or_default()
    }
    fn held_bytes(&self) -> u64 {
        0
    }
}

pub fn tenant(name: &str, max_line_bytes: u64) -> Tenant {
    Tenant {
        name: Key::new("logging", name),
        uid: format!("uid-{name}"),
        generation: 1,
        hash: String::new(),
        push_url: "http://loki/loki/api/v1/push".into(),
        tenant_id: None,
        auth: Auth::None,
        tls: Tls::default(),
        headers: Vec::new(),
        limits: Limits {
            max_line_bytes,
            ..Limits::default()
        },
        delivery: Delivery::default(),
    }
}

pub fn pipeline(name: &str, tenants: &[&str]) -> Pipeline {
    let namespace = Namespace {
        name: "a".into(),
        uid: None,
        created_at: None,
        labels: BTreeMap::new(),
    };
    Pipeline {
        name: Key::new("a", name),
        uid: format!("uid-{name}"),
        generation: 1,
        hash: String::new(),
        tenants: tenants.iter().map(|name| Key::new("logging", *name)).collect(),
        pods: PodSource {
            namespaces: vec![namespace],
            selector: LabelSelector::default(),
            containers: ContainerSelector::default(),
            start_at: StartAt::Beginning,
            ..PodSource::default()
        },
        labels: LabelRules {
            drop: vec!["app".into()],
            ..LabelRules::default()
        },
    }
}

pub fn in_force(pipelines: Vec<Pipeline>, tenants: Vec<Tenant>) -> InForce {
    InForce {
        document: "d".into(),
        pipelines: pipelines.into_iter().map(Arc::new).collect(),
        tenants: tenants
            .into_iter()
            .map(|tenant| TenantInForce {
                tenant: Arc::new(tenant),
                credentials: None,
                version: String::new(),
            })
            .collect(),
        deny: Vec::new(),
        refused: Vec::new(),
    }
}

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub core: Option<Core<FakeSink>>,
    pub config: InForce,
    pub now: Instant,
    /// Requests handed out and not answered.
    pub under_way: Vec<Request>,
    /// Entries acknowledged.
    pub acked: Vec<Sent>,
    pub facts_wait: Duration,
    /// Folders that symbolic links may lead into, besides `runtime`.
    pub links: Vec<PathBuf>,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(in_force(vec![pipeline("p", &["t"])], vec![tenant("t", 4096)]))
    }

    pub fn with(config: InForce) -> Self {
        // In memory where possible: syncing is not what is tested here.
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        fs::create_dir(dir.path().join("pods")).unwrap();
        let mut rig = Self {
            dir,
            core: None,
            config,
            now: Instant::now(),
            under_way: Vec::new(),
            acked: Vec::new(),
            facts_wait: Duration::ZERO,
            links: Vec::new(),
        };
        rig.start();
        rig
    }

    pub fn settings(&self) -> WorkerSettings {
        WorkerSettings {
            log_root: Some(self.dir.path().join("pods")),
            follow_root: None,
            link_roots: [self.dir.path().join("runtime")]
                .into_iter()
                .chain(self.links.clone())
                .collect(),
            state_dir: self.dir.path().join("state"),
            node_name: "node1".into(),
            own_pod_uid: Some("own".into()),
            pod_facts_wait: self.facts_wait,
        }
    }

    pub fn start(&mut self) {
        self.core = None;
        let mut started = Core::new(self.settings(), FakeSink::default());
        for _ in 0..100 {
            if !matches!(started, Err(StartError::Locked(_))) {
                break;
            }
            // A program that another test has just begun holds the lock until it is loaded.
            std::thread::sleep(Duration::from_millis(20));
            started = Core::new(self.settings(), FakeSink::default());
        }
        let mut core = started.unwrap();
        core.command(Command::Config(Arc::new(self.config.clone())), self.now);
        self.core = Some(core);
    }

    /// Kills the agent and starts it again; requests under way got lost.
    pub fn crash(&mut self) {
        self.under_way.clear();
        self.start();
    }

    pub fn core(&mut self) -> &mut Core<FakeSink> {
        self.core.as_mut().unwrap()
    }

    pub fn apply(&mut self, config: InForce) {
        self.config = config.clone();
        let now = self.now;
        self.core().command(Command::Config(Arc::new(config)), now);
    }

    pub fn turn(&mut self) -> Instant {
        let sent = RefCell::new(Vec::new());
        let now = self.now;
        let due = self.core().turn(now, &|batch| sent.borrow_mut().push(batch));
        self.under_way.extend(sent.into_inner());
        due
    }

    pub fn ack(&mut self, count: usize) {
        let count = count.min(self.under_way.len());
        for request in self.under_way.drain(..count).collect::<Vec<_>>() {
            let outcome = Outcome {
                id: request.id,
                tenant: Arc::new(request.tenant),
                stream: None,
                fate: Fate::Ended(Vec::new()),
                body: Vec::new(),
            };
            self.core
                .as_mut()
                .unwrap()
                .command(Command::Outcome(outcome), self.now);
            self.acked.extend(request.entries);
        }
    }

    /// Turns and acknowledges for so many milliseconds.
    pub fn run(&mut self, millis: u64) {
        for _ in 0..=millis / 100 {
            self.turn();
            self.ack(usize::MAX);
            self.now += Duration::from_millis(100);
        }
        self.turn();
        self.ack(usize::MAX);
    }

    pub fn lines(&self) -> Vec<&str> {
        self.acked.iter().map(|sent| sent.line.as_str()).collect()
    }

    pub fn lines_of(&self, tenant: &str) -> Vec<&str> {
        let tenant = Key::new("logging", tenant);
        let of_tenant = self.acked.iter().filter(|sent| sent.tenant == tenant);
        of_tenant.map(|sent| sent.line.as_str()).collect()
    }

    pub fn folder(&self) -> PathBuf {
        let folder = self.dir.path().join("pods").join(POD).join("c");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.folder().join(name);
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
            .write_all(text.as_ref())
            .unwrap();
    }

    pub fn log(&self, name: &str, lines: &[&str]) {
        for line in lines {
            self.write(name, cri("stdout", "F", line));
        }
    }
}

pub fn cri(stream: &str, tag: &str, content: &str) -> String {
    format!("2026-11-20T17:50:01.5Z {stream} {tag} {content}\n")
}

pub fn gzip(from: &std::path::Path) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&fs::read(from).unwrap()).unwrap();
    let name = from.to_str().unwrap();
    fs::write(format!("{name}.tmp"), encoder.finish().unwrap()).unwrap();
    fs::rename(format!("{name}.tmp"), format!("{name}.gz")).unwrap();
    fs::remove_file(from).unwrap();
}
