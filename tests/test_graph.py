"""What a graph promises beyond what all indexes do: recall, walks, layouts, changes in place."""

import asyncio
import functools
import hashlib
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import (
    RunPython,
    Vectors,
    clustered,
    nearest_of,
    random_vectors,
    share,
    whole_numbers,
)

import limnion
from limnion import errors
from limnion.indexes import Walked
from limnion.types import Layout, Metric, Originals

METRICS: list[Metric] = ["l2", "ip", "cosine"]
DIM = 64
COUNT = 10_000
ROWS, QUERIES = clustered(COUNT, seed=1), clustered(300, seed=2)


@functools.cache
def graph(metric: Metric, bits: int, originals: Originals | None) -> limnion.GraphIndex:
    """Return an index of all rows, which nobody may change."""
    return limnion.GraphIndex.build(ROWS, metric=metric, bits=bits, originals=originals)


@pytest.fixture
def index() -> limnion.GraphIndex:
    """Return an index of all rows, which nobody may change."""
    return graph("l2", 4, "f16")


@functools.cache
def exact(metric: Metric) -> limnion.HitsBatch:
    return limnion.FlatF32Index.build(ROWS, metric=metric).search_batch(QUERIES)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("bits", "originals"), [(4, "f16"), (1, "f32")])
def test_a_recall_is_kept_on_queries_that_were_not_seen(
    metric: Metric, bits: int, originals: Originals
) -> None:
    index, truth = graph(metric, bits, originals), exact(metric)
    assert share(index.search_batch(QUERIES), truth) >= 0.935
    assert share(index.search_batch(QUERIES, recall=0.95), truth) >= 0.935
    assert share(index.search_batch(QUERIES, recall=0.99), truth) >= 0.98
    assert share(index.search_batch(QUERIES, recall=0.8), truth) >= 0.78


def test_recall_is_kept_on_text(run_python: RunPython) -> None:
    # Real embeddings, made on the spot: of the documentation that Python has of itself.
    program = """
        import inspect, pkgutil, importlib, warnings
        import limnion, numpy as np
        from limnion.indexes import FlatF32Index
        warnings.simplefilter("ignore")
        texts = set()
        for name in sorted(__import__("sys").stdlib_module_names):
            if name.startswith("_") or name in {"antigravity", "this", "idlelib", "turtledemo"}:
                continue
            try:
                source = inspect.getsource(importlib.import_module(name))
            except Exception:
                continue
            lines = source.splitlines()
            texts |= {" ".join(lines[i : i + 6]) for i in range(0, len(lines) - 6, 6)}
        texts = sorted(texts)
        vectors = limnion.Embedder.builtin().embed_batch(texts)
        vectors = vectors[np.abs(vectors).sum(axis=1) > 0]
        order = np.random.default_rng(0).permutation(len(vectors))
        queries, rows = vectors[order[:200]], np.ascontiguousarray(vectors[order[200:]])
        truth = FlatF32Index.build(rows, metric="cosine").search_batch(queries).ids
        index = limnion.GraphIndex.build(rows)
        for recall in (0.9, 0.95, 0.99):
            found = index.search_batch(queries, recall=recall).ids
            shares = [len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth)]
            print(len(rows), recall, np.mean(shares))
        """
    done = run_python(program, seconds=200)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        rows, asked, found = map(float, line.split())
        assert rows > 5_000
        assert found >= asked - 0.02, line


@pytest.mark.parametrize("metric", METRICS)
def test_recall_one_is_exact(metric: Metric) -> None:
    index = graph(metric, 1, "f32")
    assert index.search_batch(QUERIES, recall=1.0) == exact(metric)
    for query in QUERIES[:5]:
        assert index.search(query) == index.search_batch(query[None])[0]


def test_codes_alone_find_most() -> None:
    index = graph("l2", 8, None)
    assert share(index.search_batch(QUERIES), exact("l2")) >= 0.9
    with pytest.raises(errors.InvalidArgumentError, match=r"recall=1\.0 needs the original"):
        index.search(QUERIES[0], recall=1.0)
    with pytest.raises(errors.NoOriginalsError):
        index[3]
    assert 7 not in index.search_by_id(7).ids


def test_a_default_search_looks_at_few_rows(index: limnion.GraphIndex) -> None:
    told = [index.explain(query) for query in QUERIES]
    assert all(isinstance(one, Walked) for one in told)
    assert np.mean([one.followed for one in told]) < len(index) / 20
    assert np.mean([one.scanned for one in told]) < len(index) / 2
    assert np.mean([one.refined for one in told]) < len(index) / 20
    assert index.explain(QUERIES[0], 3, recall=1.0) == (0, 0, len(index))


