//! The tables, and what every connection is told before anything else.
//!
//! The newest version of every key lies in `record`, so that a latest get is one seek in the unique index and one in the
//! table, whatever history there is. Older versions move to `version`, clustered by record, and from there in runs,
//! compressed, to `pack`: all packed versions of a record are older than its loose ones.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use limnion_types::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::Mode;
use super::error::{damaged, translate};
use crate::folder::failed;
use crate::options::Durability;

/// Says that a file is ours: "limn".
pub(super) const APPLICATION_ID: i64 = 0x6C69_6D6E;
/// The format of the tables.
pub(super) const FORMAT: i64 = 1;

/// Commits before 3.51.3 could be lost when a write met a checkpoint.
const OLDEST_SQLITE: i32 = 3_051_003;
/// How long one waits for another process, which holds locks for moments only.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a checkpoint waits for readers.
pub(super) const SHORT: Duration = Duration::from_millis(100);
/// Statements that a connection keeps prepared; more than there are in this engine.
const STATEMENTS: usize = 128;
/// The store says when to checkpoint. Should it be late, this many pages (64 MiB) keep the log from growing for ever,
/// and a start after a crash quick.
const LOG_PAGES: u32 = 16_384;

const TABLES: &str = r#"
CREATE TABLE namespace (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    keys INTEGER NOT NULL DEFAULT 0,
    versions INTEGER NOT NULL DEFAULT 0,
    cold INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    history_bytes INTEGER NOT NULL DEFAULT 0,
    has_text INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The payload is last: whatever else a row says lies on its first page.
CREATE TABLE record (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    expires INTEGER,
    digest BLOB NOT NULL,
    places BLOB,
    payload BLOB NOT NULL,
    UNIQUE (namespace, key)
) STRICT;
CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL AND kind = 0;

CREATE TABLE version (
    record INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    expires INTEGER,
    digest BLOB NOT NULL,
    places BLOB,
    payload BLOB NOT NULL,
    PRIMARY KEY (record, seq)
) STRICT, WITHOUT ROWID;

-- first and last are the numbers of the oldest and the newest version inside, time and previous belong to the oldest.
CREATE TABLE pack (
    record INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    time INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    rows BLOB NOT NULL,
    PRIMARY KEY (record, first)
) STRICT, WITHOUT ROWID;

-- Versions that retention dropped. previous is the version before the first of them.
CREATE TABLE retired (
    record INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    PRIMARY KEY (record, first)
) STRICT, WITHOUT ROWID;

-- Behind the chain lies a short hash over number, time and chain.
CREATE TABLE log (
    seq INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    chain BLOB NOT NULL,
    writes BLOB NOT NULL
) STRICT;

CREATE TABLE tag (
    name TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE field_index (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    field TEXT NOT NULL,
    UNIQUE (namespace, field)
) STRICT;

-- The key is here again, so that entries come in order without a look at their records.
CREATE TABLE field (
    record INTEGER NOT NULL,
    field_index INTEGER NOT NULL,
    entry BLOB NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (record, field_index, entry)
) STRICT, WITHOUT ROWID;
CREATE INDEX field_entry ON field (field_index, entry, key);

CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    dim INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    length INTEGER NOT NULL,
    live INTEGER NOT NULL,
    digest BLOB NOT NULL
) STRICT;

CREATE TABLE value (
    hash BLOB PRIMARY KEY,
    segment INTEGER NOT NULL,
    place INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX value_segment ON value (segment);

CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"#;

/// Opens the connection that writes, and makes the tables where there are none.
/// `may_create` says whether the file may be made, too.
pub(super) fn open_writer(path: &Path, mode: Mode, may_create: bool) -> Result<Connection> {
    check_library()?;
    let creating = if may_create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let flags = creating
        | OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let open = || -> rusqlite::Result<(Connection, bool)> {
        let connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection, 16 << 10)?;
        // What was stopped while it was made is made anew: nothing is in it, and it does not say whose it is.
        let empty = number(&connection, "PRAGMA page_count")? == 0
            || (number(&connection, "SELECT count(*) FROM sqlite_schema")? == 0
                && number(&connection, "PRAGMA application_id")? == 0
                && number(&connection, "PRAGMA user_version")? == 0);
        Ok((connection, empty))
    };
    if may_create && !path.exists() {
        // SQLite would not say why it cannot make a file. One that is there is left alone: to close it would take away the
        // locks that this process has on it.
        File::create_new(path).map_err(|error| failed("make", path, &error))?;
    }
    let told = |error: rusqlite::Error| blame(path, translate(path, &error));
    let (connection, empty) = open().map_err(told)?;
    if empty && may_create {
        create(&connection).map_err(told)?;
    }
    check_format(&connection, path)?;
    let journal = tune_writer(&connection, mode).map_err(told)?;
    // The log is made at the first look behind that.
    number(&connection, "SELECT count(*) FROM sqlite_schema").map_err(told)?;
    if mode.wal && journal != "wal" {
        let message = format!("the file system of {} cannot share memory, which a log needs", path.display());
        return Err(Error::new(ErrorKind::StoreIo, message).suggest("open it with enable_wal=False"));
    }
    Ok(connection)
}

/// SQLite does not say why it cannot make a file, its log perhaps: a full disk is a reason of its own.
fn blame(path: &Path, error: Error) -> Error {
    let mut probe = path.as_os_str().to_owned();
    probe.push("-probe");
    let probe = Path::new(&probe);
    let made = File::create(probe).map(drop);
    let _ = std::fs::remove_file(probe); // it is empty
    match made.map_err(|error| failed("make", probe, &error)) {
        Err(full) if full.kind() == ErrorKind::DiskFull && error.kind() == ErrorKind::StoreIo => full,
        _ => error,
    }
}

/// Opens a connection that reads. `immutable` says that nobody writes the file meanwhile, so that neither locks nor a
/// log are needed.
pub(super) fn open_reader(path: &Path, immutable: bool) -> Result<Connection> {
    check_library()?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE
        | if immutable { OpenFlags::SQLITE_OPEN_URI } else { OpenFlags::empty() };
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(uri(path, immutable), flags)?;
        prepare(&connection, 4 << 10)?;
        connection.execute_batch("PRAGMA query_only = ON;")?;
        Ok(connection)
    };
    let connection = open().map_err(|error| translate(path, &error))?;
    check_format(&connection, path)?;
    Ok(connection)
}

