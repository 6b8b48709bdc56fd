//! Histories that once failed, as the property test found them.

use super::world::{Op, World};

/// Killed before it wrote its positions, with whole records behind it.
const KILLED: Op = Op::Crash {
    save: false,
    torn: false,
};

/// So many of the oldest requests are acknowledged.
fn ack(count: u8) -> Op {
    Op::Ack { count, last: false }
}

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
            KILLED,
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
fn a_file_rewritten_to_the_same_length_after_a_restart() {
    holds(
        false,
        &[
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            ack(1),
            Op::Clock,
            KILLED,
            Op::Truncate,
            Op::Piece(false),
        ],
    );
}

#[test]
fn a_line_that_goes_on_two_files_later() {
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
fn an_empty_file_copied_and_cut_while_nobody_reads_it() {
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
fn files_copied_and_renamed_at_once() {
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
fn a_half_line_is_copied_with_its_end() {
    holds(false, &[Op::Half(false), Op::Clock, Op::CopyTruncate]);
}

#[test]
fn a_slow_tenant_reads_what_was_copied_before_late_lines() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Block(true),
            Op::RotateInVain(1),
            Op::Clock,
            Op::Late,
            Op::CopyTruncate,
        ],
    );
}

#[test]
fn a_line_that_came_late_into_a_file_that_is_deleted() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Clock,
            ack(1),
            Op::Clock,
            Op::Restart,
            Op::Clock,
            Op::Half(false),
            Op::Late,
            Op::DeleteOldest,
        ],
    );
}

#[test]
fn files_that_were_cut_copied_and_deleted_unread() {
    holds(
        false,
        &[
            Op::Block(true),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Truncate,
            Op::Rotate(1),
            Op::Piece(false),
            Op::CopyTruncate,
            Op::DeleteOldest,
            Op::DeleteOldest,
        ],
    );
}

#[test]
fn a_file_copied_renamed_and_compressed_at_once() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Truncate,
            Op::RotateInVain(1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::CopyTruncate,
            Op::Compress,
        ],
    );
}

#[test]
fn an_empty_file_is_compressed() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Rotate(0),
            Op::DeleteOldest,
            Op::Down,
            Op::Rotate(0),
            Op::Half(false),
            Op::Clock,
            Op::Compress,
            Op::Clock,
            Op::Withdraw,
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
            KILLED,
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
            ack(1),
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
            KILLED,
        ],
    );
}
#[test]
fn lines_added_to_a_file_whose_copy_was_kept_before_a_crash() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Half(false),
            Op::Clock,
            Op::Late,
            Op::DeleteOldest,
            Op::Rotate(1),
            Op::CopyTruncate,
            Op::Compress,
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn an_empty_file_behind_a_copy_is_compressed_before_a_crash() {
    holds(
        false,
        &[
            Op::Piece(false),
            Op::CopyTruncate,
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Clock,
            Op::Compress,
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn a_copy_that_is_read_on_in_its_file_stays_behind_an_earlier_restart() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Restart,
            Op::CopyTruncate,
            Op::Clock,
            ack(1),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Late,
            Op::DeleteOldest,
            Op::Rotate(1),
            KILLED,
        ],
    );
}

#[test]
fn late_lines_of_a_file_that_is_gone_say_nothing_of_younger_ones() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Restart,
            Op::Late,
            Op::Late,
            Op::CopyTruncate,
            Op::Room(1),
            Op::Withdraw,
            Op::DeleteOldest,
            Op::Withdraw,
        ],
    );
}

#[test]
fn a_file_cut_and_filled_to_the_same_length_at_once() {
    for two in [false, true] {
        holds(
            two,
            &[
                Op::Withdraw,
                Op::Lines(false, 5),
                Op::Room(1),
                Op::Withdraw,
                Op::Truncate,
                ack(1),
                Op::Lines(false, 5),
            ],
        );
    }
}
#[test]
fn a_copy_is_made_of_what_the_journal_still_needs() {
    holds(
        true,
        &[
            Op::Room(3),
            Op::Lines(false, 1),
            Op::CopyTruncate,
            ack(1),
            Op::Lines(false, 2),
            Op::Lines(false, 4),
            Op::Clock,
            ack(1),
            Op::Late,
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::Rotate(0),
            ack(3),
            Op::Lines(false, 1),
            Op::Rotate(1),
            KILLED,
        ],
    );
}

