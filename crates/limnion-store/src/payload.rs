//! How the body of a record lies in a row: one run of bytes, so that one hash covers it all.
//!
//! ```text
//! offset
//! 0      u8       bits 0-1: content (0 JSON, 1 tagged JSON, 2 bytes)
//!                 bit 2: metadata   bit 3: text   bit 4: vectors   bit 5: the value lies out of line
//!                 bits 6-7: zero
//! 1      varint   length of the metadata, where there is some, then its UTF-8 bytes
//!        varint   length of the text, where there is some, then its UTF-8 bytes
//!        varint   number of vectors, where there are any, and for each
//!                   varint   length of its name, then its UTF-8 bytes
//!                   varint   dimension * 2, plus 1 where it lies out of line
//!                   f32 * dimension, little-endian, or the BLAKE3 hash of those bytes (32 bytes)
//!        the value: its bytes to the end, or out of line its length (u64, little-endian) and its BLAKE3 hash (32 bytes)
//! ```
//!
//! varint: seven bits a byte, least significant first, the top bit says that more follow.

use std::ops::Range;
use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Result};

use crate::model::{Body, Content, Vector};

const METADATA: u8 = 1 << 2;
const TEXT: u8 = 1 << 3;
const VECTORS: u8 = 1 << 4;
const VALUE_ELSEWHERE: u8 = 1 << 5;

/// A part of a body that lies in a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The BLAKE3 hash of its bytes.
    pub hash: [u8; 32],
    /// How many bytes it has.
    pub length: u64,
}

/// Which part of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The vector at this position in the order of names.
    Vector(usize),
    /// The value.
    Value,
}

