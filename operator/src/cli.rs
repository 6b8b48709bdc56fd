//! Command line in, a command out.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Sluice's operator.
#[derive(Debug, Parser)]
#[command(name = "sluice-operator", version, about)]
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
