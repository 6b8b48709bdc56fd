//! A 400's text in, Loki's own reasons and how many lines each refused out.
//!
//! The texts are those of Loki 3.7 (`pkg/validation/validate.go`, `pkg/util/errors.go`,
//! `pkg/ingester/stream.go`, `pkg/chunkenc/interface.go`). The distributor groups its errors, `3 errors like:
//! text; 1 errors like: text`; the ingester lists at most ten and ends with `total ignored: 3 out of 60`.

/// How a message begins, what it also holds, Loki's name of the reason, and how much of a stream it refuses.
#[rustfmt::skip]
const MESSAGES: [(&str, &str, &str, Extent); 17] = [
    ("max entry size '", "bytes exceeded for stream", "line_too_long", Extent::Line),
    ("entry for stream '", "' has timestamp too old: ", "greater_than_max_sample_age", Extent::Line),
    ("entry for stream '", "' has timestamp too new: ", "too_far_in_future", Extent::Line),
    ("entry for stream '", " label names; limit ", "max_label_names_per_series", Extent::Stream),
    ("stream '", "' has label name too long: ", "label_name_too_long", Extent::Stream),
    ("stream '", "' has label value too long: ", "label_value_too_long", Extent::Stream),
    ("stream '", "' has duplicate label name: ", "duplicate_label_names", Extent::Stream),
    ("stream '", "' includes structured metadata, but", "disallowed_structured_metadata", Extent::Line),
    ("stream '", "' has structured metadata too large: ", "structured_metadata_too_large", Extent::Line),
    ("stream '", "' has too many structured metadata", "structured_metadata_too_many", Extent::Line),
    ("error parsing labels '", "", "invalid_labels", Extent::Stream),
    ("couldn't parse labels: ", "", "invalid_labels", Extent::Stream),
    ("error at least one label pair is required", "", "missing_labels", Extent::Stream),
    ("missing required labels '", "", "missing_enforced_labels", Extent::Stream),
    ("entry with timestamp ", "entry too far behind", "too_far_behind", Extent::Line),
    ("entry with timestamp ", "entry out of order", "out_of_order", Extent::Line),
    ("entry too far behind", "", "too_far_behind", Extent::Line),
];

/// What a text of Loki says about a lone stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// These lines were refused for good, the rest was stored.
    Refused(Vec<(&'static str, u64)>),
    /// Nothing was stored: some entry cannot be decoded.
    Undecodable,
    /// Not Loki's words.
    Foreign,
}

/// How much of a stream one message refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Line,
    Stream,
}

/// Reads a 400 that answers a lone stream of `lines` lines. The text may be cut: what is cut off is not
/// counted, but at least one line and at most `lines` are.
pub(super) fn read(text: &str, lines: u64) -> Words {
    let text = text.trim_end();
    if ["snappy: ", "s2: ", "proto: ", "unexpected EOF", "timestamp: "]
        .iter()
        .any(|words| text.starts_with(words))
    {
        return Words::Undecodable;
    }
    let mut refused: Vec<(&'static str, u64)> = Vec::new();
    let mut left = lines;
    for (count, message) in groups(text) {
        let Some((reason, extent)) = reason(message) else {
            // Behind a message of Loki's only Loki's can follow, such as one that is cut short.
            if refused.is_empty() {
                return Words::Foreign;
            }
            add(&mut refused, "other", count, &mut left);
            continue;
        };
        let count = match extent {
            Extent::Stream => lines,
            Extent::Line => total_ignored(message).unwrap_or(count),
        };
        add(&mut refused, reason, count, &mut left);
    }
    Words::Refused(refused)
}

fn add(refused: &mut Vec<(&'static str, u64)>, reason: &'static str, count: u64, left: &mut u64) {
    // A message of Loki's means a line at least, whatever number stands before it.
    let count = count.max(1).min(*left);
    *left -= count;
    if let Some((_, lines)) = refused.iter_mut().find(|(known, _)| *known == reason) {
        *lines += count;
    } else if count > 0 {
        refused.push((reason, count));
    }
}

/// The distributor's groups; a single error stands by itself.
fn groups(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let (count, message) = counted(rest?).unwrap_or((1, rest?));
        // The next group begins at the next `; ` with a count behind it.
        let next = message
            .match_indices("; ")
            .find(|(at, _)| message.get(at + 2..).is_some_and(|s| counted(s).is_some()));
        let (message, following) = match next {
            Some((at, _)) => (message.get(..at).unwrap_or(message), message.get(at + 2..)),
            None => (message, None),
        };
        rest = following;
        Some((count, message))
    })
}

/// `3 errors like: text`.
fn counted(text: &str) -> Option<(u64, &str)> {
    let (count, message) = text.split_once(" errors like: ")?;
    Some((count.parse().ok()?, message))
}

/// The ingester's sum: `total ignored: 3 out of 60 for stream: …`.
fn total_ignored(message: &str) -> Option<u64> {
    let (_, sum) = message.rsplit_once(", total ignored: ")?;
    sum.split_once(' ')?.0.parse().ok()
}

