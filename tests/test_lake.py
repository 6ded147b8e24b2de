"""A lake: what it finds, how fresh that is, and what it says of itself."""

import copy
import datetime as dt
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from support import RunPython, Vectors, random_vectors

import limnion
from limnion import Consistency, errors
from limnion.lake import BackendReport, CollectionStats
from limnion.protocols import Backend, Description, Pulled


@pytest.fixture
def shard(vectors: Vectors) -> limnion.LocalBackend:
    """Return a backend with one collection, of ids from 10 on."""
    shard = limnion.LocalBackend("hot-shard")
    shard.upsert("docs", range(10, 10 + len(vectors)), vectors)
    return shard


@pytest.fixture
def lake(shard: limnion.LocalBackend) -> limnion.Lake:
    """Return a lake over that backend."""
    return limnion.Lake(backends=[shard])


class Slow:
    """A backend that takes its time, counts, and holds strings for ids where it is told to."""

    def __init__(self, name: str = "slow", seconds: float = 0.0, *, names: bool = False) -> None:
        self.name = name
        self.seconds = seconds
        self.names = names
        self.inner = limnion.LocalBackend(name)
        self.pulls = 0
        self.called: list[str] = []

    def list_collections(self) -> list[str]:
        """Return the names."""
        return self.inner.list_collections()

    def describe(self, collection: str) -> Description:
        """Return what the backend inside says."""
        return self.inner.describe(collection)

    def pull(self, collection: str) -> Pulled:
        """Return all rows, late."""
        self.pulls += 1
        time.sleep(self.seconds)
        pulled = self.inner.pull(collection)
        if self.names:
            return pulled._replace(ids=[f"doc-{id_}" for id_ in pulled.ids])
        return pulled


def test_a_lake_finds_what_the_bare_index_finds(
    lake: limnion.Lake, shard: limnion.LocalBackend, vectors: Vectors
) -> None:
    index = limnion.RabitqPlusIndex.build(
        vectors, ids=range(10, 10 + len(vectors)), metric="cosine"
    )
    for query in random_vectors(20, 96, seed=3):
        asked: list[dict[str, Any]] = [
            {},
            {"recall": 1.0},
            {"rerank_factor": 5},
            {"where": [11, 12, 900]},
        ]
        for options in asked:
            expected = index.search(query, 7, **options)
            found = lake.search_one("docs", query, 7, **options)
            assert isinstance(found.ids, np.ndarray)
            assert found.ids.tolist() == expected.ids.tolist()
            assert found.scores.tolist() == expected.scores.tolist()
            assert found.distances.tolist() == expected.distances.tolist()
    queries = random_vectors(20, 96, seed=4)
    batch = lake.search_batch("docs", queries, k=3)
    assert np.array_equal(np.asarray(batch.ids), index.search_batch(queries, k=3).ids)
    assert lake.index("docs") == index
    assert index in lake
    assert {hit.backend for hits in batch for hit in hits} == {shard.name}


@pytest.mark.parametrize(
    ("options", "index_class"),
    [
        ({"bits": 0}, limnion.FlatF32Index),
        ({"bits": 1, "originals": None}, limnion.RabitqIndex),
        ({"bits": 4, "originals": None}, limnion.RabitqAsymIndex),
        ({"bits": 2, "originals": "f16", "metric": "l2"}, limnion.RabitqPlusIndex),
        ({"rotation_seed": 7, "rerank_factor": 3, "metric": "ip"}, limnion.RabitqPlusIndex),
    ],
)
def test_a_lake_keeps_the_index_that_it_is_told_to(
    shard: limnion.LocalBackend, vectors: Vectors, options: Any, index_class: Any
) -> None:
    lake = limnion.Lake(**options, backends=[shard])
    index = lake.index("docs")
    assert type(index) is index_class
    assert len(index) == len(vectors)
    query = random_vectors(1, 96, seed=1)[0]
    found = lake.search_one("docs", query, k=5)
    assert [(hit.id, hit.score) for hit in found] == [
        (hit.id, hit.score) for hit in index.search(query, k=5)
    ]
    if options.get("originals") == "f16":
        assert lake.search_one("docs", query.astype(np.float16), k=1)


def test_a_change_is_found_by_the_next_search(
    lake: limnion.Lake, shard: limnion.LocalBackend, vectors: Vectors
) -> None:
    lake.prime("docs")
    index = lake.index("docs")
    shard.upsert("docs", [5], -vectors[:1])
    assert lake.search_one("docs", -vectors[0], k=1)[0].id == 5
    assert shard.delete("docs", [5, 10, 10**9]) == 2
    assert lake.search_one("docs", vectors[0], k=1)[0].id != 10
    assert shard.delete("docs", 11) == 1
    stats = lake.prime("docs")
    assert (stats.primes, stats.updates) == (1, 3)
    assert stats.rows == len(vectors) - 2
    assert len(index) == len(vectors)  # what was looked at before stays what it was


