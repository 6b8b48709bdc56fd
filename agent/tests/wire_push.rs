//! Requests in, a Loki double's answers, acknowledgements out: every row of Loki's status codes.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_agent::push::Timing;
use sluice_engine::report::ProblemReason;

#[path = "support/access.rs"]
mod access;
#[path = "support/double.rs"]
mod double;
#[path = "support/proto.rs"]
mod proto;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/whole.rs"]
mod whole;

use double::{Double, Reply};
use rig::{A, B, LONG, Rig, TIMING, changed, in_force, key, status, url};

const TOO_OLD: &str =
    "entry for stream '{app=\"a\"}' has timestamp too old: x, oldest acceptable timestamp is: y\n";
const PER_STREAM: &str =
    "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec)', user";

/// Answers before 204, requests in all, lines refused.
type Row = (Vec<Reply>, usize, Vec<(&'static str, u64)>);

#[tokio::test]
async fn every_row_ends_with_every_line_stored_once_or_counted() {
    let html = "<html><h1>Error</h1></html>";
    let grpc = "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)";
    let behind = "entry with timestamp x ignored, reason: 'entry too far behind, entry timestamp is: x, oldest acceptable timestamp is: y',\nuser 'ops', total ignored: 1 out of 2 for stream: {app=\"a\"}";
    let rows: Vec<Row> = vec![
        (vec![], 1, vec![]),
        (
            vec![status(
                260,
                "ingestion blocked for user 'ops' until x with status code '260'",
            )],
            2,
            vec![],
        ),
        (vec![status(201, ""), status(200, html)], 3, vec![]),
        (
            vec![Reply::Status(302, "location: /elsewhere\r\n", String::new())],
            2,
            vec![],
        ),
        (vec![status(400, html), status(400, "")], 3, vec![]),
        (vec![status(400, TOO_OLD)], 3, vec![]), // then each stream alone
        (vec![status(429, PER_STREAM)], 3, vec![]),
        (
            vec![
                status(400, TOO_OLD),
                Reply::StoredBut("a2", 400, TOO_OLD.to_owned()),
            ],
            3,
            vec![("greater_than_max_sample_age", 1)],
        ),
        (
            vec![
                status(400, "snappy: corrupt"),
                Reply::StoredBut("a1", 400, behind.to_owned()),
            ],
            3,
            vec![("too_far_behind", 1)],
        ),
        (
            vec![status(401, "no org id"), status(403, html), status(407, "")],
            4,
            vec![],
        ),
        (vec![status(404, html), status(405, "")], 3, vec![]),
        (
            vec![
                status(408, ""),
                status(425, ""),
                status(499, ""),
                status(500, html),
            ],
            5,
            vec![],
        ),
        (
            vec![status(502, html), status(503, ""), status(504, "")],
            4,
            vec![],
        ),
        (vec![Reply::Cut, Reply::Cut], 3, vec![]),
        (
            vec![status(
                429,
                "ingestion rate limit exceeded for user ops (limit: 1000 bytes/sec) while attempting to ingest '4' lines totaling '900' bytes",
            )],
            2,
            vec![],
        ),
        (vec![status(413, html)], 3, vec![]),
        (vec![status(500, grpc)], 3, vec![]),
        // Said of a request without streams: somebody emptied this one on the way.
        (
            vec![status(
                422,
                "error at least one valid stream is required for ingestion",
            )],
            2,
            vec![],
        ),
        (vec![status(206, ""), status(200, "Please sign in.")], 3, vec![]),
        (
            vec![status(400, r#"Content-Encoding "zstd" not supported"#)],
            2,
            vec![],
        ),
        (vec![status(429, html), status(529, html)], 3, vec![]),
        (
            vec![status(
                429,
                "maximum active stream limit exceeded when trying to create stream {app=\"a\"}, reduce",
            )],
            3,
            vec![],
        ),
        // Each stream alone; one refuses lines of several reasons, the other the labels of all.
        (
            vec![
                status(400, TOO_OLD),
                Reply::StoredBut(
                    "a",
                    400,
                    format!(
                        "1 errors like: max entry size '10' bytes exceeded for stream '{A}' while adding an entry with length '11' bytes; 1 errors like: {TOO_OLD}"
                    ),
                ),
                Reply::StoredBut(
                    "b",
                    400,
                    format!("error parsing labels '{B}' with error: parse error"),
                ),
            ],
            3,
            vec![
                ("greater_than_max_sample_age", 1),
                ("invalid_labels", 2),
                ("line_too_long", 1),
            ],
        ),
    ];
    for (replies, requests, refused) in rows {
        let context = format!("{replies:?}");
        let double = Double::scripted(replies).await;
        let mut rig = Rig::new(TIMING, true);
        rig.pushers.set_tenant(&in_force("ops", url(&double)));
        let body = rig.send(&key("ops"), &[(A, &["a1", "a2"]), (B, &["b1", "b2"])]);
        let outcome = rig.outcome().await;
        assert_eq!(outcome.id, 1);
        let asked = double.asked();
        assert_eq!(asked.len(), requests, "{context}");
        assert_eq!(asked[0].body, body, "{context}");
        assert_eq!(outcome.rejected, refused, "{context}");
        let lost: u64 = refused.iter().map(|(_, lines)| lines).sum();
        assert_eq!(
            double.lines().len() as u64 + lost,
            4,
            "{context}: {:?}",
            double.lines()
        );
        assert!(rig.pushers.problems().is_empty(), "{context}");
    }
}

#[tokio::test]
async fn retries_send_the_identical_bytes_over_one_connection() {
    let double = Double::scripted([
        status(503, ""),
        status(500, "x"),
        status(401, "no"),
        status(429, ""),
    ])
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    let body = rig.send(&key("ops"), &[(A, &["a1"]), (B, &["b1"])]);
    rig.outcome().await;
    let asked = double.asked();
    assert_eq!(asked.len(), 5);
    assert!(asked.iter().all(|asked| asked.body == body));
    assert_eq!(double.memory(|memory| memory.connections), 1);
    let figures = &rig.pushers.figures().tenants[&key("ops")];
    assert_eq!(
        figures.requests,
        BTreeMap::from([("2xx", 1), ("4xx", 1), ("429", 1), ("5xx", 2)])
    );
    assert_eq!((figures.retries, figures.sent_bytes), (4, 5 * body.len() as u64));
}

#[tokio::test]
async fn a_slow_answer_is_sent_again_and_retry_after_is_honoured() {
    let double = Double::scripted([
        Reply::Silent(Duration::from_secs(5)),
        Reply::Status(503, "retry-after: 1\r\n", String::new()),
    ])
    .await;
    let mut rig = Rig::new(TIMING, true);
    let tenant = changed(&in_force("ops", url(&double)), |tenant| {
        tenant.delivery.request_timeout_ms = 100;
    });
    rig.pushers.set_tenant(&tenant);
    rig.send(&key("ops"), &[(A, &["a1"])]);
    let begun = Instant::now();
    rig.outcome().await;
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(1_050) && took < Duration::from_secs(4),
        "{took:?}"
    );
    assert_eq!(double.lines(), ["a1"]);
}

#[tokio::test]
async fn halves_until_it_fits_and_counts_a_line_that_never_does() {
    let double = Double::deciding(|asked| {
        let poison = asked
            .request
            .streams
            .iter()
            .flat_map(|stream| &stream.entries)
            .any(|entry| entry.line == "huge");
        if asked.request.lines() > 3 || poison {
            status(413, "<html>")
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    let lines: Vec<String> = (10..40).map(|n| n.to_string()).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.insert(13, "huge");
    rig.send(&key("ops"), &[(A, &lines), (B, &["50", "51"])]);
    assert_eq!(rig.outcome().await.rejected, [("too_large", 1)]);
    let stored = double.memory(|memory| memory.stored.clone());
    let mut expected = lines.clone();
    expected.retain(|line| *line != "huge");
    assert_eq!(stored[A], expected);
    assert_eq!(stored[B], ["50", "51"]);
    assert!(rig.pushers.figures().tenants[&key("ops")].splits > 4);
}

#[tokio::test]
async fn a_tenants_problem_is_over_when_its_last_line_is_given_up() {
    let mut answers = vec![status(503, ""); 3];
    answers.push(status(413, ""));
    let double = Double::scripted(answers).await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(A, &["huge"])]);
    assert_eq!(rig.outcome().await.rejected, [("too_large", 1)]);
    assert!(rig.pushers.problems().is_empty());
}

#[tokio::test]
async fn a_poison_line_is_found_and_the_rest_is_stored() {
    let double = Double::deciding(|asked| {
        let poison = asked
            .request
            .streams
            .iter()
            .flat_map(|stream| &stream.entries)
            .any(|entry| entry.line == "poison");
        if poison {
            status(400, "proto: illegal wireType 7\n")
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(A, &["a1", "a2", "poison", "a3"]), (B, &["b1"])]);
    assert_eq!(rig.outcome().await.rejected, [("unparsable", 1)]);
    assert_eq!(double.lines(), ["a1", "a2", "a3", "b1"]);
}

#[tokio::test]
async fn a_request_over_the_burst_is_halved_after_it_was_refused_again_and_again() {
    let double = Double::deciding(|asked| {
        if asked.request.lines() > 2 {
            status(429, "ingestion rate limit exceeded for user ops (limit: 10 bytes/sec) while attempting to ingest '4' lines totaling '11' bytes, reduce")
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(A, &["a1", "a2", "a3", "a4"])]);
    assert!(rig.outcome().await.rejected.is_empty());
    assert_eq!(double.lines(), ["a1", "a2", "a3", "a4"]);
}

#[tokio::test]
async fn while_held_one_request_probes() {
    let double = Double::deciding(|_| status(404, "")).await;
    let pause = Duration::from_millis(100);
    let mut rig = Rig::new(
        Timing {
            refused: (pause, pause),
            ..TIMING
        },
        true,
    );
    let tenant = in_force("ops", url(&double));
    rig.pushers.set_tenant(&tenant);
    for _ in 0..4 {
        rig.send(&key("ops"), &[(A, &["a1"])]);
    }
    rig.problem(&key("ops"), ProblemReason::WrongPath).await;
    tokio::time::sleep(Duration::from_millis(550)).await;
    let asked = double.asked().len();
    assert!((5..=10).contains(&asked), "{asked}");
    let good = Double::scripted([]).await;
    rig.pushers
        .set_tenant(&changed(&tenant, |tenant| tenant.push_url = url(&good)));
    for _ in 0..4 {
        rig.outcome().await;
    }
    assert_eq!(good.lines().len(), 4);
}

#[tokio::test]
async fn what_a_firewall_does_not_like_waits_beside_what_it_does() {
    let strict = Arc::new(AtomicBool::new(true));
    let (is_strict, poisoned) = (Arc::clone(&strict), Arc::new(AtomicUsize::new(0)));
    let asked_for = Arc::clone(&poisoned);
    let double = Double::deciding(move |asked| {
        let mut lines = asked.request.streams.iter().flat_map(|stream| &stream.entries);
        if is_strict.load(Ordering::Relaxed) && lines.any(|entry| entry.line.contains("poison")) {
            asked_for.fetch_add(1, Ordering::Relaxed);
            status(403, "<html>blocked by policy</html>")
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    // One stream of the request is not let through, in none of its lines.
    let many: Vec<String> = (0..500).map(|n| format!("poison {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    rig.send(&key("ops"), &[(B, &["b0"]), (A, &many)]);
    let begun = Instant::now();
    while !double.lines().contains(&"b0".to_owned()) {
        rig.send(&key("ops"), &[(B, &["b1"])]);
        rig.outcome().await;
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", double.lines());
    }
    let message = rig.problem(&key("ops"), ProblemReason::Unauthorized).await;
    assert!(
        message.contains("403") && message.contains("other lines of the tenant get through"),
        "{message}"
    );
    // From then on it holds nobody, and is not taken apart.
    let before = poisoned.load(Ordering::Relaxed);
    for _ in 0..50 {
        rig.send(&key("ops"), &[(B, &["b2"])]);
        rig.outcome().await;
    }
    assert!(
        before <= 6 && poisoned.load(Ordering::Relaxed) < before + 100,
        "{before} {poisoned:?}"
    );
    strict.store(false, Ordering::Relaxed);
    while double
        .lines()
        .iter()
        .filter(|line| line.contains("poison"))
        .count()
        < 500
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(begun.elapsed() < Duration::from_mins(1));
    }
    rig.outcome().await;
    while !rig.pushers.problems().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(begun.elapsed() < Duration::from_mins(1));
    }
}

#[tokio::test]
async fn one_stalled_or_throttled_tenant_does_not_delay_another() {
    let throttled = status(
        429,
        "ingestion rate limit exceeded for user ops (limit: 1 bytes/sec)",
    );
    for reply in [Reply::Silent(LONG), throttled] {
        let context = format!("{reply:?}");
        let is_throttled = matches!(reply, Reply::Status(..));
        let troubled = Double::deciding(move |_| reply.clone()).await;
        let good = Double::scripted([]).await;
        let mut rig = Rig::new(TIMING, true);
        rig.pushers.set_tenant(&in_force("troubled", url(&troubled)));
        rig.pushers.set_tenant(&in_force("good", url(&good)));
        for _ in 0..4 {
            rig.send(&key("troubled"), &[(A, &["a1"])]);
        }
        if is_throttled {
            rig.problem(&key("troubled"), ProblemReason::RateLimited).await;
        }
        let (begun, before) = (Instant::now(), troubled.asked().len());
        for _ in 0..20 {
            rig.send(&key("good"), &[(A, &["a1"])]);
            let outcome = rig.outcome().await;
            assert_eq!(*outcome.tenant, key("good"), "{context}");
            assert!(outcome.body.capacity() > 0);
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{context}");
        // It is still asked, and still refuses.
        while is_throttled && troubled.asked().len() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(begun.elapsed() < LONG, "{context}");
        }
        assert!(troubled.lines().is_empty());
        // One that is removed ends without an outcome, and nothing of it stays.
        rig.pushers.remove_tenant(&key("troubled"));
        let outcome = tokio::time::timeout(Duration::from_millis(50), rig.outcomes.recv());
        assert!(outcome.await.is_err(), "{context}");
        assert!(!rig.pushers.figures().tenants.contains_key(&key("troubled")));
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_does_not_hide_behind_one_that_flows() {
    let double = Double::deciding(|asked| {
        let refused = asked.request.streams.iter().any(|stream| stream.labels == B);
        let words = "maximum active stream limit exceeded when trying to create stream {app=\"b\"}, reduce";
        if refused {
            status(429, words)
        } else {
            Reply::Stored
        }
    })
    .await;
    let mut rig = Rig::new(TIMING, true);
    rig.pushers.set_tenant(&in_force("ops", url(&double)));
    rig.send(&key("ops"), &[(B, &["b1"])]);
    let message = rig.problem(&key("ops"), ProblemReason::RateLimited).await;
    assert!(
        message.contains("(429): maximum active stream limit exceeded"),
        "{message}"
    );
    for _ in 0..5 {
        rig.send(&key("ops"), &[(A, &["a1"])]);
        rig.outcome().await;
        assert_eq!(rig.pushers.problems().len(), 1);
    }
}
