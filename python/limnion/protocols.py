"""Shapes that limnion's parts ask of each other, and of you: no base class is needed to fit one.

>>> import limnion, numpy as np
>>> index = limnion.RabitqIndex.build(np.eye(64, dtype=np.float32))
>>> isinstance(index, limnion.AnyIndex)
True
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from limnion._native import Hits, HitsBatch
    from limnion.types import (
        ExcludeLike,
        IdsLike,
        MatrixLike,
        Metric,
        VectorLike,
        WhereLike,
    )

__all__ = ["AnyIndex", "AsyncBackend", "Backend", "Changes", "Description", "Pulled"]


@runtime_checkable
class AnyIndex(Protocol):
    """What every index can do, whatever it keeps.

    The methods mean what they mean for `limnion.RabitqPlusIndex`.
    """

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""
        ...

    @property
    def metric(self) -> Metric:
        """How near two vectors are."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes on the heap."""
        ...

    @property
    def ids(self) -> NDArray[np.uint64]:
        """The ids in the order of the rows."""
        ...

    def __len__(self) -> int:
        """How many rows."""
        ...

    def __contains__(self, id: object, /) -> bool:
        """Whether there is a row with this id."""
        ...

    def add(self, id: int, vector: VectorLike) -> None:
        """Appends one vector under a new id."""
        ...

    def add_batch(self, vectors: MatrixLike, *, ids: IdsLike | None = None) -> None:
        """Appends the rows of a matrix."""
        ...

    def remove(self, ids: int | IdsLike) -> None:
        """Removes rows."""
        ...

    def update(self, id: int, vector: VectorLike) -> None:
        """Replaces the vector of a row."""
        ...

    def search(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The rows nearest to a query, best first."""
        ...

    def search_by_id(
        self,
        id: int,
        k: int = 10,
        *,
        recall: float | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Hits:
        """The rows nearest to a row, which is itself left out."""
        ...

    def search_batch(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> HitsBatch:
        """The rows nearest to each of several queries."""
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """What a collection of a backend is at some moment."""

    dim: int
    """Numbers a vector; 0 where there are no rows to tell."""

    count: int
    """How many rows; a guess where the backend cannot say."""

    generation: int | str
    """Which state of the collection this is: another one after every change."""

    metric: Metric | None = None
    """How near two vectors are, where the backend has an opinion; the lake's own without."""

    source: str | None = None
    """Where the data lies: the same text for everybody who means the same data, in other processes
    and on other machines too, such as `"postgres://host/db/table"`. With it, saved indexes and
    bundles can be taken there; without it, an index is for this backend object alone."""


class Pulled(NamedTuple):
    """Rows of a collection, and the generation that they belong to."""

    ids: IdsLike | Sequence[str]
    """One id a row: all integers or all strings, and none twice in a collection."""

    vectors: MatrixLike
    """A C-contiguous float32 array of shape (n, d)."""

    generation: int | str
    """Which state of the collection the rows are from."""


class Changes(NamedTuple):
    """From one generation of a collection to another."""

    generation: int | str
    """The generation after them."""

    ids: IdsLike | Sequence[str]
    """Rows that are new, or have another vector ..."""

    vectors: MatrixLike
    """... and their vectors."""

    removed: IdsLike | Sequence[str]
    """Rows that are gone. None of them is among `ids`."""


@runtime_checkable
class Backend(Protocol):
    """Where vectors live, as a lake asks for them: any class with these members is one.

    The lake calls the methods in threads that are begun for it, several at a time. What they raise
    reaches the caller as the cause of a `BackendError`; `UnknownCollection` stays what it is.

    These may be there besides, and are used where they are:

    - `generation(collection) -> int | str`: for the current generation, where that is less work
      than `describe`;
    - `changes(collection, since) -> Changes | None`: what has changed since a generation, so that
      an index need not be built anew; `None` where that cannot be told;
    - `select(collection, filter) -> tuple[ids, generation] | None`: the rows that match a filter,
      given as a dict, and the generation that they belong to; without it, `where=` takes ids only;
    - `text_search(collection, query, k) -> list[tuple[id, score]] | None`: the `k` rows whose text
      fits a query best, with scores of which higher is better; for `Lake.search_hybrid`.

    >>> import limnion, numpy as np
    >>> from limnion.protocols import Backend, Description, Pulled
    >>> class Constant:
    ...     name = "constant"
    ...     rows = np.eye(4, dtype=np.float32)
    ...     def list_collections(self):
    ...         return ["unit"]
    ...     def describe(self, collection):
    ...         return Description(dim=4, count=4, generation=1)
    ...     def pull(self, collection):
    ...         return Pulled(ids=range(4), vectors=self.rows, generation=1)
    >>> isinstance(Constant(), Backend)
    True
    >>> lake = limnion.Lake(backends=[Constant()])
    >>> lake.search_one("unit", [0, 0, 1, 0], k=1)[0].id
    2
    """

    @property
    def name(self) -> str:
        """What the lake and its hits call it. It never changes."""
        ...

    def list_collections(self) -> Iterable[str]:
        """The names of the collections."""
        ...

    def describe(self, collection: str) -> Description:
        """What a collection is now."""
        ...

    def pull(self, collection: str) -> Pulled | Iterable[Pulled]:
        """All rows as they are in one generation, at once or piece by piece.

        Pieces of two generations never make an index: where they differ, the lake pulls anew.
        """
        ...


@runtime_checkable
class AsyncBackend(Protocol):
    """`Backend` with coroutines for methods; `pull` may be an async generator, too.

    Each call runs in an event loop of its own, begun for it. Where what the backend holds belongs
    to one loop, as connections do, pass that: `register_backend(backend, loop=loop)`. It must be
    running in another thread than the one that waits for the lake; `search_one_async` and its
    likes wait for nothing, and may be awaited on the same loop.

    At run time it is told from `Backend` by what its methods return.
    """

    @property
    def name(self) -> str:
        """What the lake and its hits call it. It never changes."""
        ...

    async def list_collections(self) -> Iterable[str]:
        """The names of the collections."""
        ...

    async def describe(self, collection: str) -> Description:
        """What a collection is now."""
        ...

    def pull(self, collection: str) -> Awaitable[Pulled | Iterable[Pulled]] | AsyncIterator[Pulled]:
        """All rows as they are in one generation, at once or piece by piece."""
        ...