def test_each_consistency_keeps_its_promise() -> None:
    rows = np.eye(4, dtype=np.float32)
    backend = Slow()
    backend.inner.upsert("docs", [0], rows[:1])
    asked: dict[Consistency, Any] = {
        Consistency.FRESH: {"consistency": Consistency.FRESH},
        Consistency.EVENTUAL: {"consistency": Consistency.EVENTUAL, "ttl": 0.3},
        Consistency.FROZEN: {"consistency": Consistency.FROZEN},
    }
    lakes = {
        member: limnion.Lake(**options, backends=[backend]) for member, options in asked.items()
    }

    def seen(member: Consistency) -> int:
        return len(lakes[member].search_one("docs", rows[0]))

    assert [seen(member) for member in lakes] == [1, 1, 1]
    backend.inner.upsert("docs", [1], rows[1:2])
    assert seen(Consistency.FRESH) == 2
    assert seen(Consistency.FROZEN) == 1
    time.sleep(0.35)
    assert seen(Consistency.EVENTUAL) == 2
    assert seen(Consistency.FROZEN) == 1
    assert lakes[Consistency.FROZEN].refresh("docs").rows == 2
    assert seen(Consistency.FROZEN) == 2
    backend.inner.upsert("docs", [2], rows[2:3])
    assert seen(Consistency.FROZEN) == 2
    assert lakes[Consistency.FROZEN].invalidate("docs")
    assert not lakes[Consistency.FROZEN].invalidate("docs")
    assert seen(Consistency.FROZEN) == 3


def test_a_collection_may_have_a_consistency_of_its_own() -> None:
    backend = Slow()
    for name in ("a", "b"):
        backend.inner.upsert(name, [0], [[1.0, 0.0]])
    lake = limnion.Lake(backends=[backend])
    lake.set_consistency("a", Consistency.FROZEN)
    lake.set_consistency("b", Consistency.EVENTUAL, ttl=dt.timedelta(hours=1))
    lake.prime("a")
    lake.prime("b")
    for name in ("a", "b"):
        backend.inner.upsert(name, [1], [[0.0, 1.0]])
        assert len(lake.search_one(name, [1.0, 0.0])) == 1
        lake.set_consistency(name, None)
        assert len(lake.search_one(name, [1.0, 0.0])) == 2
    assert lake.stats().backends["slow"].collections["a"].consistency is None
    lake.set_consistency("a", Consistency.STALE, backend="slow")
    assert lake.prime("a").consistency is Consistency.FROZEN


def test_stale_is_another_name_of_frozen() -> None:
    assert Consistency["STALE"] is Consistency.FROZEN
    assert [member.name for member in Consistency] == ["FRESH", "EVENTUAL", "FROZEN"]


