"""Binary vectors: found by a count of bits, changed, saved, and refused where they are none."""

import asyncio
import copy
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyroaring
import pytest
from numpy.typing import NDArray

import limnion
from limnion import errors

Bits = NDArray[np.uint8]


def random_bits(n: int, width: int, seed: int = 0) -> Bits:
    made: Bits = np.random.default_rng(seed).integers(0, 256, (n, width), dtype=np.uint8)
    return made


def nearest(rows: Bits, ids: NDArray[np.uint64], query: Bits, k: int) -> list[tuple[int, float]]:
    """Return ids and differing bits by a sort of all rows."""
    differing = np.unpackbits(rows ^ query, axis=1).sum(axis=1, dtype=np.int64)
    order = np.lexsort((ids, differing))[:k]
    return [(int(ids[row]), float(differing[row])) for row in order]


def told(hits: limnion.Hits) -> list[tuple[int, float]]:
    return [(hit.id, hit.distance) for hit in hits]


@pytest.mark.parametrize("width", [1, 3, 8, 16, 31, 48, 64, 96, 128, 200])
def test_searches_find_what_numpy_finds(width: int) -> None:
    rows, queries = random_bits(777, width), random_bits(30, width, seed=1)
    ids = np.arange(100, 877, dtype=np.uint64)
    index = limnion.HammingIndex.build(rows, ids=ids)
    batch = index.search_batch(queries, k=9)
    for query, hits in zip(queries, batch, strict=True):
        expected = nearest(rows, ids, query, 9)
        assert told(hits) == told(index.search(query, k=9)) == expected
        np.testing.assert_allclose(hits.scores, 1 / (1 + hits.distances))
    query = queries[0]
    mask = np.arange(777) % 5 == 0
    for where in (mask, ids[mask], pyroaring.BitMap(ids[mask].tolist()), index.select(mask)):
        expected = nearest(rows[mask], ids[mask], query, 9)
        assert told(index.search(query, k=9, where=where)) == expected
    excluded = [id for id, _ in nearest(rows, ids, query, 4)]
    assert told(index.search(query, k=5, exclude=excluded)) == nearest(rows, ids, query, 9)[4:]
    radius = nearest(rows, ids, query, 20)[-1][1]
    within = [hit for hit in nearest(rows, ids, query, 777) if hit[1] <= radius]
    assert told(index.search(query, k=777, radius=radius)) == within
    by_id = nearest(rows, ids, rows[3], 778)
    expected = [hit for hit in by_id if hit[0] != 103][:6]
    assert told(index.search_by_id(103, k=6)) == expected


def test_awaits_find_the_same() -> None:
    rows = random_bits(500, 32)
    index = limnion.HammingIndex.build(rows)

    async def ask() -> None:
        assert await index.search_async(rows[0]) == index.search(rows[0])
        assert await index.search_by_id_async(5) == index.search_by_id(5)
        assert await index.search_batch_async(rows[:20]) == index.search_batch(rows[:20])

    asyncio.run(ask())


