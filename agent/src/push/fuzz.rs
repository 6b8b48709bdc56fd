//! An answer or a body in, what the private steps make of it out: for the fuzz targets of `/fuzz`, which can
//! call what is public only.

use super::classify::{Answered, Verdict, classify};
use super::split;

/// What would become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// All its lines count as stored.
    Acknowledged,
    /// These lines are given up and counted, by reason; the others count as stored.
    Rejected(Vec<(&'static str, u64)>),
    /// It is sent stream by stream.
    Apart,
    /// It is sent in halves; a single line is given up.
    Halved,
    /// It is sent again.
    Kept,
}

/// Judges an answer to a request of so many streams and lines.
pub fn judge(status: u16, body: &[u8], streams: u32, lines: u32) -> Judged {
    let answered = Answered {
        status,
        body,
        retry_after: None,
        streams,
        lines,
    };
    match classify(&answered) {
        Verdict::Acknowledged => Judged::Acknowledged,
        Verdict::Rejected(refused) => Judged::Rejected(refused),
        Verdict::Apart => Judged::Apart,
        Verdict::Halve(_) => Judged::Halved,
        Verdict::Retry { .. } | Verdict::Hold { .. } => Judged::Kept,
    }
}

/// A part of a body: its bytes, streams and lines.
pub type Part = (Vec<u8>, u32, u32);

fn plain(part: split::Part) -> Part {
    (part.body.to_vec(), part.streams, part.lines)
}

fn whole(body: &[u8]) -> split::Part {
    split::Part {
        body: body.to_vec().into(),
        streams: 0,
        lines: 0,
        first: 0,
    }
}

/// Each stream of a compressed body in a body of its own.
pub fn apart(body: &[u8]) -> Option<Vec<Part>> {
    split::apart(&whole(body)).map(|parts| parts.into_iter().map(plain).collect())
}

/// The two halves of a compressed body.
pub fn halves(body: &[u8]) -> Option<[Part; 2]> {
    split::halves(&whole(body)).map(|parts| parts.map(plain))
}
