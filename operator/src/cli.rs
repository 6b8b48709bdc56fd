//! cli: see the crate's layout.