#[test]
fn a_deleted_file_was_rewritten_and_compressed_before() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Clock,
            Op::Truncate,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Restart,
            Op::Rotate(0),
            Op::Compress,
            ack(1),
        ],
    );
}

#[test]
fn a_copied_file_says_nothing_of_what_was_read_before() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Late,
            Op::Lines(false, 1),
            ack(1),
            Op::DeleteOldest,
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::DeleteOldest,
        ],
    );
}

#[test]
fn a_copied_tip_that_is_renamed_and_back() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::RotateInVain(1),
            Op::Truncate,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::CopyTruncate,
            Op::Compress,
            Op::RotateInVain(2),
            Op::Withdraw,
        ],
    );
}

#[test]
fn copies_keep_their_order_when_positions_were_not_written() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Restart,
            Op::Rotate(1),
            ack(1),
            Op::Lines(false, 1),
            Op::Restart,
            Op::DeleteOldest,
            Op::CopyTruncate,
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::Turn(1),
            Op::Down,
            Op::Rotate(0),
            Op::Room(1),
            Op::Lines(false, 1),
            Op::DeleteOldest,
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn an_empty_tip_is_filled_copied_and_cut_while_late_lines_are_read() {
    for save in [false, true] {
        holds(
            false,
            &[
                Op::Half(false),
                Op::CopyTruncate,
                Op::Lines(false, 1),
                Op::Clock,
                Op::Late,
                Op::Restart,
                Op::DeleteOldest,
                Op::Truncate,
                Op::Clock,
                Op::Crash { save, torn: false },
                Op::Lines(false, 1),
                Op::CopyTruncate,
                Op::Lines(false, 1),
                Op::Lines(false, 1),
            ],
        );
    }
}

#[test]
fn a_file_that_was_cut_is_filled_copied_and_cut_while_late_lines_are_read() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Lines(false, 1),
            Op::Truncate,
            Op::Late,
            Op::Piece(false),
            Op::CopyTruncate,
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn a_file_that_is_left_for_late_lines_right_after_its_rotation_is_read_on() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Restart,
            Op::Late,
            Op::Late,
            Op::DeleteOldest,
            Op::Clock,
            Op::Piece(false),
            KILLED,
            Op::Lines(false, 1),
            Op::Rotate(1),
            Op::CopyTruncate,
            Op::Compress,
            Op::Restart,
        ],
    );
}

#[test]
fn a_line_that_goes_on_in_the_next_file_behind_late_lines() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Clock,
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Restart,
            Op::Clock,
            Op::Late,
            Op::Piece(true),
            Op::Rotate(1),
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn a_begun_line_of_a_copied_file_is_not_joined_with_late_ones() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Piece(false),
            Op::Turn(1),
            Op::Restart,
            Op::Late,
            Op::DeleteOldest,
        ],
    );
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Piece(true),
            Op::Late,
            Op::Piece(false),
            Op::Restart,
            Op::DeleteOldest,
        ],
    );
}

#[test]
fn what_a_copied_file_got_before_a_crash_is_read_by_who_had_left_it() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            KILLED,
            Op::Lines(false, 1),
            Op::Late,
            ack(3),
            Op::DeleteOldest,
            Op::Clock,
            Op::Lines(false, 1),
            KILLED,
        ],
    );
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Piece(true),
            ack(1),
            Op::Late,
            Op::Lines(true, 1),
            Op::DeleteOldest,
            Op::Clock,
            KILLED,
            Op::Withdraw,
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn an_empty_file_was_compressed_before_the_next_one_is_copied() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Down,
            Op::Lines(false, 3),
            Op::Rotate(0),
            Op::Room(1),
            Op::Rotate(0),
            Op::CopyTruncate,
            Op::Compress,
            Op::Clock,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn what_a_copied_file_got_before_a_crash_is_read_before_the_next_file() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Clock,
            Op::Restart,
            Op::Rotate(1),
            Op::Lines(false, 1),
            ack(3),
            Op::Clock,
            Op::Lines(false, 1),
            Op::Late,
            ack(3),
            Op::DeleteOldest,
            Op::Rotate(1),
            ack(1),
            Op::Clock,
            KILLED,
            ack(1),
            ack(1),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn late_lines_of_a_deleted_file_are_read_once_a_clock_ended_a_line() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Lines(false, 1),
            ack(1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Half(false),
            Op::Clock,
            Op::Late,
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Piece(false),
        ],
    );
}

