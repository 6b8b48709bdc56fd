//! `docs/known-bugs.md` names every known case, and tests that exist.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

/// The cases of `docs/known-bugs.md`, from 1.
const CASES: u32 = 64;

#[test]
fn every_case_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/known-bugs.md")).unwrap();
    let mut next = 1;
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| case"))
    {
        let first = row.trim_start_matches("| ");
        let number = first
            .split_once(". ")
            .and_then(|(number, _)| number.parse::<u32>().ok());
        if let Some(number) = number {
            assert_eq!(number, next, "cases in order, none left out: {row}");
            next += 1;
        }
        let quoted = row.split('`').skip(1).step_by(2);
        let tests: Vec<_> = quoted.filter_map(|text| text.split_once("::")).collect();
        let header = row.starts_with("| what went wrong");
        assert!(header || !tests.is_empty(), "no test: {row}");
        for (path, name) in tests {
            let source =
                fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            let found = source.contains(&format!("fn {name}("));
            assert!(found, "{path} has no test {name}");
        }
    }
    assert_eq!(next, CASES + 1);
}
