//! A log file's bytes in: each line is refused, or its parts are what stands in it, read by jiff and written again.

use jiff::Timestamp as Independent;
use sluice_engine::cri::{Line, Parser, Stream};

/// Jiff reads no later second.
const JIFF_END: i64 = 253_402_207_200;

pub(crate) fn check(data: &[u8]) {
    // What the parser remembers of earlier lines must not matter.
    let mut parser = Parser::default();
    for line in data.split(|byte| *byte == b'\n') {
        let parsed = parser.parse(line);
        assert_eq!(parsed, Parser::default().parse(line));
        if let Ok(parsed) = parsed {
            judge(line, &parsed);
        }
    }
}

fn judge(line: &[u8], parsed: &Line<'_>) {
    assert!(line.ends_with(parsed.content));
    let (seconds, nanos) = (parsed.timestamp.seconds, parsed.timestamp.nanos);
    assert!(nanos < 1_000_000_000);
    let end = line.iter().position(|byte| *byte == b' ').unwrap();
    let header = std::str::from_utf8(&line[..end]).unwrap();
    // A leap second counts as the next one with us; jiff takes it for the one before.
    let leap = header.get(17..19) == Some("60");
    if seconds < JIFF_END && !leap {
        let independent: Independent = header.parse().unwrap();
        let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        assert_eq!(independent.as_nanosecond(), nanoseconds, "{header}");
    }
    if seconds < JIFF_END {
        let written = write(parsed);
        assert_eq!(Parser::default().parse(&written).as_ref(), Ok(parsed));
    }
}

/// As the runtime writes it, in UTC.
fn write(line: &Line<'_>) -> Vec<u8> {
    let nanos = i32::try_from(line.timestamp.nanos).unwrap();
    let time = Independent::new(line.timestamp.seconds, 0).unwrap();
    let mut text = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    if nanos > 0 {
        text += format!(".{nanos:09}").trim_end_matches('0');
    }
    text += match line.stream {
        Stream::Stdout => "Z stdout ",
        Stream::Stderr => "Z stderr ",
    };
    text += if line.partial { "P " } else { "F " };
    [text.as_bytes(), line.content].concat()
}
