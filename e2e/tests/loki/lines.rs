//! Writers with their own clocks in, container log files out; and what Loki holds of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sluice_e2e::loki::Line;
use sluice_e2e::tally::{SHARD, tally};

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
    pub(crate) lost: usize,
    /// There twice, though Loki could have seen it.
    pub(crate) doubled: usize,
    /// There twice, in different shards of a stream.
    pub(crate) apart: usize,
    pub(crate) reordered: usize,
    /// Streams that are parts of one that Loki sharded.
    pub(crate) shards: usize,
}

impl Fate {
    /// Judges what Loki returned of writers.
    pub(crate) fn of(writers: &[(String, u64)], lines: &[Line]) -> Self {
        let streams: BTreeSet<_> = lines.iter().map(|line| &line.labels).collect();
        let is_shard = |labels: &&&Arc<BTreeMap<_, _>>| labels.contains_key(SHARD);
        let mut fate = Self {
            shards: streams.iter().filter(is_shard).count(),
            ..Self::default()
        };
        for (name, written) in writers {
            let found = tally(lines, name, *written);
            fate.written += written;
            fate.lost += found.missing.len();
            fate.doubled += found.double.len() - found.apart;
            fate.apart += found.apart;
            fate.reordered += found.disorder.len();
        }
        fate
    }
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_millisecond()
}
