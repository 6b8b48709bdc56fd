//! parse: see the crate's layout.
