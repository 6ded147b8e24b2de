//! Cache-first vector search over any backend.
//!
//! A [`Lake`] keeps indexes of what its [`Backend`]s hold. A search is served from the index in memory; how fresh that must be
//! is a matter of [`Consistency`]. Indexes are built when they are first needed, once however many wait, and go when room is
//! needed for others; each knows which generation of which source it was built from.
#![forbid(unsafe_code)]

mod backend;
mod bundle;
mod cache;
mod claims;
mod consistency;
mod entry;
mod executor;
mod federation;
mod flight;
mod formats;
mod fs;
mod history;
mod hybrid;
mod labels;
mod lake;
mod layers;
mod local;
mod names;
mod nearest;
mod object;
mod prime;
mod runtime;
mod shelf;
mod slot;
mod stats;
mod store;
mod witness;

pub use backend::{Backend, Changes, Description, Generation, Id, Ids, Rows, Sink};
pub use bundle::{BundleGeneration, LakeBundle, Notes, RefreshResult, Warmed};
pub use claims::{Claim, Claims, MODEL_FIELD, Model};
pub use consistency::Consistency;
pub use entry::Options;
pub use executor::{Executor, Global};
pub use federation::{Federated, OnError, Part, Preparing, Shards};
pub use formats::{Columns, Format, rows_of_batches};
pub use fs::{FsBackend, FsOptions, write_rows};
pub use history::History;
pub use hybrid::{Fusion, Hybrid};
pub use lake::{Lake, LakeHit, Ready, Search, Settings, Where};
pub use layers::{Limit, Metered, Metrics, Retry, Timed};
pub use local::LocalBackend;
pub use nearest::{Near, Nearest, Sought};
pub use object::{ObjectOptions, ObjectShelf, ObjectStoreBackend};
pub use shelf::{Folder, OpenFile, Shelf};
pub use slot::Target;
pub use stats::{CollectionStats, Stats};
pub use store::{HistoryChanges, StoreBackend};
pub use witness::Witness;
