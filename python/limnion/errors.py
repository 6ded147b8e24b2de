"""What limnion raises.

```text
LimnionError
├── InvalidArgumentError          (ValueError)     a value that cannot be used
├── InvalidTypeError              (TypeError)      a type, dtype or layout that cannot be used
├── VectorIndexError
│   ├── DimensionMismatch         (ValueError)     a vector of another length than the index's
│   ├── EmptyIndex                (LookupError)    a search on an index without rows
│   ├── DuplicateIdError          (ValueError)     an id that is there already, or comes twice
│   ├── IdNotFoundError           (KeyError)       an id that is not there
│   ├── NoOriginalsError          (LookupError)    the original vectors, of an index that keeps none
│   └── PersistError              (OSError)        a file that cannot be read or written
│       ├── IndexFileNotFoundError(FileNotFoundError)
│       ├── CorruptFileError      (ValueError)     a file that is not what it should be
│       └── NewerFileError                         a file of a newer version of limnion
├── StoreError
│   ├── KeyNotFoundError          (KeyError)       a record that is not there
│   ├── NoValueAtTime             (LookupError)    a time at which a record had no value
│   ├── ConflictError                              somebody else has written meanwhile
│   ├── SerializationError        (TypeError, ValueError)  a value that cannot be stored or read
│   ├── ValidationError           (ValueError)     a name, setting or query that cannot be used
│   ├── DatabaseClosedError       (RuntimeError)   a database that is closed
│   ├── ForkedProcessError        (RuntimeError)   a database of the parent process
│   ├── ReadOnlyError             (PermissionError)  a write to what is open for reading
│   ├── CorruptionError                            what lies on disk is not what was written
│   ├── DatabaseLockedError       (OSError)        somebody else has the database open
│   └── StoreIOError              (OSError)        files that cannot be read or written
│       ├── DiskFullError                          no space is left
│       └── NewerDatabaseError                     a database of a newer version of limnion
├── LakeError
│   ├── BackendError              (OSError)        a backend that failed, or answered what cannot be
│   ├── CacheMissError            (LookupError)    an index that is not there, nor to be built
│   ├── WitnessMismatch           (ValueError)     a bundle that is not what its witness says
│   ├── UnknownCollection         (KeyError)       a collection or a backend that is not there
│   └── DeadlineExceeded          (TimeoutError)   an answer that did not come in time
├── EmbedError                    (RuntimeError)   a model that is missing or broken
├── JobCancelledError                              work that was told to stop
└── InternalError                 (RuntimeError)   a defect of limnion: please report it
```

Each class is also the builtin that you would catch. `kind` is a stable name for programs, and
`suggestion` says what to do, where that is known.

>>> import limnion, numpy as np
>>> index = limnion.FlatF32Index.build(np.eye(3, dtype=np.float32))
>>> try:
...     index.search(np.zeros(4, dtype=np.float32))
... except ValueError as error:
...     print(error.kind, "|", error.message)
dimension-mismatch | query must have 3 dimensions like the index, got 4
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar, Final

__all__ = [
    "KINDS",
    "BackendError",
    "CacheMissError",
    "ConflictError",
    "CorruptFileError",
    "CorruptionError",
    "DatabaseClosedError",
    "DatabaseLockedError",
    "DeadlineExceeded",
    "DimensionMismatch",
    "DiskFullError",
    "DuplicateIdError",
    "EmbedError",
    "EmptyIndex",
    "ForkedProcessError",
    "IdNotFoundError",
    "IndexFileNotFoundError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "JobCancelledError",
    "KeyNotFoundError",
    "LakeError",
    "LimnionError",
    "NewerDatabaseError",
    "NewerFileError",
    "NoOriginalsError",
    "NoValueAtTime",
    "PersistError",
    "ReadOnlyError",
    "SerializationError",
    "StoreError",
    "StoreIOError",
    "UnknownCollection",
    "ValidationError",
    "VectorIndexError",
    "WitnessMismatch",
]


class LimnionError(Exception):
    """The root of everything that limnion raises on purpose.

    Args:
        message: The argument, the expectation, and what came.
        suggestion: What to do about it, where that is known.
    """

    kind: ClassVar[str] = "limnion"
    """A stable name of what went wrong; names are only ever added."""

    message: Final[str]
    """What went wrong, without the suggestion."""

    suggestion: Final[str | None]
    """What to do about it, or `None`."""

    def __init__(self, message: str = "", suggestion: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion

    def __str__(self) -> str:
        """The message and the suggestion on one line."""
        return f"{self.message}; {self.suggestion}" if self.suggestion else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles by message, suggestion and notes."""
        return type(self), (self.message, self.suggestion), self.__dict__.copy()


class InvalidArgumentError(LimnionError, ValueError):
    """An argument has the right type and a value that cannot be used."""

    kind = "invalid-argument"


class InvalidTypeError(LimnionError, TypeError):
    """An argument has a type, dtype or memory layout that cannot be used."""

    kind = "invalid-type"


class VectorIndexError(LimnionError):
    """Something went wrong with an index. `limnion.IndexError` is the same class."""

    kind = "index"


class DimensionMismatch(VectorIndexError, ValueError):  # noqa: N818 - a name of the API
    """A vector has another length than those of the index."""

    kind = "dimension-mismatch"


class EmptyIndex(VectorIndexError, LookupError):  # noqa: N818 - a name of the API
    """A search on an index without rows."""

    kind = "empty-index"


class DuplicateIdError(VectorIndexError, ValueError):
    """An id that is to be added is there already, or comes twice."""

    kind = "duplicate-id"


class IdNotFoundError(VectorIndexError, KeyError):
    """An id that is to be read, changed or removed is not there."""

    kind = "id-not-found"


