//! A byte budget in, chains of segments out: all memory that lines wait in before they are sealed.
//!
//! A chain begins with a small segment, since most streams hold a few lines, and goes on in large ones. What
//! is handed back stays for the next chain up to a small reserve; the rest goes back to the allocator.

/// Bytes of a chain's first segment.
pub(super) const SMALL: usize = 2 << 10;
/// Bytes of every further one.
pub(super) const LARGE: usize = 16 << 10;
/// Segments of each kind that are kept for the next chain.
const RESERVE: usize = 32;

/// The budget and the segments that wait to be used again.
#[derive(Debug)]
pub(super) struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    budget: usize,
    charged: usize,
}

impl Pool {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            small: Vec::new(),
            large: Vec::new(),
            budget,
            charged: 0,
        }
    }

    /// The whole budget.
    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes that are taken from the budget.
    pub(super) fn charged(&self) -> usize {
        self.charged
    }

    /// Bytes that are still to be had.
    pub(super) fn room(&self) -> usize {
        self.budget.saturating_sub(self.charged)
    }

    /// Bytes held, used or waiting to be used.
    pub(super) fn held(&self) -> usize {
        self.charged + self.small.len() * SMALL + self.large.len() * LARGE
    }

    /// Takes memory from the budget that is not a segment: a sealed request's body.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.charged += bytes;
    }

    /// Gives such memory back.
    pub(super) fn discharge(&mut self, bytes: usize) {
        self.charged = self.charged.saturating_sub(bytes);
    }

    /// Gives the reserve back to the allocator: an idle agent is small.
    pub(super) fn trim(&mut self) {
        self.small = Vec::new();
        self.large = Vec::new();
    }

    fn take(&mut self, size: usize) -> Vec<u8> {
        self.charged += size;
        let waiting = if size == SMALL {
            self.small.pop()
        } else {
            self.large.pop()
        };
        waiting.unwrap_or_else(|| Vec::with_capacity(size))
    }

    fn give_back(&mut self, mut segment: Vec<u8>, size: usize) {
        self.charged = self.charged.saturating_sub(size);
        let has_room = self.held() + size <= self.budget;
        let waiting = if size == SMALL {
            &mut self.small
        } else {
            &mut self.large
        };
        if has_room && waiting.len() < RESERVE {
            segment.clear();
            waiting.push(segment);
        }
    }
}

/// Bytes that grow at their end, in segments of the pool.
#[derive(Debug, Default)]
pub(super) struct Chain {
    segments: Vec<Vec<u8>>,
    /// The segment that is written to.
    current: usize,
    len: usize,
    spare: usize,
    /// The first segment is a small one.
    begins_small: bool,
}

impl Chain {
    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What `need` more bytes take from the pool.
    pub(super) fn cost(&self, need: usize) -> usize {
        if need <= self.spare {
            0
        } else if self.segments.is_empty() && need <= SMALL {
            SMALL
        } else {
            (need - self.spare).div_ceil(LARGE) * LARGE
        }
    }

    /// Bytes that it has taken from the pool.
    pub(super) fn held(&self) -> usize {
        match self.segments.len() {
            0 => 0,
            n if self.begins_small => SMALL + (n - 1) * LARGE,
            n => n * LARGE,
        }
    }

    /// Takes what `need` more bytes cost; returns that.
    pub(super) fn reserve(&mut self, pool: &mut Pool, need: usize) -> usize {
        let cost = self.cost(need);
        if cost == SMALL {
            self.begins_small = true;
            self.segments.push(pool.take(SMALL));
        } else {
            for _ in 0..cost / LARGE {
                self.segments.push(pool.take(LARGE));
            }
        }
        self.spare += cost;
        cost
    }

    /// Lets `write` append reserved bytes, at most so many; false when they may not fit into one segment.
    #[inline]
    pub(super) fn extend_with(&mut self, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let size = self.current_size();
        match self.segments.get_mut(self.current) {
            Some(segment) if size - segment.len() >= most => {
                let before = segment.len();
                write(segment);
                let written = segment.len() - before;
                self.len += written;
                self.spare -= written;
                true
            }
            _ => false,
        }
    }

    fn current_size(&self) -> usize {
        if self.current == 0 && self.begins_small {
            SMALL
        } else {
            LARGE
        }
    }

    /// Appends bytes that were reserved.
    pub(super) fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.extend_with(bytes.len(), |segment| segment.extend_from_slice(bytes))
        {
            let room = self.current_size() - self.segments.get(self.current).map_or(0, Vec::len);
            let Some((fits, rest)) = bytes
                .split_at_checked(room)
                .filter(|_| self.current < self.segments.len())
            else {
                debug_assert!(false, "more bytes than were reserved");
                return;
            };
            self.extend_with(room, |segment| segment.extend_from_slice(fits));
            self.current += 1;
            bytes = rest;
        }
    }

    /// Its bytes, piece by piece.
    pub(super) fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().map(Vec::as_slice)
    }

    /// Gives everything back; returns how much that was.
    pub(super) fn release(self, pool: &mut Pool) -> usize {
        let held = self.held();
        for (index, segment) in self.segments.into_iter().enumerate() {
            pool.give_back(
                segment,
                if index == 0 && self.begins_small {
                    SMALL
                } else {
                    LARGE
                },
            );
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_chain_holds_what_was_appended_and_gives_everything_back(
            writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40_000), 0..12),
        ) {
            let mut pool = Pool::new(1 << 30);
            let mut chain = Chain::default();
            for bytes in &writes {
                let before = pool.charged();
                let cost = chain.cost(bytes.len());
                prop_assert_eq!(chain.reserve(&mut pool, bytes.len()), cost);
                prop_assert_eq!(pool.charged() - before, cost);
                chain.extend(bytes);
            }
            let read: Vec<u8> = chain.segments().flatten().copied().collect();
            prop_assert_eq!(&read, &writes.concat());
            prop_assert_eq!(chain.len(), read.len());
            prop_assert_eq!(chain.held(), pool.charged());
            chain.release(&mut pool);
            prop_assert_eq!(pool.charged(), 0);
            prop_assert!(pool.held() <= RESERVE * (SMALL + LARGE));
            pool.trim();
            prop_assert_eq!(pool.held(), 0);
        }
    }

    #[test]
    fn a_few_lines_take_a_small_segment() {
        let mut pool = Pool::new(1 << 20);
        let mut chain = Chain::default();
        assert_eq!(chain.reserve(&mut pool, 300), SMALL);
        chain.extend(&[7; 300]);
        assert_eq!(chain.reserve(&mut pool, 300), 0);
        chain.extend(&[8; 300]);
        assert_eq!(chain.reserve(&mut pool, SMALL), LARGE);
        assert_eq!(pool.room(), (1 << 20) - SMALL - LARGE);
    }
}