def test_an_index_is_built_once_however_many_wait(vectors: Vectors) -> None:
    backend = Slow(seconds=0.2)
    backend.inner.upsert("docs", range(len(vectors)), vectors)
    lake = limnion.Lake(consistency=Consistency.FROZEN, backends=[backend])
    found: list[Any] = []
    begin = threading.Barrier(20)

    def search() -> None:
        begin.wait()
        found.append(lake.search_one("docs", vectors[3], k=1)[0].id)

    threads = [threading.Thread(target=search) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [3] * 20
    assert backend.pulls == 1
    assert lake.stats().primes == 1


def test_ids_may_be_strings(vectors: Vectors) -> None:
    backend = Slow(names=True)
    backend.inner.upsert("docs", range(50), vectors[:50])
    lake = limnion.Lake(backends=[backend])
    hits = lake.search_one("docs", vectors[7], k=3)
    assert hits[0].id == "doc-7"
    assert isinstance(hits.ids, list)
    assert hits.ids[0] == "doc-7"
    hits = lake.search_one("docs", vectors[7], where=["doc-8", "doc-9", "nowhere"])
    assert sorted(hit.id for hit in hits) == ["doc-8", "doc-9"]
    hits = lake.search_one("docs", vectors[7], where=np.array(["doc-8"]))
    assert [hit.id for hit in hits] == ["doc-8"]
    batch = lake.search_batch("docs", vectors[:2], k=1)
    assert batch.ids == [["doc-0"], ["doc-1"]]
    with pytest.raises(errors.InvalidArgumentError, match="ids of the collection are names"):
        lake.search_one("docs", vectors[7], where=[7])
    with pytest.raises(errors.InvalidTypeError, match="all integers or all strings, got int"):
        lake.search_one("docs", vectors[7], where=["doc-7", 7])  # type: ignore[arg-type]


def test_where_is_applied_inside_the_scan(lake: limnion.Lake, vectors: Vectors) -> None:
    for where in ([12, 13], (12, 13), np.array([12, 13]), range(12, 14)):
        hits = lake.search_one("docs", vectors[0], where=where)
        assert sorted(hit.id for hit in hits) == [12, 13]
    assert not lake.search_one("docs", vectors[0], where=[])
    assert not lake.search_one("docs", vectors[0], where=[10**12])


# Federation.


def test_a_federated_search_finds_what_one_index_of_all_finds(vectors: Vectors) -> None:
    lake, index = limnion.Lake(), limnion.RabitqPlusIndex.build(vectors, metric="cosine")
    for part in range(4):
        shard = limnion.LocalBackend(f"shard-{part}")
        shard.upsert("docs", range(part, len(vectors), 4), np.ascontiguousarray(vectors[part::4]))
        lake.register_backend(shard)
    for query in random_vectors(10, 96, seed=9):
        hits = lake.search_federated("docs", query, k=10, recall=1.0)
        expected = index.search(query, k=10, recall=1.0)
        assert isinstance(hits.ids, np.ndarray)
        assert hits.ids.tolist() == expected.ids.tolist()
        assert hits.scores.tolist() == expected.scores.tolist()
        assert {f"shard-{hit.id % 4}" for hit in hits if isinstance(hit.id, int)} == {
            hit.backend for hit in hits
        }
    report = hits.report
    assert list(report) == [f"shard-{part}" for part in range(4)]
    assert all(part.error is None and part.seconds > 0 for part in report.values())
    two = lake.search_federated("docs", vectors[0], k=3, backends=["shard-1", "shard-2"])
    assert set(two.report) == {"shard-1", "shard-2"}
    with pytest.raises(errors.InvalidArgumentError, match="is in the backends shard-0, shard-1"):
        limnion.Lake(backends=lake.backends.values()).search_one("docs", vectors[0])


def test_a_part_of_an_answer_says_who_is_missing(
    shard: limnion.LocalBackend, vectors: Vectors
) -> None:
    class Broken(Slow):
        def pull(self, collection: str) -> Pulled:
            raise ConnectionError(f"the cable to {collection} is out")

    broken, late = Broken("broken"), Slow("late", 5.0)
    for backend in (broken, late):
        backend.inner.upsert("docs", [1], vectors[:1])
    lake = limnion.Lake(backends=[shard, broken, late])
    lake.prime("docs", backend="hot-shard")
    start = time.monotonic()
    hits = lake.search_federated("docs", vectors[3], k=2, on_error="partial", timeout=0.5)
    assert time.monotonic() - start < 2
    assert hits[0].id == 13
    report = hits.report
    assert report["hot-shard"].error is None
    assert isinstance(report["broken"].error, errors.BackendError)
    assert "the cable to docs is out" in str(report["broken"].error)
    assert isinstance(report["late"].error, errors.DeadlineExceeded)
    assert [part.hits for part in report.values()] == [0, 2, 0]
    again = pickle.loads(pickle.dumps(hits))
    assert again == hits
    assert isinstance(again.report["late"], BackendReport)
    assert str(again.report["broken"].error) == str(report["broken"].error)
    assert again.report["late"].seconds == pytest.approx(report["late"].seconds)
    with pytest.raises(errors.BackendError, match="the cable to docs is out"):
        lake.search_federated("docs", vectors[3], timeout=0.5, backends=["broken", "hot-shard"])
    with pytest.raises(errors.BackendError, match="the cable to docs is out"):
        lake.search_federated("docs", vectors[3], on_error="partial", backends=["broken"])


# What comes back.


def test_hits_are_a_sequence_of_named_tuples(lake: limnion.Lake, vectors: Vectors) -> None:
    hits = lake.search_one("docs", vectors[1], k=5)
    assert isinstance(hits, Sequence)
    assert isinstance(hits[0], limnion.LakeHit)
    backend, collection, id_, score, distance = hits[0]
    assert (backend, collection, id_) == ("hot-shard", "docs", 11)
    assert score == pytest.approx(1.0)
    assert distance == pytest.approx(0.0, abs=1e-6)
    assert hits[-1] == hits[4] == list(hits)[4]
    assert hits[1:3].to_list() == hits.to_list()[1:3]
    assert hits[::-2].to_list() == hits.to_list()[::-2]
    assert list(reversed(hits)) == hits.to_list()[::-1]
    assert hits.index(hits[2]) == 2
    assert hits.count(hits[2]) == 1
    assert hits[2] in hits
    assert hits[2]._replace(id=10**6) not in hits
    assert object() not in hits
    with pytest.raises(ValueError, match="not among"):
        hits.index(hits[0], 1)
    with pytest.raises(IndexError):
        hits[5]
    assert hits.report == {}
    assert hits.scores.dtype == hits.distances.dtype == np.float32
    batch = lake.search_batch("docs", vectors[:6], k=2)
    assert isinstance(batch, Sequence)
    assert isinstance(batch[0], limnion.LakeHits)
    assert batch[-1] == batch[5] == batch.to_list()[5]
    assert np.array_equal(batch[1:5:2].ids, np.asarray(batch.ids)[1:5:2])
    assert batch.scores.shape == batch.distances.shape == (6, 2)
    assert batch.index(batch[3]) == 3
    assert batch.count(batch[3]) == 1
    assert batch[3] in batch
    assert next(reversed(batch)) == batch[5]
    assert repr(batch) == "LakeHitsBatch(6 queries, 2 hits each)"


def test_hits_compare_pickle_and_copy(lake: limnion.Lake, vectors: Vectors) -> None:
    hits, batch = lake.search_one("docs", vectors[1]), lake.search_batch("docs", vectors[:4], k=3)
    for result in (hits, hits[:0], hits[0], batch, batch[1:3]):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(result, protocol))
            assert again == result
            assert type(again) is type(result)
        assert copy.deepcopy(result) == result
    assert hits != lake.search_one("docs", vectors[2])
    assert hits != hits.to_list()


