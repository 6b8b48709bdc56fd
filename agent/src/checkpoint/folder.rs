//! The name of a folder in the state folder in, one that outlives a power cut with what is in it out.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a folder that only the agent may read, unless it is there. Without its name on the disk, what is synced in it
/// would be lost with it (fsync(2)).
///
/// # Errors
/// When it cannot be made, or its name cannot be synced; it is not there then.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    let parent = folder.parent().unwrap_or(folder);
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .inspect_err(|_| {
            let _gone = fs::remove_dir(folder);
        })
}
