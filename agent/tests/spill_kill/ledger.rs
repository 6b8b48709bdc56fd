//! Requests in; what of the containers' lines came, how often, in which order and how alike out.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::time::Instant;

use super::double::Asked;

/// A line that came, and a digest of what Loki tells entries apart by: labels, timestamp, metadata, text.
#[derive(Clone, Copy, Default)]
struct Line {
    times: u32,
    digest: u64,
}

/// The lines of one container, by their numbers.
#[derive(Default)]
struct Arrived {
    lines: Vec<Line>,
    /// The newest that came, and of which process, in whatever order.
    newest: u64,
    of_life: BTreeMap<String, u64>,
}

/// Everything that came.
#[derive(Default)]
pub(super) struct Ledger {
    containers: BTreeMap<String, Arrived>,
    pub(super) stored: Option<Instant>,
    pub(super) duplicated: u64,
    /// What came after a newer line of its container, though nobody had sent it before, or from the same process.
    pub(super) reordered: Vec<String>,
    /// What came again as something else.
    pub(super) unlike: Vec<String>,
    /// What is no line as containers write them.
    pub(super) odd: Vec<String>,
}

impl Ledger {
    pub(super) fn store(&mut self, asked: &Asked) {
        self.stored = Some(Instant::now());
        let life = &asked.headers["x-life"];
        for stream in &asked.request.streams {
            for entry in &stream.entries {
                let mut words = entry.line.splitn(3, ' ');
                let (name, number) = (words.next().unwrap_or_default(), words.next());
                let time = entry.timestamp.clone().unwrap_or_default();
                let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
                    let odd = format!("{} of process {life} in {}: {time:?}", entry.line, stream.labels);
                    self.odd.push(odd);
                    continue;
                };
                let mut hasher = DefaultHasher::new();
                (&stream.labels, time.seconds, time.nanos, &entry.line).hash(&mut hasher);
                for pair in &entry.metadata {
                    (&pair.name, &pair.value).hash(&mut hasher);
                }
                let digest = hasher.finish();

                if !self.containers.contains_key(name) {
                    self.containers.insert(name.to_owned(), Arrived::default());
                }
                let Some(arrived) = self.containers.get_mut(name) else {
                    continue;
                };
                let at = usize::try_from(number).unwrap();
                if arrived.lines.len() <= at {
                    arrived.lines.resize(at + 1, Line::default());
                }
                let known = &mut arrived.lines[at];
                let is_first = known.times == 0;
                if is_first {
                    known.digest = digest;
                } else {
                    self.duplicated += 1;
                    if known.digest != digest {
                        self.unlike.push(format!("{} {entry:?}", stream.labels));
                    }
                }
                known.times += 1;
                let before = arrived.of_life.entry(life.clone()).or_default();
                if number <= *before || (is_first && number < arrived.newest) {
                    self.reordered.push(format!(
                        "{name} {number} of process {life}, after {before} of the same and {} of all, in {}",
                        arrived.newest, stream.labels
                    ));
                }
                *before = number.max(*before);
                arrived.newest = arrived.newest.max(number);
            }
        }
    }

    /// Which of a container's lines did not come.
    pub(super) fn missing(&self, name: &str, numbers: RangeInclusive<u64>) -> Vec<u64> {
        let arrived = self.containers.get(name);
        let is_there = |number: &u64| {
            let at = usize::try_from(*number).unwrap();
            arrived.is_some_and(|arrived| arrived.lines.get(at).is_some_and(|line| line.times > 0))
        };
        numbers.filter(|number| !is_there(number)).collect()
    }

    /// Lines that came with numbers that nobody wrote.
    pub(super) fn never_written(&self, written: &BTreeMap<String, u64>) -> Vec<String> {
        let beyond = self.containers.iter().flat_map(|(name, arrived)| {
            let last = usize::try_from(written.get(name).copied().unwrap_or(0)).unwrap();
            let others = arrived.lines.iter().enumerate();
            let others = others.filter(move |(at, line)| line.times > 0 && (*at == 0 || *at > last));
            others.map(move |(at, _)| format!("{name} {at} of {last}"))
        });
        beyond.chain(self.odd.iter().cloned()).collect()
    }
}
