//! Request bodies of the batcher in, the same bytes out of the decoder that Loki uses.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sluice_agent::batch::{Append, Batcher, Entry, encode};
use sluice_agent::tail::position::CursorId;
use sluice_engine::cri::Timestamp;
use sluice_engine::document::Delivery;
use sluice_engine::key::Key;

#[path = "support/noise.rs"]
mod noise;
#[path = "support/tenant.rs"]
mod tenant;

use noise::noise;

/// The body of one request with these lines.
fn body(lines: &[Vec<u8>]) -> Vec<u8> {
    let key = Key::new("logging", "a");
    let mut batcher = Batcher::new(64 << 20);
    // So wide that one request takes it all.
    batcher.set_tenant(&tenant::tenant(&key, tenant::wide(), Delivery::default()));
    let stream = batcher.open_stream(&key, r#"{app="web",namespace="team-a"}"#);
    let metadata = encode::metadata(&[("pod", "web-0"), ("stream", "stdout")]);
    for (number, line) in (0_u32..).zip(lines) {
        let entry = Entry {
            timestamp: Timestamp {
                seconds: 1_795_197_000 + i64::from(number / 100),
                nanos: number.wrapping_mul(2_654_435_761) % 1_000_000_000,
            },
            line: &[line],
            metadata: &metadata,
        };
        assert_ne!(batcher.append(stream, CursorId(1), &entry), Append::NoRoom);
    }
    let now = Instant::now();
    let sealed = batcher.seal(now);
    sealed
        .or_else(|| batcher.seal(now + Duration::from_secs(2)))
        .map_or_else(Vec::new, |batch| batch.body)
}

#[test]
fn loki_s_decoder_reads_every_body() {
    let mut state = 7;
    let mut kinds: Vec<Vec<Vec<u8>>> = Vec::new();
    for count in [1, 2, 30, 300, 3_000] {
        let json = |number: u32| {
            format!(
                r#"{{"level":"info","msg":"served","n":{number},"path":"/items/{}"}}"#,
                number * 7919 % 1000
            )
            .into_bytes()
        };
        kinds.push((0..count).map(json).collect());
        kinds.push(
            (0..count)
                .map(|number| vec![b'a'; number as usize % 400])
                .collect(),
        );
        kinds.push(
            (0..count)
                .map(|number| noise(number as usize % 300, &mut state))
                .collect(),
        );
        kinds.push(
            (0..count)
                .map(|number| {
                    if number % 3 == 0 {
                        noise(90, &mut state)
                    } else {
                        json(number / 7)
                    }
                })
                .collect(),
        );
    }
    for len in [65_400, 65_536, 70_000, 131_072, 200_000] {
        kinds.push(vec![noise(len, &mut state)]);
        kinds.push(vec![vec![b'x'; len]]);
    }
    let bodies: Vec<Vec<u8>> = kinds.iter().map(|lines| body(lines)).collect();
    assert!(bodies.iter().all(|body| !body.is_empty()));

    let input: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
    let expected: Vec<u8> = bodies
        .iter()
        .flat_map(|body| framed(&snap::raw::Decoder::new().decompress_vec(body).unwrap()))
        .collect();
    let mut go = Command::new("go")
        .args(["run", "."])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/go-snappy"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Go is installed: CONTRIBUTING.md");
    let mut stdin = go.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = go.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    assert!(
        output.stdout == expected,
        "{} and {} bytes",
        output.stdout.len(),
        expected.len()
    );
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
    framed.extend_from_slice(bytes);
    framed
}
