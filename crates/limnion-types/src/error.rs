//! The one error type: a stable kind, a message, and a suggestion where there is one.

use std::fmt;

/// A `Result` whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, told in a way that a program can act on.
///
/// The string forms ([`ErrorKind::as_str`]) are part of the API: they are only ever added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument has the right type and a value that cannot be used.
    InvalidArgument,
    /// An argument has the wrong type, dtype or memory layout.
    InvalidType,
    /// A vector's length is not the dimension of the index.
    DimensionMismatch,
    /// A search on an index without rows.
    EmptyIndex,
    /// An id that is to be added exists already, or comes twice.
    DuplicateId,
    /// An id that is to be read, changed or removed does not exist.
    IdNotFound,
    /// The original vectors are asked of an index that keeps none.
    NoOriginals,
    /// A file cannot be read or written.
    Io,
    /// A file that should be there is not.
    FileNotFound,
    /// A file is not what it should be: wrong magic, checksum, length or content.
    CorruptFile,
    /// A file was written by a newer version of limnion.
    NewerFile,
    /// Text cannot be embedded: the model is missing or broken.
    Embed,
    /// A record that is to be read has never been written, or is deleted or expired.
    KeyNotFound,
    /// A record has no value at the time that is asked for.
    NoValueAtTime,
    /// A condition of a write does not hold: somebody else has written meanwhile.
    Conflict,
    /// A value that cannot be stored, or stored bytes that cannot be made a value.
    Serialization,
    /// Another process, or another handle of this one, has the database open.
    DatabaseLocked,
    /// The database is closed.
    DatabaseClosed,
    /// A write to a database that is open for reading.
    ReadOnly,
    /// What lies on disk is not what was written there.
    Corruption,
    /// The disk, or the quota, is full.
    DiskFull,
    /// A handle that was opened before a fork is used in the child.
    ForkedProcess,
    /// A name, a configuration or a query of a database that cannot be used.
    Validation,
    /// The files of a database cannot be read or written.
    StoreIo,
    /// A database was written by a newer version of limnion.
    NewerDatabase,
    /// A lake, or a bundle of it, that is not used as it can be.
    Lake,
    /// A backend failed, or answered what cannot be.
    Backend,
    /// An index would have to be built, which the caller has ruled out.
    CacheMiss,
    /// A bundle or a cached file is not what its witness says.
    WitnessMismatch,
    /// A backend has no collection of this name, or the lake no such backend.
    UnknownCollection,
    /// The answer did not come in the time that was given for it.
    DeadlineExceeded,
    /// The caller asked the job to stop.
    Cancelled,
    /// A defect of limnion: please report it.
    Internal,
}

impl ErrorKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [ErrorKind; 33] = [
        ErrorKind::InvalidArgument,
        ErrorKind::InvalidType,
        ErrorKind::DimensionMismatch,
        ErrorKind::EmptyIndex,
        ErrorKind::DuplicateId,
        ErrorKind::IdNotFound,
        ErrorKind::NoOriginals,
        ErrorKind::Io,
        ErrorKind::FileNotFound,
        ErrorKind::CorruptFile,
        ErrorKind::NewerFile,
        ErrorKind::Embed,
        ErrorKind::KeyNotFound,
        ErrorKind::NoValueAtTime,
        ErrorKind::Conflict,
        ErrorKind::Serialization,
        ErrorKind::DatabaseLocked,
        ErrorKind::DatabaseClosed,
        ErrorKind::ReadOnly,
        ErrorKind::Corruption,
        ErrorKind::DiskFull,
        ErrorKind::ForkedProcess,
        ErrorKind::Validation,
        ErrorKind::StoreIo,
        ErrorKind::NewerDatabase,
        ErrorKind::Lake,
        ErrorKind::Backend,
        ErrorKind::CacheMiss,
        ErrorKind::WitnessMismatch,
        ErrorKind::UnknownCollection,
        ErrorKind::DeadlineExceeded,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
    ];

    /// The stable name of the kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::InvalidArgument => "invalid-argument",
            ErrorKind::InvalidType => "invalid-type",
            ErrorKind::DimensionMismatch => "dimension-mismatch",
            ErrorKind::EmptyIndex => "empty-index",
            ErrorKind::DuplicateId => "duplicate-id",
            ErrorKind::IdNotFound => "id-not-found",
            ErrorKind::NoOriginals => "no-originals",
            ErrorKind::Io => "io",
            ErrorKind::FileNotFound => "file-not-found",
            ErrorKind::CorruptFile => "corrupt-file",
            ErrorKind::NewerFile => "newer-file",
            ErrorKind::Embed => "embed",
            ErrorKind::KeyNotFound => "key-not-found",
            ErrorKind::NoValueAtTime => "no-value-at-time",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Serialization => "serialization",
            ErrorKind::DatabaseLocked => "database-locked",
            ErrorKind::DatabaseClosed => "database-closed",
            ErrorKind::ReadOnly => "read-only",
            ErrorKind::Corruption => "corruption",
            ErrorKind::DiskFull => "disk-full",
            ErrorKind::ForkedProcess => "forked-process",
            ErrorKind::Validation => "validation",
            ErrorKind::StoreIo => "store-io",
            ErrorKind::NewerDatabase => "newer-database",
            ErrorKind::Lake => "lake",
            ErrorKind::Backend => "backend",
            ErrorKind::CacheMiss => "cache-miss",
            ErrorKind::WitnessMismatch => "witness-mismatch",
            ErrorKind::UnknownCollection => "unknown-collection",
            ErrorKind::DeadlineExceeded => "deadline-exceeded",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error: its kind, a message that names the argument, what was expected and what came, and what to do about it.
///
/// ```
/// use limnion_types::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::InvalidArgument, "k must be at least 1, got 0").suggest("ask for k=10");
/// assert_eq!(error.kind(), ErrorKind::InvalidArgument);
/// assert_eq!(error.to_string(), "k must be at least 1, got 0; ask for k=10");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", suggestion.as_ref().map(|s| format!("; {s}")).unwrap_or_default())]
pub struct Error {
    kind: ErrorKind,
    message: String,
    suggestion: Option<String>,
    passes: bool,
}

impl Error {
    /// An error without a suggestion.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), suggestion: None, passes: false }
    }

    /// The same error, of something that passes: the same call may well succeed right after.
    #[must_use]
    pub fn passing(mut self) -> Self {
        self.passes = true;
        self
    }

    /// The same error, with what the caller can do about it.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same error, with where it happened before the message.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may well succeed right after.
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// The message without the suggestion.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, where there is an answer.
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }
}
