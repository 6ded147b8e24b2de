//! What every limnion crate shares: errors with kinds, metrics, hits and the control of a long job.
//!
//! No I/O, no unsafe code, no dependency but `thiserror`.
#![forbid(unsafe_code)]

mod error;
mod hit;
mod job;
mod metric;

pub use error::{Error, ErrorKind, Result};
pub use hit::Hit;
pub use job::Job;
pub use metric::Metric;
