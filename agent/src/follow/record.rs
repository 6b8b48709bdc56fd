//! Bytes of a `pods/log` answer in, lines in the container runtime's format out. Pure.
//!
//! With `timestamps=true` kubelet writes `<RFC 3339> <content>` and joins what the runtime wrote in pieces, so
//! lines have any length. Long ones are cut at every [`PIECE`] bytes of content, wherever the answer's bytes were
//! cut: read again, a line gives the same records.

use sluice_engine::cri::{Parser, Timestamp};

/// Bytes of content in one record at most, as containerd cuts them.
pub const PIECE: usize = 16 << 10;
/// No timestamp is longer, its space included.
const STAMP: usize = 64;

/// Takes an answer's bytes as they come.
#[derive(Debug, Default)]
pub struct Splitter {
    /// What has no line feed yet; of a long line what is left of its content.
    rest: Vec<u8>,
    /// The timestamp of a long line whose first pieces are out.
    open: Option<(Timestamp, Vec<u8>)>,
    /// The line that goes on is none of a container.
    skipping: bool,
    record: Vec<u8>,
    parser: Parser,
    /// Lines without a timestamp: kubelet's own words, or the end of a line that began before `sinceTime`.
    pub foreign: u64,
}

impl Splitter {
    /// Takes further bytes and hands out each record, line feed included, with its timestamp.
    pub fn push(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(Timestamp, &[u8])) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (line, after) = bytes.split_at(at);
            if self.rest.is_empty() {
                self.line(line, b'F', take);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole, b'F', take);
                whole.clear();
                self.rest = whole;
            }
            bytes = after.get(1..).unwrap_or_default();
        }
        self.rest.extend_from_slice(bytes);
        self.begin_long(take);
    }

    /// The log is over: what has no line feed is a line that its container left unfinished.
    pub fn finish(&mut self, take: &mut dyn FnMut(Timestamp, &[u8])) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest, b'P', take);
        }
    }

    /// Takes the end of a line, or all of it.
    fn line(&mut self, line: &[u8], tag: u8, take: &mut dyn FnMut(Timestamp, &[u8])) {
        if std::mem::take(&mut self.skipping) {
            return;
        }
        let (timestamp, stamp, mut content) = if let Some((timestamp, stamp)) = self.open.take() {
            (timestamp, stamp, line)
        } else {
            let Some((timestamp, len)) = self.stamp(line) else {
                self.foreign += 1;
                return;
            };
            let (stamp, content) = line.split_at(len);
            (timestamp, stamp.to_vec(), content.get(1..).unwrap_or_default())
        };
        while content.len() > PIECE {
            let (piece, after) = content.split_at(PIECE);
            self.emit(timestamp, &stamp, b'P', piece, take);
            content = after;
        }
        self.emit(timestamp, &stamp, tag, content, take);
    }

    /// Hands out the pieces of a long line that are there.
    fn begin_long(&mut self, take: &mut dyn FnMut(Timestamp, &[u8])) {
        if self.skipping {
            self.rest.clear();
            return;
        }
        if self.rest.len() <= STAMP + PIECE && self.open.is_none() {
            return;
        }
        let mut rest = std::mem::take(&mut self.rest);
        let mut from = 0;
        if self.open.is_none() {
            let Some((timestamp, len)) = self.stamp(&rest) else {
                self.foreign += 1;
                self.skipping = true;
                return;
            };
            self.open = rest.get(..len).map(|stamp| (timestamp, stamp.to_vec()));
            from = len + 1;
        }
        if let Some((timestamp, stamp)) = self.open.take() {
            // The last byte stays, so that the line's end makes a record.
            while let Some(piece) = rest.get(from..from + PIECE).filter(|_| rest.len() > from + PIECE) {
                self.emit(timestamp, &stamp, b'P', piece, take);
                from += PIECE;
            }
            self.open = Some((timestamp, stamp));
        }
        rest.drain(..from);
        self.rest = rest;
    }

    /// The timestamp that a line begins with, and its length.
    fn stamp(&mut self, line: &[u8]) -> Option<(Timestamp, usize)> {
        let begin = line.get(..STAMP).unwrap_or(line);
        let len = memchr::memchr(b' ', begin)?;
        self.record.clear();
        self.record.extend_from_slice(begin.get(..len)?);
        self.record.extend_from_slice(b" stdout F");
        let parsed = self.parser.parse(&self.record).ok()?;
        Some((parsed.timestamp, len))
    }

    fn emit(
        &mut self,
        timestamp: Timestamp,
        stamp: &[u8],
        tag: u8,
        content: &[u8],
        take: &mut dyn FnMut(Timestamp, &[u8]),
    ) {
        self.record.clear();
        for part in [stamp, b" stdout ", &[tag, b' '], content, b"\n"] {
            self.record.extend_from_slice(part);
        }
        take(timestamp, &self.record);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: &str = "2026-11-20T17:50:01.000000005Z";

    fn split(chunks: &[&[u8]], over: bool) -> (Vec<String>, u64) {
        let (mut splitter, mut records) = (Splitter::default(), Vec::new());
        let mut take =
            |_: Timestamp, record: &[u8]| records.push(String::from_utf8_lossy(record).into_owned());
        for chunk in chunks {
            splitter.push(chunk, &mut take);
        }
        if over {
            splitter.finish(&mut take);
        }
        (records, splitter.foreign)
    }

    #[test]
    fn lines_become_records_and_what_is_no_containers_is_left_out() {
        let text =
            format!("the rest of a line\n{T} a\n{T} \n{T} b c\nrpc error: no such container\n{T} open");
        let records = ["a", "", "b c"].map(|line| format!("{T} stdout F {line}\n"));
        assert_eq!(split(&[text.as_bytes()], false), (records.to_vec(), 2));
        let mut over = records.to_vec();
        over.push(format!("{T} stdout P open\n"));
        assert_eq!(split(&[text.as_bytes()], true), (over, 2));
    }

    #[test]
    fn a_long_line_is_cut_at_fixed_places() {
        for len in [PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 5] {
            let text = format!("{T} {}\n", "x".repeat(len));
            let (records, _) = split(&[text.as_bytes()], false);
            assert_eq!(records.len(), len.div_ceil(PIECE), "{len}");
            assert!(
                records
                    .iter()
                    .rev()
                    .skip(1)
                    .all(|r| r.contains(" P ") && r.len() == T.len() + 11 + PIECE)
            );
            assert!(records.last().unwrap().contains(" F "));
        }
        let endless = "no timestamp ".repeat(10_000);
        assert_eq!(
            split(&[endless.as_bytes(), b"\n", format!("{T} a\n").as_bytes()], false).1,
            1
        );
    }

    proptest! {
        #[test]
        fn records_do_not_depend_on_where_the_answer_was_cut(
            lengths in proptest::collection::vec(0..3 * PIECE + 9, 1..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let lines: Vec<String> = lengths.iter().map(|len| format!("{T} {}\n", "y".repeat(*len))).collect();
            let text = lines.concat();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(&chunks, false), split(&[text.as_bytes()], false));
        }
    }
}
