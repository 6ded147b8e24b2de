"""The lake: vectors wherever they live, searched from indexes in memory.

A `Lake` has *backends*, each of which has collections of vectors: in memory (`LocalBackend`), in
the files of a folder (`FsBackend`), in an object store (`ObjectStoreBackend`), in a database
(`StoreBackend`), or where a class of your own finds them (`limnion.protocols.Backend`). The first
search of a collection builds an index of it; later ones are served from that, as long as it
is as fresh as `Consistency` asks for.

>>> import limnion, numpy as np
>>> shard = limnion.LocalBackend("hot-shard")
>>> shard.upsert("docs", ids=[1, 2, 3], vectors=np.eye(3, dtype=np.float32))
>>> lake = limnion.Lake(backends=[shard])
>>> hits = lake.search_one("docs", query=[0.1, 1, 0], k=2)
>>> [(hit.backend, hit.id) for hit in hits]
[('hot-shard', 2), ('hot-shard', 1)]

A row that is put there is found by the next search, and one that is removed is not:

>>> shard.delete("docs", 2)
1
>>> lake.search_one("docs", [0.1, 1, 0], k=1)[0].id
1
"""

from __future__ import annotations

import dataclasses
import enum
import html
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from limnion import _native
from limnion._native import (
    FsBackend,
    LakeHits,
    LakeHitsBatch,
    LocalBackend,
    ObjectShelf,
    ObjectStoreBackend,
    StoreBackend,
)
from limnion.errors import LakeError, WitnessMismatch

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import Coroutine, Iterable
    from types import TracebackType
    from typing import Literal, Self

    from limnion.errors import LimnionError
    from limnion.protocols import AsyncBackend, Backend
    from limnion.types import AmongLike, Fusion, MatrixLike, Metric, Originals, VectorLike

__all__ = [
    "BackendReport",
    "BackendStats",
    "CollectionStats",
    "Consistency",
    "FsBackend",
    "Lake",
    "LakeBuilder",
    "LakeBundle",
    "LakeHit",
    "LakeHits",
    "LakeHitsBatch",
    "LakeStats",
    "LoadedCache",
    "LocalBackend",
    "ObjectShelf",
    "ObjectStoreBackend",
    "RefreshResult",
    "Session",
    "StoreBackend",
]

_MEGABYTE: Final = 1e6


class Consistency(enum.Enum):
    """How fresh the answers of a lake, or of one of its collections, have to be.

    No strings are taken in place of these: a typing error is found by the type checker.
    """

    FRESH = "fresh"
    """Who has seen a write return finds it: the answer is of a generation that was current between
    the beginning and the end of the search. Backends that tell their generation at once, as
    `LocalBackend` does, are asked at each search at next to no cost; others take what asking them
    takes."""

    EVENTUAL = "eventual"
    """The answer is of a generation that was current at most `ttl` before the search began.
    Backends are asked in the background, once half of that time has passed."""

    FROZEN = "frozen"
    """The answer is of the generation of the first search, until `refresh` or `invalidate`."""

    STALE = "frozen"  # noqa: PIE796 - an alias on purpose
    """Another name of `FROZEN`."""


class RefreshResult(enum.Enum):
    """What a look at a published bundle has come to."""

    UP_TO_DATE = "up-to-date"
    """The index in memory is that of the bundle, or there is none in memory."""

    INVALIDATED = "invalidated"
    """Another one has been published: the index in memory was forgotten."""

    BUNDLE_MISSING = "bundle-missing"
    """There is no bundle."""


class LakeHit(NamedTuple):
    """One answer of a search in a lake."""

    backend: str
    """The name of the backend where the row lives."""

    collection: str
    """The collection it is in."""

    id: int | str
    """What it is called there."""

    score: float
    """Higher is better: cosine in [-1, 1], inner product, or 1 / (1 + d) for a distance of d. Of
    `search_hybrid` it is the fused score."""

    distance: float
    """Lower is nearer: Euclidean distance, negative inner product, or 1 - cosine."""


