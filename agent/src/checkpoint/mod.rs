//! checkpoint: see the crate's layout.
