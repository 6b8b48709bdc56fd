//! Records in, a spilled copy's bytes out, and back: a length, a CRC32, a type and a body, little-endian.
//!
//! A copy is a [`MAGIC`], a [`Head`] that says whose bytes these are, and pieces that each say which range of the
//! file they are. The last record says that there are no more.

use crate::checkpoint::record::Output;

/// What a copy begins with: its name and its version.
pub const MAGIC: [u8; 12] = *b"SLUICESP\x01\0\0\0";
/// Bytes before a record's body: its length and its CRC32.
pub const FRAME: usize = 8;
/// Bytes of a file in one piece, at most.
pub const PIECE: usize = 64 << 10;
/// No record is longer; a longer length is damage.
pub const MAX_RECORD: usize = 1 << 20;
/// Bytes of a piece's body before its content.
pub const PIECE_HEAD: usize = 13;

const HEAD: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;

/// Whose bytes a copy holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Name of the pod's folder.
    pub folder: String,
    /// Name of the container.
    pub container: String,
    /// The container's restart count.
    pub restart: u32,
    /// Offset of the copy's first byte in the file.
    pub base: u64,
    /// When the file was written last, in seconds since 1970.
    pub modified: Option<i64>,
    /// The file's first bytes, by which it is known.
    pub begin: Vec<u8>,
    /// Who had not got all of it acknowledged.
    pub outputs: Vec<Output>,
    /// First bytes of the file that follows, if one did: whether it is still there tells whether anything between
    /// vanished.
    pub next: Vec<u8>,
}

/// Which bytes of the file a piece holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Offset of the first.
    pub offset: u64,
    /// How many, at most [`PIECE`].
    pub len: u32,
}

/// A record's length and CRC32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the body.
    pub len: usize,
    /// Of the body.
    pub crc: u32,
}

impl Frame {
    /// Reads a frame; `None` where no record has this length.
    pub fn decode(bytes: [u8; FRAME]) -> Option<Self> {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len) as usize;
        let crc = u32::from_le_bytes(*rest.first_chunk()?);
        (1..=MAX_RECORD).contains(&len).then_some(Self { len, crc })
    }

    /// Whether this is the body.
    pub fn fits(self, body: &[u8]) -> bool {
        body.len() == self.len && crc32fast::hash(body) == self.crc
    }
}

impl Head {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        framed(out, |out| {
            out.push(HEAD);
            bytes(out, self.folder.as_bytes());
            bytes(out, self.container.as_bytes());
            out.extend_from_slice(&self.restart.to_le_bytes());
            out.extend_from_slice(&self.base.to_le_bytes());
            out.push(u8::from(self.modified.is_some()));
            out.extend_from_slice(&self.modified.unwrap_or(0).to_le_bytes());
            bytes(out, &self.begin);
            out.extend_from_slice(
                &u32::try_from(self.outputs.len())
                    .unwrap_or(u32::MAX)
                    .to_le_bytes(),
            );
            for output in &self.outputs {
                bytes(out, output.pipeline.as_bytes());
                bytes(out, output.tenant.as_bytes());
            }
            bytes(out, &self.next);
        });
    }

    /// Reads a body; `None` when it is no head's.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut from = Reader(body);
        if from.take::<1>()? != [HEAD] {
            return None;
        }
        let mut head = Self {
            folder: from.text()?,
            container: from.text()?,
            restart: from.take().map(u32::from_le_bytes)?,
            base: from.take().map(u64::from_le_bytes)?,
            ..Self::default()
        };
        let there = from.take::<1>()? != [0];
        let modified = from.take().map(i64::from_le_bytes)?;
        head.modified = there.then_some(modified);
        head.begin = from.bytes()?.to_vec();
        for _ in 0..from.take().map(u32::from_le_bytes)? {
            head.outputs.push(Output {
                pipeline: from.text()?,
                tenant: from.text()?,
            });
        }
        head.next = from.bytes()?.to_vec();
        Some(head)
    }
}

/// Appends a piece of the file, at most [`PIECE`] bytes of it, compressed.
pub fn encode_piece(offset: u64, data: &[u8], compressed: &[u8], out: &mut Vec<u8>) {
    framed(out, |out| {
        out.push(DATA);
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(compressed);
    });
}

