//! A cursor that has read all there is of its file in, where it goes on out: there, in a younger file, or nowhere.

use std::time::Instant;

use sluice_engine::report::GapCause;

use super::Sink;
use super::container::Container;
use super::cursor::{Chunk, Cursor};
use super::reading::{Step, take};
use crate::parse::join::NoRoom;
use crate::status::figures::Figures;
use crate::tail::chain::Next;
use crate::tail::compressed::Compressed;

/// There is no file at or behind the cursor's position.
pub(super) fn without_file<S: Sink>(cursor: &mut Cursor, container: &Container, sink: &mut S) -> Step {
    if !container.gone {
        return Step::AtEnd;
    }
    match cursor.end_long(sink).and_then(|()| cursor.flush_all(sink)) {
        Ok(()) => Step::Finished,
        Err(NoRoom) => Step::NoRoom(0),
    }
}

/// The cursor has read all there is of its file; `chunk` is a rest without line feed. Goes on with the next
/// file when this one is complete.
pub(super) fn at_end_of_file<S: Sink>(
    cursor: &mut Cursor,
    container: &mut Container,
    chunk: Chunk<'_>,
    sink: &mut S,
    figures: &mut Figures,
    now: Instant,
) -> Step {
    let number = chunk.generation;
    let read_to = chunk.offset + chunk.data.len() as u64;
    let next = container.chain.after(cursor.position, container.gone, now);
    match next {
        Next::Stay if !container.gone => return Step::AtEnd,
        Next::Settle => {
            container.grew(0, now);
            return Step::AtEnd;
        }
        // A line that is still written is neither ended for older ones nor joined with them.
        Next::Move { to, .. } if container.chain.is_older(to.generation, number) => {
            let begun = !chunk.data.is_empty() || cursor.joiner.all().next().is_some();
            let grows = !container.gone && !container.chain.is_fixed(number);
            if begun && grows {
                return Step::AtEnd;
            }
        }
        Next::Stay | Next::Move { .. } => {}
    }
    let chunk = Chunk {
        full: false,
        last: true,
        ..chunk
    };
    let (taken, no_room) = take(cursor, &chunk, sink, figures, now);
    if taken > 0 {
        cursor.remember(chunk.data.get(..taken).unwrap_or_default());
    }
    if no_room || cursor.end_long(sink).is_err() {
        return Step::NoRoom(taken);
    }
    // Nobody is left who would end these lines, or their ends were cut.
    let chain = &container.chain;
    let (vanished, replaced) = (chain.has_vanished_after(number), chain.is_replaced(number));
    let over = match next {
        // Nor can one wait behind what is older: it would be joined with that.
        Next::Move { to, restarted } => {
            restarted || chain.is_broken(number, to.generation) || chain.is_older(to.generation, number)
        }
        Next::Stay | Next::Settle => true,
    };
    if (over || vanished || replaced || chain.is_late(number)) && cursor.flush_all(sink).is_err() {
        return Step::NoRoom(taken);
    }
    let is_damaged = |(of, file): &(u32, Compressed)| *of == number && file.is_damaged();
    let cause = if replaced {
        // What was written between the last look and the cut is not known.
        Some(GapCause::FileRewritten)
    } else if cursor.reader.as_ref().is_some_and(is_damaged) {
        Some(GapCause::FileUnreadable)
    } else if chain.is_damaged(number) {
        Some(GapCause::SpillDamaged)
    } else {
        vanished.then_some(GapCause::FilesDeleted)
    };
    if let Some(cause) = cause {
        cursor.misses(&container.pod, cause);
    }
    match next {
        Next::Move { to, .. } => {
            if replaced {
                tracing::warn!(container = %container.key, "a log file was cut or rewritten: read from its beginning");
                *figures.resets.entry("file_rewritten").or_default() += 1;
            }
            container.chain.leave(number, read_to, to.generation);
            cursor.go_to(to);
            Step::Read(taken.max(1))
        }
        Next::Stay | Next::Settle => Step::Finished,
    }
}
