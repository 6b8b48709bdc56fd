//! Files in, bytes of whole lines and their positions out, oldest generation first.

pub mod position;
