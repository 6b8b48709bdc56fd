//! Histories that once failed, as the property test found them.

use super::world::{Op, World};

fn holds(two: bool, ops: &[Op]) {
    World::run(two, ops).unwrap();
}

#[test]
fn a_line_and_a_crash() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Turn(1),
            Op::Crash {
                save: false,
                torn: true,
            },
        ],
    );
}

#[test]
fn a_file_copied_and_cut_while_nobody_reads_it() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Crash {
                save: false,
                torn: false,
            },
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Withdraw,
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Lines(false, 1),
        ],
    );
}
