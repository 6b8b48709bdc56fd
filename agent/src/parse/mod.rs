//! Bytes in, joined lines out: a thin layer over [`sluice_engine::cri`].

pub mod join;