/// The write-ahead log beside a database file.
pub(super) fn log_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

fn check_library() -> Result<()> {
    let version = rusqlite::version_number();
    if version < OLDEST_SQLITE {
        let message = format!("SQLite {} can lose commits; 3.51.3 or newer is needed", rusqlite::version());
        return Err(Error::new(ErrorKind::Internal, message)
            .suggest("build limnion with the SQLite that comes with it"));
    }
    Ok(())
}

/// What every connection is told, before it looks at what may be a hostile file.
fn prepare(connection: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    // Plans do not depend on parameters: else some statements are parsed anew for each call.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.execute_batch(&format!(
        "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib};"
    ))
}

/// The tables are made with a rollback journal, in one transaction: a file has all of them or none.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA synchronous = FULL;
         BEGIN EXCLUSIVE;
         {TABLES}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};
         COMMIT;"
    ))
}

fn check_format(connection: &Connection, path: &Path) -> Result<()> {
    let ask = |pragma: &str| number(connection, pragma).map_err(|error| translate(path, &error));
    let (application, format) = (ask("PRAGMA application_id")?, ask("PRAGMA user_version")?);
    let path = path.display();
    if application != APPLICATION_ID {
        let message =
            format!("{path} must be a database of limnion; it is an SQLite file of another program");
        return Err(Error::new(ErrorKind::Validation, message)
            .suggest("give the path of another folder, or remove the file if nobody needs it"));
    }
    if format > FORMAT {
        let message = format!("{path} has format {format}; this version of limnion knows {FORMAT} and older");
        return Err(
            Error::new(ErrorKind::NewerDatabase, message).suggest("install a newer version of limnion")
        );
    }
    if format < 1 {
        return Err(damaged(format!("{path} has format {format}, which never was")));
    }
    Ok(())
}

/// Gives the kind of journal that came of it.
fn tune_writer(connection: &Connection, mode: Mode) -> rusqlite::Result<String> {
    let journal = if mode.wal { "WAL" } else { "TRUNCATE" };
    let journal = connection.query_row(&format!("PRAGMA journal_mode = {journal}"), [], |row| row.get(0))?;
    let synchronous = match mode.durability {
        Durability::Commit => "FULL",
        Durability::Batched => "NORMAL",
        Durability::None => "OFF",
    };
    connection.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = {LOG_PAGES};
         PRAGMA journal_size_limit = 4194304; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;"
    ))?;
    Ok(journal)
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.query_row(pragma, [], |row| row.get(0))
}

/// The tables in a database in memory.
#[cfg(test)]
pub(super) fn tables_for_tests(connection: &Connection) {
    connection.execute_batch(TABLES).unwrap();
}

/// A path as SQLite takes it with parameters.
fn uri(path: &Path, immutable: bool) -> PathBuf {
    if !immutable {
        return path.to_owned();
    }
    let mut uri = String::from("file:");
    let text = path.to_string_lossy().replace('\\', if cfg!(windows) { "/" } else { "\\" });
    if cfg!(windows) && path.is_absolute() {
        uri.push_str("///");
    }
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-~:".contains(&byte) {
            uri.push(byte.into());
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str("?immutable=1");
    PathBuf::from(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_is_compiled_as_the_configuration_says() {
        let connection = Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare("PRAGMA compile_options").unwrap();
        let options: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(|option| option.unwrap()).collect();
        for wanted in
            ["DEFAULT_MEMSTATUS=0", "OMIT_LOAD_EXTENSION", "OMIT_SHARED_CACHE", "DQS=0", "ENABLE_FTS5"]
        {
            assert!(options.iter().any(|option| option == wanted), "{wanted} is not among {options:?}");
        }
        for unwanted in [
            "ENABLE_MEMORY_MANAGEMENT",
            "ENABLE_LOAD_EXTENSION",
            "ENABLE_FTS3",
            "ENABLE_RTREE",
            "ENABLE_STAT4",
            "ENABLE_DBSTAT_VTAB",
            "SOUNDEX",
        ] {
            assert!(
                !options.iter().any(|option| option.starts_with(unwanted)),
                "{unwanted} is among {options:?}"
            );
        }
        assert!(rusqlite::version_number() >= OLDEST_SQLITE);
    }

    #[test]
    fn a_path_with_odd_characters_is_one_path() {
        let uri = uri(Path::new("/tmp/a b?c#d%/é.limn"), true);
        assert_eq!(uri, Path::new("file:/tmp/a%20b%3Fc%23d%25/%C3%A9.limn?immutable=1"));
    }
}
