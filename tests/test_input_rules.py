"""What may come in, and what is said about the rest: argument, expectation, what came, advice."""

import array
import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from support import IndexClass, KeepingClass, random_vectors

import limnion
from limnion import errors

DIM = 8


@pytest.fixture(scope="module")
def index() -> limnion.RabitqPlusIndex:
    return limnion.RabitqPlusIndex.build(random_vectors(50, DIM))


def searched(index: limnion.RabitqPlusIndex, query: object) -> limnion.Hits:
    return index.search(query)  # type: ignore[arg-type]


def message(raised: pytest.ExceptionInfo[BaseException]) -> str:
    said = str(raised.value)
    assert "\n" not in said
    return said


WRONG_QUERIES: list[tuple[object, str, str]] = [
    (np.zeros(DIM), "float64 of shape (8,)", "np.ascontiguousarray(query, dtype=np.float32)"),
    (np.zeros(DIM, dtype=np.int64), "int64", "np.ascontiguousarray(query, dtype=np.float32)"),
    (np.zeros(DIM, dtype=np.float16), "float16", "np.ascontiguousarray(query, dtype=np.float32)"),
    (np.zeros(DIM, dtype=bool), "bool", "np.ascontiguousarray(query, dtype=np.float32)"),
    (np.zeros(DIM, dtype=">f4"), ">f4", "np.ascontiguousarray(query, dtype=np.float32)"),
    (np.zeros(DIM, dtype=np.complex64), "complex64", "np.ascontiguousarray"),
    (
        np.zeros(2 * DIM, dtype=np.float32)[::2],
        "float32 of shape (8,), not C-contiguous",
        "np.ascontiguousarray(query, dtype=np.float32)",
    ),
    (np.zeros(DIM, dtype=np.float32)[::-1], "not C-contiguous", "np.ascontiguousarray"),
    (np.zeros((1, DIM), dtype=np.float32), "shape (1, 8)", "query[0]"),
    (np.zeros((2, DIM), dtype=np.float32), "shape (2, 8)", "batch"),
    (np.zeros((1, 1, DIM), dtype=np.float32), "shape (1, 1, 8)", "reshape"),
    (np.float32(1), "float32", "list or tuple of numbers"),
    (np.array(1.0, dtype=np.float32), "shape ()", "reshape"),
    (1.0, "got float", "list or tuple of numbers"),
    ("text", "got str", "list or tuple of numbers"),
    (b"bytes", "got bytes", "list or tuple of numbers"),
    (None, "got None", "list or tuple of numbers"),
    ({}, "got dict", "list or tuple of numbers"),
    ({1.0}, "got set", "list or tuple of numbers"),
    (object(), "got object", "list or tuple of numbers"),
    (["a"] * DIM, "got list", "list or tuple of numbers"),
    ([None] * DIM, "got list", "list or tuple of numbers"),
    ([True] * DIM, "got list", "list or tuple of numbers"),
    ([[0.0] * DIM], "got list", "list or tuple of numbers"),
    ([0.0, [1.0]], "got list", "list or tuple of numbers"),
    (array.array("d", [0.0] * DIM), "float64", "np.ascontiguousarray"),
]


@pytest.mark.parametrize(("query", "came", "hint"), WRONG_QUERIES)
def test_a_wrong_query_is_told_apart(
    index: limnion.RabitqPlusIndex, query: object, came: str, hint: str
) -> None:
    with pytest.raises(errors.InvalidTypeError) as raised:
        searched(index, query)
    said = message(raised)
    assert said.startswith("query must be a C-contiguous float32 array of shape (d,), got ")
    assert came in said
    assert raised.value.suggestion is not None
    assert hint in raised.value.suggestion
    assert isinstance(raised.value, TypeError)


@pytest.mark.parametrize(
    "query",
    [
        [1.0, 2, 3, 4, 5, 6, 7, 8],
        (1, 2, 3, 4, 5, 6, 7, 8),
        [np.float64(x) for x in range(1, 9)],
        array.array("f", range(1, 9)),
        memoryview(array.array("f", range(1, 9))),
        np.arange(1, 9, dtype=np.float32).view(np.matrix).A1,
        np.ma.masked_array(np.arange(1, 9, dtype=np.float32)),
    ],
    ids=["list", "tuple", "scalars", "array", "memoryview", "matrix", "masked"],
)
def test_what_holds_the_same_numbers_finds_the_same(
    index: limnion.RabitqPlusIndex, query: object
) -> None:
    assert searched(index, query) == index.search(np.arange(1, 9, dtype=np.float32))


