//! The state folder in; copies of vanishing files that outlive a crash out.
//!
//! A copy has a name only when it is whole and synced, so there is none that is half made. One that the disk
//! damaged later gives what comes before the damage. None is held open: there may be thousands, and descriptors are
//! few.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::record::{self, FRAME, Frame, Head, MAGIC, PIECE, PIECE_HEAD, Range};
use crate::checkpoint::folder;
use crate::checkpoint::journal::is_shortage;

const FOLDER: &str = "spill";
const UNFINISHED: &str = "tmp";
const DAMAGED: &str = "damaged";
/// Files are kept for Loki only while so much of their file system is free, in percent.
pub const RESERVE: u64 = 15;

/// Where copies are kept. Their names are numbers that grow, so they are in the order in which they were made.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    next: u64,
    /// Copies that could not be read at the start: set aside where they are damaged, left for the next start where
    /// the disk does not give them.
    pub damaged: u32,
}

/// Whether a folder's file system has more free space than the [`RESERVE`], as `df` counts it: what is free for all
/// of what is used and free. One that does not say has.
pub fn has_reserve(folder: &Path) -> bool {
    let Ok(stat) = rustix::fs::statvfs(folder) else {
        return true;
    };
    let all = stat
        .f_blocks
        .saturating_sub(stat.f_bfree)
        .saturating_add(stat.f_bavail);
    stat.f_bavail.saturating_mul(100) >= all.saturating_mul(RESERVE)
}

impl Store {
    /// Finds the copies in a state folder, oldest first, and throws away what is not whole.
    ///
    /// # Errors
    /// When the folder cannot be listed, or descriptors or memory are short: who went on without the copies would
    /// read behind what is in them alone.
    pub fn open(state_dir: &Path) -> io::Result<(Self, Vec<Spilled>)> {
        let mut store = Self {
            folder: state_dir.join(FOLDER),
            next: 1,
            damaged: 0,
        };
        let entries = match fs::read_dir(&store.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((store, Vec::new())),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                // Its file was still there when it was begun; if the removal fails, the next start tries again.
                let _gone = fs::remove_file(&path);
            }
            let Some(number) = number(&path) else { continue };
            store.next = store.next.max(number.saturating_add(1));
            if path.extension().is_some() {
                continue;
            }
            match Spilled::open(&path) {
                Ok(spilled) => found.push((number, spilled)),
                Err(error) if is_shortage(&error) => return Err(error),
                Err(error) => {
                    store.damaged += 1;
                    set_aside(&path, &error);
                }
            }
        }
        found.sort_by_key(|(number, _)| *number);
        Ok((store, found.into_iter().map(|(_, spilled)| spilled).collect()))
    }

    /// Whether there is room for another copy.
    pub fn has_reserve(&self) -> bool {
        has_reserve(self.folder.parent().unwrap_or(&self.folder))
    }

    /// Begins a copy.
    ///
    /// # Errors
    /// When the disk takes nothing more.
    pub fn begin(&mut self, head: Head) -> io::Result<Writer> {
        folder::make(&self.folder)?;
        let path = self.folder.join(format!("{:016}", self.next));
        let unfinished = path.with_extension(UNFINISHED);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .read(true)
            .mode(0o600)
            .open(&unfinished)?;
        self.next += 1;
        let mut out = MAGIC.to_vec();
        head.encode(&mut out);
        let mut writer = Writer {
            file,
            unfinished,
            path,
            at: 0,
            end: head.base,
            head,
            index: Vec::new(),
            encoder: snap::raw::Encoder::new(),
        };
        writer.put(&out)?;
        Ok(writer)
    }
}

/// The number that a copy has, or had before it was set aside.
fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// A copy that cannot be read makes room for others, if it never will be.
fn set_aside(path: &Path, error: &io::Error) {
    let damaged = matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    );
    let moved = damaged && fs::rename(path, path.with_extension(DAMAGED)).is_ok();
    tracing::error!(path = %path.display(), %error, moved, "a spilled copy cannot be read: its lines are not sent");
}

