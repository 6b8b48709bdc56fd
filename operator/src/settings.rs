//! settings: see the crate's layout.
