//! logpipeline: see the crate's layout.
