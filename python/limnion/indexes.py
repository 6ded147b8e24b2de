"""The indexes, and what a search gives back.

| class             | keeps                            | bytes/dim      | for                     |
|-------------------|----------------------------------|----------------|-------------------------|
| `FlatF32Index`    | the vectors                      | 4              | few vectors, no codes   |
| `RabitqIndex`     | 1-bit codes                      | 1/8            | the least memory        |
| `RabitqAsymIndex` | 2- to 8-bit codes                | 1/4 to 1       | recall in little memory |
| `RabitqPlusIndex` | codes and originals (f32 or f16) | 4 1/8 or 2 1/8 | speed and exact scores  |
| `IvfIndex`        | the same, in lists round centres | 4 1/4 or 2 1/4 | many rows               |
| `GraphIndex`      | the same, linked to near rows    | 2 3/4 and 128  | many rows that stay     |
| `HammingIndex`    | binary vectors                   | 1/8            | bits from elsewhere     |

The first four are flat: they scan every row, so that nothing is ever missed for the index's
structure, and rows come and go at no cost to quality. `IvfIndex` looks into as many of its lists as
the recall that is asked for needs on these data; `GraphIndex` walks from row to near row, which is
faster up to a recall of 0.95, and takes longer to build and to change. Codes are RaBitQ codes:
their estimates are unbiased and carry a bound, by which a search knows which rows it has to look at
more closely.

>>> import limnion, numpy as np
>>> rng = np.random.default_rng(7)
>>> vectors = rng.standard_normal((1000, 128), dtype=np.float32)
>>> index = limnion.RabitqPlusIndex.build(vectors, ids=range(1000, 2000))
>>> hits = index.search(vectors[5], k=3)
>>> hits[0].id, hits[0].distance
(1005, 0.0)
>>> index.search(vectors[5], k=1, where=[1006, 1007])[0].id in {1006, 1007}
True
>>> index.search_by_id(1005, k=1) == index.search(vectors[5], k=1, exclude=[1005])
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from limnion import _native
from limnion._native import (
    FlatIndex,
    HammingIndex,
    Hits,
    HitsBatch,
    LinkIndex,
    ListIndex,
    Selection,
)

if TYPE_CHECKING:
    from typing import Self

    from limnion.types import (
        ExcludeLike,
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
    "Explanation",
    "FlatF32Index",
    "GraphIndex",
    "HammingIndex",
    "Hit",
    "Hits",
    "HitsBatch",
    "IvfIndex",
    "RabitqAsymIndex",
    "RabitqIndex",
    "RabitqPlusIndex",
    "Recommendation",
    "Selection",
    "Walked",
    "build",
    "recommend",
]


class Hit(NamedTuple):
    """One answer of a search."""

    id: int
    """The id of the row."""

    score: float
    """Higher is better: cosine in [-1, 1], inner product, or 1 / (1 + d) for a distance of d."""

    distance: float
    """Lower is nearer: Euclidean distance, negative inner product, or 1 - cosine."""


class FlatF32Index(FlatIndex):
    """Exact search over the vectors themselves: no codes, nothing to tune, 4 bytes a dimension."""

    __slots__ = ()

    @classmethod
    def build(
        cls,
        vectors: MatrixLike,
        *,
        ids: IdsLike | None = None,
        metric: Metric = "l2",
        seed: int = 42,
        progress: Progress = False,
    ) -> Self:
        """Builds an index of the rows of `vectors`, a C-contiguous float32 array of shape (n, d).

        Args:
            vectors: The vectors; they are copied.
            ids: One id for each row; 0, 1, 2 ... without.
            metric: How near two vectors are.
            seed: Kept for the likeness of the flat classes; exact search has nothing random in it.
            progress: `True` for a bar, or a callable of (done, total).

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for NaN, infinity, or a zero vector under cosine, naming the row.
            DuplicateIdError: for an id that comes twice.
        """
        return cls._build(
            vectors,
            bits=0,
            originals="f32",
            ids=ids,
            metric=metric,
            seed=seed,
            rerank_factor=None,
            progress=progress,
        )


class RabitqIndex(FlatIndex):
    """1-bit codes and nothing else: 1/32 of the vectors' memory, approximate scores.

    The estimates are unbiased, and good enough to find candidates for something more exact.
    """

    __slots__ = ()

    @classmethod
    def build(
        cls,
        vectors: MatrixLike,
        *,
        ids: IdsLike | None = None,
        metric: Metric = "l2",
        seed: int = 42,
        progress: Progress = False,
    ) -> Self:
        """Builds an index of the rows of `vectors`, a C-contiguous float32 array of shape (n, d).

        Runs on all cores with the interpreter released; Ctrl-C stops it.

        Args:
            vectors: The vectors; only their codes are kept.
            ids: One id for each row; 0, 1, 2 ... without.
            metric: How near two vectors are.
            seed: Chooses the random rotation. The same data and seed give the same bytes.
            progress: `True` for a bar, or a callable of (done, total).

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for NaN, infinity, or a zero vector under cosine, naming the row.
            DuplicateIdError: for an id that comes twice.
        """
        return cls._build(
            vectors,
            bits=1,
            originals=None,
            ids=ids,
            metric=metric,
            seed=seed,
            rerank_factor=None,
            progress=progress,
        )


class RabitqAsymIndex(FlatIndex):
    """Codes of 2 to 8 bits a dimension, against a query at high precision.

    The originals are kept on request only.
    """

    __slots__ = ()

    @classmethod
    def build(
        cls,
        vectors: MatrixLike,
        *,
        ids: IdsLike | None = None,
        metric: Metric = "l2",
        bits: int = 4,
        originals: Originals | None = None,
        rerank_factor: int | None = None,
        seed: int = 42,
        progress: Progress = False,
    ) -> Self:
        """Builds an index of the rows of `vectors`, a C-contiguous float32 array of shape (n, d).

        Runs on all cores with the interpreter released; Ctrl-C stops it.

        Args:
            vectors: The vectors; with `originals="f16"` a float16 array is taken too.
            ids: One id for each row; 0, 1, 2 ... without.
            metric: How near two vectors are.
            bits: Bits a dimension of the codes, 2 to 8. Each halves the error.
            originals: Whether and how to keep the vectors too.
            rerank_factor: What searches use that name neither this nor `recall`: look closely at
                exactly `k * rerank_factor` rows. Without it a search refines as far as the bound of
                the codes asks for.
            seed: Chooses the random rotation. The same data and seed give the same bytes.
            progress: `True` for a bar, or a callable of (done, total).

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for NaN, infinity, or a zero vector under cosine, naming the row.
            DuplicateIdError: for an id that comes twice.
        """
        return cls._build(
            vectors,
            bits=bits,
            originals=originals,
            ids=ids,
            metric=metric,
            seed=seed,
            rerank_factor=rerank_factor,
            progress=progress,
        )


class RabitqPlusIndex(FlatIndex):
    """Codes to scan and originals to decide: exact scores at the speed of codes.

    A search that is told nothing misses a true neighbour at the very edge of the answer about once
    in a hundred times, and others far less; `recall=0.95` finds that share of all, by what was
    found out on the data, and is quicker; `recall=1.0` is exact.
    """

    __slots__ = ()

    @classmethod
    def build(
        cls,
        vectors: MatrixLike,
        *,
        ids: IdsLike | None = None,
        metric: Metric = "l2",
        bits: int = 1,
        originals: Originals = "f32",
        rerank_factor: int | None = None,
        seed: int = 42,
        progress: Progress = False,
    ) -> Self:
        """Builds an index of the rows of `vectors`, a C-contiguous float32 array of shape (n, d).

        Runs on all cores with the interpreter released; Ctrl-C stops it.

        Args:
            vectors: The vectors; with `originals="f16"` a float16 array is taken too.
            ids: One id for each row; 0, 1, 2 ... without.
            metric: How near two vectors are.
            bits: Bits a dimension of the codes, 1 to 8. More mean fewer looks at the originals.
            originals: How to keep the vectors.
            rerank_factor: What searches use that name neither this nor `recall`: look closely at
                exactly `k * rerank_factor` rows. Without it a search refines as far as the bound of
                the codes asks for.
            seed: Chooses the random rotation. The same data and seed give the same bytes.
            progress: `True` for a bar, or a callable of (done, total).

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for NaN, infinity, or a zero vector under cosine, naming the row.
            DuplicateIdError: for an id that comes twice.
        """
        return cls._build(
            vectors,
            bits=bits,
            originals=originals,
            ids=ids,
            metric=metric,
            seed=seed,
            rerank_factor=rerank_factor,
            progress=progress,
        )


class Explanation(NamedTuple):
    """What a search in an `IvfIndex` did."""

    lists: int
    """Lists that it looked into."""

    scanned: int
    """Rows whose codes it scanned, of those that may be found."""

    refined: int
    """Rows that it looked at more closely than their sign bits."""


class IvfIndex(ListIndex):
    """Rows in lists round centres, of which a search looks into the nearest: for many rows.

    How many lists a recall needs is found out on the data when the index is built, so that
    `recall=0.95` is all there is to say, which is also the default. `recall=1.0` looks at every
    original. Beside the flat indexes it takes longer to build, and a change costs it more.

    >>> import limnion, numpy as np
    >>> rng = np.random.default_rng(7)
    >>> topics = rng.standard_normal((50, 128), dtype=np.float32)
    >>> noise = rng.standard_normal((5000, 128), dtype=np.float32)
    >>> vectors = topics[rng.integers(0, 50, 5000)] + noise / 2
    >>> index = limnion.IvfIndex.build(vectors, metric="cosine")
    >>> index.search(vectors[5], k=3)[0].id
    5
    >>> index.explain(vectors[5]).scanned < 5000
    True
    """

    __slots__ = ()

    @classmethod
    def build(
        cls,
        vectors: MatrixLike,
        *,
        ids: IdsLike | None = None,
        metric: Metric = "l2",
        bits: int = 1,
        originals: Originals | None = "f32",
        lists: int | None = None,
        seed: int = 42,
        progress: Progress = False,
    ) -> Self:
        """Builds an index of the rows of `vectors`, a C-contiguous float32 array of shape (n, d).

        The vectors are clustered, encoded, and asked for their neighbours to find out what a recall
        takes. Runs on all cores with the interpreter released; Ctrl-C stops it.

        Args:
            vectors: The vectors, which are copied; with `originals="f16"` a float16 array is taken
                too.
            ids: One id for each row; 0, 1, 2 ... without.
            metric: How near two vectors are.
            bits: Bits a dimension of the codes, 1 to 8. More mean fewer looks at the originals.
            originals: Whether and how to keep the vectors. Without them, lists that grow too large
                or too small stay as they are, and scores are estimates.
            lists: How many lists to make, about; chosen by the number of rows without.
            seed: Chooses the random rotation, and where clustering begins. The same data and seed
                give the same bytes.
            progress: `True` for a bar, or a callable of (done, total).

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for NaN, infinity, or a zero vector under cosine, naming the row.
            DuplicateIdError: for an id that comes twice.
        """
        return cls._build(
            vectors,
            bits=bits,
            originals=originals,
            lists=lists,
            ids=ids,
            metric=metric,
            seed=seed,
            progress=progress,
        )

    def explain(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Explanation:
        """Searches as `search` does, and tells what that took instead of what was found."""
        return Explanation(*self._explain(query, k, recall, nprobe, where, exclude, radius))


class Walked(NamedTuple):
    """What a search in a `GraphIndex` did."""

    followed: int
    """Rows whose links it followed; 0 where it was less work to look at all that may be found."""

    scanned: int
    """Rows whose codes it scanned."""

    refined: int
    """Rows that it looked at more closely than their sign bits."""


class GraphIndex(LinkIndex):
    """Rows linked to near rows, along which a search walks: for many rows that stay.

    How far to walk for a recall is found out on the data when the index is built, so that
    `recall=0.95` is all there is to say, which is also the default. `recall=1.0` looks at every
    original. Where few rows may be found, those are looked at instead, so that `k` hits come where
    as many match. It takes some five times as long to build as an `IvfIndex`, and longer for a row
    that is added. Removed rows lead walks on until one in six is gone; then their codes and
    links are given back.

    >>> import limnion, numpy as np
    >>> rng = np.random.default_rng(7)
    >>> topics = rng.standard_normal((50, 128), dtype=np.float32)
    >>> noise = rng.standard_normal((5000, 128), dtype=np.float32)
    >>> vectors = topics[rng.integers(0, 50, 5000)] + noise / 2
    >>> index = limnion.GraphIndex.build(vectors)
    >>> index.search(vectors[5], k=3)[0].id
    5
    >>> index.explain(vectors[5], ef=12).scanned < 5000
    True
    """

    __slots__ = ()

    @classmethod
    def build(
        cls,
        vectors: MatrixLike,
        ids: IdsLike | None = None,
        metric: Metric = "l2",
        *,
        bits: int = 5,
        originals: Originals | None = "f16",
        degree: int = 48,
        layout: Layout = "compact",
        seed: int = 42,
        progress: Progress = False,
    ) -> Self:
        """Builds an index of the rows of `vectors`, a C-contiguous float32 array of shape (n, d).

        The vectors are encoded, linked, and asked for their neighbours to find out what a recall
        takes. Runs on all cores with the interpreter released; Ctrl-C stops it. Cost: at 100,000
        rows of 384 dimensions about 200 µs a row and core.

        Args:
            vectors: The vectors, which are copied; with `originals="f16"` a float16 array is taken
                too.
            ids: One id for each row; 0, 1, 2 ... without.
            metric: How near two vectors are.
            bits: Bits a dimension of the codes, 1 to 8. More mean fewer looks at the originals.
            originals: Whether and how to keep the vectors. Without them scores are estimates, and
                the recall is that of the codes.
            degree: The most links of a row, 4 to 128. More find more, in more memory and time.
            layout: Where the codes of neighbours lie; see `set_layout`.
            seed: Chooses the random rotation, and where building begins. The same data and seed
                give the same bytes.
            progress: `True` for a bar, or a callable of (done, total).

        Raises:
            InvalidTypeError: for another dtype, order or number of axes.
            InvalidArgumentError: for NaN, infinity, or a zero vector under cosine, naming the row.
            DuplicateIdError: for an id that comes twice.
        """
        return cls._build(
            vectors,
            bits=bits,
            originals=originals,
            degree=degree,
            layout=layout,
            ids=ids,
            metric=metric,
            seed=seed,
            progress=progress,
        )

    def explain(
        self,
        query: VectorLike,
        k: int = 10,
        *,
        recall: float | None = None,
        ef: int | None = None,
        where: WhereLike | None = None,
        exclude: ExcludeLike | None = None,
        radius: float | None = None,
    ) -> Walked:
        """Searches as `search` does, and tells what that took instead of what was found."""
        return Walked(*self._explain(query, k, recall, ef, where, exclude, radius))


_Chosen: TypeAlias = (
    FlatF32Index | RabitqIndex | RabitqAsymIndex | RabitqPlusIndex | IvfIndex | GraphIndex
)


class Recommendation(NamedTuple):
    """Which index to take, with which settings, and why."""

    index_class: type[_Chosen]
    """The class to build with."""

    settings: dict[str, Any]
    """What its `build` takes besides the vectors."""

    bytes: int
    """The memory that the index will take, about."""

    recall: float
    """The share of the true ten nearest that it finds when asked, on embeddings of text."""

    reason: str
    """Why, in a sentence or two."""


def recommend(
    n: int,
    dim: int,
    *,
    recall: float = 0.99,
    memory: int | None = None,
    changes: bool = False,
) -> Recommendation:
    """Says which index and which settings suit `n` vectors of `dim` dimensions, and why.

    The rule: of those that reach `recall` and fit `memory`, the first in this order, which is that
    of their speed in `benches/RESULTS.md`:

    1. up to 4 MiB of vectors: `FlatF32Index`;
    2. above 10,000 rows: `IvfIndex` of 4 bits and f16;
    3. above 50,000 rows that stay: `GraphIndex` of 8 bits alone;
    4. above 10,000 rows: `IvfIndex` of 8 bits alone;
    5. `RabitqPlusIndex` with f32, then with f16; codes alone, from 1 bit to 8; `FlatF32Index`.

    A graph is taken to reach 0.95, above which lists are as fast; lists reach 0.99, flat scans with
    f16 originals 0.995 and with f32 originals 0.999. Codes alone reach what they find on embeddings
    of text, and only `FlatF32Index` reaches 1.0.

    Args:
        n: How many vectors there will be.
        dim: How many dimensions they have.
        recall: The share of the true nearest neighbours to find, above 0 and at most 1.
        memory: The bytes that the index may take; no limit without.
        changes: Whether rows come, change and go often: then no graph is chosen, as a row that is
            added takes it many times as long.

    Returns:
        The fastest that reaches `recall` within `memory`, or the nearest there is, which `reason`
        then says.

    >>> import limnion, numpy as np
    >>> advice = limnion.recommend(1_000_000, 384, recall=0.99)
    >>> advice.index_class.__name__
    'IvfIndex'
    >>> vectors = np.random.default_rng(1).standard_normal((100, 384), dtype=np.float32)
    >>> len(advice.index_class.build(vectors, **advice.settings))
    100
    """
    advice = _native._recommend(n, dim, recall, memory, changes)  # noqa: SLF001 - ours
    name, bits, originals, size, reached, reason = advice
    adjustable = name not in {"FlatF32Index", "RabitqIndex"}
    settings = {"bits": bits, "originals": originals} if adjustable else {}
    return Recommendation(globals()[name], settings, size, reached, reason)


def build(
    vectors: MatrixLike,
    *,
    ids: IdsLike | None = None,
    metric: Metric = "l2",
    recall: float = 0.99,
    memory: int | None = None,
    changes: bool = False,
    seed: int = 42,
    progress: Progress = False,
) -> _Chosen:
    """Builds the index that `recommend` says for as many vectors as these.

    Searches have a default of their own: give them the `recall` too.

    Args:
        vectors: The vectors, of shape (n, d).
        ids: One id for each row; 0, 1, 2 ... without.
        metric: How near two vectors are.
        recall: The share of the true nearest neighbours that searches will ask for.
        memory: The bytes that the index may take; no limit without.
        changes: Whether rows come, change and go often.
        seed: Chooses what is random. The same data and seed give the same bytes.
        progress: `True` for a bar, or a callable of (done, total).

    Raises what the `build` of that class and `recommend` raise.

    >>> import limnion, numpy as np
    >>> vectors = np.random.default_rng(1).standard_normal((3000, 384), dtype=np.float32)
    >>> index = limnion.build(vectors, recall=0.9, memory=500_000)
    >>> index
    RabitqAsymIndex(n=3000, dim=384, metric='l2', bits=3, memory=0.48 MB)
    >>> index.search(vectors[7], recall=0.9)[0].id
    7
    """
    n, dim = _native._shape(vectors)  # noqa: SLF001 - ours
    advice = recommend(n, dim, recall=recall, memory=memory, changes=changes)
    return advice.index_class.build(
        vectors, ids=ids, metric=metric, seed=seed, progress=progress, **advice.settings
    )
