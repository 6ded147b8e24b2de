//! The engine in an SQLite file.
//!
//! One connection writes, others read, and a write-ahead log lets neither wait for the other. What the tables are is said
//! in `sqlite/schema.rs`; nothing in them needs this program to be read: any `sqlite3` opens the file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::engine::{Engine, Reader, Transaction};
use crate::options::Durability;

mod check;
mod codec;
mod compress;
mod error;
mod find;
mod reader;
mod retire;
mod schema;
mod text;
mod transaction;

use compress::Loose;
use error::{Failure, Outcome, translate};
use reader::Pool;
use transaction::{Namespace, SqliteTransaction};

/// How the file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// A write-ahead log, or the rollback journal of file systems that cannot share memory.
    pub wal: bool,
    /// How sure a commit is when it returns.
    pub durability: Durability,
}

/// An SQLite file that is open for writing.
pub struct SqliteEngine {
    mode: Mode,
    /// `None` once it is closed.
    writer: Option<Connection>,
    pool: Arc<Pool>,
    /// What a failed commit said. The file has to be opened anew before anything else is written.
    poisoned: Option<Error>,
    /// Which file it is that is open.
    file: Option<FileId>,
    namespaces: HashMap<Box<str>, Namespace>,
    /// The declared indexes.
    indexed: HashSet<u32>,
    loose: Loose,
}

/// Opens a file for reading, beside whoever writes it.
///
/// Where nothing can be written beside it, and no log is there to be read with it, nobody is writing either: it is read as
/// it is, without locks.
///
/// # Errors
/// `StoreIo` where the file is not there or cannot be read, `Validation` where it is not ours, `NewerDatabase`, `Corruption`.
pub fn open_reader(path: &Path) -> Result<Arc<dyn Reader>> {
    let pool = Pool::new(path, false);
    match pool.head() {
        Ok(_) => Ok(Arc::new(pool)),
        Err(error) if matches!(error.kind(), ErrorKind::StoreIo | ErrorKind::ReadOnly) => {
            let log = std::fs::metadata(schema::log_path(path)).map_or(0, |log| log.len());
            let pool = Pool::new(path, true);
            if log > 0 || !path.is_file() || pool.head().is_err() {
                return Err(error);
            }
            Ok(Arc::new(pool))
        }
        Err(error) => Err(error),
    }
}

impl SqliteEngine {
    /// Opens a file for writing, and makes it where it is missing. The caller sees to it that nobody else does.
    ///
    /// # Errors
    /// `StoreIo`, `DiskFull`, `ReadOnly`, `DatabaseLocked` as the file system has it; `Validation` where the file is not ours,
    /// `NewerDatabase`, `Corruption`.
    pub fn open(path: &Path, mode: Mode) -> Result<Self> {
        let writer = schema::open_writer(path, mode, true)?;
        let mut engine = Self {
            mode,
            writer: Some(writer),
            pool: Arc::new(Pool::new(path, false)),
            poisoned: None,
            file: None,
            namespaces: HashMap::new(),
            indexed: HashSet::new(),
            loose: Loose::default(),
        };
        engine.learn()?;
        Ok(engine)
    }

    fn path(&self) -> &Path {
        self.pool.path()
    }

    fn connection(&self) -> Result<&Connection> {
        self.writer.as_ref().ok_or_else(|| Error::new(ErrorKind::DatabaseClosed, "the database is closed"))
    }

    /// Learns anew what is kept in memory of the file.
    fn learn(&mut self) -> Result<()> {
        self.namespaces.clear();
        let indexes = reader::field_indexes(self.connection()?);
        let indexes = indexes.map_err(|failure| failure.at(self.path()))?;
        self.indexed = indexes.into_iter().map(|index| index.id).collect();
        self.file = FileId::of(self.path());
        Ok(())
    }

    /// A commit into a file that has lost its name would be lost with it.
    fn check_file(&self) -> Result<()> {
        if self.file == FileId::of(self.path()) {
            return Ok(());
        }
        let message = format!("{} was moved or removed while it was open", self.path().display());
        Err(Error::new(ErrorKind::StoreIo, message).suggest("put it back where it was, then open it again"))
    }