/// A copy in the making; dropped before it is finished it leaves nothing.
pub struct Writer {
    file: File,
    /// Its name until it is whole.
    unfinished: PathBuf,
    path: PathBuf,
    head: Head,
    index: Vec<(u64, u64)>,
    at: u64,
    end: u64,
    encoder: snap::raw::Encoder,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Offset in the file of the next byte to be copied.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends the bytes that follow, and has them on their way to the disk when it returns.
    ///
    /// # Errors
    /// When the disk takes nothing more.
    pub fn append(&mut self, data: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        for piece in data.chunks(PIECE) {
            self.index.push((self.end, self.at + out.len() as u64));
            let compressed = self.encoder.compress_vec(piece).map_err(io::Error::other)?;
            record::encode_piece(self.end, piece, &compressed, &mut out);
            self.end += piece.len() as u64;
        }
        self.put(&out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable, so that the end has little left to wait for.
    ///
    /// # Errors
    /// When the disk does not do it.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Makes the copy durable, under its name. One that is not `whole`, since its file could not be read to the end,
    /// has none either.
    ///
    /// # Errors
    /// When the disk does not do it.
    pub fn finish(mut self, whole: bool) -> io::Result<Spilled> {
        // First: once the copy has its name, nothing may fail for want of a descriptor.
        let folder = self.path.parent().map(File::open).transpose()?;
        if whole {
            let mut end = Vec::new();
            record::encode_end(&mut end);
            self.put(&end)?;
        }
        self.file.sync_all()?;
        // Unlike a new name, a second one never replaces another copy.
        fs::hard_link(&self.unfinished, &self.path)?;
        if let Err(error) = folder.map_or(Ok(()), |folder| folder.sync_all()) {
            // Nobody would know of it, and the next process would send it besides the one that is made then.
            let _gone = fs::remove_file(&self.path);
            return Err(error);
        }
        Ok(Spilled {
            path: self.path.clone(),
            head: std::mem::take(&mut self.head),
            index: std::mem::take(&mut self.index),
            end: AtomicU64::new(self.end),
            bytes: self.at,
            damaged: AtomicBool::new(!whole),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The next start throws it away.
        let _gone = fs::remove_file(&self.unfinished);
    }
}

/// A copy that is whole and synced.
#[derive(Debug)]
pub struct Spilled {
    path: PathBuf,
    head: Head,
    /// Offset in the file, and where its piece's record is.
    index: Vec<(u64, u64)>,
    end: AtomicU64,
    bytes: u64,
    damaged: AtomicBool,
}

impl Spilled {
    /// Opens a copy; one whose end is damaged ends before that.
    ///
    /// # Errors
    /// When it cannot be read, or does not say whose it is.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut magic = [0; MAGIC.len()];
        file.read_exact_at(&mut magic, 0)?;
        if magic != MAGIC {
            return Err(damage("it is no spilled copy, or one of a later version"));
        }
        let mut at = MAGIC.len() as u64;
        let head = body(&file, at)?.ok_or_else(|| damage("its head is damaged"))?;
        at += (FRAME + head.len()) as u64;
        let head = Head::decode(&head).ok_or_else(|| damage("its head is damaged"))?;
        let mut spilled = Self {
            end: AtomicU64::new(head.base),
            head,
            path: path.to_owned(),
            index: Vec::new(),
            bytes,
            damaged: AtomicBool::new(false),
        };
        while let Some((range, next)) = spilled.piece_at(&file, at)? {
            spilled.index.push((range.offset, at));
            spilled
                .end
                .store(range.offset + u64::from(range.len), Ordering::Relaxed);
            at = next;
        }
        let is_whole = readable(body(&file, at))?
            .flatten()
            .is_some_and(|last| record::is_end(&last));
        spilled.damaged.store(!is_whole, Ordering::Relaxed);
        Ok(spilled)
    }

    /// The range of the piece whose record begins at `at`, and where the next record begins. Its content is only
    /// checked when it is read.
    fn piece_at(&self, file: &File, at: u64) -> io::Result<Option<(Range, u64)>> {
        let mut begin = [0; FRAME + PIECE_HEAD];
        if readable(file.read_exact_at(&mut begin, at))?.is_none() {
            return Ok(None);
        }
        let piece = begin.split_first_chunk::<FRAME>().and_then(|(frame, body)| {
            let next = at + (FRAME + Frame::decode(*frame)?.len) as u64;
            Some((record::range(body)?, next))
        });
        Ok(piece.filter(|(range, next)| range.offset == self.end() && *next <= self.bytes))
    }

    /// The piece that begins at an offset, and whose record is at `at`; the file is opened for the first.
    fn piece(&self, file: &mut Option<File>, offset: u64, at: u64) -> io::Result<Vec<u8>> {
        let file = match file {
            Some(file) => file,
            None => file.insert(File::open(&self.path)?),
        };
        let piece = body(file, at)?.and_then(|body| record::decode_piece(&body));
        let piece = piece.filter(|(range, _)| range.offset == offset);
        Ok(piece.ok_or_else(|| damage("a piece is damaged"))?.1)
    }

    /// Whose bytes these are.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Offset in the file behind the last byte that can be read.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Whether it ends before the file did.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Bytes that it takes on the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the file at an offset, as many as are there and fit; none from damage on.
    ///
    /// # Errors
    /// When descriptors or memory are short, and what is there can be read later.
    pub fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let (mut file, mut read) = (None, 0);
        while read < into.len() && offset + (read as u64) < self.end() {
            let wanted = offset + read as u64;
            let piece = self.index.partition_point(|(begin, _)| *begin <= wanted);
            let Some((begin, at)) = piece.checked_sub(1).and_then(|piece| self.index.get(piece)) else {
                break;
            };
            let data = match self.piece(&mut file, *begin, *at) {
                Ok(data) => data,
                // Fewer bytes would be taken for the copy's end.
                Err(error) if is_shortage(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(path = %self.path.display(), offset = begin, %error, "a spilled copy is damaged: it ends there");
                    self.end.store(*begin, Ordering::Relaxed);
                    self.damaged.store(true, Ordering::Relaxed);
                    break;
                }
            };
            let skip = usize::try_from(wanted - begin).unwrap_or(usize::MAX);
            let from = data.get(skip..).unwrap_or_default();
            let to = into.get_mut(read..).unwrap_or_default();
            let len = from.len().min(to.len());
            if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
                to.copy_from_slice(from);
            }
            if len == 0 {
                break;
            }
            read += len;
        }
        Ok(read)
    }

    /// Deletes it: everything in it is acknowledged, or must not be sent any more.
    pub fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a spilled copy cannot be deleted");
        }
    }
}