def test_a_wider_walk_finds_more(index: limnion.GraphIndex) -> None:
    truth = exact("l2")
    shares = [share(index.search_batch(QUERIES, ef=ef), truth) for ef in (10, 30, 60, 270)]
    assert shares == sorted(shares)
    assert shares[-1] >= 0.99
    followed = [index.explain(QUERIES[0], ef=ef).followed for ef in (10, 60)]
    assert followed[0] < followed[1]
    for ef in (len(index), 2**32 - 1):
        assert index.explain(QUERIES[0], ef=ef).scanned == len(index)


def test_layouts_differ_in_memory_and_not_in_what_is_found(tmp_path: Path) -> None:
    index = limnion.GraphIndex.build(ROWS[:3000])
    inline = limnion.GraphIndex.build(ROWS[:3000], layout="inline")
    assert (index.layout, inline.layout) == ("compact", "inline")
    assert inline.memory_bytes > 2 * index.memory_bytes
    assert index != inline
    batch = index.search_batch(QUERIES, ef=20)
    assert share(inline.search_batch(QUERIES, ef=20), batch) > 0.9
    index.save(tmp_path / "compact")
    index.set_layout("inline")
    assert index.layout == "inline"
    assert index.memory_bytes > 2 * limnion.GraphIndex.load(tmp_path / "compact").memory_bytes
    mapped = limnion.GraphIndex.load(tmp_path / "compact", mmap=True)
    mapped.set_layout("inline")
    assert mapped == index
    index.set_layout("compact")
    assert index == limnion.GraphIndex.load(tmp_path / "compact")
    assert index.search_batch(QUERIES, ef=20) == batch


def test_links_are_as_many_as_are_wanted_at_most() -> None:
    for degree in (4, 16, 100):
        index = limnion.GraphIndex.build(ROWS[:3000], degree=degree)
        assert index.degree == degree
        assert 2 <= index.mean_degree <= degree


def test_a_graph_takes_little_memory_beside_the_vectors(index: limnion.GraphIndex) -> None:
    each = 2 * DIM + 4 * DIM / 8 + 14 + 4 * 32  # original, code, links
    assert index.memory_bytes / len(index) < 1.6 * each


