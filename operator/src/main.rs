//! Arguments in, an exit code out.

use std::process::ExitCode;

use sluice_operator::cli::{self, Command, Stop};
use sluice_operator::run;

#[tokio::main]
async fn main() -> ExitCode {
    // kube and reqwest share one provider; with none chosen both panic.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("sluice-operator: a TLS provider was installed before main");
        return ExitCode::FAILURE;
    }
    let cli = match cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(Stop::Answer(answer)) => answer.exit(),
        Err(error @ Stop::Flags(_)) => {
            eprintln!("sluice-operator: {error}");
            // as clap ends
            return ExitCode::from(2);
        }
    };
    let result: Result<(), Box<dyn std::error::Error>> = match cli.command {
        Some(Command::Crds(args)) => cli::write_crds(&args).map_err(Into::into),
        Some(Command::Run(flags)) => Box::pin(run::run(flags)).await.map_err(Into::into),
        None => Box::pin(run::run(cli.run)).await.map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-operator: {error}");
            ExitCode::FAILURE
        }
    }
}
