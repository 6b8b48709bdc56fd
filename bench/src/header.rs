//! One line of a log file in, its timestamp ready for the wire, its output and its content out; as quickly as can be.

use sluice_engine::cri::{self, Malformed, Stream};

use crate::request::Stamp;

/// A line's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When the runtime read it.
    pub stamp: Stamp,
    /// Where it came from.
    pub stream: Stream,
    /// What the container wrote.
    pub content: &'a [u8],
}

/// Parses lines. Quick for a whole line with nine digits of fraction in UTC, as nine of ten lines of a
/// node are; the engine's parser takes the others.
#[derive(Debug, Default)]
pub struct Parser {
    second: [u8; 19],
    stamp: Option<Stamp>,
    engine: cri::Parser,
}

impl Parser {
    /// Takes one line apart; `line` is without its line feed.
    ///
    /// # Errors
    /// When it is not a whole line in the runtime's format: this program joins nothing.
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Result<Line<'a>, Malformed> {
        if let Some(parsed) = self.quick(line) {
            return Ok(parsed);
        }
        let parsed = self.engine.parse(line)?;
        if parsed.partial {
            return Err(Malformed);
        }
        let stamp = Stamp::new(parsed.timestamp);
        // Only a second without an offset may serve the quick way.
        if let Some((second, rest)) = line.split_first_chunk::<19>()
            && rest.iter().take(11).any(|byte| *byte == b'Z')
        {
            self.second = *second;
            self.stamp = Some(stamp);
        }
        Ok(Line {
            stamp,
            stream: parsed.stream,
            content: parsed.content,
        })
    }

    fn quick<'a>(&self, line: &'a [u8]) -> Option<Line<'a>> {
        let (second, rest) = line.split_first_chunk::<19>()?;
        let stamp = self.stamp?;
        if *second != self.second {
            return None;
        }
        let (fraction, rest) = rest.split_first_chunk::<12>()?;
        let [b'.', eight @ .., ninth @ b'0'..=b'9', b'Z', b' '] = fraction else {
            return None;
        };
        let nanos = cri::eight_digits(*eight)? * 10 + u32::from(ninth - b'0');
        let (output, content) = rest.split_first_chunk::<9>()?;
        let stream = match output {
            b"stdout F " => Stream::Stdout,
            b"stderr F " => Stream::Stderr,
            _ => return None,
        };
        Some(Line {
            stamp: stamp.with_nanos(nanos),
            stream,
            content,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_engine() {
        let mut quick = Parser::default();
        let mut engine = cri::Parser::default();
        for text in [
            "2026-11-20T17:50:12.123456789Z stdout F one",
            "2026-11-20T17:50:12.987654321Z stderr F two",
            "2026-11-20T17:50:12.98765432Z stdout F eight digits",
            "2026-11-20T17:50:12Z stdout F none",
            "2026-11-20T17:50:12.000000001Z stdout F ",
            "2026-11-20T17:50:12.123456789+01:00 stdout F another zone",
            "2026-11-20T17:50:12.123456789Z stdout F back again",
            "2026-11-20T17:50:13.123456789Z stdout F:x tags",
        ] {
            let expected = engine.parse(text.as_bytes()).unwrap();
            let line = quick.parse(text.as_bytes()).unwrap();
            assert_eq!(line.stamp, Stamp::new(expected.timestamp), "{text}");
            assert_eq!(line.stream, expected.stream, "{text}");
            assert_eq!(line.content, expected.content, "{text}");
        }
    }

    #[test]
    fn parts_of_lines_are_refused() {
        let mut parser = Parser::default();
        for text in ["2026-11-20T17:50:12.123456789Z stdout P one", "x", ""] {
            assert_eq!(parser.parse(text.as_bytes()), Err(Malformed), "{text}");
        }
    }
}