class LoadedCache(NamedTuple):
    """What has come of `Lake.load_cache`."""

    loaded: list[tuple[str, str]]
    """The (backend, collection) of each index that is in memory now."""

    skipped: dict[tuple[str, str], LimnionError]
    """Those that were left out, and why. They are built when they are first searched."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LakeBundle:
    """What a published index is, and what it was built from: the manifest of a bundle.

    `Lake.publish_bundle` writes bundles, `Lake.take_bundle` takes them.

    >>> import limnion, numpy as np, tempfile
    >>> shard = limnion.LocalBackend("hot-shard")
    >>> shard.upsert("docs", [1, 2], np.eye(2, dtype=np.float32))
    >>> lake = limnion.Lake(backends=[shard])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     witness = lake.publish_bundle("docs", folder)
    ...     bundle = limnion.LakeBundle.read(folder)
    ...     bundle.verify(folder)
    >>> bundle.witness == witness
    True
    >>> bundle.rows, bundle.dim, bundle.metric, bundle.bits
    (2, 2, 'cosine', 1)
    """

    format_version: int
    """Which version of the document: 3, or 1 and 2 as ruLake wrote them, which had no index."""

    witness: str
    """SHAKE-256 over source, generation, settings and a digest of all rows, in hexadecimal. It has
    no key: it shows accidents and mix-ups, not forgery. Of ruLake's it covers no rows."""

    data_ref: str
    """Where the data lies that it was built from."""

    generation: int | str
    """Which state of that data."""

    dim: int
    """Numbers a vector."""

    rows: int | None
    """How many rows; `None` where there is no index."""

    metric: Metric | None
    """How near two vectors are; `None` where there is no index."""

    bits: int | None
    """Bits a dimension of the codes; `None` where there is no index."""

    originals: Originals | None
    """How the vectors are kept, if they are."""

    rotation_seed: int
    """What chose the random rotation."""

    rerank_factor: int | None
    """Looks closely at exactly so many rows for each hit; `None` where the bound decides."""

    content: str | None
    """BLAKE3 over all rows in the order of their ids, in hexadecimal."""

    has_names: bool
    """Whether ids are strings."""

    pii_policy: str | None
    """The publisher's word on personal data in it."""

    lineage_id: str | None
    """The publisher's word on where it comes from."""

    memory_class: str | None
    """The publisher's word on what kind of memory it is."""

    @classmethod
    def read(cls, dir: str | os.PathLike[str] | ObjectShelf) -> Self:
        """Reads the manifest in a folder, and whether it is what its own witness says.

        Args:
            dir: The folder, the address of one in an object store, or an `ObjectShelf`. Bundles of
                ruLake (`table.rulake.json`) are read too.

        Raises:
            CacheMissError: where there is no bundle.
            WitnessMismatch: where the manifest is damaged.
            LakeError: where it cannot be read, or is of a newer version.
        """
        return cls(**_native._bundle(dir, False))  # noqa: FBT003, SLF001 - ours

    def verify(self, dir: str | os.PathLike[str] | ObjectShelf) -> None:
        """Reads all rows of the bundle in a folder: whether they are those that this one is of.

        With asyncio: `await asyncio.to_thread(bundle.verify, dir)`. Cost: reading the index.

        Raises:
            CacheMissError: where there is no bundle.
            WitnessMismatch: where another bundle is there by now, or what is there is not whole.
            LakeError: where it cannot be read.
        """
        there = type(self)(**_native._bundle(dir, True))  # noqa: FBT003, SLF001 - ours
        if there != self:
            raise WitnessMismatch(
                f"the bundle there has the witness {there.witness}, and this one has "
                f"{self.witness}",
                "another one has been published since: read it anew",
            )