SIDES: dict[str, Callable[[int], np.ndarray[Any, Any]]] = {
    # Whatever rows.
    "scattered": lambda count: np.random.default_rng(count).choice(COUNT, count, replace=False),
    # Those farthest on one side of space, where most queries are far from all of them.
    "correlated": lambda count: np.argsort(ROWS[:, 0])[:count],
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("side", SIDES)
def test_where_misses_little_and_gives_k_whenever_k_match(metric: Metric, side: str) -> None:
    index = graph(metric, 1, "f32")
    flat = limnion.FlatF32Index.build(ROWS, metric=metric)
    for count in (5, 10, 100, 1000, 5000):  # from 0.05 % on
        allowed = SIDES[side](count)
        mask = np.zeros(len(ROWS), dtype=bool)
        mask[allowed] = True
        truth = flat.search_batch(QUERIES[:100], where=mask)
        found = index.search_batch(QUERIES[:100], where=mask)
        assert all(len(hits) == min(10, count) for hits in found)
        assert mask[found.ids].all()
        assert share(found, truth) >= 0.93, count
        assert index.search_batch(QUERIES[:100], where=allowed) == found
        assert index.search_batch(QUERIES[:100], where=index.select(mask)) == found
        assert index.search_batch(QUERIES[:100], recall=1.0, where=mask) == truth
        others = np.flatnonzero(~mask)
        assert share(index.search_batch(QUERIES[:20], exclude=others), truth[:20]) >= 0.9
        hits = index.search(QUERIES[0], k=count, where=mask)
        assert sorted(hits.ids.tolist()) == sorted(allowed.tolist())
    assert len(index.search(QUERIES[0], where=[])) == 0


@pytest.mark.parametrize("k", [1, 100, 5_000, 10_000, 30_000])
def test_k_hits_come_however_many_are_wanted(index: limnion.GraphIndex, k: int) -> None:
    hits = index.search(QUERIES[0], k=k)
    assert len(hits) == min(k, len(index))
    assert len(set(hits.ids.tolist())) == len(hits)
    assert (np.diff(hits.distances) >= 0).all()
    if k <= 100:
        assert len(index.search(QUERIES[0], k=k, ef=1)) == k


def test_what_is_excluded_is_not_found_and_others_are(index: limnion.GraphIndex) -> None:
    first = index.search(QUERIES[0], k=20, recall=1.0)
    for count in (1, 5, 15):
        found = index.search(QUERIES[0], k=5, recall=1.0, exclude=first.ids[:count])
        assert found == first[count : count + 5]
    near = index.search_by_id(17, recall=1.0)
    assert near == index.search(index[17], k=11, recall=1.0)[1:]
    assert 17 not in index.search_by_id(17, k=len(index)).ids


def test_a_radius_bounds_what_is_found(index: limnion.GraphIndex) -> None:
    truth = exact("l2")
    radius = float(np.median(truth.distances[:, 4]))
    missed = wanted = 0
    for query, near in zip(QUERIES, truth, strict=True):
        hits = index.search(query, radius=radius)
        assert (hits.distances <= radius).all()
        expected = {hit.id for hit in near if hit.distance <= radius * 0.999}
        missed += len(expected - set(hits.ids.tolist()))
        wanted += len(expected)
    assert missed <= 0.07 * wanted


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("layout", ["compact", "inline"])
@pytest.mark.parametrize("dim", [1, 2, 4096])
def test_any_dimension_will_do(metric: Metric, layout: Layout, dim: int) -> None:
    count = 300 if dim == 4096 else 3000
    rows = random_vectors(count, dim) + 0.01
    options: dict[str, Any] = {"metric": metric, "layout": layout, "originals": "f32"}
    index = limnion.GraphIndex.build(rows, **options)
    truth = limnion.FlatF32Index.build(rows, metric=metric).search_batch(rows[:20])
    np.testing.assert_allclose(
        index.search_batch(rows[:20], recall=1.0).distances, truth.distances, rtol=1e-5, atol=1e-5
    )
    assert all(len(hits) == 10 for hits in index.search_batch(rows[:20]))
    index.add_batch(rows[:5])
    index.remove(range(0, count, 2))
    assert len(index.search(rows[0], k=count)) == len(index)


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((3000, 24), dtype=np.float32),
        np.repeat(random_vectors(10, 24), 300, axis=0),
        np.tile(np.eye(24, dtype=np.float32), (125, 1)),
        np.concatenate([random_vectors(40, 24) * 50, random_vectors(2960, 24) * 0.01 + 3]),
        random_vectors(1, 24),
        random_vectors(2, 24),
    ],
    ids=["all equal", "duplicates", "one hot", "uneven clusters", "one row", "two rows"],
)
def test_hard_rows_are_found(rows: Vectors) -> None:
    for bits, originals in ((4, "f16"), (1, "f32")):
        index = limnion.GraphIndex.build(rows, metric="l2", bits=bits, originals=originals)  # type: ignore[arg-type]
        for row in (0, len(rows) // 2, len(rows) - 1):
            hits = index.search(rows[row])
            assert len(hits) == min(10, len(rows))
            assert hits[0].distance <= 0.05 * np.linalg.norm(rows[row])
        assert len(index.search(rows[0], k=10_000)) == len(rows)


def test_an_index_begins_with_nothing_and_may_end_so(tmp_path: Path) -> None:
    index = limnion.GraphIndex.build(ROWS[:0])
    assert len(index) == 0
    with pytest.raises(errors.EmptyIndex):
        index.search(QUERIES[0])
    index.save(tmp_path / "empty")
    assert limnion.GraphIndex.load(tmp_path / "empty", mmap=True) == index
    for _ in range(2):
        index.add_batch(ROWS[:3000])
        assert index.search(ROWS[5], k=1)[0].id == 5
        index.remove(index.ids)
        assert len(index) == 0
    index.add(id=3, vector=ROWS[0])
    assert index.search(ROWS[0]).ids.tolist() == [3]


class Both:
    """A graph beside a dictionary of the same rows."""

    def __init__(
        self, index: limnion.GraphIndex, numbers: np.random.Generator, rows: Vectors
    ) -> None:
        self.index = index
        self.numbers = numbers
        self.model: dict[int, Vectors] = dict(enumerate(rows))

    def some(self, count: int) -> list[int]:
        """Return some of the ids."""
        known: list[int] = self.numbers.permutation(sorted(self.model)).astype(int).tolist()
        return known[:count]

    def add(self, _count: int) -> None:
        """Add a row, or change it where it is there."""
        id_, vector = int(self.numbers.integers(0, 2000)), whole_numbers(self.numbers, 1)[0]
        (self.index.update if id_ in self.index else self.index.add)(id_, vector)
        self.model[id_] = vector

    def add_batch(self, count: int) -> None:
        """Add rows that are numbered on."""
        vectors = whole_numbers(self.numbers, count)
        self.index.add_batch(vectors)
        self.model.update(enumerate(vectors, start=max(self.model, default=-1) + 1))

    def remove(self, count: int) -> None:
        """Remove some rows."""
        ids = self.some(count)
        self.index.remove(ids)
        self.model = {id_: vector for id_, vector in self.model.items() if id_ not in ids}

    def update(self, count: int) -> None:
        """Change some rows."""
        ids = self.some(count)
        vectors = whole_numbers(self.numbers, len(ids))
        self.index.update_batch(ids, vectors)
        self.model.update(zip(ids, vectors, strict=True))

    def merge(self, count: int) -> None:
        """Take another index in."""
        first = max(self.model, default=-1) + 1
        ids, vectors = range(first, first + count), whole_numbers(self.numbers, count)
        self.index.merge(limnion.GraphIndex.build(vectors, ids, self.index.metric, bits=1))
        self.model.update(zip(ids, vectors, strict=True))

    def set_layout(self, count: int) -> None:
        """Change the layout."""
        self.index.set_layout("inline" if count > 20 else "compact")


@settings(max_examples=25, deadline=None)
@given(
    start=st.sampled_from([0, 3, 400]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                [Both.add, Both.add_batch, Both.remove, Both.update, Both.merge, Both.set_layout]
            ),
            st.sampled_from([1, 20, 150, 400]),
        ),
        max_size=10,
    ),
    options=st.fixed_dictionaries(
        {
            "metric": st.sampled_from(METRICS),
            "originals": st.sampled_from(["f32", "f16"]),
            "bits": st.sampled_from([1, 4, 8]),
            "degree": st.sampled_from([4, 32, 40]),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_a_graph_holds_what_a_dictionary_holds(
    start: int,
    steps: list[tuple[Callable[[Both, int], None], int]],
    options: dict[str, Any],
    seed: int,
) -> None:
    numbers = np.random.default_rng(seed)
    rows = whole_numbers(numbers, start)
    index = limnion.GraphIndex.build(rows, **options)
    both = Both(index, numbers, rows)
    for step, count in steps:
        step(both, count)
    assert len(index) == len(both.model)
    assert dict(index).keys() == both.model.keys()
    for id_, vector in index:
        np.testing.assert_array_equal(vector, both.model[id_])
    if both.model:
        query = whole_numbers(numbers, 1)[0]
        expected = nearest_of(both.model, query, index.metric)
        hits = index.search(query, k=5, recall=1.0)
        np.testing.assert_allclose(hits.distances, expected[:5], rtol=1e-4, atol=1e-4)
        assert len(index.search(query, k=5)) == len(expected[:5])
        assert len(index.search(query, k=5, ef=1)) == len(expected[:5])
        everything = index.search(query, k=len(index), ef=2**32 - 1)
        assert set(everything.ids.tolist()) == both.model.keys()
    assert pickle.loads(pickle.dumps(index)) == index


def test_recall_is_kept_by_an_index_that_grew() -> None:
    index = limnion.GraphIndex.build(ROWS[:4000], metric="l2", originals="f32")
    for first in range(4000, COUNT, 500):
        index.add_batch(ROWS[first : first + 500])
    assert share(index.search_batch(QUERIES), exact("l2")) >= 0.93
    assert index.search_batch(QUERIES, recall=1.0) == exact("l2")


def test_a_changed_index_comes_back_from_a_file(tmp_path: Path) -> None:
    index = limnion.GraphIndex.build(ROWS[:3000], bits=2)
    index.remove(range(0, 1500, 6))
    index.add_batch(ROWS[7000:7500])
    index.save(tmp_path / "index")
    for mmap in (False, True):
        again = limnion.GraphIndex.load(tmp_path / "index", mmap=mmap)
        assert again == index
        for options in ({}, {"recall": 0.99}, {"ef": 30}, {"recall": 1.0}):
            found = again.search_batch(QUERIES, **options)
            assert found == index.search_batch(QUERIES, **options)
        again.add(id=10**6, vector=ROWS[0])
        assert again != index
        assert 10**6 in again.search(ROWS[0], k=2).ids


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), mmap=st.booleans())
def test_a_flipped_bit_is_noticed_or_means_nothing(
    tmp_path: Path, place: float, bit: int, mmap: bool
) -> None:
    path = tmp_path / "flipped"
    index = limnion.GraphIndex.build(random_vectors(200, 24), range(5, 205), degree=8)
    index.save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        again = limnion.GraphIndex.load(path, mmap=mmap)
        np.asarray(again)
        found = again.search(random_vectors(1, 24, seed=3)[0])
        again.save(tmp_path / "again")  # which verifies all of it
    except (errors.PersistError, errors.CorruptFileError):
        return
    assert found == index.search(random_vectors(1, 24, seed=3)[0])
    assert again == index


