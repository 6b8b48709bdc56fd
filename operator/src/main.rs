//! Arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use sluice_operator::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result: Result<(), Box<dyn std::error::Error>> = match cli.command {
        Some(Command::Crds(args)) => sluice_operator::cli::write_crds(&args).map_err(Into::into),
        Some(Command::Run(_)) | None => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
