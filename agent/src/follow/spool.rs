//! Records of one container in, files in kubelet's layout out, from which the worker reads them as any others.
//!
//! `<pod>_<pipeline>/<container>/<instance>.log.<time>`: each file grows until it is full or another instance
//! begins, then the next one does; none is ever renamed. What the journal has acknowledged is deleted, but for
//! what is needed to know the lines that come again after a cut. An empty file `over` says that it holds the end.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_engine::cri::{Parser, Timestamp};

use super::known::Known;
use super::record::PIECE;
use crate::discover::names::LogName;

/// Seconds before the newest line from which lines may come again: `sinceTime` has whole ones, and a container's
/// two outputs may overtake each other.
pub const OVERLAP: i64 = 2;
/// Name of the file that says that nothing more comes.
const OVER: &str = "over";
/// A record is never longer.
const LONGEST: u64 = PIECE as u64 + 128;

/// Bytes that the spool may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of one file.
    pub file: u64,
    /// Of one container for one pipeline.
    pub container: u64,
    /// Of all.
    pub total: u64,
    /// Percent of the file system that stay free.
    pub free: u64,
}

#[derive(Debug)]
struct SpoolFile {
    name: LogName,
    len: u64,
    /// Timestamp of its newest line; none while it is empty.
    newest: Option<Timestamp>,
    /// Its last record is not the end of a line.
    unfinished: bool,
}

/// One container's files.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    bounds: Bounds,
    total: Arc<AtomicU64>,
    /// Oldest first.
    files: VecDeque<SpoolFile>,
    open: Option<File>,
}

impl Spool {
    /// The spool in a folder, which need not exist. A record that a crash has torn is cut off.
    ///
    /// # Errors
    /// When what is there cannot be read or mended.
    pub fn open(folder: PathBuf, bounds: Bounds, total: Arc<AtomicU64>) -> io::Result<Self> {
        let mut names = match fs::read_dir(&folder) {
            Ok(entries) => entries
                .filter_map(|entry| LogName::parse(entry.ok()?.file_name().to_str()?))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        names.sort();
        let mut spool = Self {
            folder,
            bounds,
            total,
            files: VecDeque::new(),
            open: None,
        };
        for name in names {
            let (len, last) = mend(&spool.folder.join(name.to_string()))?;
            spool.total.fetch_add(len, Ordering::Relaxed);
            spool.files.push_back(SpoolFile {
                name,
                len,
                newest: last.map(|(newest, _)| newest),
                unfinished: last.is_some_and(|(_, partial)| partial),
            });
        }
        Ok(spool)
    }

    /// The newest instance that has a file.
    pub fn instance(&self) -> Option<u32> {
        self.files.back().map(|file| file.name.restart)
    }

    /// Timestamp of the newest line of an instance.
    pub fn newest(&self, instance: u32) -> Option<Timestamp> {
        let of_instance = self.files.iter().filter(|file| file.name.restart == instance);
        of_instance.filter_map(|file| file.newest).max()
    }

    /// Timestamp of the newest line of all, as far as it is still there.
    pub fn last(&self) -> Option<Timestamp> {
        self.files.iter().rev().find_map(|file| file.newest)
    }

    /// Whether the last record is not the end of a line.
    pub fn is_unfinished(&self) -> bool {
        self.files.back().is_some_and(|file| file.unfinished)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }

    /// Whether nothing more may be added for now.
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.bounds.container
            || self.total.load(Ordering::Relaxed) >= self.bounds.total
            || self.lacks_space()
    }

    /// Whether its file system has too little free space for more.
    pub fn lacks_space(&self) -> bool {
        lacks_space(&self.folder, self.bounds.free)
    }

