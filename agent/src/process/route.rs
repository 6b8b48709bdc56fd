//! A line's time and place in, which of its container's streams takes it out: the labels `late` and `part`.
//!
//! Loki takes no line that is older than its stream's newest one by more than a window, and no more than so many
//! bytes a second of one stream, and it may hide the refusal behind a 204. So a line that is too old goes to a
//! stream for its hour, `late="2026-11-20T17:00:00Z"`, and what is too much for one stream is spread over several,
//! `part="1"` beside the plain one. Both are journaled with the labels, before a line shows them.

use serde::{Deserialize, Serialize};

/// Values that one value of `late` can stand for, in seconds: divisors of an hour, so that a window of an hour or
/// more gives whole hours.
const WIDTHS: [u32; 14] = [3600, 1800, 1200, 900, 600, 300, 120, 60, 30, 20, 15, 10, 5, 1];
/// Seconds, by the lines' own time, over which a container's rate is measured.
const SPAN: i64 = 5;
/// Streams that one container is spread over at most.
const MOST_PARTS: u32 = 32;
/// Bytes of a file that go to one part before it is the next one's turn, at most.
const STRETCH: u64 = 256 << 10;

/// Which streams beside the plain one take a container's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Seconds that one value of `late` stands for; 0 where lines are not late.
    pub late: u32,
    /// Where they are, up to which time, in seconds since 1970. It is not asked anew before a later line: after a crash the
    /// answer might be another one.
    pub until: i64,
    /// Streams that take turns, the plain one among them; 0 and 1 are only that one.
    pub parts: u32,
    /// Bytes of a file that go to one of them before it is the next one's turn.
    pub stretch: u64,
}

impl Route {
    /// Streams that take turns.
    pub fn parts(&self) -> u32 {
        self.parts.max(1)
    }

    /// Whose turn it is at a place of the file: 0 is the plain stream.
    pub fn turn(&self, offset: u64) -> u32 {
        if self.parts <= 1 {
            return 0;
        }
        let turn = (offset / self.stretch.max(1)) % u64::from(self.parts);
        u32::try_from(turn).unwrap_or(0)
    }

    /// The time, in seconds since 1970, that a late line's value of `late` names.
    pub fn hour(&self, seconds: i64) -> i64 {
        let width = i64::from(self.late.max(1));
        seconds.div_euclid(width).saturating_mul(width)
    }
}

/// How many seconds one value of `late` stands for: not more than the window, so that whatever is read in whatever
/// order into one such stream lies within the window, and an hour at most.
pub fn width(window_seconds: i64) -> u32 {
    WIDTHS
        .into_iter()
        .find(|width| i64::from(*width) <= window_seconds)
        .unwrap_or(1)
}

/// Labels with `part` and `late` added, where they are not the plain stream's.
pub fn labels(plain: &str, turn: u32, late: Option<i64>) -> String {
    let mut out = plain.strip_suffix('}').unwrap_or(plain).to_owned();
    // Quotes in values are escaped, so none can look like a name.
    let is_taken = |name: &str| {
        let labels = [format!("{{{name}=\""), format!(", {name}=\"")];
        labels.iter().any(|label| plain.contains(label))
    };
    let mut add = |name: &str, value: &str| {
        if out.len() > 1 {
            out.push_str(", ");
        }
        let mut name = name.to_owned();
        // A label of that name may be the user's own.
        while is_taken(&name) {
            name.insert_str(0, "sluice_");
        }
        out.push_str(&name);
        out.push_str("=\"");
        out.push_str(value);
        out.push('"');
    };
    if let Some(hour) = late {
        let value = jiff::Timestamp::from_second(hour).map_or_else(|_| hour.to_string(), |at| at.to_string());
        add("late", &value);
    }
    if turn > 0 {
        add("part", &turn.to_string());
    }
    out.push('}');
    out
}

/// Measures how fast a container writes, and says over how many streams its lines have to be spread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// Bytes per second that one stream takes.
    rate: u64,
    /// Streams that are of use: together they take what the tenant takes.
    most: u32,
    stretch: u64,
    begin: i64,
    bytes: u64,
    /// The file's end was reached since the last look, so there is no backlog.
    caught_up: bool,
}

impl Spread {
    /// For streams that take `rate` bytes per second in requests of `request` bytes, of a tenant that takes `tenant`.
    pub fn limit(&mut self, rate: u64, tenant: u64, request: u64) {
        self.rate = rate.max(1);
        let most = tenant.div_ceil(self.rate).max(1);
        self.most = u32::try_from(most).unwrap_or(u32::MAX).min(MOST_PARTS);
        self.stretch = (request / 2).clamp(1024, STRETCH);
    }

    /// Everything that the file holds was read.
    pub fn caught_up(&mut self) {
        self.caught_up = true;
    }

