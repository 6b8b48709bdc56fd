//! Command line in, a command out.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::settings::is_namespace;

/// Sluice's operator.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-operator",
    version,
    about,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do; `run` when absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub run: Run,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Run),
    /// Write the custom resource definitions and their documentation.
    Crds(Crds),
}

/// Flags of `crds`.
#[derive(Debug, Args)]
pub struct Crds {
    /// Folder for one YAML file per kind.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// File for the documentation.
    #[arg(long)]
    pub docs: Option<PathBuf>,
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// The operator's own namespace.
    #[arg(long, env = "SLUICE_NAMESPACE", default_value = sluice_engine::well_known::NAMESPACE)]
    pub namespace: String,
    /// This process in the Lease; the pod's name.
    #[arg(long, env = "SLUICE_POD_NAME", default_value = "sluice-operator")]
    pub identity: String,
    /// Namespaces where `LokiTenants` count, beside those of the settings; the operator's own without any.
    #[arg(long, env = "SLUICE_TENANT_NAMESPACES", value_delimiter = ',')]
    pub tenant_namespaces: Vec<String>,
    /// Ask for all namespaces first; false for authorizers where all does not imply each.
    #[arg(long, env = "SLUICE_REVIEW_ALL_NAMESPACES")]
    pub review_all_namespaces: Option<bool>,
    /// Allow tenants on loopback and link-local addresses.
    #[arg(long, env = "SLUICE_ALLOW_LOCAL_ADDRESSES")]
    pub allow_local_addresses: bool,
    /// The agents' settings, a YAML file from the chart.
    #[arg(long, env = "SLUICE_SETTINGS")]
    pub settings: Option<PathBuf>,
    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, env = "SLUICE_LISTEN", default_value = "[::]:8080")]
    pub listen: std::net::SocketAddr,
    /// What is logged, such as `debug` or `sluice_operator=trace`; the settings' level when absent.
    #[arg(long, env = "SLUICE_LOG")]
    pub log: Option<String>,
    /// Logs as JSON instead of text.
    #[arg(long, env = "SLUICE_LOG_JSON")]
    pub log_json: bool,
}

/// Why there is no command to run.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Help or version was asked for.
    #[error("{0}")]
    Answer(clap::Error),
    /// A flag, or its variable, is wrong: one line.
    #[error("{0}; see sluice-operator --help")]
    Flags(String),
}

/// Reads command line and environment.
///
/// # Errors
/// One line that names the flag.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    let cli = Cli::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            Stop::Flags(one_line(&error.to_string()))
        } else {
            Stop::Answer(error)
        }
    })?;
    let flags = match &cli.command {
        Some(Command::Run(flags)) => flags,
        Some(Command::Crds(_)) => return Ok(cli),
        None => &cli.run,
    };
    check(flags).map_err(Stop::Flags)?;
    Ok(cli)
}

/// What clap cannot see.
fn check(flags: &Run) -> Result<(), String> {
    let wrong = |flag: &str, name: &str| format!("--{flag}: {name:?} cannot be the name of a namespace");
    if !is_namespace(&flags.namespace) {
        return Err(wrong("namespace", &flags.namespace));
    }
    if let Some(name) = flags.tenant_namespaces.iter().find(|name| !is_namespace(name)) {
        return Err(wrong("tenant-namespaces", name));
    }
    if flags.identity.is_empty() {
        return Err("--identity: it must not be empty, two processes would share the Lease".into());
    }
    if let Some(Err(error)) = flags.log.as_deref().map(EnvFilter::try_new) {
        return Err(format!("--log: {error}"));
    }
    Ok(())
}

/// What clap says, without the usage, in one line.
fn one_line(text: &str) -> String {
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

/// Files that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CrdsError {
    /// The definitions could not be made.
    #[error(transparent)]
    Generate(#[from] crate::api::Error),
    /// A file could not be written.
    #[error("{0} cannot be written: {1}")]
    Write(PathBuf, std::io::Error),
}

/// Writes the definitions and their documentation.
///
/// # Errors
/// When they cannot be made or written.
pub fn write_crds(args: &Crds) -> Result<(), CrdsError> {
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|e| CrdsError::Write(folder.clone(), e))?;
        for (name, content) in crate::api::files()? {
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(|e| CrdsError::Write(path.clone(), e))?;
        }
    }
    if let Some(path) = &args.docs {
        let page = crate::api::reference::render(&crate::api::definitions()?);
        std::fs::write(path, page).map_err(|e| CrdsError::Write(path.clone(), e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let all = ["sluice-operator"].iter().chain(arguments).map(OsString::from);
        read(all).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_flag_ends_with_one_line_that_names_it() {
        for (arguments, named) in [
            (&["--nonsense"][..], "--nonsense"),
            (&["run", "--nonsense"], "--nonsense"),
            (&["--listen=nowhere"], "--listen"),
            (&["--review-all-namespaces=perhaps"], "--review-all-namespaces"),
            (&["--namespace="], "--namespace"),
            (&["--tenant-namespaces=a,,b"], "--tenant-namespaces"),
            (&["--tenant-namespaces="], "--tenant-namespaces"),
            (&["--identity="], "--identity"),
            (&["--log=sluice=loud"], "--log"),
            (&["--namespace=a", "run"], "run"),
            (&["crds", "--out"], "--out"),
        ] {
            let text = refusal(arguments);
            assert!(
                text.contains(named) && !text.contains('\n'),
                "{arguments:?}: {text}"
            );
        }
    }

    #[test]
    fn help_is_no_error() {
        let all = ["sluice-operator", "--help"].map(OsString::from);
        assert!(matches!(read(all), Err(Stop::Answer(_))));
    }
}
