//! Bytes in, elements of snappy's block format that make them again out, 64 KiB after 64 KiB.
//!
//! An element is a literal, which carries bytes, or a copy of 4 to 64 bytes that stand up to 64 KiB before
//! (`format_description.txt` of google/snappy); any decoder reads them. What differs from `snap` is which
//! copies are chosen, for lines of logs:
//! - Places are found by their first six bytes, not four. A copy of four or five costs as much as it saves,
//!   and in digits and identifiers it is found all the time.
//! - Of the places within a copy its second one alone is remembered, since the next line of the same form may
//!   differ in the first.
//! - Six places are looked at before anything is decided, then steps grow, so what does not compress costs little.
//!
//! All memory has a fixed size that is a power of two and some room, and every place is taken modulo that: so
//! the compiler sees that none is outside, and no check is left in the loops.
#![expect(
    clippy::inline_always,
    reason = "every step is a few instructions of one loop"
)]

/// Bytes that are encoded at once: how far back a copy of three bytes reaches.
pub(super) const BLOCK: usize = 1 << 16;
/// Bytes at a block's end that no search begins in, so that what is found is the block's own.
const MARGIN: usize = 16;
/// Bytes that are read or written in one piece beyond those that count.
const SPILL: usize = 64;
/// Bytes that a place is found by.
const FOUND_BY: u32 = 6;
const TABLE_BITS: u32 = 13;
const TABLE: usize = 1 << TABLE_BITS;
/// Steps grow by one after so many bytes without a copy, as a power of two.
const PATIENCE: u32 = 3;
/// A power of two above what a block's elements take, which is little more than the block.
const OUT: usize = 1 << 17;

/// The block that is being gathered, and the memory to encode it with.
pub(super) struct Encoder {
    block: Box<Block>,
    /// Bytes of it.
    gathered: usize,
    /// The last place of each hash; without meaning from block to block.
    table: Box<[u16; TABLE]>,
    out: Out,
}

type Block = [u8; BLOCK + SPILL];

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("gathered", &self.gathered)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self {
            block: zeros(),
            gathered: 0,
            table: zeros(),
            out: Out {
                bytes: zeros(),
                len: 0,
            },
        }
    }

    /// Takes bytes in; every block that is full is encoded and given to `put`.
    pub(super) fn write(&mut self, mut bytes: &[u8], put: &mut impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let (fits, rest) = bytes.split_at(bytes.len().min(BLOCK - self.gathered));
            if let Some(place) = self.block.get_mut(self.gathered..self.gathered + fits.len()) {
                place.copy_from_slice(fits);
            }
            self.gathered += fits.len();
            if self.gathered == BLOCK {
                self.flush(put);
            }
            bytes = rest;
        }
    }

    /// Encodes what was gathered and gives it to `put`, in one piece or two: three bytes more than that at most.
    pub(super) fn flush(&mut self, put: &mut impl FnMut(&[u8])) {
        let len = std::mem::take(&mut self.gathered);
        self.out.len = 0;
        self.encode(len);
        if self.out.len < len {
            put(self.out.bytes.get(..self.out.len).unwrap_or_default());
        } else if let Some(last) = len.checked_sub(1) {
            // It did not get shorter: as it is.
            self.out.len = 0;
            self.out.literal_head(last);
            put(self.out.bytes.get(..self.out.len).unwrap_or_default());
            put(self.block.get(..len).unwrap_or_default());
        }
    }

    fn encode(&mut self, len: usize) {
        let (block, table, out) = (&*self.block, &mut *self.table, &mut self.out);
        let mut emitted = 0;
        if let Some(limit) = len.checked_sub(MARGIN) {
            table.fill(0);
            // The first byte has nothing before it.
            let mut at = 1;
            while let Some((found, mut from)) = search(block, table, at, limit, emitted) {
                at = found;
                while at > emitted && from > 0 && byte(block, at - 1) == byte(block, from - 1) {
                    at -= 1;
                    from -= 1;
                }
                if emitted < at {
                    out.literal(block, emitted, at);
                }
                let begin = at;
                at = extended(block, begin, from, len);
                out.copy(begin - from, at - begin);
                emitted = at;
                remember(table, word(block, begin + 1), begin + 1);
            }
        }
        if emitted < len {
            out.literal(block, emitted, len);
        }
    }
}

/// The next place from `at` on whose beginning stood before, and where; none behind `limit`.
#[inline(always)]
fn search(
    block: &Block,
    table: &mut [u16; TABLE],
    mut at: usize,
    limit: usize,
    emitted: usize,
) -> Option<(usize, usize)> {
    while at <= limit {
        // One word holds the bytes of three places.
        for first in [at, at + 3] {
            let bytes = word(block, first);
            for later in 0..3 {
                let (here, bytes) = (first + later, bytes >> (8 * later));
                let from = remember(table, bytes, here);
                if same(bytes, word(block, from)) {
                    return Some((here, from));
                }
            }
        }
        at += 6 + ((at - emitted) >> PATIENCE);
    }
    None
}

