//! What every limnion crate shares: errors with kinds, metrics, hits, filters and the control of a long job.
//!
//! No I/O, no unsafe code, no dependency but `thiserror`, and for filters `serde_json` (values) and `strsim` (typos).
#![forbid(unsafe_code)]

mod error;
pub mod filter;
mod hit;
mod job;
mod metric;

pub use error::{Error, ErrorKind, Result};
pub use filter::Filter;
pub use hit::Hit;
pub use job::Job;
pub use metric::Metric;
