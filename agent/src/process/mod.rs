//! Lines and the labels chosen for their container in, entries out.
//!
//! Labels are chosen once, journaled before the first line is sent, and replayed: a pod that is relabelled
//! later, or not known after a restart, changes nothing for lines that were read.

pub mod select;

use sluice_engine::document::{Limits, content_hash};
use sluice_engine::labels::{Chosen, ContainerFacts, LabelRules};

use crate::batch::StreamId;
use crate::tail::position::Position;

/// Labels in use from some position on.
#[derive(Debug)]
pub struct Choice {
    /// The first line concerned.
    pub from: Position,
    /// Hash of the rules that it was made by.
    pub rules: String,
    /// The labels.
    pub chosen: Chosen,
    /// The stream they name.
    pub stream: StreamId,
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
}

/// The choice for a line that begins at a position, among those of a cursor, oldest first.
pub fn at(choices: &[Choice], position: Position) -> Option<&Choice> {
    choices
        .iter()
        .rev()
        .find(|choice| choice.from <= position)
        .or_else(|| choices.first())
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
