//! Random histories of a container's log files against a model of what they held: nothing on disk is lost,
//! order is kept, and nothing comes twice but what a crash left unacknowledged.
//!
//! `SLUICE_SOAK_CASES` sets how many histories are tried; `make soak-model` tries two million.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

#[path = "../files_rig/mod.rs"]
mod files_rig;
mod named;
mod vanished;
mod world;

use std::io::{self, Write as _};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use world::{Op, World};

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<bool>(), 1..6_u8).prop_map(|(stderr, count)| Op::Lines(stderr, count)),
        3 => any::<bool>().prop_map(Op::Piece),
        1 => any::<bool>().prop_map(Op::Half),
        3 => (0..3_u8).prop_map(Op::Rotate),
        1 => (0..3_u8).prop_map(Op::RotateInVain),
        2 => Just(Op::Compress),
        2 => Just(Op::DeleteOldest),
        1 => Just(Op::Truncate),
        2 => Just(Op::CopyTruncate),
        1 => Just(Op::Late),
        1 => Just(Op::Restart),
        1 => prop::option::weighted(0.2, Just(Op::SetBack)).prop_map(|some| some.unwrap_or(Op::Turn(1))),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(save, torn)| Op::Crash { save, torn }),
        1 => Just(Op::Down),
        1 => Just(Op::Reboot),
        1 => Just(Op::Withdraw),
        4 => (1..4_u8, any::<bool>()).prop_map(|(count, last)| Op::Ack { count, last }),
        1 => (1..8_u8).prop_map(Op::Room),
        1 => any::<bool>().prop_map(Op::Block),
        1 => Just(Op::Clock),
        6 => (1..4_u8).prop_map(Op::Turn),
    ]
}

/// Histories that are lived at a time: closing an inotify instance is mostly waiting.
const LANES: u64 = 24;

/// The same histories each time, or as many others as are asked for.
fn config(lane: u64) -> ProptestConfig {
    let soak = std::env::var("SLUICE_SOAK_CASES")
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    ProptestConfig {
        cases: soak.unwrap_or(3_000).div_ceil(u32::try_from(LANES).unwrap()),
        rng_seed: soak.map_or(RngSeed::Fixed(64 + lane), |_| RngSeed::Random),
        max_shrink_iters: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// One lane's histories; how the first failed.
fn live(lane: u64) -> Option<String> {
    let histories = (any::<bool>(), proptest::collection::vec(op(), 1..60));
    let mut runner = TestRunner::new(config(lane));
    let lived = runner.run(&histories, |(two, ops)| World::run(two, &ops));
    let failed = lived.err().map(|error| error.to_string());
    if let Some(failed) = &failed {
        // At once, past the capture of a test's output: the others may go on for an hour.
        io::stderr().write_all(failed.as_bytes()).unwrap();
    }
    failed
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order() {
    let failed: Vec<String> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|lane| scope.spawn(move || live(lane))).collect();
        lanes
            .into_iter()
            .filter_map(|lane| lane.join().unwrap())
            .collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
