//! A folder in, whether it is as it was at its last listing out, without opening it.

use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::AtFlags;

/// A folder that changed less than so many seconds ago may change again without another time.
const RACY: i64 = 2;

/// Which folder it is, and when a name was added to it, taken away or changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    seconds: i64,
    nanos: u64,
}

impl Stamp {
    /// Of a folder beneath `root`; `None` where it would not tell.
    pub(super) fn of(root: &OwnedFd, path: &str) -> Option<Self> {
        let stat = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let age = i64::try_from(now.as_secs()).ok()? - stat.st_mtime;
        (age >= RACY).then_some(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            seconds: stat.st_mtime,
            nanos: stat.st_mtime_nsec,
        })
    }
}
