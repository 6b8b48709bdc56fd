//! Flags in, the agent's parts wired and running: one thread for everything that waits, one for the worker.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use self::path::DataPath;
use self::ports::{bind, serve_plain, serve_status};
use crate::cli::{self, LogFormat, Mode, Settings, Stop};
use crate::config::InForce;
use crate::config::cluster::{self, Source};
use crate::config::keeper::Keeper;
use crate::config::standalone::Files;
use crate::follow::{self, follower::Sources};
use crate::metadata::{self, PodChange};
use crate::status::tls::TlsFiles;
use crate::worker::Command;

mod batches;
mod path;
mod ports;

/// `EX_USAGE` of sysexits.h: settings that cannot work.
const EX_USAGE: u8 = 64;
/// What clap uses for flags that it cannot read.
const EX_FLAGS: u8 = 2;
/// What the worker gets beyond the drain's time before the process ends without it.
const GRACE: Duration = Duration::from_secs(5);
/// For name resolution and the cache's `fsync`; the default of 2 MiB is not needed.
const STACK: usize = 512 << 10;
/// For an answer of the API server.
const READ_TIMEOUT: Duration = Duration::from_mins(5);

/// The agent's process, from its first line to its exit code.
pub fn main() -> ExitCode {
    // Before anything that speaks TLS: rustls cannot choose between providers by itself.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return fail(EX_FLAGS, "another TLS provider is installed already");
    }
    let settings = match cli::read(std::env::args_os()) {
        Ok(settings) => settings,
        Err(Stop::Answer(answer)) => {
            return if answer.print().is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        Err(Stop::Flags(line)) => return fail(EX_FLAGS, &line),
        Err(Stop::Settings(line)) => return fail(EX_USAGE, &line),
    };
    if let Err(line) = log(&settings) {
        return fail(EX_USAGE, &line);
    }
    raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(STACK)
        .max_blocking_threads(8)
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(settings)),
        Err(error) => return fail(1, &format!("cannot start: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(End::Settings(line)) => fail(EX_USAGE, &line),
        Err(End::Failed(line)) => fail(1, &line),
    }
}

/// The process's last word.
fn fail(code: u8, line: &str) -> ExitCode {
    eprintln!("sluice-agent: {}", line.replace('\n', " "));
    ExitCode::from(code)
}

/// Why the process ends without having been told to.
#[derive(Debug)]
enum End {
    Settings(String),
    Failed(String),
}

fn log(settings: &Settings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log_level).map_err(|error| {
        format!(
            "--log-level {}: {error}: write error, warn, info, debug or trace",
            settings.log_level
        )
    })?;
    let ansi = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi);
    let begun = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    begun.map_err(|error| format!("cannot log: {error}"))
}

/// Every log file that is followed holds a descriptor.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    ) {
        tracing::warn!(
            "cannot raise the limit of open files from {:?}: {error}",
            limit.current
        );
    }
}

async fn run(settings: Settings) -> Result<(), End> {
    // First of all, so that a signal during the start is not lost.
    let mut signals =
        Signals::new().map_err(|error| End::Failed(format!("cannot receive signals: {error}")))?;
    let plain = bind("--listen", settings.listen).await?;
    let drain = settings.drain_timeout;
    let mut path = start(settings, plain).await?;
    tokio::select! {
        () = signals.next() => {}
        () = path.ended() => {
            return Err(End::Failed("the worker's thread ended: this is a defect, please report it".to_owned()));
        }
    }
    tracing::info!("draining for {} ms at most", drain.as_millis());
    path.send(Command::Drain(drain));
    tokio::select! {
        drained = timeout(drain + GRACE, path.ended()) => match drained {
            Ok(()) => Ok(()),
            Err(_) => Err(End::Failed("the worker's thread did not end in time".to_owned())),
        },
        () = signals.next() => Err(End::Failed("told twice to end, so it ends without draining".to_owned())),
    }
}

