//! tenant: see the crate's layout.
