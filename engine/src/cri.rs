//! Container log lines as the runtime writes them: the bytes of one line in, its parts out.
//!
//! The format is `RFC3339Nano SP stdout|stderr SP tags SP content` (kubelet `pkg/kubelet/kuberuntime/logs`,
//! containerd `internal/cri/io/logger.go`): Go trims the fraction's trailing zeros, so it has 0 to 9 digits,
//! and the zone is the node's. `tags` is `P` or `F`, more may follow after a `:`.
#![expect(
    clippy::inline_always,
    reason = "a line's parts that went through memory cost more than they take to be found"
)]

/// Seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// The first second that a push request can hold, 0001-01-01T00:00:00Z: with an earlier one, or one from
    /// [`Timestamp::END`] on, Loki cannot decode the request at all.
    const BEGIN: i64 = -62_135_596_800;
    /// The first second that a push request cannot hold, 10000-01-01T00:00:00Z.
    const END: i64 = 253_402_300_800;
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
    #[inline]
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Result<Line<'a>, Malformed> {
        match self.quick(line) {
            Some(line) => Ok(line),
            None => self.careful(line),
        }
    }

    /// Nine of ten lines of a node: nine digits of fraction, in UTC, whole, of the minute of the last one. The
    /// careful way comes to the same.
    #[inline(always)]
    fn quick<'a>(&self, line: &'a [u8]) -> Option<Line<'a>> {
        let (head, content) = line.split_first_chunk::<40>()?;
        let (minute, head) = head.split_first_chunk::<17>()?;
        let [s1, s2, b'.', eight @ .., ninth @ b'0'..=b'9', b'Z', b' '] = *head.first_chunk::<14>()? else {
            return None;
        };
        let seconds = self.minute_seconds.filter(|_| *minute == self.minute)?;
        // A leap second may be the one that no timestamp can be.
        let second = two_digits([s1, s2]).filter(|second| *second < 60)?;
        let stream = match head.last_chunk::<9>()? {
            b"stdout F " => Stream::Stdout,
            b"stderr F " => Stream::Stderr,
            _ => return None,
        };
        let timestamp = Timestamp {
            seconds: seconds + second,
            nanos: eight_digits(eight)? * 10 + u32::from(ninth - b'0'),
        };
        Some(Line {
            timestamp,
            stream,
            partial: false,
            content,
        })
    }

    #[inline(never)]
    fn careful<'a>(&mut self, line: &'a [u8]) -> Result<Line<'a>, Malformed> {
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
                let (hours, minutes) = (two_digits([*h1, *h2])?, two_digits([*m1, *m2])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let minutes = hours * 60 + minutes;
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
        let seconds = minute_seconds + second - offset;
        // A zone or a leap second can lead out of the years that are written with four digits.
        (Timestamp::BEGIN..Timestamp::END)
            .contains(&seconds)
            .then_some((Timestamp { seconds, nanos }, rest))
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
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if year == 0 || !(1..=days).contains(&day) || hour > 23 || minute > 59 {
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

/// Eight decimal digits at once (D. Lemire, `parse_eight_digits_unrolled`).
#[inline(always)]
pub fn eight_digits(text: [u8; 8]) -> Option<u32> {
    let value = u64::from_le_bytes(text);
    let high = value & 0xf0f0_f0f0_f0f0_f0f0;
    let carry = (value.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0) >> 4;
    if high | carry != 0x3333_3333_3333_3333 {
        return None;
    }
    let value = (value & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(2561) >> 8;
    let value = (value & 0x00ff_00ff_00ff_00ff).wrapping_mul(6_553_601) >> 16;
    let value = (value & 0x0000_ffff_0000_ffff).wrapping_mul(42_949_672_960_001) >> 32;
    u32::try_from(value).ok()
}

#[inline(always)]
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

    fn timestamp(text: &str) -> Option<(i64, u32)> {
        let line = format!("{text} stdout F x");
        let parsed = parse(&line).ok()?;
        assert_eq!(parsed.content, b"x", "{text}");
        Some((parsed.timestamp.seconds, parsed.timestamp.nanos))
    }

    #[test]
    fn every_width_of_fraction() {
        for (fraction, nanos) in [
            ("", Some(0)),
            (".1", Some(100_000_000)),
            (".12", Some(120_000_000)),
            (".123", Some(123_000_000)),
            (".1234", Some(123_400_000)),
            (".12345", Some(123_450_000)),
            (".123456", Some(123_456_000)),
            (".1234567", Some(123_456_700)),
            (".12345678", Some(123_456_780)),
            (".123456789", Some(123_456_789)),
            (".000000001", Some(1)),
            (".999999999", Some(999_999_999)),
            (".0", Some(0)),
            (".", None),
            (".1234567890", None),
            (",1", None),
            (".1x", None),
            (".-1", None),
        ] {
            let found = timestamp(&format!("2026-11-20T17:50:01{fraction}Z"));
            assert_eq!(found, nanos.map(|nanos| (1_795_197_001, nanos)), "{fraction}");
        }
    }

    #[test]
    fn every_zone() {
        let utc = 1_795_197_001;
        for (zone, offset) in [
            ("Z", Some(0)),
            ("+00:00", Some(0)),
            ("-00:00", Some(0)),
            ("+08:00", Some(8 * 60)),
            ("-05:30", Some(-330)),
            ("+05:45", Some(345)),
            ("+14:00", Some(840)),
            ("-12:00", Some(-720)),
            ("+23:59", Some(1_439)),
            ("-23:59", Some(-1_439)),
            ("+24:00", None),
            ("+00:60", None),
            ("+99:00", None),
            ("+0800", None),
            ("+8:00", None),
            ("+08:0x", None),
            ("z", None),
            ("", None),
        ] {
            let found = timestamp(&format!("2026-11-20T17:50:01.5{zone}"));
            let expected = offset.map(|minutes: i64| (utc - minutes * 60, 500_000_000));
            assert_eq!(found, expected, "{zone}");
        }
    }

    #[test]
    fn every_time_that_a_request_can_hold_and_no_other() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(-1)),
            ("1970-01-01T00:00:00+01:00", Some(-3_600)),
            ("1900-03-01T00:00:00Z", Some(-2_203_891_200)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-12-31T23:59:60Z", Some(1_798_761_600)),
            ("0001-01-01T00:00:00Z", Some(Timestamp::BEGIN)),
            ("0001-01-01T00:00:00-00:01", Some(Timestamp::BEGIN + 60)),
            ("9999-12-31T23:59:59Z", Some(Timestamp::END - 1)),
            ("9999-12-31T23:59:59+00:01", Some(Timestamp::END - 61)),
            // Out of range.
            ("0001-01-01T00:00:00+00:01", None),
            ("9999-12-31T23:59:60Z", None),
            ("9999-12-31T23:59:59-00:01", None),
            ("0000-12-31T23:59:59Z", None),
            ("0000-12-31T23:59:59-23:59", None),
            ("10000-01-01T00:00:00Z", None),
            ("-001-01-01T00:00:00Z", None),
            // Of no calendar.
            ("2026-00-20T17:50:01Z", None),
            ("2026-13-20T17:50:01Z", None),
            ("2026-11-00T17:50:01Z", None),
            ("2026-11-31T17:50:01Z", None),
            ("2026-12-32T17:50:01Z", None),
            ("2026-02-29T17:50:01Z", None),
            ("1900-02-29T17:50:01Z", None),
            ("2024-02-29T24:00:00Z", None),
            ("2024-02-29T23:60:00Z", None),
            ("2024-02-29T23:59:61Z", None),
        ] {
            assert_eq!(timestamp(text), seconds.map(|seconds| (seconds, 0)), "{text}");
        }
        // The same behind a line of the same minute.
        let mut parser = Parser::default();
        let line = |second| format!("9999-12-31T23:59:{second}.000000000Z stdout F a");
        assert!(parser.parse(line(59).as_bytes()).is_ok());
        assert_eq!(parser.parse(line(60).as_bytes()), Err(Malformed));
    }

    #[test]
    fn tags_and_streams() {
        for (rest, expected) in [
            ("stderr F a b", Some((Stream::Stderr, false, "a b"))),
            ("stdout P a", Some((Stream::Stdout, true, "a"))),
            ("stdout F:new a", Some((Stream::Stdout, false, "a"))),
            ("stdout P:new:tags rest", Some((Stream::Stdout, true, "rest"))),
            ("stdout F: a", Some((Stream::Stdout, false, "a"))),
            ("stdout F::P a", Some((Stream::Stdout, false, "a"))),
            ("stdout F:a:b", Some((Stream::Stdout, false, ""))),
            ("stdout F a: b", Some((Stream::Stdout, false, "a: b"))),
            ("stdout F  a", Some((Stream::Stdout, false, " a"))),
            ("stdout F ", Some((Stream::Stdout, false, ""))),
            ("stdout F", Some((Stream::Stdout, false, ""))),
            ("stdout P\ta", None),
            ("stdout FP a", None),
            ("stdout :F a", None),
            ("stdout f a", None),
            ("stdout  F a", None),
            ("stdout", None),
            ("stdlog F a", None),
            ("STDOUT F a", None),
        ] {
            let line = format!("2026-11-20T17:50:01Z {rest}");
            let found = parse(&line).ok().map(|line| {
                let content = std::str::from_utf8(line.content).unwrap();
                (line.stream, line.partial, content)
            });
            assert_eq!(found, expected, "{rest:?}");
        }
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

    /// The header as Go writes it: `RFC3339Nano` trims the fraction's zeros.
    fn header(timestamp: Timestamp, offset: i64) -> String {
        let local = timestamp.seconds + offset * 60;
        let (days, of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        // H. Hinnant, `civil_from_days`.
        let z = days + 719_468;
        let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let (day, month) = (
            doy - (153 * mp + 2) / 5 + 1,
            if mp < 10 { mp + 3 } else { mp - 9 },
        );
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        let fraction = match timestamp.nanos {
            0 => String::new(),
            nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
        };
        let zone = if offset == 0 {
            "Z".to_owned()
        } else {
            let sign = if offset < 0 { '-' } else { '+' };
            let offset = offset.abs();
            format!("{sign}{:02}:{:02}", offset / 60, offset % 60)
        };
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}")
    }

    proptest! {
        #[test]
        fn the_quick_way_and_the_careful_one_agree(
            stream in "std(out|err) [FP][ :]", second in 0..70_u32, nanos in 0..1_000_000_000_u32,
            content in proptest::collection::vec(any::<u8>(), 0..9), at in 0..60_usize, byte: u8,
        ) {
            let mut line = format!("2026-11-20T17:50:{second:02}.{nanos:09}Z {stream}").into_bytes();
            line.extend(content);
            if let Some(place) = line.get_mut(at) {
                *place = byte;
            }
            let mut knows_the_minute = Parser::default();
            prop_assert!(knows_the_minute.parse(b"2026-11-20T17:50:00Z stdout F").is_ok());
            prop_assert_eq!(knows_the_minute.parse(&line), Parser::default().parse(&line));
        }

        #[test]
        fn eight_digits_are_digits(number in 0..100_000_000_u32, at in 0..8_usize, byte: u8) {
            let mut text: [u8; 8] = format!("{number:08}").into_bytes().try_into().unwrap();
            prop_assert_eq!(eight_digits(text), Some(number));
            text[at] = byte;
            prop_assert_eq!(eight_digits(text).is_some(), byte.is_ascii_digit());
        }

        #[test]
        fn what_the_runtime_writes_is_read_back(
            lines in proptest::collection::vec(
                (Timestamp::BEGIN + 86_400..Timestamp::END - 86_400, 0_u32..1_000_000_000, -1_439_i64..1_440,
                 any::<(bool, bool)>(), proptest::collection::vec(any::<u8>(), 0..40)),
                1..6),
        ) {
            // One parser for all, so that what it remembers is shown not to matter.
            let mut parser = Parser::default();
            for (seconds, nanos, offset, (stderr, partial), content) in lines {
                let timestamp = Timestamp { seconds, nanos };
                let (stream, name) = if stderr { (Stream::Stderr, "stderr") } else { (Stream::Stdout, "stdout") };
                let tag = if partial { "P" } else { "F" };
                let mut line = format!("{} {name} {tag} ", header(timestamp, offset)).into_bytes();
                line.extend_from_slice(&content);
                let expected = Line { timestamp, stream, partial, content: &content };
                prop_assert_eq!(parser.parse(&line), Ok(expected));
            }
        }

        #[test]
        fn any_bytes_parse_or_are_refused(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _either = Parser::default().parse(&line);
        }
    }
}
