//! An answer in, what to do with the request out: every row of Loki's status codes, as a function of data.

use std::time::Duration;

use sluice_engine::report::ProblemReason;

use super::problem::Cause;
use super::retry::Hold;
use super::words::{self, Words};
use crate::batch::Limit;

/// An answer and the request that it answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered<'a> {
    /// The status code.
    pub(super) status: u16,
    /// The body's beginning.
    pub(super) body: &'a [u8],
    /// What `Retry-After` asks for.
    pub(super) retry_after: Option<Duration>,
    /// Streams in the request.
    pub(super) streams: u32,
    /// Lines in the request.
    pub(super) lines: u32,
}

/// What to do with the request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Everything is stored.
    Acknowledged,
    /// These lines are refused for good, by reason; the rest is stored.
    Rejected(Vec<(&'static str, u64)>),
    /// Send each stream alone: the answer may be about any of them.
    Apart,
    /// Send two halves; a single line is refused for good, for this reason.
    Halve(&'static str),
    /// Send the identical bytes after a back-off.
    Retry {
        /// What is wrong.
        cause: Cause,
        /// What the server asks for.
        retry_after: Option<Duration>,
        /// The request is larger than what Loki takes in a second: when it is refused again and again, halve.
        oversize: bool,
        /// It is the limit of this stream alone.
        limit: Option<Limit>,
    },
    /// Nothing of this tenant gets through: keep everything and probe slowly.
    Hold {
        /// What is wrong.
        cause: Cause,
        /// How slowly.
        hold: Hold,
    },
}

impl Verdict {
    /// Lines that are refused for good, by reason.
    pub(super) fn refused(self) -> Vec<(&'static str, u64)> {
        if let Self::Rejected(refused) = self {
            refused
        } else {
            Vec::new()
        }
    }
}

/// Loki takes no further stream of this tenant; those that it has still flow.
const STREAM_LIMIT: &str = "maximum active stream limit exceeded";

/// Judges an answer.
pub(super) fn classify(answered: &Answered<'_>) -> Verdict {
    let text = String::from_utf8_lossy(answered.body);
    let text = text.trim_start();
    let cause = |reason| Cause {
        reason,
        status: Some(answered.status),
        detail: "",
    };
    let hold = |reason| Verdict::Hold {
        cause: cause(reason),
        hold: Hold::Refused,
    };
    let retry = |cause| Verdict::Retry {
        cause,
        retry_after: answered.retry_after,
        oversize: false,
        limit: None,
    };
    // Loki blocks with 260 unless told otherwise; the words are the same whatever the code.
    if answered.status == 260 || text.starts_with("ingestion blocked for user ") {
        return Verdict::Hold {
            cause: cause(ProblemReason::IngestionBlocked),
            hold: Hold::Blocked,
        };
    }
    match answered.status {
        204 => Verdict::Acknowledged,
        // A login page is not an acknowledgement, nor is a proxy's apology.
        200 if matches!(text.trim_end(), "" | "ok") => Verdict::Acknowledged,
        300..=399 | 404 | 405 => hold(ProblemReason::WrongPath),
        401 | 403 | 407 => hold(ProblemReason::Unauthorized),
        400 => bad_request(answered, text).unwrap_or_else(|| hold(ProblemReason::UnexpectedAnswer)),
        413 => Verdict::Halve("too_large"),
        // The distributor's message to its ingesters is too large, and always will be.
        500..=599 if text.contains("received message larger than max") => Verdict::Halve("too_large"),
        429 => too_many(answered, text),
        408 | 425 | 499 | 500..=599 => retry(cause(ProblemReason::ServerError)),
        _ => hold(ProblemReason::UnexpectedAnswer),
    }
}

/// A 400 is final in Loki's own words only, and for a lone stream only: among several, one result hides
/// what became of the others.
fn bad_request(answered: &Answered<'_>, text: &str) -> Option<Verdict> {
    let words = words::read(text, u64::from(answered.lines));
    match words {
        Words::Foreign => None,
        _ if answered.streams > 1 => Some(Verdict::Apart),
        Words::Undecodable => Some(Verdict::Halve("unparsable")),
        Words::Refused(refused) => Some(Verdict::Rejected(refused)),
    }
}

fn too_many(answered: &Answered<'_>, text: &str) -> Verdict {
    let (detail, limit) = if text.starts_with("ingestion rate limit exceeded") {
        ("ingestion rate limit exceeded", None)
    } else if text.contains(STREAM_LIMIT) {
        (STREAM_LIMIT, Some(Limit::Streams))
    } else if text.contains("er stream rate limit exceeded") {
        ("per stream rate limit exceeded", Some(Limit::Rate))
    } else {
        ("", None)
    };
    // The tenant's limit is checked before anything is stored. The others are found stream by stream.
    if limit.is_some() && answered.streams > 1 {
        return Verdict::Apart;
    }
    let cause = Cause {
        reason: ProblemReason::RateLimited,
        status: Some(429),
        detail,
    };
    // The words about a stream do not say what Loki's burst for it is. Without sharding Loki takes the first lines of such
    // a request again and again, and never the last ones.
    let oversize = limit == Some(Limit::Rate) || rate_and_size(text).is_some_and(|(rate, size)| size > rate);
    Verdict::Retry {
        cause,
        retry_after: answered.retry_after,
        oversize,
        limit,
    }
}

/// `… (limit: N bytes/sec) while attempting to ingest 'L' lines totaling 'B' bytes, …`.
fn rate_and_size(text: &str) -> Option<(u64, u64)> {
    let (_, rest) = text.split_once("(limit: ")?;
    let (rate, rest) = rest.split_once(" bytes/sec)")?;
    let (_, rest) = rest.split_once("totaling '")?;
    let (size, _) = rest.split_once('\'')?;
    Some((rate.parse().ok()?, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judge(status: u16, body: &str, streams: u32) -> Verdict {
        classify(&Answered {
            status,
            body: body.as_bytes(),
            retry_after: None,
            streams,
            lines: 60,
        })
    }

    fn reason(verdict: &Verdict) -> Option<(ProblemReason, bool)> {
        match verdict {
            Verdict::Retry { cause, .. } => Some((cause.reason, false)),
            Verdict::Hold { cause, .. } => Some((cause.reason, true)),
            Verdict::Acknowledged | Verdict::Rejected(_) | Verdict::Apart | Verdict::Halve(_) => None,
        }
    }

    const TOO_LONG: &str = "max entry size '10' bytes exceeded for stream '{a=\"b\"}' while adding an entry with length '11' bytes\n";
    const RATE: &str = "ingestion rate limit exceeded for user ops (limit: 1000 bytes/sec) while attempting to ingest '10' lines totaling '900' bytes, reduce log volume";

    #[test]
    fn success_is_204_or_200_only() {
        for (status, body) in [(204, ""), (200, ""), (200, "ok\n")] {
            assert_eq!(judge(status, body, 3), Verdict::Acknowledged, "{status}");
        }
        for (status, body) in [
            (200, "<html>Sign in"),
            (200, "\u{feff}<html>Sign in"),
            (200, "{\"error\":\"no\"}"),
            (200, "Please sign in."),
            (201, ""),
            (202, ""),
            (206, ""),
            (422, "no"),
            // Said of a request without streams: somebody emptied ours on the way.
            (422, "error at least one valid stream is required"),
        ] {
            assert_eq!(
                reason(&judge(status, body, 3)),
                Some((ProblemReason::UnexpectedAnswer, true)),
                "{status}"
            );
        }
        let blocked = judge(
            260,
            "ingestion blocked for user 'ops' until 'x' with status code '260'",
            3,
        );
        assert!(
            matches!(blocked, Verdict::Hold { cause, hold: Hold::Blocked } if cause.reason == ProblemReason::IngestionBlocked)
        );
        let blocked = judge(
            403,
            "ingestion blocked for user 'ops' until 'x' with status code '403'",
            3,
        );
        assert_eq!(reason(&blocked), Some((ProblemReason::IngestionBlocked, true)));
    }

    #[test]
    fn configuration_is_held() {
        for (status, expected) in [
            (301, ProblemReason::WrongPath),
            (302, ProblemReason::WrongPath),
            (307, ProblemReason::WrongPath),
            (404, ProblemReason::WrongPath),
            (405, ProblemReason::WrongPath),
            (401, ProblemReason::Unauthorized),
            (403, ProblemReason::Unauthorized),
            (407, ProblemReason::Unauthorized),
            (402, ProblemReason::UnexpectedAnswer),
            (410, ProblemReason::UnexpectedAnswer),
            (415, ProblemReason::UnexpectedAnswer),
        ] {
            assert_eq!(reason(&judge(status, "", 1)), Some((expected, true)), "{status}");
        }
    }

    #[test]
    fn what_may_pass_is_sent_again() {
        for status in [408, 425, 499, 500, 501, 502, 503, 504, 529] {
            let verdict = judge(status, "<html>", 3);
            assert_eq!(
                reason(&verdict),
                Some((ProblemReason::ServerError, false)),
                "{status}"
            );
        }
    }

    #[test]
    fn a_400_is_final_for_a_lone_stream_in_lokis_words() {
        assert_eq!(
            judge(400, TOO_LONG, 1),
            Verdict::Rejected(vec![("line_too_long", 1)])
        );
        assert_eq!(judge(400, TOO_LONG, 2), Verdict::Apart);
        assert_eq!(
            judge(400, "snappy: corrupt input\n", 1),
            Verdict::Halve("unparsable")
        );
        assert_eq!(judge(400, "snappy: corrupt input\n", 2), Verdict::Apart);
        for body in ["", "<html><h1>400 Bad Request</h1>", "Bad Request", "no org id"] {
            for streams in [1, 2] {
                let verdict = judge(400, body, streams);
                assert_eq!(
                    reason(&verdict),
                    Some((ProblemReason::UnexpectedAnswer, true)),
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_large_is_halved() {
        let grpc =
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5 vs. 4)";
        assert_eq!(judge(413, "<html>", 3), Verdict::Halve("too_large"));
        assert_eq!(judge(500, grpc, 3), Verdict::Halve("too_large"));
    }

    #[test]
    fn rate_limits_are_told_apart() {
        assert!(matches!(
            judge(429, RATE, 5),
            Verdict::Retry { oversize: false, .. }
        ));
        let large = RATE.replace("'900'", "'1001'");
        assert!(matches!(
            judge(429, &large, 5),
            Verdict::Retry { oversize: true, .. }
        ));
        for text in [
            "Per stream rate limit exceeded (limit: 3MB/sec) while attempting to ingest for stream",
            "entry with timestamp x ignored, reason: 'Per stream rate limit exceeded (limit: 3MB/sec) while",
            "maximum active stream limit exceeded when trying to create stream {a=\"b\"}, reduce",
        ] {
            assert_eq!(judge(429, text, 5), Verdict::Apart, "{text}");
            let limit = if text.contains("er stream rate") {
                Limit::Rate
            } else {
                Limit::Streams
            };
            assert!(
                matches!(judge(429, text, 1), Verdict::Retry { limit: Some(l), .. } if l == limit),
                "{text}"
            );
            assert_eq!(
                reason(&judge(429, text, 1)),
                Some((ProblemReason::RateLimited, false)),
                "{text}"
            );
        }
        assert_eq!(
            reason(&judge(429, "<html>", 5)),
            Some((ProblemReason::RateLimited, false))
        );
    }

    proptest! {
        #[test]
        fn nothing_but_success_and_lokis_words_ends_a_request(
            status in 100_u16..1000, body in "[ -~]{0,80}", streams in 1_u32..4,
        ) {
            match judge(status, &body, streams) {
                Verdict::Acknowledged => prop_assert!(matches!(status, 200 | 204)),
                Verdict::Rejected(_) => prop_assert!(status == 400 && streams == 1),
                Verdict::Apart => prop_assert!(matches!(status, 400 | 429) && streams > 1),
                Verdict::Halve(_) | Verdict::Retry { .. } | Verdict::Hold { .. } => {}
            }
        }
    }
}
