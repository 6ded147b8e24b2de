//! The witness: a small file beside the database that remembers the newest commit, so that losing one is noticed.
//!
//! A write-ahead log that is damaged or cut ends early without a word: what comes after is taken for never written. The
//! witness is written after each commit and says how far there was something.
//!
//! ```text
//! two slots of 64 bytes, written in turn, so that a torn write spoils one of them
//! 0   u64       number of the commit
//! 8   u64       its time
//! 16  [u8; 32]  its chain
//! 48  u8        how sure commits were: 0 commit, 1 batched, 2 none
//! 49  [u8; 7]   "limnion"
//! 56  [u8; 8]   the first bytes of the BLAKE3 hash of the 56 above
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use limnion_types::Result;

use crate::engine::Head;
use crate::folder::failed;
use crate::options::Durability;

const SLOT: usize = 64;

/// What the witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Testimony {
    pub(crate) head: Head,
    /// Whether commits were on the disk before they were acknowledged.
    pub(crate) durable: bool,
}

/// What lies in the file of a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file, or an empty one.
    Nothing,
    /// No slot that can be read.
    Damaged,
    /// The newer one of the slots.
    Testimony(Testimony),
}

/// The witness of a store that is open for writing.
pub(crate) struct Witness {
    path: PathBuf,
    file: File,
    turn: bool,
    unsynced: bool,
}

/// Reads the witness at `path`.
pub(crate) fn read(path: &Path) -> Result<Found> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(2 * SLOT as u64)
                .read_to_end(&mut bytes)
                .map_err(|error| failed("read", path, &error))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("open", path, &error)),
    }
    if bytes.is_empty() {
        return Ok(Found::Nothing);
    }
    let newest = bytes.chunks(SLOT).filter_map(decode).max_by_key(|told| told.head.seq);
    Ok(newest.map_or(Found::Damaged, Found::Testimony))
}

impl Witness {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| failed("open", &path, &error))?;
        Ok(Self { path, file, turn: false, unsynced: false })
    }

    /// Forgets what was remembered of commits after `head`, which are known to be lost.
    pub(crate) fn forget_after(&mut self, head: &Head, durability: Durability) -> Result<()> {
        for _ in 0..2 {
            self.remember(head, durability)?;
        }
        self.sync()
    }

    /// Remembers a commit; [`Witness::sync`] makes sure of it.
    pub(crate) fn remember(&mut self, head: &Head, durability: Durability) -> Result<()> {
        let slot = encode(head, durability);
        let offset = if self.turn { SLOT as u64 } else { 0 };
        self.turn = !self.turn;
        self.unsynced = true;
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.write_all(&slot))
            .map_err(|error| failed("write", &self.path, &error))
    }

    pub(crate) fn sync(&mut self) -> Result<()> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data().map_err(|error| failed("sync", &self.path, &error))?;
        }
        Ok(())
    }
}

fn encode(head: &Head, durability: Durability) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&head.seq.to_le_bytes());
    slot[8..16].copy_from_slice(&head.time.to_le_bytes());
    slot[16..48].copy_from_slice(&head.chain);
    slot[48] = match durability {
        Durability::Commit => 0,
        Durability::Batched => 1,
        Durability::None => 2,
    };
    slot[49..56].copy_from_slice(b"limnion");
    let hash = blake3::hash(&slot[..56]);
    slot[56..].copy_from_slice(&hash.as_bytes()[..8]);
    slot
}

fn decode(slot: &[u8]) -> Option<Testimony> {
    let slot: &[u8; SLOT] = slot.try_into().ok()?;
    if slot[56..] != blake3::hash(&slot[..56]).as_bytes()[..8] || slot[49..56] != *b"limnion" {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        Some(u64::from_le_bytes(slot.get(range)?.try_into().ok()?))
    };
    let chain = slot[16..48].try_into().ok()?;
    Some(Testimony { head: Head { seq: number(0..8)?, time: number(8..16)?, chain }, durable: slot[48] == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64) -> Head {
        Head { seq, time: seq * 10, chain: [seq as u8; 32] }
    }

    #[test]
    fn the_newest_commit_is_remembered_and_one_torn_slot_costs_one_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head");
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        let mut witness = Witness::open(path.clone()).unwrap();
        for seq in 1..=5 {
            witness.remember(&head(seq), Durability::Commit).unwrap();
            let told = Found::Testimony(Testimony { head: head(seq), durable: true });
            assert_eq!(read(&path).unwrap(), told);
        }
        witness.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut torn = whole.clone();
            torn[byte] ^= 4;
            std::fs::write(&path, &torn).unwrap();
            let Found::Testimony(told) = read(&path).unwrap() else { panic!("one slot is whole") };
            assert!([4, 5].contains(&told.head.seq));
        }
        std::fs::write(&path, [1; 128]).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Damaged);
    }
}