    /// Counts a line; returns over how many streams the next ones have to be spread, when that is another number.
    pub fn count(&mut self, seconds: i64, bytes: u64, parts: u32) -> Option<u32> {
        let took = seconds.saturating_sub(self.begin);
        if (0..SPAN).contains(&took) {
            self.bytes += bytes;
            return None;
        }
        // The clock went back, or there was a pause that says nothing about the rate.
        let measured = (SPAN..2 * SPAN)
            .contains(&took)
            .then(|| self.bytes / took.unsigned_abs());
        self.begin = seconds;
        self.bytes = bytes;
        let caught_up = std::mem::take(&mut self.caught_up);
        let measured = match measured {
            Some(measured) => measured,
            None if caught_up => 0,
            None => return None,
        };
        // A tenth more, so that a backlog which has formed is worked off.
        let needed = (measured + measured / 10).div_ceil(self.rate.max(1)).max(1);
        let needed = u32::try_from(needed).unwrap_or(u32::MAX).min(self.most.max(1));
        (needed > parts || (needed < parts && caught_up)).then_some(needed)
    }

    /// Bytes of a file that go to one part before it is the next one's turn.
    pub fn stretch(&self) -> u64 {
        self.stretch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_lines_get_the_label_of_their_hour() {
        let route = Route {
            late: width(3600),
            ..Route::default()
        };
        // 2026-11-20T17:50:01Z
        let hour = route.hour(1_795_197_001);
        assert_eq!(
            labels(r#"{app="web"}"#, 0, Some(hour)),
            r#"{app="web", late="2026-11-20T17:00:00Z"}"#
        );
        assert_eq!(labels("{}", 2, None), r#"{part="2"}"#);
        assert_eq!(labels(r#"{a="b"}"#, 0, None), r#"{a="b"}"#);
        assert_eq!(
            labels(r#"{part="x"}"#, 1, Some(-1)),
            r#"{part="x", late="1969-12-31T23:59:59Z", sluice_part="1"}"#
        );
        assert_eq!(
            labels(r#"{depart="x", part="a, part=\"b", sluice_part="c"}"#, 1, None),
            r#"{depart="x", part="a, part=\"b", sluice_part="c", sluice_sluice_part="1"}"#
        );
        assert_eq!(
            labels(r#"{apart="x", b=", part=\""}"#, 1, None),
            r#"{apart="x", b=", part=\"", part="1"}"#
        );
        assert_eq!(route.hour(-1), -3600);
    }

    #[test]
    fn a_late_streams_lines_lie_within_the_window() {
        for window in [1, 7, 10, 59, 60, 61, 599, 3600, 7200, 604_800] {
            let width = width(window);
            assert!(
                i64::from(width) <= window && 3600 % width == 0,
                "{window}: {width}"
            );
        }
        assert_eq!([width(3600), width(86_400), width(90)], [3600, 3600, 60]);
    }

    #[test]
    fn stretches_take_turns() {
        let route = Route {
            parts: 3,
            stretch: 100,
            ..Route::default()
        };
        let turns: Vec<u32> = [0, 99, 100, 250, 300, 399]
            .map(|offset| route.turn(offset))
            .into();
        assert_eq!(turns, [0, 0, 1, 2, 0, 0]);
        assert_eq!(Route::default().turn(12_345), 0);
    }

    /// What `Spread` asks for while lines of `bytes` come each second from `from` to `to`.
    fn feed(spread: &mut Spread, parts: &mut u32, from: i64, to: i64, bytes: u64) {
        for second in from..to {
            if let Some(next) = spread.count(second, bytes, *parts) {
                *parts = next;
            }
        }
    }

    #[test]
    fn as_many_streams_as_the_rate_needs_and_fewer_when_the_backlog_is_gone() {
        let mut spread = Spread::default();
        spread.limit(1_000, 10_000, 1 << 20);
        let mut parts = 1;
        feed(&mut spread, &mut parts, 100, 120, 900);
        assert_eq!(parts, 1);
        feed(&mut spread, &mut parts, 120, 140, 2_500);
        assert_eq!(parts, 3);
        // Less is written, but what was written before is not sent yet.
        feed(&mut spread, &mut parts, 140, 180, 100);
        assert_eq!(parts, 3);
        spread.caught_up();
        feed(&mut spread, &mut parts, 180, 190, 100);
        assert_eq!(parts, 1);
        // More streams than fill the tenant's rate are of no use.
        feed(&mut spread, &mut parts, 200, 220, 1 << 30);
        assert_eq!(parts, 10);
        // A rest, and a clock that goes back, say nothing.
        feed(&mut spread, &mut parts, 1_000, 1_002, 1);
        feed(&mut spread, &mut parts, 500, 502, 1);
        assert_eq!(parts, 10);
    }
}
