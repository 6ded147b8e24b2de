//! The graph: rows that lead to near rows, along which a search walks.

mod build;
mod bytes;
mod changes;
mod effort;
mod entries;
mod file;
mod index;
mod leaves;
mod links;
mod params;
mod places;
mod records;
mod search;
mod sieve;
mod visited;
mod walk;

pub use index::GraphIndex;
pub use params::{GraphOptions, GraphParams, Layout};
pub use search::Walked;
