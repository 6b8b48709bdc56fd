//! reviews: see the crate's layout.
