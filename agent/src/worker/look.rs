//! A cursor without room in, whether a line waits in its file, and since when, out.

use std::time::Instant;

use super::Sink;
use super::core::Core;
use crate::tail::chain::Next;
use crate::tail::generation::Generation;
use crate::tail::position::CursorId;

/// Bytes that are read to learn the timestamp of a line that waits for room.
const LOOK: usize = 512;

impl<S: Sink> Core<S> {
    /// Finds out whether a line waits for room, and since when: its beginning is read, and nothing is taken.
    pub(super) fn look(&mut self, id: CursorId, now: Instant) {
        let Some(cursor) = self.cursors.get_mut(&id).filter(|c| c.waits.is_none()) else {
            return;
        };
        let Some(container) = self.containers.get_mut(&cursor.container) else {
            return;
        };
        let chain = &mut container.chain;
        let at = cursor.position;
        let Some(begin) = chain.at_or_after(at.generation).map(Generation::beginning) else {
            return;
        };
        let number = begin.generation;
        let at = at.max(begin);
        let into = self.buffer.get_mut(..LOOK).unwrap_or_default();
        let Ok(read) = chain.read(number, at.offset, into, container.gone, &mut cursor.reader) else {
            return;
        };
        let begin = into.get(..read).unwrap_or_default();
        // One that is still written does not wait for room.
        if begin.contains(&b'\n') || read == LOOK || (read > 0 && container.gone) {
            cursor.waits = cursor.next_timestamp(begin);
        } else if matches!(chain.after(at, container.gone, now), Next::Move { .. }) {
            cursor.waits = cursor.previous;
        }
    }
}
