"""Which rows a search may find: where, bitmaps, selections, exclusions, and searches from a row."""

import asyncio
import pickle
from typing import Any

import numpy as np
import pyroaring
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import IndexClass, KeepingClass, Vectors, random_vectors

import limnion
from limnion import errors
from limnion.types import Metric

METRICS: list[Metric] = ["l2", "ip", "cosine"]


def test_a_search_by_id_finds_the_neighbours_of_a_row_and_not_the_row(
    vectors: Vectors, keeping_class: KeepingClass
) -> None:
    for metric in METRICS:
        index = keeping_class.build(vectors, ids=range(500, 2_500), metric=metric)
        for row in (0, 77, 1_999):
            found = index.search_by_id(500 + row, k=7, recall=1.0)
            expected = index.search(vectors[row], k=2_000, recall=1.0).ids
            assert found.ids.tolist() == [id for id in expected.tolist() if id != 500 + row][:7]
            assert asyncio.run(awaited(index, 500 + row)) == found


async def awaited(index: Any, id: int) -> limnion.Hits:
    hits: limnion.Hits = await index.search_by_id_async(id, k=7, recall=1.0)
    return hits


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_by_id_goes_by_codes_where_nothing_else_is_kept(
    vectors: Vectors, metric: Metric
) -> None:
    lists = limnion.IvfIndex.build(vectors, bits=8, originals=None, metric=metric, lists=4)
    flat = limnion.RabitqAsymIndex.build(vectors, bits=8, metric=metric)
    exact = limnion.FlatF32Index.build(vectors, metric=metric)
    same = 0
    for row in range(0, 2_000, 100):
        truth = set(exact.search_by_id(row).ids.tolist())
        found = flat.search_by_id(row)
        assert len(found) == 10
        same += len(truth & set(found.ids.tolist()))
        same += len(truth & set(lists.search_by_id(row, recall=0.999).ids.tolist()))
    assert same >= 0.9 * 2 * 200


def test_a_search_by_id_of_no_row_says_so(vectors: Vectors, index_class: IndexClass) -> None:
    index = index_class.build(vectors[:50])
    with pytest.raises(errors.IdNotFoundError, match="id 50 is not in the index"):
        index.search_by_id(50)
    with pytest.raises(errors.InvalidTypeError, match="id must be an integer"):
        index.search_by_id("3")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match="k must be at least 1"):
        index.search_by_id(3, k=0)
    assert len(index.search_by_id(3, k=100)) == 49


@pytest.mark.parametrize("count", [1, 20, 700])
def test_what_is_excluded_is_never_found_and_k_others_are(
    vectors: Vectors, keeping_class: KeepingClass, count: int
) -> None:
    index = keeping_class.build(vectors)
    query = random_vectors(1, vectors.shape[1], seed=8)[0]
    order = index.search(query, k=2_000, recall=1.0).ids
    exclude = [*order[:count].tolist(), 1 << 60]
    expected = order[count : count + 9].tolist()
    for given_as in (exclude, np.array(exclude, dtype=np.uint64), pyroaring.BitMap64(exclude)):
        hits = index.search(query, k=9, exclude=given_as, recall=1.0)
        assert hits.ids.tolist() == expected
    batch = index.search_batch(query[None], k=9, exclude=exclude, recall=1.0)
    assert batch.ids.tolist() == [expected]
    mask = np.zeros(2_000, dtype=bool)
    mask[order[count - 1 : count + 2].astype(int)] = True
    hits = index.search(query, k=9, where=mask, exclude=exclude, recall=1.0)
    assert hits.ids.tolist() == order[count : count + 2].tolist()
    assert len(index.search(query, exclude=order)) == 0
    if count == 1:
        assert index.search(query, k=9, exclude=int(order[0]), recall=1.0) == hits_of(index, query)


def hits_of(index: Any, query: Vectors) -> limnion.Hits:
    hits: limnion.Hits = index.search(query, k=10, recall=1.0)[1:]
    return hits


