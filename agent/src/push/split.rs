//! A compressed body in, smaller ones with the same entries out: each stream alone, or two halves.

use bytes::Bytes;

use crate::batch::encode::{varint, varint_len};

/// A request, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Push request, protobuf in snappy's block format.
    pub(super) body: Bytes,
    /// Streams in it.
    pub(super) streams: u32,
    /// Lines in it.
    pub(super) lines: u32,
}

/// One stream as it stands in a request.
#[derive(Debug)]
struct Stream<'a> {
    /// The labels field with its tag and length.
    labels: &'a [u8],
    /// Entry fields, each with its tag and length, all in one piece.
    entries: Vec<&'a [u8]>,
}

/// Each stream in a body of its own; `None` for a body that is not ours.
pub(super) fn apart(body: &[u8]) -> Option<Vec<Part>> {
    let raw = snap::raw::Decoder::new().decompress_vec(body).ok()?;
    let streams = read(&raw)?;
    streams.into_iter().map(|stream| write(&[stream])).collect()
}

/// Two halves, by streams or, for a lone one, by entries; `None` for a single line or a body that is not ours.
pub(super) fn halves(body: &[u8]) -> Option<[Part; 2]> {
    let raw = snap::raw::Decoder::new().decompress_vec(body).ok()?;
    let mut streams = read(&raw)?;
    if let [lone] = streams.as_mut_slice() {
        if lone.entries.len() < 2 {
            return None;
        }
        let second = lone.entries.split_off(lone.entries.len() / 2);
        let second = Stream {
            labels: lone.labels,
            entries: second,
        };
        return Some([write(&streams)?, write(&[second])?]);
    }
    if streams.len() < 2 {
        return None;
    }
    let second = streams.split_off(streams.len() / 2);
    Some([write(&streams)?, write(&second)?])
}

fn read(raw: &[u8]) -> Option<Vec<Stream<'_>>> {
    let mut streams = Vec::new();
    let mut rest = raw;
    while !rest.is_empty() {
        let (tag, field, following) = field(rest)?;
        if tag != 0x0a {
            return None;
        }
        let mut stream = Stream {
            labels: &[],
            entries: Vec::new(),
        };
        let mut inner = field.content;
        while !inner.is_empty() {
            let (tag, part, after) = self::field(inner)?;
            match tag {
                0x0a => stream.labels = part.whole,
                0x12 => stream.entries.push(part.whole),
                _ => return None,
            }
            inner = after;
        }
        streams.push(stream);
        rest = following;
    }
    Some(streams)
}

fn write(streams: &[Stream<'_>]) -> Option<Part> {
    let mut raw = Vec::new();
    let mut lines = 0;
    for stream in streams {
        let len = stream.labels.len() + stream.entries.iter().map(|entry| entry.len()).sum::<usize>();
        raw.reserve(1 + varint_len(len as u64) + len);
        raw.push(0x0a);
        varint(len as u64, &mut raw);
        raw.extend_from_slice(stream.labels);
        stream
            .entries
            .iter()
            .for_each(|entry| raw.extend_from_slice(entry));
        lines += stream.entries.len();
    }
    let body = snap::raw::Encoder::new().compress_vec(&raw).ok()?;
    let (streams, lines) = (u32::try_from(streams.len()).ok()?, u32::try_from(lines).ok()?);
    Some(Part {
        body: body.into(),
        streams,
        lines,
    })
}

/// A length-delimited field: with its tag and length, and without.
struct Field<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

fn field(bytes: &[u8]) -> Option<(u8, Field<'_>, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let mut len = 0_u64;
    let mut digits = 0;
    for byte in rest.iter().take(10) {
        len |= u64::from(byte & 0x7f).checked_shl(7 * digits)?;
        digits += 1;
        if byte & 0x80 == 0 {
            let begin = 1 + digits as usize;
            let end = begin.checked_add(usize::try_from(len).ok()?)?;
            let (whole, following) = bytes.split_at_checked(end)?;
            return Some((
                *tag,
                Field {
                    whole,
                    content: whole.get(begin..)?,
                },
                following,
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Streams of entries, each an arbitrary text in an entry field.
    fn body(streams: &[(String, Vec<Vec<u8>>)]) -> Vec<u8> {
        let mut raw = Vec::new();
        for (labels, entries) in streams {
            let mut stream = vec![0x0a];
            varint(labels.len() as u64, &mut stream);
            stream.extend_from_slice(labels.as_bytes());
            for entry in entries {
                stream.push(0x12);
                varint(entry.len() as u64, &mut stream);
                stream.extend_from_slice(entry);
            }
            raw.push(0x0a);
            varint(stream.len() as u64, &mut raw);
            raw.extend_from_slice(&stream);
        }
        snap::raw::Encoder::new().compress_vec(&raw).unwrap()
    }

    fn streams() -> impl Strategy<Value = Vec<(String, Vec<Vec<u8>>)>> {
        let entries = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20);
        proptest::collection::vec(("[a-z]{1,200}", entries), 1..8)
    }

    proptest! {
        #[test]
        fn apart_is_each_stream(streams in streams()) {
            let parts = apart(&body(&streams)).unwrap();
            prop_assert_eq!(parts.len(), streams.len());
            for (part, stream) in parts.iter().zip(&streams) {
                prop_assert_eq!(&part.body[..], &body(std::slice::from_ref(stream))[..]);
                prop_assert_eq!((part.streams, part.lines as usize), (1, stream.1.len()));
            }
        }

        #[test]
        fn halves_lead_to_single_lines_and_lose_none(streams in streams()) {
            let mut todo = vec![body(&streams)];
            let mut singles = Vec::new();
            while let Some(next) = todo.pop() {
                match halves(&next) {
                    Some([first, second]) => {
                        todo.push(second.body.to_vec());
                        todo.push(first.body.to_vec());
                    }
                    None => singles.push(next),
                }
            }
            let expected: Vec<Vec<u8>> = streams
                .iter()
                .flat_map(|(labels, entries)| entries.iter().map(|entry| body(&[(labels.clone(), vec![entry.clone()])])))
                .collect();
            prop_assert_eq!(singles, expected);
        }

        #[test]
        fn any_bytes_split_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let compressed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            let _either = (apart(&compressed), halves(&compressed), apart(&bytes));
        }
    }
}
