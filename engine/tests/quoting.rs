//! Every character in, quoted as a label's value; Go's own `strconv.Unquote` reads the same back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use sluice_engine::loki;

/// Characters of one value: few enough to find the one that is read wrongly.
const VALUE: usize = 256;

#[test]
fn go_reads_back_what_is_quoted() {
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    let mut values: Vec<String> = all.chunks(VALUE).map(|chunk| chunk.iter().collect()).collect();
    // The first of them again, each between others: an escape must not take its neighbour in.
    values.extend(('\0'..'\u{3000}').map(|c| format!("0{c}a{c}{c}\\")));
    let mut input = String::new();
    for value in &values {
        let mut quoted = String::new();
        loki::quote(value, &mut quoted);
        writeln!(input, "{}", serde_json::to_string(&[value, &quoted]).unwrap()).unwrap();
    }
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/quoting/main.go");
    let mut go = Command::new("go")
        .args(["run", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("go, which CONTRIBUTING.md asks for, does not run: {error}"));
    // A Go that stops early says why on stderr.
    let written = go.stdin.take().unwrap().write_all(input.as_bytes());
    let output = go.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && written.is_ok(), "{error} {written:?}");
    let read = String::from_utf8_lossy(&output.stdout);
    assert_eq!(read.trim(), values.len().to_string());
}
