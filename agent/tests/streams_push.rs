//! A stream that Loki does not take for a limit of its own, and everybody else beside it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    dead_code,
    reason = "tests, with parts of what they share"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_agent::batch::{Fate, Limit};
use sluice_engine::report::ProblemReason;

#[path = "support/double.rs"]
mod double;
#[path = "support/proto.rs"]
mod proto;
#[path = "support/rig.rs"]
mod rig;

use double::{Double, Reply};
use rig::{A, B, Rig, TIMING, batch, in_force, key, status, url};

const C: &str = r#"{app="c"}"#;
const STREAM_LIMIT: &str =
    "maximum active stream limit exceeded when trying to create stream {app=\"b\"}, reduce";
const PER_STREAM: &str = "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 10KB/sec) while attempting', user";

#[tokio::test]
async fn a_stream_at_the_limit_holds_neither_its_companions_nor_other_requests() {
    let open = Arc::new(AtomicBool::new(false));
    let takes = Arc::clone(&open);
    let double = Double::deciding(move |asked| {
        let refused = asked.request.streams.iter().any(|stream| stream.labels == B);
        if refused && !takes.load(Ordering::Relaxed) {
            status(429, STREAM_LIMIT)
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(A, &["a1"]), (B, &["b1"]), (C, &["c1"])]);
    let mut told = Vec::new();
    for _ in 0..3 {
        let outcome = rig.next_outcome().await;
        told.push((outcome.id, outcome.stream, outcome.fate));
    }
    let ended = || Fate::Ended(Vec::new());
    assert_eq!(
        told,
        [
            (1, Some(0), ended()),
            (1, Some(1), Fate::Waits(Limit::Streams)),
            (1, Some(2), ended())
        ]
    );
    // More requests than the window has places, each with a stream that is refused, and one that is not.
    for n in 2..30 {
        rig.pushers.send(batch(n, &key("ops"), &[(B, &["b2"])]));
        let outcome = rig.next_outcome().await;
        assert_eq!((outcome.id, outcome.fate), (n, Fate::Waits(Limit::Streams)));
    }
    let flowing = batch(99, &key("ops"), &[(A, &["a2"])]);
    let feedback = Arc::clone(&flowing.feedback);
    rig.pushers.send(flowing);
    assert_eq!(rig.next_outcome().await.id, 99);
    rig.problem(&key("ops"), ProblemReason::RateLimited).await;
    assert_eq!(feedback.throttles(), 0);
    // Thirty streams that wait ask one at a time.
    let before = double.asked().len();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let asked = double.asked().len() - before;
    assert!((1..120).contains(&asked), "{asked}");
    open.store(true, Ordering::Relaxed);
    for _ in 1..30 {
        let outcome = rig.next_outcome().await;
        assert_eq!(outcome.fate, ended());
    }
    assert_eq!(
        double.lines().iter().filter(|line| line.starts_with('b')).count(),
        29
    );
    assert!(rig.pushers.problems().is_empty());
}

#[tokio::test]
async fn what_is_more_than_a_stream_takes_at_a_time_is_halved_and_keeps_its_order() {
    let double = Double::deciding(|asked| {
        let heavy = asked
            .request
            .streams
            .iter()
            .any(|s| s.labels == B && s.entries.len() > 5);
        if heavy {
            status(429, PER_STREAM)
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    let lines: Vec<String> = (10..50).map(|n| format!("b{n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let request = batch(1, &key("ops"), &[(A, &["a1"]), (B, &lines)]);
    let feedback = Arc::clone(&request.feedback);
    rig.pushers.send(request);
    let mut told = Vec::new();
    for _ in 0..3 {
        let outcome = rig.next_outcome().await;
        told.push((outcome.stream, outcome.fate));
    }
    assert_eq!(
        told,
        [
            (Some(0), Fate::Ended(Vec::new())),
            (Some(1), Fate::Waits(Limit::Rate)),
            (Some(1), Fate::Ended(Vec::new()))
        ]
    );
    assert_eq!(double.memory(|memory| memory.stored[B].clone()), lines);
    assert_eq!(feedback.throttles(), 0);
}

#[tokio::test]
async fn a_request_over_the_tenants_rate_slows_the_tenant_down() {
    let words = "ingestion rate limit exceeded for user ops (limit: 4194304 bytes/sec) while attempting to ingest '1' lines totaling '9' bytes";
    let double = Double::scripted([status(429, words), status(429, "")]).await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    let request = batch(1, &key("ops"), &[(A, &["a1"])]);
    let feedback = Arc::clone(&request.feedback);
    rig.pushers.send(request);
    assert_eq!(rig.next_outcome().await.fate, Fate::Ended(Vec::new()));
    assert_eq!(feedback.throttles(), 2);
}
