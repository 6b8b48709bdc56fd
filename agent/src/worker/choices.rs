//! A container's facts and what its lines ask for in, choices of labels and streams out: journaled before a line shows them.

use std::collections::{BTreeMap, BTreeSet};

use sluice_engine::document::Limits;
use sluice_engine::key::Key;
use sluice_engine::labels;

use super::Sink;
use super::admit::{container_facts, namespace};
use super::container::Container;
use super::core::Core;
use super::cursor::Cursor;
use crate::checkpoint::journal::Journal;
use crate::checkpoint::ledger::Ledger;
use crate::checkpoint::record::{LabelChoice, Record};
use crate::metadata::PodFacts;
use crate::process::route::{self, Route};
use crate::process::{self, Choice, Journaled};
use crate::tail::position::{CursorId, Position};

impl<S: Sink> Core<S> {
    /// Journals that lines go another way from the next one on, where that one asks for it; whether it did.
    pub(super) fn reroute(&mut self, id: CursorId) -> bool {
        let Some(cursor) = self.cursors.get_mut(&id) else {
            return false;
        };
        let Some((from, route)) = cursor.outlet.wanted.take() else {
            return false;
        };
        let place = self
            .containers
            .get_mut(&cursor.container)
            .and_then(|container| container.chain.place(from));
        let Some((place, last)) = place.zip(cursor.outlet.choices.last()) else {
            return false;
        };
        let rules = last.rules.clone();
        let choice = Journaled {
            chosen: last.chosen.clone(),
            route,
        };
        self.journal.append_urgent(&Record::Chosen(
            id,
            LabelChoice {
                from: Some(place),
                rules: rules.clone(),
                chosen: serde_json::to_string(&choice).unwrap_or_default(),
            },
        ));
        let choice = in_use(from, rules, choice, &cursor.tenant, &mut self.sink);
        cursor.outlet.has_returned(&mut self.sink);
        cursor.outlet.choose(choice);
        true
    }
}

/// Chooses the labels of what is read from here on, and journals them before any of it can be sent.
pub(super) fn choose<S: Sink>(
    cursor: &mut Cursor,
    container: &mut Container,
    facts: Option<&PodFacts>,
    node: &str,
    limits: &Limits,
    journal: &mut Journal,
    sink: &mut S,
) {
    let namespace = namespace(&cursor.pipeline, &container.pod.namespace);
    let facts = container_facts(&container.key, &container.pod, namespace, facts, node);
    let mut chosen = labels::choose(&cursor.pipeline.labels, &facts, limits);
    // The API does not say which of the two outputs a line came from.
    chosen.stream &= !container.key.is_spooled();
    let first = cursor.outlet.choices.is_empty();
    let place = if first {
        None
    } else {
        container.chain.place(cursor.position)
    };
    let choice = Journaled {
        chosen,
        route: Route::default(),
    };
    let json = serde_json::to_string(&choice).unwrap_or_default();
    let rules = process::made_by(&cursor.rules, cursor.pod_known);
    let record = LabelChoice {
        from: place,
        rules: rules.clone(),
        chosen: json,
    };
    journal.append_urgent(&Record::Chosen(cursor.outlet.id, record));
    let from = if first {
        Position::default()
    } else {
        cursor.position
    };
    let choice = in_use(from, rules, choice, &cursor.tenant, sink);
    cursor.outlet.has_returned(sink);
    cursor.outlet.choose(choice);
}

/// How many cursors may send lines again that they sent to a stream of this tenant before a restart, by its labels.
pub(super) fn returning(ledger: &Ledger, tenant: &Key) -> BTreeMap<String, u32> {
    let mut cursors = BTreeMap::new();
    let tenant = tenant.to_string();
    let entries = ledger.cursors.values();
    for entry in entries.filter(|entry| entry.identity.tenant == tenant) {
        let mut streams = BTreeSet::new();
        for choice in &entry.choices {
            let Ok(Journaled { chosen, route }) = serde_json::from_str(&choice.chosen) else {
                continue;
            };
            let turns = (0..route.parts()).filter(|_| route.late == 0);
            streams.extend(turns.map(|turn| route::labels(&chosen.labels, turn, None)));
        }
        for labels in streams {
            *cursors.entry(labels).or_default() += 1;
        }
    }
    cursors
}

/// A journaled choice, in use again.
pub(super) fn replay<S: Sink>(
    choice: &LabelChoice,
    from: Position,
    tenant: &Key,
    sink: &mut S,
) -> Option<Choice> {
    let journaled: Journaled = serde_json::from_str(&choice.chosen)
        .inspect_err(|error| tracing::warn!(%error, "journaled labels cannot be read: chosen anew"))
        .ok()?;
    Some(in_use(from, choice.rules.clone(), journaled, tenant, sink))
}

/// A choice with its streams open and its metadata encoded.
pub(super) fn in_use<S: Sink>(
    from: Position,
    rules: String,
    journaled: Journaled,
    tenant: &Key,
    sink: &mut S,
) -> Choice {
    let Journaled { chosen, route } = journaled;
    let metadata = [0, 1, 2].map(|slot| S::metadata(&Choice::pairs(&chosen, slot)));
    let streams = (0..route.parts())
        .map(|turn| sink.open_stream(tenant, &route::labels(&chosen.labels, turn, None)))
        .collect();
    Choice {
        from,
        rules,
        chosen,
        route,
        streams,
        late: Vec::new(),
        metadata,
    }
}