    /// The records from a second on.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn known(&self, since: i64) -> io::Result<Known> {
        let mut known = Known::default();
        let mut parser = Parser::default();
        for file in self.files.iter().rev() {
            if file
                .newest
                .is_none_or(|newest| newest.seconds.saturating_add(OVERLAP) < since)
            {
                continue;
            }
            let content = fs::read(self.folder.join(file.name.to_string()))?;
            for record in content.split_inclusive(|byte| *byte == b'\n') {
                let line = record.strip_suffix(b"\n").unwrap_or(record);
                if let Ok(line) = parser.parse(line)
                    && line.timestamp.seconds >= since
                {
                    known.add(line.timestamp, record);
                }
            }
        }
        Ok(known)
    }

    /// Adds records of an instance, the newest of them of this time; `now` in seconds since 1970 names a new file.
    ///
    /// # Errors
    /// When they cannot be written as a whole. Those that were are there, none in part.
    pub fn append(&mut self, instance: u32, records: &[u8], newest: Timestamp, now: i64) -> io::Result<()> {
        let fits = |file: &SpoolFile| file.name.restart >= instance && file.len < self.bounds.file;
        if !self.files.back().is_some_and(fits) {
            self.begin(instance, now)?;
        }
        let Some(file) = self.files.back_mut() else {
            return Ok(());
        };
        let path = self.folder.join(file.name.to_string());
        let mut open = if let Some(open) = self.open.take() {
            open
        } else {
            // A write that failed may have left a part of a record, which could not be cut off then.
            mend(&path)?;
            OpenOptions::new().append(true).open(&path)?
        };
        let written = open.write_all(records);
        let (len, last) = match &written {
            Ok(()) => (file.len + records.len() as u64, last(records)),
            Err(_) => mend(&path)?,
        };
        self.total
            .fetch_add(len.saturating_sub(file.len), Ordering::Relaxed);
        file.len = len;
        if let Some((_, partial)) = last {
            file.newest = file.newest.max(Some(newest));
            file.unfinished = partial;
        }
        self.open = Some(open);
        written
    }

    fn begin(&mut self, instance: u32, now: i64) -> io::Result<()> {
        let last = self.files.back().filter(|file| file.name.restart >= instance);
        let name = LogName {
            restart: last.map_or(instance, |file| file.name.restart),
            rotated: Some(stamp(last.and_then(|file| file.name.rotated.as_deref()), now)),
            gz: false,
        };
        let mut folders = fs::DirBuilder::new();
        folders.recursive(true).mode(0o700).create(&self.folder)?;
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.folder.join(name.to_string()))?;
        self.open = Some(file);
        self.files.push_back(SpoolFile {
            name,
            len: 0,
            newest: None,
            unfinished: false,
        });
        Ok(())
    }

    /// Notes that it holds everything that its container has written, for processes to come.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn end(&self) -> io::Result<()> {
        match File::create(self.folder.join(OVER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            // Without a folder nothing was ever written.
            _ => Ok(()),
        }
    }

    /// Whether it holds everything that its container has written.
    pub fn is_over(&self) -> bool {
        self.folder.join(OVER).exists()
    }

    /// Deletes the files before the one up to which everything is delivered.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub fn prune(&mut self, delivered: &LogName) -> io::Result<()> {
        let window = self
            .last()
            .map_or(i64::MIN, |newest| newest.seconds - 2 * OVERLAP);
        while let Some(file) = self.files.front()
            && self.files.len() > 1
            && file.name < *delivered
            && file.newest.is_none_or(|newest| newest.seconds < window)
        {
            fs::remove_file(self.folder.join(file.name.to_string()))?;
            self.total.fetch_sub(file.len, Ordering::Relaxed);
            self.files.pop_front();
        }
        Ok(())
    }

    /// Bytes that are not delivered, when everything up to this place is.
    pub fn waiting(&self, delivered: Option<(&LogName, u64)>) -> u64 {
        let Some((name, offset)) = delivered else {
            return self.bytes();
        };
        let rest = self.files.iter().map(|file| match file.name.cmp(name) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => file.len.saturating_sub(offset),
            std::cmp::Ordering::Greater => file.len,
        });
        rest.sum()
    }

    /// Deletes everything, and the pod's folder with its last container.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn remove(&mut self) -> io::Result<()> {
        self.open = None;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.total.fetch_sub(self.bytes(), Ordering::Relaxed);
        self.files.clear();
        // While it holds other containers it stays.
        let _not_empty = self.folder.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// A time that can name a file after the one with the last name: times in the same second would be one name.
fn stamp(last: Option<&str>, now: i64) -> String {
    const FORM: &str = "%Y%m%d-%H%M%S";
    let second = |text: &str| {
        let time = jiff::civil::DateTime::strptime(FORM, text).ok()?;
        Some(
            time.to_zoned(jiff::tz::TimeZone::UTC)
                .ok()?
                .timestamp()
                .as_second(),
        )
    };
    let next = last
        .and_then(second)
        .map_or(now, |last| now.max(last.saturating_add(1)));
    let time = jiff::Timestamp::from_second(next).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime(FORM).to_string()
}

/// Cuts off what follows the last line feed; says how long the file is and of when its last record.
fn mend(path: &Path) -> io::Result<(u64, Option<(Timestamp, bool)>)> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(2 * LONGEST);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(2 * LONGEST).read_to_end(&mut tail)?;
    let end = memchr::memrchr(b'\n', &tail).map_or(0, |at| at + 1);
    let whole = from + end as u64;
    if whole < len {
        OpenOptions::new().write(true).open(path)?.set_len(whole)?;
    }
    Ok((whole, last(tail.get(..end).unwrap_or_default())))
}

/// Of when the last record is, and whether it is not the end of its line.
fn last(records: &[u8]) -> Option<(Timestamp, bool)> {
    let mut parser = Parser::default();
    let mut records = records.rsplit(|byte| *byte == b'\n');
    let line = records.find_map(|record| parser.parse(record).ok())?;
    Some((line.timestamp, line.partial))
}