def test_memory_maps_and_subclasses_are_arrays(tmp_path: Path) -> None:
    vectors = random_vectors(30, DIM)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert limnion.FlatF32Index.build(mapped) == limnion.FlatF32Index.build(vectors)


def test_an_array_that_is_not_aligned_is_refused(index: limnion.RabitqPlusIndex) -> None:
    raw = np.zeros(4 * DIM + 1, dtype=np.uint8)
    query = raw[1:].view(np.float32)
    if query.flags.aligned:
        pytest.skip("this machine aligns every float")
    with pytest.raises(errors.InvalidTypeError, match="not aligned"):
        index.search(query)


@pytest.mark.parametrize(
    ("vectors", "came"),
    [
        (np.zeros((3, DIM)), "float64 of shape (3, 8)"),
        (np.zeros((3, DIM), dtype=np.float32, order="F"), "not C-contiguous"),
        (np.zeros((6, DIM), dtype=np.float32)[::2], "not C-contiguous"),
        (np.zeros((3, 2 * DIM), dtype=np.float32)[:, ::2], "not C-contiguous"),
        (np.zeros(DIM, dtype=np.float32), "shape (8,)"),
        (np.zeros((1, 3, DIM), dtype=np.float32), "shape (1, 3, 8)"),
        ([1.0, 2.0], "got list"),
        ([[1.0, 2.0], [3.0]], "got list"),
        ("text", "got str"),
        (None, "got None"),
    ],
)
def test_wrong_vectors_are_told_apart(index_class: IndexClass, vectors: Any, came: str) -> None:
    with pytest.raises(errors.InvalidTypeError) as raised:
        index_class.build(vectors)
    said = message(raised)
    assert said.startswith("vectors must be a C-contiguous float32 array of shape (n, d), got ")
    assert came in said


def test_a_list_of_rows_is_taken(index_class: IndexClass) -> None:
    vectors = random_vectors(5, DIM)
    expected = index_class.build(vectors)
    assert index_class.build(vectors.tolist()) == expected
    assert index_class.build(list(vectors)) == expected
    assert index_class.build(tuple(map(tuple, vectors.tolist()))) == expected


def test_float16_is_an_explicit_choice(keeping_class: KeepingClass) -> None:
    halves = random_vectors(20, DIM).astype(np.float16)
    with pytest.raises(errors.InvalidTypeError, match="float16"):
        keeping_class.build(halves)
    index = limnion.RabitqPlusIndex.build(halves, originals="f16")
    np.testing.assert_array_equal(np.asarray(index), halves)
    assert index == limnion.RabitqPlusIndex.build(halves.astype(np.float32), originals="f16")
    assert index.search(halves[3], k=1)[0].id == 3
    index.add(id=99, vector=halves[0])
    index.add_batch(halves[:2], ids=[100, 101])
    np.testing.assert_array_equal(index[101], halves[1].astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_refused_by_row(index_class: IndexClass, bad: float) -> None:
    vectors = random_vectors(100, DIM)
    index = index_class.build(vectors)
    broken = vectors.copy()
    broken[42, 3] = bad
    for act in (index_class.build, index.add_batch, index.search_batch):
        with pytest.raises(errors.InvalidArgumentError, match=r"row 42\b"):
            act(broken)
    with pytest.raises(errors.InvalidArgumentError, match="position 3"):
        index.search(broken[42])
    with pytest.raises(errors.InvalidArgumentError, match="finite"):
        index.add(id=1000, vector=broken[42])
    with pytest.raises(errors.InvalidArgumentError, match="finite"):
        index.update(id=1, vector=broken[42])
    assert index == index_class.build(vectors)


def test_the_row_is_right_in_every_block() -> None:
    vectors = random_vectors(20_000, DIM)
    vectors[17_001, 1] = np.nan
    with pytest.raises(errors.InvalidArgumentError, match=r"row 17001\b"):
        limnion.RabitqPlusIndex.build(vectors)


def test_a_zero_vector_has_no_direction(index_class: IndexClass) -> None:
    vectors = random_vectors(10, DIM)
    zero = np.zeros(DIM, dtype=np.float32)
    index = index_class.build(vectors, metric="cosine")
    with pytest.raises(errors.InvalidArgumentError, match="zero"):
        index.search(zero)
    with pytest.raises(errors.InvalidArgumentError, match="zero"):
        index.add(id=10, vector=zero)
    vectors[4] = 0
    with pytest.raises(errors.InvalidArgumentError, match=r"zero.*row 4\b"):
        index_class.build(vectors, metric="cosine")
    assert len(index_class.build(vectors, metric="l2").search(zero)) == 10
    assert len(index_class.build(vectors, metric="ip").search(zero)) == 10


@pytest.mark.parametrize("k", [0, -1, 2**64])
def test_k_is_at_least_one(index: limnion.RabitqPlusIndex, k: int) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=rf"k must be .*got {k}"):
        index.search(np.ones(DIM, dtype=np.float32), k=k)


