"""What an index of lists promises beyond what all do: recall, lists, and changes in place."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import (
    Vectors,
    clustered,
    nearest_of,
    random_vectors,
    share,
    whole_numbers,
)

import limnion
from limnion import errors
from limnion.indexes import Explanation
from limnion.types import Metric, Originals

METRICS: list[Metric] = ["l2", "ip", "cosine"]
DIM = 64
ROWS, QUERIES = clustered(20_000, seed=1), clustered(300, seed=2)


@pytest.fixture(scope="module")
def index() -> limnion.IvfIndex:
    """Return an index of 20,000 rows, which nobody may change."""
    return limnion.IvfIndex.build(ROWS)


def exact(metric: Metric) -> limnion.HitsBatch:
    return limnion.FlatF32Index.build(ROWS, metric=metric).search_batch(QUERIES)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("originals", ["f32", "f16"])
def test_a_recall_is_kept_on_queries_that_were_not_seen(
    metric: Metric, originals: Originals
) -> None:
    index, truth = limnion.IvfIndex.build(ROWS, metric=metric, originals=originals), exact(metric)
    assert share(index.search_batch(QUERIES), truth) >= 0.94
    assert share(index.search_batch(QUERIES, recall=0.95), truth) >= 0.94
    assert share(index.search_batch(QUERIES, recall=0.99), truth) >= 0.98
    assert share(index.search_batch(QUERIES, recall=0.8), truth) >= 0.78


@pytest.mark.parametrize("metric", METRICS)
def test_recall_one_is_exact(metric: Metric) -> None:
    index = limnion.IvfIndex.build(ROWS, metric=metric)
    assert index.search_batch(QUERIES, recall=1.0) == exact(metric)
    for query in QUERIES[:5]:
        assert index.search(query) == index.search_batch(query[None])[0]


def test_codes_alone_find_most() -> None:
    index = limnion.IvfIndex.build(ROWS, bits=4, originals=None)
    assert share(index.search_batch(QUERIES), exact("l2")) >= 0.75
    with pytest.raises(errors.InvalidArgumentError, match=r"recall=1\.0 needs the original"):
        index.search(QUERIES[0], recall=1.0)
    with pytest.raises(errors.NoOriginalsError):
        index[3]


def test_a_default_search_looks_into_few_lists(index: limnion.IvfIndex) -> None:
    told = [index.explain(query) for query in QUERIES]
    assert all(isinstance(one, Explanation) for one in told)
    assert np.mean([one.lists for one in told]) < index.lists / 2
    assert np.mean([one.scanned for one in told]) < len(index) / 4
    assert np.mean([one.refined for one in told]) < len(index) / 20
    assert index.explain(QUERIES[0], 3, recall=1.0).refined == len(index)


def test_more_lists_find_more_and_all_lists_find_all(index: limnion.IvfIndex) -> None:
    truth = exact("l2")
    counts = [1, 2, 4, 8, 32, index.lists]
    shares = [share(index.search_batch(QUERIES, nprobe=count), truth) for count in counts]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    assert shares[-1] >= 0.99
    for count in counts[:-1]:
        assert index.explain(QUERIES[0], nprobe=count).lists == count
    for count in (index.lists, 10**6):
        assert index.explain(QUERIES[0], nprobe=count).scanned == len(index)


def test_lists_take_little_memory_beside_the_vectors(index: limnion.IvfIndex) -> None:
    each = 4 * DIM + DIM / 8 + 6 + 4  # original, code, and which row it is
    assert index.memory_bytes / len(index) < 1.2 * each


def test_about_as_many_lists_are_made_as_are_wanted() -> None:
    for wanted in (1, 10, 300):
        index = limnion.IvfIndex.build(ROWS, lists=wanted)
        assert wanted / 2 <= index.lists <= 2 * wanted
    assert limnion.IvfIndex.build(ROWS[:3], lists=1000).lists <= 3
    assert limnion.IvfIndex.build(ROWS[:0]).lists <= 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [5, 300, 6000])
def test_where_misses_little_and_gives_k_whenever_k_match(metric: Metric, count: int) -> None:
    index = limnion.IvfIndex.build(ROWS, metric=metric)
    allowed = np.random.default_rng(count).choice(len(ROWS), count, replace=False)
    mask = np.zeros(len(ROWS), dtype=bool)
    mask[allowed] = True
    flat = limnion.FlatF32Index.build(ROWS, metric=metric)
    truth = flat.search_batch(QUERIES[:100], where=mask)
    found = index.search_batch(QUERIES[:100], where=mask)
    assert all(len(hits) == min(10, count) for hits in found)
    assert mask[found.ids].all()
    assert share(found, truth) >= 0.94
    assert index.search_batch(QUERIES[:100], where=allowed) == found
    assert index.search_batch(QUERIES[:100], recall=1.0, where=mask) == truth
    assert all(len(index.search(query, k=count, where=mask)) == count for query in QUERIES[:3])


@pytest.mark.parametrize("k", [1, 100, 5_000, 20_000, 30_000])
def test_k_hits_come_however_many_are_wanted(index: limnion.IvfIndex, k: int) -> None:
    hits = index.search(QUERIES[0], k=k)
    assert len(hits) == min(k, len(index))
    assert len(set(hits.ids.tolist())) == len(hits)
    assert (np.diff(hits.distances) >= 0).all()


def test_a_radius_bounds_what_is_found(index: limnion.IvfIndex) -> None:
    truth = exact("l2")
    radius = float(np.median(truth.distances[:, 4]))
    missed = wanted = 0
    for query, near in zip(QUERIES, truth, strict=True):
        hits = index.search(query, radius=radius)
        assert (hits.distances <= radius).all()
        expected = {hit.id for hit in near if hit.distance <= radius}
        missed += len(expected - set(hits.ids.tolist()))
        wanted += len(expected)
    assert missed <= 0.06 * wanted


class Both:
    """An index of lists beside a dictionary of the same rows."""

    def __init__(
        self, index: limnion.IvfIndex, numbers: np.random.Generator, rows: Vectors
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


@settings(max_examples=40, deadline=None)
@given(
    start=st.sampled_from([0, 3, 200]),
    steps=st.lists(
        st.tuples(
            st.sampled_from([Both.add, Both.add_batch, Both.remove, Both.update]),
            st.sampled_from([1, 20, 150, 400]),
        ),
        max_size=10,
    ),
    options=st.fixed_dictionaries(
        {
            "metric": st.sampled_from(METRICS),
            "originals": st.sampled_from(["f32", "f16"]),
            "lists": st.sampled_from([None, 1, 5, 40]),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_lists_hold_what_a_dictionary_holds(
    start: int,
    steps: list[tuple[Callable[[Both, int], None], int]],
    options: dict[str, Any],
    seed: int,
) -> None:
    numbers = np.random.default_rng(seed)
    rows = whole_numbers(numbers, start)
    index = limnion.IvfIndex.build(rows, **options)
    both = Both(index, numbers, rows)
    for step, count in steps:
        step(both, count)
    assert len(index) == len(both.model)
    assert dict(index).keys() == both.model.keys()
    for id_, vector in index:
        np.testing.assert_array_equal(vector, both.model[id_])
    if both.model:
        query = whole_numbers(numbers, 1)[0]
        expected = nearest_of(both.model, query, index.metric)[:5]
        hits = index.search(query, k=5, recall=1.0)
        np.testing.assert_allclose(hits.distances, expected, rtol=1e-4, atol=1e-4)
        assert len(index.search(query, k=5)) == len(expected)
        assert len(index.search(query, k=5, nprobe=10**6)) == len(expected)


def test_recall_is_kept_by_an_index_that_grew() -> None:
    index = limnion.IvfIndex.build(ROWS[:1000])
    for first in range(1000, 20_000, 1000):
        index.add_batch(ROWS[first : first + 1000])
    assert index.lists > limnion.IvfIndex.build(ROWS[:1000]).lists
    assert share(index.search_batch(QUERIES), exact("l2")) >= 0.94
    assert index.search_batch(QUERIES, recall=1.0) == exact("l2")


def test_a_changed_index_comes_back_from_a_file(tmp_path: Path) -> None:
    index = limnion.IvfIndex.build(ROWS[:3000], bits=2)
    index.remove(range(0, 3000, 3))
    index.add_batch(ROWS[5000:6000])
    index.save(tmp_path / "index")
    for mmap in (False, True):
        again = limnion.IvfIndex.load(tmp_path / "index", mmap=mmap)
        assert again == index
        assert again.search_batch(QUERIES, recall=1.0) == index.search_batch(QUERIES, recall=1.0)
        again.add(id=10**6, vector=ROWS[0])
        assert again != index
        assert again.search(ROWS[0], k=1)[0].id == 10**6


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
    index = limnion.IvfIndex.build(random_vectors(200, 24), bits=2, ids=range(5, 205), lists=6)
    index.save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        again = limnion.IvfIndex.load(path, mmap=mmap)
        np.asarray(again)
        found = again.search(random_vectors(1, 24, seed=3)[0])
        again.save(tmp_path / "again")  # which verifies all of it
    except (errors.PersistError, errors.CorruptFileError):
        return
    assert found == index.search(random_vectors(1, 24, seed=3)[0])
    assert again == index


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nprobe": 0}, "nprobe must be at least 1, got 0"),
        ({"nprobe": -1}, "nprobe must be from 0"),
        ({"nprobe": 2**32}, "nprobe must be below"),
        ({"nprobe": 3, "recall": 0.9}, "recall and nprobe are two ways"),
        ({"recall": 1.5}, "recall must be above 0 and at most 1"),
        ({"k": 0}, "k must be at least 1"),
    ],
)
def test_wrong_options_are_told_apart(
    index: limnion.IvfIndex, options: dict[str, Any], said: str
) -> None:
    query = QUERIES[0]
    acts = (index.search, index.explain, lambda q, **o: index.search_batch(q[None], **o))
    for act in acts:
        with pytest.raises(errors.InvalidArgumentError, match=said):
            act(query, **options)


def test_a_wrong_nprobe_is_a_wrong_type(index: limnion.IvfIndex) -> None:
    for wrong in (1.5, "3", True):
        with pytest.raises(errors.InvalidTypeError, match="nprobe must be an integer"):
            index.search(QUERIES[0], nprobe=wrong)  # type: ignore[arg-type]


def test_flat_and_lists_are_never_equal() -> None:
    assert limnion.IvfIndex.build(ROWS[:50]) != limnion.RabitqPlusIndex.build(ROWS[:50])
    lists = limnion.IvfIndex.build(ROWS[:50])
    assert lists not in limnion.Lake(backends=[])


def test_awaits_of_any_length_find_what_calls_find(index: limnion.IvfIndex) -> None:
    async def main() -> None:
        short = [index.search_async(query, nprobe=2) for query in QUERIES]
        long = [index.search_async(query, recall=1.0) for query in QUERIES[:20]]
        assert await asyncio.gather(*short) == list(index.search_batch(QUERIES, nprobe=2))
        assert await asyncio.gather(*long) == list(index.search_batch(QUERIES[:20], recall=1.0))
        batch = await index.search_batch_async(QUERIES, radius=5.0, where=range(100))
        assert batch == index.search_batch(QUERIES, radius=5.0, where=range(100))

    asyncio.run(main())


def test_searches_beside_changes_see_whole_states() -> None:
    index = limnion.IvfIndex.build(ROWS[:4000])
    problems: list[BaseException] = []
    stop = threading.Event()

    def change() -> None:
        try:
            for _ in range(8):
                index.add_batch(ROWS[4000:8000], ids=range(4000, 8000))
                index.update_batch(range(4000, 5000), ROWS[5000:6000])
                index.remove(range(4000, 8000))
        except BaseException as problem:  # noqa: BLE001 - raised below
            problems.append(problem)
        finally:
            stop.set()

    def search() -> None:
        try:
            while not stop.is_set():
                hits = index.search(QUERIES[0], k=20)
                assert len(hits) == 20
                assert hits.ids.max() < 8000
                assert (np.diff(hits.distances) >= 0).all()
                assert len(index) in (4000, 8000)
                assert index.search_batch(QUERIES[:4], k=3).ids.shape == (4, 3)
        except BaseException as problem:  # noqa: BLE001 - raised below
            problems.append(problem)

    threads = [threading.Thread(target=work) for work in (change, search, search)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems
    assert index.ids.tolist() == list(range(4000))
    truth = limnion.FlatF32Index.build(ROWS[:4000]).search_batch(QUERIES)
    assert index.search_batch(QUERIES, recall=1.0) == truth


def test_progress_is_told_while_lists_are_made() -> None:
    told: list[tuple[int, int]] = []
    limnion.IvfIndex.build(ROWS, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (20_000, 20_000)

    def stop(_done: int, _total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        limnion.IvfIndex.build(clustered(100_000, seed=3), progress=stop)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_ctrl_c_stops_a_build() -> None:
    vectors = random_vectors(200_000, 128)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    sent: list[float] = []

    def interrupt(*_: object) -> None:
        if not sent:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            limnion.IvfIndex.build(vectors, progress=interrupt)
        assert time.perf_counter() - sent[0] < 0.5
    finally:
        signal.signal(signal.SIGINT, before)
