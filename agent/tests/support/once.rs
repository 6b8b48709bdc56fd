//! Any order of appends, seals and answers in: every line is sent once, every piece finishes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_agent::batch::{Append, Batch, Batcher, StreamId};
use sluice_agent::tail::position::CursorId;
use sluice_engine::document::Delivery;

use super::proto;
use super::{MIB, SECOND, add, done, key, seal_all, tenant, wide};

#[derive(Clone, Debug)]
enum Step {
    Add { stream: usize, cursor: u32, len: usize },
    Pass(u64),
    Answer(usize),
    Reopen(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..6, 0_u32..3, 0_usize..30_000).prop_map(|(stream, cursor, len)| Step::Add { stream, cursor, len }),
        2 => (0_u64..1_500).prop_map(Step::Pass),
        2 => (0_usize..4).prop_map(Step::Answer),
        1 => (0_usize..6).prop_map(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_line_is_sent_once_in_order_and_every_piece_finishes(
        steps in proptest::collection::vec(step(), 1..120), batch_kib in 16_u64..200,
    ) {
        let mut batcher = Batcher::new(2 * MIB);
        let delivery = Delivery { batch_bytes: batch_kib << 10, ..Delivery::default() };
        for name in ["a", "b"] {
            batcher.set_tenant(&tenant(name, wide(), delivery));
        }
        let open = |batcher: &mut Batcher, n: usize| {
            batcher.open_stream(&key(if n < 3 { "a" } else { "b" }), &format!("{{n=\"{n}\"}}"))
        };
        let mut streams: Vec<StreamId> = (0..6).map(|n| open(&mut batcher, n)).collect();
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut got: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let (mut opened, mut finished) = (BTreeSet::new(), BTreeSet::new());
        let mut under_way: Vec<Batch> = Vec::new();
        let mut now = Instant::now();
        let mut number = 0;
        let mut take = |batcher: &mut Batcher, under_way: &mut Vec<Batch>, now: Instant| {
            for batch in seal_all(batcher, now) {
                let request = proto::decode(&batch.body);
                assert_eq!(request.lines(), batch.lines as usize);
                for stream in request.streams {
                    assert!(stream.entries.len() == 1 || snap::raw::decompress_len(&batch.body).unwrap() as u64 <= batch_kib << 10);
                    got.entry(stream.labels).or_default().extend(stream.entries.into_iter().map(|entry| entry.line));
                }
                under_way.push(batch);
            }
        };
        for step in steps {
            match step {
                Step::Add { stream, cursor, len } => {
                    number += 1;
                    let line = format!("{number} {}", "x".repeat(len));
                    match add(&mut batcher, streams[stream], cursor, &line) {
                        Append::NoRoom | Append::Behind | Append::NotYet => continue,
                        Append::Opened(piece) => prop_assert!(opened.insert((CursorId(cursor), piece))),
                        Append::Added => {}
                    }
                    expected.entry(format!("{{n=\"{stream}\"}}")).or_default().push(line);
                }
                Step::Pass(millis) => now += Duration::from_millis(millis),
                Step::Answer(index) if index < under_way.len() => {
                    let batch = under_way.swap_remove(index);
                    finished.extend(done(&mut batcher, batch).into_iter().map(|piece| (piece.cursor, piece.piece)));
                }
                Step::Answer(_) => {}
                Step::Reopen(stream) => {
                    batcher.close_stream(streams[stream]);
                    streams[stream] = open(&mut batcher, stream);
                }
            }
            take(&mut batcher, &mut under_way, now);
            prop_assert!(batcher.next_due(now).is_none_or(|due| due > now));
        }
        batcher.drain();
        loop {
            take(&mut batcher, &mut under_way, now);
            let Some(batch) = under_way.pop() else { break };
            finished.extend(done(&mut batcher, batch).into_iter().map(|piece| (piece.cursor, piece.piece)));
        }
        prop_assert_eq!(got, expected);
        prop_assert_eq!(finished, opened);
        batcher.seal(now);
        batcher.seal(now + 11 * SECOND);
        prop_assert_eq!(batcher.held_bytes(), 0);
    }
}