/// Where a vector lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lies<'a> {
    /// Its bytes: f32, little-endian.
    Here(&'a [u8]),
    /// It was fetched from its segment.
    Fetched(&'a Arc<[f32]>),
    /// In a segment: at this position among the places of the row.
    Elsewhere(usize, &'a Elsewhere),
}

#[derive(Debug, Clone, PartialEq)]
enum Numbers {
    Here(Range<usize>),
    Elsewhere(Elsewhere),
    /// Fetched from its segment.
    Fetched(Arc<[f32]>),
}

/// The body of a version: encoded, and cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    bytes: Arc<[u8]>,
    /// The value, where it was fetched from a segment.
    fetched: Option<Arc<[u8]>>,
    parts: Parts,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Parts {
    content: u8,
    metadata: Option<Range<usize>>,
    text: Option<Range<usize>>,
    vectors: Vec<(Range<usize>, Numbers)>,
    value: Range<usize>,
    elsewhere: Vec<(Part, Elsewhere)>,
}

/// What is written in place of a part that lies out of line.
#[derive(Debug, Clone, Default)]
pub struct Outlined {
    /// The value.
    pub value: Option<Elsewhere>,
    /// The vectors, by their position in the body.
    pub vectors: Vec<Option<[u8; 32]>>,
}

impl Payload {
    /// Encodes a body. Vectors are ordered by name.
    pub fn encode(body: &Body, outlined: &Outlined) -> Vec<u8> {
        let mut order: Vec<usize> = (0..body.vectors.len()).collect();
        order.sort_by(|&a, &b| name(body, a).cmp(name(body, b)));
        let room = body.value.len() + body.metadata.as_ref().map_or(0, |m| m.len()) + 16;
        let mut bytes = Vec::with_capacity(room);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        bytes.push(
            body.content as u8
                | flag(body.metadata.is_some(), METADATA)
                | flag(body.text.is_some(), TEXT)
                | flag(!body.vectors.is_empty(), VECTORS)
                | flag(outlined.value.is_some(), VALUE_ELSEWHERE),
        );
        for part in [&body.metadata, &body.text].into_iter().flatten() {
            put_varint(&mut bytes, part.len() as u64);
            bytes.extend_from_slice(part.as_bytes());
        }
        if !body.vectors.is_empty() {
            put_varint(&mut bytes, body.vectors.len() as u64);
            for at in order {
                let Some(vector) = body.vectors.get(at) else { continue };
                put_varint(&mut bytes, vector.name.len() as u64);
                bytes.extend_from_slice(vector.name.as_bytes());
                let hash = outlined.vectors.get(at).copied().flatten();
                put_varint(&mut bytes, vector.numbers.len() as u64 * 2 + u64::from(hash.is_some()));
                match hash {
                    Some(hash) => bytes.extend_from_slice(&hash),
                    None => bytes.extend(vector.numbers.iter().flat_map(|number| number.to_le_bytes())),
                }
            }
        }
        match &outlined.value {
            Some(elsewhere) => {
                bytes.extend_from_slice(&elsewhere.length.to_le_bytes());
                bytes.extend_from_slice(&elsewhere.hash);
            }
            None => bytes.extend_from_slice(&body.value),
        }
        bytes
    }

    /// Reads what [`Payload::encode`] wrote. Anything else is an error of kind corruption.
    pub fn decode(bytes: Arc<[u8]>) -> Result<Self> {
        let parts = parse(&bytes)
            .ok_or_else(|| Error::new(ErrorKind::Corruption, "the encoding of the record is damaged"))?;
        Ok(Self { bytes, fetched: None, parts })
    }

    /// How the value is to be read.
    pub fn content(&self) -> Content {
        match self.parts.content {
            0 => Content::Json,
            1 => Content::TaggedJson,
            _ => Content::Bytes,
        }
    }

    /// The value; empty where it lies in a segment and was not fetched.
    #[inline]
    pub fn value(&self) -> &[u8] {
        match &self.fetched {
            Some(value) => value,
            None => self.slice(&self.parts.value),
        }
    }

    /// The metadata: JSON text of an object.
    pub fn metadata(&self) -> Option<&str> {
        self.parts.metadata.as_ref().map(|range| self.text_of(range))
    }

    /// The text that full-text search looks at.
    pub fn text(&self) -> Option<&str> {
        self.parts.text.as_ref().map(|range| self.text_of(range))
    }

    /// The vectors, ordered by name. One that lies out of line and was not fetched is left out.
    pub fn vectors(&self) -> Vec<Vector> {
        let named = |range: &Range<usize>| Arc::from(self.text_of(range));
        let vectors = self.parts.vectors.iter().filter_map(|(name, numbers)| match numbers {
            Numbers::Here(range) => Some(Vector { name: named(name), numbers: floats(self.slice(range)) }),
            Numbers::Fetched(numbers) => Some(Vector { name: named(name), numbers: numbers.clone() }),
            Numbers::Elsewhere(_) => None,
        });
        vectors.collect()
    }

    /// The vector of a name, wherever it lies; `None` where there is none of this name.
    pub fn find_vector(&self, name: &str) -> Option<Lies<'_>> {
        let (at, (_, numbers)) =
            self.parts.vectors.iter().enumerate().find(|(_, (range, _))| self.text_of(range) == name)?;
        Some(match numbers {
            Numbers::Here(range) => Lies::Here(self.slice(range)),
            Numbers::Fetched(numbers) => Lies::Fetched(numbers),
            Numbers::Elsewhere(elsewhere) => {
                let place = self.parts.elsewhere.iter().position(|(part, _)| *part == Part::Vector(at))?;
                Lies::Elsewhere(place, elsewhere)
            }
        })
    }

    /// The names of the vectors and how many bytes each has, in order.
    pub fn vector_shapes(&self) -> Vec<(&str, u64)> {
        let shapes = self.parts.vectors.iter().map(|(name, numbers)| {
            let bytes = match numbers {
                Numbers::Here(range) => range.len() as u64,
                Numbers::Elsewhere(elsewhere) => elsewhere.length,
                Numbers::Fetched(numbers) => numbers.len() as u64 * 4,
            };
            (self.text_of(name), bytes)
        });
        shapes.collect()
    }

    /// The parts that lie in segments, fetched or not: the vectors in order, then the value. The places of a row are in
    /// this order.
    pub fn elsewhere(&self) -> &[(Part, Elsewhere)] {
        &self.parts.elsewhere
    }

    /// Takes in a part that was fetched from its segment. Its bytes have been verified.
    pub fn fetched(&mut self, part: Part, bytes: &[u8]) {
        match part {
            Part::Value => self.fetched = Some(bytes.into()),
            Part::Vector(at) => {
                if let Some((_, numbers)) = self.parts.vectors.get_mut(at) {
                    *numbers = Numbers::Fetched(floats(bytes));
                }
            }
        }
    }

    /// Whether a part has to be fetched before it can be read.
    pub fn is_missing(&self, part: Part) -> bool {
        match part {
            Part::Value => self.fetched.is_none(),
            Part::Vector(at) => {
                matches!(self.parts.vectors.get(at), Some((_, Numbers::Elsewhere(_))))
            }
        }
    }

    /// The body, with whatever was fetched.
    pub fn to_body(&self, expires: Option<u64>) -> Body {
        Body {
            content: self.content(),
            value: self.value().into(),
            metadata: self.metadata().map(Arc::from),
            text: self.text().map(Arc::from),
            vectors: self.vectors(),
            expires,
        }
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let fetched = |numbers: &Numbers| match numbers {
            Numbers::Fetched(numbers) => numbers.len() * 4,
            _ => 0,
        };
        self.bytes.len()
            + self.fetched.as_ref().map_or(0, |value| value.len())
            + self.parts.vectors.iter().map(|(_, numbers)| fetched(numbers) + 64).sum::<usize>()
    }

    fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    fn text_of(&self, range: &Range<usize>) -> &str {
        // `parse` has looked: it is UTF-8.
        std::str::from_utf8(self.slice(range)).unwrap_or_default()
    }
}

/// Payloads are equal when their bodies are, wherever the parts lie.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes || self.to_body(None) == other.to_body(None)
    }
}