class NoOriginalsError(VectorIndexError, LookupError):
    """The original vectors are asked of an index that keeps none."""

    kind = "no-originals"


class PersistError(VectorIndexError, OSError):
    """A file cannot be read or written, or holds an index of another class."""

    kind = "io"


class IndexFileNotFoundError(PersistError, FileNotFoundError):
    """A file that should be there is not."""

    kind = "file-not-found"

    def __init__(self, message: str = "", suggestion: str | None = None) -> None:
        super().__init__(message, suggestion)
        self.errno: int | None = errno.ENOENT


class CorruptFileError(PersistError, ValueError):
    """A file is not what it should be: wrong magic, checksum, length or content."""

    kind = "corrupt-file"


class NewerFileError(PersistError):
    """A file was written by a newer version of limnion."""

    kind = "newer-file"


class StoreError(LimnionError):
    """Something went wrong with a database."""

    kind = "store"


class KeyNotFoundError(StoreError, KeyError):
    """A record that is to be read was never written, or is deleted or expired.

    Args:
        message: The namespace and the key.
        suggestion: The keys that are spelled most alike, where there are any.
        namespace: The namespace.
        key: The key.
    """

    kind = "key-not-found"

    namespace: Final[str | None]
    """The namespace that was asked."""

    key: Final[str | None]
    """The key that is not there."""

    def __init__(
        self,
        message: str = "",
        suggestion: str | None = None,
        *,
        namespace: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message, suggestion)
        self.namespace = namespace
        self.key = key


class NoValueAtTime(StoreError, LookupError):  # noqa: N818 - a name of the API
    """A record has no value at the time that is asked for: it came later, or is forgotten."""

    kind = "no-value-at-time"


class ConflictError(StoreError):
    """A condition of a write does not hold: somebody else has written meanwhile.

    Nothing of the write has happened.
    """

    kind = "conflict"


class SerializationError(StoreError, TypeError, ValueError):
    """A value that cannot be stored, or stored bytes that cannot be made a value."""

    kind = "serialization"


class ValidationError(StoreError, ValueError):
    """A name, a configuration or a query of a database that cannot be used."""

    kind = "validation"


class DatabaseClosedError(StoreError, RuntimeError):
    """The database is closed."""

    kind = "database-closed"


class ForkedProcessError(StoreError, RuntimeError):
    """The database was opened before a fork, by the parent process. Open it in the child."""

    kind = "forked-process"


class ReadOnlyError(StoreError, PermissionError):
    """A write to a database that is open for reading."""

    kind = "read-only"


class CorruptionError(StoreError):
    """What lies on disk is not what was written there. Nothing wrong is ever returned instead."""

    kind = "corruption"


class DatabaseLockedError(StoreError, OSError):
    """Another process, or another handle of this one, has the database open."""

    kind = "database-locked"


class StoreIOError(StoreError, OSError):
    """The files of a database cannot be read or written."""

    kind = "store-io"


class DiskFullError(StoreIOError):
    """The disk, or the quota, is full. What was acknowledged is safe."""

    kind = "disk-full"

    def __init__(self, message: str = "", suggestion: str | None = None) -> None:
        super().__init__(message, suggestion)
        self.errno: int | None = errno.ENOSPC


class NewerDatabaseError(StoreIOError):
    """A database was written by a newer version of limnion."""

    kind = "newer-database"


class LakeError(LimnionError):
    """Something went wrong in a lake."""

    kind = "lake"


class BackendError(LakeError, OSError):
    """A backend failed, or answered what cannot be. The message names it."""

    kind = "backend"


class CacheMissError(LakeError, LookupError):
    """An index would have to be built, which the caller has ruled out."""

    kind = "cache-miss"


class WitnessMismatch(LakeError, ValueError):  # noqa: N818 - a name of the API
    """A bundle or a cached file is not what its witness says."""

    kind = "witness-mismatch"


class UnknownCollection(LakeError, KeyError):  # noqa: N818 - a name of the API
    """A backend has no collection of this name, or the lake no such backend."""

    kind = "unknown-collection"


class DeadlineExceeded(LakeError, TimeoutError):  # noqa: N818 - a name of the API
    """The answer did not come in the time that was given for it."""

    kind = "deadline-exceeded"


class EmbedError(LimnionError, RuntimeError):
    """Text cannot be embedded: the model is missing or broken."""

    kind = "embed"


class JobCancelledError(LimnionError):
    """Work was told to stop before it was through."""

    kind = "cancelled"


class InternalError(LimnionError, RuntimeError):
    """A defect of limnion. Please report it."""

    kind = "internal"


KINDS: Final[dict[str, type[LimnionError]]] = {
    error.kind: error
    for error in (
        InvalidArgumentError,
        InvalidTypeError,
        DimensionMismatch,
        EmptyIndex,
        DuplicateIdError,
        IdNotFoundError,
        NoOriginalsError,
        PersistError,
        IndexFileNotFoundError,
        CorruptFileError,
        NewerFileError,
        KeyNotFoundError,
        NoValueAtTime,
        ConflictError,
        SerializationError,
        ValidationError,
        DatabaseClosedError,
        ForkedProcessError,
        ReadOnlyError,
        CorruptionError,
        DatabaseLockedError,
        StoreIOError,
        DiskFullError,
        NewerDatabaseError,
        LakeError,
        BackendError,
        CacheMissError,
        WitnessMismatch,
        UnknownCollection,
        DeadlineExceeded,
        EmbedError,
        JobCancelledError,
        InternalError,
    )
}
"""The class of each kind that the native module can raise (`limnion._native.error_kinds`)."""
