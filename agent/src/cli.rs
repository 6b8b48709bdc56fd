//! Flags and environment in, checked settings out. What is wrong comes out as one line that names the flag,
//! the cause and the remedy.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sluice_engine::well_known;

/// Sluice's node agent: tails container logs and pushes them to Grafana Loki.
#[derive(Debug, Parser)]
#[command(name = "sluice-agent", version)]
struct Flags {
    /// Name of this node; without a cluster it defaults to the host's name
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Namespace of Sluice's own objects
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// UID of the agent's own pod
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// Run without a cluster, from this JSON document
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Where kubelet and runtime write container logs
    #[arg(long, value_name = "DIR", default_value = well_known::LOG_ROOT)]
    log_root: PathBuf,
    /// There is no log root: logs are read through the API only
    #[arg(long, conflicts_with_all = ["document", "log_root"])]
    no_log_root: bool,
    /// Where positions and the cached configuration are kept
    #[arg(long, value_name = "DIR", default_value = well_known::STATE_DIR)]
    state_dir: PathBuf,
    /// Folder of credentials, one file per tenant UID
    #[arg(long, value_name = "DIR", default_value = well_known::CREDENTIALS_DIR)]
    credentials_dir: PathBuf,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:9880")]
    listen: SocketAddr,
    /// Address of /status, in a cluster only
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:9881")]
    status_listen: SocketAddr,
    /// Folder with tls.crt, tls.key and token of /status
    #[arg(long, value_name = "DIR", default_value = well_known::STATUS_TLS_DIR)]
    status_tls_dir: PathBuf,
    /// Let tenants' addresses be loopback or link-local
    #[arg(long)]
    allow_local_addresses: bool,
    /// Memory for lines on their way, such as 32Mi
    #[arg(long, value_name = "BYTES", default_value = "32Mi", value_parser = bytes)]
    memory_budget: u64,
    /// How long the end waits for acknowledgements, such as 20s
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    drain_timeout: Duration,
    /// What is logged: error, warn, info, debug, trace, or filters as of `RUST_LOG`
    #[arg(long, env = "RUST_LOG", value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Shape of the agent's own log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// Shape of the agent's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What the process runs with.
#[derive(Debug)]
pub struct Settings {
    /// Where configuration and labels come from.
    pub mode: Mode,
    /// This node.
    pub node: String,
    /// The agent's own pod; empty where it has none.
    pub pod_uid: String,
    /// Where container logs are; none where they are read through the API only.
    pub log_root: Option<PathBuf>,
    /// Where positions are kept.
    pub state_dir: PathBuf,
    /// Folder of credentials.
    pub credentials_dir: PathBuf,
    /// Address of the plain port.
    pub listen: SocketAddr,
    /// Whether tenants' addresses may be loopback or link-local.
    pub allow_local_addresses: bool,
    /// Bytes for lines on their way.
    pub pool_bytes: u64,
    /// How long the end waits for acknowledgements.
    pub drain_timeout: Duration,
    /// Filters of the agent's own log.
    pub log_level: String,
    /// Its shape.
    pub log_format: LogFormat,
}

/// Where configuration and labels come from.
#[derive(Debug)]
pub enum Mode {
    /// From the API server.
    Cluster {
        /// Namespace of Sluice's own objects.
        namespace: String,
        /// Address of the status port.
        status_listen: SocketAddr,
        /// Folder of its certificate, key and token.
        status_tls_dir: PathBuf,
    },
    /// From a file.
    Standalone {
        /// The file.
        document: PathBuf,
    },
}

/// Why the process ends before it began.
#[derive(Debug)]
pub enum Stop {
    /// What was asked for on the command line, such as the version.
    Answer(clap::Error),
    /// Flags that cannot be read; exit code 2.
    Flags(String),
    /// Flags that cannot be used; exit code 64.
    Settings(String),
}

/// Reads command line and environment.
///
/// # Errors
/// One line that says which flag, why, and what to do.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Settings, Stop> {
    let flags = Flags::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            Stop::Flags(one_line(&error.to_string()))
        } else {
            Stop::Answer(error)
        }
    })?;
    settings(flags).map_err(Stop::Settings)
}

/// What clap says, without the usage, in one line.
fn one_line(text: &str) -> String {
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    let words: Vec<_> = text.split_whitespace().collect();
    let text = words.join(" ");
    format!(
        "{}; see sluice-agent --help",
        text.strip_prefix("error: ").unwrap_or(&text)
    )
}

