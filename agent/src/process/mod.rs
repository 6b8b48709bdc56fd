//! process: see the crate's layout.
