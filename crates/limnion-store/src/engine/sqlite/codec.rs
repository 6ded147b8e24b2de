//! How places, commits and packs of old versions lie in blobs.
//!
//! ```text
//! places   for each: varint segment, varint offset, to the end
//! writes   for each write of a commit: varint record, 32 bytes hash, to the end
//! pack     u8   0: as it is, 1: compressed by zstd; what follows, uncompressed, is:
//!          varint   number of versions, oldest first, and for each
//!            varint   number        varint   time         varint   number of the version before
//!            u8       kind; bit 7: there is an expiry
//!            varint   expiry, where there is one
//!            16 bytes of hash
//!            varint   bytes of places, then these       varint   bytes of payload
//!          the payloads, one after the other
//! ```
//!
//! Numbers and times of a pack are differences to those of the version before. Whatever is read may be damaged, or made
//! to harm: nothing here allocates more than the bytes it was given can stand for.

use std::ops::Range;
use std::sync::Arc;

use limnion_types::Result;

use super::error::damaged;
use crate::engine::{Place, Row};
use crate::model::Kind;
use crate::payload::{Cursor, put_varint};

const STORED: u8 = 0;
const ZSTD: u8 = 1;
const EXPIRES: u8 = 0x80;

/// What a pack may hold uncompressed without being asked how well it compresses.
const SMALL: usize = 1 << 20;
/// How much larger than itself a large pack may become.
const RATIO: usize = 256;
/// A good compromise of speed and size for JSON of a few hundred bytes a version.
const LEVEL: i32 = 3;

/// The places of a row.
pub(super) fn put_places(places: &[Place]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(places.len() * 6);
    for place in places {
        put_varint(&mut bytes, place.segment.into());
        put_varint(&mut bytes, place.offset);
    }
    bytes
}

/// What [`put_places`] wrote.
pub(super) fn places(bytes: &[u8]) -> Option<Vec<Place>> {
    let mut cursor = Cursor { bytes, at: 0 };
    let mut places = Vec::new();
    while cursor.at < bytes.len() {
        let segment = u32::try_from(cursor.varint()?).ok()?;
        places.push(Place { segment, offset: cursor.varint()? });
    }
    Some(places)
}

/// One write of a commit.
pub(super) fn put_write(bytes: &mut Vec<u8>, record: i64, hash: &[u8; 32]) {
    put_varint(bytes, record.cast_unsigned());
    bytes.extend_from_slice(hash);
}

/// What [`put_write`] wrote: records and hashes.
pub(super) fn writes(bytes: &[u8]) -> Option<Vec<(i64, [u8; 32])>> {
    let mut cursor = Cursor { bytes, at: 0 };
    let mut writes = Vec::new();
    while cursor.at < bytes.len() {
        let record = i64::try_from(cursor.varint()?).ok()?;
        writes.push((record, cursor.array()?));
    }
    Some(writes)
}

/// What a number in a row says of its record.
pub(super) fn kind(number: i64) -> Option<Kind> {
    match number {
        0 => Some(Kind::Put),
        1 => Some(Kind::Deleted),
        2 => Some(Kind::Expired),
        _ => None,
    }
}

/// Packs rows, oldest first.
pub(super) fn pack(rows: &[Row]) -> Result<Vec<u8>> {
    let payloads: usize = rows.iter().map(|row| row.payload.len()).sum();
    let mut bytes = Vec::with_capacity(payloads + rows.len() * 40 + 4);
    put_varint(&mut bytes, rows.len() as u64);
    let (mut seq, mut time) = (0, 0);
    for row in rows {
        put_varint(&mut bytes, row.seq.wrapping_sub(seq));
        put_varint(&mut bytes, row.time.wrapping_sub(time));
        put_varint(&mut bytes, row.previous);
        bytes.push(row.kind as u8 | if row.expires.is_some() { EXPIRES } else { 0 });
        if let Some(expires) = row.expires {
            put_varint(&mut bytes, expires);
        }
        bytes.extend_from_slice(&row.check);
        let places = put_places(&row.places);
        put_varint(&mut bytes, places.len() as u64);
        bytes.extend_from_slice(&places);
        put_varint(&mut bytes, row.payload.len() as u64);
        (seq, time) = (row.seq, row.time);
    }
    for row in rows {
        bytes.extend_from_slice(&row.payload);
    }
    let mut packed = vec![ZSTD];
    let compressed = zstd::bulk::compress(&bytes, LEVEL)
        .map_err(|error| limnion_types::Error::new(limnion_types::ErrorKind::Internal, error.to_string()))?;
    if compressed.len() >= bytes.len() || bytes.len() > allowed(compressed.len()) {
        packed.clear();
        packed.push(STORED);
        packed.extend_from_slice(&bytes);
    } else {
        packed.extend_from_slice(&compressed);
    }
    Ok(packed)
}

fn allowed(compressed: usize) -> usize {
    SMALL.max(compressed.saturating_mul(RATIO))
}

/// A pack that is open: rows without their payloads, which are copied out one by one.
pub(super) struct Pack {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    payloads: Vec<Range<usize>>,
}

