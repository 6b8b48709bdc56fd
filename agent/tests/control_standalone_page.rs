//! `docs/standalone.md` tells the truth: its document and credentials work, its flags are all there.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use sluice_agent::config::standalone::Files;
use sluice_engine::credentials::Credentials;

const PAGE: &str = include_str!("../../docs/standalone.md");

fn block(name: &str) -> &'static str {
    let begin = format!("```json {name}\n");
    PAGE.split_once(&begin).unwrap().1.split_once("```").unwrap().0
}

#[test]
fn the_document_and_the_credentials_work() {
    let dir = tempfile::tempdir().unwrap();
    let document = dir.path().join("document.json");
    std::fs::write(&document, block("document")).unwrap();
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("ops"), block("credentials")).unwrap();
    let in_force = Files::open(document, credentials).unwrap().in_force();
    assert_eq!(in_force.pipelines.len(), 1);
    let found: &Credentials = in_force.tenants[0].credentials.as_ref().unwrap();
    assert_eq!(found.basic.as_ref().unwrap().username, "ops");
    assert!(in_force.refused.is_empty());
}

#[test]
fn every_flag_of_the_page_exists() {
    let help = Command::new(Path::new(env!("CARGO_BIN_EXE_sluice-agent")))
        .arg("--help")
        .output()
        .unwrap()
        .stdout;
    let help = String::from_utf8(help).unwrap();
    let flags: Vec<_> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `--")?.split('`').next())
        .collect();
    assert!(flags.len() > 8);
    for flag in flags {
        assert!(
            help.contains(&format!("--{flag} ")) || help.contains(&format!("--{flag}\n")),
            "--{flag}\n{help}"
        );
    }
}
