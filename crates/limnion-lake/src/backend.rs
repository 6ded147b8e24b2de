//! What the lake asks of whoever keeps vectors.

use std::fmt;
use std::sync::Arc;

use limnion_types::{Filter, Job, Metric, Result};

/// Where vectors live: memory, a folder, a bucket, a store, or somebody's own class.
///
/// A backend has collections; a collection has rows, each an id and a vector of the collection's dimension, and a
/// generation, which is another one after every change. The lake builds an index from what [`Backend::pull`] gives, and
/// later asks for the generation to see whether the index is still of today.
///
/// Every method may block; the lake calls them from threads of its own, except [`Backend::generation`] where
/// [`Backend::is_quick`]. Errors are of kind `Backend` or `UnknownCollection`.
pub trait Backend: Send + Sync {
    /// What the lake and its hits call it. It never changes.
    fn name(&self) -> &str;

    /// The names of the collections, in order.
    fn collections(&self) -> Result<Vec<String>>;

    /// What a collection is now.
    fn describe(&self, collection: &str) -> Result<Description>;

    /// The generation of a collection now.
    fn generation(&self, collection: &str) -> Result<Generation> {
        Ok(self.describe(collection)?.generation)
    }

    /// Whether [`Backend::generation`] takes a moment only, and no I/O.
    fn is_quick(&self) -> bool {
        false
    }

    /// Hands over all rows as they are in one generation. A source that turns out to have changed meanwhile is an error
    /// that passes ([`Error::passing`](limnion_types::Error::passing)), upon which the lake tries again: rows of two generations never come together.
    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()>;

    /// What has changed since a generation; `None` where that cannot be told, and all rows have to be pulled.
    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        let _ = (collection, since);
        Ok(None)
    }

    /// [`Backend::changes`], where they are at most so many rows and told in a moment: a search takes these in the thread
    /// that searches. `None` says nothing else than that another thread has to ask.
    fn few_changes(&self, collection: &str, since: &Generation, rows: usize) -> Result<Option<Changes>> {
        let _ = (collection, since, rows);
        Ok(None)
    }

    /// Calls `wake` once, from any thread, when the collection is not of this generation any more: at once, where it is
    /// not by now. `false` where the backend cannot tell, and has to be asked.
    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        let _ = (collection, from, wake);
        false
    }

    /// The ids of the rows that match a filter, and the generation that they belong to; `None` where the backend has
    /// nothing to filter by.
    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        let _ = (collection, filter);
        Ok(None)
    }

    /// The rows whose text fits a query best, with scores of which higher is better; `None` where there is no text.
    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        let _ = (collection, query, k);
        Ok(None)
    }
}

/// What a collection is at some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// Numbers a vector; 0 where there are no rows to tell.
    pub dim: usize,
    /// How many rows; a guess where the backend cannot say.
    pub rows: usize,
    /// Another one after every change.
    pub generation: Generation,
    /// How near two vectors are, where the backend has an opinion.
    pub metric: Option<Metric>,
    /// Where the data lies, as a URI that is the same for everybody who means the same data.
    pub source: String,
}

/// Which state of a collection: a number that grows, or a name that says nothing about order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Generation {
    /// The number of a change.
    Number(u64),
    /// An ETag, a digest, a file's size and time.
    Name(Arc<str>),
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What a row is called: in indexes and arrays by a number, in stores by a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// A number.
    Number(u64),
    /// A name.
    Name(Arc<str>),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// The ids of several rows. A collection has ids of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// Numbers.
    Numbers(Vec<u64>),
    /// Names.
    Names(Vec<Arc<str>>),
}

impl Ids {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(ids) => ids.len(),
            Self::Names(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Some rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// One id a row, none of them twice in a collection.
    pub ids: Ids,
    /// The vectors one after the other.
    pub vectors: Vec<f32>,
}

/// Takes the rows of a collection.
pub trait Sink {
    /// Comes first, once: what the rows belong to.
    fn begin(&mut self, description: &Description) -> Result<()>;

    /// Some of the rows, in any order and any number of times.
    fn push(&mut self, rows: Rows) -> Result<()>;
}

/// From one generation to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// The generation after them.
    pub generation: Generation,
    /// Rows that are new, or have another vector.
    pub upserts: Rows,
    /// Rows that are gone. None of them is among the upserts.
    pub removed: Ids,
}
