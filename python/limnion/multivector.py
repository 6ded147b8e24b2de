"""Documents of several vectors each, found by late interaction.

Models such as ColBERT and ColPali make a vector of each token or patch. How well a document answers
a query is then a sum, over the vectors of the query, of the best inner product with one of the
document's (MaxSim). `MultiVectorIndex` finds the best documents in two steps: the vectors nearest
to those of the query say which documents to look at, and those are measured exactly.

>>> import limnion, numpy as np
>>> rng = np.random.default_rng(3)
>>> documents = [rng.standard_normal((length, 64), dtype=np.float32) for length in (7, 30, 12)]
>>> index = limnion.MultiVectorIndex.build(documents, ids=[10, 20, 30], metric="cosine")
>>> hits = index.search(documents[1][:5], k=2)
>>> hits[0].id, round(hits[0].score, 4)
(20, 5.0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import numpy as np

from limnion.errors import (
    DimensionMismatch,
    DuplicateIdError,
    IdNotFoundError,
    InvalidArgumentError,
    InvalidTypeError,
    PersistError,
)
from limnion.indexes import FlatF32Index, IvfIndex, RabitqAsymIndex, RabitqPlusIndex

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from typing import Any, Literal, Self

    from numpy.typing import NDArray

    from limnion._native import Hits, HitsBatch
    from limnion.types import IdsLike, MatrixLike, Originals, Progress

__all__ = ["MultiVectorIndex"]

# The id of a vector: that of its document, and its place there. `limnion-index/src/late.rs` knows.
_PLACE_BITS: Final = 16
_MOST_VECTORS: Final = 1 << _PLACE_BITS
_MOST_DOCUMENTS: Final = 1 << (64 - _PLACE_BITS)

# So many vectors are searched faster in lists than one by one.
_MANY_VECTORS: Final = 50_000
# How many documents are measured: so many, or so many for each hit.
_CANDIDATES: Final = 512
_CANDIDATES_PER_HIT: Final = 16
# Vectors that each vector of a query looks for, for each document that is to be measured.
_DEPTH: Final = 2

_CLASSES: Final = (RabitqPlusIndex, IvfIndex, RabitqAsymIndex, FlatF32Index)

_Tokens: TypeAlias = FlatF32Index | RabitqAsymIndex | RabitqPlusIndex | IvfIndex


class MultiVectorIndex:
    """Documents of several vectors each, searched by queries of several vectors.

    The vectors lie in an index of one of the other classes, `tokens`, where they have the ids
    `document << 16 | place`. Each change is one change of that index, so that a search sees a
    document whole or not at all.
    """

    __slots__ = ("_tokens",)

    def __init__(self, tokens: _Tokens) -> None:
        """Takes an index whose rows are the vectors of documents.

        Args:
            tokens: An index that keeps originals, under inner product or cosine, whose ids are
                `document << 16 | place`, with places from 0 on.

        Raises:
            InvalidArgumentError: for an index under another metric, or without originals.
        """
        if tokens.metric == "l2":
            raise InvalidArgumentError("tokens must have the metric 'ip' or 'cosine', got 'l2'")
        if tokens.originals is None:
            raise InvalidArgumentError(
                "tokens must keep the vectors, got an index of codes alone",
                suggestion='build it with originals="f32" or "f16"',
            )
        self._tokens = tokens

    @classmethod
    def build(
        cls,
        documents: Sequence[MatrixLike],
        *,
        ids: IdsLike | None = None,
        metric: Literal["ip", "cosine"] = "ip",
        bits: int = 1,
        originals: Originals = "f32",
        seed: int = 42,
        progress: Progress = False,
    ) -> Self:
        """Builds an index of documents, each a C-contiguous float32 array of shape (n, d), n ≥ 1.

        Up to 50,000 vectors are put into a `RabitqPlusIndex`, more into an `IvfIndex`.

        Args:
            documents: The vectors of each document: at most 65,536. They are copied.
            ids: One id below 2**48 for each document; 0, 1, 2 ... without.
            metric: Whether scores are sums of inner products or of cosines.
            bits: Bits a dimension of the codes, 1 to 8.
            originals: How to keep the vectors.
            seed: Chooses the random rotation. The same data and seed give the same bytes.
            progress: `True` for a bar, or a callable of (done, total), in vectors.

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for a document without vectors, or with NaN or infinity.
            DimensionMismatch: for documents of different dimensions.
            DuplicateIdError: for an id that comes twice.
        """
        count = len(documents)
        if count == 0:
            raise InvalidArgumentError("documents must hold at least one document, got none")
        names = range(count) if ids is None else _ids("ids", ids)
        if len(names) != count:
            raise InvalidArgumentError(
                f"ids must be as many as the documents: {len(names)} ids, {count} documents"
            )
        if len(set(names)) < count:
            raise DuplicateIdError("ids must be different, got one twice")
        arrays = [_matrix(f"documents[{at}]", given) for at, given in enumerate(documents)]
        dims = {array.shape[1] for array in arrays}
        if len(dims) > 1:
            raise DimensionMismatch(f"documents must have one dimension, got {sorted(dims)}")
        vectors = np.concatenate(arrays)
        token_ids = np.concatenate(
            [_token_ids(name, len(array)) for name, array in zip(names, arrays, strict=True)]
        )
        kind = IvfIndex if len(vectors) > _MANY_VECTORS else RabitqPlusIndex
        tokens = kind.build(
            vectors,
            ids=token_ids,
            metric=metric,
            bits=bits,
            originals=originals,
            seed=seed,
            progress=progress,
        )
        return cls(tokens)

    @property
    def tokens(self) -> _Tokens:
        """The index that the vectors lie in."""
        return self._tokens

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""
        return self._tokens.dim

    @property
    def metric(self) -> Literal["ip", "cosine"]:
        """Whether scores are sums of inner products or of cosines."""
        return "ip" if self._tokens.metric == "ip" else "cosine"

    @property
    def memory_bytes(self) -> int:
        """Bytes on the heap. What lies in a mapped file does not count."""
        return self._tokens.memory_bytes

    @property
    def ids(self) -> NDArray[np.uint64]:
        """The ids of the documents: a new array of shape (n,). Cost: a look at all vectors."""
        tokens = self._tokens.ids
        place = np.uint64(_MOST_VECTORS - 1)
        documents: NDArray[np.uint64] = tokens[(tokens & place) == 0] >> np.uint64(_PLACE_BITS)
        return documents

    def __len__(self) -> int:
        """How many documents. Cost: a look at the ids of all vectors."""
        return len(self.ids)

    def __contains__(self, id: object, /) -> bool:
        """Whether there is a document with this id."""
        return isinstance(id, int | np.integer) and (int(id) << _PLACE_BITS) in self._tokens

    def __getitem__(self, id: int, /) -> NDArray[np.float32]:
        """The vectors of a document: a new array of shape (n, d)."""
        return self._tokens.vectors(self._token_ids_of(id))

    def __repr__(self) -> str:
        """What the vectors lie in."""
        return f"MultiVectorIndex({self._tokens!r})"

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same vectors in the same order."""
        if not isinstance(other, MultiVectorIndex):
            return NotImplemented
        return self._tokens == other._tokens

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Self], tuple[_Tokens]]:
        """Pickles with all vectors."""
        return type(self), (self._tokens,)

    def add(self, id: int, vectors: MatrixLike) -> None:
        """Adds a document under a new id. To replace one, remove it first.

        Raises `DuplicateIdError`, `DimensionMismatch`, and what `build` raises.
        """
        (name,) = _ids("id", [id])
        if id in self:
            raise DuplicateIdError(f"id {id} is in the index already", suggestion="remove it first")
        array = _matrix("vectors", vectors)
        self._tokens.add_batch(array, ids=_token_ids(name, len(array)))

    def remove(self, ids: int | IdsLike) -> None:
        """Removes the document with an id, or the documents with several: all of them, or none.

        Raises `IdNotFoundError`.
        """
        names = _ids("ids", [ids] if isinstance(ids, int | np.integer) else ids)
        if names:
            self._tokens.remove(np.concatenate([self._token_ids_of(name) for name in names]))

    def search(
        self,
        query: MatrixLike,
        k: int = 10,
        *,
        candidates: int | None = None,
        exact: bool = False,
        where: IdsLike | None = None,
        exclude: IdsLike | None = None,
    ) -> Hits:
        """The `k` documents with the highest scores, best first.

        A hit's `score` is the sum over the query's vectors of the best product with a vector of the
        document; its `distance` is that below zero.

        Args:
            query: A float32 array of shape (m, d).
            k: How many hits, at least 1.
            candidates: How many documents to measure exactly, those that look best by the vectors
                nearest to the query's. Without it the larger of 512 and 16 `k`.
            exact: Measure all documents.
            where: The documents that may be found. Where they are no more than `candidates`, all of
                them are measured.
            exclude: Documents that are not to be found.

        Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
        """
        asked = _Asked(self._tokens, k, candidates, exact=exact, where=where, exclude=exclude)
        chosen = asked.chosen()
        if chosen is None:
            chosen = asked.best_of(
                self._tokens.search_batch(query, asked.depth, where=asked.tokens_allowed())
            )
        return self._tokens._max_similar(query, chosen, k)[0]  # noqa: SLF001 - ours

    async def search_async(
        self,
        query: MatrixLike,
        k: int = 10,
        *,
        candidates: int | None = None,
        exact: bool = False,
        where: IdsLike | None = None,
        exclude: IdsLike | None = None,
    ) -> Hits:
        """`search`, to be awaited."""
        asked = _Asked(self._tokens, k, candidates, exact=exact, where=where, exclude=exclude)
        chosen = asked.chosen()
        if chosen is None:
            batch = await self._tokens.search_batch_async(
                query, asked.depth, where=asked.tokens_allowed()
            )
            chosen = asked.best_of(batch)
        found = await self._tokens._max_similar_async(query, chosen, k)  # noqa: SLF001 - ours
        return found[0]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file: that of `tokens`, which says all. Raises `PersistError`."""
        self._tokens.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = False) -> Self:
        """Reads an index from a file that `save` wrote, as the class of `tokens` does.

        Raises `IndexFileNotFoundError`, `CorruptFileError`, `NewerFileError`; `PersistError` for a
        file of something else.
        """
        for kind in _CLASSES[:-1]:
            try:
                return cls(kind.load(path, mmap))
            except PersistError as error:
                if type(error) is not PersistError:
                    raise
        return cls(_CLASSES[-1].load(path, mmap))

    def _token_ids_of(self, id: int) -> NDArray[np.uint64]:
        (name,) = _ids("id", [id])
        first, count = name << _PLACE_BITS, 0
        while count < _MOST_VECTORS and first + count in self._tokens:
            count += 1
        if count == 0:
            raise IdNotFoundError(f"id {name} is not in the index")
        return np.arange(first, first + count, dtype=np.uint64)


class _Asked:
    """One search: which documents it measures."""

    def __init__(
        self,
        tokens: _Tokens,
        k: int,
        candidates: int | None,
        *,
        exact: bool,
        where: IdsLike | None,
        exclude: IdsLike | None,
    ) -> None:
        enough = max(_CANDIDATES, _CANDIDATES_PER_HIT * _count("k", k))
        self.tokens, self.exact = tokens, exact
        self.count = enough if candidates is None else _count("candidates", candidates)
        self.depth = min(_DEPTH * self.count, max(len(tokens), 1))
        self.excluded = np.array([] if exclude is None else _ids("exclude", exclude), np.uint64)
        self.allowed = None if where is None else np.array(_ids("where", where), np.uint64)
        if self.allowed is not None:
            self.allowed = np.setdiff1d(self.allowed, self.excluded)

    def chosen(self) -> NDArray[np.uint64] | None:
        """The documents, where they are known before a look at the vectors."""
        if self.allowed is not None and (self.exact or len(self.allowed) <= self.count):
            return self.allowed
        if not self.exact:
            return None
        documents: NDArray[np.uint64] = self.tokens.ids >> np.uint64(_PLACE_BITS)
        return np.setdiff1d(documents, self.excluded)

    def tokens_allowed(self) -> NDArray[np.uint64] | None:
        """The vectors that may be found."""
        if self.allowed is None and len(self.excluded) == 0:
            return None
        ids = self.tokens.ids
        documents = ids >> np.uint64(_PLACE_BITS)
        if self.allowed is not None:
            return ids[np.isin(documents, self.allowed)]
        return ids[np.isin(documents, self.excluded, invert=True)]

    def best_of(self, batch: HitsBatch) -> NDArray[np.uint64]:
        """The documents that look best by the vectors that were found."""
        found, scores = batch.ids >> np.uint64(_PLACE_BITS), batch.scores
        documents, column = np.unique(found, return_inverse=True)
        column = column.reshape(found.shape)
        # What was not found of a document is no better than the last that was.
        best = np.repeat(scores[:, -1:], len(documents), axis=1)
        # From the last to the first, so that the best of a document's vectors is what stays.
        np.put_along_axis(best, column[:, ::-1], scores[:, ::-1], axis=1)
        if len(documents) > self.count:
            order = np.argpartition(-best.sum(axis=0), self.count - 1)
            documents = documents[order[: self.count]]
        chosen: NDArray[np.uint64] = documents
        return chosen


def _matrix(name: str, given: MatrixLike) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.asarray(
            given, dtype=given.dtype if isinstance(given, np.ndarray) else np.float32
        )
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 2:  # noqa: PLR2004 - axes
        came = f"shape {array.shape}" if isinstance(given, np.ndarray) else type(given).__name__
        raise InvalidTypeError(f"{name} must be a float32 array of shape (n, d), got {came}")
    if not 0 < len(array) <= _MOST_VECTORS:
        raise InvalidArgumentError(
            f"{name} must have 1 to {_MOST_VECTORS} vectors, got {len(array)}"
        )
    return array


def _count(name: str, given: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise InvalidTypeError(f"{name} must be an integer, got {type(given).__name__}")
    if given < 1:
        raise InvalidArgumentError(f"{name} must be at least 1, got {given}")
    return int(given)


def _ids(name: str, given: Iterable[int]) -> list[int]:
    ids = given.tolist() if isinstance(given, np.ndarray) else list(given)
    for id in ids:
        if isinstance(id, bool) or not isinstance(id, int | np.integer):
            raise InvalidTypeError(f"{name} must be integers, got {type(id).__name__}")
        if not 0 <= id < _MOST_DOCUMENTS:
            raise InvalidArgumentError(f"{name} must be from 0 to 2**48 - 1, got {id}")
    return [int(id) for id in ids]


def _token_ids(document: int, count: int) -> NDArray[np.uint64]:
    first = document << _PLACE_BITS
    return np.arange(first, first + count, dtype=np.uint64)