def test_files_of_other_indexes_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "index"
    others = (limnion.IvfIndex, limnion.RabitqPlusIndex, limnion.FlatF32Index)
    limnion.GraphIndex.build(ROWS[:50]).save(path)
    for other in others:
        with pytest.raises(errors.PersistError, match=r"write GraphIndex\.load\(path\)"):
            other.load(path)
    for other in others:
        other.build(ROWS[:50]).save(path)
        for mmap in (False, True):
            with pytest.raises(errors.PersistError, match=rf"write {other.__name__}\.load"):
                limnion.GraphIndex.load(path, mmap=mmap)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ef": 0}, "ef must be at least 1, got 0"),
        ({"ef": -1}, "ef must be from 0"),
        ({"ef": 2**32}, "ef must be below"),
        ({"ef": 3, "recall": 0.9}, "recall and ef are two ways"),
        ({"recall": 1.5}, "recall must be above 0 and at most 1"),
        ({"k": 0}, "k must be at least 1"),
        ({"where": np.ones(3, dtype=bool)}, "where must have"),
        ({"radius": float("nan")}, "radius must"),
    ],
)
def test_wrong_options_are_told_apart(
    index: limnion.GraphIndex, options: dict[str, Any], said: str
) -> None:
    query = QUERIES[0]
    acts = (index.search, index.explain, lambda q, **o: index.search_batch(q[None], **o))
    for act in acts:
        with pytest.raises(errors.InvalidArgumentError, match=said):
            act(query, **options)


