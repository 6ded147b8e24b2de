//! The nouns of the store: records, what is written, and the points in history at which one reads.

use std::ops::Bound;
use std::sync::Arc;

use crate::engine::Place;
use crate::payload::Payload;

/// The number of a commit: 1, 2, 3 ... without gaps. A version of a record is named by the commit that wrote it.
pub type Seq = u64;

/// Microseconds since 1970-01-01 UTC. The time of a commit is its hybrid logical time: the wall clock, or one microsecond
/// after the commit before it, whichever is later. So it never runs backwards, and no two commits share it.
pub type Micros = u64;

/// How the bytes of a value are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Content {
    /// JSON text.
    Json = 0,
    /// JSON text in which some objects stand for other types; whoever wrote them knows which.
    TaggedJson = 1,
    /// Bytes.
    Bytes = 2,
}

/// One version of a record, as it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The commit that wrote this version.
    pub version: Seq,
    /// When that was.
    pub time: Micros,
    /// The version of this record before it, 0 for the first.
    pub previous: Seq,
    /// Whether it was written, deleted, or ran out.
    pub kind: Kind,
    /// When it runs out, by the wall clock.
    pub expires: Option<Micros>,
    /// Value, metadata, text and vectors; empty where the version is a deletion.
    pub payload: Payload,
    /// Where the parts of the payload lie that are kept in segments.
    pub places: Vec<Place>,
}

impl Record {
    /// Whether there is a value at the time `now`.
    pub fn is_live(&self, now: Micros) -> bool {
        self.kind == Kind::Put && self.expires.is_none_or(|expires| now < expires)
    }
}

/// What a version says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// It has a value.
    Put = 0,
    /// It was deleted.
    Deleted = 1,
    /// It ran out, and was deleted for that.
    Expired = 2,
}

/// What is to be written under a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// How `value` is to be read.
    pub content: Content,
    /// The value.
    pub value: Arc<[u8]>,
    /// A JSON object.
    pub metadata: Option<Arc<str>>,
    /// What full-text search looks at.
    pub text: Option<Arc<str>>,
    /// Vectors by name, in any order, each name once.
    pub vectors: Vec<Vector>,
    /// When the record runs out, by the wall clock.
    pub expires: Option<Micros>,
}

impl Body {
    /// A body with nothing but JSON text.
    pub fn json(text: impl Into<Arc<[u8]>>) -> Self {
        Self {
            content: Content::Json,
            value: text.into(),
            metadata: None,
            text: None,
            vectors: Vec::new(),
            expires: None,
        }
    }
}

/// A vector with a name; the one that needs no name has the empty one.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// The name.
    pub name: Arc<str>,
    /// The numbers, all finite.
    pub numbers: Arc<[f32]>,
}

/// One step of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Writes a version with a value.
    Put {
        /// The namespace.
        namespace: Arc<str>,
        /// The key.
        key: Arc<str>,
        /// What to write.
        body: Body,
    },
    /// Writes a deletion; nothing, where there is nothing to delete.
    Delete {
        /// The namespace.
        namespace: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
}

/// What must hold for a batch to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// What must hold of its record.
    pub expect: Expect,
}

/// What must hold of a record at the moment of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is no value.
    Absent,
    /// There is a value.
    Present,
    /// There is a value, and this version wrote it.
    Version(Seq),
}

/// Writes that happen together or not at all. Where a key comes twice, the last word counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// The writes.
    pub ops: Vec<Op>,
    /// What must hold, checked at the moment of the commit.
    pub conditions: Vec<Condition>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The commit. A batch that had nothing to write made none: this is the newest one then.
    pub version: Seq,
    /// Its time.
    pub time: Micros,
    /// How many records were written or deleted.
    pub written: usize,
}

/// A point in history, as users say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// Just after this commit.
    Version(Seq),
    /// Where this tag was set.
    Tag(String),
    /// At this time.
    Time(Micros),
}

/// A point in history, as engines take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Now.
    Latest,
    /// Just after this commit.
    Seq(Seq),
    /// At this time. Engines find commits faster than times: see `Reader::commit_at`.
    Time(Micros),
}

impl At {
    /// Whether a version of this number and time had been written by then.
    pub fn includes(self, seq: Seq, time: Micros) -> bool {
        match self {
            At::Latest => true,
            At::Seq(at) => seq <= at,
            At::Time(at) => time <= at,
        }
    }
}

/// A state of the records: as a commit left them, and without those that had run out by a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The commit.
    pub seq: Seq,
    /// What runs out at this time or before has run out.
    pub time: Micros,
}

/// Keys from one bound to another, in the order of their UTF-8 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// Where to begin.
    pub start: Bound<String>,
    /// Where to end.
    pub end: Bound<String>,
}

impl KeyRange {
    /// All keys.
    pub const ALL: KeyRange = KeyRange { start: Bound::Unbounded, end: Bound::Unbounded };

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: &str) -> Self {
        if prefix.is_empty() {
            return Self::ALL;
        }
        Self { start: Bound::Included(prefix.to_owned()), end: after_prefix(prefix) }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &str) -> bool {
        let starts = match &self.start {
            Bound::Included(start) => key >= start.as_str(),
            Bound::Excluded(start) => key > start.as_str(),
            Bound::Unbounded => true,
        };
        starts
            && match &self.end {
                Bound::Included(end) => key <= end.as_str(),
                Bound::Excluded(end) => key < end.as_str(),
                Bound::Unbounded => true,
            }
    }
}

/// The first string that is after everything that begins with `prefix`.
fn after_prefix(prefix: &str) -> Bound<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The order of UTF-8 bytes is the order of code points; surrogates are none.
        let next = (last as u32 + 1..=0x10_FFFF).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Bound::Excluded(chars.into_iter().collect());
        }
    }
    Bound::Unbounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_just_what_begins_with_it() {
        for (prefix, inside, outside) in [
            ("a", "a\u{10FFFF}z", "b"),
            ("a\u{10FFFF}", "a\u{10FFFF}", "b"),
            ("x\u{D7FF}", "x\u{D7FF}1", "x\u{E000}"),
        ] {
            let range = KeyRange::prefix(prefix);
            assert!(
                range.contains(prefix) && range.contains(inside) && !range.contains(outside),
                "{prefix:?}"
            );
        }
        assert!(KeyRange::prefix("\u{10FFFF}").contains("\u{10FFFF}\u{10FFFF}"));
        assert!(!KeyRange::prefix("b").contains("a"));
        assert_eq!(KeyRange::prefix(""), KeyRange::ALL);
    }
}
