//! Bodies of push requests in, counts of their lines out: which numbers came, which came twice, and how late.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use memchr::memmem::Finder;
use prost::Message;

use crate::delay::Delays;
use crate::shape::{DIGITS, MARK};

/// Loki's `PushRequest` as far as it concerns a client.
#[derive(Clone, PartialEq, Message)]
pub struct PushRequest {
    /// Streams.
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<Stream>,
}

/// Loki's `StreamAdapter`.
#[derive(Clone, PartialEq, Message)]
pub struct Stream {
    /// Labels.
    #[prost(string, tag = "1")]
    pub labels: String,
    /// Entries.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
}

/// Loki's `EntryAdapter`.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// When.
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    /// What.
    #[prost(bytes = "vec", tag = "2")]
    pub line: Vec<u8>,
    /// Structured metadata.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Pair>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    /// Seconds since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// Loki's `LabelPairAdapter`.
#[derive(Clone, PartialEq, Message)]
pub struct Pair {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A pair of these texts.
pub fn pair(name: &str, value: &str) -> Pair {
    Pair {
        name: name.into(),
        value: value.into(),
    }
}

/// What has come so far; displayed as lines of `name value`.
#[derive(Debug, Default)]
pub struct Counts {
    /// Uncompressed bytes.
    pub raw_bytes: u64,
    /// Lines.
    pub lines: u64,
    /// Lines that came before.
    pub duplicated: u64,
    /// Lines without a number.
    pub unnumbered: u64,
    /// Pairs of structured metadata.
    pub metadata: u64,
    streams: BTreeSet<String>,
    delays: Delays,
    /// One bit for each number.
    seen: Vec<u64>,
}

impl Counts {
    /// Counts the lines of one compressed body that came at this time, since 1970.
    ///
    /// # Errors
    /// When it is no push request in snappy's block format.
    pub fn add(&mut self, body: &[u8], now: Duration) -> Result<(), Box<dyn std::error::Error>> {
        let raw = snap::raw::Decoder::new().decompress_vec(body)?;
        self.raw_bytes += raw.len() as u64;
        let finder = Finder::new(MARK);
        for stream in PushRequest::decode(raw.as_slice())?.streams {
            for entry in &stream.entries {
                self.lines += 1;
                self.metadata += entry.metadata.len() as u64;
                if let Some(written) = entry.timestamp.as_ref().and_then(since_1970) {
                    self.delays.add(now.saturating_sub(written));
                }
                match number(&finder, &entry.line) {
                    Some(number) => self.see(number),
                    None => self.unnumbered += 1,
                }
            }
            self.streams.insert(stream.labels);
        }
        Ok(())
    }

    /// Numbers that came at least once.
    pub fn distinct(&self) -> u64 {
        self.seen.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    fn see(&mut self, number: usize) {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if let Some(seen) = self.seen.get_mut(word) {
            self.duplicated += u64::from(*seen & bit != 0);
            *seen |= bit;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "raw_bytes {}", self.raw_bytes)?;
        writeln!(f, "lines {}", self.lines)?;
        writeln!(f, "distinct {}", self.distinct())?;
        writeln!(f, "duplicated {}", self.duplicated)?;
        writeln!(f, "unnumbered {}", self.unnumbered)?;
        writeln!(f, "streams {}", self.streams.len())?;
        for percent in [50, 99] {
            let delay = self.delays.percentile(percent).unwrap_or_default();
            writeln!(f, "delay_p{percent}_ms {}", delay.as_millis())?;
        }
        writeln!(f, "metadata {}", self.metadata)
    }
}

/// When a line was written; its timestamp is that of its `write`.
fn since_1970(timestamp: &Timestamp) -> Option<Duration> {
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    Some(Duration::new(u64::try_from(timestamp.seconds).ok()?, nanos))
}

/// A line's number; ten thousand million lines are more than any run has.
fn number(finder: &Finder<'_>, line: &[u8]) -> Option<usize> {
    let at = finder.find(line)? + MARK.len();
    let number = std::str::from_utf8(line.get(at..at + DIGITS)?)
        .ok()?
        .parse()
        .ok()?;
    (number < 10_000_000_000).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_their_numbers() {
        let entry = |line: &str| Entry {
            timestamp: None,
            line: line.into(),
            metadata: vec![pair("pod", "p")],
        };
        let request = PushRequest {
            streams: vec![Stream {
                labels: "{}".into(),
                entries: [
                    "seq=000000000000 a",
                    "b seq=000000000064",
                    "seq=000000000064",
                    "none",
                    "seq=1",
                ]
                .map(entry)
                .into(),
            }],
        };
        let body = snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap();
        let mut counts = Counts::default();
        counts.add(&body, Duration::from_secs(9)).unwrap();
        assert_eq!(counts.lines, 5);
        assert_eq!(counts.distinct(), 2);
        assert_eq!(counts.duplicated, 1);
        assert_eq!(counts.unnumbered, 2);
        assert_eq!(counts.metadata, 5);
        assert!(counts.add(b"x", Duration::ZERO).is_err());
    }
}
