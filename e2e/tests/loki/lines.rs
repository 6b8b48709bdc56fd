//! Writers with their own clocks in, container log files out; and what Loki holds of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sluice_e2e::loki::Line;
use sluice_e2e::tally::number;

/// One container, whose lines are numbered.
pub(crate) struct Writer {
    pub(crate) name: String,
    file: PathBuf,
    pub(crate) written: u64,
}

impl Writer {
    /// A container `container` of a pod; containers of one name share a stream.
    pub(crate) fn new(folder: &Path, pod: &str, container: &str) -> Self {
        let of_container = folder.join(format!("pods/n_{pod}_{pod}/{container}"));
        fs::create_dir_all(&of_container).unwrap();
        Self {
            name: pod.to_owned(),
            file: of_container.join("0.log"),
            written: 0,
        }
    }

    /// Writes lines of so many bytes with these times, in milliseconds since 1970.
    pub(crate) fn write(&mut self, times: impl Iterator<Item = i64>, bytes: usize) {
        let mut text = String::new();
        for time in times {
            self.written += 1;
            let at = Timestamp::from_millisecond(time).unwrap();
            let line = format!("{} n={} ", self.name, self.written);
            let filling = "x".repeat(bytes.saturating_sub(line.len()));
            writeln!(text, "{at} stdout F {line}{filling}").unwrap();
        }
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.file)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// What became of written lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) written: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
}

impl Fate {
    /// Judges what Loki returned of writers.
    pub(crate) fn of(writers: &[(String, u64)], lines: &[Line]) -> Self {
        let mut fate = Self::default();
        for (name, written) in writers {
            let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
            let mut last: BTreeMap<&BTreeMap<String, String>, u64> = BTreeMap::new();
            for line in lines
                .iter()
                .filter(|line| line.text.split(' ').next() == Some(name))
            {
                let number = number(&line.text).unwrap();
                *seen.entry(number).or_default() += 1;
                let before = last.insert(&line.labels, number);
                fate.reordered += u64::from(before.is_some_and(|before| before > number));
            }
            let known: BTreeSet<u64> = (1..=*written)
                .filter(|number| seen.contains_key(number))
                .collect();
            fate.written += written;
            fate.lost += written - known.len() as u64;
            fate.doubled += seen.values().map(|times| times - 1).sum::<u64>();
        }
        fate
    }
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_millisecond()
}
