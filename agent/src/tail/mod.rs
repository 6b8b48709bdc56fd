//! Files in, bytes of whole lines and their positions out, oldest generation first.

pub mod chain;
pub mod compressed;
pub mod fingerprint;
pub mod generation;
pub mod kept;
pub mod position;

mod copies;
mod follow;
mod left;
mod place;
mod take_in;