@pytest.mark.parametrize("k", [1.0, "1", True, [1]])
def test_k_is_an_integer(index: limnion.RabitqPlusIndex, k: Any) -> None:
    with pytest.raises(errors.InvalidTypeError, match="k must be an integer, got "):
        index.search(np.ones(DIM, dtype=np.float32), k=k)


def test_integers_of_numpy_are_integers(index: limnion.RabitqPlusIndex) -> None:
    query = np.ones(DIM, dtype=np.float32)
    assert index.search(query, k=np.int8(3)) == index.search(query, k=3)  # type: ignore[arg-type]
    assert np.uint16(3) in index
    np.testing.assert_array_equal(index[np.int64(3)], index[3])  # type: ignore[index]


@pytest.mark.parametrize("recall", [0.0, -0.5, 1.5, float("nan")])
def test_recall_is_a_share(index: limnion.RabitqPlusIndex, recall: float) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="recall must be above 0 and at most 1"):
        index.search(np.ones(DIM, dtype=np.float32), recall=recall)


@pytest.mark.parametrize("recall", ["0.9", True, [0.9]])
def test_recall_is_a_number(index: limnion.RabitqPlusIndex, recall: Any) -> None:
    with pytest.raises(errors.InvalidTypeError, match="recall must be a number, got "):
        index.search(np.ones(DIM, dtype=np.float32), recall=recall)


def test_one_bit_alone_cannot_promise_recall() -> None:
    index = limnion.RabitqIndex.build(random_vectors(50, DIM))
    query = np.ones(DIM, dtype=np.float32)
    with pytest.raises(errors.InvalidArgumentError, match="RabitqPlusIndex"):
        index.search(query, recall=0.9)
    with pytest.raises(errors.InvalidArgumentError, match="RabitqPlusIndex"):
        index.search(query, rerank_factor=2)
    with pytest.raises(errors.InvalidArgumentError, match="originals"):
        limnion.RabitqAsymIndex.build(random_vectors(50, DIM)).search(query, recall=1.0)


@pytest.mark.parametrize("rerank_factor", [0, -1])
def test_rerank_factor_is_at_least_one(index: limnion.RabitqPlusIndex, rerank_factor: int) -> None:
    query = np.ones(DIM, dtype=np.float32)
    with pytest.raises(errors.InvalidArgumentError, match="rerank_factor must be"):
        index.search(query, rerank_factor=rerank_factor)
    with pytest.raises(errors.InvalidArgumentError, match="rerank_factor must be"):
        limnion.RabitqPlusIndex.build(random_vectors(5, DIM), rerank_factor=rerank_factor)


@pytest.mark.parametrize(
    ("where", "problem", "said"),
    [
        (np.ones(49, dtype=bool), errors.InvalidArgumentError, "one bool for each of the 50 rows"),
        (np.ones((50, 1), dtype=bool), errors.InvalidTypeError, "shape (50, 1)"),
        (np.ones(3), errors.InvalidTypeError, "float64"),
        (np.array([-1]), errors.InvalidArgumentError, "at least 0, got -1 at position 0"),
        ([1, -2], errors.InvalidArgumentError, "got -2 at position 1"),
        ([1, 2.5], errors.InvalidTypeError, "got float at position 1"),
        (5, errors.InvalidTypeError, "got int"),
        ("mask", errors.InvalidTypeError, "got str"),
        ({"a": 1}, errors.InvalidTypeError, "got dict"),
    ],
)
def test_a_wrong_where_is_told_apart(
    index: limnion.RabitqPlusIndex, where: Any, problem: type[Exception], said: str
) -> None:
    with pytest.raises(problem) as raised:
        index.search(np.ones(DIM, dtype=np.float32), where=where)
    assert message(raised).startswith("where must ")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("ids", "problem", "said"),
    [
        ([1, 2], errors.InvalidArgumentError, "2 ids, 3 vectors"),
        ([1, 2, 1], errors.DuplicateIdError, "1"),
        ([1, 2, -1], errors.InvalidArgumentError, "-1"),
        ([1, 2, 2**64], errors.InvalidArgumentError, str(2**64)),
        ([1, 2, 3.0], errors.InvalidTypeError, "float"),
        ([1, 2, True], errors.InvalidTypeError, "bool"),
        ([1, 2, "3"], errors.InvalidTypeError, "str"),
        (np.array([1.0, 2.0, 3.0]), errors.InvalidTypeError, "float64"),
        (np.array([[1, 2, 3]]), errors.InvalidTypeError, "shape (1, 3)"),
        (np.array([1, 2, -3], dtype=np.int8), errors.InvalidArgumentError, "-3"),
        (7, errors.InvalidTypeError, "int"),
        ("abc", errors.InvalidTypeError, "str"),
    ],
)
def test_wrong_ids_are_told_apart(
    index_class: IndexClass, ids: Any, problem: type[Exception], said: str
) -> None:
    with pytest.raises(problem) as raised:
        index_class.build(random_vectors(3, DIM), ids=ids)
    assert said in message(raised)


