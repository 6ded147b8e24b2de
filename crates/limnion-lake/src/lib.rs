//! Cache-first vector search over any backend.
//!
//! A [`Lake`] keeps indexes of what its [`Backend`]s hold. A search is served from the index in memory; how fresh that must be
//! is a matter of [`Consistency`]. Indexes are built when they are first needed, once however many wait, and go when room is
//! needed for others; each knows which generation of which source it was built from.
#![forbid(unsafe_code)]

mod backend;
mod formats;
mod fs;
mod layers;
mod local;
mod names;
mod runtime;

pub use backend::{Backend, Changes, Description, Generation, Id, Ids, Rows, Sink};
pub use formats::{Columns, Format, rows_of_batches};
pub use fs::{FsBackend, FsOptions, write_rows};
pub use layers::{Limit, Metered, Metrics, Retry, Timed};
pub use local::LocalBackend;
