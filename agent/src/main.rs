//! The agent's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_agent::run::main()
}
