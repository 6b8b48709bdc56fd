//! Lines of one container in, its log file and the rotated ones beside it out, named as the kubelet names them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

/// Rotated files that are kept beside the one that is written (`containerLogMaxFiles` is 5).
const KEPT: usize = 4;

/// The log file that a container writes to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    written: u64,
    /// Seconds since 1970 in the newest rotated name; two rotations never get the same.
    rotated_at: i64,
    rotated: Vec<PathBuf>,
}

impl LogFile {
    /// An empty one; its folder is made.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Self {
            file: File::create(&path)?,
            path,
            written: 0,
            rotated_at: 0,
            rotated: Vec::new(),
        })
    }

    /// Bytes since the last rotation.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// One write of these bytes, as a runtime does it for each line.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file a rotated name of this time and begins a new one; what is too old is deleted.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn rotate(&mut self, at: Timestamp) -> io::Result<()> {
        self.rotated_at = at.as_second().max(self.rotated_at + 1);
        let name = Timestamp::from_second(self.rotated_at)
            .map_err(io::Error::other)?
            .strftime("0.log.%Y%m%d-%H%M%S")
            .to_string();
        let name = self.path.with_file_name(name);
        fs::rename(&self.path, &name)?;
        self.rotated.push(name);
        self.file = File::create(&self.path)?;
        self.written = 0;
        while self.rotated.len() > KEPT {
            fs::remove_file(self.rotated.remove(0))?;
        }
        Ok(())
    }

    /// Compresses every rotated file but the newest, as the next rotation would.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn compress(&mut self) -> io::Result<()> {
        let older = self.rotated.len().saturating_sub(1);
        for plain in self.rotated.iter_mut().take(older) {
            if plain.extension().is_none_or(|extension| extension != "gz") {
                *plain = compressed(plain)?;
            }
        }
        Ok(())
    }
}

/// A file in, the same one as `.gz` out; the plain one is gone.
fn compressed(plain: &Path) -> io::Result<PathBuf> {
    let mut name = plain.as_os_str().to_owned();
    name.push(".gz");
    let target = PathBuf::from(name);
    // The quickest level: it is read by the agent, not judged.
    let mut encoder = GzEncoder::new(File::create(&target)?, Compression::fast());
    io::copy(&mut File::open(plain)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(plain)?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn it_leaves_what_the_kubelet_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = LogFile::create(folder.path().join("0.log")).unwrap();
        let at = Timestamp::from_second(1_795_197_000).unwrap();
        for number in 0..6 {
            log.write(format!("{number}").as_bytes()).unwrap();
            if number < 5 {
                log.rotate(at).unwrap();
            }
        }
        log.compress().unwrap();
        let mut found: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        found.sort();
        let names = found
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                "0.log",
                "0.log.20261120-175001.gz",
                "0.log.20261120-175002.gz",
                "0.log.20261120-175003.gz",
                "0.log.20261120-175004"
            ]
        );
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(File::open(&found[1]).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(
            (text.as_str(), fs::read(&found[4]).unwrap().as_slice()),
            ("1", &b"4"[..])
        );
        assert_eq!(fs::read(&found[0]).unwrap(), b"5");
    }
}
