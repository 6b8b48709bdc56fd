//! A journal's records in, what they amount to out: pure, so that any bytes can be tried on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sluice_engine::cri::Timestamp;
use sluice_engine::key::Key;
use sluice_engine::report::{GAPS, Gap};

use super::record::{
    self, Count, End, Flush, HEADER, Identity, LabelChoice, Output, Record, StreamBound, Watermark,
};
use crate::tail::chain::Place;
use crate::tail::position::CursorId;

/// What the journal says of one cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub identity: Identity,
    /// Labels, oldest first.
    pub choices: Vec<LabelChoice>,
    /// The acknowledged prefix; `None` before the first acknowledgement.
    pub watermark: Option<Watermark>,
    /// How far older files are read; `None` in journals of earlier builds.
    pub left: Option<Vec<Place>>,
    /// Lines that a clock ended, oldest first.
    pub flushes: Vec<Flush>,
    /// Lines of the container were known to wait for their delivery.
    pub behind: bool,
    /// The last line that was under way when its file was given up, until it is acknowledged.
    pub under_way: Option<Timestamp>,
}

/// What is counted of one output across restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that Loki refused for good, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Lines that were read and given up, and their bytes, by reason.
    pub lost: BTreeMap<String, (u64, u64)>,
    /// How often lines vanished unread.
    pub gap_count: u64,
    /// The newest of these, oldest first, at most [`GAPS`].
    pub gaps: VecDeque<Gap>,
}

/// What all records amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By number.
    pub cursors: BTreeMap<CursorId, Entry>,
    /// UIDs of pipelines that were seen.
    pub pipelines: BTreeSet<String>,
    /// Which counters these are; 0 before they were begun.
    pub epoch: u64,
    /// By output.
    pub counts: BTreeMap<Output, Counts>,
    /// How new the lines of streams are that were sent, by tenant and labels: all are older than this.
    pub bounds: BTreeMap<String, BTreeMap<String, i64>>,
    /// The next cursor's number.
    pub next: u32,
}

impl Ledger {
    /// Reads a journal, as far as it can be trusted.
    pub fn decode(bytes: &[u8]) -> (Self, End) {
        let mut ledger = Self::default();
        let end = record::decode(bytes, |record| ledger.apply(&record));
        (ledger, end)
    }

