//! What the store asks of whoever keeps its rows.
//!
//! An engine keeps rows in the order it is told, and gives them back. It knows nothing of what is in them: hashes, links,
//! expiry and conditions are the store's business, so that they are written once and hold whatever lies below.
//!
//! One [`Engine`] belongs to the one thread that writes. Its [`Reader`] is shared by all others, and never waits for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use limnion_types::{Job, Result};

use crate::model::{At, KeyRange, Kind, Micros, Seq};
use crate::text::TextQuery;

pub mod memory;
pub mod sqlite;

/// One version of a record, as it lies in an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The commit that wrote it.
    pub seq: Seq,
    /// The time of that commit.
    pub time: Micros,
    /// The version of the record before it, 0 for the first.
    pub previous: Seq,
    /// What it says.
    pub kind: Kind,
    /// When it runs out.
    pub expires: Option<Micros>,
    /// What makes damage visible: `crate::hash::digest`, over all the above, namespace, key and payload.
    pub check: [u8; 16],
    /// The encoded body, perhaps encrypted; empty for deletions.
    pub payload: Arc<[u8]>,
    /// Where the parts of the payload lie that are kept in segment files, in the order in which it names them. Not part
    /// of what the hash covers: parts are moved, and the payload has their hashes.
    pub places: Vec<Place>,
}

/// Where something lies in a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The number of the segment.
    pub segment: u32,
    /// The first byte.
    pub offset: u64,
}

/// A row, and what links it to the version after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The row.
    pub row: Row,
    /// `previous` of the next newer version of the record, where there is one. It must be `row.seq`: if not, versions
    /// are missing in between, by retention ([`Reader::retired`]) or by damage.
    pub next_previous: Option<Seq>,
}

/// A row with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// The key.
    pub key: String,
    /// The row; its payload is empty where keys only were asked for.
    pub found: Found,
}

/// The newest commit: all zero in a new store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub seq: Seq,
    /// Its time.
    pub time: Micros,
    /// The hash over it and all commits before it.
    pub chain: [u8; 32],
}

/// A commit, as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Number, time and chain.
    pub head: Head,
    /// What it wrote, in order.
    pub writes: Vec<Logged>,
}

/// One write of a commit, as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The whole hash of the row (`crate::hash::row`).
    pub hash: [u8; 32],
}

/// What a transaction is told to write under a key.
#[derive(Debug, Clone)]
pub struct Write {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The row, which becomes the current one.
    pub row: Row,
    /// The whole hash of the row.
    pub hash: [u8; 32],
    /// What full text finds the record by from now on.
    pub text: Option<Arc<str>>,
    /// What declared indexes find the record by from now on: the number of the index, and an order-preserving key
    /// (`crate::query::index_key`). All entries that the record had before are forgotten.
    pub fields: Vec<(u32, Vec<u8>)>,
}

/// What the writer has to know of a record before it writes the next version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    /// The newest version.
    pub seq: Seq,
    /// What it says.
    pub kind: Kind,
    /// When it runs out.
    pub expires: Option<Micros>,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// The commit it names.
    pub seq: Seq,
    /// The time of that commit.
    pub time: Micros,
}

/// A declared index over a field of the records of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldIndex {
    /// Its number.
    pub id: u32,
    /// The namespace.
    pub namespace: String,
    /// The dotted path of the field.
    pub field: String,
}

/// A segment file as the engine knows it: what lies behind `length` was never committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub id: u32,
    /// What it holds: 0 for values, else the dimension of the vectors in it.
    pub dim: u32,
    /// The namespace and the name of the vectors; empty for values.
    pub namespace: String,
    /// See `namespace`.
    pub name: String,
    /// The committed length in bytes.
    pub length: u64,
    /// The bytes of it that some version refers to.
    pub live: u64,
}

/// What a namespace holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// The records whose newest version is a value (expired ones count until they are swept).
    pub keys: u64,
    /// All versions that are kept, deletions too.
    pub versions: u64,
    /// The versions among them that lie compressed.
    pub cold: u64,
    /// The bytes of the newest payloads.
    pub bytes: u64,
    /// The bytes of all older payloads, before compression.
    pub history_bytes: u64,
}

/// What an engine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// What each namespace holds.
    pub namespaces: BTreeMap<String, NamespaceInfo>,
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Bytes in it that are free.
    pub free_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// Bytes in memory that are the engine's own.
    pub memory_bytes: u64,
}

