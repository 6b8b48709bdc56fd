//! What the agent relies on is synced before it goes on, as its calls show: a power cut takes no position and no copy
//! that anything depends on. A killed process cannot show that, since the kernel keeps what it wrote.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and says what it saw"
)]

#[path = "../support/double.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod double;
#[path = "../support/proto.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod proto;
mod trace;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use double::{Double, Reply};
use sluice_agent::config::cache;
use trace::{Findings, read, traced};

const LIMIT: Duration = Duration::from_mins(1);
/// Set for the process of which only the calls are of interest.
const TRACED: &str = "SLUICE_TRACED_STATE";

/// In memory where possible: on a disk with less than 15 % free nothing would be kept for Loki.
fn room() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    fs::create_dir(dir.path().join("state")).unwrap();
    dir
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn document(loki: &Double) -> String {
    format!(
        r#"{{"version": 1, "pipelines": [{{"name": "default/web", "uid": "web", "tenants": ["default/ops"],
           "pods": {{"namespaces": [{{"name": "shop"}}]}}}}],
           "tenants": [{{"name": "default/ops", "uid": "ops", "pushUrl": "http://{}/loki/api/v1/push",
           "delivery": {{"batchWaitMs": 100}}}}]}}"#,
        loki.address
    )
}

fn judge(findings: &Findings) {
    for ((call, name), times) in &findings.done {
        println!("{call} {name}: {times}");
    }
    assert!(findings.faults.is_empty(), "{:#?}", findings.faults);
}

/// Loki is away until what a dead container left is copied, then takes all, and more that is written.
#[tokio::test]
async fn positions_and_copies_are_on_the_disk_before_anything_depends_on_them() {
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let loki = Double::deciding(move |_| {
        if is_away.load(Ordering::Relaxed) {
            Reply::Status(503, "", String::new())
        } else {
            Reply::Stored
        }
    })
    .await;
    let dir = room();
    let (state, trace) = (dir.path().join("state"), dir.path().join("trace"));
    let folder = dir.path().join("pods/shop_web-0_5f3c/app");
    fs::create_dir_all(&folder).unwrap();
    let write = |restart: u32, lines: std::ops::Range<u32>| {
        let text = lines.map(|n| format!("2026-11-20T10:00:{restart:02}.{n:09}Z stdout F {restart} {n}\n"));
        fs::write(folder.join(format!("{restart}.log")), text.collect::<String>()).unwrap();
    };
    write(0, 0..1_000);
    write(1, 0..1_000);
    fs::write(dir.path().join("document.json"), document(&loki)).unwrap();
    let mut agent = traced(&trace, Path::new(env!("CARGO_BIN_EXE_sluice-agent")))
        .arg("--document")
        .arg(dir.path().join("document.json"))
        .arg("--log-root")
        .arg(dir.path().join("pods"))
        .arg("--state-dir")
        .arg(&state)
        .args([
            "--listen",
            "127.0.0.1:0",
            "--node-name",
            "n1",
            "--allow-local-addresses",
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace, of `make deps`");
    let copy = state.join("spill/0000000000000001");
    until("a copy", || copy.exists()).await;
    away.store(false, Ordering::Relaxed);
    until("the first lines", || loki.lines().len() >= 2_000).await;
    until("the copy's end", || !copy.exists()).await;
    write(2, 0..1_000);
    until("the next lines", || loki.lines().len() >= 3_000).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    let findings = Findings::of(&read(&trace, &agent), &state);
    judge(&findings);
    assert!(findings.requests > 1);
    for (call, name) in [
        ("rename", "journal"),
        ("write", "journal"),
        ("fdatasync", "journal"),
        ("mkdir", "spill"),
        ("linkat", "0000000000000001"),
        ("unlink", "0000000000000001"),
        ("fsync", "spill"),
    ] {
        assert!(findings.count(call, name) > 0, "no {call} of {name}");
    }
}

#[test]
fn what_is_in_force_is_on_the_disk_before_it_has_its_name() {
    if let Some(state) = std::env::var_os(TRACED) {
        return cache::save(Path::new(&state), b"in force").unwrap();
    }
    let dir = room();
    let (state, trace) = (dir.path().join("state"), dir.path().join("trace"));
    let mut child = traced(&trace, &std::env::current_exe().unwrap())
        .args([
            "--exact",
            "what_is_in_force_is_on_the_disk_before_it_has_its_name",
        ])
        .env(TRACED, &state)
        .stdout(Stdio::null())
        .spawn()
        .expect("strace, of `make deps`");
    assert!(child.wait().unwrap().success());
    let findings = Findings::of(&read(&trace, &child), &state);
    judge(&findings);
    assert_eq!(findings.count("rename", "in-force"), 1);
    assert_eq!(findings.count("mkdir", "config"), 1);
}
