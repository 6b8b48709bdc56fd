//! Bytes of libFuzzer in; a panic where a property of one of our readers does not hold out. `SLUICE_FUZZ` names the
//! target.
#![no_main]

mod answer;
mod compressed;
mod cri;
mod document;
mod journal;
mod quoting;
mod spill;
mod split;

use std::sync::OnceLock;

/// Panics where the bytes show a property broken.
type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 8] = [
    ("answer", answer::check),
    ("compressed", compressed::check),
    ("cri", cri::check),
    ("document", document::check),
    ("journal", journal::check),
    ("quoting", quoting::check),
    ("spill", spill::check),
    ("split", split::check),
];

static TARGET: OnceLock<Check> = OnceLock::new();

fn chosen() -> Check {
    let name = std::env::var("SLUICE_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found
        .unwrap_or_else(|| panic!("SLUICE_FUZZ={name:?} is no target: see TARGETS in fuzz/src/main.rs"))
        .1
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(chosen)(data));