def test_hits_show_themselves(lake: limnion.Lake, vectors: Vectors) -> None:
    hits = lake.search_one("docs", vectors[1], k=5)
    assert repr(hits).startswith("LakeHits(5: hot-shard/docs/11: 1.0000, ")
    assert repr(hits).endswith(", ...)")
    assert repr(hits[:0]) == "LakeHits(0)"
    html = hits._repr_html_()
    assert html.count("<tr>") == 6
    assert "<td>hot-shard</td><td>docs</td><td>11</td><td>1.0000</td>" in html
    odd = limnion.LocalBackend("<b>")
    odd.upsert("<i>", [1], [[1.0]])
    assert "<b>" not in limnion.Lake(backends=[odd]).search_one("<i>", [1.0])._repr_html_()


def test_an_empty_collection_has_no_hits() -> None:
    shard = limnion.LocalBackend("shard")
    shard.upsert("docs", [1], [[1.0, 0.0]])
    shard.delete("docs", 1)
    lake = limnion.Lake(backends=[shard])
    assert len(lake.search_one("docs", [1.0, 0.0])) == 0
    assert lake.search_batch("docs", [[1.0, 0.0]] * 3).scores.shape == (3, 0)
    with pytest.raises(errors.InvalidArgumentError, match="k must be at least 1"):
        lake.search_one("docs", [1.0, 0.0], k=0)


# What a lake says of itself.


def test_stats_tell_how_the_lake_has_done(lake: limnion.Lake, vectors: Vectors) -> None:
    assert lake.stats().entries == 0
    assert lake.stats().hit_rate is None
    for _ in range(3):
        lake.search_one("docs", vectors[0])
    stats = lake.stats()
    docs = stats.backends["hot-shard"].collections["docs"]
    assert isinstance(docs, CollectionStats)
    assert (stats.entries, stats.hits, stats.misses, stats.primes) == (1, 2, 1, 1)
    assert (docs.hits, docs.misses, docs.primes, docs.rows) == (2, 1, 1, len(vectors))
    assert stats.hit_rate == docs.hit_rate == stats.backends["hot-shard"].hit_rate == 2 / 3
    assert stats.bytes == docs.bytes == pytest.approx(lake.index("docs").memory_bytes, rel=0.01)
    assert docs.age is not None
    assert 0 <= docs.age < 60
    assert docs.last_prime_seconds == docs.prime_seconds > 0
    assert stats.collections == [docs]
    assert "docs" in repr(stats)
    assert "<td>hot-shard</td><td>docs</td><td>2,000</td>" in stats._repr_html_()
    with pytest.raises(AttributeError):
        stats.entries = 3  # type: ignore[misc]
    assert "<td>docs</td>" in lake._repr_html_()
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_a_repr_is_one_telling_line(lake: limnion.Lake, shard: limnion.LocalBackend) -> None:
    assert repr(limnion.Lake()) == "Lake(no backends, 0 indexes, 0.0 MB, FRESH)"
    lake.prime("docs")
    assert repr(lake) == "Lake(1 backend: hot-shard, 1 index, 0.8 MB, FRESH)"
    assert repr(shard) == 'LocalBackend("hot-shard", docs: 2000 x 96)'
    assert "\n" not in repr(lake.stats())
    eventual = limnion.Lake.builder().consistency(Consistency.EVENTUAL, ttl=dt.timedelta(minutes=1))
    assert repr(eventual.build()).endswith("EVENTUAL 60 s)")
    assert repr(limnion.Lake.builder().bits(3)) == "LakeBuilder(bits=3)"


