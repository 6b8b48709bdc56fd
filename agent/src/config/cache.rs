//! What is in force in, the same after a restart without the API server out. No credentials are in it.
//!
//! The file `config/in-force` of the state folder: SHA-256 of the rest in hex, a newline, JSON. It holds the
//! content in force, not the document last fetched, so that the last good content of a refused pipeline
//! outlives the process too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sluice_engine::document::{Document, sha256_hex};
use sluice_engine::key::Key;
use sluice_engine::pointer::Denial;

use crate::checkpoint::folder;

const FOLDER: &str = "config";
const NAME: &str = "in-force";

/// What is in force, without credentials.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Hash of the document it comes from.
    pub hash: String,
    /// Pipelines and tenants in force.
    pub content: Document,
    /// Pipelines whose newest content was refused, and why.
    pub refused: Vec<(Key, String)>,
    /// What is withdrawn.
    pub deny: Vec<Denial>,
}

impl Snapshot {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = sha256_hex(&json).into_bytes();
        bytes.push(b'\n');
        bytes.extend(json);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (sum, json) = bytes.split_at_checked(64).ok_or("it is cut short")?;
        let json = json
            .strip_prefix(b"\n")
            .ok_or("its first line is not a checksum")?;
        if sha256_hex(json).as_bytes() != sum {
            return Err("its checksum is wrong".to_owned());
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }
}

/// Writes the file so that after a crash either the old or the new one is there.
///
/// # Errors
/// Of the file system; the old file is untouched then.
pub fn save(state_dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = state_dir.join(FOLDER);
    folder::make(&folder)?;
    let temporary = folder.join(format!("{NAME}.tmp"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(NAME))?;
    File::open(&folder)?.sync_all()
}

/// Reads the file. A corrupt one is set aside as `in-force.corrupt` and told in the log; without one the
/// agent waits for the API server.
pub fn load(state_dir: &Path) -> Option<Snapshot> {
    let path = state_dir.join(FOLDER).join(NAME);
    let problem = match fs::read(&path) {
        Ok(bytes) => match Snapshot::from_bytes(&bytes) {
            Ok(snapshot) => return Some(snapshot),
            Err(problem) => problem,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error.to_string(),
    };
    let aside = path.with_extension("corrupt");
    let kept = match fs::rename(&path, &aside) {
        Ok(()) => format!("it is kept as {}", aside.display()),
        Err(error) => format!("and it cannot be set aside: {error}"),
    };
    tracing::warn!(
        "the cached configuration {} cannot be used: {problem}; {kept}",
        path.display()
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            hash: "h".into(),
            content: Document {
                version: 1,
                pipelines: Vec::new(),
                tenants: Vec::new(),
            },
            refused: vec![(Key::new("a", "b"), "why".into())],
            deny: vec![Denial {
                pipeline: Key::new("a", "b"),
                namespace: None,
            }],
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), None);
        save(dir.path(), &snapshot().to_bytes()).unwrap();
        save(dir.path(), &snapshot().to_bytes()).unwrap();
        assert_eq!(load(dir.path()), Some(snapshot()));
    }

    #[test]
    fn a_corrupt_file_is_set_aside() {
        let good = snapshot().to_bytes();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for bad in [&good[..good.len() - 1], &flipped, &good[..10], b""] {
            let dir = tempfile::tempdir().unwrap();
            save(dir.path(), bad).unwrap();
            assert_eq!(load(dir.path()), None);
            assert!(dir.path().join("config/in-force.corrupt").exists());
            assert_eq!(load(dir.path()), None);
        }
    }
}
