//! Once a second: clocks that end unfinished lines, positions into the journal, files nobody needs closed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sink;
use super::container::Container;
use super::core::Core;
use super::cursor::{Cursor, State};
use crate::batch::Bound;
use crate::checkpoint::record::{Count, Flush, Record, StreamBound, Watermark};
use crate::discover::names::ContainerKey;
use crate::tail::position::CursorId;

/// How long an unfinished line waits for its next piece.
const PARTIAL: Duration = Duration::from_secs(30);

/// What the journal keeps of a bound.
pub(super) fn bound_record(bound: &Bound, seconds: Option<i64>) -> StreamBound {
    StreamBound {
        tenant: bound.tenant.to_string(),
        labels: bound.labels.to_string(),
        seconds,
    }
}

impl<S: Sink> Core<S> {
    pub(super) fn tick(&mut self, now: Instant) {
        let stirred = std::mem::take(&mut self.stirred);
        let containers = stirred.iter().filter_map(|key| self.containers.get(key));
        let ids: Vec<CursorId> = containers
            .flat_map(|container| container.cursors.iter().copied())
            .collect();
        if !self.draining {
            self.flush_partials(&ids, now);
        }
        self.write_positions_of(&ids);
        self.note_backlogs(&ids);
        // A copy is needed until the position behind it is on disk.
        self.journal.sync();
        self.reclaim(&stirred, now);
        self.journal.sync();
        self.spill_again(&ids, now);
        let is_busy = |key: &Arc<ContainerKey>| self.containers.get(key).is_some_and(|one| !self.rests(one));
        self.stirred = stirred.into_iter().filter(is_busy).collect();
    }

    /// Whether nothing will have to be done for a container before something happens to it.
    fn rests(&self, container: &Container) -> bool {
        let mut cursors = container.cursors.iter().filter_map(|id| self.cursors.get(id));
        let is_awaited = container.next_poll.is_some() || container.parked.is_some();
        !is_awaited && !container.gone && container.chain.is_single() && cursors.all(Cursor::rests)
    }

    fn flush_partials(&mut self, ids: &[CursorId], now: Instant) {
        let mut rerouted = Vec::new();
        for id in ids {
            let Some(cursor) = self.cursors.get_mut(id) else {
                continue;
            };
            // While there is more to read the rest of the line may be in it, or be under way to the sink.
            let at_end = cursor.state == State::AtEnd;
            let due: Vec<_> = cursor
                .joiner
                .all()
                .filter(|(slot, open)| {
                    (at_end && now.duration_since(open.since) >= PARTIAL)
                        || cursor.flushed.contains(&(open.end, *slot))
                })
                .map(|(slot, open)| (slot, open.end))
                .collect();
            if due.is_empty() {
                continue;
            }
            let container = self.containers.get(&cursor.container);
            let number = cursor.position.generation;
            let goes_on = |container: &Container| container.chain.goes_on(number);
            if container.is_some_and(goes_on) {
                continue;
            }
            for (slot, end) in due {
                if !cursor.flushed.contains(&(end, slot)) {
                    let container = self.containers.get_mut(&cursor.container);
                    let Some(place) = container.and_then(|container| container.chain.place(end)) else {
                        continue;
                    };
                    // A clock's choice: a replay must end the line at the same place.
                    self.journal
                        .append_urgent(&Record::Flushed(*id, Flush { place, slot }));
                    cursor.flushed.push((end, slot));
                }
                // When there is no room, the next second tries again.
                let _later = cursor.flush(slot, &mut self.sink);
                rerouted.push(*id);
            }
            // What older files got late waits for the end of such a line, and tells nobody of itself.
            if let Some(container) = self.containers.get_mut(&cursor.container) {
                container.next_poll = Some(now);
            }
        }
        for id in rerouted {
            self.reroute(id);
        }
    }

    pub(super) fn write_positions(&mut self) {
        let all: Vec<_> = self.cursors.keys().copied().collect();
        self.write_positions_of(&all);
    }

    fn write_positions_of(&mut self, ids: &[CursorId]) {
        for id in ids {
            if self.cursors.get(id).is_some_and(|cursor| cursor.dirty) {
                self.write_position(*id);
            }
        }
    }

