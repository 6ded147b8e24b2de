//! Queries over the fields of records: filter, sort, aggregate.
//!
//! The fields of a record are those of its metadata and, where its value is a JSON object, those of its value: a path is
//! looked for in the metadata first, and then in the value. `$key`, `$namespace` and `$version` are the record's own. Of a
//! value that is bytes, or no JSON, there are no fields.
//!
//! Records are read as they come and let go again: what is kept is the page that was asked for, or a group.

use limnion_types::Result;
use limnion_types::filter::{Fields, Filter, Path};
use serde_json::Value;

use self::fields::{Source, Wanted};
use crate::model::{Content, Record};

/// One level of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// The dotted path of the field, or `$key`, `$version`.
    pub field: String,
    /// Highest first.
    pub descending: bool,
}

/// What is to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// How.
    pub function: Function,
    /// The dotted path of the field.
    pub field: String,
}

/// How values are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The sum of the numbers.
    Sum,
    /// Their mean.
    Avg,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
}

/// The aggregates of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What the group has in common; null where a record has no such field, or nothing is grouped.
    pub key: Value,
    /// How many records.
    pub count: usize,
    /// One value per aggregate; null where no record has one.
    pub values: Vec<Value>,
}

mod aggregate;
mod fields;
mod key;
mod select;
#[cfg(test)]
mod testing;

pub use aggregate::aggregate;
pub use fields::Matcher;
pub use key::{Ranges, candidates, index_key};
pub use select::select;

/// Whether a filter holds for a record. For many records, make a [`Matcher`] once.
pub fn matches(record: &Record, filter: &Filter) -> Result<bool> {
    Matcher::new(filter).matches(record)
}

/// What an index over a field finds a record by; `None` where it has no such field, or one without order.
pub fn entry_of(record: &Record, field: &str) -> Option<Vec<u8>> {
    let payload = &record.payload;
    let value = (payload.content() != Content::Bytes).then(|| payload.value());
    let entries = entries(&record.namespace, &record.key, payload.metadata(), value, [field].into_iter());
    entries.into_iter().next().flatten()
}

/// [`entry_of`] for each of several fields, of a record that is about to be written; `value` is its JSON.
pub fn entries<'a>(
    namespace: &str,
    key: &str,
    metadata: Option<&str>,
    value: Option<&[u8]>,
    fields: impl Iterator<Item = &'a str>,
) -> Vec<Option<Vec<u8>>> {
    // A field that is no path has no entries, and `candidates` never asks for them.
    let paths: Vec<Option<Path>> = fields.map(|field| Path::parse(field).ok()).collect();
    let wanted = Wanted::new(paths.iter().flatten().cloned());
    let row = wanted.row(Source { namespace, key, version: None, metadata, value });
    paths.iter().map(|path| index_key(&*row.field(path.as_ref()?)?)).collect()
}
