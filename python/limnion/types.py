"""Names for the types of arguments, for your own annotations."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from limnion._native import Selection
from limnion.filters import Filter

__all__ = [
    "AmongLike",
    "ArrowStream",
    "AsOf",
    "Bitmap",
    "Durability",
    "EmbedFn",
    "ExcludeLike",
    "Expect",
    "FilterLike",
    "Fusion",
    "IdsLike",
    "Layout",
    "MatrixLike",
    "Metric",
    "Originals",
    "Progress",
    "VectorLike",
    "WhereLike",
]

Metric: TypeAlias = Literal["l2", "ip", "cosine"]
"""How near two vectors are: Euclidean distance, inner product, or the cosine of their angle."""

Originals: TypeAlias = Literal["f32", "f16"]
"""How original vectors are kept: as they came, or in half the memory, rounded by up to 0.05 %."""

Layout: TypeAlias = Literal["compact", "inline"]
"""Where a graph has the codes of neighbours: once for all rows, or beside each row once more."""

VectorLike: TypeAlias = NDArray[np.float32] | NDArray[np.float16] | Sequence[float]
"""One vector of shape (d,): a C-contiguous float32 array, or a list or tuple of numbers.

Arrays are read as they are, lists and tuples are converted, which is slower. float16 arrays are
taken by an index with `originals="f16"`.
"""

MatrixLike: TypeAlias = (
    NDArray[np.float32]
    | NDArray[np.float16]
    | Sequence[Sequence[float]]
    | Sequence[NDArray[np.float32]]
)
"""Vectors of shape (n, d), under the rules of `VectorLike`."""

EmbedFn: TypeAlias = Callable[[str], VectorLike | Awaitable[VectorLike]]
"""What makes a vector of a text: a function, or a coroutine function."""

IdsLike: TypeAlias = NDArray[np.integer[Any]] | Sequence[int]
"""Ids: integers of any width, from 0 to 2**64 - 1."""


class ArrowStream(Protocol):
    """A table: of pyarrow, polars, pandas, duckdb, or whatever has the Arrow C stream interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None, /) -> object:
        """A capsule with the stream."""
        ...


Fusion: TypeAlias = Literal["rrf", "weighted"]
"""How two orders of rows become one: by their ranks, or by their scores."""


class Bitmap(Protocol):
    """A roaring bitmap of ids, such as pyroaring's `BitMap` and `BitMap64`."""

    def serialize(self) -> bytes:
        """The bitmap in the portable format of Roaring, of 32 or 64 bits."""
        ...


WhereLike: TypeAlias = (
    NDArray[np.bool_]
    | NDArray[np.integer[Any]]
    | Sequence[int]
    | Sequence[bool]
    | Bitmap
    | Selection
)
"""The rows that a search may find.

Their ids, as an array or a bitmap; one bool a row in the order of `index.ids`; or what `select`
made of either, which is looked up once for any number of searches.
"""

ExcludeLike: TypeAlias = int | IdsLike | Bitmap
"""The ids that a search may not find, whether or not there are such rows."""

Progress: TypeAlias = bool | Callable[[int, int], object]
"""`True` for a bar on stderr, or a callable of (done, total); what it raises ends the work."""

Durability: TypeAlias = Literal["commit", "batched", "none"]
"""How sure a write is when it is acknowledged: on disk, with the operating system, or neither."""

AsOf: TypeAlias = int | str | dt.datetime
"""A point in history: the number of a version, a tag, or an aware datetime."""

Expect: TypeAlias = int | Literal["absent", "present"]
"""What must hold for a write: there is no value, there is one, or this version wrote it."""

FilterLike: TypeAlias = Mapping[str, Any] | str | Filter
"""Which records are meant: `{"year": {"$gte": 2020}}`, `"year >= 2020"`, or `F("year") >= 2020`."""

AmongLike: TypeAlias = IdsLike | Sequence[str] | FilterLike
"""The rows of a lake that a search may find: their ids, or a filter that the backend evaluates."""
