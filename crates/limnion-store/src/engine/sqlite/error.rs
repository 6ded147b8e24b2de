//! What SQLite says, in the kinds of errors that a program can act on.

use std::path::Path;

use limnion_types::{Error, ErrorKind, Result};
use rusqlite::ErrorCode;

/// What can go wrong in here: something SQLite says, or something we see ourselves.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Ours(Error),
}

/// A result on its way out of the engine.
pub(super) type Outcome<T> = std::result::Result<T, Failure>;

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sqlite(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Ours(error)
    }
}

impl Failure {
    /// The error that leaves the engine of the file at `path`.
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Failure::Sqlite(error) => translate(path, &error),
            Failure::Ours(error) => error,
        }
    }
}

/// An error of SQLite on the file at `path`.
pub(super) fn translate(path: &Path, error: &rusqlite::Error) -> Error {
    let path = path.display();
    let rusqlite::Error::SqliteFailure(failure, message) = error else {
        return match error {
            rusqlite::Error::InvalidPath(_) | rusqlite::Error::NulError(_) => {
                Error::new(ErrorKind::Validation, format!("the path {path} cannot be used: {error}"))
            }
            // A column of another type, a number out of range, a row that is not there: the file is not as it was written.
            _ => damaged(format!("{path}: {error}")),
        };
    };
    let said = message.clone().unwrap_or_else(|| failure.to_string());
    let io = |suggestion: &str| {
        let code = failure.extended_code;
        Error::new(ErrorKind::StoreIo, format!("{path} cannot be read or written: {said} (SQLite {code})"))
            .suggest(suggestion)
    };
    match failure.code {
        ErrorCode::DiskFull => {
            Error::new(ErrorKind::DiskFull, format!("there is no room on the disk for {path}: {said}"))
                .suggest("free some space and write again; what was acknowledged before is safe")
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
            Error::new(ErrorKind::DatabaseLocked, format!("{path} is in use: {said}"))
                .suggest("close the other program that has it open, or open it with read_only=True")
        }
        // The file was moved or removed while it was open: nothing is wrong with permissions.
        ErrorCode::ReadOnly if failure.extended_code == rusqlite::ffi::SQLITE_READONLY_DBMOVED => {
            io("the file was moved or removed while it was open: open the database anew")
        }
        ErrorCode::ReadOnly => Error::new(ErrorKind::ReadOnly, format!("{path} cannot be written: {said}"))
            .suggest("check the permissions of the folder, or open it with read_only=True"),
        ErrorCode::OperationInterrupted => Error::new(ErrorKind::Cancelled, "the job was cancelled"),
        ErrorCode::OutOfMemory => {
            Error::new(ErrorKind::StoreIo, format!("there is not enough memory to work on {path}"))
        }
        ErrorCode::TooBig => Error::new(ErrorKind::Validation, format!("a record is too large: {said}"))
            .suggest("keep what is larger than 900 MB in a file of its own"),
        ErrorCode::CannotOpen
        | ErrorCode::SystemIoFailure
        | ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied
        | ErrorCode::NoLargeFileSupport => io(
            "check that the folder is there, that it may be read and written, and that the disk is healthy",
        ),
        ErrorCode::ApiMisuse | ErrorCode::ParameterOutOfRange | ErrorCode::InternalMalfunction => {
            Error::new(ErrorKind::Internal, format!("{path}: {said}"))
        }
        // Damage that SQLite sees, and what can only come of damage: tables that are not there, constraints that the rows
        // it gave us itself do not keep.
        _ => damaged(format!("{path}: {said}")),
    }
}

/// An error of kind corruption.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corruption, what.into())
        .suggest("run check() to see what is damaged, and salvage() to copy what is whole")
}

/// Numbers of the store are unsigned, those of SQLite are not.
pub(super) fn signed(number: u64, what: &str) -> Result<i64> {
    i64::try_from(number)
        .map_err(|_| Error::new(ErrorKind::Validation, format!("{what} must be below 2^63, got {number}")))
}

/// As many rows as anybody can ask for.
pub(super) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
