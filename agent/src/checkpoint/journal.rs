//! Records in, a synced file out. Encoding and meaning are in [`record`](super::record) and
//! [`ledger`](super::ledger); this is only the disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::ledger::Ledger;
use super::record::{End, Record};

const FILE: &str = "journal";
const COMPACT_BYTES: u64 = 256 << 10;
const COMPACT_FACTOR: u64 = 4;

/// Why the agent cannot start on a state folder.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another agent runs on it.
    #[error("another agent uses the state folder {0}: stop it, or choose another folder with --state-dir")]
    Locked(PathBuf),
    /// It cannot be made or opened.
    #[error("the state folder {0} cannot be used: {1}")]
    Unusable(PathBuf, io::Error),
    /// The process may open no more files.
    #[error("the worker cannot start: {0}")]
    Worker(io::Error),
}

/// Whether descriptors or memory are short: what could not be read is as good as ever.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const SHORTAGES: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    let number = error.raw_os_error();
    SHORTAGES
        .iter()
        .any(|shortage| number == Some(shortage.raw_os_error()))
}

/// The journal, and what it amounts to.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    _lock: File,
    file: Option<File>,
    ledger: Ledger,
    pending: Vec<u8>,
    unsynced: bool,
    /// A record waits that must be on disk before the lines which depend on it are sent.
    urgent: bool,
    size: u64,
    /// It is written anew when it is longer.
    most: u64,
    /// What is in its place is damaged, and not set aside yet.
    in_the_way: bool,
    /// Why it could not be written last; writing is tried again and again.
    pub failure: Option<String>,
    /// Where a journal is now that was corrupt at the start, or could not be read.
    pub set_aside: Option<PathBuf>,
}