#[test]
fn a_clock_ends_a_begun_line_that_late_lines_wait_for() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Piece(true),
            Op::Late,
            Op::Late,
            Op::Late,
            Op::Lines(true, 1),
        ],
    );
}

#[test]
fn a_line_without_an_end_is_followed_by_files_without_late_lines() {
    holds(
        false,
        &[
            Op::Piece(false),
            Op::CopyTruncate,
            Op::Half(true),
            Op::CopyTruncate,
            Op::Restart,
            Op::Late,
        ],
    );
}

#[test]
fn an_empty_file_passed_over_is_read_when_filled_rotated_and_compressed_before_the_next_look() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Late,
            Op::CopyTruncate,
            Op::Half(false),
            Op::Clock,
            Op::Late,
            Op::Rotate(0),
            Op::Clock,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Rotate(0),
            Op::Compress,
        ],
    );
}

#[test]
fn a_dead_containers_files_are_copied_and_read_once() {
    holds(
        false,
        &[
            Op::Lines(true, 1),
            Op::Rotate(0),
            Op::Clock,
            Op::Lines(true, 1),
            ack(1),
            Op::Restart,
            Op::CopyTruncate,
            Op::Late,
            Op::Crash {
                save: false,
                torn: false,
            },
        ],
    );
}

#[test]
fn the_first_line_of_a_new_file_is_read_though_nothing_more_happens() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Clock,
            Op::Rotate(0),
            Op::DeleteOldest,
            Op::Turn(1),
            Op::Lines(false, 1),
            Op::Clock,
        ],
    );
}

#[test]
fn an_empty_tip_is_copied_and_cut_behind_a_cut_file_that_was_compressed() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Clock,
            Op::Truncate,
            Op::Lines(false, 1),
            ack(1),
            Op::Rotate(0),
            Op::Rotate(0),
            Op::Compress,
            Op::Clock,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Piece(false),
        ],
    );
}

#[test]
fn what_a_dead_containers_copied_file_got_is_read_before_a_copy_of_the_next_one() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Rotate(1),
            Op::Restart,
            Op::DeleteOldest,
            Op::Late,
            Op::DeleteOldest,
            Op::Clock,
            KILLED,
            Op::Lines(false, 1),
            Op::Restart,
            Op::Clock,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            ack(2),
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::Turn(1),
            KILLED,
        ],
    );
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Rotate(1),
            Op::Lines(false, 1),
            Op::DeleteOldest,
            Op::Late,
            Op::DeleteOldest,
            Op::Clock,
            Op::Lines(false, 1),
            Op::Restart,
            KILLED,
            ack(1),
            ack(1),
            Op::Rotate(1),
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::Turn(1),
            KILLED,
        ],
    );
}

#[test]
fn an_empty_file_that_is_held_open_was_passed_over_filled_and_compressed() {
    holds(
        true,
        &[
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Restart,
            Op::Withdraw,
            Op::Truncate,
            Op::Late,
            Op::Rotate(1),
            Op::CopyTruncate,
            Op::Compress,
            Op::Piece(false),
        ],
    );
}

#[test]
fn an_empty_file_that_was_closed_was_passed_over_filled_and_compressed() {
    holds(
        true,
        &[
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Restart,
            Op::Withdraw,
            Op::Truncate,
            Op::Late,
            ack(9),
            Op::Rotate(1),
            Op::CopyTruncate,
            Op::Compress,
            Op::Piece(false),
        ],
    );
}