    /// Takes a record in. Records of a cursor that is not defined are ignored.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Defined(id, identity) => {
                self.next = self.next.max(id.0.saturating_add(1));
                let entry = Entry {
                    identity: identity.clone(),
                    choices: Vec::new(),
                    watermark: None,
                    left: None,
                    flushes: Vec::new(),
                    behind: false,
                    under_way: None,
                };
                self.cursors.insert(*id, entry);
            }
            Record::Chosen(id, choice) => self.change(*id, |entry| entry.choices.push(choice.clone())),
            Record::Acknowledged(id, mark) => {
                self.change(*id, |entry| entry.watermark = Some(mark.clone()));
            }
            Record::Left(id, files) => self.change(*id, |entry| entry.left = Some(files.clone())),
            Record::Flushed(id, flush) => self.change(*id, |entry| entry.flushes.push(flush.clone())),
            Record::Pruned(id, choices, flushes) => self.change(*id, |entry| {
                let (choices, flushes) = (*choices as usize, *flushes as usize);
                entry.choices.drain(..choices.min(entry.choices.len()));
                entry.flushes.drain(..flushes.min(entry.flushes.len()));
            }),
            Record::Dropped(id) => {
                self.cursors.remove(id);
            }
            Record::PipelineSeen(uid) => {
                self.pipelines.insert(uid.clone());
            }
            Record::Epoch(epoch) => self.epoch = *epoch,
            Record::Counted(output, count) => self.counts.entry(output.clone()).or_default().add(count),
            Record::Gap(output, gap) => {
                let counts = self.counts.entry(output.clone()).or_default();
                counts.gap_count = counts.gap_count.saturating_add(1);
                counts.gaps.push_back(gap.clone());
                if counts.gaps.len() > GAPS {
                    counts.gaps.pop_front();
                }
            }
            Record::Behind(id, behind) => self.change(*id, |entry| entry.behind = *behind),
            Record::UnderWay(id, last) => self.change(*id, |entry| entry.under_way = *last),
            Record::Uncounted(uid) => self.counts.retain(|output, _| output.pipeline != *uid),
            Record::Bound(bound) => {
                let of_tenant = self.bounds.entry(bound.tenant.clone()).or_default();
                match bound.seconds {
                    Some(seconds) => {
                        of_tenant.insert(bound.labels.clone(), seconds);
                    }
                    None => {
                        of_tenant.remove(&bound.labels);
                    }
                }
                if of_tenant.is_empty() {
                    self.bounds.remove(&bound.tenant);
                }
            }
        }
    }

    fn change(&mut self, id: CursorId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.cursors.get_mut(&id) {
            change(entry);
        }
    }

    /// The shortest journal that amounts to this.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = HEADER.to_vec();
        if self.epoch != 0 {
            Record::Epoch(self.epoch).encode(&mut out);
        }
        for (output, counts) in &self.counts {
            counts.encode(output, &mut out);
        }
        for uid in &self.pipelines {
            Record::PipelineSeen(uid.clone()).encode(&mut out);
        }
        for (tenant, streams) in &self.bounds {
            for (labels, seconds) in streams {
                let bound = StreamBound {
                    tenant: tenant.clone(),
                    labels: labels.clone(),
                    seconds: Some(*seconds),
                };
                Record::Bound(bound).encode(&mut out);
            }
        }
        for (id, entry) in &self.cursors {
            Record::Defined(*id, entry.identity.clone()).encode(&mut out);
            for choice in &entry.choices {
                Record::Chosen(*id, choice.clone()).encode(&mut out);
            }
            if let Some(files) = &entry.left {
                Record::Left(*id, files.clone()).encode(&mut out);
            }
            if let Some(mark) = &entry.watermark {
                Record::Acknowledged(*id, mark.clone()).encode(&mut out);
            }
            for flush in &entry.flushes {
                Record::Flushed(*id, flush.clone()).encode(&mut out);
            }
            if entry.behind {
                Record::Behind(*id, true).encode(&mut out);
            }
            if entry.under_way.is_some() {
                Record::UnderWay(*id, entry.under_way).encode(&mut out);
            }
        }
        out
    }

    /// How new the lines of a tenant's streams are, by labels.
    pub fn bounds_of(&self, tenant: &Key) -> impl Iterator<Item = (&str, i64)> {
        let streams = self.bounds.get(&tenant.to_string());
        let streams = streams.into_iter().flatten();
        streams.map(|(labels, seconds)| (labels.as_str(), *seconds))
    }

    /// The cursor of this identity.
    pub fn find(&self, identity: &Identity) -> Option<CursorId> {
        self.cursors
            .iter()
            .find(|(_, entry)| entry.identity == *identity)
            .map(|(id, _)| *id)
    }
}

impl Counts {
    fn add(&mut self, count: &Count) {
        match count {
            Count::Rejected { reason, lines } => {
                let total = self.rejected.entry(reason.clone()).or_default();
                *total = total.saturating_add(*lines);
            }
            Count::Lost { reason, lines, bytes } => {
                let total = self.lost.entry(reason.clone()).or_default();
                *total = (total.0.saturating_add(*lines), total.1.saturating_add(*bytes));
            }
            Count::Gaps(count) => self.gap_count = self.gap_count.saturating_add(*count),
        }
    }

