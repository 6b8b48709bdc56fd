//! Joined lines in, entries in their streams out, and which of them are not acknowledged.

use std::sync::Arc;

use sluice_engine::cri::Timestamp;
use sluice_engine::document::Tenant;
use sluice_engine::key::Key;

use super::sink::{Sink, Taken};
use crate::batch::{Entry, Finished, PieceId, StreamId};
use crate::parse::join::{NoRoom, Part};
use crate::process::route::{self, Route, Spread};
use crate::process::{self, Choice};
use crate::tail::position::{CursorId, Mark, Position};

/// Part of a stream's rate that one container uses; the same part that requests are paced by.
const USED_PERCENT: u64 = 80;

/// What a cursor put into one stream between two seals.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) piece: PieceId,
    stream: StreamId,
    pub(super) mark: Mark,
    pub(super) timestamp: Timestamp,
    lines: u64,
    bytes: u64,
}

/// Where entries go, and which of them are not acknowledged.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) id: CursorId,
    tenant: Arc<Key>,
    pub(super) choices: Vec<Choice>,
    /// Lines and bytes that are counted instead of sent, while that is so.
    pub(super) lost: Option<(u64, u64)>,
    pub(super) outstanding: Vec<Outstanding>,
    /// The line that begins here is to be sent this way, and those after it. It is not taken before that is journaled.
    pub(super) wanted: Option<(Position, Route)>,
    /// Streams of which lines may come that were sent before a restart.
    returning: Vec<StreamId>,
    /// The line at hand waits for other cursors to send again what they sent before a restart.
    pub(super) yields: bool,
    /// Where the last line that was taken began: lines that begin at one place go the same way.
    last: Option<Position>,
    /// Seconds that a value of `late` stands for.
    width: u32,
    spread: Spread,
    /// Streams that the container's rate asks for.
    parts: u32,
}

impl Outlet {
    pub(super) fn new(id: CursorId, tenant: Arc<Key>) -> Self {
        Self {
            id,
            tenant,
            choices: Vec::new(),
            lost: None,
            outstanding: Vec::new(),
            wanted: None,
            returning: Vec::new(),
            yields: false,
            last: None,
            width: 0,
            spread: Spread::default(),
            parts: 1,
        }
    }

    /// Takes a tenant's limits in.
    pub(super) fn limit(&mut self, tenant: &Tenant) {
        let limits = &tenant.limits;
        self.width = route::width(i64::try_from(limits.out_of_order_window_ms / 1000).unwrap_or(i64::MAX));
        let of_stream = limits.per_stream_rate_bytes_per_second / 100 * USED_PERCENT;
        let request = tenant.delivery.batch_bytes.min(limits.per_stream_burst_bytes);
        self.spread
            .limit(of_stream, limits.rate_bytes_per_second, request);
    }

    /// Adds a choice that holds from its position on.
    pub(super) fn choose(&mut self, choice: Choice) {
        self.parts = choice.route.parts();
        self.choices.push(choice);
    }

    /// The file's end was reached.
    pub(super) fn caught_up(&mut self) {
        self.spread.caught_up();
    }

    /// By the choices that the journal has, lines may come that were sent before a restart.
    pub(super) fn returns(&mut self) {
        let plain = self.choices.iter().filter(|choice| choice.route.late == 0);
        self.returning = plain.flat_map(|choice| choice.streams.iter().copied()).collect();
        self.returning.sort_unstable();
        self.returning.dedup();
    }

    /// Whatever comes was not sent before, or is late.
    pub(super) fn has_returned<S: Sink>(&mut self, sink: &mut S) {
        for stream in self.returning.drain(..) {
            sink.returned(stream);
        }
    }

    /// The stream that a line at this position would go to, as far as that is known before it is read.
    pub(super) fn stream_at(&self, position: Position) -> Option<StreamId> {
        let choice = self.choices.get(process::at(&self.choices, position)?)?;
        let turn = choice.route.turn(position.offset) as usize;
        let late = choice.late.get(turn).copied().flatten();
        late.map(|(_, stream)| stream)
            .or_else(|| choice.streams.get(turn).copied())
    }

    /// Sends a line. On [`NoRoom`] with something `wanted`, that has to be done first.
    pub(super) fn emit<S: Sink>(&mut self, part: &Part<'_>, sink: &mut S) -> Result<(), NoRoom> {
        if let Some((lines, bytes)) = &mut self.lost {
            *lines += 1;
            *bytes += part.line.iter().map(|part| part.len() as u64).sum::<u64>();
            return Ok(());
        }
        self.send(part, sink)
    }

