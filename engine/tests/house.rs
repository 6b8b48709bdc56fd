//! The house's rules that no lint knows: pure steps stay pure, and files stay short (DESIGN 1, CONTRIBUTING).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Pure by design: functions of data, told the time, without I/O.
const PURE: &[&str] = &[
    "engine/src",
    "operator/src/logpipeline/validate.rs",
    "operator/src/logpipeline/authorize.rs",
    "operator/src/logpipeline/nodes.rs",
    "operator/src/logpipeline/gaps.rs",
    "operator/src/logpipeline/totals.rs",
    "operator/src/logpipeline/status.rs",
    "operator/src/tenant/validate.rs",
    "operator/src/tenant/status.rs",
    "operator/src/reviews/agenda.rs",
    "operator/src/reviews/schedule.rs",
    "operator/src/cluster/lease.rs",
    "operator/src/fleet/render",
    "operator/src/api/conditions.rs",
    "agent/src/batch",
    "agent/src/parse",
    "agent/src/process",
    "agent/src/checkpoint/record.rs",
    "agent/src/checkpoint/fields.rs",
    "agent/src/checkpoint/ledger.rs",
    "agent/src/spill/record.rs",
    "agent/src/follow/record.rs",
    "agent/src/follow/known.rs",
    "agent/src/follow/step.rs",
    "agent/src/follow/wanted.rs",
    "agent/src/follow/figures.rs",
    "agent/src/config/merge.rs",
    "agent/src/config/keeper.rs",
    "agent/src/push/classify.rs",
    "agent/src/push/retry.rs",
    "agent/src/push/split.rs",
    "agent/src/status/report.rs",
];

/// What a pure module has no use for.
const IMPURE: &[&str] = &[
    "async fn",
    ".await",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "kube::Client",
    "Api<",
    "Api::",
    "std::fs",
    "File::open",
    "std::net::Tcp",
    "tokio::spawn",
];

/// Lines of a file before its tests, at most.
const LONGEST: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Rust files below a path, or the file itself.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file's lines before its tests; none where the whole file is tests.
fn code(path: &Path) -> Vec<String> {
    if path.file_stem().is_some_and(|stem| stem == "tests") {
        return Vec::new();
    }
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn pure_steps_stay_pure() {
    for path in PURE.iter().flat_map(|path| sources(&root().join(path))) {
        for (number, line) in code(&path).iter().enumerate() {
            let statement = line.trim_start();
            if statement.starts_with("//") {
                continue;
            }
            let found = IMPURE.iter().find(|word| statement.contains(**word));
            assert_eq!(
                found,
                None,
                "{}:{}: a pure module does no I/O and is told the time",
                path.display(),
                number + 1
            );
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    for member in [
        "engine/src",
        "operator/src",
        "agent/src",
        "e2e/src",
        "bench/src",
        "fuzz/src",
    ] {
        for path in sources(&root().join(member)) {
            let lines = code(&path);
            assert!(
                lines.len() <= LONGEST,
                "{}: {} lines before its tests",
                path.display(),
                lines.len()
            );
            if let Some(first) = lines.first() {
                assert!(
                    first.starts_with("//!"),
                    "{}: say first what goes in and what comes out",
                    path.display()
                );
            }
        }
    }
}
