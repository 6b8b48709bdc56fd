//! An entry's parts in, Loki's protobuf (`push.proto`) of it out, written by hand for the hot path.
//!
//! ```text
//! request  0a len stream
//! stream   0a len labels, then 12 len entry for each
//! entry    0a len { 08 seconds, 10 nanos }, 12 len line, then metadata: 1a len { 0a len name, 12 len value }
//! ```
//! Fields that are zero are left out (proto3).
#![expect(
    clippy::inline_always,
    reason = "a head's words that went through memory cost more than they take to be made"
)]

use sluice_engine::cri::Timestamp;

/// Bytes that [`Head::write`] needs at most: 41 for tags, lengths and the timestamp, and what is written in whole
/// words beyond those and cut off again.
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

/// What stands before an entry's line: kept as fields until it is written, since bytes that were just written in parts cannot
/// be read as a whole without a wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    entry: Field,
    time: Field,
    seconds: Field,
    nanos: Field,
    line: Field,
}

impl Head {
    /// The head of an entry with a line and metadata of these lengths.
    #[inline]
    pub(super) fn new(timestamp: Timestamp, line: usize, metadata: usize) -> Self {
        // Negative seconds are the 10-byte varint of their two's complement.
        let seconds = Field::new(0x08, timestamp.seconds.cast_unsigned());
        let nanos = Field::new(0x10, timestamp.nanos.into());
        // A timestamp is shorter than 128 bytes, so its length is one byte.
        let of_time = seconds.len + nanos.len;
        let time = Field {
            word: 0x0a | (of_time as u64) << 8,
            len: 2,
            more: 0,
        };
        let line_field = Field::new(0x12, line as u64);
        let entry = 2 + of_time + line_field.len + line + metadata;
        Self {
            entry: Field::new(0x12, entry as u64),
            time,
            seconds,
            nanos,
            line: line_field,
        }
    }

    /// Bytes of it.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.entry.len + self.time.len + self.seconds.len + self.nanos.len + self.line.len
    }

    /// Appends it.
    #[inline(always)]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut at = out.len();
        out.extend_from_slice(&[0; HEAD]);
        self.entry.put(out, &mut at);
        self.time.put(out, &mut at);
        self.seconds.put(out, &mut at);
        self.nanos.put(out, &mut at);
        self.line.put(out, &mut at);
        out.truncate(at);
    }
}

/// A tag and a varint, the first byte lowest; nothing for zero.
#[derive(Clone, Copy, Debug)]
struct Field {
    word: u64,
    /// What a value of 50 bits and more needs beyond one word.
    more: u64,
    len: usize,
}

impl Field {
    /// As one word: single bytes cost the hot path more than the line's copy.
    #[inline]
    fn new(tag: u8, value: u64) -> Self {
        if value.wrapping_sub(1 << 7) < (1 << 14) - (1 << 7) {
            // Lengths, nearly always.
            let word = value & 0x7f | 0x80 | value >> 7 << 8;
            return Self {
                word: u64::from(tag) | word << 8,
                more: 0,
                len: 3,
            };
        }
        if value >= 1 << 49 {
            return Self::long(tag, value);
        }
        let digits = varint_len(value);
        // Seven bits to a byte, by halves: 28 of 32, 14 of 16, 7 of 8.
        let word = value & 0x0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
        let word = word & 0x0000_3fff_0000_3fff | (word & 0x0fff_c000_0fff_c000) << 2;
        let word = word & 0x007f_007f_007f_007f | (word & 0x3f80_3f80_3f80_3f80) << 1;
        // Every byte but the last says that more follow.
        let word = word | 0x0080_8080_8080_8080 & ((1 << (8 * (digits - 1))) - 1);
        Self {
            word: u64::from(tag) | word << 8,
            more: 0,
            len: if value == 0 { 0 } else { 1 + digits },
        }
    }

    /// Writes it, in one or two whole words.
    #[inline(always)]
    fn put(&self, out: &mut [u8], at: &mut usize) {
        if let Some(place) = out.get_mut(*at..*at + 8) {
            place.copy_from_slice(&self.word.to_le_bytes());
        }
        if self.more > 0
            && let Some(place) = out.get_mut(*at + 8..*at + 16)
        {
            place.copy_from_slice(&self.more.to_le_bytes());
        }
        *at += self.len;
    }

    #[cold]
    fn long(tag: u8, value: u64) -> Self {
        let mut bytes = vec![tag];
        varint(value, &mut bytes);
        let len = bytes.len();
        bytes.resize(16, 0);
        let (word, more) = bytes
            .first_chunk()
            .zip(bytes.last_chunk())
            .map_or((0, 0), |(word, more)| {
                (u64::from_le_bytes(*word), u64::from_le_bytes(*more))
            });
        Self { word, more, len }
    }
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
