//! Names in, descriptors beneath the log root out: a hostile tree can lead nowhere else.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::held::Budget;
use super::names::{self, LogName};

/// Why a file is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not what may be read: no regular file, or a link that leads elsewhere. Stays so.
    #[error("{0}")]
    Refused(&'static str),
    /// The name is gone, or changed while it was looked at: list the folder again.
    #[error("the file is gone")]
    Gone,
    /// Anything else, such as too many open files.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpenError {
    /// Whether trying again soon may help; younger files wait until then.
    pub fn may_pass(&self) -> bool {
        const PASSING: [Errno; 5] = [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::INTR,
            Errno::AGAIN,
        ];
        match self {
            Self::Gone => true,
            Self::Refused(_) => false,
            Self::Io(error) => PASSING
                .iter()
                .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())),
        }
    }
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        if errno == Errno::NOENT {
            Self::Gone
        } else {
            Self::Io(errno.into())
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// A symbolic link, which says nothing of the file's device and inode.
    pub link: bool,
}

/// The log root, and the folders that symbolic links may lead into.
#[derive(Debug)]
pub struct LogRoot {
    path: PathBuf,
    links: Vec<PathBuf>,
    openat2: AtomicBool,
    budget: Budget,
    starved: AtomicBool,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
// NONBLOCK, so that no FIFO put in a file's place can hold the thread.
const REGULAR: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

impl LogRoot {
    /// A root at `path`; `links` are the runtime's folders.
    pub fn new(path: PathBuf, links: Vec<PathBuf>) -> Self {
        Self {
            path,
            links,
            openat2: AtomicBool::new(true),
            budget: Budget::of_process(),
            starved: AtomicBool::new(false),
        }
    }

    /// The same, with so many log files held open at most.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    /// How many log files may be held open.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether the process or the node had no descriptor left since this was asked last.
    pub fn take_starved(&self) -> bool {
        self.starved.swap(false, Ordering::Relaxed)
    }

    /// Whether it has none left, as far as is known.
    pub fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }

    /// Remembers that no descriptor was left.
    fn noted<T>(&self, opened: Result<T, Errno>) -> Result<T, Errno> {
        if let Err(Errno::MFILE | Errno::NFILE) = opened {
            self.starved.store(true, Ordering::Relaxed);
        }
        opened
    }

    /// Opens the root itself, which the administrator chose: links are followed.
    pub fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(self.noted(rustix::fs::open(&self.path, flags, Mode::empty()))?)
    }

    /// Opens a folder beneath `root` by a path of plain names.
    pub fn folder(&self, root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
        Ok(self.beneath(root, Path::new(path), DIRECTORY)?)
    }

    /// What a name in `folder` stands for.
    pub fn facts(folder: &OwnedFd, name: &str) -> Result<Facts, OpenError> {
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let link = kind == FileType::Symlink;
        if !link && kind != FileType::RegularFile {
            return Err(OpenError::Refused("it is no regular file"));
        }
        Ok(Facts {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            link,
        })
    }

    /// Opens a regular file in `folder`, or what a link there names in a runtime's folder.
    pub fn file(&self, folder: &OwnedFd, name: &str) -> Result<(File, Facts), OpenError> {
        let opened = if Self::facts(folder, name)?.link {
            self.linked(folder, name)?
        } else {
            match self.noted(rustix::fs::openat(folder, name, REGULAR, Mode::empty())) {
                // Became a link since: the next listing looks again.
                Err(Errno::LOOP) => return Err(OpenError::Gone),
                other => other?,
            }
        };
        let stat = rustix::fs::fstat(&opened)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenError::Refused("it is no regular file"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok((
            File::from(opened),
            Facts {
                device: stat.st_dev,
                inode: stat.st_ino,
                size,
                link: false,
            },
        ))
    }

    fn linked(&self, folder: &OwnedFd, name: &str) -> Result<OwnedFd, OpenError> {
        let target = rustix::fs::readlinkat(folder, name, Vec::new())?;
        let target = Path::new(OsStr::from_bytes(target.to_bytes()));
        for root in &self.links {
            if let Ok(rest) = target.strip_prefix(root) {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = self.noted(rustix::fs::open(root, flags, Mode::empty()));
                return match opened.and_then(|root| self.beneath(&root, rest, REGULAR)) {
                    // Waiting for it would keep back the files of later restarts.
                    Err(Errno::NOENT) => {
                        Err(OpenError::Refused("it is a symbolic link that leads to nothing"))
                    }
                    other => Ok(other?),
                };
            }
        }
        Err(OpenError::Refused(
            "it is a symbolic link that leads out of the log root and the runtime's folders",
        ))
    }

    fn beneath(&self, root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.openat2.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
            match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
                // A kernel before 5.6, or a seccomp profile that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => self.openat2.store(false, Ordering::Relaxed),
                other => return self.noted(other),
            }
        }
        self.noted(by_component(root, path, flags))
    }

    /// The names in a folder that are text, `.` and `..` left out.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self, folder: &impl AsFd) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.noted(Dir::read_from(folder))? {
            let entry = entry?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// The log files in a container's folder, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn log_names(&self, folder: &OwnedFd) -> io::Result<Vec<LogName>> {
        let names = self.list(folder)?;
        let mut names: Vec<LogName> = names.iter().filter_map(|name| LogName::parse(name)).collect();
        names::arrange(&mut names);
        Ok(names)
    }
}

