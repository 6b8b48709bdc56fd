//! A container and the runtime that writes its lines, as containerd does: into the file that it opened last, whatever
//! becomes of that file's name.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rand::{RngExt, rngs::StdRng};

/// A container of a pod of its own.
pub(super) struct Container {
    pub(super) folder: PathBuf,
    pub(super) name: String,
    /// What follows in each line.
    padding: String,
    writer: Mutex<Writer>,
}

struct Writer {
    /// Without one the container does not run.
    file: Option<File>,
    written: u64,
    /// The first line of the file.
    first: u64,
    /// The rest of a line of which a piece is written.
    rest: Option<String>,
}

impl Container {
    pub(super) fn new(pods: &Path, pod: &str, padding: usize) -> Self {
        let folder = pods.join(format!("shop_{pod}_uid-{pod}")).join("main");
        fs::create_dir_all(&folder).unwrap();
        let writer = Writer {
            file: None,
            written: 0,
            first: 1,
            rest: None,
        };
        let container = Self {
            name: format!("{pod}/main"),
            folder,
            padding: "x".repeat(padding),
            writer: Mutex::new(writer),
        };
        container.start(0);
        container
    }

    pub(super) fn tip(&self, restart: u32) -> PathBuf {
        self.folder.join(format!("{restart}.log"))
    }

    pub(super) fn written(&self) -> u64 {
        self.writer.lock().unwrap().written
    }

    /// Opens the file of this name anew, as it is told to after a rotation; returns which lines the one before holds.
    pub(super) fn start(&self, restart: u32) -> RangeInclusive<u64> {
        let mut writer = self.writer.lock().unwrap();
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.tip(restart));
        writer.file = Some(file.unwrap());
        let held = writer.first..=writer.written;
        writer.first = writer.written + u64::from(writer.rest.is_none());
        held
    }

    /// The container ends, with its last line whole.
    pub(super) fn end(&self) {
        let mut writer = self.writer.lock().unwrap();
        let rest = writer.rest.take().unwrap_or_default();
        if let Some(mut file) = writer.file.take() {
            file.write_all(rest.as_bytes()).unwrap();
        }
    }

    pub(super) fn write(&self, lines: u64, random: &mut StdRng) {
        let mut writer = self.writer.lock().unwrap();
        if writer.file.is_none() || lines == 0 {
            return;
        }
        let mut text = writer.rest.take().unwrap_or_default();
        for left in (0..lines).rev() {
            writer.written += 1;
            let n = writer.written;
            let stream = if random.random_bool(0.3) {
                "stderr"
            } else {
                "stdout"
            };
            let time = format!(
                "2026-11-20T17:{:02}:{:02}.{:09}Z",
                n / 60_000 % 60,
                n / 1_000 % 60,
                n % 1_000 * 1_000_000
            );
            let line = format!("{} {n} {}", self.name, self.padding);
            if random.random_bool(0.05) {
                let (a, b) = line.split_at(3);
                text.extend([&time, " ", stream, " P ", a, "\n"]);
                let rest = format!("{time} {stream} F {b}\n");
                // Its end may come much later, and in the next file.
                if left == 0 {
                    writer.rest = Some(rest);
                } else {
                    text.push_str(&rest);
                }
            } else {
                text.extend([&time, " ", stream, " F ", &line, "\n"]);
            }
        }
        // In two writes, as a reader may see it.
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        if let Some(file) = &mut writer.file {
            file.write_all(first).unwrap();
            file.write_all(second).unwrap();
        }
    }
}