fn damage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What was read; `None` where nobody can read it, an error where that may pass.
fn readable<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error) if is_shortage(&error) => Err(error),
        read => Ok(read.ok()),
    }
}

/// The body of the record at `at`; `None` when it is damaged.
fn body(file: &File, at: u64) -> io::Result<Option<Vec<u8>>> {
    let mut frame = [0; FRAME];
    file.read_exact_at(&mut frame, at)?;
    let Some(frame) = Frame::decode(frame) else {
        return Ok(None);
    };
    let mut body = vec![0; frame.len];
    file.read_exact_at(&mut body, at + FRAME as u64)?;
    Ok(frame.fits(&body).then_some(body))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn head(base: u64) -> Head {
        Head {
            folder: "a_b_c".into(),
            container: "main".into(),
            base,
            begin: b"begin".to_vec(),
            ..Head::default()
        }
    }

    /// Bytes that compress badly, so that pieces are long.
    fn noise(len: usize) -> Vec<u8> {
        (0..len as u64)
            .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[5])
            .collect()
    }

    fn spill(dir: &Path, base: u64, parts: &[&[u8]]) -> Spilled {
        let mut writer = Store::open(dir).unwrap().0.begin(head(base)).unwrap();
        for part in parts {
            writer.append(part).unwrap();
        }
        writer.finish(true).unwrap()
    }

    fn all(spilled: &Spilled) -> Vec<u8> {
        let mut read = vec![0; 1 << 20];
        let len = spilled.read_at(spilled.head().base, &mut read).unwrap();
        read.truncate(len);
        read
    }

    #[test]
    fn a_copy_is_found_again_and_read_at_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let data = noise(300_000);
        let made = spill(
            dir.path(),
            1_000,
            &[&data[..5], &data[5..100_000], &data[100_000..]],
        );
        let (store, found) = Store::open(dir.path()).unwrap();
        assert_eq!((store.next, store.damaged), (2, 0));
        for spilled in [&made, &found[0]] {
            assert_eq!((spilled.head(), spilled.end()), (&head(1_000), 301_000));
            assert!(!spilled.is_damaged());
            for offset in [
                1_000_u64, 1_004, 1_005, 66_541, 200_000, 300_999, 301_000, 999_999,
            ] {
                let mut into = vec![0; 70_000];
                let read = spilled.read_at(offset, &mut into).unwrap();
                let rest = data
                    .get(usize::try_from(offset).unwrap() - 1_000..)
                    .unwrap_or_default();
                assert_eq!(into[..read], rest[..rest.len().min(70_000)], "{offset}");
            }
        }
        let path = dir.path().join("spill/0000000000000001");
        let rights = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((rights(&path), rights(&dir.path().join("spill"))), (0o600, 0o700));
        made.remove();
        assert!(!path.exists());
    }

    #[test]
    fn one_of_a_file_that_could_not_be_read_to_its_end_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Store::open(dir.path()).unwrap().0.begin(head(0)).unwrap();
        writer.append(b"x").unwrap();
        let made = writer.finish(false).unwrap();
        for spilled in [&made, &Store::open(dir.path()).unwrap().1[0]] {
            assert!(spilled.is_damaged());
            assert_eq!(all(spilled), b"x");
        }
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Store::open(dir.path()).unwrap().0.begin(head(0)).unwrap();
        writer.append(b"x").unwrap();
        let files = || fs::read_dir(dir.path().join("spill")).unwrap().count();
        assert_eq!(files(), 1);
        assert_eq!(Store::open(dir.path()).unwrap().1.len(), 0);
        assert_eq!(files(), 0, "a start throws it away");
        drop(writer);
        let dropped = Store::open(dir.path()).unwrap().0.begin(head(0)).unwrap();
        drop(dropped);
        assert_eq!(files(), 0);
    }

    #[test]
    fn one_that_does_not_say_whose_it_is_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        drop(spill(dir.path(), 0, &[b"x"]));
        let path = dir.path().join("spill/0000000000000001");
        let mut bytes = fs::read(&path).unwrap();
        bytes[25] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (store, found) = Store::open(dir.path()).unwrap();
        assert_eq!((store.damaged, found.len(), store.next), (1, 0, 2));
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn one_that_the_disk_does_not_give_is_left_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [b"x", b"y"] {
            drop(spill(dir.path(), 0, &[bytes]));
        }
        // A folder in its place stands for a disk that fails: it is opened, and not read.
        let path = dir.path().join("spill/0000000000000001");
        let away = dir.path().join("away");
        fs::rename(&path, &away).unwrap();
        fs::create_dir(&path).unwrap();
        let (store, found) = Store::open(dir.path()).unwrap();
        assert_eq!((store.damaged, found.len(), store.next), (1, 1, 3));
        fs::remove_dir(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        let (store, found) = Store::open(dir.path()).unwrap();
        assert_eq!(
            (store.damaged, all(&found[0]), all(&found[1])),
            (0, b"x".to_vec(), b"y".to_vec())
        );
    }

    #[test]
    fn a_folder_that_cannot_be_listed_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Store::open(dir.path()).is_ok(), "there is none yet");
        fs::write(dir.path().join("spill"), "").unwrap();
        assert!(Store::open(dir.path()).is_err());
    }

    #[test]
    fn a_copy_never_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Store::open(dir.path()).unwrap().0.begin(head(0)).unwrap();
        writer.append(b"second").unwrap();
        let other = tempfile::tempdir().unwrap();
        drop(spill(other.path(), 0, &[b"first"]));
        let path = "spill/0000000000000001";
        fs::rename(other.path().join(path), dir.path().join(path)).unwrap();
        assert_eq!(
            writer.finish(true).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let (_, found) = Store::open(dir.path()).unwrap();
        assert_eq!((found.len(), all(&found[0])), (1, b"first".to_vec()));
    }

    #[test]
    fn what_was_set_aside_keeps_its_number() {
        let dir = tempfile::tempdir().unwrap();
        drop(spill(dir.path(), 0, &[b"x"]));
        let path = dir.path().join("spill/0000000000000001");
        fs::write(&path, b"").unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().0.damaged, 1);
        assert_eq!(Store::open(dir.path()).unwrap().0.next, 2);
    }

    #[test]
    fn one_that_is_deleted_by_hand_ends_there() {
        let dir = tempfile::tempdir().unwrap();
        let made = spill(dir.path(), 0, &[b"x"]);
        fs::remove_file(dir.path().join("spill/0000000000000001")).unwrap();
        assert_eq!(all(&made), b"");
        assert!(made.is_damaged());
    }

    fn cases() -> ProptestConfig {
        ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn a_cut_costs_the_last_record_and_a_flipped_bit_is_never_believed(
            lengths in proptest::collection::vec(1..4_000_usize, 1..6), cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let data = noise(lengths.iter().sum());
            let mut parts = Vec::new();
            let mut rest = &data[..];
            for len in &lengths {
                let (part, after) = rest.split_at(*len);
                parts.push(part);
                rest = after;
            }
            let made = spill(dir.path(), 0, &parts);
            let last = made.bytes - FRAME as u64 - 1;
            let ends: Vec<u64> = made.index.iter().map(|(_, at)| *at).skip(1).chain([last]).collect();
            let bytes = fs::read(&made.path).unwrap();
            let path = dir.path().join("copy");

            let cut = cut.index(bytes.len());
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            let expected: usize = lengths[..whole].iter().sum();
            if let Ok(spilled) = Spilled::open(&path) {
                prop_assert!(spilled.is_damaged());
                prop_assert_eq!(&all(&spilled)[..], &data[..expected]);
            } else {
                prop_assert_eq!(expected, 0);
            }

            let mut bytes = bytes;
            let flip = flip.index(bytes.len());
            bytes[flip] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            if let Ok(spilled) = Spilled::open(&path) {
                let read = all(&spilled);
                prop_assert!(data.starts_with(&read) && spilled.is_damaged());
            }
        }

        #[test]
        fn any_bytes_open(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("copy");
            let mut whole = MAGIC.to_vec();
            head(0).encode(&mut whole);
            whole.extend(&bytes);
            for bytes in [&bytes, &whole] {
                fs::write(&path, bytes).unwrap();
                if let Ok(spilled) = Spilled::open(&path) {
                    all(&spilled);
                }
            }
        }
    }
}
