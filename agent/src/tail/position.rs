//! Where in a container's chain of log files a line begins.

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
