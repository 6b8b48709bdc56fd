//! A `.gz` file in, its uncompressed bytes at rising offsets out, with bounded memory.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use flate2::read::MultiGzDecoder;

use super::fingerprint::HEAD;

/// Decompresses as it is read. Only bytes from the last offset on are kept, so an earlier one begins anew.
pub struct Compressed {
    decoder: MultiGzDecoder<BufReader<File>>,
    /// Uncompressed bytes from `start` on that were not asked past yet.
    window: Vec<u8>,
    start: u64,
    ended: bool,
    damaged: bool,
}

impl std::fmt::Debug for Compressed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressed")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

fn decoder(file: &File) -> io::Result<MultiGzDecoder<BufReader<File>>> {
    // A clone shares the file's position, so only one decoder may use it at a time: each opens its own.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let own = File::open(path).or_else(|_| file.try_clone())?;
    let mut reader = BufReader::with_capacity(32 << 10, own);
    reader.seek(SeekFrom::Start(0))?;
    Ok(MultiGzDecoder::new(reader))
}

impl Compressed {
    /// A reader of `file`.
    pub fn new(file: &File) -> io::Result<Self> {
        Ok(Self {
            decoder: decoder(file)?,
            window: Vec::new(),
            start: 0,
            ended: false,
            damaged: false,
        })
    }

    /// Uncompressed bytes at `offset`, as many as are there and fit.
    pub fn read_at(&mut self, file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        if offset < self.start {
            *self = Self::new(file)?;
        }
        self.skip(offset, into)?;
        let missing = into.len().saturating_sub(self.window.len());
        if missing > 0 && !self.ended {
            let before = self.window.len();
            // Doubled as it grows, it would take twice the memory.
            self.window.reserve_exact(missing);
            let read = Read::by_ref(&mut self.decoder)
                .take(missing as u64)
                .read_to_end(&mut self.window);
            // A file cut short or damaged ends where it cannot be read on.
            self.ended = read.is_err() || self.window.len() - before < missing;
            if let Err(error) = read {
                self.damaged = true;
                tracing::warn!(%error, "a compressed log file is damaged: what can be read of it is sent");
            }
        }
        let len = self.window.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..len), self.window.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    /// Whether it ended where it could not be read on.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Moves the window's start to `offset`; `scratch` takes what is passed over.
    fn skip(&mut self, offset: u64, scratch: &mut [u8]) -> io::Result<()> {
        let behind = usize::try_from(offset - self.start)
            .unwrap_or(usize::MAX)
            .min(self.window.len());
        self.window.drain(..behind);
        self.start += behind as u64;
        while self.start < offset && !self.ended {
            let step = usize::try_from(offset - self.start)
                .unwrap_or(usize::MAX)
                .min(scratch.len());
            let Some(part) = scratch.get_mut(..step) else {
                break;
            };
            match self.decoder.read(part) {
                Ok(0) => self.ended = true,
                Err(_) => (self.ended, self.damaged) = (true, true),
                Ok(read) => self.start += read as u64,
            }
            if step == 0 {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        Ok(())
    }
}

/// Whether a file may have more than `len` uncompressed bytes: by the length at its end, which is that of its last
/// member alone (RFC 1952, 2.3.1).
pub(super) fn may_hold_more(file: &File, len: u64) -> bool {
    let mut last = [0; 4];
    let at = file.metadata().map(|metadata| metadata.len().saturating_sub(4));
    let read = at.and_then(|at| file.read_exact_at(&mut last, at));
    read.is_err() || u64::from(u32::from_le_bytes(last)) != len & u64::from(u32::MAX)
}

/// A compressed file's first uncompressed bytes.
pub fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    let mut decoder = decoder(file)?.take(HEAD as u64);
    match decoder.read_to_end(&mut head) {
        Ok(_) => Ok(head),
        // kubelet renames only whole files into place, so this is damage: what can be read counts.
        Err(_) if !head.is_empty() => Ok(head),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn any_offset_can_be_read() {
        let plain: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        for member in plain.chunks(700_000) {
            let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
            encoder.write_all(member).unwrap();
            encoder.finish().unwrap();
        }
        assert_eq!(head(&file).unwrap(), plain[..HEAD]);
        let mut reader = Compressed::new(&file).unwrap();
        let mut buffer = vec![0; 10_000];
        for offset in [0, 5_000, 5_001, 900_000, 100, 1_195_000, 1_200_000, 1_300_000] {
            let read = reader.read_at(&file, offset as u64, &mut buffer).unwrap();
            let expected = plain.get(offset..).unwrap_or_default();
            assert_eq!(buffer[..read], expected[..expected.len().min(10_000)], "{offset}");
        }
    }
}