/// Whether the file system should be left alone: less than `free` percent of what `df` counts is available.
fn lacks_space(folder: &Path, free: u64) -> bool {
    let there = folder.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
    there.is_some_and(|space| {
        let used = space.f_blocks.saturating_sub(space.f_bfree);
        let all = used.saturating_add(space.f_bavail);
        space.f_bavail.saturating_mul(100) < all.saturating_mul(free)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        file: 100,
        container: 1 << 20,
        total: 1 << 20,
        free: 0,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp {
            seconds: 1_795_197_000 + seconds,
            nanos: 0,
        }
    }

    fn record(seconds: i64, text: &str) -> Vec<u8> {
        let minute = 50 + seconds / 60;
        format!("2026-11-20T17:{minute}:{:02}Z stdout F {text}\n", seconds % 60).into_bytes()
    }

    fn fill(spool: &mut Spool, instance: u32, seconds: std::ops::Range<i64>) {
        for second in seconds {
            let line = record(second, &"x".repeat(60));
            spool.append(instance, &line, at(second), 1_795_197_000).unwrap();
        }
    }

    fn names(spool: &Spool) -> Vec<String> {
        spool.files.iter().map(|file| file.name.to_string()).collect()
    }

    #[test]
    fn files_are_named_in_order_whatever_the_clock_and_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a_b_c_p/main");
        let total: Arc<AtomicU64> = Arc::default();
        let mut spool = Spool::open(folder.clone(), BOUNDS, Arc::clone(&total)).unwrap();
        assert_eq!((spool.instance(), spool.bytes()), (None, 0));
        fill(&mut spool, 0, 0..5);
        fill(&mut spool, 1, 5..6);
        let expected = [
            "0.log.20261120-175000",
            "0.log.20261120-175001",
            "0.log.20261120-175002",
            "1.log.20261120-175000",
        ];
        assert_eq!(names(&spool), expected);
        let again = Spool::open(folder, BOUNDS, Arc::default()).unwrap();
        assert_eq!(names(&again), expected);
        assert_eq!(
            (again.instance(), again.newest(0), again.newest(1)),
            (Some(1), Some(at(4)), Some(at(5)))
        );
        assert_eq!(
            (again.bytes(), total.load(Ordering::Relaxed)),
            (spool.bytes(), spool.bytes())
        );
    }

    #[test]
    fn a_torn_record_is_cut_off_and_comes_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().join("main"), BOUNDS, Arc::default()).unwrap();
        spool.append(0, &record(1, "a"), at(1), 0).unwrap();
        spool.append(0, &record(2, "torn")[..20], at(2), 0).unwrap();
        let again = Spool::open(dir.path().join("main"), BOUNDS, Arc::default()).unwrap();
        assert_eq!(
            (again.bytes(), again.newest(0)),
            (record(1, "a").len() as u64, Some(at(1)))
        );
        let mut known = again.known(at(1).seconds).unwrap();
        assert!(known.take(at(1), &record(1, "a")) && known.is_empty());
    }

    #[test]
    fn delivered_files_go_but_for_those_whose_lines_may_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().join("a_b_c_p/main"), BOUNDS, Arc::default()).unwrap();
        fill(&mut spool, 0, 0..20);
        let all = spool.files.len();
        let last = spool.files.back().unwrap().name.clone();
        let len = spool.files.back().unwrap().len;
        assert_eq!(spool.waiting(None), spool.bytes());
        assert_eq!(spool.waiting(Some((&last, len))), 0);
        assert_eq!(spool.waiting(Some((&last, 1))), len - 1);
        spool.prune(&last).unwrap();
        assert!(
            spool.files.len() < all && spool.files.len() > 1,
            "{:?}",
            names(&spool)
        );
        let mut known = spool.known(at(19).seconds - OVERLAP).unwrap();
        assert!(known.take(at(17), &record(17, &"x".repeat(60))));
        assert!(!known.take(at(16), &record(16, &"x".repeat(60))));
        spool.remove().unwrap();
        assert_eq!(spool.total.load(Ordering::Relaxed), 0);
        assert!(!dir.path().join("a_b_c_p").exists());
    }

    #[test]
    fn bounds_are_kept_by_who_asks() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = |container, total| Bounds {
            container,
            total,
            ..BOUNDS
        };
        for bounds in [bounds(150, 1 << 20), bounds(1 << 20, 150)] {
            let folder = tempfile::tempdir_in(dir.path()).unwrap();
            let mut spool = Spool::open(folder.path().to_owned(), bounds, Arc::default()).unwrap();
            assert!(!spool.is_full());
            fill(&mut spool, 0, 0..2);
            assert!(spool.is_full());
        }
        let bounds = Bounds { free: 101, ..BOUNDS };
        let spool = Spool::open(dir.path().to_owned(), bounds, Arc::default()).unwrap();
        assert!(
            spool.is_full() && spool.lacks_space(),
            "no file system is so empty"
        );
    }
}