class BackendReport(NamedTuple):
    """How a backend has done in a federated search."""

    hits: int
    """How many hits it gave; of those of all backends, the best were taken."""

    seconds: float
    """How long it took until its answer was there."""

    error: LimnionError | None
    """Why it gave none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CollectionStats:
    """What a lake knows of one collection."""

    backend: str
    """The name of its backend."""

    collection: str
    """Its own name."""

    rows: int | None
    """Rows of the index in memory; `None` where there is none."""

    generation: str | None
    """The generation that the index is of."""

    bytes: int
    """What the index takes in memory."""

    age: float | None
    """Seconds since the index was last known to be current."""

    pinned: bool
    """Whether the index stays whatever room others need."""

    consistency: Consistency | None
    """The collection's own setting, where it has one."""

    hits: int
    """Searches that found an index that was fresh enough."""

    misses: int
    """Searches that found none, and waited."""

    primes: int
    """How often the index was built from all rows."""

    updates: int
    """How often it was brought up to date by what had changed."""

    shared: int
    """How often another collection had an index of the same data already."""

    invalidations: int
    """How often somebody had the index forgotten."""

    errors: int
    """How often the backend failed."""

    prime_seconds: float
    """How long all builds took."""

    last_prime_seconds: float
    """How long the last one took."""

    @property
    def hit_rate(self) -> float | None:
        """The part of searches that found an index that was fresh enough."""
        return _rate(self.hits, self.misses)


@dataclasses.dataclass(frozen=True, slots=True)
class BackendStats:
    """What a lake knows of one backend: the sums over its collections."""

    name: str
    """Its name."""

    collections: dict[str, CollectionStats]
    """The collections that were ever asked for, by name."""

    @property
    def bytes(self) -> int:
        """What the indexes take in memory. Those that are shared count for each who has them."""
        return sum(each.bytes for each in self.collections.values())

    @property
    def hits(self) -> int:
        """Searches that found an index that was fresh enough."""
        return sum(each.hits for each in self.collections.values())

    @property
    def misses(self) -> int:
        """Searches that found none, and waited."""
        return sum(each.misses for each in self.collections.values())

    @property
    def primes(self) -> int:
        """How often an index was built from all rows."""
        return sum(each.primes for each in self.collections.values())

    @property
    def errors(self) -> int:
        """How often the backend failed."""
        return sum(each.errors for each in self.collections.values())

    @property
    def hit_rate(self) -> float | None:
        """The part of searches that found an index that was fresh enough."""
        return _rate(self.hits, self.misses)