/// Loki's name of the reason that a message gives.
fn reason(message: &str) -> Option<(&'static str, Extent)> {
    MESSAGES
        .iter()
        .find(|(begin, within, ..)| message.starts_with(begin) && message.contains(within))
        .map(|(_, _, reason, extent)| (*reason, *extent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, lines: u64) -> Vec<(&'static str, u64)> {
        match read(text, lines) {
            Words::Refused(refused) => refused,
            other @ (Words::Undecodable | Words::Foreign) => panic!("{other:?}: {text}"),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn every_reason_of_loki_is_known() {
        let stream = r#"{app="a", container="c"}"#;
        for (text, reason, lines) in [
            (
                format!(
                    "max entry size '10' bytes exceeded for stream '{stream}' while adding an entry with length '11' bytes\n"
                ),
                "line_too_long",
                1,
            ),
            (
                format!(
                    "entry for stream '{stream}' has timestamp too old: 2026-11-01T00:00:00Z, oldest acceptable timestamp is: 2026-11-13T00:00:00Z\n"
                ),
                "greater_than_max_sample_age",
                1,
            ),
            (
                format!("entry for stream '{stream}' has timestamp too new: 2027-11-01T00:00:00Z"),
                "too_far_in_future",
                1,
            ),
            (
                format!("entry for stream '{stream}' has 16 label names; limit 15"),
                "max_label_names_per_series",
                60,
            ),
            (
                format!("stream '{stream}' has label name too long: 'x'"),
                "label_name_too_long",
                60,
            ),
            (
                format!("stream '{stream}' has label value too long: 'x'"),
                "label_value_too_long",
                60,
            ),
            (
                format!("stream '{stream}' has duplicate label name: 'x'"),
                "duplicate_label_names",
                60,
            ),
            (
                format!(
                    "stream '{stream}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it"
                ),
                "disallowed_structured_metadata",
                1,
            ),
            (
                format!(
                    "stream '{stream}' has structured metadata too large: '70000' bytes, limit: '65536' bytes. Please see"
                ),
                "structured_metadata_too_large",
                1,
            ),
            (
                format!(
                    "stream '{stream}' has too many structured metadata labels: '129', limit: '128'. Please see"
                ),
                "structured_metadata_too_many",
                1,
            ),
            (
                format!("error parsing labels '{stream}' with error: parse error"),
                "invalid_labels",
                60,
            ),
            (
                "couldn't parse labels: parse error at line 1, col 2".to_owned(),
                "invalid_labels",
                60,
            ),
            (
                "error at least one label pair is required per stream".to_owned(),
                "missing_labels",
                60,
            ),
            (
                format!("missing required labels 'team' for user 'ops' for stream '{stream}' (policy: '')"),
                "missing_enforced_labels",
                60,
            ),
            (
                format!(
                    "entry with timestamp 2026-11-20 10:00:00 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: x, oldest acceptable timestamp is: y',\nuser 'ops', total ignored: 7 out of 60 for stream: {stream}"
                ),
                "too_far_behind",
                7,
            ),
            (
                format!(
                    "entry with timestamp 2026-11-20 10:00:00 +0000 UTC ignored, reason: 'entry out of order',\nuser 'ops', total ignored: 60 out of 60 for stream: {stream}"
                ),
                "out_of_order",
                60,
            ),
        ] {
            assert_eq!(refused(&text, 60), [(reason, lines)], "{text}");
        }
    }

    #[test]
    fn groups_are_counted() {
        let stream = r#"{app="; 9 errors"}"#;
        let long = format!(
            "max entry size '10' bytes exceeded for stream '{stream}' while adding an entry with length '11' bytes"
        );
        let old = format!(
            "entry for stream '{stream}' has timestamp too old: x, oldest acceptable timestamp is: y"
        );
        assert_eq!(
            refused(&format!("3 errors like: {long}"), 60),
            [("line_too_long", 3)]
        );
        let text = format!("3 errors like: {long}; 2 errors like: {old}; 1 errors like: {old}z");
        assert_eq!(
            refused(&text, 60),
            [("line_too_long", 3), ("greater_than_max_sample_age", 3)]
        );
        // Never more than there were, and a group that is cut short still counts.
        assert_eq!(
            refused(&text, 4),
            [("line_too_long", 3), ("greater_than_max_sample_age", 1)]
        );
        assert_eq!(
            refused(&format!("3 errors like: {long}; 2 errors like: entry fo"), 60),
            [("line_too_long", 3), ("other", 2)]
        );
        assert_eq!(
            refused(&format!("0 errors like: {long}"), 60),
            [("line_too_long", 1)]
        );
    }

    #[test]
    fn others_are_not_lokis() {
        for text in [
            "",
            "Bad Request",
            "<html><body>400 Bad Request</body></html>",
            "Content-Encoding \"zstd\" not supported",
            "tenant ID is too long: max 150 characters",
            "<p>max entry size '1' bytes exceeded for stream</p>",
        ] {
            assert_eq!(read(text, 60), Words::Foreign, "{text}");
        }
        for text in [
            "snappy: corrupt input\n",
            "proto: illegal wireType 7\n",
            "unexpected EOF",
        ] {
            assert_eq!(read(text, 60), Words::Undecodable, "{text}");
        }
    }
}
