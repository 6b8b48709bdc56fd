//! Settings in, a running agent out: wires the parts and drains them at the end.