fn name(body: &Body, at: usize) -> &str {
    body.vectors.get(at).map_or("", |vector| &vector.name)
}

fn floats(bytes: &[u8]) -> Arc<[f32]> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap_or_default())).collect()
}

pub(crate) fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads what is encoded; `None` where it is not what it should be.
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl Cursor<'_> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if (bits << shift) >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(crate) fn take(&mut self, length: u64) -> Option<Range<usize>> {
        let end = self.at.checked_add(usize::try_from(length).ok()?)?;
        let range = self.at..end;
        self.bytes.get(range.clone())?;
        self.at = end;
        Some(range)
    }

    fn text(&mut self) -> Option<Range<usize>> {
        let length = self.varint()?;
        let range = self.take(length)?;
        std::str::from_utf8(self.bytes.get(range.clone())?).ok()?;
        Some(range)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let range = self.take(N as u64)?;
        self.bytes.get(range)?.try_into().ok()
    }
}

fn parse(bytes: &[u8]) -> Option<Parts> {
    if bytes.is_empty() {
        return Some(Parts::default());
    }
    let mut cursor = Cursor { bytes, at: 0 };
    let flags = cursor.byte()?;
    let content = flags & 3;
    if content == 3 || flags & 0xC0 != 0 {
        return None;
    }
    let metadata = if flags & METADATA != 0 { Some(cursor.text()?) } else { None };
    let text = if flags & TEXT != 0 { Some(cursor.text()?) } else { None };
    let (mut vectors, mut elsewhere) = (Vec::new(), Vec::new());
    if flags & VECTORS != 0 {
        for at in 0..usize::try_from(cursor.varint()?).ok()? {
            let name = cursor.text()?;
            let shape = cursor.varint()?;
            let length = (shape >> 1).checked_mul(4)?;
            let numbers = if shape & 1 == 1 {
                let lies = Elsewhere { hash: cursor.array()?, length };
                elsewhere.push((Part::Vector(at), lies.clone()));
                Numbers::Elsewhere(lies)
            } else {
                Numbers::Here(cursor.take(length)?)
            };
            vectors.push((name, numbers));
        }
    }
    let value = if flags & VALUE_ELSEWHERE != 0 {
        let length = u64::from_le_bytes(cursor.array()?);
        elsewhere.push((Part::Value, Elsewhere { hash: cursor.array()?, length }));
        cursor.at..cursor.at
    } else {
        cursor.at..bytes.len()
    };
    if value.end != bytes.len() {
        return None;
    }
    Some(Parts { content, metadata, text, vectors, value, elsewhere })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bodies() -> impl Strategy<Value = Body> {
        let content = prop_oneof![Just(Content::Json), Just(Content::TaggedJson), Just(Content::Bytes)];
        let text = proptest::option::of(".{0,40}");
        let vectors =
            proptest::collection::btree_map("[a-z]{0,3}", proptest::collection::vec(-9f32..9., 0..5), 0..3);
        (content, proptest::collection::vec(any::<u8>(), 0..300), text.clone(), text, vectors).prop_map(
            |(content, value, metadata, text, vectors)| Body {
                content,
                value: value.into(),
                metadata: metadata.map(Arc::from),
                text: text.map(Arc::from),
                vectors: vectors
                    .into_iter()
                    .map(|(name, numbers)| Vector { name: name.into(), numbers: numbers.into() })
                    .collect(),
                expires: None,
            },
        )
    }

    proptest! {
        #[test]
        fn a_body_comes_back_as_it_was(body in bodies()) {
            let payload = Payload::decode(Payload::encode(&body, &Outlined::default()).into()).unwrap();
            prop_assert_eq!(payload.to_body(None), body);
            prop_assert!(payload.elsewhere().is_empty());
        }

        #[test]
        fn parts_out_of_line_come_back_once_fetched(body in bodies()) {
            let value = Elsewhere { hash: *blake3::hash(&body.value).as_bytes(), length: body.value.len() as u64 };
            let outlined = Outlined { value: Some(value), vectors: vec![Some([7; 32]); body.vectors.len()] };
            let mut payload = Payload::decode(Payload::encode(&body, &outlined).into()).unwrap();
            prop_assert_eq!(payload.elsewhere().len(), body.vectors.len() + 1);
            for (at, vector) in body.vectors.iter().enumerate() {
                let bytes: Vec<u8> = vector.numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
                prop_assert!(payload.is_missing(Part::Vector(at)));
                payload.fetched(Part::Vector(at), &bytes);
                prop_assert!(!payload.is_missing(Part::Vector(at)));
            }
            payload.fetched(Part::Value, &body.value);
            prop_assert_eq!(payload.to_body(None), body);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(payload) = Payload::decode(bytes.into()) {
                payload.to_body(None);
            }
        }
    }
}
