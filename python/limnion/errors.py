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
    "CorruptFileError",
    "DimensionMismatch",
    "DuplicateIdError",
    "EmbedError",
    "EmptyIndex",
    "IdNotFoundError",
    "IndexFileNotFoundError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidTypeError",
    "JobCancelledError",
    "LimnionError",
    "NewerFileError",
    "NoOriginalsError",
    "PersistError",
    "VectorIndexError",
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
        EmbedError,
        JobCancelledError,
        InternalError,
    )
}
"""The class of each kind that the native module can raise (`limnion._native.error_kinds`)."""