@dataclasses.dataclass(frozen=True, slots=True)
class LakeStats:
    """What a lake has, and how it has done. A table in a notebook."""

    entries: int
    """Indexes in memory."""

    bytes: int
    """What they take there."""

    evictions: int
    """Indexes that went because room was needed."""

    backends: dict[str, BackendStats]
    """The backends that were ever asked, by name."""

    @property
    def collections(self) -> list[CollectionStats]:
        """The collections of all backends that were ever asked for."""
        return [each for backend in self.backends.values() for each in backend.collections.values()]

    @property
    def hits(self) -> int:
        """Searches that found an index that was fresh enough."""
        return sum(each.hits for each in self.backends.values())

    @property
    def misses(self) -> int:
        """Searches that found none, and waited."""
        return sum(each.misses for each in self.backends.values())

    @property
    def primes(self) -> int:
        """How often an index was built from all rows."""
        return sum(each.primes for each in self.backends.values())

    @property
    def hit_rate(self) -> float | None:
        """The part of searches that found an index that was fresh enough."""
        return _rate(self.hits, self.misses)

    def _repr_html_(self) -> str:
        head = ("backend", "collection", "rows", "MB", "hits", "misses", "primes", "age")
        rows = "".join(
            "<tr>"
            + "".join(
                f"<td>{html.escape(str(cell))}</td>"
                for cell in (
                    each.backend,
                    each.collection,
                    "" if each.rows is None else f"{each.rows:,}",
                    f"{each.bytes / _MEGABYTE:.1f}",
                    each.hits,
                    each.misses,
                    each.primes,
                    "" if each.age is None else f"{each.age:.1f} s",
                )
            )
            + "</tr>"
            for each in self.collections
        )
        caption = (
            f"{self.entries} indexes, {self.bytes / _MEGABYTE:.1f} MB, {self.evictions} evictions"
        )
        cells = "".join(f"<th>{name}</th>" for name in head)
        return (
            f"<table><caption>{caption}</caption><thead><tr>{cells}</tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


class Lake(_native.Lake):
    """A cache of indexes over backends, and what is searched.

    It may be used from several threads and event loops. An index is built once however many
    searches wait for it, and works on in the background where those who waited have given up.
    Nothing has to be closed.

    Args:
        consistency: How fresh answers have to be.
        ttl: With `Consistency.EVENTUAL`, how old they may be: seconds or a timedelta.
        metric: How near two vectors are, where a backend does not say.
        bits: Bits a dimension of the codes, 1 to 8; 0 for exact search over the vectors alone.
        originals: How to keep the vectors; `None` for the codes alone, a 32nd of the memory at one
            bit, with approximate scores.
        rerank_factor: What searches use that name neither this nor `recall`: look closely at
            exactly `k * rerank_factor` rows. Without it a search refines as far as the bound of the
            codes asks for.
        rotation_seed: Chooses the random rotation. The same data and seed give the same bytes.
        max_cache_entries: How many indexes may be in memory.
        max_cache_bytes: How much they may take together. Those that are worth least go first.
        backends: What `register_backend` is called with.

    Raises:
        InvalidArgumentError: for a value that cannot be used; it says what to write.
        InvalidTypeError: for an argument of the wrong type, a string as `consistency` among them.

    >>> import limnion, numpy as np
    >>> lake = limnion.Lake(consistency=limnion.Consistency.EVENTUAL, ttl=5, metric="l2")
    >>> shard = limnion.LocalBackend("hot-shard")
    >>> shard.upsert("docs", range(100), np.eye(100, dtype=np.float32))
    >>> lake.register_backend(shard)
    >>> lake.prime("docs").rows
    100
    >>> lake.search_one("docs", np.eye(100, dtype=np.float32)[7], k=1)[0].id
    7
    >>> ("hot-shard", "docs") in lake
    True
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        consistency: Consistency = Consistency.FRESH,
        ttl: float | dt.timedelta | None = None,
        metric: Metric = "cosine",
        bits: int = 1,
        originals: Originals | None = "f32",
        rerank_factor: int | None = None,
        rotation_seed: int = 42,
        max_cache_entries: int | None = None,
        max_cache_bytes: int | None = None,
        backends: Iterable[Backend | AsyncBackend] = (),
    ) -> Self:
        """Makes a lake."""
        lake = super().__new__(
            cls,
            consistency=consistency,
            ttl=ttl,
            metric=metric,
            bits=bits,
            originals=originals,
            rerank_factor=rerank_factor,
            rotation_seed=rotation_seed,
            max_cache_entries=max_cache_entries,
            max_cache_bytes=max_cache_bytes,
        )
        for backend in backends:
            lake.register_backend(backend)
        return lake

    @staticmethod
    def builder() -> LakeBuilder:
        """What makes a lake step by step.

        >>> import limnion
        >>> limnion.Lake.builder().rerank_factor(20).max_cache_entries(1000).build()
        Lake(no backends, 0 indexes, 0.0 MB, FRESH)
        """
        return LakeBuilder()

    def stats(self) -> LakeStats:
        """What the lake has, and how it has done: hits, misses, bytes, primes, ages.

        >>> import limnion
        >>> limnion.Lake().stats()
        LakeStats(entries=0, bytes=0, evictions=0, backends={})
        """
        entries, size, evictions, collections = self._stats()
        backends: dict[str, BackendStats] = {}
        for fields in collections:
            stats = CollectionStats(**fields)
            of = backends.setdefault(stats.backend, BackendStats(stats.backend, {}))
            of.collections[stats.collection] = stats
        return LakeStats(entries, size, evictions, backends)

    def warm(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> CollectionStats:
        """Another name of `prime`."""
        return self.prime(collection, backend=backend, timeout=timeout)

    def warm_async(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> Coroutine[Any, Any, CollectionStats]:
        """Another name of `prime_async`."""
        return self.prime_async(collection, backend=backend, timeout=timeout)

    def session(self) -> Session:
        """A time for which the indexes that are used stay in memory.

        What a search in a session uses is pinned until the session ends, so that a run of searches
        does not lose to others what it is about to use again.

        >>> import limnion, numpy as np
        >>> shard = limnion.LocalBackend("hot-shard")
        >>> shard.upsert("docs", [1, 2], np.eye(2, dtype=np.float32))
        >>> lake = limnion.Lake(backends=[shard])
        >>> with lake.session() as s:
        ...     best = [s.search_one("docs", query, k=1)[0].id for query in np.eye(2, dtype="f4")]
        >>> best
        [1, 2]
        """
        return Session(self)

    def __repr__(self) -> str:
        """The backends, and what is in memory."""
        names = list(self.backends)
        entries, size, _, _ = self._stats()
        consistency, ttl = self._consistency()
        old = "" if ttl is None else f" {ttl:g} s"
        who = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")  # noqa: PLR2004
        told = (
            f"{len(names)} backend{'s' if len(names) > 1 else ''}: {who}"
            if names
            else "no backends"
        )
        held = f"{entries} index{'' if entries == 1 else 'es'}, {size / _MEGABYTE:.1f} MB"
        return f"{type(self).__name__}({told}, {held}, {consistency.name}{old})"

    def _repr_html_(self) -> str:
        return self.stats()._repr_html_()


class LakeBuilder:
    """Makes a lake step by step. Each method gives the builder; `build` checks and gives the lake.

    >>> import limnion
    >>> builder = limnion.Lake.builder().metric("l2").rotation_seed(7)
    >>> builder.consistency(limnion.Consistency.EVENTUAL, ttl=2.5).build()
    Lake(no backends, 0 indexes, 0.0 MB, EVENTUAL 2.5 s)
    """

    __slots__ = ("_backends", "_options")

    def __init__(self) -> None:
        self._options: dict[str, Any] = {}
        self._backends: list[Backend | AsyncBackend] = []

    def consistency(
        self, consistency: Consistency, *, ttl: float | dt.timedelta | None = None
    ) -> Self:
        """How fresh answers have to be; `ttl` goes with `Consistency.EVENTUAL`."""
        self._options |= {"consistency": consistency, "ttl": ttl}
        return self

    def metric(self, metric: Metric) -> Self:
        """How near two vectors are, where a backend does not say."""
        self._options["metric"] = metric
        return self

    def bits(self, bits: int) -> Self:
        """Bits a dimension of the codes."""
        self._options["bits"] = bits
        return self

    def originals(self, originals: Originals | None) -> Self:
        """How to keep the vectors."""
        self._options["originals"] = originals
        return self

    def rerank_factor(self, rerank_factor: int) -> Self:
        """What searches use that name neither this nor `recall`."""
        self._options["rerank_factor"] = rerank_factor
        return self

    def rotation_seed(self, rotation_seed: int) -> Self:
        """Chooses the random rotation."""
        self._options["rotation_seed"] = rotation_seed
        return self

    def max_cache_entries(self, max_cache_entries: int) -> Self:
        """How many indexes may be in memory."""
        self._options["max_cache_entries"] = max_cache_entries
        return self

    def max_cache_bytes(self, max_cache_bytes: int) -> Self:
        """How much indexes may take together."""
        self._options["max_cache_bytes"] = max_cache_bytes
        return self

    def backend(self, backend: Backend | AsyncBackend) -> Self:
        """One more backend."""
        self._backends.append(backend)
        return self

    def build(self) -> Lake:
        """The lake."""
        return Lake(**self._options, backends=self._backends)

    def __repr__(self) -> str:
        """The options so far."""
        told = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"LakeBuilder({told})"


class Session:
    """A time for which the indexes that are used stay in memory. Made by `Lake.session`.

    It is a context manager, for `with` and for `async with`; the searches are those of the lake.
    """

    __slots__ = ("_held", "_lake", "_over")

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._held: dict[tuple[str, str], None] = {}
        self._over = False

    def __enter__(self) -> Self:
        """Begins."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Lets go of what was used."""
        self._over = True
        while self._held:
            self._lake._hold(self._held.popitem()[0], False)  # noqa: FBT003, SLF001 - ours

    async def __aenter__(self) -> Self:
        """Begins."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Lets go of what was used."""
        self.__exit__(kind, raised, trace)

    @property
    def used(self) -> list[tuple[str, str]]:
        """The (backend, collection) of each index that is kept for the session."""
        return list(self._held)

    def _keep(self, key: tuple[str, str]) -> str:
        """Pins once; gives the backend."""
        if self._over:
            raise LakeError("the session is over", "begin another: with lake.session() as s")
        if key not in self._held:
            self._lake._hold(key, True)  # noqa: FBT003, SLF001 - ours
            self._held[key] = None
        return key[0]

    def _use(self, collection: str, backend: str | None) -> str:
        return self._keep(self._lake._find(collection, backend))  # noqa: SLF001 - ours

    async def _use_async(self, collection: str, backend: str | None) -> str:
        return self._keep(await self._lake._find_async(collection, backend))  # noqa: SLF001 - ours

    def _use_all(self, collection: str, backends: Iterable[str] | None) -> list[str]:
        found = self._lake._find_all(collection, backends)  # noqa: SLF001 - ours
        return [self._keep(key) for key in found]

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
        """`Lake.search_one`."""
        return self._lake.search_one(
            collection,
            query,
            k,
            backend=self._use(collection, backend),
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

    async def search_one_async(
        self,
        collection: str,
        query: VectorLike,
        k: int = 10,
        *,
        backend: str | None = None,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,  # noqa: ASYNC109 - the lake's own
        cached_only: bool = False,
    ) -> LakeHits:
        """`Lake.search_one_async`."""
        return await self._lake.search_one_async(
            collection,
            query,
            k,
            backend=await self._use_async(collection, backend),
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

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
        """`Lake.search_batch`."""
        return self._lake.search_batch(
            collection,
            queries,
            k,
            backend=self._use(collection, backend),
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

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
        """`Lake.search_hybrid`."""
        return self._lake.search_hybrid(
            collection,
            query,
            text,
            k,
            backend=self._use(collection, backend),
            fusion=fusion,
            weight=weight,
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

    async def search_hybrid_async(
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
        timeout: float | dt.timedelta | None = None,  # noqa: ASYNC109 - the lake's own
        cached_only: bool = False,
    ) -> LakeHits:
        """`Lake.search_hybrid_async`."""
        return await self._lake.search_hybrid_async(
            collection,
            query,
            text,
            k,
            backend=await self._use_async(collection, backend),
            fusion=fusion,
            weight=weight,
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

    async def search_batch_async(
        self,
        collection: str,
        queries: MatrixLike,
        k: int = 10,
        *,
        backend: str | None = None,
        where: AmongLike | None = None,
        recall: float | None = None,
        rerank_factor: int | None = None,
        timeout: float | dt.timedelta | None = None,  # noqa: ASYNC109 - the lake's own
        cached_only: bool = False,
    ) -> LakeHitsBatch:
        """`Lake.search_batch_async`."""
        return await self._lake.search_batch_async(
            collection,
            queries,
            k,
            backend=await self._use_async(collection, backend),
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

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
        """`Lake.search_federated`."""
        return self._lake.search_federated(
            collection,
            query,
            k,
            backends=self._use_all(collection, backends),
            on_error=on_error,
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

    async def search_federated_async(
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
        timeout: float | dt.timedelta | None = None,  # noqa: ASYNC109 - the lake's own
        cached_only: bool = False,
    ) -> LakeHits:
        """`Lake.search_federated_async`."""
        found = await self._lake._find_all_async(collection, backends)  # noqa: SLF001 - ours
        return await self._lake.search_federated_async(
            collection,
            query,
            k,
            backends=[self._keep(key) for key in found],
            on_error=on_error,
            where=where,
            recall=recall,
            rerank_factor=rerank_factor,
            timeout=timeout,
            cached_only=cached_only,
        )

    def prime(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,
    ) -> CollectionStats:
        """`Lake.prime`."""
        where = self._use(collection, backend)
        return self._lake.prime(collection, backend=where, timeout=timeout)

    async def prime_async(
        self,
        collection: str,
        *,
        backend: str | None = None,
        timeout: float | dt.timedelta | None = None,  # noqa: ASYNC109 - the lake's own
    ) -> CollectionStats:
        """`Lake.prime_async`."""
        where = await self._use_async(collection, backend)
        return await self._lake.prime_async(collection, backend=where, timeout=timeout)

    def __repr__(self) -> str:
        """What is kept."""
        state = "over" if self._over else ", ".join("/".join(key) for key in self._held)
        return f"Session({state})"


def _rate(hits: int, misses: int) -> float | None:
    return hits / (hits + misses) if hits + misses else None
