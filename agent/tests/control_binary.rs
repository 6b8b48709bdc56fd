//! The binary as a person meets it: what is wrong is one line, and the exit code says which kind it is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output};

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice-agent"))
        .args(arguments)
        .env_remove("NODE_NAME")
        .env_remove("POD_NAMESPACE")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// The one line that a failed start prints.
fn last_word(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    text
}

fn standalone(dir: &Path, document: &str) -> Output {
    let path = dir.join("document.json");
    std::fs::write(&path, document).unwrap();
    let folder = dir.to_str().unwrap();
    agent(&[
        "--document",
        path.to_str().unwrap(),
        "--log-root",
        folder,
        "--state-dir",
        folder,
        "--listen",
        "127.0.0.1:0",
    ])
}

#[test]
fn flags_that_cannot_be_read_end_with_2() {
    for (arguments, word) in [
        (&["--nod-name", "x"][..], "--nod-name"),
        (&["--listen", "here"], "--listen"),
    ] {
        assert!(last_word(&agent(arguments), 2).contains(word));
    }
}

#[test]
fn settings_that_cannot_work_end_with_64() {
    assert!(last_word(&agent(&[]), 64).contains("--node-name"));
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let common = [
        "--node-name",
        "n",
        "--namespace",
        "s",
        "--log-root",
        folder,
        "--state-dir",
        folder,
    ];
    let in_cluster = |more: &[&str]| agent(&[&common[..], more].concat());
    let local = ["--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0"];
    assert!(last_word(&in_cluster(&local), 64).contains("--document FILE"));
    assert!(last_word(&in_cluster(&["--log-level", "a=b=c"]), 64).contains("--log-level"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(last_word(&in_cluster(&["--listen", &address]), 64).contains("--listen"));
}

#[test]
fn a_document_that_cannot_be_used_ends_with_64() {
    let dir = tempfile::tempdir().unwrap();
    for (document, word) in [
        ("{", "document.json"),
        (r#"{"version": 9}"#, "version 9"),
        (
            r#"{"version": 1, "tenants": [], "pipelines": [{"name": "team/web", "uid": "u", "tenants": ["a/b"],
               "pods": {"namespaces": [{"name": "team"}], "selector": {"matchLabels": {"app": "web"}}}}]}"#,
            "pipeline team/web: pods.selector.matchLabels",
        ),
    ] {
        let line = last_word(&standalone(dir.path(), document), 64);
        assert!(line.contains("--document") && line.contains(word), "{line}");
    }
}

#[test]
fn help_and_version_are_answers() {
    for flag in ["--help", "--version"] {
        let output = agent(&[flag]);
        assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty());
    }
}
