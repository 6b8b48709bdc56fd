//! run: see the crate's layout.
