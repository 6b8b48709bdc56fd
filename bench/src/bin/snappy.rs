//! Kinds of logs in, how fast and how short `snap` and the agent's encoder make them out, as rows of a table.
//!
//! Both begin with a request in segments of 16 KiB and end with a body, as they do in the agent. Each request is
//! compressed by one and the other in turn, and the quickest of many times counts: this holds on a machine with company.
#![allow(clippy::print_stdout, reason = "a program, not a service")]

use std::time::{Duration, Instant};

use sluice_bench::kinds::{KINDS, request_of, request_of_shape};
use sluice_bench::shape::Shape;

// The file itself, since the agent is a large crate and shows nobody its encoder.
#[path = "../../../agent/src/batch/snappy.rs"]
mod snappy;

/// Uncompressed bytes of a request, the default of `delivery.batchBytes`.
const REQUEST: usize = 1 << 20;
/// A request's lines stand in pieces of this many bytes before it is made.
const SEGMENT: usize = 16 << 10;
/// How often each one compresses each request.
const ROUNDS: usize = 100;

fn main() {
    let shapes = [
        ("JSON of the bench, 250 bytes", Shape::Json),
        ("access log of the bench, 88 bytes", Shape::Short),
        ("digits of the bench, 521 bytes", Shape::Random),
    ];
    println!(
        "| lines | snap, MB/s | ours, MB/s | CPU beside snap | snap, % of the size | ours, % of the size |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, shape) in shapes {
        row(name, &request_of_shape(shape, REQUEST));
    }
    for kind in KINDS {
        row(kind.0, &request_of(kind, REQUEST));
    }
}

fn row(name: &str, request: &[u8]) {
    let (mut theirs, mut ours) = (WithSnap::new(), Ours::new());
    let mut least = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        least[0] = least[0].min(timed(|| theirs.compress(request)));
        least[1] = least[1].min(timed(|| ours.compress(request)));
    }
    let [snap, own] = least.map(|time| time.as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a request has few bytes")]
    let [size, their_size, our_size] =
        [request.len(), theirs.body.len(), ours.body.len()].map(|len| len as f64);
    println!(
        "| {name} | {:.0} | {:.0} | {:.2} | {:.1} | {:.1} |",
        size / snap / 1e6,
        size / own / 1e6,
        own / snap,
        100.0 * their_size / size,
        100.0 * our_size / size,
    );
}

fn timed(mut work: impl FnMut()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// What the agent did before it had an encoder of its own: 64 KiB are gathered and compressed behind what is there.
struct WithSnap {
    encoder: snap::raw::Encoder,
    input: Vec<u8>,
    body: Vec<u8>,
}

impl WithSnap {
    fn new() -> Self {
        Self {
            encoder: snap::raw::Encoder::new(),
            input: Vec::new(),
            body: Vec::new(),
        }
    }

    fn compress(&mut self, request: &[u8]) {
        self.body.clear();
        for block in request.chunks(snappy::BLOCK) {
            self.input.clear();
            block
                .chunks(SEGMENT)
                .for_each(|segment| self.input.extend_from_slice(segment));
            let from = self.body.len();
            self.body
                .resize(from + snap::raw::max_compress_len(block.len()), 0);
            let written = self
                .body
                .get_mut(from..)
                .and_then(|out| self.encoder.compress(&self.input, out).ok());
            self.body.truncate(from + written.unwrap_or(0));
        }
    }
}

struct Ours {
    encoder: snappy::Encoder,
    body: Vec<u8>,
}

impl Ours {
    fn new() -> Self {
        Self {
            encoder: snappy::Encoder::new(),
            body: Vec::new(),
        }
    }

    fn compress(&mut self, request: &[u8]) {
        let Self { encoder, body } = self;
        body.clear();
        let mut put = |elements: &[u8]| body.extend_from_slice(elements);
        for segment in request.chunks(SEGMENT) {
            encoder.write(segment, &mut put);
        }
        encoder.flush(&mut put);
    }
}
