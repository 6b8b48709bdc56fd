//! Labels and lines in, an uncompressed push request out, written by hand into one buffer.

use sluice_engine::cri::Timestamp;

/// Bytes that an entry may take beside its line and metadata.
const ENTRY_ROOM: usize = 48;
/// Bytes that a stream may take beside its labels and entries.
const STREAM_ROOM: usize = 16;

/// A timestamp whose seconds are encoded once and serve all lines of that second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `seconds` with its tag; zeros follow.
    seconds: [u8; 11],
    /// Bytes of it in use.
    used: usize,
    nanos: u32,
}

impl Stamp {
    /// Encodes a timestamp's seconds.
    pub fn new(timestamp: Timestamp) -> Self {
        let mut head = Head::default();
        if timestamp.seconds != 0 {
            head.byte(0x08);
            head.varint(timestamp.seconds.cast_unsigned());
        }
        let mut seconds = [0; 11];
        seconds.copy_from_slice(head.bytes.split_at(11).0);
        Self {
            seconds,
            used: head.used,
            nanos: timestamp.nanos,
        }
    }

    /// Another moment of the same second.
    #[must_use]
    pub fn with_nanos(self, nanos: u32) -> Self {
        Self { nanos, ..self }
    }
}

/// A push request that grows to a limit.
#[derive(Debug)]
pub struct Request {
    bytes: Vec<u8>,
    limit: usize,
    /// Where the open stream's length stands.
    stream: Option<usize>,
}

impl Request {
    /// An empty request of at most `limit` bytes, below 256 MiB.
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(limit),
            limit,
            stream: None,
        }
    }

    /// Begins a stream; the one before it ends. `false`: it has no room here.
    #[must_use]
    pub fn begin_stream(&mut self, labels: &str) -> bool {
        self.end_stream();
        if self.bytes.len() + STREAM_ROOM + labels.len() > self.limit {
            return false;
        }
        self.bytes.push(0x0a);
        self.stream = Some(self.bytes.len());
        // The length is known at the end: four bytes are kept for it, a longer varint than need be.
        self.bytes.extend_from_slice(&[0; 4]);
        let mut head = Head::default();
        head.byte(0x0a);
        head.varint(labels.len() as u64);
        self.bytes.extend_from_slice(head.written());
        self.bytes.extend_from_slice(labels.as_bytes());
        true
    }

    /// Adds a line to the open stream. `false`: it has no room here.
    #[must_use]
    pub fn push(&mut self, stamp: &Stamp, line: &[u8], metadata: &[u8]) -> bool {
        if self.bytes.len() + ENTRY_ROOM + line.len() + metadata.len() > self.limit {
            return false;
        }
        let mut head = Head::default();
        let stamp_len = stamp.used
            + if stamp.nanos == 0 {
                0
            } else {
                1 + varint_len(stamp.nanos.into())
            };
        let line_len = if line.is_empty() {
            0
        } else {
            1 + varint_len(line.len() as u64) + line.len()
        };
        head.byte(0x12);
        head.varint((2 + stamp_len + line_len + metadata.len()) as u64);
        head.byte(0x0a);
        head.varint(stamp_len as u64);
        head.copy(&stamp.seconds, stamp.used);
        if stamp.nanos != 0 {
            head.byte(0x10);
            head.varint(stamp.nanos.into());
        }
        if !line.is_empty() {
            head.byte(0x12);
            head.varint(line.len() as u64);
        }
        self.bytes.extend_from_slice(head.written());
        self.bytes.extend_from_slice(line);
        self.bytes.extend_from_slice(metadata);
        true
    }

    /// The finished request; empty when nothing was added.
    pub fn finish(&mut self) -> &[u8] {
        self.end_stream();
        &self.bytes
    }

    /// Begins anew in the same memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.stream = None;
    }

    fn end_stream(&mut self) {
        let Some(at) = self.stream.take() else { return };
        let length = self.bytes.len() - at - 4;
        if let Some(place) = self.bytes.get_mut(at..at + 4) {
            for (index, byte) in place.iter_mut().enumerate() {
                let more = if index < 3 { 0x80 } else { 0 };
                *byte = (length >> (7 * index)).to_le_bytes()[0] & 0x7f | more;
            }
        }
    }
}

/// Structured metadata of an entry, encoded once and copied behind every line.
pub fn metadata(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        let mut fields = Vec::new();
        for (tag, text) in [(0x0a, name), (0x12, value)] {
            let mut head = Head::default();
            head.byte(tag);
            head.varint(text.len() as u64);
            fields.extend_from_slice(head.written());
            fields.extend_from_slice(text.as_bytes());
        }
        let mut head = Head::default();
        head.byte(0x1a);
        head.varint(fields.len() as u64);
        out.extend_from_slice(head.written());
        out.extend_from_slice(&fields);
    }
    out
}

/// The bytes before a line, gathered on the stack and copied at once.
#[derive(Default)]
struct Head {
    bytes: [u8; 32],
    used: usize,
}

#[allow(
    clippy::indexing_slicing,
    reason = "an entry's head takes 31 bytes at most: two tags and lengths, the stamp's 1+1+11+6"
)]
impl Head {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.used] = byte;
        self.used += 1;
    }

    #[inline]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0]);
    }

    /// Copies all of `bytes`, of which `used` count: a copy of fixed length is one instruction.
    #[inline]
    fn copy(&mut self, bytes: &[u8; 11], used: usize) {
        self.bytes[self.used..self.used + 11].copy_from_slice(bytes);
        self.used += used;
    }

    #[inline]
    fn written(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::count::{PushRequest, pair};

    #[test]
    fn prost_reads_what_was_written_by_hand() {
        let long = vec![b'x'; 70_000];
        let pairs = [("pod", "web-0"), ("stream", "stdout")];
        let mut request = Request::new(1 << 20);
        assert!(request.begin_stream(r#"{app="a"}"#));
        for (seconds, nanos, line) in [
            (0, 0, &b""[..]),
            (1, 127, b"a"),
            (1_800_000_000, 999_999_999, b"0123456789"),
            (253_402_300_799, 128, &long),
        ] {
            let stamp = Stamp::new(Timestamp { seconds, nanos });
            assert!(request.push(&stamp, line, &metadata(&pairs)));
        }
        assert!(request.begin_stream(r#"{app="b"}"#));
        let read = PushRequest::decode(request.finish()).unwrap();
        assert_eq!(read.streams.len(), 2);
        assert_eq!(read.streams[0].labels, r#"{app="a"}"#);
        let entries = &read.streams[0].entries;
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[3].line, long);
        let last = entries[3].timestamp.as_ref().unwrap();
        assert_eq!((last.seconds, last.nanos), (253_402_300_799, 128));
        assert_eq!(
            entries[0].metadata,
            [pair("pod", "web-0"), pair("stream", "stdout")]
        );
        assert_eq!(read.streams[1].labels, r#"{app="b"}"#);
    }

    #[test]
    fn it_never_grows_past_its_limit() {
        let stamp = Stamp::new(Timestamp { seconds: 1, nanos: 1 });
        let mut request = Request::new(1000);
        assert!(request.begin_stream("{}"));
        while request.push(&stamp, b"0123456789", &[]) {}
        assert!(request.finish().len() <= 1000);
        assert!(!request.begin_stream(&"x".repeat(1000)));
        request.clear();
        assert!(request.finish().is_empty());
    }
}