fn settings(flags: Flags) -> Result<Settings, String> {
    let node = match (flags.node_name.filter(|name| !name.is_empty()), &flags.document) {
        (Some(name), _) => name,
        (None, Some(_)) => host_name()?,
        (None, None) => {
            return Err(
                "--node-name: it is missing: set NODE_NAME from spec.nodeName in the DaemonSet, or run \
                        without a cluster by --document FILE"
                    .to_owned(),
            );
        }
    };
    let mode = match flags.document {
        Some(document) => Mode::Standalone { document },
        None => Mode::Cluster {
            namespace: flags.namespace.filter(|name| !name.is_empty()).ok_or(
                "--namespace: it is missing: set POD_NAMESPACE from metadata.namespace in the DaemonSet",
            )?,
            status_listen: flags.status_listen,
            status_tls_dir: flags.status_tls_dir,
        },
    };
    let log_root = (!flags.no_log_root).then_some(flags.log_root);
    if let Some(log_root) = &log_root {
        folder(log_root).map_err(|error| {
            format!(
                "--log-root {}: {error}: mount the node's {} there, or read through the API by --no-log-root",
                log_root.display(),
                well_known::LOG_ROOT
            )
        })?;
    }
    std::fs::create_dir_all(&flags.state_dir).map_err(|error| {
        format!(
            "--state-dir {}: {error}: give a folder that the agent can write",
            flags.state_dir.display()
        )
    })?;
    if !(1 << 20..=4 << 30).contains(&flags.memory_budget) {
        return Err(format!(
            "--memory-budget {}: 1Mi to 4Gi are allowed: the default is 32Mi",
            flags.memory_budget
        ));
    }
    Ok(Settings {
        mode,
        node,
        pod_uid: flags.pod_uid.unwrap_or_default(),
        log_root,
        state_dir: flags.state_dir,
        credentials_dir: flags.credentials_dir,
        listen: flags.listen,
        allow_local_addresses: flags.allow_local_addresses,
        pool_bytes: flags.memory_budget,
        drain_timeout: flags.drain_timeout,
        log_level: flags.log_level,
        log_format: flags.log_format,
    })
}

fn folder(path: &Path) -> std::io::Result<()> {
    std::fs::read_dir(path).map(|_| ())
}

fn host_name() -> Result<String, String> {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    if name.is_empty() {
        Err("--node-name: the host has no name: give one".to_owned())
    } else {
        Ok(name.into_owned())
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.strip_prefix(digits).unwrap_or_default() {
        "" => Some(1),
        "k" => Some(1_000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "write it as 32Mi".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: Option<u64> = digits.parse().ok();
    let unit = text.strip_prefix(digits).unwrap_or_default();
    match (number, unit) {
        (Some(number @ 0..=3_600_000), "ms") => Ok(Duration::from_millis(number)),
        (Some(number @ 0..=3_600), "s") => Ok(Duration::from_secs(number)),
        (Some(number @ 0..=60), "m") => Ok(Duration::from_secs(number * 60)),
        _ => Err("write it as 20s, an hour at most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(arguments: &[&str]) -> Result<Settings, String> {
        let arguments = ["sluice-agent"].iter().chain(arguments).map(OsString::from);
        read(arguments).map_err(|stop| match stop {
            Stop::Answer(error) => error.to_string(),
            Stop::Flags(line) | Stop::Settings(line) => line,
        })
    }

    #[test]
    fn a_standalone_agent_takes_the_hosts_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let settings = read_from(&["--document", "d.json", "--log-root", path, "--state-dir", path]).unwrap();
        assert!(!settings.node.is_empty());
        assert_eq!(
            (settings.pool_bytes, settings.drain_timeout),
            (32 << 20, Duration::from_secs(20))
        );
        assert!(matches!(settings.mode, Mode::Standalone { .. }));
    }

    #[test]
    fn every_error_is_one_line_that_names_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        for (arguments, flag) in [
            (&["--log-roots", "x"][..], "--log-roots"),
            (&["--listen", "x"], "--listen"),
            (&["--memory-budget", "32Xi"], "--memory-budget"),
            (
                &[
                    "--document",
                    "d",
                    "--memory-budget",
                    "1k",
                    "--log-root",
                    path,
                    "--state-dir",
                    path,
                ],
                "--memory-budget",
            ),
            (&["--drain-timeout", "2h"], "--drain-timeout"),
            (&["--log-format", "xml"], "--log-format"),
            (&["--document", "d", "--log-root", "/nowhere"], "--log-root"),
            (&["--node-name", "n", "--log-root", path], "--namespace"),
            (&["--document", "d", "--no-log-root"], "--no-log-root"),
        ] {
            let line = read_from(arguments).unwrap_err();
            assert!(line.contains(flag) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn quantities() {
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("64Mi"), Ok(64 << 20));
        assert_eq!(bytes("5M"), Ok(5_000_000));
        assert!(bytes("Mi").is_err() && bytes("99999999999Gi").is_err());
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("5").is_err());
    }
}