/// Appends the last record.
pub fn encode_end(out: &mut Vec<u8>) {
    framed(out, |out| out.push(END));
}

/// Whether a body is the last record's.
pub fn is_end(body: &[u8]) -> bool {
    body == [END]
}

/// The range that a piece's body begins with; `None` when it is no piece's.
pub fn range(body: &[u8]) -> Option<Range> {
    let mut from = Reader(body);
    if from.take::<1>()? != [DATA] {
        return None;
    }
    let range = Range {
        offset: from.take().map(u64::from_le_bytes)?,
        len: from.take().map(u32::from_le_bytes)?,
    };
    (range.len as usize <= PIECE && range.offset.checked_add(range.len.into()).is_some()).then_some(range)
}

/// The file's bytes that a piece's body holds; `None` when they are not what it says.
pub fn decode_piece(body: &[u8]) -> Option<(Range, Vec<u8>)> {
    let range = range(body)?;
    let compressed = body.get(PIECE_HEAD..)?;
    // Asked before anything is allocated: the length within is as good as the disk.
    if snap::raw::decompress_len(compressed).ok()? != range.len as usize {
        return None;
    }
    let data = snap::raw::Decoder::new().decompress_vec(compressed).ok()?;
    (data.len() == range.len as usize).then_some((range, data))
}

fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&[0; FRAME]);
    body(out);
    let body = out.get(begin + FRAME..).unwrap_or_default();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    let crc = crc32fast::hash(body).to_le_bytes();
    if let Some(frame) = out.get_mut(begin..begin + FRAME) {
        let (to_len, to_crc) = frame.split_at_mut(4);
        to_len.copy_from_slice(&len);
        to_crc.copy_from_slice(&crc);
    }
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(value);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.take().map(u32::from_le_bytes)? as usize;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> impl Strategy<Value = Head> {
        let output = ("[a-z]{0,9}", "[a-z]{0,9}").prop_map(|(pipeline, tenant)| Output { pipeline, tenant });
        let begin = proptest::collection::vec(any::<u8>(), 0..1024);
        let outputs = proptest::collection::vec(output, 0..4);
        let modified = proptest::option::of(any::<i64>());
        (
            "[a-zé]{0,9}",
            "[a-z]{0,9}",
            any::<u32>(),
            any::<u64>(),
            modified,
            begin,
            outputs,
            proptest::collection::vec(any::<u8>(), 0..64),
        )
            .prop_map(
                |(folder, container, restart, base, modified, begin, outputs, next)| Head {
                    folder,
                    container,
                    restart,
                    base,
                    modified,
                    begin,
                    outputs,
                    next,
                },
            )
    }

    fn body(record: &[u8]) -> &[u8] {
        let frame = Frame::decode(record[..FRAME].try_into().unwrap()).unwrap();
        assert!(frame.fits(&record[FRAME..]));
        &record[FRAME..]
    }

    proptest! {
        #[test]
        fn heads_read_back(head in head()) {
            let mut out = Vec::new();
            head.encode(&mut out);
            prop_assert_eq!(Head::decode(body(&out)), Some(head));
        }

        #[test]
        fn pieces_read_back(offset in 0..u64::MAX / 2, data in proptest::collection::vec(any::<u8>(), 1..3000)) {
            let compressed = snap::raw::Encoder::new().compress_vec(&data).unwrap();
            let mut out = Vec::new();
            encode_piece(offset, &data, &compressed, &mut out);
            let range = Range { offset, len: u32::try_from(data.len()).unwrap() };
            prop_assert_eq!(range_of(&out), Some(range));
            prop_assert_eq!(decode_piece(body(&out)), Some((range, data)));
        }

        #[test]
        fn any_bytes_decode(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut tagged = bytes.clone();
            for kind in [HEAD, DATA] {
                if let Some(first) = tagged.first_mut() {
                    *first = kind;
                }
                let _either = (Head::decode(&tagged), decode_piece(&tagged));
            }
            let _either = (Head::decode(&bytes), decode_piece(&bytes));
        }
    }

    fn range_of(record: &[u8]) -> Option<Range> {
        range(body(record))
    }
}
