//! An entry's parts in, Loki's protobuf (`push.proto`) of it out, written by hand for the hot path.
//!
//! ```text
//! request  0a len stream
//! stream   0a len labels, then 12 len entry for each
//! entry    0a len { 08 seconds, 10 nanos }, 12 len line, then metadata: 1a len { 0a len name, 12 len value }
//! ```
//! Fields that are zero are left out (proto3).

use sluice_engine::cri::Timestamp;

/// Bytes that [`Head::write`] needs at most: tags and lengths of 11 and 2, 11 and 6 for the timestamp, 11 for the
/// line, and what is written beyond the end and cut off again.
pub(super) const HEAD: usize = 48;

/// Structured metadata as an entry carries it; made once per container.
pub fn metadata(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        let len = text_len(name) + text_len(value);
        out.push(0x1a);
        varint(len as u64, &mut out);
        text(0x0a, name, &mut out);
        text(0x12, value, &mut out);
    }
    out
}

/// What stands before an entry's line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    seconds: u64,
    nanos: u64,
    time: usize,
    line: usize,
    entry: usize,
}

impl Head {
    /// The head of an entry with a line and metadata of these lengths.
    pub(super) fn new(timestamp: Timestamp, line: usize, metadata: usize) -> Self {
        // Negative seconds are the 10-byte varint of their two's complement.
        let seconds = timestamp.seconds.cast_unsigned();
        let nanos = u64::from(timestamp.nanos);
        let of = |value: u64| if value == 0 { 0 } else { 1 + varint_len(value) };
        let time = of(seconds) + of(nanos);
        let line_field = if line == 0 {
            0
        } else {
            1 + varint_len(line as u64) + line
        };
        Self {
            seconds,
            nanos,
            time,
            line,
            // A timestamp is shorter than 128 bytes, so its length is one byte.
            entry: 2 + time + line_field + metadata,
        }
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        let line = if self.line == 0 {
            0
        } else {
            1 + varint_len(self.line as u64)
        };
        1 + varint_len(self.entry as u64) + 2 + self.time + line
    }

    /// Appends it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        field(0x12, self.entry as u64, out);
        field(0x0a, self.time as u64, out);
        if self.seconds != 0 {
            field(0x08, self.seconds, out);
        }
        if self.nanos != 0 {
            field(0x10, self.nanos, out);
        }
        if self.line != 0 {
            field(0x12, self.line as u64, out);
        }
    }
}

/// Appends a tag and a varint: as one word where it fits, since single bytes cost the hot path more than the
/// line's copy.
fn field(tag: u8, value: u64, out: &mut Vec<u8>) {
    if value >= 1 << 49 {
        out.push(tag);
        varint(value, out);
        return;
    }
    let (mut word, mut rest, mut bits) = (u64::from(tag), value, 8);
    while rest >= 0x80 {
        word |= (rest & 0x7f | 0x80) << bits;
        rest >>= 7;
        bits += 8;
    }
    word |= rest << bits;
    let end = out.len() + bits / 8 + 1;
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

/// What stands before a stream's entries, and how long the stream is with it.
pub(super) fn stream_head(labels: &str, entries: usize, out: &mut Vec<u8>) {
    out.clear();
    out.push(0x0a);
    varint((text_len(labels) + entries) as u64, out);
    text(0x0a, labels, out);
}

/// Bytes of a stream in a request.
pub(super) fn stream_len(labels: &str, entries: usize) -> usize {
    let inner = text_len(labels) + entries;
    1 + varint_len(inner as u64) + inner
}

/// Bytes of a varint.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a varint.
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

fn low_bits(value: u64) -> u8 {
    (value & 0x7f) as u8
}

fn text_len(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        1 + varint_len(text.len() as u64) + text.len()
    }
}

fn text(tag: u8, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        out.push(tag);
        varint(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Stream {
        #[prost(string, tag = "1")]
        labels: String,
        #[prost(message, repeated, tag = "2")]
        entries: Vec<EntryAdapter>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct EntryAdapter {
        #[prost(message, optional, tag = "1")]
        timestamp: Option<Time>,
        #[prost(bytes = "vec", tag = "2")]
        line: Vec<u8>,
        #[prost(message, repeated, tag = "3")]
        metadata: Vec<Pair>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Time {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Pair {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(message, repeated, tag = "1")]
        streams: Vec<Stream>,
    }

    proptest! {
        #[test]
        fn a_stream_is_what_prost_writes(
            labels in ".{0,200}",
            entries in proptest::collection::vec(
                (any::<i64>(), 0_u32..1_000_000_000, proptest::collection::vec(any::<u8>(), 0..300),
                 proptest::collection::vec((".{0,20}", ".{0,200}"), 0..4)),
                0..20),
        ) {
            let mut chain = Vec::new();
            for (seconds, nanos, line, pairs) in &entries {
                let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                let encoded = metadata(&pairs);
                let time = Timestamp { seconds: *seconds, nanos: *nanos };
                let head = Head::new(time, line.len(), encoded.len());
                let before = chain.len();
                head.write(&mut chain);
                prop_assert_eq!(chain.len() - before, head.len());
                chain.extend_from_slice(line);
                chain.extend_from_slice(&encoded);
            }
            let mut ours = Vec::new();
            stream_head(&labels, chain.len(), &mut ours);
            ours.extend_from_slice(&chain);
            prop_assert_eq!(ours.len(), stream_len(&labels, chain.len()));
            let theirs = Request { streams: vec![Stream {
                labels,
                entries: entries.into_iter().map(|(seconds, nanos, line, pairs)| EntryAdapter {
                    timestamp: Some(Time { seconds, nanos: i32::try_from(nanos).unwrap() }),
                    line,
                    metadata: pairs.into_iter().map(|(name, value)| Pair { name, value }).collect(),
                }).collect(),
            }] };
            prop_assert_eq!(ours, theirs.encode_to_vec());
        }

        #[test]
        fn varints_have_the_length_that_is_said(value: u64) {
            let mut out = Vec::new();
            varint(value, &mut out);
            prop_assert_eq!(out.len(), varint_len(value));
        }
    }
}