/// Remembers the place of these bytes; returns the last one's that were found by the same.
#[inline(always)]
fn remember(table: &mut [u16; TABLE], bytes: u64, at: usize) -> usize {
    let hash = (bytes << (64 - 8 * FOUND_BY)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TABLE_BITS);
    match table.get_mut(hash as usize % TABLE) {
        Some(slot) => usize::from(std::mem::replace(slot, low16(at))),
        None => 0,
    }
}

/// Whether two words begin with the same [`FOUND_BY`] bytes.
#[inline(always)]
fn same(a: u64, b: u64) -> bool {
    (a ^ b) << (64 - 8 * FOUND_BY) == 0
}

/// Goes on while bytes are the same.
#[inline(always)]
fn extended(block: &Block, mut at: usize, mut from: usize, len: usize) -> usize {
    // What stands behind the block may be the same too, and is cut off.
    while at < len {
        let differing = word(block, at) ^ word(block, from);
        if differing != 0 {
            at += differing.trailing_zeros() as usize / 8;
            break;
        }
        at += 8;
        from += 8;
    }
    at.min(len)
}

/// Eight bytes, the first one lowest.
#[inline(always)]
fn word(block: &Block, at: usize) -> u64 {
    u64::from_le_bytes(piece(block, at))
}

#[inline(always)]
fn byte(block: &Block, at: usize) -> u8 {
    let [byte] = piece(block, at);
    byte
}

/// Bytes from a place on, at most [`SPILL`].
#[inline(always)]
#[expect(
    clippy::indexing_slicing,
    reason = "within by the modulo, which the compiler sees"
)]
fn piece<const N: usize>(block: &Block, at: usize) -> [u8; N] {
    let at = at % BLOCK;
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

/// A place in a block, or a length in one less one.
#[inline(always)]
fn low16(value: usize) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Elements as they are written.
struct Out {
    bytes: Box<[u8; OUT + SPILL]>,
    len: usize,
}

impl Out {
    /// A literal: the bytes from one place to another, at least one.
    #[inline(always)]
    fn literal(&mut self, block: &Block, from: usize, to: usize) {
        let len = to - from;
        self.literal_head(len - 1);
        // More than count: a copy of fixed length is a few instructions, and the rest is written over.
        if len <= 32 {
            self.put(piece::<32>(block, from), len);
        } else if len <= 64 {
            self.put(piece::<64>(block, from), len);
        } else if let Some(bytes) = block.get(from..to)
            && let Some(place) = self.bytes.get_mut(self.len..self.len + len)
        {
            place.copy_from_slice(bytes);
            self.len += len;
        } else {
            debug_assert!(
                false,
                "a literal is within the block, and the block's elements have room"
            );
        }
    }

    /// What stands before a literal; `last` is its length less one.
    #[inline(always)]
    fn literal_head(&mut self, last: usize) {
        let [low, high] = low16(last).to_le_bytes();
        if last < 60 {
            self.put([low << 2], 1);
        } else if last < 256 {
            self.put([60 << 2, low], 2);
        } else {
            self.put([61 << 2, low, high], 3);
        }
    }

    /// A copy of at least four bytes from `offset` bytes before.
    #[inline(always)]
    fn copy(&mut self, offset: usize, mut len: usize) {
        // Four at least are left for the last one, which then may be short.
        while len >= 68 {
            self.long(offset, 64);
            len -= 64;
        }
        if len > 64 {
            self.long(offset, 60);
            len -= 60;
        }
        // Without a branch: which of the two it is cannot be foretold.
        let is_short = len < 12 && offset < 2048;
        let short = 1 | (len.wrapping_sub(4) << 2) | ((offset >> 8) << 5) | ((offset & 0xff) << 8);
        let long = 2 | ((len - 1) << 2) | (offset << 8);
        let mask = usize::from(is_short).wrapping_neg();
        let element = (short & mask) | (long & !mask);
        self.put(first4(element), 3 - usize::from(is_short));
    }

    #[inline(always)]
    fn long(&mut self, offset: usize, len: usize) {
        self.put(first4(2 | ((len - 1) << 2) | (offset << 8)), 3);
    }

    /// Writes bytes of which `count` count.
    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "within by the modulo, which the compiler sees"
    )]
    fn put<const N: usize>(&mut self, bytes: [u8; N], count: usize) {
        let at = self.len % OUT;
        self.bytes[at..at + N].copy_from_slice(&bytes);
        self.len = at + count;
    }
}

fn first4(element: usize) -> [u8; 4] {
    let [a, b, c, d, ..] = element.to_le_bytes();
    [a, b, c, d]
}

/// Memory that the kernel gives when it is first touched.
#[expect(clippy::unnecessary_box_returns, reason = "it is too large for the stack")]
fn zeros<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N]
        .into_boxed_slice()
        .try_into()
        .unwrap_or_else(|_| Box::new([T::default(); N]))
}
