//! Entries in, a Loki double with faults at the other end: no line lost or doubled, every piece finished.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_agent::batch::{Append, Batcher, Entry, Fate};
use sluice_agent::config::TenantInForce;
use sluice_agent::push::{PushSettings, Pushers, Timing};
use sluice_agent::tail::position::CursorId;
use sluice_engine::cri::Timestamp;
use sluice_engine::document::{Auth, Delivery, Limits, Tenant, Tls};
use sluice_engine::key::Key;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::double::{Double, Reply};

const STREAMS: u32 = 5;
const LINES: u64 = 20_000;

fn fault(number: usize) -> Reply {
    let too_old = "entry for stream '{a=\"b\"}' has timestamp too old: x, oldest acceptable timestamp is: y";
    let status = |status, body: &str| Reply::Status(status, "", body.to_owned());
    match number % 17 {
        0 => status(503, ""),
        2 => Reply::Cut,
        3 => status(500, "<html>"),
        4 => status(
            429,
            "ingestion rate limit exceeded for user ops (limit: 1 bytes/sec)",
        ),
        6 => status(401, "no org id"),
        8 => status(413, "<html>"),
        9 => status(400, "<html>"),
        11 => status(260, "ingestion blocked for user 'ops'"),
        // Said of a request whose stream is one of several: each is sent alone.
        13 => status(400, too_old),
        15 => status(500, "grpc: received message larger than max (5 vs. 4)"),
        _ => Reply::Stored,
    }
}

#[tokio::test]
async fn no_line_is_lost_or_doubled_across_faults() {
    let mut number = 0;
    let double = Double::deciding(move |asked| {
        number += 1;
        let reply = fault(number);
        // A refusal of a lone stream would be final, and this one is not meant.
        let refusal = matches!(&reply, Reply::Status(400, _, body) if body.starts_with("entry"));
        if refusal && asked.request.streams.len() == 1 {
            Reply::Stored
        } else {
            reply
        }
    })
    .await;
    let key = Key::new("logging", "ops");
    let mut tenant = Tenant {
        name: key.clone(),
        uid: "u".to_owned(),
        generation: 1,
        hash: String::new(),
        push_url: format!("http://{}/loki/api/v1/push", double.address),
        tenant_id: None,
        auth: Auth::None,
        tls: Tls::default(),
        headers: Vec::new(),
        limits: Limits {
            rate_bytes_per_second: 1 << 30,
            per_stream_rate_bytes_per_second: 1 << 30,
            ..Limits::default()
        },
        delivery: Delivery {
            batch_bytes: 64 << 10,
            batch_wait_ms: 50,
            ..Delivery::default()
        },
    };
    tenant.seal();
    let (sender, mut outcomes) = mpsc::unbounded_channel();
    let short = (Duration::from_millis(2), Duration::from_millis(5));
    let timing = Timing {
        first: short.0,
        most: short.1,
        refused: short,
        blocked: short,
    };
    let settings = PushSettings {
        allow_local_addresses: true,
        ..PushSettings::default()
    };
    let pushers = Pushers::with_timing(Handle::current(), settings, timing, move |outcome| {
        let _gone = sender.send(outcome);
    });
    let mut batcher = Batcher::new(4 << 20);
    batcher.set_tenant(&tenant);
    pushers.set_tenant(&TenantInForce {
        tenant: Arc::new(tenant),
        credentials: None,
        version: String::new(),
    });

    let streams: Vec<_> = (0..STREAMS)
        .map(|n| batcher.open_stream(&key, &format!("{{n=\"{n}\"}}")))
        .collect();
    let (mut opened, mut finished) = (BTreeSet::new(), BTreeSet::new());
    let mut next = 0;
    let begun = Instant::now();
    while next < LINES || opened.len() != finished.len() {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "{next} {} {}",
            opened.len(),
            finished.len()
        );
        for _ in 0..500 {
            if next == LINES {
                break;
            }
            let stream = streams[(next % 7 % u64::from(STREAMS)) as usize];
            let line = format!(
                "{next:06} {}",
                "some words of a line ".repeat((next % 9) as usize)
            );
            let timestamp = Timestamp {
                seconds: 1_795_197_000,
                nanos: u32::try_from(next).unwrap(),
            };
            match batcher.append(
                stream,
                CursorId(1),
                &Entry {
                    timestamp,
                    line: &[line.as_bytes()],
                    metadata: b"",
                },
            ) {
                Append::NoRoom | Append::Behind | Append::NotYet => break,
                Append::Opened(piece) => assert!(opened.insert(piece)),
                Append::Added => {}
            }
            next += 1;
        }
        while let Some(batch) = batcher.seal(Instant::now()) {
            pushers.send(batch);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        while let Ok(outcome) = outcomes.try_recv() {
            if let Fate::Ended(refused) = &outcome.fate {
                assert_eq!(refused, &[]);
            }
            finished.extend(batcher.complete(outcome).into_iter().map(|piece| piece.piece));
        }
    }
    assert_eq!(finished, opened);
    let lines = double.lines();
    assert_eq!(lines.len() as u64, LINES);
    assert!(
        lines
            .iter()
            .enumerate()
            .all(|(n, line)| line.starts_with(&format!("{n:06} ")))
    );
    // Of one stream everything came in order.
    double.memory(|memory| assert!(memory.stored.values().all(|lines| lines.is_sorted())));
    assert!(pushers.problems().is_empty());
    let figures = &pushers.figures().tenants[&key];
    assert!(figures.retries > 10 && figures.splits > 5, "{figures:?}");
}