def test_what_is_in_a_lake(lake: limnion.Lake, vectors: Vectors) -> None:
    key, index = ("hot-shard", "docs"), limnion.FlatF32Index.build(vectors)
    assert key not in lake
    assert "docs" not in lake
    lake.warm("docs")
    assert key in lake
    assert "docs" in lake
    assert index not in lake
    assert lake.index("docs") in lake
    assert ("elsewhere", "docs") not in lake
    assert lake.invalidate("docs")
    assert key not in lake
    with pytest.raises(errors.InvalidTypeError, match="in lake` must be asked of an index"):
        3 in lake  # type: ignore[operator]  # noqa: B015


def test_a_session_keeps_what_it_uses(vectors: Vectors) -> None:
    shard = limnion.LocalBackend("shard")
    for name in ("a", "b", "c"):
        shard.upsert(name, range(1000), vectors[:1000])
    lake = limnion.Lake(max_cache_entries=1, backends=[shard])
    lake.pin("b")
    with lake.session() as s:
        found = s.search_one("a", vectors[3], k=1)
        assert found[0].id == 3
        assert s.used == [("shard", "a")]
        pinned = lake.stats().backends["shard"].collections
        assert pinned["a"].pinned
        for name in ("b", "c", "b"):
            s.search_batch(name, vectors[:3], k=1)
            s.prime(name)
        s.search_federated("a", vectors[0])
        assert s.search_one("a", vectors[3], k=1) == found
        assert lake.stats().backends["shard"].collections["a"].primes == 1
        assert repr(s) == "Session(shard/a, shard/b, shard/c)"
    pins = {each.collection: each.pinned for each in lake.stats().collections}
    assert pins == {"a": False, "b": True, "c": False}
    lake.unpin("b")
    assert not any(each.pinned for each in lake.stats().collections)
    with pytest.raises(errors.LakeError, match="session is over"):
        s.search_one("a", vectors[0])


def test_sessions_side_by_side_count(lake: limnion.Lake, vectors: Vectors) -> None:
    with lake.session() as outer:
        outer.prime("docs")
        with lake.session() as inner:
            inner.search_one("docs", vectors[0])
        assert lake.prime("docs").pinned
        lake.unregister_backend("hot-shard")
    assert lake.backends == {}


def test_backends_come_and_go(lake: limnion.Lake, shard: limnion.LocalBackend) -> None:
    assert lake.backends == {"hot-shard": shard}
    assert lake.backends["hot-shard"] is shard
    lake.prime("docs")
    with pytest.raises(errors.InvalidArgumentError, match='"hot-shard" is registered already'):
        lake.register_backend(limnion.LocalBackend("hot-shard"))
    lake.unregister_backend("hot-shard")
    assert lake.backends == {}
    assert lake.stats().entries == 0
    with pytest.raises(
        limnion.UnknownCollection, match="no backends; add one with register_backend"
    ):
        lake.search_one("docs", [1.0])
    with pytest.raises(limnion.UnknownCollection, match='no backend "hot-shard"'):
        lake.unregister_backend("hot-shard")
    lake.register_backend(shard)
    assert lake.prime("docs").primes == 1


def test_an_index_of_a_lake_is_not_copied(lake: limnion.Lake) -> None:
    one, two = np.asarray(lake.index("docs")), np.asarray(lake.index("docs"))
    assert np.shares_memory(one, two)
    changed = lake.index("docs")
    changed.remove([10, 11])
    assert len(lake.index("docs")) == 2000
    assert changed not in lake


def test_a_local_backend_fits_the_protocol(shard: limnion.LocalBackend, vectors: Vectors) -> None:
    assert isinstance(shard, Backend)
    assert shard.list_collections() == ["docs"]
    assert shard.describe("docs") == Description(96, len(vectors), 1)
    assert shard.generation("docs") == 1
    ids, rows, generation = shard.pull("docs")
    assert isinstance(ids, np.ndarray)
    assert isinstance(rows, np.ndarray)
    assert (ids.tolist(), generation) == (list(range(10, 10 + len(vectors))), 1)
    assert np.array_equal(rows, vectors)
    assert shard.drop_collection("docs")
    assert not shard.drop_collection("docs")
    for ask in (shard.describe, shard.pull, shard.generation):
        with pytest.raises(limnion.UnknownCollection, match='no collection "docs"'):
            ask("docs")


# Time.


def test_who_waits_too_long_is_told_and_what_is_built_goes_on(vectors: Vectors) -> None:
    backend = Slow(seconds=0.6)
    backend.inner.upsert("docs", range(100), vectors[:100])
    lake = limnion.Lake(consistency=Consistency.FROZEN, backends=[backend])
    start = time.monotonic()
    with pytest.raises(limnion.DeadlineExceeded, match=r"did not come within 0\.1 s; give it more"):
        lake.search_one("docs", vectors[0], timeout=0.1)
    assert 0.09 < time.monotonic() - start < 0.4
    with pytest.raises(TimeoutError):
        lake.prime("docs", timeout=dt.timedelta(milliseconds=10))
    assert lake.search_one("docs", vectors[0], k=1, timeout=30)[0].id == 0
    assert backend.pulls == 1


