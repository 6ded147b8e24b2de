"""What an AI program knows, kept and searched in microseconds: no server, no key, no download.

What there is so far:

- indexes of vectors: `RabitqPlusIndex` for most uses, `RabitqAsymIndex`, `RabitqIndex`,
  `FlatF32Index`, and for many rows `IvfIndex` and `GraphIndex`; `recommend` chooses among them, and
  `build` builds its choice. All fit `AnyIndex`; `HammingIndex` is for binary vectors,
  `MultiVectorIndex` for documents of several vectors each.
- `Hits`, a sequence of `Hit(id, score, distance)`: what a search gives back; `HitsBatch` is a
  sequence of those.
- `Database`, configured by `Config`: records with a whole history in one folder, from asyncio;
  `SyncDatabase` is the same without `await`.
- `Lake`: vectors wherever they live, searched from indexes in memory that know how fresh they are:
  in memory (`LocalBackend`), in the files of a folder (`FsBackend`), in an object store
  (`ObjectStoreBackend`), in a database (`StoreBackend`), or where a class of your own finds them.
- `Embedder`: text to vectors, with a model that comes along.
- `LimnionError` and below it, in `limnion.errors`, everything that limnion raises.

>>> import limnion
>>> import numpy as np
>>> vectors = np.random.default_rng(0).standard_normal((10_000, 384), dtype=np.float32)
>>> index = limnion.RabitqPlusIndex.build(vectors, metric="cosine")
>>> hits = index.search(vectors[42], k=5)
>>> hits[0].id
42
>>> len(hits), hits.scores.dtype
(5, dtype('float32'))
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Final

from limnion import _clouds, errors  # noqa: F401 - the native module is chosen before it is used
from limnion._native import (
    FsBackend,
    Hits,
    HitsBatch,
    LakeHits,
    LakeHitsBatch,
    LocalBackend,
    ObjectShelf,
    ObjectStoreBackend,
    StoreBackend,
    __version__,
    cpu_features,
)
from limnion.errors import (
    BackendError,
    CacheMissError,
    ConflictError,
    CorruptionError,
    DatabaseClosedError,
    DatabaseLockedError,
    DeadlineExceeded,
    DimensionMismatch,
    DiskFullError,
    EmbedError,
    EmptyIndex,
    ForkedProcessError,
    KeyNotFoundError,
    LakeError,
    LimnionError,
    NoValueAtTime,
    PersistError,
    ReadOnlyError,
    SerializationError,
    StoreError,
    UnknownCollection,
    ValidationError,
    VectorIndexError,
    WitnessMismatch,
)
from limnion.indexes import (
    FlatF32Index,
    GraphIndex,
    HammingIndex,
    Hit,
    IvfIndex,
    RabitqAsymIndex,
    RabitqIndex,
    RabitqPlusIndex,
    Recommendation,
    Selection,
    build,
    recommend,
)

if TYPE_CHECKING:
    from limnion.config import Config, Retention
    from limnion.database import Database
    from limnion.diff import Diff
    from limnion.embed import Embedder
    from limnion.filters import F
    from limnion.lake import Consistency, Lake, LakeBundle, LakeHit, RefreshResult
    from limnion.multivector import MultiVectorIndex
    from limnion.protocols import AnyIndex
    from limnion.records import Record, Records
    from limnion.serializers import register_serializer
    from limnion.sync_database import SyncDatabase

    IndexError = VectorIndexError  # noqa: A001 - on purpose, and not in __all__

__all__ = [
    "AnyIndex",
    "BackendError",
    "CacheMissError",
    "Config",
    "ConflictError",
    "Consistency",
    "CorruptionError",
    "Database",
    "DatabaseClosedError",
    "DatabaseLockedError",
    "DeadlineExceeded",
    "Diff",
    "DimensionMismatch",
    "DiskFullError",
    "EmbedError",
    "Embedder",
    "EmptyIndex",
    "F",
    "FlatF32Index",
    "ForkedProcessError",
    "FsBackend",
    "GraphIndex",
    "HammingIndex",
    "Hit",
    "Hits",
    "HitsBatch",
    "IvfIndex",
    "KeyNotFoundError",
    "Lake",
    "LakeBundle",
    "LakeError",
    "LakeHit",
    "LakeHits",
    "LakeHitsBatch",
    "LimnionError",
    "LocalBackend",
    "MultiVectorIndex",
    "NoValueAtTime",
    "ObjectShelf",
    "ObjectStoreBackend",
    "PersistError",
    "RabitqAsymIndex",
    "RabitqIndex",
    "RabitqPlusIndex",
    "ReadOnlyError",
    "Recommendation",
    "Record",
    "Records",
    "RefreshResult",
    "Retention",
    "Selection",
    "SerializationError",
    "StoreBackend",
    "StoreError",
    "SyncDatabase",
    "UnknownCollection",
    "ValidationError",
    "VectorIndexError",
    "WitnessMismatch",
    "__version__",
    "build",
    "cpu_features",
    "errors",
    "recommend",
    "register_serializer",
]

_LATER: Final = {
    "AnyIndex": "protocols",
    "Config": "config",
    "Consistency": "lake",
    "Database": "database",
    "Diff": "diff",
    "Embedder": "embed",
    "F": "filters",
    "Lake": "lake",
    "LakeBundle": "lake",
    "LakeHit": "lake",
    "MultiVectorIndex": "multivector",
    "Record": "records",
    "Records": "records",
    "RefreshResult": "lake",
    "Retention": "config",
    "SyncDatabase": "sync_database",
    "register_serializer": "serializers",
}


def __getattr__(name: str) -> object:
    """Imports what is heavier, or would hide a builtin, when it is first asked for."""
    if name in _LATER:
        found: object = getattr(_import_module(f"limnion.{_LATER[name]}"), name)
        globals()[name] = found
        return found
    if name == "IndexError":
        return VectorIndexError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
