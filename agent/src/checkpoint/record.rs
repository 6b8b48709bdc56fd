//! Records in, the journal's bytes out, and back: a length, a CRC32, a type and a body, little-endian.

use sluice_engine::cri::Timestamp;
use sluice_engine::report::Gap;

use super::fields::{
    Reader, counted, gap, identified, label_choice, long, number, optional, output, place, stream_bound,
    text, watermark,
};
use crate::tail::chain::Place;
use crate::tail::fingerprint::Fingerprint;
use crate::tail::position::{CursorId, Resume};

/// What a journal begins with: its name and its version.
pub const HEADER: [u8; 12] = *b"SLUICEJL\x01\0\0\0";
/// No record is longer; a longer length is damage.
const MAX_RECORD: usize = 1 << 20;

/// Whose positions these are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Name of the pod's folder.
    pub folder: String,
    /// Name of the container.
    pub container: String,
    /// UID of the pipeline object.
    pub pipeline: String,
    /// The tenant, `namespace/name`.
    pub tenant: String,
}

/// The labels that a container's lines get from some place on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChoice {
    /// The first line concerned; `None` where the container began.
    pub from: Option<Place>,
    /// Hash of the rules that it was made by.
    pub rules: String,
    /// [`sluice_engine::labels::Chosen`] as JSON.
    pub chosen: String,
}

/// Up to where everything is acknowledged, see [`crate::tail::position::Mark`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Where reading begins again.
    pub place: Place,
    /// The file that was read before that one, see [`crate::tail::chain::Chain::before`].
    pub before: Fingerprint,
    /// The timestamp that a malformed line there would get.
    pub previous: Option<Timestamp>,
    /// The rest of a line that begins there.
    pub resume: Option<Resume>,
}

/// A line that a clock ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The end of its last piece.
    pub place: Place,
    /// Which of the open lines.
    pub slot: u8,
}

/// What a pipeline sends to a tenant: whose counts these are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    /// UID of the pipeline object.
    pub pipeline: String,
    /// The tenant, `namespace/name`.
    pub tenant: String,
}

/// What is counted across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Count {
    /// Lines that Loki refused for good.
    Rejected {
        /// Loki's reason.
        reason: String,
        /// How many.
        lines: u64,
    },
    /// Lines that were read and given up.
    Lost {
        /// Why.
        reason: String,
        /// How many.
        lines: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Gaps that are not told one by one any more.
    Gaps(u64),
}

/// How new a stream's lines are that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamBound {
    /// The tenant, `namespace/name`.
    pub tenant: String,
    /// The stream's labels.
    pub labels: String,
    /// All are older than this, in seconds since 1970; `None` when nobody needs to know any more.
    pub seconds: Option<i64>,
}