def test_who_wants_only_what_is_there_is_told_where_it_is_not(
    lake: limnion.Lake, vectors: Vectors
) -> None:
    with pytest.raises(limnion.CacheMissError, match="no index of hot-shard/docs is in memory"):
        lake.search_one("docs", vectors[0], cached_only=True)
    with pytest.raises(limnion.CacheMissError):
        lake.search_federated("docs", vectors[0], cached_only=True)
    lake.prime("docs")
    assert lake.search_one("docs", vectors[0], cached_only=True)
    assert lake.search_batch("docs", vectors[:2], cached_only=True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt, whatever the runner of the tests made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("verb", ["prime", "search_one", "search_federated", "refresh"])
def test_ctrl_c_ends_the_wait_and_not_the_build(vectors: Vectors, verb: str) -> None:
    backend = Slow(seconds=1.0)
    backend.inner.upsert("docs", range(100), vectors[:100])
    lake = limnion.Lake(consistency=Consistency.FROZEN, backends=[backend])
    sent = 0.0

    def send() -> None:
        nonlocal sent
        time.sleep(0.3)
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    arguments: tuple[Any, ...] = ("docs", vectors[0]) if "search" in verb else ("docs",)
    with pytest.raises(KeyboardInterrupt):
        getattr(lake, verb)(*arguments)
    took = time.perf_counter() - sent
    thread.join()
    assert took < 0.2
    assert lake.search_one("docs", vectors[0], k=1)[0].id == 0
    assert backend.pulls == 1


# Processes.

PRELUDE = """
import asyncio, os, sys, threading, time
import numpy as np
import limnion
vectors = np.random.default_rng(0).standard_normal((60_000, 64), dtype=np.float32)
shard = limnion.LocalBackend("shard")
shard.upsert("docs", range(len(vectors)), vectors)
class Slow:
    name = "slow"
    def list_collections(self): return ["slow"]
    def describe(self, collection): return (64, 100, 1)
    def pull(self, collection):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if HOT: sum(range(1000))
            else: time.sleep(0.01)
        return (range(100), vectors[:100], 1)
SECONDS, HOT = 30.0, False
lake = limnion.Lake(backends=[shard, Slow()])
"""

WAYS = {
    "a build that waits": """
try:
    lake.search_one("slow", vectors[0], timeout=0.1)
except TimeoutError:
    pass
""",
    "a build in the middle of Python code": """
HOT = True
try:
    lake.search_one("slow", vectors[0], timeout=0.1)
except TimeoutError:
    pass
""",
    "awaits in flight": """
async def main():
    for _ in range(200):
        asyncio.ensure_future(lake.search_one_async("docs", vectors[0]))
        asyncio.ensure_future(lake.search_one_async("slow", vectors[0]))
    await asyncio.sleep(0.01)
asyncio.run(main())
""",
    "a backend that ends with the program": """
SECONDS = 0.15
HOT = True
try:
    lake.search_one("slow", vectors[0], timeout=0.1)
except TimeoutError:
    pass
""",
    "daemon threads at work": """
def work():
    while True:
        shard.upsert("docs", [1], vectors[:1])
        lake.search_one("docs", vectors[0])
        lake.search_batch("docs", vectors[:20])
        lake.invalidate("docs")
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_exit_is_silent_and_clean(run_python: RunPython, way: str) -> None:
    for _ in range(3):
        start = time.monotonic()
        done = run_python(PRELUDE + WAYS[way])
        assert (done.returncode, done.stderr) == (0, "")
        assert time.monotonic() - start < 15


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_child_uses_the_lake_afresh(run_python: RunPython) -> None:
    done = run_python(
        PRELUDE
        + """
lake.prime("docs")
lake.set_consistency("docs", limnion.Consistency.FROZEN)
lake.pin("docs")
before = [hit.id for hit in lake.search_one("docs", vectors[5])]
stop = threading.Event()
def work():
    while not stop.is_set():
        lake.search_one("docs", vectors[0])
        lake.invalidate("docs")
        shard.upsert("docs", [7], vectors[7:8])
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
try:
    lake.search_one("slow", vectors[0], timeout=0.05)
except TimeoutError:
    pass
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        SECONDS = 0.0
        try:
            lake.invalidate("docs")
            same = [hit.id for hit in lake.search_one("docs", vectors[5])] == before
            async def main():
                return await lake.search_one_async("slow", vectors[3], 1)
            own = asyncio.run(main())[0].id == 3
            pinned = lake.stats().backends["shard"].collections["docs"].pinned
            shard.upsert("new", [1], vectors[:1])
            new = lake.search_one("new", vectors[0])[0].id == 1
            os._exit(0 if same and own and pinned and new else 3)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(4)
    codes.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in codes])