    /// Journals a cursor's watermark, if it moved, and forgets what lies behind it.
    pub(super) fn write_position(&mut self, id: CursorId) {
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return;
        };
        let Some(container) = self.containers.get_mut(&cursor.container) else {
            return;
        };
        if cursor.gap.is_some() {
            // A position behind a gap that is not told yet would hide it.
            return;
        }
        cursor.dirty = false;
        let mark = cursor.watermark();
        if cursor.journaled == Some(mark) {
            return;
        }
        let Some(place) = container.chain.place(mark.position) else {
            return;
        };
        if place.print.len == 0 {
            // An empty file is like any other: the place before it says as much.
            return;
        }
        cursor.journaled = Some(mark);
        let expired = cursor.expired_before(mark.position);
        if expired > 0 {
            let count = Count::Rejected {
                reason: "older_than_max_age".to_owned(),
                lines: expired,
            };
            self.journal.append(&Record::Counted(cursor.output(), count));
        }
        if cursor
            .under_way
            .take_if(|given_up| *given_up < mark.position.generation)
            .is_some()
        {
            self.journal.append(&Record::UnderWay(id, None));
        }
        // First: with the position alone on disk they would be taken for unread.
        let left = container.chain.left_below(mark.position.generation);
        if cursor.left.as_ref() != Some(&left) {
            self.journal.append(&Record::Left(id, left.clone()));
            cursor.left = Some(left);
        }
        let record = Watermark {
            place,
            before: container.chain.before(mark.position.generation),
            previous: mark.previous,
            resume: mark.resume,
        };
        self.journal.append(&Record::Acknowledged(id, record));

        let choices = &mut cursor.outlet.choices;
        let passed = choices
            .iter()
            .skip(1)
            .take_while(|choice| choice.from <= mark.position)
            .count();
        for stream in choices
            .drain(..passed)
            .flat_map(|choice| choice.open().collect::<Vec<_>>())
        {
            self.sink.close_stream(stream);
        }
        let flushes = cursor
            .flushed
            .iter()
            .take_while(|(end, _)| *end <= mark.position)
            .count();
        cursor.flushed.drain(..flushes);
        if passed + flushes > 0 {
            let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
            self.journal
                .append(&Record::Pruned(id, count(passed), count(flushes)));
        }
    }

    fn reclaim(&mut self, stirred: &BTreeSet<Arc<ContainerKey>>, now: Instant) {
        let containers = stirred.iter().filter_map(|key| self.containers.get(key));
        let of_gone = containers.filter(|container| container.gone);
        let is_over = |id: &CursorId| {
            let cursor = self.cursors.get(id);
            cursor.is_some_and(|cursor| cursor.state == State::Finished && cursor.is_settled())
        };
        let over: Vec<_> = of_gone
            .flat_map(|container| container.cursors.iter().copied())
            .filter(is_over)
            .collect();
        for id in over {
            self.remove_cursor(id);
        }
        let mut empty = Vec::new();
        let is_known = self.swept && !self.config.document.is_empty();
        for key in stirred {
            let Some(container) = self.containers.get_mut(key) else {
                continue;
            };
            let kept = container.chain.has_spilled();
            if kept && (self.journal.failure.is_some() || !is_known) {
                // The positions that tell what of it is needed are not on disk, or not asked for yet.
                continue;
            }
            let cursors = container.cursors.iter().filter_map(|id| self.cursors.get(id));
            let oldest = |cursor: &Cursor| {
                let read = cursor.watermark().position.generation;
                let journaled = || cursor.journaled.map_or(0, |mark| mark.position.generation);
                if kept { read.min(journaled()) } else { read }
            };
            match cursors.map(oldest).min() {
                Some(oldest) => {
                    let youngest = container.chain.youngest();
                    container.chain.close_below(oldest);
                    if container.chain.youngest() != youngest {
                        container.stir(now);
                    }
                }
                None if container.parked.is_some() => {}
                None if container.gone && self.relist.contains(key) => {}
                None if container.gone => empty.push(Arc::clone(key)),
                None => {
                    container.chain.close_below(u32::MAX);
                    container.chain.forget();
                }
            }
        }
        for key in &empty {
            let known = self.journal.ledger().cursors.iter().filter(|(_, entry)| {
                entry.identity.folder == key.folder && entry.identity.container == key.container
            });
            for id in known.map(|(id, _)| *id).collect::<Vec<_>>() {
                self.journal.append(&Record::Dropped(id));
            }
        }
        if empty.is_empty() {
            return;
        }
        // First: a position whose copy is gone would be taken for a loss.
        self.journal.sync();
        for key in &empty {
            if let Some(mut container) = self.containers.remove(key) {
                container.chain.close_below(u32::MAX);
            }
        }
    }
}
