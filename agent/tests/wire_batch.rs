//! Entries in, sealed requests out, pieces finished: the batcher as the worker uses it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_agent::batch::{Append, Batch, Batcher, Entry, Fate, Finished, Limit, Outcome, StreamId, encode};
use sluice_agent::tail::position::CursorId;
use sluice_engine::cri::Timestamp;
use sluice_engine::document::{Delivery, Limits, Tenant};
use sluice_engine::key::Key;

#[path = "support/noise.rs"]
mod noise;
#[path = "support/once.rs"]
mod once;
#[path = "support/proto.rs"]
mod proto;
#[path = "support/tenant.rs"]
mod tenant;

use tenant::wide;

const MIB: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_millis(1);

fn key(name: &str) -> Key {
    Key::new("logging", name)
}

fn tenant(name: &str, limits: Limits, delivery: Delivery) -> Tenant {
    tenant::tenant(&key(name), limits, delivery)
}

fn batcher(pool: usize, limits: Limits) -> Batcher {
    let mut batcher = Batcher::new(pool);
    batcher.set_tenant(&tenant("a", limits, Delivery::default()));
    batcher
}

fn add(batcher: &mut Batcher, stream: StreamId, cursor: u32, line: &str) -> Append {
    let entry = Entry {
        timestamp: Timestamp {
            seconds: 1_795_197_000,
            nanos: 5,
        },
        line: &[line.as_bytes()],
        metadata: &encode::metadata(&[("pod", "p")]),
    };
    batcher.append(stream, CursorId(cursor), &entry)
}

/// Letters without any order, another line for each number.
fn noise(number: usize, len: usize) -> String {
    let bytes = noise::noise(len, &mut (number as u64 + 1));
    bytes
        .into_iter()
        .map(|byte| char::from(b'!' + (byte >> 2)))
        .collect()
}

fn done(batcher: &mut Batcher, batch: Batch) -> Vec<Finished> {
    let Batch { id, tenant, body, .. } = batch;
    batcher.complete(Outcome {
        id,
        tenant,
        stream: None,
        fate: Fate::Ended(Vec::new()),
        body,
    })
}

fn seal_all(batcher: &mut Batcher, now: Instant) -> Vec<Batch> {
    std::iter::from_fn(|| batcher.seal(now)).collect()
}

/// A stream whose first request is behind it.
fn warm(batcher: &mut Batcher, tenant: &str, labels: &str, now: Instant) -> StreamId {
    let stream = batcher.open_stream(&key(tenant), labels);
    add(batcher, stream, 0, "first");
    batcher.seal(now);
    let batch = batcher.seal(now + SECOND).unwrap();
    assert_eq!(batch.streams, 1);
    done(batcher, batch);
    stream
}

