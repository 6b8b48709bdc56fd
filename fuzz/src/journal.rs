//! Bytes in: a journal of any bytes is read or refused; one of any records reads back; damage costs only what it hit.

use arbitrary::{Result, Unstructured};
use sluice_agent::checkpoint::ledger::Ledger;
use sluice_agent::checkpoint::record::{
    self, Count, End, Flush, HEADER, Identity, LabelChoice, Output, Record, StreamBound, Watermark,
};
use sluice_agent::tail::chain::Place;
use sluice_agent::tail::fingerprint::Fingerprint;
use sluice_agent::tail::position::{CursorId, Resume};
use sluice_engine::cri::Timestamp;
use sluice_engine::report::{Gap, GapCause};

pub(crate) fn check(data: &[u8]) {
    any_bytes(data);
    any_bytes(&[&HEADER, data].concat());
    any_bodies(data);
    // An input that is too short for its records ends them.
    let _short = any_records(&mut Unstructured::new(data));
}

fn read(bytes: &[u8]) -> (Vec<Record>, End) {
    let mut records = Vec::new();
    let end = record::decode(bytes, |record| records.push(record));
    (records, end)
}

fn write(records: &[Record]) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for record in records {
        record.encode(&mut bytes);
    }
    bytes
}

/// Whatever is read can be written, and reads back; so does what it amounts to.
fn any_bytes(bytes: &[u8]) {
    let (records, _) = read(bytes);
    assert_eq!(read(&write(&records)), (records, End::Clean));
    let (ledger, _) = Ledger::decode(bytes);
    let (mut again, end) = Ledger::decode(&ledger.encode());
    assert_eq!(end, End::Clean);
    again.next = ledger.next;
    assert_eq!(again, ledger);
}

/// Bodies that no record of ours has, with a right checksum: libFuzzer does not guess one.
fn any_bodies(data: &[u8]) {
    let mut bytes = HEADER.to_vec();
    let mut rest = data;
    while let [len, after @ ..] = rest {
        let (body, after) = after.split_at(usize::from(*len).min(after.len()));
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(crc32fast::hash(body).to_le_bytes());
        bytes.extend(body);
        rest = after;
    }
    any_bytes(&bytes);
}

fn any_records(from: &mut Unstructured<'_>) -> Result<()> {
    let (cut, at, bit) = (
        from.arbitrary::<u16>()?,
        from.arbitrary::<u16>()?,
        from.int_in_range(0..=7)?,
    );
    let mut records = Vec::new();
    while !from.is_empty() {
        records.push(record(from)?);
    }
    let whole = write(&records);
    assert_eq!(read(&whole), (records.clone(), End::Clean));
    // Cut off: the records before the cut are there.
    let cut = usize::from(cut) % (whole.len() + 1);
    let (found, end) = read(&whole[..cut]);
    assert!(records.starts_with(&found) && end != End::Corrupt);
    assert_eq!(write(&found).len() == cut, end == End::Clean);
    // Changed: never believed.
    let mut damaged = whole;
    let at = usize::from(at) % damaged.len();
    damaged[at] ^= 1 << bit;
    let (found, end) = read(&damaged);
    assert!(records.starts_with(&found));
    assert_ne!(end, End::Clean);
    Ok(())
}

fn record(from: &mut Unstructured<'_>) -> Result<Record> {
    let id = CursorId(u32::from(from.arbitrary::<u8>()? % 4));
    Ok(match from.int_in_range(1..=15)? {
        1 => Record::Defined(
            id,
            Identity {
                folder: from.arbitrary()?,
                container: from.arbitrary()?,
                pipeline: from.arbitrary()?,
                tenant: from.arbitrary()?,
            },
        ),
        2 => {
            let there: bool = from.arbitrary()?;
            let from_place = if there { Some(place(from)?) } else { None };
            let choice = LabelChoice {
                from: from_place,
                rules: from.arbitrary()?,
                chosen: from.arbitrary()?,
            };
            Record::Chosen(id, choice)
        }
        3 => {
            let (there, resumes): (bool, bool) = from.arbitrary()?;
            let (before, place) = (place(from)?.print, place(from)?);
            let previous = if there { Some(timestamp(from)?) } else { None };
            let resume = if resumes { Some(resume(from)?) } else { None };
            Record::Acknowledged(
                id,
                Watermark {
                    place,
                    before,
                    previous,
                    resume,
                },
            )
        }
        4 => Record::Flushed(
            id,
            Flush {
                place: place(from)?,
                slot: from.arbitrary()?,
            },
        ),
        5 => Record::Dropped(id),
        6 => Record::Pruned(id, from.arbitrary()?, from.arbitrary()?),
        7 => Record::Epoch(from.arbitrary()?),
        8 => Record::Counted(output(from)?, count(from)?),
        9 => Record::Gap(output(from)?, gap(from)?),
        10 => Record::Behind(id, from.arbitrary()?),
        11 => {
            let there: bool = from.arbitrary()?;
            Record::UnderWay(id, if there { Some(timestamp(from)?) } else { None })
        }
        12 => Record::Uncounted(from.arbitrary()?),
        13 => Record::Bound(StreamBound {
            tenant: from.arbitrary()?,
            labels: from.arbitrary()?,
            seconds: from.arbitrary()?,
        }),
        14 => {
            let files = (0..from.int_in_range(0..=3)?).map(|_| place(from));
            Record::Left(id, files.collect::<Result<_>>()?)
        }
        _ => Record::PipelineSeen(from.arbitrary()?),
    })
}

fn output(from: &mut Unstructured<'_>) -> Result<Output> {
    Ok(Output {
        pipeline: from.arbitrary()?,
        tenant: from.arbitrary()?,
    })
}

fn count(from: &mut Unstructured<'_>) -> Result<Count> {
    let reason = from.arbitrary()?;
    Ok(match from.int_in_range(0..=2)? {
        0 => Count::Rejected {
            reason,
            lines: from.arbitrary()?,
        },
        1 => Count::Lost {
            reason,
            lines: from.arbitrary()?,
            bytes: from.arbitrary()?,
        },
        _ => Count::Gaps(from.arbitrary()?),
    })
}

fn gap(from: &mut Unstructured<'_>) -> Result<Gap> {
    Ok(Gap {
        namespace: from.arbitrary()?,
        pod: from.arbitrary()?,
        container: from.arbitrary()?,
        cause: *from.choose(&GapCause::ALL)?,
        after: from.arbitrary()?,
        before: from.arbitrary()?,
        noticed: from.arbitrary()?,
    })
}

fn resume(from: &mut Unstructured<'_>) -> Result<Resume> {
    Ok(Resume {
        slot: from.arbitrary()?,
        part: from.arbitrary()?,
        timestamp: timestamp(from)?,
    })
}

fn timestamp(from: &mut Unstructured<'_>) -> Result<Timestamp> {
    Ok(Timestamp {
        seconds: from.arbitrary()?,
        nanos: from.arbitrary()?,
    })
}

fn place(from: &mut Unstructured<'_>) -> Result<Place> {
    Ok(Place {
        restart: from.arbitrary()?,
        print: Fingerprint {
            hash: from.arbitrary()?,
            len: from.arbitrary()?,
        },
        offset: from.arbitrary()?,
    })
}
