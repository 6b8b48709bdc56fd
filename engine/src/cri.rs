//! Container log lines as the runtime writes them: the bytes of one line in, its parts out.
//!
//! The format is `RFC3339Nano SP stdout|stderr SP tags SP content` (kubelet `pkg/kubelet/kuberuntime/logs`,
//! containerd `internal/cri/io/logger.go`): Go trims the fraction's trailing zeros, so it has 0 to 9 digits,
//! and the zone is the node's. `tags` is `P` or `F`, more may follow after a `:`.

/// Seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// Which output of the container wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When the runtime read it.
    pub timestamp: Timestamp,
    /// Where it came from.
    pub stream: Stream,
    /// `P`: more of the same line follows in this stream.
    pub partial: bool,
    /// What the container wrote.
    pub content: &'a [u8],
}

/// A line that is not in the runtime's format, such as one torn by a failed write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the line is not in the container runtime's format")]
pub struct Malformed;

/// Parses lines; remembers the last minute's prefix, since successive lines share it.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    /// `2026-11-20T17:50:` of the last line, and its seconds since 1970 read as UTC.
    minute: [u8; 17],
    minute_seconds: Option<i64>,
}

impl Parser {
    /// Takes one line apart; `line` is without its line feed.
    ///
    /// # Errors
    /// When any part of the header is missing or out of range.
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Result<Line<'a>, Malformed> {
        let (timestamp, rest) = self.timestamp(line).ok_or(Malformed)?;
        let (stream, rest) = match rest {
            [b's', b't', b'd', b'o', b'u', b't', b' ', rest @ ..] => (Stream::Stdout, rest),
            [b's', b't', b'd', b'e', b'r', b'r', b' ', rest @ ..] => (Stream::Stderr, rest),
            _ => return Err(Malformed),
        };
        let (partial, rest) = match rest {
            [b'F', rest @ ..] => (false, rest),
            [b'P', rest @ ..] => (true, rest),
            _ => return Err(Malformed),
        };
        let content = match rest {
            [b' ', content @ ..] => content,
            // Further tags; an empty line may come without its last space.
            [b':', tags @ ..] => match memchr::memchr(b' ', tags) {
                Some(space) => tags.get(space + 1..).ok_or(Malformed)?,
                None => &[],
            },
            [] => &[],
            _ => return Err(Malformed),
        };
        Ok(Line {
            timestamp,
            stream,
            partial,
            content,
        })
    }

    /// The timestamp that a line begins with, and what follows the space behind it.
    fn timestamp<'a>(&mut self, line: &'a [u8]) -> Option<(Timestamp, &'a [u8])> {
        let (minute, rest) = line.split_first_chunk::<17>()?;
        let minute_seconds = match self.minute_seconds {
            Some(seconds) if *minute == self.minute => seconds,
            _ => {
                let seconds = parse_minute(minute)?;
                self.minute = *minute;
                self.minute_seconds = Some(seconds);
                seconds
            }
        };
        let (second, mut rest) = rest.split_first_chunk::<2>()?;
        let second = two_digits(*second)?;
        // A leap second is written :60; Go never does, other writers may.
        if second > 60 {
            return None;
        }
        let mut nanos = 0_u32;
        if let [b'.', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 || digits > 9 {
                return None;
            }
            let (digit_bytes, after) = fraction.split_at_checked(digits)?;
            for byte in digit_bytes {
                nanos = nanos * 10 + u32::from(byte - b'0');
            }
            for _ in digits..9 {
                nanos *= 10;
            }
            rest = after;
        }
        let (offset, rest) = match rest {
            [b'Z', b' ', rest @ ..] => (0, rest),
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2, b' ', rest @ ..] => {
                let minutes = two_digits([*h1, *h2])? * 60 + two_digits([*m1, *m2])?;
                if minutes >= 24 * 60 {
                    return None;
                }
                (
                    if *sign == b'+' {
                        minutes * 60
                    } else {
                        -minutes * 60
                    },
                    rest,
                )
            }
            _ => return None,
        };
        Some((
            Timestamp {
                seconds: minute_seconds + second - offset,
                nanos,
            },
            rest,
        ))
    }
}

