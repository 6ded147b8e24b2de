//! Names of collections and backends, and rows as they come in.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use limnion_types::{Error, ErrorKind, Result};

/// Bytes of a name.
const LONGEST: usize = 255;

/// A number that nobody else has: of this process, this moment, and a counter.
pub(crate) fn unique() -> u128 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&now.to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.update(&COUNTER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

/// A name that may be given to a collection.
pub(crate) fn check_collection(name: &str) -> Result<()> {
    check_name("collection", name)
}

/// A name that may be given to a backend or a collection.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let message = if name.is_empty() {
        format!("{what} must not be empty")
    } else if name.len() > LONGEST {
        format!("{what} must have at most {LONGEST} bytes, got {}", name.len())
    } else if name.chars().any(char::is_control) {
        format!("{what} must have no control characters, got {name:?}")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// Rows that can be indexed: as many vectors as ids, finite, no id twice.
pub(crate) fn check_rows(ids: &[u64], vectors: &[f32], dim: usize) -> Result<()> {
    let invalid = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
    if dim == 0 {
        return invalid("vectors must have a dimension at least".to_owned());
    }
    if ids.len().checked_mul(dim) != Some(vectors.len()) {
        let rows = vectors.len() / dim;
        return invalid(format!("ids must be as many as the vectors: {} ids, {rows} vectors", ids.len()));
    }
    if let Some(at) = vectors.iter().position(|number| !number.is_finite()) {
        return invalid(format!(
            "vectors must have finite numbers, got NaN or infinity in row {}, column {}",
            at / dim,
            at % dim
        ));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    if let Some(id) = ids.iter().find(|id| !seen.insert(**id)) {
        return Err(Error::new(ErrorKind::DuplicateId, format!("ids must be unique, got {id} twice")));
    }
    Ok(())
}

/// A name as a part of a URI or of a file's name: letters, digits, `-`, `_` and dots inside stay; other bytes are `%XX`.
pub(crate) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || (byte == b'.' && at > 0) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// What [`encode`] was given; `None` for what it never gives.
pub(crate) fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    let name = String::from_utf8(bytes).ok()?;
    (encode(&name) == encoded).then_some(name)
}

/// An error of kind unknown collection, with the ones that there are.
pub(crate) fn unknown_collection(backend: &str, collection: &str, known: &[String]) -> Error {
    let error = Error::new(
        ErrorKind::UnknownCollection,
        format!("backend {backend:?} has no collection {collection:?}"),
    );
    if known.is_empty() {
        error.suggest("it has none so far")
    } else {
        let more = if known.len() > 10 { ", ..." } else { "" };
        let known: Vec<&str> = known.iter().take(10).map(String::as_str).collect();
        error.suggest(format!("it has {}{more}", known.join(", ")))
    }
}

/// An error of kind backend.
pub(crate) fn failed(backend: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Backend, format!("backend {backend:?}: {what}"))
}

/// An error of kind backend: a source that changed while it was read, which passes.
pub(crate) fn changed(backend: &str, what: impl std::fmt::Display) -> Error {
    failed(backend, format_args!("{what} changed while it was read")).passing()
}

/// An error that was told of something, as one of its backend; it passes if that does.
pub(crate) fn retold(backend: &str, place: impl std::fmt::Display, error: &Error) -> Error {
    let mut told = failed(backend, format_args!("{place}: {}", error.message()));
    if let Some(suggestion) = error.suggestion() {
        told = told.suggest(suggestion);
    }
    if error.passes() { told.passing() } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_from_its_encoding_and_nothing_else_does() {
        for name in ["docs", "a/b", "..", ".", "ünï", "%41", "a b", "x.npy", "-"] {
            let encoded = encode(name);
            assert!(!encoded.contains('/') && !encoded.starts_with('.'), "{encoded}");
            assert_eq!(decode(&encoded).as_deref(), Some(name));
        }
        for odd in ["a/b", "..", "%4", "%zz", "%41", "a b", "%ff"] {
            assert_eq!(decode(odd), None, "{odd}");
        }
    }
}