@given(
    ids=npst.arrays(
        dtype=st.one_of(npst.integer_dtypes(), npst.unsigned_integer_dtypes()),
        shape=st.integers(0, 20),
        elements={"min_value": 0},
        unique=True,
    )
)
def test_ids_of_any_width_are_taken(ids: NDArray[np.integer[Any]]) -> None:
    index = limnion.FlatF32Index.build(random_vectors(len(ids), 4), ids=ids)
    assert index.ids.tolist() == ids.tolist()


@given(
    query=npst.arrays(
        dtype=st.one_of(
            npst.floating_dtypes(), npst.integer_dtypes(), npst.unicode_string_dtypes()
        ),
        shape=npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=8),
    ),
    transposed=st.booleans(),
)
def test_any_array_is_searched_or_refused(query: NDArray[Any], transposed: bool) -> None:
    index = limnion.FlatF32Index.build(random_vectors(5, 4))
    query = query.T if transposed else query
    good = (
        query.dtype == np.dtype("=f4")
        and query.dtype.isnative
        and query.shape == (4,)
        and bool(np.isfinite(query).all())
    )
    if good and float(np.square(query.astype(np.float64)).sum()) < 1e36:
        assert len(index.search(query)) == 5
    elif not good:
        with pytest.raises((errors.InvalidTypeError, errors.InvalidArgumentError, ValueError)):
            index.search(query)


def test_a_wrong_dimension_is_a_mismatch(index_class: IndexClass) -> None:
    index = index_class.build(random_vectors(10, DIM))
    short, matrix = np.ones(DIM - 1, dtype=np.float32), np.ones((2, 2 * DIM), dtype=np.float32)
    with pytest.raises(errors.DimensionMismatch, match=r"query must have 8 .* got 7"):
        index.search(short)
    with pytest.raises(errors.DimensionMismatch, match=r"8 .* 7"):
        index.add(id=10, vector=short)
    with pytest.raises(errors.DimensionMismatch, match=r"8 .* 7"):
        index.update(id=1, vector=short)
    with pytest.raises(errors.DimensionMismatch, match=r"queries must have 8 .* got 16"):
        index.search_batch(matrix)
    with pytest.raises(errors.DimensionMismatch, match=r"vectors must have 8 .* got 16"):
        index.add_batch(matrix)
    with pytest.raises(errors.DimensionMismatch, match=r"vectors must have 8 .* got 16"):
        index.update_batch([1, 2], matrix)
    assert len(index) == 10


def test_an_empty_index_is_made_filled_and_emptied(index_class: IndexClass) -> None:
    index = index_class.build(np.empty((0, DIM), dtype=np.float32))
    query = np.ones(DIM, dtype=np.float32)
    for _ in range(2):
        assert len(index) == 0
        assert not index
        with pytest.raises(errors.EmptyIndex):
            index.search(query)
        with pytest.raises(LookupError):
            index.search_batch(query[None])
        index.add(id=3, vector=query)
        assert index.search(query).ids.tolist() == [3]
        index.remove(3)


@pytest.mark.parametrize("dim", [0, 65_537])
def test_dimensions_have_bounds(index_class: IndexClass, dim: int) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="65536 dimensions"):
        index_class.build(np.zeros((2, dim), dtype=np.float32))


@pytest.mark.parametrize(
    ("metric", "problem"), [("L2", ValueError), ("", ValueError), (2, TypeError)]
)
def test_metric_is_one_of_three(
    index_class: IndexClass, metric: Any, problem: type[Exception]
) -> None:
    with pytest.raises(problem, match="metric must be") as raised:
        index_class.build(random_vectors(3, DIM), metric=metric)
    assert isinstance(raised.value, limnion.LimnionError)