def test_wrong_types_are_told_apart(index: limnion.GraphIndex) -> None:
    for wrong in (1.5, "3", True):
        with pytest.raises(errors.InvalidTypeError, match="ef must be an integer"):
            index.search(QUERIES[0], ef=wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidTypeError, match="layout must be a string"):
        index.set_layout(3)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match="layout must be 'compact' or 'inline'"):
        index.set_layout("dense")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidTypeError, match="other must be an index of the same kind"):
        index.merge(limnion.IvfIndex.build(ROWS[:9], metric="l2"))
    with pytest.raises(errors.InvalidArgumentError, match="metric"):
        index.merge(limnion.GraphIndex.build(ROWS[:9], range(90_000, 90_009), "ip"))


def test_a_graph_equals_no_other_kind() -> None:
    graph = limnion.GraphIndex.build(ROWS[:50], metric="l2")
    assert graph != limnion.IvfIndex.build(ROWS[:50])
    assert graph != limnion.RabitqPlusIndex.build(ROWS[:50])
    assert graph == limnion.GraphIndex.build(ROWS[:50], metric="l2")
    assert graph != limnion.GraphIndex.build(ROWS[:50], metric="l2", degree=16)


def test_awaits_of_any_length_find_what_calls_find(index: limnion.GraphIndex) -> None:
    async def main() -> None:
        short = [index.search_async(query, ef=20) for query in QUERIES]
        long = [index.search_async(query, recall=1.0) for query in QUERIES[:20]]
        by_id = [index.search_by_id_async(row) for row in range(5)]
        assert await asyncio.gather(*short) == list(index.search_batch(QUERIES, ef=20))
        assert await asyncio.gather(*long) == list(index.search_batch(QUERIES[:20], recall=1.0))
        assert await asyncio.gather(*by_id) == [index.search_by_id(row) for row in range(5)]
        batch = await index.search_batch_async(QUERIES, radius=5.0, where=range(100))
        assert batch == index.search_batch(QUERIES, radius=5.0, where=range(100))

    asyncio.run(main())


