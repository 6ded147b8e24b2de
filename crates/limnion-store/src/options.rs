//! How a store is opened.

use std::path::PathBuf;
use std::time::Duration;

/// How sure a write is when its receipt comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On the disk: it survives a power cut.
    #[default]
    Commit,
    /// With the operating system: it survives the process, and a power cut a moment later.
    Batched,
    /// With the operating system, which is never told to write it down: for what can be made again.
    None,
}

/// Which versions are kept. The newest version of a record always is, and so is whatever one of the limits keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At least so many versions of each record.
    pub keep_last: Option<u32>,
    /// Every version that was current at some moment of this last stretch of time.
    pub keep_for: Option<Duration>,
    /// Every version that was current where a tag was set.
    pub keep_tagged: bool,
}

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// The folder; in memory where there is none.
    pub path: Option<PathBuf>,
    /// How much the hot tier may take, in bytes.
    pub max_memory: u64,
    /// A write-ahead log, or the rollback journal of file systems that cannot share memory.
    pub wal: bool,
    /// How sure a write is when its receipt comes.
    pub durability: Durability,
    /// Which versions are kept; all, where there is nothing said.
    pub retention: Option<Retention>,
    /// The key that values, metadata, text and vectors are encrypted with.
    pub key: Option<[u8; 32]>,
    /// Open for reading, beside whoever writes.
    pub read_only: bool,
    /// Open although commits were lost that had been acknowledged.
    pub accept_loss: bool,
}

impl Options {
    /// A store in memory.
    pub fn memory() -> Self {
        Self {
            path: None,
            max_memory: 256 << 20,
            wal: true,
            durability: Durability::Commit,
            retention: None,
            key: None,
            read_only: false,
            accept_loss: false,
        }
    }

    /// A store in a folder, which is made where it is missing.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), ..Self::memory() }
    }
}

/// The key is not for logs.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("path", &self.path)
            .field("max_memory", &self.max_memory)
            .field("wal", &self.wal)
            .field("durability", &self.durability)
            .field("retention", &self.retention)
            .field("key", &self.key.map(|_| "..."))
            .field("read_only", &self.read_only)
            .field("accept_loss", &self.accept_loss)
            .finish()
    }
}
