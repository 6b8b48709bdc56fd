//! A file's first bytes in, its identity out: what inodes and names cannot give across renames, compression
//! and restarts. CRI's timestamps make it unique.

use xxhash_rust::xxh3::xxh3_128;

/// Bytes at a file's beginning that identify it.
pub const HEAD: usize = 1024;
/// Bytes of a timestamp such as `2026-11-20T17:50:01Z`.
const SHORTEST_TIMESTAMP: usize = 20;

/// Hash of a file's first bytes, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// xxh3-128 of them.
    pub hash: u128,
    /// At most [`HEAD`].
    pub len: u16,
}

impl Fingerprint {
    /// Of a file that begins with `head`.
    pub fn of(head: &[u8]) -> Self {
        let head = head.get(..HEAD).unwrap_or(head);
        Self {
            hash: xxh3_128(head),
            len: u16::try_from(head.len()).unwrap_or(0),
        }
    }

    /// Whether a file that begins with `head` is this one, perhaps grown since.
    pub fn matches(&self, head: &[u8]) -> bool {
        self.len > 0
            && head
                .get(..usize::from(self.len))
                .is_some_and(|known| xxh3_128(known) == self.hash)
    }

    /// The same, and no other file begins so.
    pub fn names(&self, head: &[u8]) -> bool {
        usize::from(self.len) >= unique(head) && self.matches(head)
    }
}

/// How many bytes of a head no other file has: a timestamp, with nanoseconds in all but tests. All of them where
/// it does not begin with one.
fn unique(head: &[u8]) -> usize {
    let space = memchr::memchr(b' ', head).filter(|space| *space >= SHORTEST_TIMESTAMP);
    space.map_or(HEAD, |space| space + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_file_may_begin_with_names_none() {
        let head = b"2026-11-20T17:50:01Z stdout F a\n";
        assert!(!Fingerprint::of(&head[..20]).names(head));
        assert!(Fingerprint::of(&head[..21]).names(head));
        assert!(!Fingerprint::default().names(head));
        assert!(!Fingerprint::of(b"raw text").names(b"raw text and more"));
    }

    #[test]
    fn a_file_that_grew_is_still_itself() {
        let print = Fingerprint::of(b"2026-11-20T17:50:01Z stdout F a\n");
        assert!(print.matches(b"2026-11-20T17:50:01Z stdout F a\n2026"));
        assert!(!print.matches(b"2026-11-20T17:50:01Z stdout F b\n2026"));
        assert!(!print.matches(b"2026"));
        assert!(
            !Fingerprint::of(b"").matches(b"x"),
            "an empty file is like any other"
        );
        assert_eq!(Fingerprint::of(&[b'x'; 5000]).len, 1024);
    }
}
