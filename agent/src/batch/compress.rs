//! Bytes in pieces in, one body in snappy's block format out, without ever holding the whole in one piece.
//!
//! The format is the varint of the uncompressed length and then elements; `snap` compresses each 64 KiB on
//! its own. So 64 KiB are gathered, compressed behind what is there, and the block's own length is taken off:
//! the result is byte for byte that of compressing everything at once.

use super::encode::{varint, varint_len};

/// What snappy compresses on its own.
const BLOCK: usize = 1 << 16;

/// The encoder's table and the gathered input, kept from request to request.
pub(super) struct Compressor {
    encoder: snap::raw::Encoder,
    input: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// A body that is being written.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    compressor: &'a mut Compressor,
    body: Vec<u8>,
}

impl Compressor {
    pub(super) fn new() -> Self {
        Self {
            encoder: snap::raw::Encoder::new(),
            input: Vec::new(),
        }
    }

    /// Begins a body for exactly `total` bytes in the memory of an earlier one.
    pub(super) fn begin(&mut self, total: usize, mut body: Vec<u8>) -> Writer<'_> {
        body.clear();
        varint(total as u64, &mut body);
        self.input.clear();
        self.input.reserve_exact(BLOCK);
        Writer {
            compressor: self,
            body,
        }
    }

    /// Gives the gathered input's memory back.
    pub(super) fn trim(&mut self) {
        *self = Self::new();
    }
}

impl Writer<'_> {
    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = BLOCK - self.compressor.input.len();
            let (fits, rest) = bytes.split_at(room.min(bytes.len()));
            self.compressor.input.extend_from_slice(fits);
            if self.compressor.input.len() == BLOCK {
                self.flush();
            }
            bytes = rest;
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.flush();
        // Kept until Loki has answered, maybe for hours: no more memory than it needs.
        if self.body.capacity() > self.body.len() + self.body.len() / 2 + 4096 {
            self.body.shrink_to_fit();
        }
        self.body
    }

    fn flush(&mut self) {
        let Compressor { encoder, input } = &mut *self.compressor;
        if input.is_empty() {
            return;
        }
        // The encoder writes the block's length first. It is let write it over the last bytes of what is
        // there, which are then put back; the body's own length is never shorter than a block's.
        let overlap = varint_len(input.len() as u64);
        let from = self.body.len().saturating_sub(overlap);
        let mut kept = [0_u8; 4];
        for (slot, byte) in kept.iter_mut().zip(self.body.iter().skip(from)) {
            *slot = *byte;
        }
        self.body
            .resize(from + snap::raw::max_compress_len(input.len()), 0);
        let written = self
            .body
            .get_mut(from..)
            .and_then(|out| encoder.compress(input, out).ok());
        for (slot, byte) in self.body.iter_mut().skip(from).zip(kept.iter().take(overlap)) {
            *slot = *byte;
        }
        if let Some(written) = written {
            self.body.truncate(from + written);
        } else {
            // The encoder refuses only buffers of a wrong size, so this is never reached; a literal is right.
            self.body.truncate(from + overlap);
            literal(input, &mut self.body);
        }
        input.clear();
    }
}

/// A block as one literal element; at most [`BLOCK`] bytes, at least one.
fn literal(input: &[u8], out: &mut Vec<u8>) {
    let len = u16::try_from(input.len().saturating_sub(1)).unwrap_or(u16::MAX);
    out.push(61 << 2);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(input);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(len: usize, seed: u8) -> Vec<u8> {
        (0..len)
            .map(|i| b"level=info msg=request path=/api/"[(i * 7 + i / 97 + usize::from(seed)) % 33])
            .collect()
    }

    #[test]
    fn equals_the_contiguous_encoding_at_every_border() {
        let mut compressor = Compressor::new();
        let mut body = Vec::new();
        for len in [
            0,
            1,
            15,
            127,
            128,
            16_383,
            65_535,
            65_536,
            65_537,
            131_072,
            200_000,
            3 << 20,
        ] {
            let input = text(len, 3);
            let mut writer = compressor.begin(len, body);
            for piece in input.chunks(16_384) {
                writer.write(piece);
            }
            body = writer.finish();
            assert_eq!(
                body,
                snap::raw::Encoder::new().compress_vec(&input).unwrap(),
                "{len}"
            );
            assert_eq!(
                snap::raw::Decoder::new().decompress_vec(&body).unwrap(),
                input,
                "{len}"
            );
        }
    }

    #[test]
    fn a_literal_is_a_block() {
        for len in [1, 60, 65_536] {
            let input = text(len, 9);
            let mut body = Vec::new();
            varint(len as u64, &mut body);
            literal(&input, &mut body);
            assert_eq!(snap::raw::Decoder::new().decompress_vec(&body).unwrap(), input);
        }
    }

    proptest! {
        #[test]
        fn any_pieces_equal_the_contiguous_encoding(
            pieces in proptest::collection::vec((0_usize..90_000, any::<u8>()), 0..6),
        ) {
            let pieces: Vec<Vec<u8>> = pieces.into_iter().map(|(len, seed)| text(len, seed)).collect();
            let input = pieces.concat();
            let mut compressor = Compressor::new();
            let mut writer = compressor.begin(input.len(), vec![1, 2, 3]);
            for piece in &pieces {
                writer.write(piece);
            }
            prop_assert_eq!(writer.finish(), snap::raw::Encoder::new().compress_vec(&input).unwrap());
        }
    }
}