/// One fact of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A cursor's number stands for this from now on.
    Defined(CursorId, Identity),
    /// Labels were chosen.
    Chosen(CursorId, LabelChoice),
    /// The acknowledged prefix grew.
    Acknowledged(CursorId, Watermark),
    /// How far the files are read that are older than the acknowledged prefix's end, see
    /// [`crate::tail::chain::Chain::left_below`]: all that are there, so that what is not among them was never read.
    Left(CursorId, Vec<Place>),
    /// A clock ended an unfinished line.
    Flushed(CursorId, Flush),
    /// So many of the oldest choices and flushes lie behind the watermark.
    Pruned(CursorId, u32, u32),
    /// The cursor is no more.
    Dropped(CursorId),
    /// A pipeline of this UID was seen: containers that appear later are new to it.
    PipelineSeen(String),
    /// Which counters these are; chosen when the journal is made.
    Epoch(u64),
    /// So many more.
    Counted(Output, Count),
    /// Lines vanished unread.
    Gap(Output, Gap),
    /// Whether lines of the container were known to wait for their delivery.
    Behind(CursorId, bool),
    /// A file of the cursor's container was given up while lines of it were under way, the last of them at this
    /// time; without it: they are acknowledged.
    UnderWay(CursorId, Option<Timestamp>),
    /// The pipeline of this UID is no more: its counts are forgotten.
    Uncounted(String),
    /// Lines up to this time are about to be sent.
    Bound(StreamBound),
}

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&[0; 8]);
        match self {
            Self::Defined(id, identity) => {
                out.push(1);
                number(out, id.0);
                identified(out, identity);
            }
            Self::Chosen(id, choice) => {
                out.push(2);
                number(out, id.0);
                label_choice(out, choice);
            }
            Self::Acknowledged(id, mark) => {
                out.push(3);
                number(out, id.0);
                watermark(out, mark);
            }
            Self::Left(id, files) => {
                out.push(15);
                number(out, id.0);
                for file in files {
                    place(out, file);
                }
            }
            Self::Flushed(id, flush) => {
                out.push(4);
                number(out, id.0);
                place(out, &flush.place);
                out.push(flush.slot);
            }
            Self::Dropped(id) => {
                out.push(5);
                number(out, id.0);
            }
            Self::Pruned(id, choices, flushes) => {
                out.push(6);
                number(out, id.0);
                number(out, *choices);
                number(out, *flushes);
            }
            Self::PipelineSeen(uid) => {
                out.push(7);
                text(out, uid);
            }
            Self::Epoch(epoch) => {
                out.push(9);
                long(out, *epoch);
            }
            Self::Counted(of, count) => {
                out.push(10);
                output(out, of);
                counted(out, count);
            }
            Self::Gap(of, found) => {
                out.push(11);
                gap(out, of, found);
            }
            Self::Behind(id, behind) => {
                out.push(12);
                number(out, id.0);
                out.push(u8::from(*behind));
            }
            Self::UnderWay(id, last) => {
                out.push(14);
                number(out, id.0);
                optional(out, *last);
            }
            Self::Uncounted(uid) => {
                out.push(13);
                text(out, uid);
            }
            Self::Bound(bound) => {
                out.push(8);
                stream_bound(out, bound);
            }
        }
        frame(out, begin);
    }

    /// Reads a body; `None` when it is not what its type says.
    fn decode(body: &[u8]) -> Option<Known> {
        let mut from = Reader(body);
        let kind = from.byte()?;
        let id = |from: &mut Reader<'_>| from.number().map(CursorId);
        Some(Known::Record(match kind {
            1 => Self::Defined(
                id(&mut from)?,
                Identity {
                    folder: from.text()?,
                    container: from.text()?,
                    pipeline: from.text()?,
                    tenant: from.text()?,
                },
            ),
            2 => {
                let id = id(&mut from)?;
                let (there, place) = (from.byte()? != 0, from.place()?);
                let choice = LabelChoice {
                    from: there.then_some(place),
                    rules: from.text()?,
                    chosen: from.text()?,
                };
                Self::Chosen(id, choice)
            }
            3 => {
                let id = id(&mut from)?;
                let place = from.place()?;
                let (there, previous) = (from.byte()? != 0, from.timestamp()?);
                let resumes = from.byte()? != 0;
                let resume = Resume {
                    slot: from.byte()?,
                    part: from.number()?,
                    timestamp: from.timestamp()?,
                };
                let mark = Watermark {
                    place,
                    // Journals of earlier builds end here.
                    before: from.fingerprint().unwrap_or_default(),
                    previous: there.then_some(previous),
                    resume: resumes.then_some(resume),
                };
                Self::Acknowledged(id, mark)
            }
            4 => Self::Flushed(
                id(&mut from)?,
                Flush {
                    place: from.place()?,
                    slot: from.byte()?,
                },
            ),
            5 => Self::Dropped(id(&mut from)?),
            6 => Self::Pruned(id(&mut from)?, from.number()?, from.number()?),
            7 => Self::PipelineSeen(from.text()?),
            9 => Self::Epoch(from.long()?),
            10 => {
                let of = from.output()?;
                Self::Counted(of, from.counted()?)
            }
            11 => {
                let of = from.output()?;
                let gap = from.gap()?;
                return Some(gap.map_or(Known::Unknown, |gap| Known::Record(Self::Gap(of, gap))));
            }
            12 => Self::Behind(id(&mut from)?, from.byte()? != 0),
            13 => Self::Uncounted(from.text()?),
            14 => {
                let id = id(&mut from)?;
                let (there, last) = (from.byte()? != 0, from.timestamp()?);
                Self::UnderWay(id, there.then_some(last))
            }
            15 => Self::Left(id(&mut from)?, from.places()?),
            8 => Self::Bound(from.stream_bound()?),
            // Of a later version.
            _ => return Some(Known::Unknown),
        }))
    }
}

/// Puts its body's length and CRC before a record that begins there.
fn frame(out: &mut [u8], begin: usize) {
    let body = out.get(begin + 8..).unwrap_or_default();
    let (len, crc) = (
        u32::try_from(body.len()).unwrap_or(u32::MAX),
        crc32fast::hash(body),
    );
    if let Some(head) = out.get_mut(begin..begin + 8) {
        let (to_len, to_crc) = head.split_at_mut(4);
        to_len.copy_from_slice(&len.to_le_bytes());
        to_crc.copy_from_slice(&crc.to_le_bytes());
    }
}

/// A whole record.
enum Known {
    Record(Record),
    /// Of a type that a later version added.
    Unknown,
}

/// How a journal's bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After a whole record.
    Clean,
    /// Within the last record, as a crash leaves it.
    Torn,
    /// The bytes were changed: what follows cannot be trusted.
    Corrupt,
}

/// Reads a journal's records up to where they end.
pub fn decode(bytes: &[u8], mut each: impl FnMut(Record)) -> End {
    let Some(mut rest) = bytes.strip_prefix(&HEADER) else {
        return if HEADER.starts_with(bytes) {
            End::Torn
        } else {
            End::Corrupt
        };
    };
    loop {
        if rest.is_empty() {
            return End::Clean;
        }
        // A crash can leave the file's length ahead of its content.
        if rest.iter().all(|byte| *byte == 0) {
            return End::Torn;
        }
        let Some((len, after)) = rest.split_first_chunk::<4>() else {
            return End::Torn;
        };
        let Some((crc, after)) = after.split_first_chunk::<4>() else {
            return End::Torn;
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_RECORD {
            return End::Corrupt;
        }
        let Some((body, after)) = after.split_at_checked(len) else {
            return End::Torn;
        };
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            let nothing_follows = after.iter().all(|byte| *byte == 0);
            return if nothing_follows { End::Torn } else { End::Corrupt };
        }
        match Record::decode(body) {
            Some(Known::Record(record)) => each(record),
            Some(Known::Unknown) => {}
            None => return End::Corrupt,
        }
        rest = after;
    }
}
