//! Bytes in: as a `.gz` file they are read in bounded memory or end where they are damaged; packed by us, in one member
//! or several, every offset reads what was packed.

use std::fs::File;
use std::io::Write as _;

use arbitrary::{Result, Unstructured};
use flate2::Compression;
use flate2::write::GzEncoder;
use sluice_agent::tail::compressed::{Compressed, head};

/// A file that unpacks to more than this is read no further: the reader itself is never asked for more at once.
const MOST: u64 = 1 << 20;
const BUFFER: usize = 10_000;

pub(crate) fn check(data: &[u8]) {
    any_file(data);
    // An input that is too short is no case.
    let _short = any_content(&mut Unstructured::new(data));
}

fn file(bytes: &[u8]) -> File {
    let memory = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(memory);
    file.write_all(bytes).unwrap();
    file
}

/// Two ways through the same file, in steps and back and forth, read the same. How far a damaged one is read depends on
/// the steps: zlib gives an error in place of the bytes before it.
fn any_file(bytes: &[u8]) {
    let file = file(bytes);
    let beginning = head(&file).unwrap_or_default();
    let Ok(mut reader) = Compressed::new(&file) else {
        return;
    };
    let mut buffer = vec![0; BUFFER];
    let mut whole = Vec::new();
    while (whole.len() as u64) < MOST {
        let read = reader.read_at(&file, whole.len() as u64, &mut buffer).unwrap();
        if read == 0 {
            break;
        }
        whole.extend_from_slice(&buffer[..read]);
    }
    let both = beginning.len().min(whole.len());
    assert_eq!(whole[..both], beginning[..both]);
    for offset in [whole.len() / 2, whole.len() / 3, 0, whole.len().saturating_sub(1)] {
        let read = reader.read_at(&file, offset as u64, &mut buffer).unwrap();
        let both = read.min(whole.len() - offset);
        assert_eq!(buffer[..both], whole[offset..offset + both], "{offset}");
    }
}

fn any_content(from: &mut Unstructured<'_>) -> Result<()> {
    let (members, offset): (u8, u16) = from.arbitrary()?;
    let repeat = usize::from(from.arbitrary::<u8>()? % 64) + 1;
    let plain = from.bytes(from.len())?.repeat(repeat);
    let size = plain.len() / (usize::from(members % 4) + 1) + 1;
    let mut packed = Vec::new();
    for member in plain.chunks(size) {
        let mut encoder = GzEncoder::new(&mut packed, Compression::fast());
        encoder.write_all(member).unwrap();
        encoder.finish().unwrap();
    }
    let file = file(&packed);
    let mut reader = Compressed::new(&file).unwrap();
    let mut buffer = vec![0; BUFFER];
    for offset in [
        usize::from(offset),
        0,
        plain.len(),
        plain.len() + 1,
        plain.len() / 2,
    ] {
        let read = reader.read_at(&file, offset as u64, &mut buffer).unwrap();
        let rest = plain.get(offset..).unwrap_or_default();
        assert_eq!(buffer[..read], rest[..rest.len().min(BUFFER)], "{offset}");
    }
    Ok(())
}
