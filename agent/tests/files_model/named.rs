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
fn an_empty_file_that_was_copied_too() {
    holds(
        false,
        &[
            Op::Down,
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Room(1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Compress,
            Op::Rotate(1),
        ],
    );
}

#[test]
fn late_lines_of_a_file_that_was_empty() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Truncate,
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Late,
            Op::Withdraw,
            Op::Rotate(1),
            Op::Late,
        ],
    );
}

#[test]
fn z1() {
    holds(
        false,
        &[
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Ack {
                count: 1,
                last: false,
            },
            Op::Clock,
            Op::Crash {
                save: false,
                torn: false,
            },
            Op::Truncate,
            Op::Piece(false),
        ],
    );
}

#[test]
fn z2() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Clock,
            Op::Piece(true),
            Op::Rotate(0),
            Op::Turn(1),
            Op::Rotate(1),
            Op::Lines(true, 1),
            Op::Clock,
        ],
    );
}

#[test]
fn z3() {
    holds(
        false,
        &[
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::DeleteOldest,
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Withdraw,
            Op::Withdraw,
        ],
    );
}

#[test]
fn z4() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Piece(false),
            Op::Rotate(0),
        ],
    );
}

#[test]
fn z5() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Crash {
                save: false,
                torn: false,
            },
            Op::Rotate(0),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Late,
            Op::Crash {
                save: false,
                torn: false,
            },
            Op::DeleteOldest,
            Op::Crash {
                save: false,
                torn: false,
            },
            Op::DeleteOldest,
            Op::Rotate(0),
            Op::Crash {
                save: false,
                torn: false,
            },
        ],
    );
}

#[test]
fn z6() {
    holds(
        true,
        &[
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::CopyTruncate,
            Op::Withdraw,
            Op::RotateInVain(1),
            Op::Late,
            Op::Ack {
                count: 1,
                last: false,
            },
            Op::Rotate(0),
            Op::Clock,
            Op::Crash {
                save: false,
                torn: false,
            },
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn z7() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Truncate,
            Op::CopyTruncate,
            Op::Half(false),
            Op::Clock,
            Op::Late,
            Op::Rotate(1),
            Op::Withdraw,
            Op::Late,
            Op::Late,
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

#[test]
fn a_file_of_an_earlier_restart_belongs_before_the_copies_of_a_later_one() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Restart,
            Op::Rotate(0),
            Op::Clock,
            Op::Rotate(0),
            Op::Withdraw,
            Op::Rotate(1),
            Op::Late,
            Op::Withdraw,
            Op::DeleteOldest,
            Op::Compress,
            Op::Lines(false, 1),
            Op::DeleteOldest,
            Op::Clock,
            Op::Crash {
                save: false,
                torn: false,
            },
        ],
    );
}
