//! Any entries in, the batcher's request out: byte for byte what prost writes of the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message as _;
use sluice_agent::batch::{Append, Batcher, Entry, encode};
use sluice_agent::tail::position::CursorId;
use sluice_engine::cri::Timestamp;
use sluice_engine::document::Delivery;
use sluice_engine::key::Key;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/proto.rs"]
mod proto;
#[path = "support/tenant.rs"]
mod tenant;

fn batcher(key: &Key) -> Batcher {
    let mut batcher = Batcher::new(16 << 20);
    // So wide that no request is cut at its beginning.
    batcher.set_tenant(&tenant::tenant(key, tenant::wide(), Delivery::default()));
    batcher
}

/// The borders of what a request can hold, of what takes another byte, and anything between.
fn timestamp() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![
        prop::sample::select(vec![-62_135_596_800, -1, 0, 1, 127, 128, 253_402_300_799]),
        (0..36_u32, -1..=1_i64).prop_map(|(bits, by)| (1 << bits) + by),
        -62_135_596_800..253_402_300_800_i64,
    ];
    let nanos = prop_oneof![
        prop::sample::select(vec![0, 1, 127, 128, 16_383, 16_384, 999_999_999]),
        0..1_000_000_000_u32,
    ];
    (seconds, nanos).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

/// Lengths at which a length takes another byte, and short ones.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => ".{0,40}".prop_map(String::from),
        1 => (prop::sample::select(vec![126_usize, 127, 128, 129, 16_383, 16_384]), "[a-zé]").prop_map(|(len, c)| c.repeat(len)),
    ]
}

type Line = (Timestamp, Vec<String>, Vec<(String, String)>);

fn line() -> impl Strategy<Value = Line> {
    let parts = proptest::collection::vec(text(), 0..3);
    let metadata = proptest::collection::vec((text(), text()), 0..4);
    (timestamp(), parts, metadata)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_request_is_what_prost_writes(
        streams in proptest::collection::vec((text(), proptest::collection::vec(line(), 1..6)), 1..5),
    ) {
        let key = Key::new("logging", "ops");
        let mut batcher = batcher(&key);
        let mut now = Instant::now();
        let ids: Vec<_> = (0..).zip(&streams).map(|(n, (labels, _))| {
            // Two streams have never the same labels; these take lines of any age.
            batcher.open_late_stream(&key, &format!("{n}{labels}"))
        }).collect();
        // The first request of each travels alone; from the second on they share one.
        for round in 0..2 {
            let mut expected = Vec::new();
            for ((n, id), (labels, lines)) in (0..).zip(&ids).zip(&streams) {
                let mut entries = Vec::new();
                for (timestamp, parts, metadata) in lines {
                    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
                    let pairs: Vec<(&str, &str)> = metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    let encoded = encode::metadata(&pairs);
                    let entry = Entry { timestamp: *timestamp, line: &parts, metadata: &encoded };
                    let taken = batcher.append(*id, CursorId(n), &entry);
                    prop_assert!(matches!(taken, Append::Added | Append::Opened(_)));
                    entries.push(proto::Entry {
                        timestamp: Some(proto::Timestamp {
                            seconds: timestamp.seconds,
                            nanos: i32::try_from(timestamp.nanos).unwrap(),
                        }),
                        line: String::from_utf8(parts.concat()).unwrap(),
                        metadata: metadata.iter().map(|(name, value)| proto::Pair {
                            name: name.clone(),
                            value: value.clone(),
                        }).collect(),
                    });
                }
                expected.push(proto::Stream { labels: format!("{n}{labels}"), entries });
            }
            let (mut got, mut requests, mut bytes) = (Vec::new(), 0, 0);
            for _ in 0..20 {
                now += Duration::from_secs(2);
                while let Some(batch) = batcher.seal(now) {
                    let raw = snap::raw::Decoder::new().decompress_vec(&batch.body).unwrap();
                    let request = proto::decode(&batch.body);
                    prop_assert_eq!(&request.encode_to_vec(), &raw);
                    prop_assert_eq!(request.lines(), batch.lines as usize);
                    prop_assert_eq!(request.streams.len(), batch.streams as usize);
                    requests += 1;
                    bytes += raw.len();
                    got.extend(request.streams);
                    let outcome = sluice_agent::batch::Outcome {
                        id: batch.id,
                        tenant: batch.tenant,
                        stream: None,
                        fate: sluice_agent::batch::Fate::Ended(Vec::new()),
                        body: batch.body,
                    };
                    batcher.complete(outcome);
                }
            }
            got.sort_by(|a, b| a.labels.cmp(&b.labels));
            expected.sort_by(|a, b| a.labels.cmp(&b.labels));
            prop_assert_eq!(got, expected);
            // What fits shares a request: some of them have many streams.
            prop_assert!(round == 0 || bytes > 200 << 10 || requests == 1, "{} requests", requests);
        }
    }
}