    /// Ends a transaction that is not to be.
    fn roll_back(&mut self) {
        let Some(connection) = &self.writer else { return };
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            self.poisoned.get_or_insert(translate(self.pool.path(), &error));
        }
        // What the transaction made is not there.
        self.namespaces.clear();
        match reader::field_indexes(connection) {
            Ok(indexes) => self.indexed = indexes.into_iter().map(|index| index.id).collect(),
            Err(failure) => {
                self.poisoned.get_or_insert(failure.at(self.pool.path()));
            }
        }
    }

    /// Runs something of a transaction's own.
    fn alone<T>(&mut self, work: impl FnOnce(&Connection, &mut Loose) -> Outcome<T>) -> Result<T> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        let path = self.path().to_owned();
        let outcome = {
            let mut loose = std::mem::take(&mut self.loose);
            let outcome = self.connection().map_err(Failure::from).and_then(|connection| {
                connection.execute_batch("BEGIN IMMEDIATE")?;
                let outcome = work(connection, &mut loose)?;
                connection.execute_batch("COMMIT")?;
                Ok(outcome)
            });
            self.loose = loose;
            outcome
        };
        outcome.map_err(|failure| {
            self.roll_back();
            self.loose = Loose::default();
            failure.at(&path)
        })
    }

    /// What was written to the log without a sync.
    fn sync_log(&self) -> Result<()> {
        let path = schema::log_path(self.path());
        let sync = |path: &PathBuf| File::options().write(true).open(path)?.sync_data();
        match sync(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::StoreIo, format!("{} cannot be synced: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }
}

impl Engine for SqliteEngine {
    fn reader(&self) -> Arc<dyn Reader> {
        self.pool.clone()
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        Ok(Box::new(SqliteTransaction::begin(self)?))
    }

    fn recover(&mut self) -> Result<()> {
        // Where the file has gone, readers go on with what they have open.
        self.check_file()?;
        // Those that are out finish their calls with it.
        self.pool.drain();
        self.writer = None;
        self.writer = Some(schema::open_writer(self.path(), self.mode, false)?);
        self.loose = Loose::default();
        self.learn()?;
        self.poisoned = None;
        Ok(())
    }

    fn checkpoint(&mut self, truncate: bool) -> Result<()> {
        if !self.mode.wal {
            return Ok(());
        }
        if self.mode.durability == Durability::Batched {
            self.sync_log()?;
        }
        let pragma =
            if truncate { "PRAGMA wal_checkpoint(TRUNCATE)" } else { "PRAGMA wal_checkpoint(PASSIVE)" };
        let connection = self.connection()?;
        // It moves what readers allow: that they are busy is no error. The wait for them is kept short.
        let moved = connection
            .busy_timeout(schema::SHORT)
            .and_then(|()| connection.query_row(pragma, [], |_| Ok(())));
        let restored = connection.busy_timeout(schema::PATIENCE);
        moved.and(restored).map_err(|error| translate(self.path(), &error))
    }

    fn compress(&mut self, budget: usize) -> Result<usize> {
        self.alone(|connection, loose| compress::compress(connection, loose, budget))
    }

    fn vacuum(&mut self, pages: usize) -> Result<usize> {
        let vacuum = |connection: &Connection| -> Outcome<usize> {
            let free = || connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0));
            let before = free()?;
            if before == 0 || pages == 0 {
                return Ok(0);
            }
            let pages = pages.min(i32::MAX as usize);
            let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
            let mut steps = statement.query([])?;
            while steps.next()?.is_some() {}
            drop(steps);
            Ok(usize::try_from(before - free()?).unwrap_or(0))
        };
        vacuum(self.connection()?).map_err(|failure| failure.at(self.path()))
    }

    fn close(&mut self) -> Result<()> {
        self.pool.shut();
        let Some(connection) = self.writer.take() else { return Ok(()) };
        connection.flush_prepared_statement_cache();
        connection.close().map_err(|(_, error)| translate(self.path(), &error))
    }
}

/// Which file lies at a path; a file of another name is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64);

impl FileId {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            Some(Self(metadata.dev(), metadata.ino()))
        }
        // Elsewhere a file that is open cannot be moved.
        #[cfg(not(unix))]
        metadata.is_file().then_some(Self(0, 0))
    }
}
