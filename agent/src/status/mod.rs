//! Figures in, `/status`, `/metrics` and probes out.

pub mod figures;