#[test]
fn copies_with_late_lines_are_read_by_a_pipeline_that_comes_back() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Late,
            Op::DeleteOldest,
            Op::Rotate(0),
            Op::DeleteOldest,
            Op::Withdraw,
            Op::Withdraw,
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn an_acknowledged_file_that_is_compressed_is_not_read_behind_a_copy() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Half(false),
            Op::Rotate(0),
            KILLED,
            ack(1),
            Op::CopyTruncate,
            ack(1),
            Op::Compress,
            Op::Rotate(1),
            Op::Restart,
            Op::Late,
            KILLED,
        ],
    );
}

#[test]
fn a_file_whose_copy_is_acknowledged_is_not_read_behind_the_next_ones() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(1),
            Op::Lines(false, 1),
            Op::Down,
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Piece(false),
            Op::Restart,
            KILLED,
            Op::Truncate,
            KILLED,
            Op::Turn(1),
            ack(1),
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn a_copied_file_that_grew_is_not_copied_behind_a_later_restart() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Restart,
            Op::Restart,
            Op::Clock,
            Op::Lines(false, 1),
            Op::Room(1),
            Op::Late,
            KILLED,
            KILLED,
        ],
    );
}

#[test]
fn a_dead_containers_file_that_grew_is_copied_anew_before_the_copies_of_later_restarts() {
    let copied = [
        Op::Lines(false, 1),
        Op::Rotate(0),
        Op::Withdraw,
        Op::Restart,
        Op::Restart,
        Op::Withdraw,
        Op::Late,
        KILLED,
    ];
    for then in [&[KILLED][..], &[Op::DeleteOldest, Op::Turn(3), KILLED]] {
        holds(true, &[&copied, then].concat());
    }
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::CopyTruncate,
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Restart,
            Op::DeleteOldest,
            Op::Restart,
            KILLED,
            ack(1),
            Op::Down,
            Op::Late,
            Op::Room(1),
            KILLED,
        ],
    );
}

#[test]
fn a_dead_containers_file_that_grew_is_copied_whole_though_its_first_lines_were_acknowledged() {
    let granted = [
        Op::Lines(false, 2),
        Op::Rotate(0),
        Op::Withdraw,
        Op::Restart,
        Op::Restart,
        Op::Room(1),
        Op::Withdraw,
    ];
    let saved = Op::Crash {
        save: true,
        torn: false,
    };
    let grown = [
        vec![Op::Late, ack(1), saved.clone()],
        vec![ack(1), Op::Turn(3), Op::Clock, Op::Late, saved],
    ];
    for grown in &grown {
        for then in [&[KILLED][..], &[Op::DeleteOldest, Op::Turn(3), KILLED]] {
            holds(false, &[&granted, &grown[..], then].concat());
        }
    }
}

#[test]
fn what_a_reader_has_not_read_yet_is_not_noted_as_passed_for_another() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Rotate(1),
            Op::Lines(false, 1),
            Op::DeleteOldest,
            Op::Block(true),
            Op::Late,
            Op::Withdraw,
            Op::Withdraw,
            Op::Withdraw,
        ],
    );
}

#[test]
fn a_file_that_goes_on_behind_its_copy_is_noted_as_far_as_that_goes() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Piece(false),
            Op::Turn(1),
            ack(1),
            Op::Restart,
            Op::Late,
            KILLED,
            Op::Withdraw,
            KILLED,
        ],
    );
}

#[test]
fn what_a_compressed_file_got_late_is_held_open_while_it_is_read() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(1),
            Op::Block(true),
            Op::Withdraw,
            Op::Rotate(1),
            Op::Turn(3),
            Op::SetBack,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Withdraw,
            Op::Rotate(1),
            Op::Compress,
            Op::Turn(1),
            Op::RotateInVain(2),
            Op::DeleteOldest,
        ],
    );
}

