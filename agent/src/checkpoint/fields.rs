//! Fields of records in, bytes out, and back; little-endian.

use sluice_engine::cri::Timestamp;
use sluice_engine::report::{Gap, GapCause};

use super::record::{Count, Identity, LabelChoice, Output, StreamBound, Watermark};
use crate::tail::chain::Place;
use crate::tail::fingerprint::Fingerprint;
use crate::tail::position::Resume;

pub(super) fn number(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn long(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn output(out: &mut Vec<u8>, value: &Output) {
    text(out, &value.pipeline);
    text(out, &value.tenant);
}

pub(super) fn gap(out: &mut Vec<u8>, of: &Output, value: &Gap) {
    output(out, of);
    for part in [&value.namespace, &value.pod, &value.container] {
        text(out, part);
    }
    let code = GapCause::ALL.iter().position(|cause| *cause == value.cause);
    out.push(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX));
    for moment in [value.after, value.before, Some(value.noticed)] {
        out.push(u8::from(moment.is_some()));
        out.extend_from_slice(&moment.unwrap_or(0).to_le_bytes());
    }
}

pub(super) fn identified(out: &mut Vec<u8>, value: &Identity) {
    for part in [&value.folder, &value.container, &value.pipeline, &value.tenant] {
        text(out, part);
    }
}

pub(super) fn label_choice(out: &mut Vec<u8>, choice: &LabelChoice) {
    out.push(u8::from(choice.from.is_some()));
    place(out, &choice.from.unwrap_or_default());
    text(out, &choice.rules);
    text(out, &choice.chosen);
}

pub(super) fn watermark(out: &mut Vec<u8>, mark: &Watermark) {
    place(out, &mark.place);
    out.push(u8::from(mark.previous.is_some()));
    timestamp(out, mark.previous.unwrap_or_default());
    out.push(u8::from(mark.resume.is_some()));
    let resume = mark.resume.unwrap_or_else(|| Resume {
        slot: 0,
        part: 0,
        timestamp: Timestamp::default(),
    });
    out.push(resume.slot);
    number(out, resume.part);
    timestamp(out, resume.timestamp);
    fingerprint(out, mark.before);
}

pub(super) fn counted(out: &mut Vec<u8>, count: &Count) {
    let (kind, reason, lines, bytes) = match count {
        Count::Rejected { reason, lines } => (0, reason.as_str(), *lines, 0),
        Count::Lost { reason, lines, bytes } => (1, reason.as_str(), *lines, *bytes),
        Count::Gaps(count) => (2, "", *count, 0),
    };
    out.push(kind);
    text(out, reason);
    long(out, lines);
    long(out, bytes);
}

pub(super) fn stream_bound(out: &mut Vec<u8>, bound: &StreamBound) {
    text(out, &bound.tenant);
    text(out, &bound.labels);
    out.push(u8::from(bound.seconds.is_some()));
    out.extend_from_slice(&bound.seconds.unwrap_or_default().to_le_bytes());
}

pub(super) fn optional(out: &mut Vec<u8>, value: Option<Timestamp>) {
    out.push(u8::from(value.is_some()));
    timestamp(out, value.unwrap_or_default());
}

pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    number(out, u32::try_from(value.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(value.as_bytes());
}

pub(super) fn timestamp(out: &mut Vec<u8>, value: Timestamp) {
    out.extend_from_slice(&value.seconds.to_le_bytes());
    number(out, value.nanos);
}

pub(super) fn place(out: &mut Vec<u8>, value: &Place) {
    number(out, value.restart);
    fingerprint(out, value.print);
    out.extend_from_slice(&value.offset.to_le_bytes());
}

fn fingerprint(out: &mut Vec<u8>, value: Fingerprint) {
    out.extend_from_slice(&value.hash.to_le_bytes());
    out.extend_from_slice(&value.len.to_le_bytes());
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let len = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    pub(super) fn output(&mut self) -> Option<Output> {
        Some(Output {
            pipeline: self.text()?,
            tenant: self.text()?,
        })
    }

    pub(super) fn counted(&mut self) -> Option<Count> {
        let (kind, reason) = (self.byte()?, self.text()?);
        let (lines, bytes) = (self.long()?, self.long()?);
        match kind {
            0 => Some(Count::Rejected { reason, lines }),
            1 => Some(Count::Lost { reason, lines, bytes }),
            2 => Some(Count::Gaps(lines)),
            _ => None,
        }
    }

    pub(super) fn stream_bound(&mut self) -> Option<StreamBound> {
        let (tenant, labels) = (self.text()?, self.text()?);
        let (there, seconds) = (self.byte()? != 0, self.take().map(i64::from_le_bytes)?);
        Some(StreamBound {
            tenant,
            labels,
            seconds: there.then_some(seconds),
        })
    }

    /// `Err` if its cause is of a later version.
    pub(super) fn gap(&mut self) -> Option<Result<Gap, u8>> {
        let (namespace, pod, container) = (self.text()?, self.text()?, self.text()?);
        let code = self.byte()?;
        let mut moment = || {
            let (there, value) = (self.byte()? != 0, self.take().map(i64::from_le_bytes)?);
            Some(there.then_some(value))
        };
        let (after, before, noticed) = (moment()?, moment()?, moment()?.unwrap_or(0));
        let cause = GapCause::ALL.get(usize::from(code)).copied();
        Some(cause.ok_or(code).map(|cause| Gap {
            namespace,
            pod,
            container,
            cause,
            after,
            before,
            noticed,
        }))
    }

    pub(super) fn timestamp(&mut self) -> Option<Timestamp> {
        Some(Timestamp {
            seconds: self.take().map(i64::from_le_bytes)?,
            nanos: self.number()?,
        })
    }

    pub(super) fn place(&mut self) -> Option<Place> {
        Some(Place {
            restart: self.number()?,
            print: self.fingerprint()?,
            offset: self.long()?,
        })
    }

    /// To the record's end.
    pub(super) fn places(&mut self) -> Option<Vec<Place>> {
        let mut places = Vec::new();
        while !self.0.is_empty() {
            places.push(self.place()?);
        }
        Some(places)
    }

    pub(super) fn fingerprint(&mut self) -> Option<Fingerprint> {
        Some(Fingerprint {
            hash: self.take().map(u128::from_le_bytes)?,
            len: self.take().map(u16::from_le_bytes)?,
        })
    }
}