stop.set()
for thread in threads: thread.join()
print(lake.search_one("docs", vectors[5])[0].id)
""",
        seconds=60,
    )
    assert done.stdout == f"{[0] * 10}\n5\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_fork_in_the_middle_of_a_write_leaves_no_lock_behind(run_python: RunPython) -> None:
    done = run_python(
        PRELUDE
        + """
stop = threading.Event()
def work(name):
    while not stop.is_set():
        shard.upsert(name, range(len(vectors)), vectors)
threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
for thread in threads: thread.start()
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        os._exit(lake.search_one("docs", vectors[5], 1, backend="shard", timeout=20)[0].id)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads: thread.join()
print(codes)
""",
        seconds=100,
    )
    assert done.stdout == f"{[5] * 10}\n", done.stderr


# Misuse.


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"consistency": "fresh"}, TypeError, "got 'fresh'; write Consistency.FRESH"),
        ({"consistency": "EVENTUAL"}, TypeError, "got 'EVENTUAL'; write Consistency.EVENTUAL"),
        ({"consistency": "stale"}, TypeError, "got 'stale'; write Consistency.FROZEN"),
        ({"consistency": "nearly"}, TypeError, "got str; write Consistency.FRESH, EVENTUAL or"),
        ({"consistency": 1}, TypeError, "must be a member of limnion.Consistency, got int"),
        ({"consistency": None}, TypeError, "must be a member of limnion.Consistency, got NoneType"),
        ({"consistency": Consistency.EVENTUAL}, ValueError, "ttl must be given with"),
        ({"ttl": 3}, ValueError, "ttl must go with Consistency.EVENTUAL alone, got 3 with FRESH"),
        ({"consistency": Consistency.EVENTUAL, "ttl": 0}, ValueError, "ttl must be more than 0"),
        ({"consistency": Consistency.EVENTUAL, "ttl": -1.0}, ValueError, "ttl must be more than 0"),
        ({"consistency": Consistency.EVENTUAL, "ttl": float("nan")}, ValueError, "got nan"),
        ({"consistency": Consistency.EVENTUAL, "ttl": "5"}, TypeError, "seconds or a timedelta"),
        ({"consistency": Consistency.EVENTUAL, "ttl": True}, TypeError, "timedelta, got bool"),
        ({"metric": "euclid"}, ValueError, "metric"),
        ({"bits": 9}, ValueError, "bits must be 0 to 8, got 9"),
        ({"bits": 0, "originals": None}, ValueError, "bits=0 must go with originals='f32'"),
        ({"originals": "f64"}, ValueError, "originals must be 'f32' or 'f16'"),
        ({"rerank_factor": 0}, ValueError, "rerank_factor must be at least 1, got 0"),
        ({"rerank_factor": 2.5}, TypeError, "rerank_factor must be an integer, got float"),
        ({"rotation_seed": -1}, ValueError, "rotation_seed must be from 0"),
        ({"max_cache_entries": 0}, ValueError, "max_cache_entries must be at least 1, got 0"),
        ({"max_cache_bytes": 0}, ValueError, "max_cache_bytes must be at least 1, got 0"),
        ({"max_cache_bytes": "1 GB"}, TypeError, "max_cache_bytes must be an integer, got str"),
        ({"backends": 3}, TypeError, "not iterable"),
        ({"nonsense": 3}, TypeError, "unexpected keyword"),
    ],
)
def test_a_lake_refuses_what_it_cannot_use(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as raised:
        limnion.Lake(**options)
    assert message in str(raised.value)
    if "consistency" in options and "ttl" not in options:
        with pytest.raises(error) as raised:
            limnion.Lake.builder().consistency(options["consistency"]).build()
        assert message in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3, None), {}, TypeError, "collection must be a string, got int"),
        (
            ("docs", "text"),
            {},
            TypeError,
            "query must be a C-contiguous float32 array of shape (d,)",
        ),
        (("docs", np.zeros(96)), {}, TypeError, "got float64 of shape (96,)"),
        (
            ("docs", [1.0, 2.0]),
            {},
            ValueError,
            "query must have 96 dimensions like the index, got 2",
        ),
        (("docs", None, 0), {}, ValueError, "k must be at least 1"),
        (("docs", None, -1), {}, ValueError, "k must be from 0"),
        (("docs", None, "3"), {}, TypeError, "k must be an integer, got str"),
        (("docs", None), {"recall": 0}, ValueError, "recall"),
        (("docs", None), {"recall": "high"}, TypeError, "recall must be a number, got str"),
        (("docs", None), {"rerank_factor": -1}, ValueError, "rerank_factor must be from 0"),
        (("docs", None), {"backend": 3}, TypeError, "backend must be a string, got int"),
        (("docs", None), {"backend": "x"}, KeyError, 'the lake has no backend "x"; it has hot-sh'),
        (("nodocs", None), {}, KeyError, 'backend "hot-shard" has no collection "nodocs"'),
        (("", None), {}, ValueError, "collection must not be empty"),
        (("a\x00", None), {}, ValueError, "collection must have no control characters"),
        (("docs", None), {"timeout": 0}, ValueError, "timeout must be more than 0 seconds, got 0"),
        (
            ("docs", None),
            {"timeout": -3},
            ValueError,
            "timeout must be more than 0 seconds, got -3",
        ),
        (("docs", None), {"timeout": "1s"}, TypeError, "timeout must be seconds or a timedelta"),
        (("docs", None), {"where": 3}, TypeError, "where must be ids or a filter, got int"),
        (("docs", None), {"where": np.ones(3, dtype=bool)}, TypeError, "got a mask"),
        (("docs", None), {"where": [-1]}, ValueError, "where must be from 0"),
        (
            ("docs", None),
            {"where": {"year": 3}},
            ValueError,
            "has nothing to filter by; give the ids",
        ),
        (("docs", None), {"where": "year = 3"}, ValueError, "has nothing to filter by"),
        (("docs", None), {"where": limnion.F("year") > 3}, ValueError, "has nothing to filter by"),
        (("docs", None), {"where": {"$what": 3}}, ValueError, "$what"),
        (
            ("docs", None),
            {"cached_only": "yes"},
            TypeError,
            "cached_only must be True or False, got str",
        ),
        (("docs", None), {"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_a_search_refuses_what_it_cannot_use(  # noqa: PLR0917
    lake: limnion.Lake, vectors: Vectors, arguments: Any, options: Any, error: Any, message: str
) -> None:
    collection, query, *k = arguments
    query = vectors[0] if query is None else query
    with pytest.raises(error) as raised:
        lake.search_one(collection, query, *k, **options)
    assert message in str(raised.value)
    assert lake.search_one("docs", vectors[0], k=1)[0].id == 10


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"on_error": "ignore"},
            ValueError,
            "on_error must be 'raise' or 'partial', got \"ignore\"",
        ),
        ({"on_error": 3}, TypeError, "on_error must be a string, got int"),
        ({"backends": "hot-shard"}, TypeError, "write backends=['hot-shard']"),
        ({"backends": []}, ValueError, "backends must name at least one backend, got none"),
        (
            {"backends": ["hot-shard"] * 2},
            ValueError,
            'backends must be different, got "hot-shard"',
        ),
        ({"backends": ["x"]}, KeyError, 'the lake has no backend "x"'),
        ({"backends": [3]}, TypeError, "backends must be a string, got int"),
        ({"backends": 3}, TypeError, "backends must be a list of the names of backends, got int"),
    ],
)
def test_a_federated_search_refuses_what_it_cannot_use(
    lake: limnion.Lake, vectors: Vectors, options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error) as raised:
        lake.search_federated("docs", vectors[0], **options)
    assert message in str(raised.value)


def test_a_local_backend_refuses_what_it_cannot_use(vectors: Vectors) -> None:
    shard = limnion.LocalBackend("shard")
    ids = range(3)
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: limnion.LocalBackend(3), TypeError, "name must be a string"),  # type: ignore[arg-type]
        (lambda: shard.upsert("", ids, vectors[:3]), ValueError, "collection must not be empty"),
        (lambda: shard.upsert("a", [1, 1, 2], vectors[:3]), ValueError, "unique, got 1 twice"),
        (lambda: shard.upsert("a", [1, 2], vectors[:3]), ValueError, "2 ids, 3 vectors"),
        (lambda: shard.upsert("a", ids, vectors[0]), TypeError, r"shape \(n, d\), got float32 of"),
        (lambda: shard.upsert("a", ids, vectors[:3] * np.nan), ValueError, "row 0, column 0"),
        (lambda: shard.upsert("a", ["x"], vectors[:1]), TypeError, "ids must be"),  # type: ignore[list-item]
        (lambda: shard.delete("a", 3), KeyError, "no collection"),
        (lambda: shard.pull("a"), KeyError, "no collection"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()
    assert shard.list_collections() == []
    shard.upsert("a", ids, vectors[:3])
    with pytest.raises(limnion.DimensionMismatch, match="must have 96 dimensions like collection"):
        shard.upsert("a", ids, [[1.0]] * 3)
    with pytest.raises(errors.InvalidArgumentError, match="name of a backend must not be empty"):
        limnion.Lake(backends=[limnion.LocalBackend("")])
    assert shard.describe("a").count == 3
