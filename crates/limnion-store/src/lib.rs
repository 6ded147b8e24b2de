//! A versioned record store in one folder.
//!
//! Every write makes a version, every version stays readable, and every batch of writes is a commit with a number, a time
//! and a hash over all that came before it.
#![forbid(unsafe_code)]

mod check;
pub mod cipher;
pub mod clock;
pub mod column;
mod commit;
mod copy;
pub mod engine;
mod folder;
pub mod hash;
mod hot;
mod lines;
mod maintenance;
pub mod model;
pub mod options;
pub mod payload;
pub mod query;
mod read;
mod retention;
pub mod segment;
pub mod store;
pub mod text;
mod witness;
mod writer;

pub use column::Column;
pub use model::{
    AsOf, At, Batch, Body, Condition, Content, Expect, KeyRange, Kind, Micros, Moment, Op, Receipt, Record,
    Seq, Vector,
};
pub use options::{Durability, Options, Retention};
pub use payload::Payload;
pub use store::Store;
