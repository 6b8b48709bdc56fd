//! api: see the crate's layout.
