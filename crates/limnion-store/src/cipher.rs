//! Encryption of payloads: XChaCha20-Poly1305.
//!
//! ```text
//! sealed = nonce (24 random bytes) + ciphertext (as long as the plain bytes) + tag (16 bytes)
//! associated data = length of the namespace (u64, little-endian), namespace, length of the key (u64), key, seq (u64)
//! ```
//!
//! So a payload opens only as the version of the record that it was sealed for: one that was moved is damage. Names,
//! times, sizes and the number of versions are not hidden. A nonce of 24 bytes may be drawn at random for as many
//! payloads as anyone will write.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use limnion_types::{Error, ErrorKind, Result};

use crate::model::Seq;

const NONCE: usize = 24;
/// What a token says, sealed: see [`Cipher::token`].
const TOKEN: &[u8] = b"limnion";

/// Seals and opens payloads with one key.
pub struct Cipher {
    aead: XChaCha20Poly1305,
}

impl Cipher {
    /// A cipher with a key. The key is wiped from this memory when the cipher goes.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { aead: XChaCha20Poly1305::new(key.into()) }
    }

    /// Encrypts the payload of a version.
    ///
    /// # Errors
    /// `Internal` where the system has no random bytes.
    pub fn seal(&self, namespace: &str, key: &str, seq: Seq, plain: &[u8]) -> Result<Vec<u8>> {
        self.encrypt(&associated(namespace, key, seq), plain)
    }

    /// Decrypts the payload of a version.
    ///
    /// # Errors
    /// `Corruption` where it is not what was sealed for this version with this key.
    pub fn open(&self, namespace: &str, key: &str, seq: Seq, sealed: &[u8]) -> Result<Vec<u8>> {
        self.decrypt(&associated(namespace, key, seq), sealed).ok_or_else(|| {
            Error::new(
                ErrorKind::Corruption,
                format!("{namespace}/{key} (version {seq}) is not what was encrypted there"),
            )
            .suggest("restore it from a backup, or copy what is whole into a new database with salvage")
        })
    }

    /// Something to keep beside what is encrypted, by which [`Cipher::verify_token`] knows the key again.
    ///
    /// # Errors
    /// `Internal` where the system has no random bytes.
    pub fn token(&self) -> Result<Vec<u8>> {
        self.encrypt(TOKEN, TOKEN)
    }

    /// Refuses a token that another key has made.
    ///
    /// # Errors
    /// `Validation`.
    pub fn verify_token(&self, token: &[u8]) -> Result<()> {
        if self.decrypt(TOKEN, token).is_some_and(|said| said == TOKEN) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Validation,
            "encryption_key is not the one that the database was made with",
        )
        .suggest("open it with the key that it was first opened with"))
    }

    fn encrypt(&self, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| {
            Error::new(ErrorKind::Internal, format!("the system gives no random bytes: {error}"))
        })?;
        let sealed = self.aead.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: associated });
        let sealed = sealed.map_err(|_| Error::new(ErrorKind::Internal, "too long to encrypt"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn decrypt(&self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        self.aead.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: associated }).ok()
    }
}

/// The key is not for logs.
impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

fn associated(namespace: &str, key: &str, seq: Seq) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(namespace.len() + key.len() + 24);
    for part in [namespace, key] {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_as_itself_and_as_nothing_else(
            namespace in ".{0,8}", key in ".{0,8}", seq: u64, plain in proptest::collection::vec(any::<u8>(), 0..200),
            at: proptest::sample::Index, bit in 0..8u32,
        ) {
            let cipher = Cipher::new(&[7; 32]);
            let sealed = cipher.seal(&namespace, &key, seq, &plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + 40);
            prop_assert_eq!(cipher.open(&namespace, &key, seq, &sealed).unwrap(), plain);
            let mut flipped = sealed.clone();
            flipped[at.index(sealed.len())] ^= 1u8 << bit;
            let elsewhere = format!("{namespace}x");
            for refused in [
                cipher.open(&namespace, &key, seq, &flipped),
                cipher.open(&namespace, &key, seq, &sealed[..at.index(sealed.len())]),
                cipher.open(&elsewhere, &key, seq, &sealed),
                cipher.open(&namespace, &elsewhere, seq, &sealed),
                cipher.open(&namespace, &key, seq ^ 1, &sealed),
                Cipher::new(&[8; 32]).open(&namespace, &key, seq, &sealed),
            ] {
                prop_assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corruption);
            }
        }
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        let cipher = Cipher::new(&[7; 32]);
        let sealed = cipher.seal("ab", "c", 1, b"x").unwrap();
        assert!(cipher.open("a", "bc", 1, &sealed).is_err());
    }

    #[test]
    fn the_same_bytes_are_sealed_differently_each_time() {
        let cipher = Cipher::new(&[7; 32]);
        let seal = || cipher.seal("n", "k", 1, b"the same").unwrap();
        let (first, second) = (seal(), seal());
        assert_ne!(first[..24], second[..24]);
        assert_ne!(first[24..], second[24..]);
    }

    #[test]
    fn a_wrong_key_is_known_by_the_token() {
        let token = Cipher::new(&[7; 32]).token().unwrap();
        Cipher::new(&[7; 32]).verify_token(&token).unwrap();
        for (key, token) in [([8; 32], &token[..]), ([7; 32], &token[1..]), ([7; 32], &[])] {
            let error = Cipher::new(&key).verify_token(token).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Validation);
            assert!(error.message().starts_with("encryption_key is not the one"));
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", Cipher::new(&[7; 32])), "Cipher { .. }");
    }
}