impl Pack {
    /// Reads what [`pack`] wrote. Anything else is an error of kind corruption.
    pub(super) fn open(packed: &[u8]) -> Result<Self> {
        let bytes = match packed.split_first() {
            Some((&STORED, bytes)) => Some(bytes.to_vec()),
            Some((&ZSTD, compressed)) => decompress(compressed),
            _ => None,
        };
        bytes.and_then(Self::parse).ok_or_else(|| damaged("a pack of old versions is damaged"))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let mut cursor = Cursor { bytes: &bytes, at: 0 };
        let count = cursor.varint()?;
        let (mut rows, mut lengths) = (Vec::<Row>::new(), Vec::new());
        let (mut seq, mut time) = (0u64, 0u64);
        for _ in 0..count {
            seq = seq.checked_add(cursor.varint()?)?;
            time = time.checked_add(cursor.varint()?)?;
            let previous = cursor.varint()?;
            let flags = cursor.byte()?;
            let kind = kind((flags & !EXPIRES).into())?;
            let expires = if flags & EXPIRES != 0 { Some(cursor.varint()?) } else { None };
            let check = cursor.array()?;
            let length = cursor.varint()?;
            let places = places(bytes.get(cursor.take(length)?)?)?;
            if rows.last().is_some_and(|last| last.seq >= seq) {
                return None;
            }
            lengths.push(cursor.varint()?);
            rows.push(Row { seq, time, previous, kind, expires, check, payload: Arc::default(), places });
        }
        let payloads = lengths.into_iter().map(|length| cursor.take(length)).collect::<Option<Vec<_>>>()?;
        let whole = cursor.at == bytes.len() && !rows.is_empty();
        whole.then_some(Self { bytes, rows, payloads })
    }

    /// The rows without their payloads, oldest first.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A row with its payload.
    pub(super) fn row(&self, at: usize) -> Option<Row> {
        let (row, payload) = self.rows.get(at).zip(self.payloads.get(at))?;
        Some(Row { payload: self.bytes.get(payload.clone())?.into(), ..row.clone() })
    }
}

fn decompress(compressed: &[u8]) -> Option<Vec<u8>> {
    let length = zstd::zstd_safe::get_frame_content_size(compressed).ok()??;
    let length = usize::try_from(length).ok()?;
    if length > allowed(compressed.len()) {
        return None;
    }
    zstd::bulk::decompress(compressed, length).ok()
}

/// The rows of a pack, oldest first.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<Row>> {
    let pack = Pack::open(packed)?;
    Ok((0..pack.rows.len()).filter_map(|at| pack.row(at)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Numbers = (u64, u64, u64, i64);
    type Rest = (Option<u64>, [u8; 16], Vec<u8>, Vec<Place>);

    fn any_rows() -> impl Strategy<Value = Vec<Row>> {
        let place = (any::<u32>(), any::<u64>()).prop_map(|(segment, offset)| Place { segment, offset });
        let row = (
            (1..1000u64, 1..1u64 << 40, any::<u64>(), 0..3i64),
            (
                proptest::option::of(any::<u64>()),
                any::<[u8; 16]>(),
                vec(any::<u8>(), 0..90),
                vec(place, 0..3),
            ),
        );
        vec(row, 1..20).prop_map(|rows| {
            let (mut seq, mut time) = (0, 0);
            let row = |(numbers, rest): (Numbers, Rest)| {
                let ((s, t, previous, number), (expires, check, payload, places)) = (numbers, rest);
                seq += s;
                time += t;
                let kind = kind(number).unwrap();
                Row { seq, time, previous, kind, expires, check, payload: payload.into(), places }
            };
            rows.into_iter().map(row).collect()
        })
    }

    proptest! {
        #[test]
        fn packs_come_back_as_they_were(rows in any_rows()) {
            let packed = pack(&rows).unwrap();
            prop_assert_eq!(unpack(&packed).unwrap(), rows);
        }

        #[test]
        fn damaged_packs_are_read_or_refused(rows in any_rows(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut packed = pack(&rows).unwrap();
            let at = at.index(packed.len());
            packed[at] ^= 1u8 << bit;
            let _ = unpack(&packed);
            packed.truncate(at);
            prop_assert!(unpack(&packed).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            let _ = (unpack(&bytes), Pack::parse(bytes.clone()).is_some(), places(&bytes), writes(&bytes));
        }

        #[test]
        fn places_and_writes_come_back_as_they_were(
            places_ in vec((any::<u32>(), any::<u64>()).prop_map(|(segment, offset)| Place { segment, offset }), 0..9),
            writes_ in vec((0..i64::MAX, any::<[u8; 32]>()), 0..9),
        ) {
            prop_assert_eq!(places(&put_places(&places_)), Some(places_));
            let mut bytes = Vec::new();
            writes_.iter().for_each(|(record, hash)| put_write(&mut bytes, *record, hash));
            prop_assert_eq!(writes(&bytes), Some(writes_));
        }
    }

    #[test]
    fn a_pack_that_would_swell_beyond_reason_is_refused() {
        let mut bomb = vec![ZSTD];
        bomb.extend(zstd::bulk::compress(&vec![0; 1 << 28], 3).unwrap());
        assert!(bomb.len() < 1 << 16);
        assert!(unpack(&bomb).is_err());
        // What we write ourselves is never refused for that.
        let row = Row {
            seq: 1,
            time: 1,
            previous: 0,
            kind: Kind::Put,
            expires: None,
            check: [0; 16],
            payload: vec![0; 1 << 24].into(),
            places: Vec::new(),
        };
        assert_eq!(unpack(&pack(std::slice::from_ref(&row)).unwrap()).unwrap(), [row]);
    }
}
