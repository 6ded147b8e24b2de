"""Shapes that limnion's parts ask of each other, and of you: no base class is needed to fit one.

>>> import limnion, numpy as np
>>> index = limnion.RabitqIndex.build(np.eye(64, dtype=np.float32))
>>> isinstance(index, limnion.AnyIndex)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from limnion._native import Hits, HitsBatch
    from limnion.types import IdsLike, MatrixLike, Metric, VectorLike, WhereLike

__all__ = ["AnyIndex"]


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
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
    ) -> Hits:
        """The rows nearest to a query, best first."""
        ...

    def search_batch(
        self,
        queries: MatrixLike,
        k: int = 10,
        *,
        recall: float | None = None,
        rerank_factor: int | None = None,
        where: WhereLike | None = None,
    ) -> HitsBatch:
        """The rows nearest to each of several queries."""
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file."""
        ...
