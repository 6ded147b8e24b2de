//! Vector indexes, flat, in lists or as a graph: exact, or over RaBitQ codes with refinement by bound.
//!
//! A [`FlatIndex`] keeps a code of 0 to 8 bits a dimension for each vector, the original vectors as f32 or f16, or
//! both ([`Params`]). A search scans the sign bits of all rows, one block of 32 at a time; the bound on each estimate's
//! error rules most rows out, the further bits rule out most of the rest, and the originals decide. It is arithmetic
//! over slices: the index knows nothing of storage, of Python, or of time. Long work is parallel on the current rayon
//! pool and stops when its [`Job`](limnion_types::Job) says so.
//!
//! An [`IvfIndex`] keeps the same in lists round centres, and looks only into those that may hold neighbours. A
//! [`GraphIndex`] links rows to near ones and walks along the links. A [`HammingIndex`] is for binary vectors.
//!
//! ```
//! use limnion_index::{FlatIndex, Params, Precision, SearchOptions};
//! use limnion_types::{Job, Metric};
//!
//! let vectors: Vec<f32> = (0..1000 * 64_u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 16) as f32).collect();
//! let params = Params { bits: 1, originals: Some(Precision::F32), ..Params::new(Metric::L2) };
//! let index = FlatIndex::build(&vectors, 64, None, &params, &Job::new())?;
//! let hits = index.search(&vectors[640..704], &SearchOptions::new(3))?;
//! assert_eq!((hits[0].id, hits[0].distance), (10, 0.0));
//! # Ok::<(), limnion_types::Error>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("limnion's files and code blocks are little-endian: big-endian machines are not supported");

mod builder;
mod calibration;
mod changes;
mod codes;
mod digest;
mod exact;
mod exclusion;
mod file;
mod flat;
mod graph;
mod hamming;
mod ids;
mod input;
mod ivf;
mod ivf_file;
mod kmeans;
mod late;
mod lists;
mod merge;
mod originals;
mod packed;
mod params;
mod probe;
mod rbpx;
mod recall;
mod recommend;
mod reconstruct;
mod rough;
mod search;
mod selection;
mod stage;
mod storage;
mod table;
mod top;

pub use builder::{Builder, sample_rows};
pub use exclusion::Exclusion;
pub use file::Verify;
pub use flat::FlatIndex;
pub use graph::{GraphIndex, GraphOptions, GraphParams, Layout, Walked};
pub use hamming::{HammingIndex, HammingOptions};
pub use ivf::{IvfIndex, IvfParams};
pub use limnion_simd::huge_pages;
pub use originals::{Matrix, Originals};
pub use params::{Params, Precision, SearchOptions};
pub use probe::{Explanation, IvfOptions};
pub use recommend::{Recommendation, Wanted, recommend};
pub use selection::Selection;
pub use storage::Source;