impl Journal {
    /// Opens the state folder for this process alone, and reads what its journal says.
    ///
    /// # Errors
    /// When another agent holds it, it cannot be made or opened, or nothing is left to read the journal with: who went
    /// on without it would send everything again.
    pub fn open(folder: &Path) -> Result<Self, StartError> {
        let unusable = |error| StartError::Unusable(folder.to_owned(), error);
        fs::create_dir_all(folder).map_err(unusable)?;
        let lock = File::create(folder.join("lock"))
            .or_else(|_| File::open(folder))
            .map_err(unusable)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StartError::Locked(folder.to_owned())),
            Err(error) => return Err(unusable(error.into())),
        }
        let mut journal = Self {
            folder: folder.to_owned(),
            _lock: lock,
            file: None,
            ledger: Ledger::default(),
            pending: Vec::new(),
            unsynced: false,
            urgent: false,
            size: 0,
            most: COMPACT_BYTES,
            in_the_way: false,
            failure: None,
            set_aside: None,
        };
        journal.load().map_err(unusable)?;
        if journal.ledger.epoch == 0 {
            // Its own number, so that who follows the counters sees that they begin anew.
            journal
                .ledger
                .apply(&Record::Epoch(rand::random_range(1..=u64::MAX)));
        }
        journal.compact();
        Ok(journal)
    }

    /// What it says.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Appends a record; it is durable after the next [`Journal::sync`].
    pub fn append(&mut self, record: &Record) {
        self.ledger.apply(record);
        record.encode(&mut self.pending);
        self.unsynced = true;
    }

    /// Appends a record that lines depend on.
    pub fn append_urgent(&mut self, record: &Record) {
        self.append(record);
        self.urgent = true;
    }

    /// Makes durable what lines that are about to be sent depend on.
    pub fn sync_urgent(&mut self) {
        if self.urgent {
            self.sync();
        }
    }

    /// Makes everything durable. A failure is kept in `failure`, and the next call tries again.
    pub fn sync(&mut self) {
        if !self.unsynced && self.failure.is_none() {
            return;
        }
        self.urgent = false;
        let Some(file) = self.file.as_mut().filter(|_| self.failure.is_none()) else {
            self.compact();
            return;
        };
        let written = file.write_all(&self.pending).and_then(|()| file.sync_data());
        self.size += self.pending.len() as u64;
        self.pending.clear();
        match written {
            Ok(()) => self.unsynced = false,
            Err(error) => self.failed(&error),
        }
        if self.failure.is_none() && self.size > self.most {
            self.shorten();
        }
    }

    fn load(&mut self) -> io::Result<()> {
        let path = self.folder.join(FILE);
        let damage = match fs::read(&path) {
            Ok(bytes) => {
                let (ledger, end) = Ledger::decode(&bytes);
                self.ledger = ledger;
                (end == End::Corrupt).then(|| "its records are damaged".to_owned())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) if is_shortage(&error) => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        if let Some(damage) = damage {
            tracing::error!(damage, path = %path.display(), kept = self.ledger.cursors.len(),
                "the journal cannot be read to its end: going on with the records before that");
            self.in_the_way = true;
            self.set_aside = Some(path);
        }
        Ok(())
    }

    /// Moves a damaged journal out of the new one's place.
    fn clear_the_way(&mut self) -> io::Result<()> {
        if !self.in_the_way {
            return Ok(());
        }
        let mut names = (1..u32::MAX).map(|n| self.folder.join(format!("{FILE}.corrupt-{n}")));
        let aside = names.find(|path| !path.exists());
        let aside = aside.ok_or(io::ErrorKind::AlreadyExists)?;
        fs::rename(self.folder.join(FILE), &aside)?;
        tracing::warn!(aside = %aside.display(), "the damaged journal is set aside");
        self.in_the_way = false;
        self.set_aside = Some(aside);
        Ok(())
    }

    /// Writes the journal anew, as short as it can be, in the old one's place. The old one is written on where that
    /// fails before it is replaced.
    fn rewrite(&mut self) -> io::Result<()> {
        let bytes = self.ledger.encode();
        let (path, fresh) = (self.folder.join(FILE), self.folder.join("journal.new"));
        // First: once the old one is replaced, nothing may fail for want of a descriptor.
        let folder = File::open(&self.folder)?;
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        self.clear_the_way()?;
        fs::rename(&fresh, &path)?;
        self.file = None;
        folder.sync_all()?;
        self.file = Some(file);
        self.size = bytes.len() as u64;
        self.most = COMPACT_BYTES.max(COMPACT_FACTOR * self.size);
        self.pending.clear();
        self.unsynced = false;
        Ok(())
    }

    /// Writes a journal anew that cannot be written on.
    fn compact(&mut self) {
        match self.rewrite() {
            Ok(()) => {
                if self.failure.take().is_some() {
                    tracing::info!("positions can be written again");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Writes anew a journal that has grown; where that cannot be, all of it is there, and it goes on growing.
    fn shorten(&mut self) {
        if let Err(error) = self.rewrite() {
            if self.file.is_none() {
                return self.failed(&error);
            }
            tracing::warn!(%error, size = self.size, "the journal of positions cannot be shortened yet");
            self.most = self.size + COMPACT_BYTES;
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if self.failure.is_none() {
            tracing::error!(%error, folder = %self.folder.display(), "positions cannot be written");
        }
        // The ledger has it all: the next attempt writes a whole new journal.
        self.pending.clear();
        self.failure = Some(error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(uid: &str) -> Record {
        Record::PipelineSeen(uid.into())
    }

    #[test]
    fn short_of_descriptors_or_memory_is_no_damage() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert!(is_shortage(&error(errno)), "{errno:?}");
        }
        for errno in [Errno::IO, Errno::NOENT, Errno::ACCESS] {
            assert!(!is_shortage(&error(errno)), "{errno:?}");
        }
        assert!(!is_shortage(&io::Error::other("no number")));
    }

    #[test]
    fn a_second_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Journal::open(dir.path()).unwrap();
        assert!(matches!(Journal::open(dir.path()), Err(StartError::Locked(_))));
        drop(first);
        assert!(Journal::open(dir.path()).is_ok());
    }

    #[test]
    fn counters_keep_their_epoch_for_as_long_as_the_journal_lives() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Journal::open(dir.path()).unwrap().ledger().epoch;
        let first = open();
        assert_ne!(first, 0);
        assert_eq!(open(), first);
        fs::remove_file(dir.path().join("journal")).unwrap();
        assert_ne!(open(), first);
    }

    #[test]
    fn records_survive_and_a_torn_tail_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.append(&seen("a"));
        journal.sync();
        journal.append(&seen("lost"));
        drop(journal);
        let path = dir.path().join("journal");
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend([9, 0, 0]);
        fs::write(&path, bytes).unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.ledger().pipelines.iter().collect::<Vec<_>>(), ["a"]);
        assert!(journal.set_aside.is_none());
    }

    #[test]
    fn a_corrupt_journal_is_set_aside_and_its_beginning_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        for round in 1..=2 {
            let mut bytes = super::super::record::HEADER.to_vec();
            seen("a").encode(&mut bytes);
            let damage = bytes.len() + 9;
            seen("b").encode(&mut bytes);
            seen("c").encode(&mut bytes);
            bytes[damage] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let journal = Journal::open(dir.path()).unwrap();
            assert!(journal.set_aside.is_some());
            assert_eq!(journal.ledger().pipelines.iter().collect::<Vec<_>>(), ["a"]);
            assert_eq!(
                fs::read(dir.path().join(format!("journal.corrupt-{round}"))).unwrap(),
                bytes
            );
        }
    }

    #[test]
    fn one_that_cannot_be_read_is_set_aside_or_said_to_be_there_still() {
        let dir = tempfile::tempdir().unwrap();
        // A folder in its place stands for a disk that does not give it.
        let (path, aside) = (dir.path().join("journal"), dir.path().join("journal.corrupt-1"));
        fs::create_dir(&path).unwrap();
        // And what no folder can replace for one that does not let it be moved.
        std::os::unix::fs::symlink("nowhere", &aside).unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.append(&seen("a"));
        journal.sync();
        assert!(journal.failure.is_some() && path.is_dir());
        assert_eq!(journal.set_aside, Some(path.clone()));
        fs::remove_file(&aside).unwrap();
        journal.sync();
        assert_eq!(
            (&journal.failure, &journal.set_aside),
            (&None, &Some(aside.clone()))
        );
        assert!(aside.is_dir());
        drop(journal);
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!((journal.ledger().pipelines.len(), &journal.set_aside), (1, &None));
    }

    #[test]
    fn it_is_compacted_when_it_grew() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        for _ in 0..40_000 {
            journal.append(&seen("a"));
        }
        journal.sync();
        assert!(fs::metadata(dir.path().join("journal")).unwrap().len() < 150);
        journal.append(&seen("b"));
        journal.sync();
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().ledger().pipelines.len(), 2);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        // A folder in the new journal's place stands for a full or read-only disk; root may do all else.
        fs::create_dir(dir.path().join("journal.new")).unwrap();
        journal.file = None;
        journal.append(&seen("a"));
        journal.sync();
        assert!(journal.failure.is_some());
        fs::remove_dir(dir.path().join("journal.new")).unwrap();
        journal.sync();
        assert!(journal.failure.is_none());
        drop(journal);
        assert_eq!(Journal::open(dir.path()).unwrap().ledger().pipelines.len(), 1);
    }
}