/// A record with all of its versions, for checks, exports and salvage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dumped {
    /// The engine's number of the record.
    pub id: u64,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// All versions, oldest first.
    pub rows: Vec<Row>,
    /// The ranges of versions that retention has dropped: first and last, both included.
    pub retired: Vec<(Seq, Seq)>,
}

/// The side of an engine that reads. Every call is one consistent look; several calls see one state when they are given
/// the same [`At`].
pub trait Reader: Send + Sync {
    /// The newest commit.
    fn head(&self) -> Result<Head>;

    /// The version of a record at a point in history, deletions included.
    fn get(&self, namespace: &str, key: &str, at: At) -> Result<Option<Found>>;

    /// The versions of a record that `at` includes and `after` does not, newest first, deletions included, at most
    /// `limit`.
    fn history(
        &self,
        namespace: &str,
        key: &str,
        after: Option<At>,
        at: At,
        limit: usize,
    ) -> Result<Vec<Found>>;

    /// The first `limit` records of a range in the order of their keys, or the last ones in reverse order, as they were
    /// at `at`; deleted ones are included. `payloads` says whether payloads and places are wanted.
    fn scan(
        &self,
        namespace: &str,
        range: &KeyRange,
        at: At,
        limit: usize,
        reverse: bool,
        payloads: bool,
    ) -> Result<Vec<Keyed>>;

    /// Where retention has dropped this version: the first and the last one that it has dropped there, with no version
    /// that was kept between them.
    fn retired(&self, namespace: &str, key: &str, seq: Seq) -> Result<Option<(Seq, Seq)>>;

    /// The commits after `seq`, at most `limit`.
    fn commits(&self, after: Seq, limit: usize) -> Result<Vec<Commit>>;

    /// A commit without what it wrote; `None` where the log does not have it.
    fn commit(&self, seq: Seq) -> Result<Option<Head>>;

    /// The first commit of the log: 1, or later where the log was folded; 0 in a new store.
    fn first_commit(&self) -> Result<Head>;

    /// The last commit at or before `time`; `None` where the log does not reach back that far.
    fn commit_at(&self, time: Micros) -> Result<Option<Seq>>;

    /// The names of the namespaces that hold at least one value now, in order.
    fn namespaces(&self) -> Result<Vec<String>>;

    /// A tag.
    fn tag(&self, name: &str) -> Result<Option<Tag>>;

    /// All tags, in the order of their names.
    fn tags(&self) -> Result<Vec<Tag>>;

    /// The declared indexes.
    fn field_indexes(&self) -> Result<Vec<FieldIndex>>;

