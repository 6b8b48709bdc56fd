//! The real agent's processes, one after the other: when each of them worked, and what it must have seen by then.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A tenant that took nothing for so long is stuck: `STUCK` of the agent's `worker::spilling`.
const STUCK: Duration = Duration::from_secs(2);
/// Bytes that an agent may take at most.
const MOST_MEMORY: u64 = 64 << 20;
/// How long an agent is given to look at its files, which it does once a second, and to copy what has to be copied.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// One process.
pub(super) struct Agent {
    pub(super) child: Child,
    port: SocketAddr,
}

impl Agent {
    /// With the document `document.json` of this folder.
    pub(super) fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("agent.log"))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sluice-agent"))
            .arg("--document")
            .arg(dir.join("document.json"))
            .arg("--log-root")
            .arg(dir.join("pods"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .args([
                "--listen",
                &port.to_string(),
                "--node-name",
                "n1",
                "--allow-local-addresses",
            ])
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        Self { child, port }
    }

    pub(super) fn is_ready(&self) -> bool {
        get(self.port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The most bytes that it had resident.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: Option<u64> = peak.and_then(|peak| peak.trim_end_matches("kB").trim().parse().ok());
        kib.unwrap_or_default() << 10
    }

    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn get(port: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&port, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// What an agent delivers; each request says which process sent it.
pub(super) fn document(loki: SocketAddr, life: usize) -> String {
    format!(
        r#"{{"version": 1, "pipelines": [{{"name": "default/web", "uid": "web", "tenants": ["default/ops"],
           "pods": {{"namespaces": [{{"name": "shop"}}]}}}}],
           "tenants": [{{"name": "default/ops", "uid": "ops", "pushUrl": "http://{loki}/loki/api/v1/push",
           "headers": [{{"name": "X-Life", "value": "{life}"}}], "delivery": {{"batchWaitMs": 200}}}}]}}"#
    )
}

/// What kubelet is about to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// The oldest rotated file of a container.
    Rotation,
    /// All files of a container that died before the last.
    Death,
}

/// When a process worked.
#[derive(Default)]
struct Life {
    ready: Option<Instant>,
    ended: Option<Instant>,
}

impl Life {
    /// For how long, from an instant on.
    fn lasted(&self, from: Instant) -> Duration {
        let end = self.ended.unwrap_or_else(Instant::now);
        let lasted = self
            .ready
            .map(|ready| end.saturating_duration_since(ready.max(from)));
        lasted.unwrap_or_default()
    }
}

#[derive(Default)]
struct State {
    alive: Option<Agent>,
    lives: Vec<Life>,
    wanted: Option<Deed>,
    truce: Option<Instant>,
    peak: u64,
}

/// Who starts agents and kills them.
pub(super) struct Agents {
    dir: PathBuf,
    loki: SocketAddr,
    state: Mutex<State>,
}

impl Agents {
    pub(super) fn new(dir: &Path, loki: SocketAddr) -> Self {
        Self {
            dir: dir.to_owned(),
            loki,
            state: Mutex::default(),
        }
    }

    pub(super) fn start(&self) {
        let mut state = self.state.lock().unwrap();
        let document = document(self.loki, state.lives.len());
        fs::write(self.dir.join("document.json"), document).unwrap();
        state.alive = Some(Agent::start(&self.dir));
        state.lives.push(Life::default());
    }

    /// Finds out whether the agent works by now.
    pub(super) fn look(&self) {
        let asked = {
            let state = self.state.lock().unwrap();
            let waits = state.lives.last().is_some_and(|life| life.ready.is_none());
            let port = state.alive.as_ref().map(|agent| agent.port);
            port.filter(|_| waits).zip(Some(state.lives.len()))
        };
        let Some((port, life)) = asked else {
            return;
        };
        let is_ready = get(port, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
        let mut state = self.state.lock().unwrap();
        if is_ready && state.alive.is_some() && state.lives.len() == life {
            state.lives[life - 1].ready = Some(Instant::now());
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.state.lock().unwrap().alive.is_some()
    }

    /// Since when none lives; `None` while one does.
    pub(super) fn dead_since(&self) -> Option<Instant> {
        let state = self.state.lock().unwrap();
        state.lives.last().and_then(|life| life.ended)
    }

    pub(super) fn kills(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.lives.iter().filter(|life| life.ended.is_some()).count()
    }

    /// Kills the agent, unless it is let live until a deletion is seen.
    pub(super) fn kill(&self) {
        let mut state = self.state.lock().unwrap();
        if state.truce.is_none_or(|until| until <= Instant::now()) {
            end(&mut state);
        }
    }

    /// The agent will be killed right before kubelet does this.
    pub(super) fn kill_before(&self, deed: Deed) {
        self.state.lock().unwrap().wanted = Some(deed);
    }

    pub(super) fn is_sentenced(&self) -> bool {
        self.state.lock().unwrap().wanted.is_some()
    }

    /// kubelet does this next.
    pub(super) fn about_to(&self, deed: Deed) {
        let mut state = self.state.lock().unwrap();
        if state.alive.is_some() && state.wanted.take_if(|wanted| *wanted == deed).is_some() {
            end(&mut state);
        }
    }

    /// If an agent has worked for so long, it is not killed for so long either.
    pub(super) fn truce(&self, time: Duration) -> bool {
        let mut state = self.state.lock().unwrap();
        let ready = state.lives.last().and_then(|life| life.ready);
        let works = state.alive.is_some() && ready.is_some_and(|ready| ready.elapsed() >= time);
        if works {
            state.truce = Some(Instant::now() + time);
        }
        works
    }

    /// Whether an agent lived long enough since then to have on disk what it knew.
    pub(super) fn worked(&self, since: Instant) -> bool {
        let state = self.state.lock().unwrap();
        state.lives.iter().any(|life| life.lasted(since) >= LOOK)
    }

    /// Whether an agent lived long enough to copy what was at risk since then, of a container whose lines have been
    /// waiting since `behind` at the latest. Within two seconds none need think that its tenant is stuck, unless it
    /// began with lines that were known to wait.
    pub(super) fn saw(&self, since: Instant, behind: Instant) -> bool {
        let state = self.state.lock().unwrap();
        let mut is_known = false;
        state.lives.iter().any(|life| {
            let saw = if is_known && life.ready > Some(behind) {
                life.lasted(since) >= LOOK
            } else {
                life.lasted(since.max(behind)) >= STUCK + LOOK
            };
            is_known |= life.lasted(behind) >= LOOK;
            saw
        })
    }

    /// The most bytes that one had resident; fails where that is more than an agent may take.
    pub(super) fn peak(&self) -> u64 {
        let peak = self.state.lock().unwrap().peak;
        assert!((1..MOST_MEMORY).contains(&peak), "{peak} bytes of memory");
        peak
    }

    pub(super) fn metrics(&self) -> String {
        let port = self.state.lock().unwrap().alive.as_ref().map(|agent| agent.port);
        port.and_then(|port| get(port, "/metrics")).unwrap_or_default()
    }
}

fn end(state: &mut State) {
    if let Some(agent) = state.alive.take() {
        state.peak = state.peak.max(agent.peak());
        agent.kill();
        if let Some(life) = state.lives.last_mut() {
            life.ended = Some(Instant::now());
        }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        end(state.unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}
