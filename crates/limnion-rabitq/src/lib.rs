//! RaBitQ: vectors as codes of 1 to 8 bits a dimension, with distances estimated from them and a bound on the error.
//!
//! A vector is centred on a mean, [rotated](Rotation) at random without a matrix, and rounded to a grid of directions
//! ([`Quantizer::encode`]). From the code and two scalars the estimator gives a distance without bias, and a third
//! scalar says how far it may be off, so a search can prove which rows need a closer look. The sign bits of 32 rows lie
//! together in blocks that [`limnion_simd`] scans; the further bits of a row lie beside each other and are only read for
//! the rows that the signs could not rule out.
//!
//! Sources: Gao and Long, "RaBitQ" (SIGMOD 2024), for one bit, the estimator and its bound; Gao et al., "Practical and
//! asymptotically optimal quantization" (SIGMOD 2025), for several bits.
//!
//! Everything here is a pure function of slices: no storage, no threads, no I/O. On every CPU level the same input gives
//! the same bits.
#![forbid(unsafe_code)]

mod gaussian;
mod grid;
mod quantizer;
mod query;
mod random;
mod rotation;

pub use gaussian::sureness;
pub use grid::MAX_BITS;
pub use quantizer::{Encoded, Form, Quantizer, Workspace};
pub use query::{Query, Standing};
pub use random::SplitMix64;
pub use rotation::{Rotation, padded_dim};