#[test]
fn a_late_copy_is_read_though_the_position_is_gone() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Rotate(1),
            Op::Restart,
            Op::Late,
            Op::Compress,
            Op::Lines(false, 1),
            Op::Room(1),
            Op::Clock,
            Op::Late,
            Op::Truncate,
            Op::CopyTruncate,
            Op::CopyTruncate,
            Op::Compress,
            Op::Block(true),
            Op::Clock,
            Op::Ack { count: 3, last: true },
            Op::Lines(false, 1),
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn a_file_that_was_empty_when_it_was_left_is_known_by_what_it_got() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Clock,
            Op::Truncate,
            Op::Late,
            Op::Half(true),
            ack(2),
            Op::Restart,
            ack(1),
            Op::Clock,
            Op::Withdraw,
            Op::Clock,
            Op::Lines(true, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn a_file_that_seems_old_is_copied_when_it_is_deleted_unread() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::SetBack,
            Op::Rotate(0),
            Op::Turn(1),
            Op::Block(true),
            Op::Rotate(1),
            Op::Withdraw,
            Op::Withdraw,
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::DeleteOldest,
            Op::Clock,
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn what_a_deleted_file_got_late_is_copied_though_nothing_follows() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Withdraw,
            Op::Room(1),
            Op::Lines(false, 1),
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Late,
            Op::DeleteOldest,
            Op::Clock,
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn copies_of_one_file_are_known_to_be_of_one() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Late,
            Op::Lines(false, 1),
            Op::Restart,
            Op::Rotate(1),
            KILLED,
            Op::Withdraw,
            Op::Piece(false),
        ],
    );
}

#[test]
fn a_late_copy_is_not_given_up_where_a_later_one_follows() {
    holds(
        false,
        &[
            Op::Down,
            Op::Lines(false, 1),
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Restart,
            Op::Late,
            Op::Late,
            Op::Turn(1),
            Op::Half(false),
            Op::Late,
            Op::Lines(false, 1),
            ack(1),
            Op::Late,
            KILLED,
        ],
    );
}

#[test]
fn what_a_named_file_got_late_is_not_copied_before_the_rest_of_it() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Half(false),
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Restart,
            Op::Clock,
            ack(2),
            Op::Late,
            Op::Room(1),
            Op::Lines(false, 1),
            Op::Late,
            KILLED,
        ],
    );
}

#[test]
fn late_lines_of_two_deleted_files_are_read_once() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Turn(1),
            Op::Late,
            Op::DeleteOldest,
            Op::Rotate(1),
            KILLED,
            ack(1),
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::Clock,
            KILLED,
        ],
    );
}

#[test]
fn a_file_that_was_empty_when_it_was_left_is_not_copied_before_what_was_copied_from_it() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Rotate(1),
            Op::Lines(false, 1),
            Op::DeleteOldest,
            Op::Truncate,
            Op::Clock,
            Op::Late,
            Op::Piece(false),
            Op::CopyTruncate,
            Op::Rotate(1),
            Op::DeleteOldest,
            Op::Late,
            KILLED,
        ],
    );
}

#[test]
fn a_rotated_file_is_copied_when_it_is_deleted_though_it_seems_to_be_the_youngest() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::SetBack,
            Op::Piece(true),
            Op::Rotate(0),
            Op::Rotate(1),
            KILLED,
            Op::Turn(1),
            Op::DeleteOldest,
            Op::Late,
            KILLED,
        ],
    );
}

#[test]
fn late_lines_that_wait_for_the_end_of_another_are_copied() {
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::SetBack,
            Op::Rotate(1),
            Op::Half(false),
            Op::Down,
            Op::Half(false),
            Op::Clock,
            Op::DeleteOldest,
            ack(2),
            Op::Late,
            KILLED,
        ],
    );
}

#[test]
fn what_follows_a_deleted_file_is_known_before_it_is_copied() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::DeleteOldest,
            Op::Rotate(1),
            Op::Down,
            Op::DeleteOldest,
        ],
    );
}

#[test]
fn a_file_that_is_cut_behind_its_copy_is_read_anew() {
    // It comes to less than the copy, to as much, and to more.
    for lines in 1..=3 {
        holds(
            false,
            &[
                Op::Lines(false, 1),
                Op::Rotate(0),
                Op::Lines(false, 1),
                Op::Restart,
                Op::Clock,
                Op::Lines(false, 1),
                ack(1),
                Op::Late,
                Op::DeleteOldest,
                KILLED,
                Op::Truncate,
                Op::Lines(false, lines),
            ],
        );
    }
}

