//! discover: see the crate's layout.
