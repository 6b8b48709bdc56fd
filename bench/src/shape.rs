//! A line's number and timestamp in, the line as a container runtime writes it out.

use std::io::Write as _;

use jiff::Timestamp;

/// Stands before a line's number, so that the sink can tell which lines came.
pub const MARK: &[u8] = b"seq=";
/// Decimal digits of a line's number.
pub const DIGITS: usize = 12;

/// Kinds of lines; sizes are of the whole line in the file, header and line feed included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// 88 bytes, an access log.
    Short,
    /// 250 bytes, JSON of about the size that log-collectors-benchmark writes.
    Json,
    /// 521 bytes of random hexadecimal digits, which hardly compress.
    Random,
}

impl Shape {
    /// Bytes of each line.
    pub fn size(self) -> usize {
        match self {
            Self::Short => 88,
            Self::Json => 250,
            Self::Random => 521,
        }
    }
}

/// Writes lines of one shape; the same seed gives the same contents.
#[derive(Debug)]
pub struct Writer {
    shape: Shape,
    random: Random,
    second: i64,
    prefix: String,
}

impl Writer {
    /// A writer for a shape.
    pub fn new(shape: Shape, seed: u64) -> Self {
        Self {
            shape,
            random: Random::new(seed),
            second: i64::MIN,
            prefix: String::new(),
        }
    }

    /// Puts the line with this number at the end of `out`.
    ///
    /// # Errors
    /// Never in practice: memory is written.
    pub fn append(&mut self, number: u64, at: Timestamp, out: &mut Vec<u8>) -> std::io::Result<()> {
        let start = out.len();
        if at.as_second() != self.second {
            self.second = at.as_second();
            self.prefix = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        out.extend_from_slice(self.prefix.as_bytes());
        // Go's RFC3339Nano: no trailing zeros, and no point without digits.
        let fraction = format!(".{:09}", at.subsec_nanosecond());
        out.extend_from_slice(fraction.trim_end_matches('0').trim_end_matches('.').as_bytes());
        out.extend_from_slice(b"Z stdout F ");
        self.content(number, out)?;
        let end = start + self.shape.size() - 1;
        match self.shape {
            Shape::Json => {
                self.fill(end - 2, out)?;
                out.extend_from_slice(b"\"}");
            }
            Shape::Short => out.resize(end, b' '),
            Shape::Random => self.fill(end, out)?,
        }
        out.push(b'\n');
        Ok(())
    }

    fn content(&mut self, number: u64, out: &mut Vec<u8>) -> std::io::Result<()> {
        let random = self.random.number();
        let (item, time) = (random % 10_000, (random >> 32) % 900);
        match self.shape {
            Shape::Short => write!(out, "seq={number:012} GET /items/{item} 200 {time}ms"),
            Shape::Json => write!(
                out,
                r#"{{"level":"info","logger":"http","message":"served seq={number:012}","method":"GET","path":"/api/v1/items/{item}","status":200,"duration_ms":{time},"trace_id":"{random:016x}","agent":"Mozilla/5.0","id":""#
            ),
            Shape::Random => write!(out, "seq={number:012} "),
        }
    }

    /// Random digits up to a length of the whole.
    fn fill(&mut self, end: usize, out: &mut Vec<u8>) -> std::io::Result<()> {
        while out.len() < end {
            write!(out, "{:016x}", self.random.number())?;
        }
        out.truncate(end);
        Ok(())
    }
}

/// `SplitMix64`: quick, and the same on every machine.
#[derive(Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// One of several, of which there is one at least.
    pub fn one_of<T: Copy + Default>(&mut self, all: &[T]) -> T {
        let index = usize::try_from(self.below(all.len().max(1) as u64)).unwrap_or(0);
        all.get(index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use sluice_engine::cri;

    use super::*;

    #[test]
    fn every_line_has_its_size_and_is_the_runtimes() {
        for shape in [Shape::Short, Shape::Json, Shape::Random] {
            let mut writer = Writer::new(shape, 1);
            for (number, nanos) in [(0, 0), (7, 120_000_000), (999_999_999_999, 999_999_999)] {
                let at = Timestamp::new(1_800_000_000, nanos).unwrap();
                let mut line = Vec::new();
                writer.append(number, at, &mut line).unwrap();
                assert_eq!(line.len(), shape.size());
                let parsed = cri::Parser::default()
                    .parse(line.strip_suffix(b"\n").unwrap())
                    .unwrap();
                assert_eq!(
                    (parsed.timestamp.seconds, i64::from(parsed.timestamp.nanos)),
                    (1_800_000_000, i64::from(nanos))
                );
                let text = std::str::from_utf8(parsed.content).unwrap();
                assert!(text.contains(&format!("seq={number:012}")), "{text}");
                if shape == Shape::Json {
                    assert!(text.starts_with('{') && text.ends_with("\"}"), "{text}");
                }
            }
        }
    }
}
