//! Lines read back from Loki in; whether every numbered one is there once and in order out.

use std::collections::{BTreeMap, BTreeSet};

use crate::figures::show;
use crate::loki::Line;

/// A node's clock may go back by less than this many nanoseconds, and once did by 0.8 ms for 26 lines. The runtime's
/// timestamps go back with it, and Loki shows a stream's lines in the order of those.
const CLOCK_STEP: i64 = 10_000_000;
/// The label that Loki gives the parts of a stream that it sharded.
pub const SHARD: &str = "__stream_shard__";

/// The number of a line such as `writer n=17 xxxx`; nothing where it has none.
pub fn number(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("n=")?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .map_or(rest, |end| rest.split_at(end).0);
    digits.parse().ok()
}

/// What became of one writer's lines.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many it wrote, numbered from 1 on.
    pub count: u64,
    /// Numbers that are not there.
    pub missing: Vec<u64>,
    /// Numbers that are there more than once.
    pub double: Vec<u64>,
    /// How many of these have a shard of their stream for each copy: Loki does not see that they are the same
    /// (docs/adr/0023).
    pub apart: usize,
    /// Numbers that it never wrote.
    pub strange: Vec<u64>,
    /// Lines that stand behind later ones of their stream. Loki returns a stream by its timestamps, in whatever order it
    /// came: whether that was in order is judged where it arrives, at the agent's doubles.
    pub disorder: Vec<String>,
    /// The same where they have other timestamps, since the node's clock went back a little.
    pub stepped: Vec<String>,
}

/// Counts the lines whose text begins with `writer`, which wrote those numbered 1 to `count`.
pub fn tally(lines: &[Line], writer: &str, count: u64) -> Tally {
    let mut shards: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    let mut last: BTreeMap<&BTreeMap<String, String>, (u64, i64)> = BTreeMap::new();
    let (mut disorder, mut stepped) = (Vec::new(), Vec::new());
    for line in lines
        .iter()
        .filter(|line| line.text.split(' ').next() == Some(writer))
    {
        let number =
            number(&line.text).unwrap_or_else(|| panic!("a line of {writer} has no number: {:?}", line.text));
        shards.entry(number).or_default().push(line.label(SHARD));
        if let Some((before, then)) = last.insert(&line.labels, (number, line.nanoseconds))
            && before >= number
        {
            let apart = line.nanoseconds - then;
            let is_step = before > number && (1..CLOCK_STEP).contains(&apart);
            let out = if is_step { &mut stepped } else { &mut disorder };
            out.push(format!("{number} after {before}, {apart} ns later"));
        }
    }
    let double: Vec<_> = shards.iter().filter(|(_, copies)| copies.len() > 1).collect();
    let differ = |copies: &[&str]| copies.iter().collect::<BTreeSet<_>>().len() == copies.len();
    Tally {
        count,
        missing: (1..=count)
            .filter(|number| !shards.contains_key(number))
            .collect(),
        double: double.iter().map(|(number, _)| **number).collect(),
        apart: double.iter().filter(|(_, copies)| differ(copies)).count(),
        strange: shards
            .keys()
            .copied()
            .filter(|number| !(1..=count).contains(number))
            .collect(),
        disorder,
        stepped,
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "of {} lines {} are missing ({}), {} are double ({}; {} in another shard), {} were never written ({}), {} are out of order ({})",
            self.count,
            self.missing.len(),
            ranges(&self.missing),
            self.double.len(),
            ranges(&self.double),
            self.apart,
            self.strange.len(),
            ranges(&self.strange),
            self.disorder.len(),
            self.disorder
                .iter()
                .take(5)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        )?;
        match self.stepped.first() {
            Some(first) => write!(
                f,
                "; the node's clock went back: {} lines, {first}",
                self.stepped.len()
            ),
            None => Ok(()),
        }
    }
}

/// Fails unless the lines whose text begins with `writer` are exactly those numbered 1 to `count`, each once and
/// within each stream in order, as far as the node's clock was.
pub fn assert_exact(lines: &[Line], writer: &str, count: u64) {
    judge(&tally(lines, writer, count), writer, 0);
}

/// The same after a fault in which lines had to be sent again: they may be there twice where Loki sharded their stream.
pub fn assert_complete(lines: &[Line], writer: &str, count: u64) {
    let found = tally(lines, writer, count);
    judge(&found, writer, found.apart);
}

fn judge(found: &Tally, writer: &str, double: usize) {
    assert!(
        found.missing.is_empty()
            && found.double.len() == double
            && found.strange.is_empty()
            && found.disorder.is_empty(),
        "{writer}: {found}"
    );
    if !found.stepped.is_empty() || double > 0 {
        show(&format!("{writer}: {found}"));
    }
}

/// Ascending numbers as a few ranges.
fn ranges(numbers: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == number => *end = number,
            _ => ranges.push((number, number)),
        }
    }
    let mut shown: Vec<String> = ranges
        .iter()
        .take(8)
        .map(|(start, end)| format!("{start}-{end}"))
        .collect();
    if ranges.len() > shown.len() {
        shown.push(format!("and {} ranges more", ranges.len() - shown.len()));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn line(text: &str, nanoseconds: i64) -> Line {
        Line {
            labels: Arc::default(),
            nanoseconds,
            text: text.to_owned(),
        }
    }

    #[test]
    fn numbers_are_read_from_lines() {
        assert_eq!(number("w n=12 x"), Some(12));
        assert_eq!(number("w n=12"), Some(12));
        assert_eq!(number("w"), None);
    }

    #[test]
    fn a_complete_tally_passes() {
        assert_exact(
            &[line("w n=1", 1), line("other n=9", 1), line("w n=2", 2)],
            "w",
            2,
        );
    }

    #[test]
    #[should_panic(
        expected = "1 are missing (2-2), 1 are double (1-1; 0 in another shard), 0 were never written (), 1 are out of order (1 after 1, 1 ns later)"
    )]
    fn every_fault_is_named() {
        assert_exact(&[line("w n=1", 1), line("w n=1", 2)], "w", 2);
    }

    #[test]
    fn copies_in_different_shards_are_told_from_others() {
        let in_shard = |shard: &str| Line {
            labels: Arc::new(BTreeMap::from([(SHARD.to_owned(), shard.to_owned())])),
            ..line("w n=1", 1)
        };
        let apart = |lines: &[Line]| tally(lines, "w", 1).apart;
        assert_eq!(apart(&[in_shard("0"), in_shard("1"), line("w n=1", 1)]), 1);
        assert_eq!(apart(&[in_shard("0"), in_shard("1"), in_shard("1")]), 0);
        assert_eq!(apart(&[in_shard("0")]), 0);
    }

    #[test]
    fn a_clock_that_goes_back_a_little_is_no_disorder() {
        let behind = |nanoseconds| tally(&[line("w n=2", 7), line("w n=1", 7 + nanoseconds)], "w", 2);
        for (apart, disorder) in [(0, 1), (1, 0), (CLOCK_STEP - 1, 0), (CLOCK_STEP, 1)] {
            let found = behind(apart);
            assert_eq!(
                (found.disorder.len(), found.stepped.len()),
                (disorder, 1 - disorder),
                "{found}"
            );
        }
    }
}