@pytest.mark.parametrize(
    ("index_class", "options", "said"),
    [
        (limnion.RabitqAsymIndex, {"bits": 1}, "bits must be 2 to 8 for a RabitqAsymIndex, got 1"),
        (limnion.RabitqAsymIndex, {"bits": 9}, "bits must be 2 to 8"),
        (limnion.RabitqPlusIndex, {"bits": 0}, "bits must be 1 to 8"),
        (limnion.RabitqPlusIndex, {"bits": 400}, "bits must be 1 to 8"),
        (limnion.RabitqPlusIndex, {"originals": "f64"}, "originals must be 'f32' or 'f16'"),
        (limnion.RabitqPlusIndex, {"originals": None}, "originals must be 'f32' or 'f16'"),
        (limnion.RabitqPlusIndex, {"seed": -1}, "seed must be from 0"),
        (limnion.IvfIndex, {"bits": 0}, "bits must be 1 to 8"),
        (limnion.IvfIndex, {"bits": 9}, "bits must be 1 to 8"),
        (limnion.IvfIndex, {"originals": "f64"}, "originals must be 'f32' or 'f16'"),
        (limnion.IvfIndex, {"lists": 0}, "lists must be at least 1, got 0"),
        (limnion.IvfIndex, {"lists": -1}, "lists must be from 0"),
        (limnion.IvfIndex, {"lists": 2**32}, r"lists must be below 2\*\*32"),
        (limnion.IvfIndex, {"seed": -1}, "seed must be from 0"),
        (limnion.GraphIndex, {"bits": 0}, "bits must be 1 to 8"),
        (limnion.GraphIndex, {"originals": "f64"}, "originals must be 'f32' or 'f16'"),
        (limnion.GraphIndex, {"degree": 3}, "degree must be 4 to 128, got 3"),
        (limnion.GraphIndex, {"degree": 129}, "degree must be 4 to 128, got 129"),
        (limnion.GraphIndex, {"degree": -1}, "degree must be from 0"),
        (limnion.GraphIndex, {"layout": "dense"}, "layout must be 'compact' or 'inline'"),
        (limnion.GraphIndex, {"seed": -1}, "seed must be from 0"),
    ],
)
def test_settings_have_bounds(
    index_class: type[limnion.RabitqPlusIndex], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=said):
        index_class.build(random_vectors(3, DIM), **options)


def test_ids_are_not_added_twice_or_missed(index_class: IndexClass) -> None:
    vectors = random_vectors(4, DIM)
    index = index_class.build(vectors)
    with pytest.raises(errors.DuplicateIdError, match="3"):
        index.add(id=3, vector=vectors[0])
    with pytest.raises(errors.DuplicateIdError):
        index.add_batch(vectors[:2], ids=[9, 9])
    for act in (index.remove, lambda ids: index.update_batch(ids, vectors[:2])):
        with pytest.raises(errors.IdNotFoundError, match="77"):
            act([1, 77])
    with pytest.raises(errors.IdNotFoundError):
        index.update(id=77, vector=vectors[0])
    assert index == index_class.build(vectors)


def test_a_progress_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(errors.InvalidTypeError, match="progress must be"):
        limnion.RabitqPlusIndex.build(random_vectors(3, DIM), progress="yes")  # type: ignore[arg-type]


def test_vectors_may_be_written_while_they_are_read() -> None:
    vectors = random_vectors(60_000, 64)
    stop = threading.Event()

    def scribble() -> None:
        numbers = np.random.default_rng(1)
        while not stop.is_set():
            vectors[numbers.integers(0, len(vectors), 100)] = 1.0

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        index = limnion.RabitqPlusIndex.build(vectors)
    finally:
        stop.set()
        thread.join()
    assert len(index) == 60_000
    assert np.isfinite(np.asarray(index)).all()


def test_vectors_that_change_their_shape_meanwhile_are_refused() -> None:
    vectors = random_vectors(60_000, 64)

    def reshape(_done: int, _total: int) -> None:
        vectors.shape = (30_000, 128)

    def resize_between_blocks() -> None:
        limnion.RabitqPlusIndex.build(vectors, bits=8, progress=reshape)

    try:
        resize_between_blocks()
    except errors.InvalidArgumentError as problem:
        assert "vectors must stay as it is while it is read" in str(problem)  # noqa: PT017
    assert vectors.shape == (30_000, 128)


def test_a_query_is_copied_when_the_call_is_made() -> None:
    index = limnion.FlatF32Index.build(random_vectors(100, DIM))
    query = index[5]

    async def searched_later() -> limnion.Hits:
        waiting = index.search_async(query, k=1)
        query[:] = 0
        return await waiting

    assert asyncio.run(searched_later())[0].id == 5
