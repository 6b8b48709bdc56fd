//! admin: see the crate's layout.