    /// The keys that a declared index has from one entry to another, both included, in the order of entries and then of
    /// keys; at most `limit`.
    fn lookup(&self, index: u32, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<String>>;

    /// The best matches among the newest versions of a namespace: key and BM25 (higher is better), ties by key.
    fn text_search(&self, namespace: &str, query: &TextQuery, limit: usize) -> Result<Vec<(String, f64)>>;

    /// The keys of a namespace that full text finds something by, each with `crate::text::sum` of what it finds it by; `None`
    /// where the index cannot be damaged, because it lies in memory.
    fn text_sums(&self, _namespace: &str) -> Result<Option<Vec<(String, u64)>>> {
        Ok(None)
    }

    /// Records whose newest version has run out by `now`, those first that ran out first: namespace and key, at most
    /// `limit`.
    fn expired(&self, now: Micros, limit: usize) -> Result<Vec<(Arc<str>, Arc<str>)>>;

    /// The last moment at or before `now` at which the newest version of some record of a namespace ran out, where there is
    /// one; and a moment after `now` before which none other does, `Micros::MAX` where none ever does.
    fn expiries(&self, namespace: &str, now: Micros) -> Result<(Option<Micros>, Micros)>;

    /// The keys of a namespace whose newest version runs out after `after`, and at `until` or before.
    fn run_out(&self, namespace: &str, after: Micros, until: Micros) -> Result<Vec<Arc<str>>>;

    /// The segments.
    fn segments(&self) -> Result<Vec<SegmentInfo>>;

    /// A number kept by name: the format's own settings.
    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The records after number `after`, with all of their versions; at most `limit`. A record that cannot be read is an
    /// error in its place.
    fn dump(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<std::result::Result<Dumped, (u64, limnion_types::Error)>>>;

    /// What the engine's own checks find wrong, in sentences.
    fn integrity(&self, job: &Job) -> Result<Vec<String>>;

    /// Sizes and counts.
    fn stats(&self) -> Result<EngineStats>;

    /// Writes a whole copy of the engine's file to `path`, which does not exist yet.
    fn backup(&self, path: &Path, job: &Job) -> Result<()>;

    /// Closes all files. What is called afterwards is an error of kind database-closed; what is under way ends first.
    fn close(&self) {}
}

/// The side of an engine that writes, owned by the writer.
pub trait Engine: Send {
    /// The side that reads.
    fn reader(&self) -> Arc<dyn Reader>;

    /// Begins a transaction. Dropped uncommitted, it changes nothing.
    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>>;

    /// Makes the engine fit to write again after a transaction failed, by opening its file anew.
    fn recover(&mut self) -> Result<()>;

    /// Syncs what weaker durability left unsynced, and moves the write-ahead log into the file as far as readers allow;
    /// `truncate` also gives its space back.
    fn checkpoint(&mut self, truncate: bool) -> Result<()>;

    /// Compresses old versions of records that have many, until `budget` versions have been looked at. Gives the number
    /// that was compressed. A transaction of its own.
    fn compress(&mut self, budget: usize) -> Result<usize>;

    /// Gives up to `pages` free pages back to the file system; gives how many were.
    fn vacuum(&mut self, pages: usize) -> Result<usize>;

    /// Closes all files. Nothing else is called afterwards.
    fn close(&mut self) -> Result<()>;
}

/// Changes that happen together or not at all. It sees its own changes; readers see them after [`Transaction::commit`].
pub trait Transaction {
    /// The newest version of a record.
    fn current(&mut self, namespace: &str, key: &str) -> Result<Option<Current>>;

    /// Makes a row the newest of its record.
    fn write(&mut self, write: &Write) -> Result<()>;

    /// Makes rows the first ones of their records, in order, until a record is there already; gives how many it made. All
    /// are of one namespace.
    fn insert(&mut self, writes: &[Write]) -> Result<usize> {
        for (at, write) in writes.iter().enumerate() {
            if self.current(&write.namespace, &write.key)?.is_some() {
                return Ok(at);
            }
            self.write(write)?;
        }
        Ok(writes.len())
    }

    /// Appends to the log. `hashes` belong to the writes since the last call, in order.
    fn log(&mut self, head: &Head) -> Result<()>;

    /// Sets a tag, or moves it.
    fn set_tag(&mut self, tag: &Tag) -> Result<()>;

    /// Removes a tag; says whether it was there.
    fn remove_tag(&mut self, name: &str) -> Result<bool>;

    /// Declares an index without entries; an existing one is given as it is.
    fn create_index(&mut self, namespace: &str, field: &str) -> Result<FieldIndex>;

    /// Forgets an index; says whether it was there.
    fn drop_index(&mut self, namespace: &str, field: &str) -> Result<bool>;

    /// Adds an entry of a record that exists.
    fn index(&mut self, index: u32, namespace: &str, key: &str, entry: &[u8]) -> Result<()>;

    /// Drops these versions of a record, none of them its newest, and remembers that. Segments' `live` shrinks by
    /// `freed`: segment and bytes.
    fn retire(&mut self, namespace: &str, key: &str, seqs: &[Seq], freed: &[(u32, u64)]) -> Result<()>;

    /// Drops the log before `seq`.
    fn fold(&mut self, seq: Seq) -> Result<()>;

    /// Creates or changes what is known of a segment.
    fn set_segment(&mut self, segment: &SegmentInfo) -> Result<()>;

    /// Forgets a segment.
    fn remove_segment(&mut self, id: u32) -> Result<()>;

    /// The place of a value that lies out of line already, by the hash of its bytes.
    fn find_value(&mut self, hash: &[u8; 32]) -> Result<Option<Place>>;

    /// Remembers the place of a value that lies out of line.
    fn set_value(&mut self, hash: &[u8; 32], place: Place) -> Result<()>;

    /// Keeps a setting.
    fn set_setting(&mut self, name: &str, value: &[u8]) -> Result<()>;

    /// Makes it so, as durable as the engine was opened to be.
    fn commit(self: Box<Self>) -> Result<()>;
}
