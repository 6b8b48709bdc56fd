//! A file that was cut, is gone or cannot be read in, what becomes of its cursor out.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use sluice_engine::report::GapCause;

use super::Sink;
use super::container::Container;
use super::cursor::Cursor;
use super::file_end::without_file;
use super::reading::Step;
use crate::checkpoint::journal::is_shortage;
use crate::discover::names::ContainerKey;
use crate::status::figures::Figures;
use crate::tail::chain::{Chain, Next};
use crate::tail::generation::Generation;

/// A file that cannot be read is tried for a while, and then left for a younger one, or for good where its pod is gone. True: its folder has to be listed
/// first, since it has another name by now.
pub(super) fn unreadable<S: Sink>(
    cursor: &mut Cursor,
    container: &mut Container,
    error: &io::Error,
    now: Instant,
    sink: &mut S,
    figures: &mut Figures,
) -> (Step, bool) {
    let number = cursor.position.generation;
    if error.kind() == io::ErrorKind::NotFound {
        return (Step::AtEnd, true);
    }
    let next = container.chain.after(cursor.position, container.gone, now);
    let is_last = !matches!(next, Next::Move { .. }) && !container.gone;
    if is_last || is_shortage(error) || !container.chain.give_up(number, error, now) {
        // It tells nobody when it can be read: until then it is not idle.
        container.last_growth = now;
        return (Step::AtEnd, false);
    }
    if cursor.gap.is_none() {
        *figures.resets.entry("file_unreadable").or_default() += 1;
    }
    cursor.misses(&container.pod, GapCause::FileUnreadable);
    if let Next::Move { to, .. } = next {
        if cursor.end_long(sink).is_err() {
            return (Step::NoRoom(0), false);
        }
        cursor.go_to(to);
        return (Step::Read(1), false);
    }
    // Nothing follows, and nobody opens it any more.
    (without_file(cursor, container, sink), false)
}

/// A file was cut or rewritten: its folder is listed first, since it may have been copied before, and then what it
/// holds now is a generation of its own.
pub(super) fn rewritten(
    chain: &mut Chain,
    number: u32,
    key: &Arc<ContainerKey>,
    relist: &mut BTreeSet<Arc<ContainerKey>>,
) -> Step {
    if chain.suspect(number) {
        chain.replace(number);
        Step::Read(1)
    } else {
        relist.insert(Arc::clone(key));
        Step::AtEnd
    }
}

/// The generation that the cursor is in. One that could not be held open may be gone before it was left: goes on with
/// what there is.
pub(super) fn file_of<S: Sink>(
    cursor: &mut Cursor,
    container: &Container,
    sink: &mut S,
    figures: &mut Figures,
) -> Result<u32, Step> {
    let found = container.chain.at_or_after(cursor.position.generation);
    let Some(begin) = found.map(Generation::beginning) else {
        return Err(without_file(cursor, container, sink));
    };
    // A copy in a file's place begins no earlier than somebody needed when it was made.
    if begin > cursor.position {
        let ended = cursor.end_long(sink).and_then(|()| cursor.flush_all(sink));
        if ended.is_err() {
            return Err(Step::NoRoom(0));
        }
        tracing::warn!(container = %container.key, "a log file was deleted before it was read");
        *figures.resets.entry("file_vanished").or_default() += 1;
        cursor.misses(&container.pod, GapCause::FilesDeleted);
        cursor.go_to(begin);
    }
    Ok(begin.generation)
}