    fn encode(&self, output: &Output, out: &mut Vec<u8>) {
        let mut put = |count| Record::Counted(output.clone(), count).encode(out);
        for (reason, lines) in &self.rejected {
            put(Count::Rejected {
                reason: reason.clone(),
                lines: *lines,
            });
        }
        for (reason, (lines, bytes)) in &self.lost {
            put(Count::Lost {
                reason: reason.clone(),
                lines: *lines,
                bytes: *bytes,
            });
        }
        put(Count::Gaps(self.gap_count.saturating_sub(self.gaps.len() as u64)));
        for gap in &self.gaps {
            Record::Gap(output.clone(), gap.clone()).encode(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_engine::report::GapCause;

    use super::*;
    use crate::tail::fingerprint::Fingerprint;
    use crate::tail::position::Resume;

    fn place() -> impl Strategy<Value = Place> {
        (0..5_u32, any::<u128>(), 0..=1024_u16, any::<u64>()).prop_map(|(restart, hash, len, offset)| Place {
            restart,
            print: Fingerprint { hash, len },
            offset,
        })
    }

    fn timestamp() -> impl Strategy<Value = Timestamp> {
        (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
    }

    fn output() -> impl Strategy<Value = Output> {
        ("[ab]", "[a-z]{0,2}").prop_map(|(pipeline, tenant)| Output { pipeline, tenant })
    }

    fn count() -> impl Strategy<Value = Count> {
        prop_oneof![
            ("[ab]", any::<u32>()).prop_map(|(reason, lines)| Count::Rejected {
                reason,
                lines: lines.into()
            }),
            ("[ab]", any::<u32>(), any::<u32>()).prop_map(|(reason, lines, bytes)| Count::Lost {
                reason,
                lines: lines.into(),
                bytes: bytes.into()
            }),
            any::<u32>().prop_map(|count| Count::Gaps(count.into())),
        ]
    }

    fn gap() -> impl Strategy<Value = Gap> {
        let moment = || proptest::option::of(any::<i64>());
        let names = ("[a-z]{0,5}", "[a-z]{0,5}", "[a-z]{0,5}");
        let cause = proptest::sample::select(GapCause::ALL.to_vec());
        (names, cause, moment(), moment(), any::<i64>()).prop_map(
            |((namespace, pod, container), cause, after, before, noticed)| Gap {
                namespace,
                pod,
                container,
                cause,
                after,
                before,
                noticed,
            },
        )
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let id = || (0..4_u32).prop_map(CursorId);
        let resume = (0..3_u8, any::<u32>(), timestamp()).prop_map(|(slot, part, timestamp)| Resume {
            slot,
            part,
            timestamp,
        });
        prop_oneof![
            (id(), "[a-z]{0,9}", "[a-zé]{0,9}").prop_map(|(id, a, b)| Record::Defined(
                id,
                Identity {
                    folder: a.clone(),
                    container: b.clone(),
                    pipeline: a,
                    tenant: b
                }
            )),
            (id(), proptest::option::of(place()), "[a-z]{0,9}", ".{0,40}").prop_map(
                |(id, from, rules, chosen)| Record::Chosen(id, LabelChoice { from, rules, chosen })
            ),
            (
                id(),
                place(),
                place(),
                proptest::option::of(timestamp()),
                proptest::option::of(resume)
            )
                .prop_map(|(id, place, before, previous, resume)| Record::Acknowledged(
                    id,
                    Watermark {
                        place,
                        before: before.print,
                        previous,
                        resume
                    }
                )),
            (id(), place(), 0..3_u8).prop_map(|(id, place, slot)| Record::Flushed(id, Flush { place, slot })),
            (id(), 0..3_u32, 0..3_u32).prop_map(|(id, a, b)| Record::Pruned(id, a, b)),
            (id(), proptest::collection::vec(place(), 0..4)).prop_map(|(id, files)| Record::Left(id, files)),
            id().prop_map(Record::Dropped),
            "[a-z]{1,9}".prop_map(Record::PipelineSeen),
            "[a-z]{1,9}".prop_map(Record::Uncounted),
            (1..u64::MAX).prop_map(Record::Epoch),
            (id(), any::<bool>()).prop_map(|(id, behind)| Record::Behind(id, behind)),
            (id(), proptest::option::of(timestamp())).prop_map(|(id, last)| Record::UnderWay(id, last)),
            (output(), count()).prop_map(|(output, count)| Record::Counted(output, count)),
            (output(), gap()).prop_map(|(output, gap)| Record::Gap(output, gap)),
            ("[a-z]{1,2}", "[a-z]{1,2}", proptest::option::of(any::<i64>())).prop_map(
                |(tenant, labels, seconds)| Record::Bound(StreamBound {
                    tenant,
                    labels,
                    seconds
                })
            ),
        ]
    }

    fn journal(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = HEADER.to_vec();
        let mut ends = vec![bytes.len()];
        for record in records {
            record.encode(&mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn read(bytes: &[u8]) -> (Vec<Record>, End) {
        let mut records = Vec::new();
        let end = record::decode(bytes, |record| records.push(record));
        (records, end)
    }

    proptest! {
        #[test]
        fn records_read_back(records in proptest::collection::vec(any_record(), 0..30)) {
            prop_assert_eq!(read(&journal(&records).0), (records, End::Clean));
        }

        #[test]
        fn a_torn_tail_costs_only_the_last_record(
            records in proptest::collection::vec(any_record(), 1..30), at in any::<prop::sample::Index>(),
        ) {
            let (bytes, ends) = journal(&records);
            let cut = at.index(bytes.len());
            let (found, end) = read(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            prop_assert_eq!(&found, &records[..whole]);
            prop_assert_eq!(end, if ends.contains(&cut) { End::Clean } else { End::Torn });
        }

        #[test]
        fn a_tail_that_never_reached_the_disk_costs_only_the_last_record(
            records in proptest::collection::vec(any_record(), 1..30), at in any::<prop::sample::Index>(), zeros in 1..5_000_usize,
        ) {
            let (mut bytes, ends) = journal(&records);
            let cut = at.index(bytes.len()).max(HEADER.len());
            bytes.truncate(cut);
            bytes.resize(cut + zeros, 0);
            let (found, end) = read(&bytes);
            // The last one may have ended in zeros.
            let whole = ends.iter().filter(|end| **end <= cut).count().saturating_sub(1);
            prop_assert!(found.len() == whole || found.len() == whole + 1);
            prop_assert_eq!(&found, &records[..found.len()]);
            prop_assert_ne!(end, End::Corrupt);
        }

        #[test]
        fn a_flipped_bit_is_never_believed(
            records in proptest::collection::vec(any_record(), 1..30),
            at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let (mut bytes, _) = journal(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let (found, end) = read(&bytes);
            prop_assert_ne!(end, End::Clean);
            prop_assert!(found.len() < records.len() && found == records[..found.len()]);
        }

        #[test]
        fn compaction_keeps_the_meaning(records in proptest::collection::vec(any_record(), 0..60)) {
            let (ledger, _) = Ledger::decode(&journal(&records).0);
            let (mut again, end) = Ledger::decode(&ledger.encode());
            prop_assert_eq!(end, End::Clean);
            again.next = ledger.next;
            prop_assert_eq!(again, ledger);
        }

        #[test]
        fn any_bytes_decode(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut journal = HEADER.to_vec();
            journal.extend(&bytes);
            let _either = (Ledger::decode(&journal), Ledger::decode(&bytes));
        }
    }

    #[test]
    fn unknown_records_are_skipped() {
        let mut bytes = HEADER.to_vec();
        let body = [99, 1, 2, 3];
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        let gap = Gap {
            namespace: "n".into(),
            pod: "p".into(),
            container: "c".into(),
            cause: GapCause::FilesDeleted,
            after: None,
            before: None,
            noticed: 1,
        };
        let of = Output {
            pipeline: "u".into(),
            tenant: "t".into(),
        };
        let mut body = Vec::new();
        Record::Gap(of, gap).encode(&mut body);
        let mut body = body.split_off(8);
        // Its cause, behind the type and five texts.
        body[1 + 5 * 5] = 200;
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        Record::PipelineSeen("u".into()).encode(&mut bytes);
        assert_eq!(read(&bytes), (vec![Record::PipelineSeen("u".into())], End::Clean));
    }
}
