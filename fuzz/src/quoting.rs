//! Label values in: quoted they are one token of Loki's label parser, and an unquoting of our own reads them back; what
//! is chosen from them keeps to the tenant's limits.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use sluice_engine::document::{Limits, StructuredMetadata};
use sluice_engine::labels::{Chosen, ContainerFacts, FromPodLabel, LabelRules, Profile, choose};
use sluice_engine::loki;

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut quoted = String::new();
    loki::quote(&text, &mut quoted);
    assert_eq!(unquote(&quoted), Some((text.into_owned(), "")));
    // An input that is too short is no case.
    let _short = any_labels(&mut Unstructured::new(data));
}

/// Reads what stands in double quotes as Go's `strconv.Unquote` does, with the escapes that it knows, and what is behind
/// it; `None` where it or Prometheus' lexer would stop.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut bytes = Vec::new();
    let mut rest = quoted.strip_prefix('"')?;
    loop {
        let character = rest.chars().next()?;
        rest = &rest[character.len_utf8()..];
        match character {
            '"' => return Some((String::from_utf8(bytes).ok()?, rest)),
            '\n' | char::REPLACEMENT_CHARACTER => return None,
            '\\' => {
                let escape = rest.chars().next()?;
                rest = &rest[escape.len_utf8()..];
                let simple = "abfnrtv\\\""
                    .find(escape)
                    .map(|at| b"\x07\x08\x0c\n\r\t\x0b\\\""[at]);
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    _ => 0,
                };
                if let Some(byte) = simple {
                    bytes.push(byte);
                } else if digits > 0 {
                    let value = u32::from_str_radix(rest.get(..digits)?, 16).ok()?;
                    rest = &rest[digits..];
                    if escape == 'x' {
                        bytes.push(u8::try_from(value).ok()?);
                    } else {
                        bytes.extend(char::from_u32(value)?.to_string().bytes());
                    }
                } else {
                    return None;
                }
            }
            other => bytes.extend(other.to_string().bytes()),
        }
    }
}

/// Reads `{a="b", c="d"}`.
fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.strip_prefix('{')?;
    loop {
        let (name, after) = rest.split_once('=')?;
        assert!(
            loki::is_label_name(name) || loki::RESERVED_LABELS.contains(&name),
            "{name:?}"
        );
        let (value, after) = unquote(after)?;
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        if after == "}" {
            return Some(labels);
        }
        rest = after.strip_prefix(", ")?;
    }
}

fn name(from: &mut Unstructured<'_>) -> Result<String> {
    let known = from.choose(&["app", "team", "stream", "cluster", "job", "x"])?;
    Ok((*known).to_owned())
}

fn any_labels(from: &mut Unstructured<'_>) -> Result<()> {
    let limits = Limits {
        max_label_names: from.int_in_range(6..=12)?,
        max_label_value_bytes: from.int_in_range(253..=300)?,
        structured_metadata: StructuredMetadata {
            allowed: from.arbitrary()?,
            max_bytes: from.int_in_range(0..=400)?,
            max_count: from.int_in_range(0..=6)?,
        },
        ..Limits::default()
    };
    let mut rules = LabelRules {
        profile: if from.arbitrary()? {
            Profile::Promtail
        } else {
            Profile::Minimal
        },
        ..LabelRules::default()
    };
    let mut pod_labels = BTreeMap::new();
    for _ in 0..from.int_in_range(0..=6)? {
        match from.int_in_range(0..=2)? {
            0 => drop(rules.fixed.insert(name(from)?, from.arbitrary()?)),
            1 => {
                let key = format!("key-{}", pod_labels.len());
                pod_labels.insert(key.clone(), from.arbitrary()?);
                rules.from_pod_labels.push(FromPodLabel {
                    label: name(from)?,
                    pod_label: key,
                });
            }
            _ => rules.drop.push(name(from)?),
        }
    }
    let facts = ContainerFacts {
        namespace: "team-a",
        namespace_labels: &BTreeMap::new(),
        pod: "web-0",
        pod_labels: &pod_labels,
        controller: None,
        container: "main",
        node: "node1",
    };
    let chosen = choose(&rules, &facts, &limits);
    let labels = parse(&chosen.labels).unwrap_or_else(|| panic!("{} cannot be read", chosen.labels));
    // `late` and `part` join them where a stream needs them.
    assert!(labels.len() + 2 <= limits.max_label_names as usize);
    assert!(
        labels
            .values()
            .all(|value| (1..=limits.max_label_value_bytes as usize).contains(&value.len()))
    );
    assert_eq!(
        (labels["namespace"].as_str(), labels["node_name"].as_str()),
        ("team-a", "node1")
    );
    judge_metadata(&chosen, &labels, &limits.structured_metadata);
    // What the rules gave is somewhere, or named as left out.
    for (name, value) in rules.fixed.iter().filter(|(_, value)| !value.is_empty()) {
        let there = labels.contains_key(name) || chosen.metadata.iter().any(|(known, _)| known == name);
        assert!(
            there || chosen.curtailed.left_out.contains(name),
            "{name}={value}: {chosen:?}"
        );
    }
    Ok(())
}

/// No name twice among the structured metadata, and no more of it than the tenant takes.
fn judge_metadata(chosen: &Chosen, labels: &BTreeMap<String, String>, room: &StructuredMetadata) {
    let mut metadata = chosen.metadata.clone();
    if chosen.stream {
        metadata.push(("stream".to_owned(), "stdout".to_owned()));
    }
    let bytes: usize = metadata
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(metadata.is_empty() || room.allowed && bytes <= room.max_bytes as usize);
    assert!(metadata.len() <= room.max_count as usize);
    let names: BTreeMap<&str, &str> = metadata.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(names.len(), metadata.len(), "{metadata:?}");
    assert!(
        names
            .keys()
            .all(|name| !labels.contains_key(*name) || *name == "stream"),
        "{chosen:?}"
    );
}