/// What `openat2` does, step by step: no component may be a link or lead upwards.
fn by_component(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => names.push(name),
            std::path::Component::CurDir => {}
            std::path::Component::Prefix(_)
            | std::path::Component::RootDir
            | std::path::Component::ParentDir => {
                return Err(Errno::XDEV);
            }
        }
    }
    let (last, folders) = names.split_last().ok_or(Errno::NOENT)?;
    let mut at: Option<OwnedFd> = None;
    for name in folders {
        let next = rustix::fs::openat(at.as_ref().unwrap_or(root), *name, DIRECTORY, Mode::empty())?;
        at = Some(next);
    }
    rustix::fs::openat(at.as_ref().unwrap_or(root), *last, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder() -> (tempfile::TempDir, LogRoot, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root/pod/c", "runtime/x", "secret"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("secret/key"), "k").unwrap();
        std::fs::write(dir.path().join("runtime/x/1.log"), "log").unwrap();
        let root = LogRoot::new(dir.path().join("root"), vec![dir.path().join("runtime")]);
        let opened = root.open().unwrap();
        let folder = root.folder(&opened, "pod/c").unwrap();
        (dir, root, folder)
    }

    #[test]
    fn what_is_short_or_changing_may_pass() {
        let error = |errno: Errno| OpenError::from(errno);
        for errno in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOMEM,
            Errno::INTR,
            Errno::AGAIN,
            Errno::NOENT,
        ] {
            assert!(error(errno).may_pass(), "{errno:?}");
        }
        for errno in [Errno::IO, Errno::ACCESS, Errno::LOOP] {
            assert!(!error(errno).may_pass(), "{errno:?}");
        }
        assert!(!OpenError::Refused("no regular file").may_pass());
    }

    #[test]
    fn links_lead_only_into_the_runtimes_folders() {
        let (dir, root, folder) = folder();
        let at = dir.path().join("root/pod/c");
        symlink(dir.path().join("secret/key"), at.join("0.log")).unwrap();
        symlink(dir.path().join("runtime/x/1.log"), at.join("1.log")).unwrap();
        symlink(dir.path().join("runtime/../secret/key"), at.join("2.log")).unwrap();
        symlink("../../../secret/key", at.join("3.log")).unwrap();
        symlink(dir.path().join("runtime/link"), at.join("4.log")).unwrap();
        symlink(dir.path().join("secret/key"), dir.path().join("runtime/link")).unwrap();
        for openat2 in [true, false] {
            root.openat2.store(openat2, Ordering::Relaxed);
            assert!(matches!(root.file(&folder, "0.log"), Err(OpenError::Refused(_))));
            assert_eq!(root.file(&folder, "1.log").unwrap().1.size, 3);
            for name in ["2.log", "3.log", "4.log"] {
                assert!(root.file(&folder, name).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn folders_that_are_links_are_refused() {
        let (dir, root, _folder) = folder();
        symlink(dir.path().join("secret"), dir.path().join("root/evil")).unwrap();
        let opened = root.open().unwrap();
        for openat2 in [true, false] {
            root.openat2.store(openat2, Ordering::Relaxed);
            for path in ["evil", "../secret", "pod/../../secret"] {
                assert!(root.folder(&opened, path).is_err(), "{path}");
            }
        }
    }

    #[test]
    fn a_fifo_is_refused_and_does_not_block() {
        let (dir, root, folder) = folder();
        let path = dir.path().join("root/pod/c/0.log");
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(matches!(root.file(&folder, "0.log"), Err(OpenError::Refused(_))));
        assert!(matches!(root.file(&folder, "1.log"), Err(OpenError::Gone)));
    }
}
