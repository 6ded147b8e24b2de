//! Text to vectors, with nothing to download: the built-in static embedder.
//!
//! A static model is a table with one vector a token. The vector of a text is the mean of its tokens' vectors, scaled
//! to unit length. There is no network to run, so the tokenizer takes most of the time; `wordpiece` says how that
//! is kept small.
#![forbid(unsafe_code)]

mod model;
mod wordpiece;

pub use model::StaticModel;