    fn send<S: Sink>(&mut self, part: &Part<'_>, sink: &mut S) -> Result<(), NoRoom> {
        let at = part.mark.position;
        self.wanted = None;
        let index = process::at(&self.choices, at).ok_or(NoRoom)?;
        // Between lines that are read again together nothing changes, nor where the journal knows what followed.
        let count = self.choices.len();
        let may_change = index + 1 == count && self.last.is_none_or(|last| last < at);
        let choice = self.choices.get_mut(index).ok_or(NoRoom)?;
        let seconds = part.timestamp.seconds;
        let turn = choice.route.turn(at.offset) as usize;
        let plain = choice.streams.get(turn).copied().ok_or(NoRoom)?;
        let is_late = choice.route.late > 0;
        if is_late && index + 1 == count {
            self.returning.drain(..).for_each(|stream| sink.returned(stream));
        }
        if may_change {
            let mut asked = choice.route;
            if self.parts != asked.parts() {
                (asked.parts, asked.stretch) = (self.parts, self.spread.stretch());
            }
            let route = judged_anew(asked, plain, seconds, sink);
            if route != choice.route {
                self.wanted = Some((at, route));
                return Err(NoRoom);
            }
        }
        let metadata = choice
            .metadata
            .get(usize::from(part.slot))
            .map_or(&[][..], Vec::as_slice);
        let entry = Entry {
            timestamp: part.timestamp,
            line: part.line,
            metadata,
        };
        let mut stream = if is_late {
            late_stream(
                &mut choice.late,
                &choice.chosen.labels,
                choice.route,
                turn,
                seconds,
                &self.tenant,
                sink,
            )
        } else {
            plain
        };
        let mut taken = sink.append(stream, self.id, &entry);
        if taken == Taken::NotYet && !self.returning.is_empty() {
            // It is newer than all that was sent before, so this cursor is not the one to be waited for.
            self.returning.drain(..).for_each(|stream| sink.returned(stream));
            taken = sink.append(stream, self.id, &entry);
        }
        self.yields = taken == Taken::NotYet;
        if taken == Taken::Behind {
            let route = Route {
                late: self.width,
                until: sink.late_until(plain),
                ..choice.route
            };
            if may_change {
                self.wanted = Some((at, route));
                return Err(NoRoom);
            }
            // Twice in a crash is better than never.
            stream = late_stream(
                &mut choice.late,
                &choice.chosen.labels,
                route,
                turn,
                seconds,
                &self.tenant,
                sink,
            );
            taken = sink.append(stream, self.id, &entry);
        }
        let bytes = part.line.iter().map(|part| part.len() as u64).sum::<u64>();
        self.taken(part, stream, taken, bytes)?;
        self.last = Some(at);
        if let Some(parts) = self.spread.count(seconds, bytes, self.parts) {
            self.parts = parts;
        }
        Ok(())
    }

    /// Counts a line with what it has to be acknowledged with.
    fn taken(&mut self, part: &Part<'_>, stream: StreamId, taken: Taken, bytes: u64) -> Result<(), NoRoom> {
        match taken {
            Taken::NoRoom | Taken::Behind | Taken::NotYet => return Err(NoRoom),
            Taken::Opened(piece) => self.outstanding.push(Outstanding {
                piece,
                stream,
                mark: part.mark,
                timestamp: part.timestamp,
                lines: 1,
                bytes,
            }),
            Taken::Added => {
                if let Some(piece) = self
                    .outstanding
                    .iter_mut()
                    .rev()
                    .find(|piece| piece.stream == stream)
                {
                    // A joined line can have begun before the first one that was complete.
                    if part.mark.position < piece.mark.position {
                        piece.mark = part.mark;
                    }
                    piece.timestamp = piece.timestamp.min(part.timestamp);
                    piece.lines += 1;
                    piece.bytes += bytes;
                }
            }
        }
        Ok(())
    }

    /// A piece is finished: its lines and bytes.
    pub(super) fn finish(&mut self, finished: Finished) -> Option<(u64, u64)> {
        let at = self
            .outstanding
            .iter()
            .position(|piece| piece.piece == finished.piece)?;
        let piece = self.outstanding.remove(at);
        Some((piece.lines, piece.bytes))
    }
}

/// Late lines are late up to a time; whether one after it is, its stream says.
fn judged_anew<S: Sink>(route: Route, plain: StreamId, seconds: i64, sink: &S) -> Route {
    if route.late == 0 || seconds < route.until {
        return route;
    }
    let until = sink.late_until(plain);
    let is_late = seconds < until;
    Route {
        late: if is_late { route.late } else { 0 },
        until: if is_late { until } else { 0 },
        ..route
    }
}

/// The stream of late lines of an hour, made when another one is open.
fn late_stream<S: Sink>(
    open: &mut Vec<Option<(i64, StreamId)>>,
    labels: &str,
    route: Route,
    turn: usize,
    seconds: i64,
    tenant: &Key,
    sink: &mut S,
) -> StreamId {
    let hour = route.hour(seconds);
    if open.len() <= turn {
        open.resize(turn + 1, None);
    }
    match open.get(turn).copied().flatten() {
        Some((of, stream)) if of == hour => return stream,
        Some((_, stream)) => sink.close_stream(stream),
        None => {}
    }
    let turn_number = u32::try_from(turn).unwrap_or(0);
    let stream = sink.open_late_stream(tenant, &route::labels(labels, turn_number, Some(hour)));
    if let Some(place) = open.get_mut(turn) {
        *place = Some((hour, stream));
    }
    stream
}
