//! Bytes in pieces in, one body in snappy's block format out, without ever holding the whole in one piece.
//!
//! The format is the varint of the uncompressed length and then elements. No copy reaches out of the 64 KiB that it was
//! found in, so elements that were made before stand in a body as they are.

use super::encode::varint;
use super::snappy::Encoder;

/// The encoder's memory, kept from request to request, and given back by an idle agent.
#[derive(Debug, Default)]
pub(super) struct Compressor {
    encoder: Option<Encoder>,
}

/// A body that is being written.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    encoder: &'a mut Encoder,
    body: Vec<u8>,
}

impl Compressor {
    /// Begins a body for exactly `total` bytes in the memory of an earlier one.
    pub(super) fn begin(&mut self, total: usize, mut body: Vec<u8>) -> Writer<'_> {
        body.clear();
        varint(total as u64, &mut body);
        Writer {
            encoder: self.encoder.get_or_insert_with(Encoder::new),
            body,
        }
    }

    /// Bytes in pieces in, elements that make them out, which a body can take at any place.
    pub(super) fn pack<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>, mut put: impl FnMut(&[u8])) {
        let encoder = self.encoder.get_or_insert_with(Encoder::new);
        pieces.for_each(|piece| encoder.write(piece, &mut put));
        encoder.flush(&mut put);
    }

    /// Gives the encoder's memory back.
    pub(super) fn trim(&mut self) {
        self.encoder = None;
    }
}

impl Writer<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let body = &mut self.body;
        self.encoder
            .write(bytes, &mut |elements| body.extend_from_slice(elements));
    }

    /// Takes what was [packed](Compressor::pack).
    pub(super) fn write_packed<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) {
        self.flush();
        pieces.for_each(|piece| self.body.extend_from_slice(piece));
    }

    fn flush(&mut self) {
        let body = &mut self.body;
        self.encoder
            .flush(&mut |elements| body.extend_from_slice(elements));
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.flush();
        // Kept until Loki has answered, maybe for hours: no more memory than it needs.
        if self.body.capacity() > self.body.len() + self.body.len() / 2 + 4096 {
            self.body.shrink_to_fit();
        }
        self.body
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::snappy::BLOCK;
    use super::*;

    /// Bytes at whose end a search no longer begins.
    const MARGIN: usize = 16;

    fn encoded(input: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::default();
        let mut writer = compressor.begin(input.len(), Vec::new());
        writer.write(input);
        writer.finish()
    }

    fn decoded(body: &[u8]) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(body).unwrap()
    }

    /// Bytes without any order, the same for the same seed.
    fn noise(len: usize, mut state: u64) -> Vec<u8> {
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect()
    }

    fn json(lines: usize) -> Vec<u8> {
        let id = noise(lines * 8, 1);
        let line = |(number, id): (usize, &[u8])| {
            let id = id.iter().fold(0_u64, |id, byte| id << 8 | u64::from(*byte));
            let took = number * 7919 % 900;
            format!(
                r#"{{"level":"info","message":"served","number":{number},"path":"/api/v1/items/{}","status":200,"duration_ms":{took},"trace_id":"{id:016x}"}}"#,
                number * 104_729 % 10_000,
            )
        };
        id.chunks(8).enumerate().map(line).collect::<String>().into()
    }

    #[test]
    fn every_length_around_a_border_is_read_back() {
        let kinds = [noise(2 * BLOCK + 99, 5), json(1_000), vec![7; 2 * BLOCK + 99]];
        for input in &kinds {
            for border in [0, MARGIN, 60, 64, 256, BLOCK, 2 * BLOCK] {
                for len in border.saturating_sub(18)..=border + 18 {
                    let input = &input[..len.min(input.len())];
                    assert!(decoded(&encoded(input)) == input, "{len} bytes");
                }
            }
        }
    }

    #[test]
    fn copies_of_every_length_and_distance_are_read_back() {
        let fresh = noise(70_000, 9);
        for len in (4..80).chain([127, 128, 4_000, 60_000]) {
            for distance in [1, 2, 3, 7, 8, 9, 2_047, 2_048, 5_000, 65_000] {
                let mut input = fresh[..distance].to_vec();
                for at in 0..len {
                    input.push(input[at]);
                }
                input.extend_from_slice(&fresh[66_000..66_040]);
                assert!(
                    decoded(&encoded(&input)) == input,
                    "{len} bytes from {distance} before"
                );
            }
        }
    }

    #[test]
    fn what_does_not_compress_grows_by_three_bytes_a_block() {
        let input = noise(3 * BLOCK + 17, 3);
        let body = encoded(&input);
        // The length before it takes three bytes.
        assert!(body.len() <= input.len() + 3 + 4 * 3, "{}", body.len());
        assert!(decoded(&body) == input);
    }

    #[test]
    fn json_gets_as_short_as_with_snap() {
        let input = json(10_000);
        let (ours, theirs) = (
            encoded(&input).len(),
            snap::raw::Encoder::new().compress_vec(&input).unwrap().len(),
        );
        assert!(ours <= theirs, "{ours} and {theirs} of {} bytes", input.len());
    }

    #[test]
    fn memory_that_was_given_back_is_taken_anew() {
        let mut compressor = Compressor::default();
        let mut body = vec![1, 2, 3];
        for lines in [0, 1, 700, 9_000] {
            let input = json(lines);
            let mut writer = compressor.begin(input.len(), body);
            input.chunks(16_384).for_each(|piece| writer.write(piece));
            body = writer.finish();
            assert!(decoded(&body) == input, "{lines} lines");
            compressor.trim();
        }
    }

    #[derive(Clone, Debug)]
    enum Part {
        Fresh(usize, u64),
        Same(usize, u8),
        /// From so many bytes before.
        Again(usize, usize),
    }

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            (0..300_usize, any::<u64>()).prop_map(|(len, seed)| Part::Fresh(len, seed)),
            (0..300_usize, any::<u8>()).prop_map(|(len, byte)| Part::Same(len, byte)),
            (0..200_usize, 1..70_000_usize).prop_map(|(len, back)| Part::Again(len, back)),
            (0..5_000_usize, 1..9_000_usize).prop_map(|(len, back)| Part::Again(len, back)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(
            parts in proptest::collection::vec(part(), 0..120),
            cuts in proptest::collection::vec(1..100_000_usize, 1..9),
        ) {
            let mut input: Vec<u8> = Vec::new();
            for part in parts {
                match part {
                    Part::Fresh(len, seed) => input.extend(noise(len, seed)),
                    Part::Same(len, byte) => input.extend(std::iter::repeat_n(byte, len)),
                    Part::Again(len, back) => {
                        for _ in 0..len {
                            let from = input.len().saturating_sub(back);
                            input.push(input.get(from).copied().unwrap_or(0));
                        }
                    }
                }
            }
            let whole = encoded(&input);
            prop_assert!(decoded(&whole) == input);
            prop_assert!(whole.len() <= input.len() + 5 + 3 * (input.len() / BLOCK + 1));
            // In pieces, with memory that was used before, it is the same.
            let mut compressor = Compressor::default();
            let mut writer = compressor.begin(whole.len(), Vec::new());
            writer.write(&whole);
            let mut writer = { let body = writer.finish(); compressor.begin(input.len(), body) };
            let (mut rest, mut cuts) = (input.as_slice(), cuts.iter().cycle());
            while let Some(cut) = cuts.next().filter(|_| !rest.is_empty()) {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                writer.write(piece);
                rest = after;
            }
            let body = writer.finish();
            prop_assert!(body == whole);
        }
    }
}
