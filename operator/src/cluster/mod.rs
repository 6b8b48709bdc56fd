//! cluster: see the crate's layout.
