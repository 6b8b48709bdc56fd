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

#[test]
fn what_follows_late_lines_of_a_deleted_file_outlives_a_crash_in_order() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Clock,
            Op::Late,
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::Clock,
            Op::Restart,
            Op::Crash {
                save: false,
                torn: false,
            },
        ],
    );
}

#[test]
fn late_lines_of_a_deleted_file_are_read_behind_the_copy_of_a_younger_one() {
    holds(
        false,
        &[
            Op::Lines(false, 2),
            Op::CopyTruncate,
            Op::Clock,
            Op::RotateInVain(2),
            Op::Piece(true),
            Op::Late,
            Op::DeleteOldest,
            Op::CopyTruncate,
            Op::Ack { count: 1, last: true },
        ],
    );
}

#[test]
fn a_file_that_was_cut_is_not_kept_for_what_it_was() {
    holds(
        false,
        &[
            Op::Lines(false, 2),
            Op::CopyTruncate,
            Op::Clock,
            Op::RotateInVain(2),
            Op::Piece(true),
            Op::Late,
            Op::DeleteOldest,
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Ack {
                count: 1,
                last: false,
            },
        ],
    );
}