def test_rows_come_change_and_go() -> None:
    rows = random_bits(200, 24)
    index = limnion.HammingIndex.build(rows[:100])
    index.add_batch(rows[100:150])
    index.add(1_000, rows[150])
    index.update(7, rows[151])
    index.remove([0, 1])
    index.remove(99)
    other = limnion.HammingIndex.build(rows[160:170], ids=range(5_000, 5_010))
    index.merge(other)
    assert len(index) == 158
    assert index.dim == 192
    assert 1_000 in index
    assert 0 not in index
    assert "x" not in index
    np.testing.assert_array_equal(index[7], rows[151])
    np.testing.assert_array_equal(index[5_003], rows[163])
    held = np.stack([index[id] for id in index.ids.tolist()])
    assert told(index.search(rows[9])) == nearest(held, index.ids, rows[9], 10)
    assert repr(index).startswith("HammingIndex(n=158, dim=192, memory=0.0")
    with pytest.raises(errors.DuplicateIdError):
        index.merge(other)
    with pytest.raises(errors.IdNotFoundError):
        index[0]


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_saved_comes_back(tmp_path: Path, mmap: bool) -> None:
    index = limnion.HammingIndex.build(random_bits(300, 48), ids=range(9, 309))
    path = tmp_path / "bits"
    index.save(path)
    again = limnion.HammingIndex.load(path, mmap=mmap)
    assert again == index == pickle.loads(pickle.dumps(index)) == copy.deepcopy(index)
    assert again.search(index[9]) == index.search(index[9])
    assert (again.memory_bytes < 5_000) == mmap
    again.remove(9)
    assert again != index
    again.save(path)
    assert len(limnion.HammingIndex.load(path)) == 299
    with pytest.raises(errors.PersistError, match="must hold a FlatF32Index, got a HammingIndex"):
        limnion.FlatF32Index.load(path)
    with pytest.raises(errors.PersistError, match="must hold an IvfIndex, got a HammingIndex"):
        limnion.IvfIndex.load(path)
    limnion.FlatF32Index.build(np.zeros((3, 4), dtype=np.float32)).save(path)
    with pytest.raises(errors.PersistError, match="must hold a HammingIndex, got a FlatF32Index"):
        limnion.HammingIndex.load(path, mmap=mmap)
    path.write_bytes(os.urandom(500))
    with pytest.raises(errors.CorruptFileError):
        limnion.HammingIndex.load(path, mmap=mmap)
    with pytest.raises(errors.IndexFileNotFoundError):
        limnion.HammingIndex.load(tmp_path / "none", mmap=mmap)


ROWS = random_bits(10, 8)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (ROWS.astype(np.float32), "float32 of shape"),
        (ROWS.astype(np.int8), "int8 of shape"),
        (ROWS[:, ::2], "not C-contiguous"),
        (ROWS[0], r"shape \(8,\)"),
        (ROWS.tolist(), "got list"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_binary_matrix_is_told(given: Any, named: str) -> None:
    index = limnion.HammingIndex.build(ROWS)
    for call in (limnion.HammingIndex.build, index.add_batch, index.search_batch):
        with pytest.raises(errors.InvalidTypeError, match=f"must be a C-contiguous uint8.*{named}"):
            call(given)


def test_misuse_is_told_and_changes_nothing() -> None:
    index = limnion.HammingIndex.build(ROWS)
    wrong: list[tuple[Any, ...]] = [
        (errors.DimensionMismatch, index.search, ROWS[0][:7].copy()),
        (errors.DimensionMismatch, index.search_batch, ROWS[:, :7].copy()),
        (errors.DimensionMismatch, index.add, 77, ROWS[0][:7].copy()),
        (errors.DimensionMismatch, index.merge, limnion.HammingIndex.build(random_bits(3, 9))),
        (errors.InvalidTypeError, index.add, "77", ROWS[0]),
        (errors.DuplicateIdError, index.add, 7, ROWS[0]),
        (errors.IdNotFoundError, index.update, 77, ROWS[0]),
        (errors.IdNotFoundError, index.search_by_id, 77),
        (errors.InvalidArgumentError, index.search, ROWS[0], 0),
        (errors.InvalidArgumentError, limnion.HammingIndex.build, np.zeros((3, 0), np.uint8)),
        (errors.InvalidArgumentError, limnion.HammingIndex.build, np.zeros((1, 8193), np.uint8)),
        (errors.InvalidTypeError, limnion.HammingIndex, ROWS),
    ]
    for kind, call, *arguments in wrong:
        with pytest.raises(kind):
            call(*arguments)
    assert index == limnion.HammingIndex.build(ROWS)
    with pytest.raises(errors.EmptyIndex):
        limnion.HammingIndex.build(ROWS[:0]).search(ROWS[0])
