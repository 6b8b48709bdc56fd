//! Flags in, checked settings out.