#[test]
fn an_entry_is_what_loki_reads() {
    let mut batcher = batcher(MIB, wide());
    let now = Instant::now();
    let stream = batcher.open_stream(&key("a"), r#"{app="x"}"#);
    let entry = Entry {
        timestamp: Timestamp {
            seconds: -5,
            nanos: 7,
        },
        line: &[b"hello, ", b"", b"world"],
        metadata: &encode::metadata(&[("pod", "p-1"), ("stream", "stderr")]),
    };
    assert!(matches!(
        batcher.append(stream, CursorId(1), &entry),
        Append::Opened(_)
    ));
    assert_eq!(batcher.append(stream, CursorId(1), &entry), Append::Added);
    assert!(batcher.seal(now).is_none());
    assert_eq!(batcher.next_due(now), Some(now + SECOND));
    let batch = batcher.seal(now + SECOND).unwrap();
    let request = proto::decode(&batch.body);
    assert_eq!(request.lines(), 2);
    assert_eq!((batch.streams, batch.lines, &*batch.tenant), (1, 2, &key("a")));
    let stream = &request.streams[0];
    assert_eq!(stream.labels, r#"{app="x"}"#);
    let entry = &stream.entries[0];
    assert_eq!(entry.line, "hello, world");
    assert_eq!(
        entry.timestamp,
        Some(proto::Timestamp {
            seconds: -5,
            nanos: 7
        })
    );
    let pairs: Vec<(&str, &str)> = entry
        .metadata
        .iter()
        .map(|pair| (&*pair.name, &*pair.value))
        .collect();
    assert_eq!(pairs, [("pod", "p-1"), ("stream", "stderr")]);
}

proptest! {
    /// Streams are compressed piece by piece as their lines come, and a request is put together of that.
    #[test]
    fn whatever_lines_come_loki_reads_them(
        lines in proptest::collection::vec((0..3_usize, any::<bool>(), prop_oneof![
            8 => 0..400_usize, 3 => 0..70_000_usize, 1 => 65_000..66_000_usize, 1 => 0..200_000_usize,
        ]), 1..90),
    ) {
        let mut batcher = batcher(64 * MIB, wide());
        let now = Instant::now();
        let streams = [0, 1, 2].map(|n| warm(&mut batcher, "a", &format!("{{n=\"{n}\"}}"), now));
        let mut expected: [Vec<String>; 3] = Default::default();
        for (number, (stream, is_noise, len)) in lines.into_iter().enumerate() {
            let line = if is_noise { noise(number, len) } else { format!("{number} ").repeat(len / 8) };
            prop_assert_ne!(add(&mut batcher, streams[stream], 1, &line), Append::NoRoom);
            expected[stream].push(line);
        }
        batcher.drain();
        let mut came: [Vec<String>; 3] = Default::default();
        loop {
            let sealed = seal_all(&mut batcher, now + 2 * SECOND);
            if sealed.is_empty() {
                break;
            }
            for batch in sealed {
                for stream in proto::decode(&batch.body).streams {
                    let digit = |place: &usize| stream.labels == format!("{{n=\"{place}\"}}");
                    let place = (0..3).find(digit).unwrap();
                    came[place].extend(stream.entries.into_iter().map(|entry| entry.line));
                }
                done(&mut batcher, batch);
            }
        }
        prop_assert_eq!(came, expected);
    }
}

#[test]
fn new_streams_travel_alone_and_then_share() {
    let mut batcher = batcher(4 * MIB, wide());
    let begin = Instant::now();
    let streams: Vec<StreamId> = (0..3)
        .map(|n| batcher.open_stream(&key("a"), &format!("{{n=\"{n}\"}}")))
        .collect();
    for stream in &streams {
        add(&mut batcher, *stream, stream.0, "one");
    }
    assert!(batcher.seal(begin).is_none());
    let mut alone = seal_all(&mut batcher, begin + SECOND);
    assert_eq!(
        alone.iter().map(|batch| batch.streams).collect::<Vec<_>>(),
        [1, 1]
    );
    // Two first ones at a time: a third must not keep known streams waiting.
    let answered = alone.remove(0);
    assert_eq!(done(&mut batcher, answered).len(), 1);
    alone.extend(seal_all(&mut batcher, begin + SECOND));
    assert_eq!(alone.len(), 2);
    // One request of a stream at a time: what comes meanwhile waits.
    for stream in &streams {
        add(&mut batcher, *stream, stream.0, "two");
    }
    batcher.seal(begin + SECOND);
    let first = seal_all(&mut batcher, begin + 3 * SECOND);
    assert_eq!(first.iter().map(|batch| batch.streams).collect::<Vec<_>>(), [1]);
    assert_eq!(batcher.next_due(begin + 3 * SECOND), None);
    for batch in first {
        done(&mut batcher, batch);
    }
    add(&mut batcher, streams[0], 0, "two");
    batcher.seal(begin + SECOND);
    for batch in alone {
        assert_eq!(done(&mut batcher, batch).len(), 1);
    }
    assert_eq!(batcher.next_due(begin + 3 * SECOND), Some(begin + 3 * SECOND));
    let mut shared = seal_all(&mut batcher, begin + 3 * SECOND);
    assert_eq!(shared.iter().map(|batch| batch.streams).collect::<Vec<_>>(), [3]);
    assert_eq!(done(&mut batcher, shared.remove(0)).len(), 3);
    // After half an hour without a line a stream may be new to Loki again.
    let later = begin + Duration::from_mins(31);
    for stream in &streams {
        add(&mut batcher, *stream, stream.0, "three");
    }
    batcher.seal(later);
    assert_eq!(
        seal_all(&mut batcher, later + SECOND)
            .iter()
            .map(|batch| batch.streams)
            .collect::<Vec<_>>(),
        [1, 1, 1]
    );
}

#[test]
fn a_heavy_stream_travels_alone_in_requests_of_their_size_one_at_a_time() {
    let mut batcher = batcher(16 * MIB, wide());
    let begin = Instant::now();
    let heavy = warm(&mut batcher, "a", "{n=\"heavy\"}", begin);
    let light = warm(&mut batcher, "a", "{n=\"light\"}", begin);
    let line = "x".repeat(1000);
    let mut opened = 0;
    for _ in 0..2500 {
        opened += usize::from(matches!(add(&mut batcher, heavy, 7, &line), Append::Opened(_)));
    }
    add(&mut batcher, light, 8, "y");
    let now = begin + 2 * SECOND;
    let first = batcher.seal(now).unwrap();
    assert_eq!(first.streams, 1);
    let size = snap::raw::decompress_len(&first.body).unwrap();
    assert!((MIB - 2_000..=MIB).contains(&size), "{size}");
    // The light stream has not waited long enough, the heavy one has a request under way.
    assert!(batcher.seal(now).is_none());
    let mut pieces = done(&mut batcher, first);
    loop {
        let round = seal_all(&mut batcher, now + 2 * SECOND);
        if round.is_empty() {
            break;
        }
        assert!(round.iter().all(|batch| batch.streams == 1));
        pieces.extend(round.into_iter().flat_map(|batch| done(&mut batcher, batch)));
    }
    assert_eq!(pieces.len(), opened + 1);
    let heavy = pieces.iter().filter(|piece| piece.cursor == CursorId(7)).count();
    assert_eq!((heavy, opened), (3, 3));
}

#[test]
fn four_requests_are_under_way_at_most_and_first_ones_beside_them() {
    let mut batcher = batcher(16 * MIB, wide());
    let begin = Instant::now();
    let known: Vec<StreamId> = (0..5)
        .map(|n| warm(&mut batcher, "a", &format!("{{known=\"{n}\"}}"), begin))
        .collect();
    let new = |batcher: &mut Batcher, count: usize| {
        for n in 0..count {
            let stream = batcher.open_stream(&key("a"), &format!("{{n=\"{n}\"}}"));
            add(batcher, stream, 1, "x");
        }
    };
    // Two at first, and one more for each that was taken.
    new(&mut batcher, 40);
    batcher.drain();
    let now = begin + 2 * SECOND;
    let mut firsts = seal_all(&mut batcher, now);
    assert_eq!(firsts.len(), 7);
    assert_eq!(batcher.next_due(now), None);
    // Streams that Loki knows find their own window.
    let line = "x".repeat(600_000);
    for stream in known {
        add(&mut batcher, stream, 1, &line);
    }
    let mut others = seal_all(&mut batcher, now);
    assert_eq!(others.len(), 4);
    assert_eq!(batcher.next_due(now), None);
    done(&mut batcher, others.remove(3));
    assert_eq!(seal_all(&mut batcher, now).len(), 1);
    // A thousand new streams are a matter of a hundred answers' time.
    let mut rounds = 0;
    while !firsts.is_empty() {
        rounds += 1;
        for batch in std::mem::take(&mut firsts) {
            done(&mut batcher, batch);
        }
        firsts = seal_all(&mut batcher, now);
    }
    assert_eq!(rounds, 4);
}

/// What is said of one stream of a request.
fn of_stream(batcher: &mut Batcher, batch: &Batch, stream: u32, fate: Fate) -> Vec<Finished> {
    batcher.complete(Outcome {
        id: batch.id,
        tenant: Arc::clone(&batch.tenant),
        stream: Some(stream),
        fate,
        body: Vec::new(),
    })
}

#[test]
fn a_stream_that_waits_holds_nobody_else() {
    let mut batcher = batcher(16 * MIB, wide());
    let begin = Instant::now();
    let streams: Vec<StreamId> = (0..3)
        .map(|n| warm(&mut batcher, "a", &format!("{{n=\"{n}\"}}"), begin))
        .collect();
    let mut now = begin + 2 * SECOND;
    let send = |batcher: &mut Batcher, now: Instant| {
        for (stream, cursor) in streams.iter().zip(1..) {
            add(batcher, *stream, cursor, "x");
        }
        batcher.seal(now).or_else(|| batcher.seal(now + SECOND))
    };
    let shared = send(&mut batcher, now).unwrap();
    assert_eq!(shared.streams, 3);
    assert_eq!(of_stream(&mut batcher, &shared, 1, Fate::Waits(Limit::Rate)), []);
    for (place, cursor) in [(0, 1), (2, 3)] {
        let finished = of_stream(&mut batcher, &shared, place, Fate::Ended(Vec::new()));
        assert_eq!(
            finished.iter().map(|piece| piece.cursor).collect::<Vec<_>>(),
            [CursorId(cursor)]
        );
    }
    // The others go on, with the whole window, and it sends nothing more.
    let mut held = batcher.held_bytes();
    for _ in 0..3 {
        now += 3 * SECOND;
        let next = send(&mut batcher, now).unwrap();
        assert_eq!(next.streams, 2);
        assert_eq!(done(&mut batcher, next).len(), 2);
    }
    // Told twice is no harm, and the end is the end.
    assert_eq!(of_stream(&mut batcher, &shared, 0, Fate::Ended(Vec::new())), []);
    assert_eq!(
        of_stream(&mut batcher, &shared, 1, Fate::Ended(Vec::new())).len(),
        1
    );
    assert_eq!(done(&mut batcher, shared), []);
    now += 3 * SECOND;
    // One that was refused for its rate travels alone: Loki counts it otherwise.
    let last = send(&mut batcher, now).unwrap();
    assert_eq!((last.streams, last.lines), (1, 4));
    let rest = batcher.seal(now + SECOND).unwrap();
    assert_eq!((rest.streams, rest.lines), (2, 2));
    done(&mut batcher, last);
    done(&mut batcher, rest);
    batcher.seal(now + 60 * SECOND);
    batcher.seal(now + 90 * SECOND);
    held = held.saturating_sub(batcher.held_bytes());
    assert!(held > 0 && batcher.held_bytes() == 0);
}

#[test]
fn at_the_tenants_limit_of_streams_new_ones_go_one_at_a_time() {
    let mut batcher = batcher(16 * MIB, wide());
    let begin = Instant::now();
    for n in 0..40 {
        let stream = batcher.open_stream(&key("a"), &format!("{{n=\"{n}\"}}"));
        add(&mut batcher, stream, 1, "x");
    }
    batcher.drain();
    let (mut now, mut sent, mut waiting) = (begin, 0, Vec::new());
    while now < begin + 60 * SECOND {
        for batch in seal_all(&mut batcher, now) {
            sent += 1;
            of_stream(&mut batcher, &batch, 0, Fate::Waits(Limit::Streams));
            waiting.push(batch);
        }
        now = batcher.next_due(now).unwrap_or(now + SECOND).max(now + MOMENT);
    }
    assert!((4..=8).contains(&sent), "{sent}");
    // One that is taken at last opens the way for the others.
    for batch in waiting {
        done(&mut batcher, batch);
    }
    assert!(seal_all(&mut batcher, now).len() >= 4);
}

/// What a file's turn brings: reads, while the stream takes more.
fn offer(batcher: &mut Batcher, stream: StreamId, number: usize) -> usize {
    let mut taken = 0;
    while batcher.has_room(&key("a")) && batcher.takes_more(stream) {
        for line in 0..256 {
            if add(batcher, stream, stream.0, &noise(number * 1000 + line, 1000)) == Append::NoRoom {
                return taken;
            }
            taken += 1;
        }
    }
    taken
}

#[test]
fn streams_that_loki_does_not_take_leave_room_for_those_that_it_knows() {
    let mut batcher = batcher(32 * MIB, wide());
    let begin = Instant::now();
    let known = warm(&mut batcher, "a", "{n=\"known\"}", begin);
    let refused: Vec<StreamId> = (0..200)
        .map(|n| batcher.open_stream(&key("a"), &format!("{{n=\"{n}\"}}")))
        .collect();
    let (mut flowed, mut waiting) = (0, Vec::new());
    for second in 1..40_u32 {
        let now = begin + second * SECOND;
        for (number, stream) in refused.iter().enumerate() {
            offer(&mut batcher, *stream, number);
        }
        let offered = offer(&mut batcher, known, 500 + second as usize);
        assert!(offered > 0, "the known stream has no room after {second} s");
        flowed += offered;
        for batch in seal_all(&mut batcher, now) {
            if proto::decode(&batch.body).streams[0].labels.contains("known") {
                done(&mut batcher, batch);
            } else {
                let wait = Outcome {
                    id: batch.id,
                    tenant: Arc::clone(&batch.tenant),
                    stream: None,
                    fate: Fate::Waits(Limit::Streams),
                    body: Vec::new(),
                };
                assert!(batcher.complete(wait).is_empty());
                waiting.push(batch);
            }
        }
    }
    assert!(flowed > 20_000, "{flowed}");
    // The limit is raised: all of them flow.
    let mut taken = std::collections::BTreeSet::new();
    for second in 40..100_u32 {
        for batch in std::mem::take(&mut waiting) {
            taken.insert(proto::decode(&batch.body).streams[0].labels.clone());
            done(&mut batcher, batch);
        }
        for (number, stream) in refused.iter().enumerate() {
            if !taken.contains(&format!("{{n=\"{number}\"}}")) {
                offer(&mut batcher, *stream, number);
            }
        }
        waiting = seal_all(&mut batcher, begin + second * SECOND);
    }
    assert_eq!(
        taken.iter().filter(|labels| !labels.contains("known")).count(),
        200
    );
}

fn add_at(batcher: &mut Batcher, stream: StreamId, cursor: u32, seconds: i64) -> Append {
    let entry = Entry {
        timestamp: Timestamp { seconds, nanos: 0 },
        line: &[b"x"],
        metadata: &[],
    };
    batcher.append(stream, CursorId(cursor), &entry)
}

#[test]
fn a_line_too_old_for_its_stream_is_not_taken_and_what_is_sent_is_remembered() {
    const HOUR: i64 = 3600;
    let mut first = batcher(MIB, wide());
    let now = Instant::now();
    let stream = first.open_stream(&key("a"), "{n=\"1\"}");
    assert!(matches!(
        add_at(&mut first, stream, 1, 100 * HOUR),
        Append::Opened(_)
    ));
    assert_eq!(add_at(&mut first, stream, 2, 99 * HOUR), Append::Behind);
    assert!((99 * HOUR + 1000..100 * HOUR).contains(&first.late_until(stream)));
    assert!(matches!(
        add_at(&mut first, stream, 2, 99 * HOUR + 1500),
        Append::Opened(_)
    ));
    let late = first.open_late_stream(&key("a"), "{n=\"1\", late=\"x\"}");
    for seconds in [99 * HOUR + 3599, 99 * HOUR] {
        assert_ne!(add_at(&mut first, late, 2, seconds), Append::Behind);
    }
    let raised = first.raised();
    assert_eq!(raised.len(), 1);
    assert!(raised[0].seconds > 100 * HOUR && &*raised[0].labels == "{n=\"1\"}");
    assert!(first.raised().is_empty());
    // Two hours later: not in one request with what lies before, and remembered only when that is under way.
    add_at(&mut first, stream, 1, 102 * HOUR);
    assert!(first.raised().is_empty());
    first.drain();
    let under_way: Vec<Batch> = seal_all(&mut first, now);
    assert_eq!(under_way.iter().map(|batch| batch.lines).sum::<u32>(), 4);
    assert!(first.raised().is_empty());
    for batch in under_way {
        done(&mut first, batch);
    }
    assert_eq!(seal_all(&mut first, now).len(), 1);
    let raised = first.raised();
    assert_eq!(raised.len(), 1);

    // After a crash it is known, whoever comes first.
    let mut second = batcher(MIB, wide());
    second.restore(&key("a"), &raised[0].labels, raised[0].seconds, 0);
    let again = second.open_stream(&key("a"), "{n=\"1\"}");
    assert_eq!(add_at(&mut second, again, 2, 101 * HOUR), Append::Behind);
    assert!(matches!(
        add_at(&mut second, again, 1, 102 * HOUR),
        Append::Opened(_)
    ));
    assert!(second.raised().is_empty());
    // Who may have something to send again goes first, and is not waited for for ever.
    let mut third = batcher(MIB, wide());
    third.restore(&key("a"), &raised[0].labels, raised[0].seconds, 2);
    let again_after = third.open_stream(&key("a"), "{n=\"1\"}");
    let newer = raised[0].seconds + HOUR;
    assert_eq!(add_at(&mut third, again_after, 1, newer), Append::NotYet);
    assert!(matches!(
        add_at(&mut third, again_after, 2, 102 * HOUR),
        Append::Opened(_)
    ));
    third.returned(again_after);
    assert_eq!(add_at(&mut third, again_after, 1, newer), Append::NotYet);
    third.seal(now);
    third.seal(now + 20 * SECOND);
    assert!(matches!(
        add_at(&mut third, again_after, 1, newer),
        Append::Opened(_)
    ));
    // Nobody needs it long after the last one closed it.
    second.close_stream(again);
    second.drain();
    // How much of the stream's burst was used before is not known, so it waits a moment.
    assert!(second.seal(now).is_none());
    let batch = second.seal(now + SECOND).unwrap();
    done(&mut second, batch);
    assert!(second.forget(now).is_empty());
    assert!(second.forget(now + Duration::from_hours(2)).is_empty());
    let forgotten = second.forget(now + Duration::from_hours(4));
    assert_eq!(forgotten.len(), 1);
    assert_eq!(&*forgotten[0].labels, "{n=\"1\"}");
}

#[test]
fn a_stream_near_its_limit_hides_behind_no_other() {
    let limits = Limits {
        per_stream_rate_bytes_per_second: 10_240,
        per_stream_burst_bytes: 20_480,
        ..wide()
    };
    let mut batcher = batcher(MIB, limits);
    let begin = Instant::now();
    let [heavy, light] =
        ["heavy", "light"].map(|n| warm(&mut batcher, "a", &format!("{{n=\"{n}\"}}"), begin));
    let mut now = begin + 10 * SECOND;
    let requests = |batcher: &mut Batcher, now: Instant| {
        batcher.seal(now);
        let sealed = seal_all(batcher, now + SECOND);
        let streams: Vec<u32> = sealed.iter().map(|batch| batch.streams).collect();
        for batch in sealed {
            done(batcher, batch);
        }
        streams
    };
    // A fifth of what Loki takes at once has company, a third has none.
    for (lines, expected) in [(3, vec![2]), (6, vec![1, 1])] {
        now += 10 * SECOND;
        for _ in 0..lines {
            add(&mut batcher, heavy, 1, &"x".repeat(1000));
        }
        add(&mut batcher, light, 2, "y");
        assert_eq!(requests(&mut batcher, now), expected, "{lines} lines");
    }
    // Soon after much it waits, and the other goes.
    now += 10 * SECOND;
    for _ in 0..12 {
        add(&mut batcher, heavy, 1, &"x".repeat(1000));
    }
    assert_eq!(requests(&mut batcher, now), [1]);
    add(&mut batcher, heavy, 1, "x");
    add(&mut batcher, light, 2, "y");
    assert_eq!(requests(&mut batcher, now + SECOND / 10), [1]);
}

#[test]
fn a_stream_with_enough_waiting_takes_no_more_and_leaves_room_for_others() {
    let limits = Limits {
        per_stream_rate_bytes_per_second: 100_000,
        per_stream_burst_bytes: 200_000,
        ..wide()
    };
    let mut batcher = batcher(32 * MIB, limits);
    let heavy = warm(&mut batcher, "a", "{n=\"heavy\"}", Instant::now());
    let line = "x".repeat(1000);
    let mut lines = 0;
    while batcher.takes_more(heavy) {
        add(&mut batcher, heavy, 1, &line);
        lines += 1;
    }
    assert!((300..500).contains(&lines), "{lines}");
    assert!(batcher.has_room(&key("a")));
    batcher.drain();
    let batch = batcher.seal(Instant::now() + 30 * SECOND).unwrap();
    assert!(batcher.takes_more(heavy));
    done(&mut batcher, batch);
}

#[test]
fn limits_are_kept_by_waiting() {
    // 100 KB/s and a burst of 200 KB for the tenant; one stream may use 40 KB/s and 80 KB.
    let limits = Limits {
        rate_bytes_per_second: 100_000,
        burst_bytes: 200_000,
        per_stream_rate_bytes_per_second: 50_000,
        per_stream_burst_bytes: 100_000,
        ..Limits::default()
    };
    // A tenant's rate doubles each second at first.
    for (streams, least, most) in [(1_u32, 380_000, 480_000_u64), (8, 820_000, 1_160_000)] {
        let mut batcher = batcher(16 * MIB, limits.clone());
        let begin = Instant::now();
        let line = "x".repeat(990);
        let mut opened = Vec::new();
        for n in 0..streams {
            let stream = batcher.open_stream(&key("a"), &format!("{{n=\"{n}\"}}"));
            for _ in 0..1500 {
                add(&mut batcher, stream, n, &line);
            }
            opened.push(stream);
        }
        batcher.drain();
        let (mut now, mut sent) = (begin, 0);
        while now < begin + 10 * SECOND {
            for batch in seal_all(&mut batcher, now) {
                assert!(snap::raw::decompress_len(&batch.body).unwrap() <= 80_000);
                sent += batch.bytes;
                done(&mut batcher, batch);
            }
            now = batcher.next_due(now).unwrap().max(now + MOMENT);
        }
        assert!((least..=most).contains(&sent), "{streams}: {sent}");
    }
}

#[test]
fn refusals_slow_the_tenant_down_and_slow_answers_stretch_its_wait() {
    let mut batcher = batcher(
        64 * MIB,
        Limits {
            burst_bytes: 1 << 20,
            ..Limits::default()
        },
    );
    let begin = Instant::now();
    let stream = batcher.open_stream(&key("a"), "{n=\"1\"}");
    let line = "x".repeat(1000);
    for _ in 0..30_000 {
        add(&mut batcher, stream, 1, &line);
    }
    let mut now = begin;
    let mut sent_in = |batcher: &mut Batcher, seconds: u32, throttle: bool| {
        let (end, mut sent) = (now + seconds * SECOND, 0);
        while now < end {
            for batch in seal_all(batcher, now) {
                sent += batch.bytes;
                if throttle {
                    batch.feedback.throttled(batch.bytes);
                }
                done(batcher, batch);
            }
            now = batcher.next_due(now).map_or(end, |due| due.max(now + MOMENT));
        }
        sent / u64::from(seconds)
    };
    let first = sent_in(&mut batcher, 5, false);
    let before = sent_in(&mut batcher, 2, false);
    assert!(first < before / 2, "{first} {before}");
    sent_in(&mut batcher, 1, true);
    let after = sent_in(&mut batcher, 2, false);
    assert!(after < before * 7 / 10, "{before} {after}");

    let light = batcher.open_stream(&key("b"), "{n=\"2\"}");
    add(&mut batcher, light, 1, "x");
    let now = Instant::now() + 60 * SECOND;
    batcher.remove_tenant(&key("a"));
    batcher.seal(now);
    let batch = batcher.seal(now + SECOND).unwrap();
    batch.feedback.answered(SECOND);
    done(&mut batcher, batch);
    add(&mut batcher, light, 1, "y");
    batcher.seal(now + 2 * SECOND);
    // Five seconds, of which up to two are left to chance.
    let due = batcher.next_due(now + 2 * SECOND).unwrap();
    assert!(
        (now + 5 * SECOND..=now + 7 * SECOND).contains(&due),
        "{:?}",
        due - now
    );
}

#[test]
fn a_tenant_that_is_stuck_leaves_room_for_the_others() {
    let mut batcher = batcher(4 * MIB, wide());
    let fill = |batcher: &mut Batcher, tenant: &str| {
        let stream = batcher.open_stream(&key(tenant), "{n=\"1\"}");
        (0..10_000)
            .take_while(|n| add(batcher, stream, 1, &noise(*n, 1000)) != Append::NoRoom)
            .count()
    };
    let mut alone = Batcher::new(4 * MIB);
    assert!(fill(&mut alone, "x") > 4_000);
    for name in ["b", "c"] {
        batcher.set_tenant(&tenant(name, wide(), Delivery::default()));
    }
    let (a, b, c) = (
        fill(&mut batcher, "a"),
        fill(&mut batcher, "b"),
        fill(&mut batcher, "c"),
    );
    assert!((1_900..=2_100).contains(&a), "{a}");
    // Two tenants that are stuck leave the third its sixth.
    assert!(b > 1_200 && c > 600, "{b} {c}");
    let held = batcher.held_bytes();
    assert!(held <= 4 * MIB as u64, "{held}");
    batcher.remove_tenant(&key("a"));
    assert!(fill(&mut batcher, "c") > 500);
}

#[test]
fn a_full_pool_is_emptied_at_once() {
    let mut batcher = batcher(2 * MIB, wide());
    let begin = Instant::now();
    let streams: Vec<StreamId> = (0..10)
        .map(|n| warm(&mut batcher, "a", &format!("{{n=\"{n}\"}}"), begin))
        .collect();
    let now = begin + 2 * SECOND;
    let mut under_way = Vec::new();
    let mut sent = 0;
    let lines: Vec<String> = (0..997).map(|n| noise(n, 1000)).collect();
    // A hundred pools full, and the clock stands still: nothing waits for company.
    for n in 0..200_000 {
        if !batcher.has_room(&key("a"))
            || add(&mut batcher, streams[n % 10], 1, &lines[n % 997]) == Append::NoRoom
        {
            let sealed = seal_all(&mut batcher, now);
            assert!(!(sealed.is_empty() && under_way.is_empty()), "it stands still");
            sent += sealed.iter().map(|batch| batch.lines).sum::<u32>();
            // Requests are as large as there is something to send.
            assert!(sealed.iter().all(|batch| batch.bytes > 100_000));
            for batch in under_way.drain(..).chain(sealed) {
                done(&mut batcher, batch);
            }
        }
    }
    assert!(sent > 100_000, "{sent}");
    // With room for more, what is left waits as ever.
    assert!(batcher.has_room(&key("a")));
    seal_all(&mut batcher, now);
    assert_eq!(batcher.next_due(now), Some(now + SECOND));
}

#[test]
fn a_tenant_that_comes_later_gets_its_part_and_no_line_is_too_long() {
    let mut batcher = batcher(4 * MIB, wide());
    let fill = |batcher: &mut Batcher, tenant: &str| {
        let stream = batcher.open_stream(&key(tenant), "{n=\"1\"}");
        (0..10_000)
            .take_while(|n| add(batcher, stream, 1, &noise(*n, 1000)) != Append::NoRoom)
            .count()
    };
    // The only tenant took everything and is stuck.
    assert!(fill(&mut batcher, "a") > 3_900);
    batcher.set_tenant(&tenant("b", wide(), Delivery::default()));
    assert!(fill(&mut batcher, "b") > 900);
    // Longer than all there is: it is taken by who holds nothing else.
    let mut small = super_small();
    let stream = small.open_stream(&key("a"), "{n=\"1\"}");
    assert!(matches!(
        add(&mut small, stream, 1, &noise(0, 2 * MIB)),
        Append::Opened(_)
    ));
    assert_eq!(add(&mut small, stream, 1, "one more"), Append::NoRoom);
}

fn super_small() -> Batcher {
    batcher(MIB, wide())
}

#[test]
fn a_dropped_cursor_takes_its_lines_along_and_leaves_others() {
    let mut batcher = batcher(MIB, wide());
    let now = Instant::now();
    let own = batcher.open_stream(&key("a"), "{n=\"own\"}");
    let mixed = batcher.open_stream(&key("a"), "{n=\"mixed\"}");
    let sealed = batcher.open_stream(&key("a"), "{n=\"sealed\"}");
    add(&mut batcher, sealed, 1, "sealed");
    batcher.seal(now);
    let under_way = batcher.seal(now + SECOND).unwrap();
    add(&mut batcher, own, 1, "withdrawn");
    add(&mut batcher, mixed, 1, "mixed one");
    add(&mut batcher, mixed, 2, "mixed two");
    batcher.drop_cursor(CursorId(1));
    batcher.drain();
    let rest = seal_all(&mut batcher, now + 2 * SECOND);
    assert_eq!(rest.len(), 1);
    let lines: Vec<String> = proto::decode(&rest[0].body)
        .streams
        .into_iter()
        .flat_map(|s| s.entries)
        .map(|e| e.line)
        .collect();
    assert_eq!(lines, ["mixed one", "mixed two"]);
    for batch in rest {
        assert_eq!(
            done(&mut batcher, batch)
                .iter()
                .map(|piece| piece.cursor)
                .collect::<Vec<_>>(),
            [CursorId(2)]
        );
    }
    assert_eq!(done(&mut batcher, under_way).len(), 1);
}

#[test]
fn streams_are_counted_and_an_idle_batcher_is_small() {
    let mut batcher = batcher(8 * MIB, wide());
    let now = Instant::now();
    let first = batcher.open_stream(&key("a"), "{n=\"1\"}");
    assert_eq!(batcher.open_stream(&key("a"), "{n=\"1\"}"), first);
    assert_ne!(batcher.open_stream(&key("b"), "{n=\"1\"}"), first);
    let line = "x".repeat(1000);
    for _ in 0..3_000 {
        add(&mut batcher, first, 1, &line);
    }
    batcher.close_stream(first);
    assert_eq!(batcher.open_stream(&key("a"), "{n=\"1\"}"), first);
    batcher.close_stream(first);
    batcher.close_stream(first);
    // It is still sent, and the identifier is not used again.
    batcher.drain();
    let mut lines = 0;
    while let Some(batch) = batcher.seal(now) {
        lines += batch.lines;
        done(&mut batcher, batch);
    }
    assert_eq!(lines, 3_000);
    // How new its lines were is remembered for hours.
    assert_eq!(
        batcher.forget(now).len() + batcher.forget(now + Duration::from_hours(4)).len(),
        1
    );
    assert_ne!(batcher.open_stream(&key("a"), "{n=\"1\"}"), first);
    assert_eq!(add(&mut batcher, first, 1, "x"), Append::NoRoom);
    assert!(batcher.held_bytes() > 0);
    batcher.seal(now + SECOND);
    batcher.seal(now + 12 * SECOND);
    assert_eq!(batcher.held_bytes(), 0);
    // An outcome of a tenant that is gone finishes nothing.
    let stream = batcher.open_stream(&key("a"), "{n=\"3\"}");
    add(&mut batcher, stream, 1, "x");
    let batch = batcher.seal(now + 13 * SECOND).unwrap();
    batcher.remove_tenant(&key("a"));
    assert!(done(&mut batcher, batch).is_empty());
}