#[test]
fn an_empty_tip_behind_an_empty_copy_is_filled_copied_cut_and_rotated_at_once() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Turn(1),
            ack(1),
            Op::Rotate(0),
            Op::CopyTruncate,
            Op::Compress,
            Op::Turn(1),
            Op::Lines(true, 1),
            Op::CopyTruncate,
            Op::Lines(true, 1),
            Op::Rotate(0),
        ],
    );
}

#[test]
fn a_tip_with_a_copy_that_is_all_acknowledged_is_read_on_when_permission_comes_back() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Late,
            Op::Rotate(0),
            Op::Turn(1),
            Op::Clock,
            ack(1),
            Op::RotateInVain(1),
            Op::Turn(1),
            Op::Half(false),
            Op::Piece(true),
            Op::Late,
            Op::Lines(true, 1),
            Op::DeleteOldest,
            Op::Clock,
            KILLED,
            Op::Withdraw,
            Op::Withdraw,
            Op::Turn(1),
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn who_stands_where_a_deleted_file_was_empty_misses_nothing() {
    // Empty when it was left, for what another file got late, or for what followed.
    holds(
        true,
        &[
            Op::Block(true),
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::SetBack,
            Op::Rotate(1),
            Op::DeleteOldest,
        ],
    );
    holds(
        true,
        &[
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Lines(false, 1),
            Op::Clock,
            Op::Lines(false, 1),
            Op::Late,
            ack(1),
            Op::Rotate(0),
            Op::Compress,
            Op::Clock,
            KILLED,
            Op::Block(true),
            Op::DeleteOldest,
            Op::Clock,
        ],
    );
    holds(
        true,
        &[
            Op::Withdraw,
            Op::Withdraw,
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Block(true),
            Op::Lines(false, 1),
            Op::Turn(1),
            Op::Late,
            Op::Late,
            Op::DeleteOldest,
            Op::Rotate(0),
            Op::Late,
            Op::DeleteOldest,
            Op::Restart,
            Op::Turn(1),
        ],
    );
}

#[test]
fn a_line_that_is_still_written_is_not_ended_for_a_file_that_seems_to_follow_the_tip() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::SetBack,
            Op::Clock,
            Op::Down,
            Op::Rotate(1),
            Op::Clock,
            Op::RotateInVain(1),
            Op::Clock,
            Op::Lines(false, 1),
            Op::Late,
            Op::DeleteOldest,
            ack(1),
            Op::Clock,
            Op::Half(false),
            KILLED,
            Op::Clock,
        ],
    );
}

#[test]
fn a_deleted_file_is_not_copied_before_anything_follows_it() {
    // Its copy would not know what does, and nobody would be told that it vanished.
    for vanish in [[Op::Rotate(1), Op::Down], [Op::Down, Op::Rotate(1)]] {
        let mut ops = vec![Op::Lines(false, 1), Op::Rotate(0), Op::DeleteOldest, Op::Clock];
        ops.extend(vanish);
        ops.push(Op::DeleteOldest);
        holds(false, &ops);
    }
}

#[test]
fn what_seems_to_follow_the_tip_waits_no_longer_than_for_the_end_of_its_line() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Block(true),
            Op::Rotate(0),
            Op::Rotate(0),
            Op::SetBack,
            Op::Piece(true),
            Op::RotateInVain(1),
        ],
    );
}

#[test]
fn an_empty_tip_that_is_passed_over_for_what_an_older_file_got_is_read_on() {
    holds(
        false,
        &[
            Op::Half(false),
            Op::SetBack,
            Op::Rotate(0),
            Op::Rotate(1),
            KILLED,
            ack(1),
            Op::Late,
            Op::DeleteOldest,
            Op::DeleteOldest,
            Op::Clock,
            Op::Lines(false, 1),
        ],
    );
}

#[test]
fn a_file_is_not_copied_behind_what_it_got_late() {
    holds(
        false,
        &[
            Op::Lines(false, 1),
            Op::Rotate(0),
            Op::Lines(false, 1),
            Op::Clock,
            Op::Late,
            Op::Lines(false, 1),
            ack(1),
            Op::Late,
            Op::CopyTruncate,
            Op::DeleteOldest,
            Op::Lines(false, 1),
            Op::CopyTruncate,
            Op::Restart,
            Op::Clock,
            KILLED,
        ],
    );
}