/// Starts every part. What is in force from cache or file is applied before anything waits for the network.
async fn start(settings: Settings, plain: TcpListener) -> Result<DataPath, End> {
    match &settings.mode {
        Mode::Standalone { document } => {
            let files = Files::open(document.clone(), settings.credentials_dir.clone())
                .map_err(|error| End::Settings(format!("--document: {error}")))?;
            let (out, in_force) = watch::channel(Arc::new(files.in_force()));
            let path = DataPath::start(&settings, &in_force.borrow()).map_err(End::Settings)?;
            // Nobody knows the pods, and nobody will: labels come from the paths.
            path.send(Command::Pod(PodChange::Synced));
            serve_plain(plain, &path, &in_force);
            tokio::spawn(apply_changes(path.clone(), in_force));
            tokio::spawn(files.run(out));
            Ok(path)
        }
        Mode::Cluster {
            namespace,
            status_listen,
            status_tls_dir,
        } => {
            let status = bind("--status-listen", *status_listen).await?;
            let client = client()?;
            let source = Source {
                namespace: namespace.clone(),
                node: settings.node.clone(),
                state_dir: settings.state_dir.clone(),
                credentials_dir: settings.credentials_dir.clone(),
            };
            let keeper: Keeper = cluster::begin(&source);
            let (out, in_force) = watch::channel(Arc::new(keeper.in_force()));
            let path = DataPath::start(&settings, &in_force.borrow()).map_err(End::Settings)?;
            serve_plain(plain, &path, &in_force);
            serve_status(
                status,
                TlsFiles::new(status_tls_dir.clone()),
                &settings,
                &path,
                &in_force,
            );
            let to_follower = in_force.clone();
            tokio::spawn(apply_changes(path.clone(), in_force));
            watch_pods(&settings, &path, &client, to_follower);
            tokio::spawn(cluster::run(client, source, keeper, out));
            Ok(path)
        }
    }
}

/// Watches the node's pods, for the worker and for whom reads through the API.
fn watch_pods(
    settings: &Settings,
    path: &DataPath,
    client: &kube::Client,
    in_force: watch::Receiver<Arc<InForce>>,
) {
    let (whole, is_whole) = watch::channel(false);
    let (to_follower, pods) = mpsc::unbounded_channel();
    let (to_worker, asked) = (path.clone(), is_whole.clone());
    let watched = metadata::watch::pods(client.clone(), settings.node.clone(), is_whole, move |change| {
        to_worker.send(Command::Pod(change.0.clone()));
        // Who begins to ask gets everything once more.
        if *asked.borrow() {
            let _ended = to_follower.send(change);
        }
    });
    tokio::spawn(watched);
    if let Some(root) = path::follow_root(settings) {
        let own_pod_uid = Some(settings.pod_uid.clone()).filter(|uid| !uid.is_empty());
        let sources = Sources {
            in_force,
            pods,
            worker: path.figures(),
            whole,
        };
        let follow = follow::Settings::new(root, own_pod_uid);
        tokio::spawn(path.clone().follow(client.clone(), follow, sources));
    }
}

/// The way to the API server, which need not answer yet.
fn client() -> Result<kube::Client, End> {
    let connect = || -> Result<kube::Client, String> {
        let mut config = kube::Config::incluster().map_err(|error| error.to_string())?;
        // Longer than a watch, which has a time-out of its own; a list that is never answered has none.
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        kube::Client::try_from(config).map_err(|error| error.to_string())
    };
    connect().map_err(|error| {
        End::Settings(format!(
            "no access to the API server: {error}: run as a Pod with a ServiceAccount, or without a cluster by \
             --document FILE"
        ))
    })
}

/// Hands every change of what is in force to the data path. A tenant that is gone is forgotten when the
/// worker has stopped sending for it.
async fn apply_changes(path: DataPath, mut in_force: watch::Receiver<Arc<InForce>>) {
    let mut last = Arc::clone(&in_force.borrow_and_update());
    let mut figures = path.figures();
    loop {
        let alive = tokio::select! {
            changed = in_force.changed() => changed.is_ok(),
            changed = figures.changed() => changed.is_ok(),
        };
        if !alive {
            return;
        }
        let next = Arc::clone(&in_force.borrow_and_update());
        if !Arc::ptr_eq(&last, &next) {
            path.apply(&last, &next);
            last = next;
        }
        if figures.borrow_and_update().document == last.document {
            path.forget_all_but(&last);
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next order to end.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