def test_a_radius_and_an_exclusion_both_hold(vectors: Vectors, keeping_class: KeepingClass) -> None:
    index = keeping_class.build(vectors)
    hits = index.search(vectors[0], k=30, recall=1.0)
    radius = float(hits.distances[9])
    found = index.search(vectors[0], k=30, radius=radius, exclude=hits.ids[:4], recall=1.0)
    assert found == hits[4:10]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_bitmaps_mean_the_ids_they_hold(data: st.DataObject) -> None:
    high = data.draw(st.booleans())
    rows = random_vectors(300, 16)
    start = (1 << 40) if high else 0
    ids = np.arange(start, start + 3_000, 10, dtype=np.uint64)
    runs = data.draw(st.lists(st.tuples(st.integers(0, 3_100), st.integers(1, 900)), max_size=4))
    held = sorted({start + at for first, length in runs for at in range(first, first + length)})
    bitmap = pyroaring.BitMap64(held) if high else pyroaring.BitMap(held)
    if data.draw(st.booleans()):
        bitmap.run_optimize()
    allowed = np.array(held, dtype=np.uint64)
    for index in (
        limnion.FlatF32Index.build(rows, ids=ids),
        limnion.IvfIndex.build(rows, ids=ids, lists=3),
    ):
        expected = index.search(rows[0], k=300, where=allowed)
        assert index.search(rows[0], k=300, where=bitmap) == expected
        assert index.search(rows[0], k=300, where=index.select(bitmap)) == expected
        left = index.search(rows[0], k=300, exclude=bitmap, recall=1.0)
        assert len(left) + len(expected) == 300


class Lying:
    def __init__(self, bytes_: object) -> None:
        self.bytes = bytes_

    def serialize(self) -> Any:
        return self.bytes


def test_what_is_no_bitmap_is_told(vectors: Vectors) -> None:
    index = limnion.FlatF32Index.build(vectors[:10])
    good = pyroaring.BitMap([1, 2, 70_000]).serialize()
    for bad in (b"", b"abc", good[:-1], good + b"\0", b"\xff" * 64):
        with pytest.raises(errors.InvalidArgumentError, match=r"where must be a roaring bitmap.*"):
            index.search(vectors[0], where=Lying(bad))
    with pytest.raises(errors.InvalidTypeError, match="that serializes to str"):
        index.search(vectors[0], where=Lying("text"))
    with pytest.raises(errors.InvalidArgumentError, match="exclude must be a roaring bitmap"):
        index.search(vectors[0], exclude=Lying(b"abc"))
    with pytest.raises(errors.InvalidTypeError, match="exclude must be an array or a list"):
        index.search(vectors[0], exclude="text")  # type: ignore[arg-type]
    assert (
        index.search(vectors[0], where=Lying(good)).ids.tolist()
        == index.search(vectors[0], where=[1, 2]).ids.tolist()
    )


def test_a_selection_serves_many_searches_and_follows_changes(
    vectors: Vectors, keeping_class: KeepingClass
) -> None:
    index = keeping_class.build(vectors)
    query = random_vectors(1, vectors.shape[1], seed=9)[0]
    allowed = np.arange(0, 2_400, 3)
    chosen, rest = index.select(allowed), index.select(exclude=allowed)
    masked = index.select(np.arange(2_000) % 3 == 0, exclude=[0, 3])
    assert (len(chosen), len(rest), len(masked)) == (667, 1_333, 665)
    assert repr(chosen) == "Selection(667 rows)"

    def check() -> None:
        held = set(index.ids.tolist())
        of_chosen = held & set(allowed.tolist())
        one = index.search(query, k=3_000, where=chosen, recall=1.0)
        two = index.search(query, k=3_000, where=rest, recall=1.0)
        assert set(one.ids.tolist()) == of_chosen
        assert set(two.ids.tolist()) == held - of_chosen
        assert one == index.search(query, k=3_000, where=allowed, recall=1.0)
        assert {0, 3}.isdisjoint(index.search(query, k=3_000, where=masked).ids.tolist())

    check()
    index.remove(np.arange(0, 1_000, 7))
    check()
    index.add_batch(random_vectors(400, vectors.shape[1], seed=10), ids=range(2_000, 2_400))
    check()
    index.update(1_999, query)
    check()
    assert len(chosen) == len(set(index.ids.tolist()) & set(allowed.tolist()))


