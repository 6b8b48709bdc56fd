//! Figures and progress of a test in, one line each on the terminal out, also where the test passes.

use std::io::Write as _;

/// Shows one line. It goes to standard error itself, which the test harness does not capture.
pub fn show(line: &str) {
    let mut terminal = std::io::stderr().lock();
    writeln!(terminal, "    {line}").expect("standard error takes a line");
}
