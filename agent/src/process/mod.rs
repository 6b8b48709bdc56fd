//! Lines and the labels chosen for their container in, entries out.
//!
//! Labels are chosen once, journaled before the first line is sent, and replayed: a pod that is relabelled
//! later, or not known after a restart, changes nothing for lines that were read. A pod that becomes known only
//! later gets its labels from there on.
//!
//! # Layout
//! - [`select`]: a container and a pipeline in, whether it is collected out
//! - [`route`]: a line's time and place in, which of its container's streams takes it out

pub mod route;
pub mod select;

use serde::{Deserialize, Serialize};
use sluice_engine::document::{Limits, content_hash};
use sluice_engine::labels::{Chosen, ContainerFacts, LabelRules};

use crate::batch::StreamId;
use crate::tail::position::Position;

use route::Route;

/// Ends the rules of a choice that was made without the pod's facts.
const GUESSED: char = '?';

/// What the journal keeps of a choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journaled {
    /// The labels.
    #[serde(flatten)]
    pub chosen: Chosen,
    /// Which streams beside the plain one take lines.
    #[serde(default)]
    pub route: Route,
}

/// Labels in use from some position on.
#[derive(Debug)]
pub struct Choice {
    /// The first line concerned.
    pub from: Position,
    /// What it was made by, see [`made_by`].
    pub rules: String,
    /// The labels.
    pub chosen: Chosen,
    /// Which streams beside the plain one take lines.
    pub route: Route,
    /// The streams that take turns; the plain one comes first.
    pub streams: Vec<StreamId>,
    /// For each of them the one of its late lines that is open, and the hour it stands for.
    pub late: Vec<Option<(i64, StreamId)>>,
    /// Encoded structured metadata of each [slot](crate::parse::join::SLOTS).
    pub metadata: [Vec<u8>; 3],
}

impl Choice {
    /// The structured metadata of lines of a slot: lines not in the runtime's format have no `stream`.
    pub fn pairs(chosen: &Chosen, slot: u8) -> Vec<(&str, &str)> {
        let stream = match slot {
            0 if chosen.stream => Some(("stream", "stdout")),
            1 if chosen.stream => Some(("stream", "stderr")),
            _ => None,
        };
        chosen
            .metadata
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain(stream)
            .collect()
    }

    /// Every stream that is open for it.
    pub fn open(&self) -> impl Iterator<Item = StreamId> {
        let late = self.late.iter().flatten().map(|(_, stream)| *stream);
        self.streams.iter().copied().chain(late)
    }
}

/// Which of a cursor's choices, oldest first, holds for a line that begins at a position.
pub fn at(choices: &[Choice], position: Position) -> Option<usize> {
    let found = choices.iter().rposition(|choice| choice.from <= position);
    found.or_else(|| (!choices.is_empty()).then_some(0))
}

/// What a choice made now is known by: the rules' hash, and whether the pod's facts were there.
pub fn made_by(rules: &str, pod_known: bool) -> String {
    let mut made_by = rules.to_owned();
    if !pod_known {
        made_by.push(GUESSED);
    }
    made_by
}

/// Whether a choice holds for what is read now. One made with the pod's facts holds without them, such as after a
/// restart; one made without them holds until they are there.
pub fn holds(choice: &Choice, rules: &str, pod_known: bool) -> bool {
    match choice.rules.strip_suffix(GUESSED) {
        Some(guessed) => guessed == rules && !pod_known,
        None => choice.rules == rules,
    }
}

/// Hash of everything but the pod's facts that decides on labels.
pub fn rules_hash(rules: &LabelRules, facts: &ContainerFacts<'_>, limits: &Limits) -> String {
    let metadata = &limits.structured_metadata;
    let all = (
        rules,
        facts.namespace_labels,
        limits.max_label_names,
        limits.max_label_value_bytes,
        metadata,
    );
    content_hash(&serde_json::to_vec(&all).unwrap_or_default())
}