def test_a_selection_may_serve_another_index(vectors: Vectors) -> None:
    one = limnion.RabitqPlusIndex.build(vectors)
    two = limnion.IvfIndex.build(vectors[::-1].copy(), lists=5)
    chosen = one.select([5, 6, 7])
    for index in (one, two, one, pickle.loads(pickle.dumps(one))):
        assert set(index.search(vectors[0], where=chosen).ids.tolist()) == {5, 6, 7}
    with pytest.raises(errors.InvalidArgumentError, match="one bool for each of the 2000 rows"):
        one.select([True, False])
    with pytest.raises(errors.InvalidTypeError, match="where must be an array of ids"):
        one.select(3.5)  # type: ignore[arg-type]
    assert isinstance(chosen, limnion.Selection)


def test_indexes_built_apart_become_one(vectors: Vectors) -> None:
    done: list[tuple[int, int]] = []
    for metric in METRICS:
        first = limnion.RabitqPlusIndex.build(vectors[:900], metric=metric)
        second = limnion.RabitqPlusIndex.build(vectors[900:], ids=range(900, 2_000), metric=metric)
        first.merge(second, progress=lambda *told: done.append(told))
        assert done[-1] == (1_100, 1_100)
        assert (len(first), len(second)) == (2_000, 1_100)
        whole = limnion.FlatF32Index.build(vectors, metric=metric)
        for query in random_vectors(5, vectors.shape[1], seed=11):
            assert first.search(query, recall=1.0) == whole.search(query)
    with pytest.raises(errors.DuplicateIdError):
        first.merge(second)
    with pytest.raises(errors.DuplicateIdError):
        first.merge(first)
    codes = limnion.RabitqIndex.build(vectors, ids=range(9_000, 11_000), metric="cosine")
    with pytest.raises(errors.NoOriginalsError, match="other must keep originals"):
        first.merge(codes)
    with pytest.raises(errors.InvalidArgumentError, match="other must have the metric"):
        first.merge(limnion.FlatF32Index.build(vectors))
    with pytest.raises(errors.DimensionMismatch, match="other must have 96 dimensions"):
        first.merge(limnion.FlatF32Index.build(vectors[:, :9].copy()))
    with pytest.raises(TypeError):
        first.merge(vectors)  # type: ignore[arg-type]
    assert len(first) == 2_000


def test_lists_built_apart_become_one(vectors: Vectors) -> None:
    first = limnion.IvfIndex.build(vectors[:900], lists=6)
    second = limnion.IvfIndex.build(vectors[900:], ids=range(900, 2_000), lists=4)
    first.merge(second)
    assert (len(first), len(second)) == (2_000, 1_100)
    whole = limnion.FlatF32Index.build(vectors)
    for query in random_vectors(5, vectors.shape[1], seed=11):
        assert first.search(query, recall=1.0) == whole.search(query)
    with pytest.raises(errors.DuplicateIdError):
        first.merge(second)
    with pytest.raises(errors.InvalidTypeError, match="other must be an index of the same kind"):
        first.merge(whole)
    with pytest.raises(errors.NoOriginalsError):
        first.merge(limnion.IvfIndex.build(vectors, ids=range(5_000, 7_000), originals=None))
    assert len(first) == 2_000


def test_vectors_of_rows_come_in_the_order_of_the_ids(
    vectors: Vectors, keeping_class: KeepingClass
) -> None:
    index = keeping_class.build(vectors, ids=range(10, 2_010))
    np.testing.assert_array_equal(index.vectors([12, 10, 12]), vectors[[2, 0, 2]])
    assert index.vectors([]).shape == (0, vectors.shape[1])
    with pytest.raises(errors.IdNotFoundError):
        index.vectors([12, 5])
