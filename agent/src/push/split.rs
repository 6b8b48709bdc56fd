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
    /// The place that its first stream has in the whole request.
    pub(super) first: u32,
}

impl Part {
    /// Bytes before compression: about what Loki counts.
    pub(super) fn bytes(&self) -> u64 {
        snap::raw::decompress_len(&self.body).unwrap_or_default() as u64
    }
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
pub(super) fn apart(part: &Part) -> Option<Vec<Part>> {
    let raw = snap::raw::Decoder::new().decompress_vec(&part.body).ok()?;
    let streams = read(&raw)?;
    let places = part.first..;
    let alone = streams.into_iter().zip(places);
    alone.map(|(stream, place)| write(&[stream], place)).collect()
}

/// Two halves, by streams or, for a lone one, by entries; `None` for a single line or a body that is not ours.
pub(super) fn halves(part: &Part) -> Option<[Part; 2]> {
    let raw = snap::raw::Decoder::new().decompress_vec(&part.body).ok()?;
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
        return Some([write(&streams, part.first)?, write(&[second], part.first)?]);
    }
    if streams.len() < 2 {
        return None;
    }
    let second = streams.split_off(streams.len() / 2);
    let place = part.first + u32::try_from(streams.len()).ok()?;
    Some([write(&streams, part.first)?, write(&second, place)?])
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

fn write(streams: &[Stream<'_>], first: u32) -> Option<Part> {
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
        first,
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
#[path = "../../tests/support/proto.rs"]
mod proto;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn request() -> impl Strategy<Value = proto::PushRequest> {
        let timestamp = (any::<i64>(), 0..1_000_000_000_i32)
            .prop_map(|(seconds, nanos)| proto::Timestamp { seconds, nanos });
        let pair = (".{0,9}", ".{0,200}").prop_map(|(name, value)| proto::Pair { name, value });
        let entry = (
            proptest::option::of(timestamp),
            ".{0,200}",
            proptest::collection::vec(pair, 0..3),
        )
            .prop_map(|(timestamp, line, metadata)| proto::Entry {
                timestamp,
                line,
                metadata,
            });
        let stream = (".{0,200}", proptest::collection::vec(entry, 1..6))
            .prop_map(|(labels, entries)| proto::Stream { labels, entries });
        proptest::collection::vec(stream, 1..5).prop_map(|streams| proto::PushRequest { streams })
    }

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

    fn whole(body: Vec<u8>) -> Part {
        Part {
            body: body.into(),
            streams: 0,
            lines: 0,
            first: 0,
        }
    }

    fn streams() -> impl Strategy<Value = Vec<(String, Vec<Vec<u8>>)>> {
        let entries = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20);
        proptest::collection::vec(("[a-z]{1,200}", entries), 1..8)
    }

    proptest! {
        #[test]
        fn apart_is_each_stream(streams in streams()) {
            let parts = apart(&whole(body(&streams))).unwrap();
            prop_assert_eq!(parts.len(), streams.len());
            for ((place, part), stream) in (0_u32..).zip(&parts).zip(&streams) {
                prop_assert_eq!(part.first, place);
                prop_assert_eq!(&part.body[..], &body(std::slice::from_ref(stream))[..]);
                prop_assert_eq!((part.streams, part.lines as usize), (1, stream.1.len()));
            }
        }

        #[test]
        fn halves_lead_to_single_lines_and_lose_none(streams in streams()) {
            let mut todo = vec![whole(body(&streams))];
            let mut singles = Vec::new();
            while let Some(next) = todo.pop() {
                match halves(&next) {
                    Some([first, second]) => {
                        todo.push(second);
                        todo.push(first);
                    }
                    None => singles.push((next.first, next.body.to_vec())),
                }
            }
            let expected: Vec<(u32, Vec<u8>)> = (0..)
                .zip(&streams)
                .flat_map(|(place, (labels, entries))| {
                    entries.iter().map(move |entry| (place, body(&[(labels.clone(), vec![entry.clone()])])))
                })
                .collect();
            prop_assert_eq!(singles, expected);
        }

        /// Beside prost, so that the two readings of a request are not one.
        #[test]
        fn parts_are_what_prost_reads(request in request()) {
            let body = whole(snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap());
            let parts = apart(&body).unwrap();
            let streams: Vec<proto::Stream> = parts.iter().flat_map(|part| proto::decode(&part.body).streams).collect();
            prop_assert_eq!(&streams, &request.streams);
            let Some(halves) = halves(&body) else {
                prop_assert_eq!(request.lines(), 1);
                return Ok(());
            };
            let [first, second] = halves.map(|half| {
                let read = proto::decode(&half.body);
                assert_eq!((read.streams.len(), read.lines()), (half.streams as usize, half.lines as usize));
                read.streams
            });
            if let [lone] = request.streams.as_slice() {
                prop_assert_eq!((&first[0].labels, &second[0].labels), (&lone.labels, &lone.labels));
                let entries = [&first[0].entries[..], &second[0].entries[..]].concat();
                prop_assert_eq!(&entries, &lone.entries);
            } else {
                prop_assert_eq!([first, second].concat(), request.streams);
            }
        }

        #[test]
        fn any_bytes_split_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let compressed = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
            let compressed = whole(compressed);
            let _either = (apart(&compressed), halves(&compressed), apart(&whole(bytes)));
        }
    }
}
