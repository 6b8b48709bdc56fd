//! Log lines and names that nobody should have written in, what is sent of them out: each line once, with a time
//! and labels that Loki can read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    reason = "tests"
)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

mod files_rig;

use files_rig::Rig;

/// 2026-11-20T17:50:01.5Z, the line before each.
const BEFORE: (i64, u32) = (1_795_197_001, 500_000_000);

#[test]
fn every_line_is_sent_once_with_a_time_that_loki_can_read() {
    // What stands in the file; the time, the text and the stream that are sent.
    let rows = [
        (
            "2026-11-20T17:50:02Z stdout F a",
            (1_795_197_002, 0),
            "a",
            "stdout",
        ),
        (
            "2026-11-20T17:50:02.000000001Z stderr F a",
            (1_795_197_002, 1),
            "a",
            "stderr",
        ),
        (
            "2026-11-20T17:50:02.123456789+05:45 stdout F a",
            (1_795_176_302, 123_456_789),
            "a",
            "stdout",
        ),
        (
            "2026-11-20T17:50:02Z stdout F:x:y a",
            (1_795_197_002, 0),
            "a",
            "stdout",
        ),
        (
            "1969-12-31T23:59:59.5Z stdout F a",
            (-1, 500_000_000),
            "a",
            "stdout",
        ),
        (
            "0001-01-01T00:00:00Z stdout F a",
            (-62_135_596_800, 0),
            "a",
            "stdout",
        ),
        (
            "9999-12-31T23:59:59.999999999Z stdout F a",
            (253_402_300_799, 999_999_999),
            "a",
            "stdout",
        ),
        // Not of this format: as it is, with the time of the line before.
        ("0000-01-01T00:00:00Z stdout F a", BEFORE, "", ""),
        ("0001-01-01T00:00:00+00:01 stdout F a", BEFORE, "", ""),
        ("9999-12-31T23:59:59-00:01 stdout F a", BEFORE, "", ""),
        ("10000-01-01T00:00:00Z stdout F a", BEFORE, "", ""),
        ("2026-02-30T00:00:00Z stdout F a", BEFORE, "", ""),
        ("2026-11-20T17:50:02.1234567890Z stdout F a", BEFORE, "", ""),
        ("2026-11-20T17:50:02+24:00 stdout F a", BEFORE, "", ""),
        ("2026-11-20T17:50:02Z stdout X a", BEFORE, "", ""),
        (
            "2026-11-20T17:50:02Z stdout 2026-11-20T17:50:02Z stdout F a",
            BEFORE,
            "",
            "",
        ),
        ("{\"a\":1}", BEFORE, "", ""),
        ("\u{fffd}\0\u{1b}[31m", BEFORE, "", ""),
    ];
    for (line, time, text, stream) in rows {
        let mut rig = Rig::new();
        rig.log("0.log", &["before"]);
        rig.write("0.log", format!("{line}\n"));
        rig.log("0.log", &["after"]);
        rig.run(200);
        let [before, sent, after] = rig.acked.as_slice() else {
            panic!("{line:?}: {:?}", rig.acked);
        };
        assert_eq!(
            (before.line.as_str(), after.line.as_str()),
            ("before", "after"),
            "{line:?}"
        );
        assert_eq!((sent.seconds, sent.nanos), time, "{line:?}");
        assert_eq!(sent.line, if stream.is_empty() { line } else { text });
        let said = if stream.is_empty() {
            String::new()
        } else {
            format!("stream={stream};")
        };
        assert_eq!(sent.metadata, format!("pod=web-0;{said}"), "{line:?}");
        let malformed = rig.core().figures().malformed_lines;
        assert_eq!(malformed, u64::from(stream.is_empty()), "{line:?}");
    }
}

/// A folder's name that is no text never becomes a label; one that is, is quoted.
#[test]
fn names_of_folders_cannot_break_out_of_a_label() {
    let mut rig = Rig::new();
    let pod = rig.dir.path().join("pods").join(files_rig::POD);
    let hostile = "c\"}, namespace=\"kube-system\\";
    let line = files_rig::cri("stdout", "F", "x");
    for name in [hostile.as_bytes(), b"not\xfftext", b"fine"] {
        let folder = pod.join(OsStr::from_bytes(name));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("0.log"), &line).unwrap();
    }
    let foreign = rig
        .dir
        .path()
        .join("pods")
        .join(OsStr::from_bytes(b"a_\xff_uid-2/c"));
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("0.log"), &line).unwrap();
    rig.run(500);
    let mut labels: Vec<&str> = rig.acked.iter().map(|sent| sent.labels.as_str()).collect();
    labels.sort_unstable();
    assert_eq!(
        labels,
        [
            r#"{container="c\"}, namespace=\"kube-system\\", namespace="a", node_name="node1"}"#,
            r#"{container="fine", namespace="a", node_name="node1"}"#,
        ]
    );
}