/// Seconds since 1970 of `YYYY-MM-DDTHH:MM:`, read as UTC.
fn parse_minute(text: &[u8; 17]) -> Option<i64> {
    let [
        y1,
        y2,
        y3,
        y4,
        b'-',
        o1,
        o2,
        b'-',
        d1,
        d2,
        b'T',
        h1,
        h2,
        b':',
        m1,
        m2,
        b':',
    ] = *text
    else {
        return None;
    };
    let year = two_digits([y1, y2])? * 100 + two_digits([y3, y4])?;
    let month = two_digits([o1, o2])?;
    let day = two_digits([d1, d2])?;
    let hour = two_digits([h1, h2])?;
    let minute = two_digits([m1, m2])?;
    if year == 0 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar (H. Hinnant, `days_from_civil`).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn two_digits([tens, ones]: [u8; 2]) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit())
        .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Line<'_>, Malformed> {
        Parser::default().parse(line.as_bytes())
    }

    #[test]
    fn every_width_of_fraction_and_every_zone() {
        for (text, seconds, nanos) in [
            ("2026-11-20T17:50:01.123456789Z", 1_795_197_001, 123_456_789),
            ("2026-11-20T17:50:01.1Z", 1_795_197_001, 100_000_000),
            ("2026-11-20T17:50:01Z", 1_795_197_001, 0),
            ("2026-11-21T01:50:01.5+08:00", 1_795_197_001, 500_000_000),
            ("2026-11-20T12:20:01.5-05:30", 1_795_197_001, 500_000_000),
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T00:00:00Z", 951_782_400, 0),
        ] {
            let line = format!("{text} stdout F x");
            let parsed = parse(&line).unwrap();
            assert_eq!(parsed.timestamp, Timestamp { seconds, nanos }, "{text}");
            assert_eq!(parsed.content, b"x");
        }
    }

    #[test]
    fn tags_and_streams() {
        let full = parse("2026-11-20T17:50:01Z stderr F a b").unwrap();
        assert_eq!(
            (full.stream, full.partial, full.content),
            (Stream::Stderr, false, &b"a b"[..])
        );
        let partial = parse("2026-11-20T17:50:01Z stdout P:new:tags rest").unwrap();
        assert_eq!(
            (partial.stream, partial.partial, partial.content),
            (Stream::Stdout, true, &b"rest"[..])
        );
        assert_eq!(parse("2026-11-20T17:50:01Z stdout F ").unwrap().content, b"");
        assert_eq!(parse("2026-11-20T17:50:01Z stdout F").unwrap().content, b"");
    }

    #[test]
    fn torn_lines_are_refused() {
        for line in [
            "",
            "x",
            "2026-11-20T17:50:01",
            "2026-11-20T17:50:01Z",
            "2026-11-20T17:50:01Z stdout",
            "2026-11-20T17:50:01Z stdout X a",
            "2026-11-20T17:50:01Z stdlog F a",
            "2026-11-20T17:50:01.Z stdout F a",
            "2026-11-20T17:50:01.1234567890Z stdout F a",
            "2026-13-20T17:50:01Z stdout F a",
            "2026-11-20T17:50:01+99:00 stdout F a",
            "2026-11-20T17:50:01Z stdout 2026-11-20T17:50:01Z stdout F a",
        ] {
            assert_eq!(parse(line), Err(Malformed), "{line:?}");
        }
    }

    #[test]
    fn the_remembered_minute_is_left_when_it_changes() {
        let mut parser = Parser::default();
        for (minute, seconds) in [
            ("17:50", 1_795_197_000),
            ("17:51", 1_795_197_060),
            ("17:50", 1_795_197_000),
        ] {
            let line = format!("2026-11-20T{minute}:00Z stdout F x");
            assert_eq!(parser.parse(line.as_bytes()).unwrap().timestamp.seconds, seconds);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either = Parser::default().parse(&line);
        }
    }
}
