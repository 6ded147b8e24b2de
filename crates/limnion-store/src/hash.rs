//! What makes damage visible: a hash over every version, and a chain of hashes over all commits.
//!
//! All hashes are BLAKE3. Numbers go in little-endian, strings with their length before them (u64), so that no two
//! different inputs look alike.

use crate::engine::{Commit, Head, Row};
use crate::model::{Micros, Seq};

/// The hash over a version: namespace, key, number, time, link to the version before, kind, expiry and payload.
///
/// A row carries some of it ([`Row::check`]); the log has it whole.
pub fn row(namespace: &str, key: &str, row: &Row) -> [u8; 32] {
    whole(&head(namespace, key, row), row)
}

/// [`row`], and what the row carries of it ([`Row::check`]): eight bytes over all but the payload, for those who do not
/// read that, and eight of the whole hash.
pub fn digest(namespace: &str, key: &str, row: &Row) -> ([u8; 32], [u8; 16]) {
    let head = head(namespace, key, row);
    let whole = whole(&head, row);
    let mut check = [0; 16];
    check[..8].copy_from_slice(&head[..8]);
    check[8..].copy_from_slice(&whole[..8]);
    (whole, check)
}

/// Whether a version is what was written.
pub fn is_whole(namespace: &str, key: &str, row: &Row) -> bool {
    digest(namespace, key, row).1 == row.check
}

/// Whether a version of which the payload has not been read is what was written, as far as it goes.
pub fn is_head_whole(namespace: &str, key: &str, row: &Row) -> bool {
    head(namespace, key, row)[..8] == row.check[..8]
}

/// The hash over all of a version but its payload.
fn head(namespace: &str, key: &str, row: &Row) -> [u8; 32] {
    let mut fixed = [0u8; 50];
    let numbers =
        [namespace.len() as u64, key.len() as u64, row.seq, row.time, row.previous, row.expires.unwrap_or(0)];
    for (place, number) in fixed.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    fixed[48] = row.kind as u8;
    fixed[49] = u8::from(row.expires.is_some());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fixed).update(namespace.as_bytes()).update(key.as_bytes());
    *hasher.finalize().as_bytes()
}

fn whole(head: &[u8; 32], row: &Row) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(&row.payload).finalize().as_bytes()
}

/// Whether a commit comes right after another, and says what it said when it was chained to it.
pub fn follows(commit: &Commit, before: &Head) -> bool {
    let Head { seq, time, chain: noted } = commit.head;
    let writes = commit.writes.iter().map(|write| write.hash);
    seq == before.seq + 1 && time > before.time && chain(&before.chain, seq, time, writes) == noted
}

/// A short hash over what is kept in one place only: enough to see that it has changed by accident.
pub fn brief<const N: usize>(parts: [&[u8]; N]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut brief = [0; 8];
    brief.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    brief
}

/// The hash over a commit and all before it: over the chain so far, number, time, and the hashes of what it wrote.
pub fn chain(
    before: &[u8; 32],
    seq: Seq,
    time: Micros,
    writes: impl ExactSizeIterator<Item = [u8; 32]>,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before);
    hasher.update(&seq.to_le_bytes());
    hasher.update(&time.to_le_bytes());
    hasher.update(&(writes.len() as u64).to_le_bytes());
    for hash in writes {
        hasher.update(&hash);
    }
    *hasher.finalize().as_bytes()
}
