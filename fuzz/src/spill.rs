//! Bytes in: a record of a spilled copy is read or refused; what is read can be written and reads back, and a piece never
//! holds more than it says.

use arbitrary::{Result, Unstructured};
use sluice_agent::checkpoint::record::Output;
use sluice_agent::spill::record::{FRAME, Frame, Head, PIECE, decode_piece, encode_piece, is_end, range};

pub(crate) fn check(data: &[u8]) {
    any_body(data);
    // The types that records have, whatever libFuzzer thinks of.
    for kind in 1..=3 {
        any_body(&[&[kind], data].concat());
    }
    // An input that is too short for its values ends them.
    let _short = any_values(&mut Unstructured::new(data));
}

/// The body of the one record that was written.
fn body(record: &[u8]) -> &[u8] {
    let (frame, body) = record.split_first_chunk::<FRAME>().unwrap();
    assert!(Frame::decode(*frame).unwrap().fits(body));
    body
}

fn any_body(data: &[u8]) {
    if let Some(frame) = data.first_chunk::<FRAME>() {
        let _any = Frame::decode(*frame).map(|frame| frame.fits(&data[FRAME..]));
    }
    if let Some(head) = Head::decode(data) {
        let mut again = Vec::new();
        head.encode(&mut again);
        assert_eq!(Head::decode(body(&again)), Some(head));
        assert!(range(data).is_none() && !is_end(data));
    }
    if let Some((found, content)) = decode_piece(data) {
        assert_eq!(range(data), Some(found));
        assert!(content.len() == found.len as usize && content.len() <= PIECE);
        written(found.offset, &content);
    }
}

fn written(offset: u64, content: &[u8]) {
    let compressed = snap::raw::Encoder::new().compress_vec(content).unwrap();
    let mut record = Vec::new();
    encode_piece(offset, content, &compressed, &mut record);
    let (range, read) = decode_piece(body(&record)).unwrap();
    assert_eq!((range.offset, read.as_slice()), (offset, content));
}

fn any_values(from: &mut Unstructured<'_>) -> Result<()> {
    let mut head = Head {
        restart: from.arbitrary()?,
        base: from.arbitrary()?,
        modified: from.arbitrary()?,
        folder: from.arbitrary()?,
        container: from.arbitrary()?,
        ..Head::default()
    };
    let offset = from.int_in_range(0..=u64::MAX - PIECE as u64)?;
    for _ in 0..from.int_in_range(0..=3)? {
        head.outputs.push(Output {
            pipeline: from.arbitrary()?,
            tenant: from.arbitrary()?,
        });
    }
    (head.begin, head.next) = (from.arbitrary()?, from.arbitrary()?);
    let mut record = Vec::new();
    head.encode(&mut record);
    assert_eq!(Head::decode(body(&record)), Some(head));
    let len = from.len().min(PIECE);
    written(offset, from.bytes(len)?);
    Ok(())
}
