import asyncio
import datetime as dt
import os
from collections.abc import Coroutine as _Coroutine
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    Self,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    final,
    overload,
)

import numpy as np
from numpy.typing import DTypeLike, NDArray
from typing_extensions import disjoint_base

from limnion.database import Database
from limnion.errors import KeyNotFoundError
from limnion.indexes import FlatF32Index, Hit, RabitqAsymIndex, RabitqIndex, RabitqPlusIndex
from limnion.lake import (
    BackendReport,
    CollectionStats,
    Consistency,
    LakeBundle,
    LakeHit,
    LoadedCache,
    RefreshResult,
)
from limnion.protocols import AsyncBackend, Backend, Description, Pulled
from limnion.sync_database import SyncDatabase
from limnion.types import (
    AmongLike,
    ArrowStream,
    AsOf,
    ExcludeLike,
    Expect,
    Fusion,
    IdsLike,
    Layout,
    MatrixLike,
    Metric,
    Originals,
    Progress,
    VectorLike,
    WhereLike,
)

__all__ = [
    "PROFILE",
    "Coroutine",
    "Embedder",
    "FlatIndex",
    "FsBackend",
    "HammingIndex",
    "Hits",
    "HitsBatch",
    "Hold",
    "Lake",
    "LakeHits",
    "LakeHitsBatch",
    "LinkIndex",
    "ListIndex",
    "LocalBackend",
    "ObjectShelf",
    "ObjectStoreBackend",
    "Record",
    "Request",
    "Selection",
    "Store",
    "StoreBackend",
    "VectorBackend",
    "VectorIndex",
    "Write",
    "__version__",
    "_bundle",
    "_recommend",
    "_shape",
    "cpu_features",
    "error_kinds",
]

_T = TypeVar("_T")
_Change: TypeAlias = tuple[str, str, int, dt.datetime, Any, Record | None]
_Index: TypeAlias = FlatF32Index | RabitqIndex | RabitqAsymIndex | RabitqPlusIndex
_Report: TypeAlias = tuple[list[str], int, int, int]

__version__: str
PROFILE: str
"""`release` or `debug`."""

def cpu_features() -> dict[str, bool | str]:
    """What the CPU has, by name, and under `level` the name of the level that the kernels use.

    The level is the best one, unless the environment variable `LIMNION_SIMD` names a lower one; the
    entry of that name then says whether its wish could be met.
    """

def error_kinds() -> list[str]:
    """The kinds of error that this module can raise.

    `limnion.errors.KINDS` has a class for each.
    """

def _bundle(dir: str | os.PathLike[str] | ObjectShelf, verify: bool) -> dict[str, Any]:
    """The fields of the bundle in a folder; all of its rows are looked at where that is wanted."""

def _recommend(
    n: int,
    dim: int,
    recall: float,
    memory: int | None,
    changes: bool,
) -> tuple[str, int, str | None, int, float, str]: ...
def _shape(vectors: MatrixLike) -> tuple[int, int]: ...

@final
class Coroutine(_Coroutine[Any, Any, Any]):
    """What the `_async` methods return: to be awaited once, made a task, or run."""

    def __await__(self) -> Iterator[Any]: ...  # type: ignore[override]
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any:
        """Goes on to the next suspension, as of any coroutine."""

    def throw(self, *exception: Any) -> Any:
        """Raises an exception where the coroutine waits."""

    def close(self) -> None:
        """Ends the coroutine; work that is under way for it is cancelled."""

@final
class Embedder:
    """Text to vectors of unit length, with a model that comes along: no download, no network.

    `Embedder.builtin()` gives one. The same text has the same vector on every machine, alone or in
    a batch. The first 512 tokens of a text count; a text without a known word has the zero vector.
    """

    @staticmethod
    def builtin() -> Embedder:
        """The embedder that is part of limnion: 256 dimensions. The same object at every call.

        Raises `EmbedError` where the installation is damaged.
        """

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""

    def embed(self, text: str) -> NDArray[np.float32]:
        """The vector of one text: a new array of shape (dim,). Some microseconds."""

    def embed_async(self, text: str) -> _Coroutine[Any, Any, NDArray[np.float32]]:
        """`embed`, to be awaited. A short text is answered without a hop to another thread."""

    def embed_batch(
        self,
        texts: Iterable[str],
        *,
        progress: Progress = False,
    ) -> NDArray[np.float32]:
        """The vectors of many texts: a new array of shape (n, dim).

        Runs on all cores with the interpreter released; Ctrl-C stops it.
        """

    def embed_batch_async(self, texts: Iterable[str]) -> _Coroutine[Any, Any, NDArray[np.float32]]:
        """`embed_batch`, to be awaited. A cancelled await stops the work."""

    def __reduce__(self) -> tuple[Any, ...]: ...

@final
class Hits(Sequence[Hit]):
    """The hits of one search, best first. Made by searches."""

    @property
    def ids(self) -> NDArray[np.uint64]:
        """The ids, best first: a new array of shape (k,)."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores, highest first: a new array of shape (k,)."""

    @property
    def distances(self) -> NDArray[np.float32]:
        """The metric's own numbers, lowest first: a new array of shape (k,)."""

    def to_list(self) -> list[Hit]:
        """The hits as a list."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Hit: ...
    @overload
    def __getitem__(self, index: slice, /) -> Hits: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Hit]: ...
    def __reversed__(self) -> Iterator[Hit]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def count(self, value: object) -> int:
        """How often `value` comes."""

    def index(self, value: object, start: int = 0, stop: int = ...) -> int:
        """Where `value` comes first; `ValueError` where it does not."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...
    def _repr_html_(self) -> str: ...
    @classmethod
    def _from_columns(
        cls,
        ids: Sequence[int],
        scores: Sequence[float],
        distances: Sequence[float],
    ) -> Self: ...

@final
class HitsBatch(Sequence[Hits]):
    """The hits of several searches: one `Hits` for each query. Made by searches."""

    @property
    def ids(self) -> NDArray[np.uint64]:
        """The ids: a new array of shape (m, k), a row for each query, best first.

        Where the queries have different numbers of hits, which a `radius` or an `nprobe` may bring
        about, there is no such array: this and the next two raise `InvalidArgumentError`. Each
        query's own hits have arrays always.
        """

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores: a new array of shape (m, k)."""

    @property
    def distances(self) -> NDArray[np.float32]:
        """The metric's own numbers: a new array of shape (m, k)."""

    def to_list(self) -> list[Hits]:
        """The hits of each query, as a list."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> Hits: ...
    @overload
    def __getitem__(self, index: slice, /) -> HitsBatch: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Hits]: ...
    def __reversed__(self) -> Iterator[Hits]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def count(self, value: object) -> int:
        """How often `value` comes."""

    def index(self, value: object, start: int = 0, stop: int = ...) -> int:
        """Where `value` comes first; `ValueError` where it does not."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...
    @classmethod
    def _from_list(cls, batch: Sequence[Hits]) -> Self: ...