def test_searches_beside_changes_see_whole_states() -> None:
    index = limnion.GraphIndex.build(ROWS[:4000], metric="l2", originals="f32")
    problems: list[BaseException] = []
    stop = threading.Event()

    def change() -> None:
        try:
            for _ in range(4):
                index.add_batch(ROWS[4000:5000], ids=range(4000, 5000))
                index.update_batch(range(4000, 4400), ROWS[5000:5400])
                index.set_layout("inline")
                index.remove(range(4000, 5000))
                index.set_layout("compact")
        except BaseException as problem:  # noqa: BLE001 - raised below
            problems.append(problem)
        finally:
            stop.set()

    def search() -> None:
        try:
            chosen = index.select(range(2000))
            while not stop.is_set():
                hits = index.search(QUERIES[0], k=20)
                assert len(hits) == 20
                assert hits.ids.max() < 5000
                assert (np.diff(hits.distances) >= 0).all()
                assert len(index) in (4000, 5000)
                assert index.search_batch(QUERIES[:4], k=3).ids.shape == (4, 3)
                assert index.search(QUERIES[1], where=chosen).ids.max() < 2000
        except BaseException as problem:  # noqa: BLE001 - raised below
            problems.append(problem)

    threads = [threading.Thread(target=work) for work in (change, search, search)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not problems
    assert index.ids.tolist() == list(range(4000))
    truth = limnion.FlatF32Index.build(ROWS[:4000]).search_batch(QUERIES)
    assert index.search_batch(QUERIES, recall=1.0) == truth
    assert share(index.search_batch(QUERIES), truth) >= 0.93


def test_threads_and_levels_of_the_cpu_change_nothing(
    run_python: RunPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
        import hashlib, pickle, limnion, numpy as np
        vectors = np.random.default_rng(0).standard_normal((2_100, 40), dtype=np.float32)
        index = limnion.GraphIndex.build(vectors, layout="inline")
        index.remove(range(0, 900, 2))
        index.add_batch(vectors[:100] + 1)
        batch = [index.search_batch(vectors[:100], **o) for o in ({"recall": 0.9}, {"ef": 30})]
        print(limnion.cpu_features()["level"])
        print(hashlib.sha256(pickle.dumps((index, batch))).hexdigest())
        """
    levels, hashes = set(), set()
    for level, threads in (("", "1"), ("", "2"), ("scalar", "2"), ("avx2", "2")):
        monkeypatch.setenv("LIMNION_SIMD", level)
        monkeypatch.setenv("LIMNION_THREADS", threads)
        done = run_python(program)
        assert done.returncode == 0, done.stderr
        used, digest = done.stdout.split()
        levels.add(used)
        hashes.add(digest)
    assert "scalar" in levels
    assert len(hashes) == 1


def test_progress_is_told_while_a_graph_is_made() -> None:
    told: list[tuple[int, int]] = []
    limnion.GraphIndex.build(ROWS, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (COUNT, COUNT)
    assert len(told) > 3

    def stop(_done: int, _total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        limnion.GraphIndex.build(clustered(20_000, seed=3), progress=stop)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
@pytest.mark.parametrize("after", [0.0, 1.0])
def test_ctrl_c_stops_a_build(after: float) -> None:
    vectors = random_vectors(100_000, 128)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.3 + after, interrupt)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            limnion.GraphIndex.build(vectors)
        assert time.perf_counter() - sent[0] < 0.5
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_searches_changes_and_builds() -> None:
    index = limnion.GraphIndex.build(ROWS[:3000])
    expected = hashlib.sha256(pickle.dumps(index.search_batch(QUERIES))).digest()

    def works() -> bool:
        found = hashlib.sha256(pickle.dumps(index.search_batch(QUERIES))).digest()
        index.add(id=10**6, vector=ROWS[0])
        index.remove(10**6)
        return found == expected and len(limnion.GraphIndex.build(ROWS[:2500])) == 2500

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if works() else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + 60
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)
    assert works()


def test_build_makes_what_recommend_says() -> None:
    rows = np.concatenate([ROWS, QUERIES, QUERIES])
    for count, options in (
        (300, {}),
        (COUNT, {"metric": "ip"}),
        (COUNT, {"recall": 0.9, "memory": COUNT * 60}),
        (COUNT + 500, {"recall": 0.95, "changes": True}),
    ):
        asked = {name: value for name, value in options.items() if name != "metric"}
        advice = limnion.recommend(count, DIM, **asked)  # type: ignore[arg-type]
        index = limnion.build(rows[:count], ids=range(7, 7 + count), **options)
        assert type(index) is advice.index_class
        assert isinstance(index, limnion.AnyIndex)
        assert index.metric == options.get("metric", "l2")
        assert index.ids[0] == 7
        assert index.search(ROWS[5], k=1)[0].id == 12 or index.metric == "ip"
