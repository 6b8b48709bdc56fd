//! Where in a container's chain of log files a line begins.

use sluice_engine::cri::Timestamp;

/// Between the numbers of two generations: room for the new content of a file that was rewritten after it had been
/// renamed. The numbers last for 20 years of a rotation every ten seconds.
pub const STRIDE: u32 = 64;

/// A place in a container's chain of generations; ordered as the container wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the generation within its chain; grows as the container writes, never reused while the
    /// process runs.
    pub generation: u32,
    /// Uncompressed bytes from the generation's beginning.
    pub offset: u64,
}

/// One reader of one container for one pipeline and tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorId(pub u32);

/// Where reading can begin again and give the same entries: a line's beginning, and what the lines before
/// it left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The line's beginning.
    pub position: Position,
    /// The timestamp that a malformed line here would get.
    pub previous: Option<Timestamp>,
    /// A line longer than the tenant takes goes on here.
    pub resume: Option<Resume>,
}

/// The rest of a line whose beginning was already sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Which of the cursor's open lines, see [`crate::parse::join`].
    pub slot: u8,
    /// Number of the part that comes next.
    pub part: u32,
    /// Timestamp of the whole line.
    pub timestamp: Timestamp,
}