@disjoint_base
class VectorIndex:
    """What all indexes have in common; `limnion.indexes` has the classes to use.

    An index may be used from several threads: searches run side by side, changes one at a time,
    first come first served. All work happens with the interpreter released; what takes longer can
    be ended by Ctrl-C.
    """

    def add(self, id: int, vector: VectorLike) -> None:
        """Appends one vector under a new id. The vector is copied.

        Raises `DuplicateIdError`, `DimensionMismatch`, and what `build` raises for a vector that it
        cannot use.
        """

    def add_batch(
        self,
        vectors: MatrixLike,
        *,
        ids: IdsLike | None = None,
        progress: Progress = False,
    ) -> None:
        """Appends the rows of `vectors`, parallel: all of them, or none where something is wrong.

        `ids` has one new id for each row; without it, rows are numbered on from the largest id.
        """

    def remove(self, ids: int | IdsLike) -> None:
        """Removes the row with an id, or the rows with several.

        All of them, or none where one is missing (`IdNotFoundError`). The last
        rows take the free places; memory is given back once half of it is unused.
        """

    def update(self, id: int, vector: VectorLike) -> None:
        """Replaces the vector of a row that is there. Raises `IdNotFoundError` where it is not."""

    def update_batch(self, ids: IdsLike, vectors: MatrixLike) -> None:
        """Replaces the vectors of rows that are there: all, or none where something is wrong."""

    def merge(self, other: VectorIndex, *, progress: Progress = False) -> None:
        """Appends the rows of another index under their ids.

        All of them, or none where something is wrong. Both have one dimension and one metric, and
        no id in common; `other` stays as it is. What it keeps of each vector is encoded anew. Where
        neither of two flat indexes keeps originals, codes are copied, which takes indexes that
        began as copies of one.

        Raises `DuplicateIdError`, `DimensionMismatch`, `InvalidArgumentError`, `NoOriginalsError`;
        `InvalidTypeError` for an index of another kind.
        """

    def select(
        self, where: WhereLike | None = None, *, exclude: ExcludeLike | None = None
    ) -> Selection:
        """Names rows that searches may find, once for any number of them: what `where=` takes.

        Without `where` all rows but those in `exclude`. It names ids, so it stays right when the
        index changes: the next search looks them up again.
        """

    def _max_similar(self, query: MatrixLike, documents: IdsLike, k: int) -> HitsBatch: ...
    def _max_similar_async(
        self, query: MatrixLike, documents: IdsLike, k: int
    ) -> _Coroutine[Any, Any, HitsBatch]: ...
    def vectors(self, ids: IdsLike) -> NDArray[np.float32]:
        """The original vectors of rows: a new array of shape (m, d), in the order of `ids`.

        Raises `IdNotFoundError`, and `NoOriginalsError` where only codes are kept.
        """

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""

    @property
    def metric(self) -> Metric:
        """How near two vectors are."""

    @property
    def bits(self) -> int:
        """Bits a dimension of the codes; 0 where there are none."""

    @property
    def originals(self) -> Originals | None:
        """How the original vectors are kept."""

    @property
    def memory_bytes(self) -> int:
        """Bytes on the heap, spare room included. What lies in a mapped file does not count."""

    @property
    def ids(self) -> NDArray[np.uint64]:
        """The ids in the order of the rows: a new array of shape (n,)."""

    def __len__(self) -> int: ...
    def __contains__(self, id: object, /) -> bool: ...
    def __getitem__(self, id: int, /) -> NDArray[np.float32]: ...
    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float32]]]: ...
    def __array__(
        self,
        dtype: DTypeLike | None = None,
        copy: bool | None = None,
    ) -> NDArray[Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file; a file of that name is replaced, all at once.

        The same index gives the same bytes. Raises `PersistError`.
        """

@disjoint_base
class FlatIndex(VectorIndex):
    """What the four classes of flat index have in common.

    `limnion.indexes` has the classes to use.
    """

    def __new__(cls, *made: Any, **_options: Any) -> Self: ...
    @classmethod
    def _build(
        cls,
        vectors: MatrixLike,
        *,
        bits: int,
        originals: Originals | None,
        ids: IdsLike | None,
        metric: Metric,
        seed: int,
        rerank_factor: int | None,
        progress: Progress,
    ) -> Self: ...
    def search(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows nearest to `query`, best first. Fewer come back only where fewer rows match.

        Args:
            query: A float32 array of shape (d,).
            k: How many hits, at least 1.
            recall: The share of the true neighbours to find, above 0 and at most 1; 1.0 is exact.
                The first search that names one finds out what it takes on these data, by some
                hundred searches. Without it nearly all are found: one at the very edge of the
                answer with a probability of 0.99, the others with more.
            rerank_factor: Look closely at exactly `k * rerank_factor` rows instead.
            where: The rows that may be found: an array of ids, a roaring bitmap of them, a mask
                with one bool a row in the order of `ids`, or what `select` made of one. It is
                applied inside the scan: no match is missed, and blocks of rows without one are
                skipped.
            exclude: Ids that are not to be found. `k` others still are, where there are as many.
            radius: How far a hit may be, as its `distance`; fewer than `k` come back where fewer
                rows are that near.

        Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
        """

    def search_async(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search`, to be awaited: on asyncio, uvloop, and whatever has their interface.

        The query is copied at once; the search begins with the first await. A small index answers
        without a hop to another thread.
        """

    def search_by_id(
        self,
        id: int,
        k: int = 10,
        *,
        recall: float | None = None,
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows nearest to the row with an id, which is itself left out.

        What `search` finds from its vector, or, where only codes are kept, from what its code says
        of it. Raises `IdNotFoundError`, and what `search` raises.
        """

    def search_by_id_async(
        self,
        id: int,
        k: int = 10,
        *,
        recall: float | None = None,
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search_by_id`, to be awaited."""

    def search_batch(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
        progress: Progress = False,
    ) -> HitsBatch:
        """`search` for each row of `queries`, a float32 array of shape (m, d).

        Runs on all cores, with several queries a pass over the codes, and finds what single
        searches find. Ctrl-C stops it.
        """

    def search_batch_async(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, HitsBatch]:
        """`search_batch`, to be awaited. A cancelled await stops the work."""

    @classmethod
    def load(cls, path: str | os.PathLike[str], mmap: bool = False) -> Self:
        """Reads an index from a file that `save` wrote, or from an `.rbpx` file of ruvector.

        The whole file is read and verified. With `mmap=True` it is mapped instead: opening takes
        milliseconds whatever the size, parts are verified when first used, and rows that are never
        looked at never take memory. For files that nobody shortens meanwhile: that would end the
        process.

        Raises `IndexFileNotFoundError`, `CorruptFileError`, `NewerFileError`; `PersistError` where
        the file holds an index of another class.
        """

    @classmethod
    def _from_bytes(cls, bytes: NDArray[np.uint8]) -> Self: ...

@disjoint_base
class ListIndex(VectorIndex):
    """What `limnion.IvfIndex` is made of."""

    def __new__(cls, *made: Any, **_options: Any) -> Self: ...
    @classmethod
    def _build(
        cls,
        vectors: MatrixLike,
        *,
        bits: int,
        originals: Originals | None,
        lists: int | None,
        ids: IdsLike | None,
        metric: Metric,
        seed: int,
        progress: Progress,
    ) -> Self: ...
    def search(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows nearest to `query`, best first. Fewer come back only where fewer rows match.

        Args:
            query: A float32 array of shape (d,).
            k: How many hits, at least 1.
            recall: The share of the true neighbours to find, above 0 and at most 1. Without it
                0.95; 1.0 looks at every original.
            nprobe: Look into exactly so many lists instead, the nearest.
            where: The rows that may be found: an array of ids, a roaring bitmap of them, a mask
                with one bool a row in the order of `ids`, or what `select` made of one. Where they
                are few, all of them are measured.
            exclude: Ids that are not to be found. `k` others still are, where there are as many.
            radius: How far a hit may be, as its `distance`; fewer than `k` come back where fewer
                rows are that near.

        Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
        """

    def search_async(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search`, to be awaited: on asyncio, uvloop, and whatever has their interface.

        The query is copied at once; the search begins with the first await. A short search is
        answered without a hop to another thread.
        """

    def search_by_id(
        self,
        id: int,
        k: int = 10,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows nearest to the row with an id, which is itself left out.

        What `search` finds from its vector, or, where only codes are kept, from what its code says
        of it. Raises `IdNotFoundError`, and what `search` raises.
        """

    def search_by_id_async(
        self,
        id: int,
        k: int = 10,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search_by_id`, to be awaited."""

    def search_batch(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
        progress: Progress = False,
    ) -> HitsBatch:
        """`search` for each row of `queries`, a float32 array of shape (m, d).

        Runs on all cores, and finds what single searches find. Ctrl-C stops it.
        """

    def search_batch_async(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, HitsBatch]:
        """`search_batch`, to be awaited. A cancelled await stops the work."""

    def _explain(
        self,
        query: VectorLike,
        k: int,
        recall: float | None,
        nprobe: int | None,
        where: WhereLike | None,
        exclude: ExcludeLike | None,
        radius: float | None,
    ) -> tuple[int, int, int]: ...
    @property
    def lists(self) -> int:
        """How many lists there are now."""

    @classmethod
    def load(cls, path: str | os.PathLike[str], mmap: bool = False) -> Self:
        """Reads an index from a file that `save` wrote.

        The whole file is read and verified. With `mmap=True` it is mapped instead: opening takes
        milliseconds whatever the size, parts are verified when first used, and rows that are never
        looked at never take memory. For files that nobody shortens meanwhile: that would end the
        process.

        Raises `IndexFileNotFoundError`, `CorruptFileError`, `NewerFileError`; `PersistError` where
        the file holds an index of another class.
        """

    @classmethod
    def _from_bytes(cls, bytes: NDArray[np.uint8]) -> Self: ...

@disjoint_base
class LinkIndex(VectorIndex):
    """What `limnion.GraphIndex` is made of."""

    def __new__(cls, *made: Any, **_options: Any) -> Self: ...
    @classmethod
    def _build(
        cls,
        vectors: MatrixLike,
        *,
        bits: int,
        originals: Originals | None,
        degree: int,
        layout: Layout,
        ids: IdsLike | None,
        metric: Metric,
        seed: int,
        progress: Progress,
    ) -> Self: ...
    def search(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        ef: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows nearest to `query`, best first. Fewer come back only where fewer rows match.

        Args:
            query: A float32 array of shape (d,).
            k: How many hits, at least 1.
            recall: The share of the true neighbours to find, above 0 and at most 1. Without it
                0.95; 1.0 looks at every original.
            ef: How many rows the walk holds instead, at least `k`: more find more.
            where: The rows that may be found: an array of ids, a roaring bitmap of them, a mask
                with one bool a row in the order of `ids`, or what `select` made of one. Where they
                are few, all of them are measured.
            exclude: Ids that are not to be found. `k` others still are, where there are as many.
            radius: How far a hit may be, as its `distance`; fewer than `k` come back where fewer
                rows are that near.

        Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
        """

    def search_async(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        ef: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search`, to be awaited: on asyncio, uvloop, and whatever has their interface.

        The query is copied at once; the search begins with the first await. A short search is
        answered without a hop to another thread.
        """

    def search_by_id(
        self,
        id: int,
        k: int = 10,
        *,
        recall: float | None = None,
        ef: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows nearest to the row with an id, which is itself left out.

        What `search` finds from its vector, or, where only codes are kept, from what its code says
        of it. Raises `IdNotFoundError`, and what `search` raises.
        """

    def search_by_id_async(
        self,
        id: int,
        k: int = 10,
        *,
        recall: float | None = None,
        ef: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search_by_id`, to be awaited."""

    def search_batch(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        ef: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
        progress: Progress = False,
    ) -> HitsBatch:
        """`search` for each row of `queries`, a float32 array of shape (m, d).

        Runs on all cores, and finds what single searches find. Ctrl-C stops it.
        """

    def search_batch_async(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        ef: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, HitsBatch]:
        """`search_batch`, to be awaited. A cancelled await stops the work."""

    def _explain(
        self,
        query: VectorLike,
        k: int,
        recall: float | None,
        ef: int | None,
        where: WhereLike | None,
        exclude: ExcludeLike | None,
        radius: float | None,
    ) -> tuple[int, int, int]: ...
    @property
    def degree(self) -> int:
        """The most links of a row."""

    @property
    def mean_degree(self) -> float:
        """The links of a row, on average."""

    @property
    def layout(self) -> Layout:
        """Where the codes of a row's neighbours lie: once for all, or beside it once more."""

    def set_layout(self, layout: Layout) -> None:
        """Puts the codes of neighbours where `layout` says.

        With `"inline"` searches are faster where the index is far larger than the caches, in
        several times the memory of the codes; `"compact"` gives that back. Walks take another
        order, so they may miss other rows, but as few. Cost: some 100 ns a row and core. Raises
        `InvalidArgumentError`, `InvalidTypeError`.
        """

    @classmethod
    def load(cls, path: str | os.PathLike[str], mmap: bool = False) -> Self:
        """Reads an index from a file that `save` wrote.

        The whole file is read and verified. With `mmap=True` it is mapped instead: opening takes
        milliseconds whatever the size, parts are verified when first used, and rows that are never
        looked at never take memory. For files that nobody shortens meanwhile: that would end the
        process.

        Raises `IndexFileNotFoundError`, `CorruptFileError`, `NewerFileError`; `PersistError` where
        the file holds an index of another class.
        """

    @classmethod
    def _from_bytes(cls, bytes: NDArray[np.uint8]) -> Self: ...

@final
class Selection:
    """Rows that searches may find: what `select` returns, and `where=` takes.

    It names ids, so it stays right when the index changes: the next search looks them up again. It
    may serve other indexes too.
    """

    def __len__(self) -> int:
        """How many rows it allowed in the index when it was last used."""

    def __bool__(self) -> bool: ...

@final
class HammingIndex:
    """Binary vectors, eight bits a byte, searched by the number of bits in which they differ.

    Exact: every search looks at all rows, 32 to 64 bytes of them a few nanoseconds each. The
    `distance` of a hit is the number of differing bits d, its `score` is 1 / (1 + d). Rules for
    threads, awaits, errors and files are those of the other indexes.

    >>> import limnion, numpy as np
    >>> bools = np.random.default_rng(0).random((1000, 256)) < 0.5
    >>> index = limnion.HammingIndex.build(np.packbits(bools, axis=-1))
    >>> hit = index.search(index[7], k=1)[0]
    >>> hit.id, hit.distance
    (7, 0.0)
    """

    def __new__(cls, *_made: Any, **_options: Any) -> Self: ...
    @staticmethod
    def build(
        vectors: NDArray[np.uint8], *, ids: IdsLike | None = None, progress: Progress = False
    ) -> HammingIndex:
        """Builds an index of the rows of `vectors`, a C-contiguous uint8 array (n, bytes).

        Args:
            vectors: Eight bits a byte, as `numpy.packbits` makes them; they are copied.
            ids: One id for each row; 0, 1, 2 ... without.
            progress: `True` for a bar, or a callable of (done, total).

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for vectors without bytes, or with more than 8,192.
            DuplicateIdError: for an id that comes twice.
        """

    def add(self, id: int, vector: NDArray[np.uint8]) -> None:
        """Appends one vector under a new id. The vector is copied.

        Raises `DuplicateIdError`, `DimensionMismatch`, `InvalidTypeError`.
        """

    def add_batch(self, vectors: NDArray[np.uint8], *, ids: IdsLike | None = None) -> None:
        """Appends the rows of `vectors`: all of them, or none where something is wrong.

        `ids` has one new id for each row; without it, rows are numbered on from the largest id.
        """

    def remove(self, ids: int | IdsLike) -> None:
        """Removes the row with an id, or the rows with several.

        All of them, or none where one is missing (`IdNotFoundError`).
        """

    def update(self, id: int, vector: NDArray[np.uint8]) -> None:
        """Replaces the vector of a row that is there. Raises `IdNotFoundError` where it is not."""

    def merge(self, other: HammingIndex) -> None:
        """Appends the rows of another index under their ids: all, or none.

        Raises `DuplicateIdError` for an id that both have, `DimensionMismatch`.
        """

    def select(
        self, where: WhereLike | None = None, *, exclude: ExcludeLike | None = None
    ) -> Selection:
        """Names rows that searches may find, once for any number of them: what `where=` takes."""

    def search(
        self,
        query: NDArray[np.uint8],
        k: int = 10,
        *,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows that differ from `query` in the fewest bits, best first.

        Args:
            query: A uint8 array of shape (bytes,).
            k: How many hits, at least 1. Fewer come back only where fewer rows match.
            where: The rows that may be found: ids, a bitmap, a mask, or what `select` made of one.
            exclude: Ids that are not to be found.
            radius: In how many bits a hit may differ.

        Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
        """

    def search_async(
        self,
        query: NDArray[np.uint8],
        k: int = 10,
        *,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search`, to be awaited."""

    def search_by_id(
        self,
        id: int,
        k: int = 10,
        *,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The `k` rows nearest to the row with an id, which is itself left out.

        Raises `IdNotFoundError`, and what `search` raises.
        """

    def search_by_id_async(
        self,
        id: int,
        k: int = 10,
        *,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, Hits]:
        """`search_by_id`, to be awaited."""

    def search_batch(
        self,
        queries: NDArray[np.uint8],
        k: int = 10,
        *,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
        progress: Progress = False,
    ) -> HitsBatch:
        """`search` for each row of `queries`, a uint8 array of shape (m, bytes), on all cores."""

    def search_batch_async(
        self,
        queries: NDArray[np.uint8],
        k: int = 10,
        *,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> _Coroutine[Any, Any, HitsBatch]:
        """`search_batch`, to be awaited. A cancelled await stops the work."""

    @property
    def dim(self) -> int:
        """How many bits a vector has."""

    @property
    def memory_bytes(self) -> int:
        """Bytes on the heap, spare room included. What lies in a mapped file does not count."""

    @property
    def ids(self) -> NDArray[np.uint64]:
        """The ids in the order of the rows: a new array of shape (n,)."""

    def __len__(self) -> int: ...
    def __contains__(self, id: object, /) -> bool: ...
    def __getitem__(self, id: int, /) -> NDArray[np.uint8]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...
    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file; a file of that name is replaced, all at once.

        The same index gives the same bytes. Raises `PersistError`.
        """

    @staticmethod
    def load(path: str | os.PathLike[str], mmap: bool = False) -> HammingIndex:
        """Reads an index from a file that `save` wrote.

        The whole file is read and verified. With `mmap=True` it is mapped instead, and verified
        when it is first used; for files that nobody shortens meanwhile.

        Raises `IndexFileNotFoundError`, `CorruptFileError`, `NewerFileError`; `PersistError` where
        the file holds an index of another class.
        """

    @staticmethod
    def _from_bytes(bytes: NDArray[np.uint8]) -> HammingIndex: ...

@final
class Record:
    """One version of a record: made by reads, searches and histories.

    What it holds is decoded when it is asked for, and is a new object each time.
    """

    @property
    def namespace(self) -> str:
        """The namespace."""

    @property
    def key(self) -> str:
        """The key."""

    @property
    def value(self) -> Any:
        """The value; `None` where the version is a deletion."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata; an empty dict where none was given."""

    @property
    def text(self) -> str | None:
        """The text that full-text search looks at."""

    @property
    def vector(self) -> NDArray[np.float32] | None:
        """The vector that has no name."""

    @property
    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """The vectors by name; the one without has the empty name."""

    @property
    def version(self) -> int:
        """The number of the commit that wrote this version."""

    @property
    def timestamp(self) -> dt.datetime:
        """When that was, in UTC, exact to the microsecond. No two commits share one."""

    @property
    def previous(self) -> int | None:
        """The version before this one; `None` for the first."""

    @property
    def hash(self) -> str | None:
        """The BLAKE3 hash of the value in hexadecimal: the same for the same value.

        `None` for a deletion.
        """

    @property
    def expires_at(self) -> dt.datetime | None:
        """When the record runs out, in UTC."""

    @property
    def deleted(self) -> bool:
        """Whether this version is a deletion, also one by expiry."""

    @property
    def expired(self) -> bool:
        """Whether the record was deleted because it ran out."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Request(Generic[_T]):
    """Something that a store is asked: `await` it, or call `wait`. Once."""

    def __await__(self) -> Generator[Any, Any, _T]: ...
    def wait(self) -> _T:
        """Waits for the answer; Ctrl-C ends the wait and the work."""

    def __class_getitem__(cls, item: Any, /) -> Any: ...

@final
class Write:
    """A write that is held back: its value is encoded already."""

    @staticmethod
    def put(
        namespace: str,
        key: str,
        value: object,
        ttl: float | dt.timedelta | None = None,
        metadata: dict[str, Any] | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        vectors: dict[str, VectorLike] | None = None,
    ) -> Write:
        """The write of a value."""

    @staticmethod
    def delete(namespace: str, key: str) -> Write:
        """The write of a deletion."""

    @property
    def deletes(self) -> bool:
        """Whether it is a deletion."""

    @property
    def value(self) -> Any:
        """The value, decoded again; `None` for a deletion."""

@final
class Hold:
    """A point in history that retention leaves alone, as long as this lives."""

@final
class Store:
    """The store below a database."""

    @staticmethod
    def open(options: dict[str, Any]) -> Request[Store]:
        """Opens a store."""

    def close(self) -> Request[None]:
        """Ends all work."""

    @property
    def path(self) -> Any:
        """The folder."""

    @property
    def busy(self) -> bool:
        """Whether there are queued writes, or one of them failed."""

    def hot(self, namespace: str, key: str, missing: object) -> Any:
        """The value of a record that is in memory, and `missing` for all others."""

    def get(
        self,
        namespace: str,
        key: str,
        missing: object,
        as_of: AsOf | None = None,
        naive: bool = False,
    ) -> Any:
        """The value of a record, or `missing`."""

    def record(self, namespace: str, key: str, as_of: AsOf | None = None) -> Record | None:
        """A record."""

    def history(
        self,
        namespace: str,
        key: str,
        limit: int | None = None,
        since: AsOf | None = None,
        until: AsOf | None = None,
    ) -> list[Record]:
        """The versions of a record, oldest first."""

    def resolve(self, as_of: AsOf | None = None) -> int | dt.datetime:
        """A point in history as a version, or, where it lies before all of them, a datetime."""

    def hold(self, as_of: AsOf) -> Hold:
        """Keeps a point in history from retention, as long as what this gives lives."""

    def version_at(self, as_of: AsOf | None = None) -> int:
        """The newest commit that a point in history includes."""

    def head(self) -> tuple[int, dt.datetime]:
        """The newest commit: number and time."""

    def not_found(self, namespace: str, key: str) -> KeyNotFoundError:
        """The error for a record that is not there; it names keys that are spelled alike."""

    def settle(self) -> Request[None]:
        """Waits for queued writes, and raises what went wrong with one."""

    def settle_here(self) -> None:
        """`settle`, in the calling thread."""

    def queue(self, write: Write) -> None:
        """Hands a write to the writer; whoever calls next hears what became of it."""

    def put(
        self,
        namespace: str,
        key: str,
        value: object,
        ttl: float | dt.timedelta | None = None,
        metadata: dict[str, Any] | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        vectors: dict[str, VectorLike] | None = None,
        expect: Expect | None = None,
    ) -> Request[int]:
        """Writes a value; gives its version."""

    def delete(self, namespace: str, key: str, expect: Expect | None = None) -> Request[int]:
        """Deletes a record; gives how many that were."""

    def embed(
        self,
        namespace: str,
        key: str,
        value: object,
        vector: VectorLike,
        model: str | None = None,
        ttl: float | dt.timedelta | None = None,
        metadata: dict[str, Any] | None = None,
        text: str | None = None,
        expect: Expect | None = None,
    ) -> Request[int]:
        """Writes a value with its vector, unless others are of another model; gives its version."""

    def embed_batch(
        self,
        namespace: str,
        keys: Iterable[str],
        values: Iterable[Any],
        vectors: MatrixLike,
        model: str | None = None,
        ttl: float | dt.timedelta | None = None,
        metadata: Iterable[Any] | None = None,
        texts: Iterable[str | None] | None = None,
    ) -> Request[int]:
        """`embed` of many, in one commit; gives its version."""

    def similar(
        self,
        namespace: str,
        query: VectorLike,
        top_k: int,
        threshold: float | None = None,
        filter: dict[str, Any] | str | None = None,
        as_of: AsOf | None = None,
        vector_name: str | None = None,
        recall: float | None = None,
    ) -> Request[list[tuple[Record, float, float]]]:
        """The records whose vectors are nearest, with score and distance."""

    def put_batch(
        self,
        rows: Iterable[tuple[Any, ...]] | Mapping[Any, Any],
        namespace: str | None = None,
    ) -> Request[int]:
        """Writes rows; gives the version."""

    def commit(
        self, writes: list[Write], conditions: list[tuple[str, str, Expect]]
    ) -> Request[tuple[int, int]]:
        """Writes what was held back, where the conditions hold; gives version and records."""

    @overload
    def scan(
        self,
        namespace: str,
        payloads: Literal[True],
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        as_of: AsOf | None = None,
    ) -> Request[list[Record]]: ...
    @overload
    def scan(
        self,
        namespace: str,
        payloads: Literal[False],
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        as_of: AsOf | None = None,
    ) -> Request[list[str]]: ...
    def namespaces(self) -> Request[list[str]]:
        """The namespaces that hold a record."""

    def set_tag(
        self, name: str, as_of: AsOf | None = None, replace: bool = False
    ) -> Request[tuple[str, int, dt.datetime]]:
        """Names a point in history: (name, version, time)."""

    def remove_tag(self, name: str) -> Request[bool]:
        """Removes a tag; whether it was there."""

    def tags(self) -> Request[list[tuple[str, int, dt.datetime]]]:
        """All tags: (name, version, time)."""

    def restore(
        self, as_of: AsOf, namespace: str | None = None, key: str | None = None
    ) -> Request[tuple[int, int]]:
        """Makes records what they were; gives version and number of records."""

    def changes(
        self, namespace: str | None, after: int, limit: int
    ) -> Request[tuple[list[_Change], int]]:
        """The changes after a commit, and the commit to go on after."""

    def when_after(self, after: int) -> Request[None]:
        """Waits for a commit after `after`, or for the store to close."""

    def wait_after(self, after: int, timeout: float | None = None) -> bool:
        """`when_after` in the calling thread; whether it came in time."""

    def query(
        self,
        namespace: str,
        filter: dict[str, Any] | str | None,
        sort: list[tuple[str, bool]],
        offset: int,
        limit: int | None = None,
        as_of: AsOf | None = None,
    ) -> Request[tuple[list[Record], int]]:
        """The records that match, and how many there are in all."""

    def aggregate(
        self,
        namespace: str,
        filter: dict[str, Any] | str | None,
        group_by: str | None,
        aggregates: list[tuple[str, str]],
        as_of: AsOf | None = None,
    ) -> Request[list[tuple[Any, int, list[Any]]]]:
        """Aggregates: (group, count, values)."""

    def text_search(
        self,
        namespace: str,
        query: str,
        limit: int,
        filter: dict[str, Any] | str | None = None,
        as_of: AsOf | None = None,
    ) -> Request[list[tuple[Record, float]]]:
        """The records whose text matches best: (record, score)."""

    def create_index(self, namespace: str, field: str) -> Request[tuple[str, str]]:
        """Declares an index over a field."""

    def drop_index(self, namespace: str, field: str) -> Request[bool]:
        """Forgets an index; whether it was there."""

    def indexes(self) -> Request[list[tuple[str, str]]]:
        """The declared indexes: (namespace, field)."""

    def stats(self) -> Request[dict[str, Any]]:
        """Sizes and counts, by name."""

    def issues(self) -> Request[list[str]]:
        """What is wrong although the store goes on working."""

    def check(self) -> Request[_Report]:
        """Reads and verifies everything: (problems, records, versions, commits)."""

    def backup(self, path: str | os.PathLike[str]) -> Request[None]:
        """Writes a copy into a folder."""

    def vacuum(self) -> Request[tuple[int, int, int]]:
        """Gives space back: (dropped, compressed, freed bytes)."""

    def export(
        self, path: str | os.PathLike[str], namespace: str | None = None, history: bool = False
    ) -> Request[int]:
        """Writes JSON lines; gives their number."""

    def load(self, path: str | os.PathLike[str]) -> Request[int]:
        """Reads JSON lines; gives the number of versions written."""

    @staticmethod
    def salvage(
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        encryption_key: bytes | None = None,
    ) -> Request[_Report]:
        """Copies what is whole: (problems, records, versions, commits)."""

@disjoint_base
class VectorBackend:
    """What limnion's own backends have in common. Fits `limnion.protocols.Backend`."""

    @property
    def name(self) -> str:
        """What the lake and its hits call it."""

    def list_collections(self) -> list[str]:
        """The names of the collections, in order."""

    def describe(self, collection: str) -> Description:
        """What a collection is now. Raises `UnknownCollection`."""

    def pull(self, collection: str) -> Pulled:
        """All rows of a collection, copied. Raises `UnknownCollection`."""

    def generation(self, collection: str) -> int | str:
        """The generation of a collection now. Raises `UnknownCollection`."""

@disjoint_base
class LocalBackend(VectorBackend):
    """Collections of vectors in memory, to be changed at any time from any thread.

    A lake over it finds each change with the next search, and works it into its index rather than
    building it anew.
    """

    def __new__(cls, name: str) -> Self: ...
    @overload
    def upsert(self, collection: str, ids: IdsLike, vectors: MatrixLike) -> None:
        """Puts rows into a collection: all of them, or none where something is wrong.

        The collection is made by that. Rows with new ids are added, those with known ids get
        another vector. `vectors` is a float32 array of shape (n, d); it is copied.

        In place of ids and vectors one table is taken: of pyarrow, polars, pandas, duckdb, or
        whatever has `__arrow_c_stream__`. `id_column` has integers, `vector_column` lists of one
        length, or of a fixed size, of float32, float64 or float16; neither has nulls.

        Raises `DimensionMismatch` for vectors of another length than those that are there,
        `DuplicateIdError`, `InvalidArgumentError` for NaN, infinity, nulls and a column that is
        missing, `InvalidTypeError`.
        """

    @overload
    def upsert(
        self,
        collection: str,
        ids: ArrowStream,
        vectors: None = None,
        *,
        id_column: str = "id",
        vector_column: str = "vector",
    ) -> None: ...
    def delete(self, collection: str, ids: int | IdsLike) -> int:
        """Removes the row with an id, or the rows with several, as far as they are there.

        Says how many were. Raises `UnknownCollection`.
        """

    def drop_collection(self, collection: str) -> bool:
        """Removes a collection, and says whether it was there."""

@disjoint_base
class FsBackend(VectorBackend):
    """The collections in the files of a folder.

    `docs.npy`, `docs.fvecs`, `docs.parquet` and `docs.rows` are collection `docs`, and so is a
    folder `docs` of Parquet files. In names of files, what is no letter of ASCII, no digit, no `-`,
    `_` or inner dot is `%XX` for each byte. Links are never followed. Ids of an array are its row
    numbers, or those in `docs.ids.npy`.

    Args:
        name: What the lake and its hits call it.
        path: The folder, which must be there.
        digest: Whether a change is told by a digest of all bytes, for which they are all read each
            time, rather than by size and time.
        id_column: The column of ids in Parquet files; row numbers where there is none.
        vector_column: The column of vectors there.
    """

    def __new__(
        cls,
        name: str,
        path: str | os.PathLike[str],
        *,
        digest: bool = False,
        id_column: str = "id",
        vector_column: str = "vector",
    ) -> Self: ...
    @property
    def path(self) -> Path:
        """The folder, without links."""

    @overload
    def upsert(self, collection: str, ids: IdsLike | Sequence[str], vectors: MatrixLike) -> None:
        """Puts rows into a collection: all of them, or none. On disk when it returns.

        It is written as `.rows`, whole; other processes may read and write it at the same time.
        A table is taken as `LocalBackend.upsert` takes it; its ids may be strings here.
        """

    @overload
    def upsert(
        self,
        collection: str,
        ids: ArrowStream,
        vectors: None = None,
        *,
        id_column: str = "id",
        vector_column: str = "vector",
    ) -> None: ...
    def delete(self, collection: str, ids: int | str | IdsLike | Sequence[str]) -> int:
        """Removes rows, as far as they are there, and says how many were."""

    def drop_collection(self, collection: str) -> bool:
        """Removes a collection, and says whether it was there."""

@disjoint_base
class ObjectStoreBackend(VectorBackend):
    """The collections in a folder of an object store.

    `s3://bucket/folder`, `gs://bucket/folder`, `az://container@account/folder`,
    `https://host/folder/docs.parquet`, `file:///folder`; the files are those of `FsBackend`.
    All but `file://` take `pip install "limnion[clouds]"`. Nothing is asked of the network before
    the first call, nor ever of another address.

    Args:
        name: What the lake and its hits call it.
        url: The address.
        from_env: Whether environment variables (`AWS_...`, `GOOGLE_...`, `AZURE_...`) are read.
        from_machine: Whether the cloud's machine may be asked for credentials.
        attempts: How often a request is tried; 4 times without.
        silence: Seconds for which a server may send nothing; 20 without.
        id_column: The column of ids in Parquet files; row numbers where there is none.
        vector_column: The column of vectors there.
        settings: As the store knows them: `endpoint`, `region`, `access_key_id`,
            `secret_access_key`, `allow_http` ...
    """

    def __new__(
        cls,
        name: str,
        url: str,
        *,
        from_env: bool = False,
        from_machine: bool = False,
        attempts: int | None = None,
        silence: float | dt.timedelta | None = None,
        id_column: str = "id",
        vector_column: str = "vector",
        **settings: str | int,
    ) -> Self: ...
    @overload
    def put_rows(self, collection: str, ids: IdsLike | Sequence[str], vectors: MatrixLike) -> None:
        """Puts a collection there, in place of the one of that name.

        Whoever reads it sees the one or the other. A table is taken as `LocalBackend.upsert` takes
        it.
        """

    @overload
    def put_rows(
        self,
        collection: str,
        ids: ArrowStream,
        vectors: None = None,
        *,
        id_column: str = "id",
        vector_column: str = "vector",
    ) -> None: ...
    def drop_collection(self, collection: str) -> bool:
        """Removes a collection, and says whether it was there."""

class StoreBackend(VectorBackend):
    """The vectors of a database, by the keys of their records.

    A namespace is a collection, of the vectors without a name; `namespace/name` is the collection
    of those of a name. Whatever is put into the database is found by the next search, and filters
    are those of the database.
    """

    def __new__(cls, database: Database | SyncDatabase, name: str = "store") -> Self: ...

@final
class ObjectShelf:
    """A folder of an object store, in which bundles and saved indexes are kept.

    Wherever a lake takes a folder for those, it takes one of these, or a string such as
    `"s3://bucket/folder"`, which is `ObjectShelf("s3://bucket/folder", from_env=True)`. All but
    `file://` take `pip install "limnion[clouds]"`.

    Args:
        url: The address, as for `ObjectStoreBackend`.
        from_env: Whether environment variables (`AWS_...`, `GOOGLE_...`, `AZURE_...`) are read.
        from_machine: Whether the cloud's machine may be asked for credentials.
        attempts: How often a request is tried; 4 times without.
        silence: Seconds for which a server may send nothing; 20 without.
        settings: As the store knows them: `endpoint`, `region`, `access_key_id` ...
    """

    def __new__(
        cls,
        url: str,
        *,
        from_env: bool = False,
        from_machine: bool = False,
        attempts: int | None = None,
        silence: float | dt.timedelta | None = None,
        **settings: str | int,
    ) -> Self: ...
    @property
    def url(self) -> str:
        """The address."""

@disjoint_base
class Lake:
    """The native side of `limnion.Lake`."""

    def __new__(
        cls,
        *,
        consistency: Consistency,
        ttl: float | dt.timedelta | None,
        metric: Metric,
        bits: int,
        originals: Originals | None,
        rerank_factor: int | None,
        rotation_seed: int,
        max_cache_entries: int | None,
        max_cache_bytes: int | None,
    ) -> Self: ...
    def register_backend(
        self,
        backend: Backend | AsyncBackend,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Adds a backend under its name, which must be new.

        Args:
            backend: One of limnion's, or an object of a class that fits `limnion.protocols.Backend`
                or `AsyncBackend`.
            loop: Where the coroutines of an `AsyncBackend` run; each in a loop of its own without.
        """

    def unregister_backend(self, name: str) -> None:
        """Removes a backend, and the indexes of its collections. Raises `UnknownCollection`."""

    @property
    def backends(self) -> dict[str, Backend | AsyncBackend]:
        """The backends by name: a new dict."""

    def search_one(
        self,
        collection: str,
        query: VectorLike,
        k: int = 10,
        *,
        backend: str | None = None,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> LakeHits:
        """The `k` rows of a collection that are nearest to `query`, best first.

        Fewer come back only where fewer rows match. The first search of a collection builds its
        index, once however many wait for that.

        Args:
            collection: Its name.
            query: A float32 array of shape (d,).
            k: How many hits, at least 1.
            backend: Which backend's; may be left out where only one has such a collection.
            where: The rows that may be found: their ids, or a filter that the backend evaluates. It
                is applied inside the scan, so that no match is missed.
            recall: The share of the true neighbours to find, above 0 and at most 1; 1.0 is exact.
            rerank_factor: Look closely at exactly `k * rerank_factor` rows instead.
            timeout: Seconds or a timedelta after which `DeadlineExceeded` is raised. What is being
                built goes on, for those who search later.
            cached_only: Raise `CacheMissError` rather than build an index.

        Cost: that of the index, where it is at hand and fresh. Ctrl-C ends a wait.

        Raises `UnknownCollection`, `BackendError` with what the backend raised as its cause,
        `DeadlineExceeded`, `CacheMissError`, and what a search of an index raises.
        """

    def search_one_async(
        self,
        collection: str,
        query: VectorLike,
        k: int = 10,
        *,
        backend: str | None = None,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> _Coroutine[Any, Any, LakeHits]:
        """`search_one`, to be awaited: on asyncio, uvloop, and whatever has their interface.

        The query is copied at once; the search begins with the first await. No thread is held by
        who waits for an index. A small index answers without a hop to another thread.
        """

    def search_batch(
        self,
        collection: str,
        queries: MatrixLike,
        k: int = 10,
        *,
        backend: str | None = None,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> LakeHitsBatch:
        """`search_one` for each row of `queries`, a float32 array of shape (m, d).

        Runs on all cores, with several queries a pass over the codes.
        """

    def search_batch_async(
        self,
        collection: str,
        queries: MatrixLike,
        k: int = 10,
        *,
        backend: str | None = None,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> _Coroutine[Any, Any, LakeHitsBatch]:
        """`search_batch`, to be awaited. A cancelled await stops the work."""

    def search_federated(
        self,
        collection: str,
        query: VectorLike,
        k: int = 10,
        *,
        backends: Iterable[str] | None = None,
        on_error: Literal["raise", "partial"] = "raise",
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> LakeHits:
        """The nearest rows of the collections of one name in several backends, best first.

        All are asked at the same time, under one timeout. An id that several have at the same
        distance (to three digits) is a replica and counts once; at different distances it is taken
        for different rows. `report` of the hits says how each has done.

        Args:
            collection: Its name.
            query: A float32 array of shape (d,).
            k: How many hits, at least 1.
            backends: The names of those to ask; all that have such a collection without.
            on_error: What becomes of it where a part does not answer: `"raise"` raises the error of
                the first, `"partial"` gives what the others have found, unless all fail.
            where: As in `search_one`.
            recall: As in `search_one`.
            rerank_factor: As in `search_one`.
            timeout: As in `search_one`; those who are late count as failed.
            cached_only: As in `search_one`.
        """

    def search_federated_async(
        self,
        collection: str,
        query: VectorLike,
        k: int = 10,
        *,
        backends: Iterable[str] | None = None,
        on_error: Literal["raise", "partial"] = "raise",
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> _Coroutine[Any, Any, LakeHits]:
        """`search_federated`, to be awaited."""

    def search_hybrid(
        self,
        collection: str,
        query: VectorLike,
        text: str,
        k: int = 10,
        *,
        backend: str | None = None,
        fusion: Fusion = "rrf",
        weight: float = 0.5,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> LakeHits:
        """The best rows of a collection by a vector and a text together, best first.

        The index finds what is near `query`, the backend whose text fits `text`; of each the best
        4 k are looked at, 60 at least, and a row that only one of them has counts too. It takes a
        backend with text: `StoreBackend`, or a class of yours with a method `text_search`.

        The `score` of a hit is the fused one; its `distance` is that of its vector, whichever half
        found it. Hits are rows of the index, in one generation: a row that was written after that
        is found by the next fresh search.

        Args:
            collection: Its name.
            query: A float32 array of shape (d,).
            text: What the backend's full text is searched for.
            k: How many hits, at least 1.
            backend: As in `search_one`.
            fusion: `"rrf"` adds ranks: 2 weight / (60 + rank of the vector) + 2 (1 - weight) /
                (60 + rank of the text), ranks from 1 on; at 0.5 that is reciprocal rank fusion as
                published (Cormack, Clarke and Büttcher, 2009). `"weighted"` adds scores, each
                half's stretched to [0, 1] over the rows that either has found; a row that the text
                did not find has the text's lowest score, or 0 if that is lower.
            weight: How much the vector counts, from 0 to 1; the text counts for the rest.
            where: As in `search_one`, for both halves.
            recall: As in `search_one`.
            rerank_factor: As in `search_one`, for each row that is looked at.
            timeout: As in `search_one`.
            cached_only: As in `search_one`.

        Ties go to the lower id. Cost: a search of the index for 4 k rows, and the text search.

        Raises what `search_one` raises, and `InvalidArgumentError` where the backend has no text.
        """

    def search_hybrid_async(
        self,
        collection: str,
        query: VectorLike,
        text: str,
        k: int = 10,
        *,
        backend: str | None = None,
        fusion: Fusion = "rrf",
        weight: float = 0.5,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,
        cached_only: bool = False,
    ) -> _Coroutine[Any, Any, LakeHits]:
        """`search_hybrid`, to be awaited."""

    def publish_bundle(
        self,
        collection: str,
        out_dir: str | os.PathLike[str] | ObjectShelf,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
        pii_policy: str | None = None,
        lineage_id: str | None = None,
        memory_class: str | None = None,
    ) -> str:
        """Publishes the index of a collection for others to take, and gives its witness.

        The index is made ready first, as for a search. Who reads the folder meanwhile finds the
        bundle before or the new one; one folder is for one bundle.

        Args:
            collection: Its name.
            out_dir: A folder, which is made where it is not there, the address of one in an object
                store (`"s3://bucket/docs"`), or an `ObjectShelf`.
            backend: Which backend's; may be left out where only one has such a collection.
            timeout: Seconds or a timedelta to wait for the index.
            pii_policy: Your word on personal data in it, for those who read the manifest.
            lineage_id: Your word on where it comes from.
            memory_class: Your word on what kind of memory it is.

        Cost: a digest of all rows, and writing the index once. Raises what `prime` raises, and
        `LakeError` where the folder cannot be written.
        """

    def publish_bundle_async(
        self,
        collection: str,
        out_dir: str | os.PathLike[str] | ObjectShelf,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
        pii_policy: str | None = None,
        lineage_id: str | None = None,
        memory_class: str | None = None,
    ) -> _Coroutine[Any, Any, str]:
        """`publish_bundle`, to be awaited."""

    def take_bundle(
        self,
        collection: str,
        dir: str | os.PathLike[str] | ObjectShelf,
        *,
        backend: str | None = None,
        verify: bool = True,
    ) -> LakeBundle:
        """Takes a published index for a collection, instead of building one.

        So one machine builds and many read: they take what it has published. From then on the index
        is looked after as if it had been built here: where the backend has moved on, it is brought
        up to date, and no answer is staler than `Consistency` allows. `refresh_from_bundle_dir`
        says whether something newer has been published.

        Args:
            collection: Its name here. It has to be the same data: its backend tells of the same
                place as the publisher's did.
            dir: Where it was published.
            backend: Which backend's; may be left out where only one has such a collection.
            verify: Whether all of it is read and compared with its witness now. Without that, the
                file is mapped, and its checksums are looked at when it is first searched; one that
                turns out damaged then is built from the backend.

        Raises `CacheMissError` where there is no bundle, `WitnessMismatch` where it is not whole or
        is of other data, `InvalidArgumentError` where it was built with other settings than the
        lake has, `LakeError`, `BackendError`.
        """

    def take_bundle_async(
        self,
        collection: str,
        dir: str | os.PathLike[str] | ObjectShelf,
        *,
        backend: str | None = None,
        verify: bool = True,
    ) -> _Coroutine[Any, Any, LakeBundle]:
        """`take_bundle`, to be awaited."""

    def refresh_from_bundle_dir(
        self, key: tuple[str, str], dir: str | os.PathLike[str] | ObjectShelf
    ) -> RefreshResult:
        """Compares the index in memory with a published one, and forgets it where they differ.

        No backend is asked. After `INVALIDATED`, `take_bundle` takes the new one, or the next
        search builds it.

        Args:
            key: (backend, collection).
            dir: Where bundles of it are published.

        Cost: a digest of all rows in memory. Raises `UnknownCollection` where there is no such
        backend, `WitnessMismatch` where the bundle is damaged or of other data, `LakeError`.
        """

    def refresh_from_bundle_dir_async(
        self, key: tuple[str, str], dir: str | os.PathLike[str] | ObjectShelf
    ) -> _Coroutine[Any, Any, RefreshResult]:
        """`refresh_from_bundle_dir`, to be awaited."""

    def save_cache(self, dir: str | os.PathLike[str] | ObjectShelf) -> list[tuple[str, str]]:
        """Writes all indexes in memory to a folder, for `load_cache` in another process.

        Gives the (backend, collection) of each. What is there of other collections stays. The
        folder is a cache: deleting it costs the time of a build, and no data.

        Indexes of what lies in memory (`LocalBackend`, and classes of your own that tell no
        `Description.source`) are of no use to another process, which has not that memory.

        Cost: a digest of all rows, and writing them. Raises `LakeError` where the folder cannot be
        written.
        """

    def save_cache_async(
        self, dir: str | os.PathLike[str] | ObjectShelf
    ) -> _Coroutine[Any, Any, list[tuple[str, str]]]:
        """`save_cache`, to be awaited."""

    def load_cache(self, dir: str | os.PathLike[str] | ObjectShelf) -> LoadedCache:
        """Has at hand what `save_cache` wrote: milliseconds, however much it is.

        Index files are mapped, and read when they are first searched. That is also when the backend
        is asked whether they are current, as for any index: what has changed since is worked in, or
        built anew. What turns out damaged, of other data, or built with other settings then is
        built anew, too: an answer never comes from it. Files that cannot be used at all are left
        out, and told of.

        Register the backends first. An index that is in memory already stays as it is. limnion
        replaces files by renaming; nobody else may shorten them while they are mapped.

        Raises `LakeError` where the folder cannot be read. One that is not there is empty.
        """

    def load_cache_async(
        self, dir: str | os.PathLike[str] | ObjectShelf
    ) -> _Coroutine[Any, Any, LoadedCache]:
        """`load_cache`, to be awaited."""

    def prime(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> CollectionStats:
        """Has the index of a collection at hand, fresh enough, so that searches need not wait."""

    def prime_async(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> _Coroutine[Any, Any, CollectionStats]:
        """`prime`, to be awaited."""

    def refresh(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> CollectionStats:
        """Asks the backend now, whatever the consistency says, and brings the index up to date."""

    def refresh_async(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> _Coroutine[Any, Any, CollectionStats]:
        """`refresh`, to be awaited."""

    def invalidate(self, collection: str, *, backend: str | None = None) -> bool:
        """Forgets the index of a collection, and says whether there was one.

        The next search builds it anew.
        """

    def invalidate_async(
        self, collection: str, *, backend: str | None = None
    ) -> _Coroutine[Any, Any, bool]:
        """`invalidate`, to be awaited."""

    def index(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> _Index:
        """The index of a collection, made ready where it is not.

        It shares its memory with the lake until one of the two changes. Where the ids of the
        collection are strings, those of the index are other numbers. Raises `EmptyIndex` where
        there are no rows.
        """

    def index_async(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> _Coroutine[Any, Any, _Index]:
        """`index`, to be awaited."""

    def pin(self, collection: str, *, backend: str | None = None) -> None:
        """Keeps the index of a collection in memory whatever room others need.

        Where there is none yet, it is kept once it is built.
        """

    def unpin(self, collection: str, *, backend: str | None = None) -> None:
        """Takes a pin back."""

    def set_consistency(
        self,
        collection: str,
        consistency: Consistency | None,
        *,
        ttl: float | dt.timedelta | None = None,
        backend: str | None = None,
    ) -> None:
        """Sets how fresh the answers of one collection have to be.

        `None` is for as fresh as those of the lake.
        """

    def __contains__(self, what: VectorIndex | tuple[str, str] | str, /) -> bool: ...
    def _stats(self) -> tuple[int, int, int, list[dict[str, Any]]]: ...
    def _consistency(self) -> tuple[Consistency, float | None]: ...
    def _find(self, collection: str, backend: str | None = None) -> tuple[str, str]: ...
    def _find_async(
        self, collection: str, backend: str | None = None
    ) -> _Coroutine[Any, Any, tuple[str, str]]: ...
    def _find_all(
        self, collection: str, backends: Iterable[str] | None = None
    ) -> list[tuple[str, str]]: ...
    def _find_all_async(
        self, collection: str, backends: Iterable[str] | None = None
    ) -> _Coroutine[Any, Any, list[tuple[str, str]]]: ...
    def _hold(self, key: tuple[str, str], held: bool) -> None: ...

@final
class LakeHits(Sequence[LakeHit]):
    """The hits of one search in a lake, best first. Made by searches."""

    @property
    def ids(self) -> NDArray[np.uint64] | list[int | str]:
        """The ids, best first: a new array of shape (k,), or a list where some are strings."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores, highest first: a new array of shape (k,)."""

    @property
    def distances(self) -> NDArray[np.float32]:
        """The metric's own numbers, lowest first: a new array of shape (k,)."""

    @property
    def report(self) -> dict[str, BackendReport]:
        """How each backend has done in a federated search, by name; else empty."""

    def to_list(self) -> list[LakeHit]:
        """The hits as a list."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> LakeHit: ...
    @overload
    def __getitem__(self, index: slice, /) -> LakeHits: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[LakeHit]: ...
    def __reversed__(self) -> Iterator[LakeHit]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def count(self, value: object) -> int:
        """How often `value` comes."""

    def index(self, value: object, start: int = 0, stop: int = ...) -> int:
        """Where `value` comes first; `ValueError` where it does not."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...
    def _repr_html_(self) -> str: ...
    @classmethod
    def _from_parts(cls, hits: list[Any], report: list[Any]) -> Self: ...

@final
class LakeHitsBatch(Sequence[LakeHits]):
    """The hits of several searches in a lake: one `LakeHits` for each query. Made by searches."""

    @property
    def ids(self) -> NDArray[np.uint64] | list[list[int | str]]:
        """The ids: a new array of shape (m, k); lists where some are strings."""

    @property
    def scores(self) -> NDArray[np.float32]:
        """The scores: a new array of shape (m, k)."""

    @property
    def distances(self) -> NDArray[np.float32]:
        """The metric's own numbers: a new array of shape (m, k)."""

    def to_list(self) -> list[LakeHits]:
        """The hits of each query, as a list."""

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> LakeHits: ...
    @overload
    def __getitem__(self, index: slice, /) -> LakeHitsBatch: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[LakeHits]: ...
    def __reversed__(self) -> Iterator[LakeHits]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def count(self, value: object) -> int:
        """How often `value` comes."""

    def index(self, value: object, start: int = 0, stop: int = ...) -> int:
        """Where `value` comes first; `ValueError` where it does not."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def __reduce__(self) -> tuple[Any, ...]: ...
    @classmethod
    def _from_list(cls, batch: list[LakeHits]) -> Self: ...
