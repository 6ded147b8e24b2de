"""What an AI program knows, kept and searched in microseconds: no server, no key, no download.

What there is so far:

- indexes of vectors: `RabitqPlusIndex` for most uses, `RabitqAsymIndex`, `RabitqIndex`,
  `FlatF32Index`; `recommend` chooses among them. All fit `AnyIndex`.
- `Hits`, a sequence of `Hit(id, score, distance)`: what a search gives back; `HitsBatch` is a
  sequence of those.
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

from typing import TYPE_CHECKING

from limnion import errors
from limnion._native import Hits, HitsBatch, __version__, cpu_features
from limnion.errors import (
    DimensionMismatch,
    EmbedError,
    EmptyIndex,
    LimnionError,
    PersistError,
    VectorIndexError,
)
from limnion.indexes import (
    FlatF32Index,
    Hit,
    RabitqAsymIndex,
    RabitqIndex,
    RabitqPlusIndex,
    Recommendation,
    recommend,
)
from limnion.protocols import AnyIndex

if TYPE_CHECKING:
    from limnion.embed import Embedder

    IndexError = VectorIndexError  # noqa: A001 - on purpose, and not in __all__

__all__ = [
    "AnyIndex",
    "DimensionMismatch",
    "EmbedError",
    "Embedder",
    "EmptyIndex",
    "FlatF32Index",
    "Hit",
    "Hits",
    "HitsBatch",
    "LimnionError",
    "PersistError",
    "RabitqAsymIndex",
    "RabitqIndex",
    "RabitqPlusIndex",
    "Recommendation",
    "VectorIndexError",
    "__version__",
    "cpu_features",
    "errors",
    "recommend",
]


def __getattr__(name: str) -> object:
    """Imports what is heavier, or would hide a builtin, when it is first asked for."""
    if name == "Embedder":
        from limnion.embed import Embedder  # noqa: PLC0415

        return Embedder
    if name == "IndexError":
        return VectorIndexError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
