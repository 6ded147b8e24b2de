"""Tables of pyarrow and polars as rows: by the Arrow C stream interface, whole or not at all."""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Vectors, random_vectors

import limnion
from limnion import errors

pa: Any = pytest.importorskip("pyarrow")

DIM = 6
ROWS = random_vectors(40, DIM)


def frame(columns: dict[str, Any], **options: Any) -> Any:
    """Return a frame of polars, where that is installed."""
    return pytest.importorskip("polars").DataFrame(columns, **options)


def fixed(rows: Any = ROWS, kind: Any = None) -> Any:
    """Return vectors as a column of lists of a fixed size."""
    flat = pa.array(np.asarray(rows).ravel()).cast(kind or pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, DIM)


def table(**columns: Any) -> Any:
    """Return a table with ids from 5 on; None leaves a column out."""
    all_: dict[str, Any] = {"id": pa.array(range(5, 45)), "vector": fixed()} | columns
    return pa.table({name: column for name, column in all_.items() if column is not None})


def rows_of(backend: limnion.LocalBackend | limnion.FsBackend) -> tuple[list[Any], Vectors]:
    """Return what a backend has."""
    ids, vectors, _ = backend.pull("docs")
    return list(ids), np.asarray(vectors)


TABLES: dict[str, Callable[[], Any]] = {
    "pyarrow table": table,
    "chunks": lambda: pa.concat_tables(
        [table().slice(0, 7), table().slice(7, 0), table().slice(7)]
    ),
    "a slice": lambda: pa.concat_tables([table(), table()]).slice(40),
    "batch": lambda: table().to_batches()[0],
    "reader": lambda: table().to_reader(max_chunksize=3),
    "lists": lambda: table(vector=pa.array(ROWS.tolist(), pa.list_(pa.float32()))),
    "large lists": lambda: table(vector=pa.array(ROWS.tolist(), pa.large_list(pa.float32()))),
    "doubles": lambda: table(vector=fixed(ROWS, pa.float64())),
    "more columns": lambda: table(title=pa.array(["x"] * 40), none=pa.nulls(40)),
    "small ids": lambda: table(id=pa.array(range(5, 45), pa.uint8())),
    "polars array": lambda: frame({"id": range(5, 45), "vector": ROWS}),
    "polars list": lambda: frame({"id": range(5, 45), "vector": ROWS.tolist()}),
    "polars chunks": lambda: pytest.importorskip("polars").concat(
        [frame({"id": [row + 5], "vector": ROWS[row : row + 1].tolist()}) for row in range(40)],
        rechunk=False,
    ),
}


@pytest.mark.parametrize("made", TABLES.values(), ids=TABLES)
def test_tables_are_taken(made: Callable[[], Any], tmp_path: Path) -> None:
    shard, disk = limnion.LocalBackend("shard"), limnion.FsBackend("disk", tmp_path)
    bucket = limnion.ObjectStoreBackend("bucket", tmp_path.as_uri())
    shard.upsert("docs", made())
    disk.upsert("docs", made())
    bucket.put_rows("put", made())
    for backend in (shard, disk):
        ids, vectors = rows_of(backend)
        assert ids == list(range(5, 45))
        assert np.array_equal(vectors, ROWS)
    assert bucket.describe("put").count == 40
    lake = limnion.Lake(backends=[shard])
    assert lake.search_one("docs", ROWS[3], k=1)[0].id == 8


def test_columns_may_have_other_names() -> None:
    shard = limnion.LocalBackend("shard")
    lists = pa.array([[1.0, 0.0], [0.0, 1.0]])
    other = pa.table({"key": [1, 2], "embedding": lists})
    shard.upsert("docs", other, id_column="key", vector_column="embedding")
    assert shard.describe("docs").count == 2
    wrong: list[dict[str, Any]] = [{}, {"id_column": "key"}, {"vector_column": "embedding"}]
    for columns in wrong:
        with pytest.raises(errors.InvalidArgumentError, match='among "key", "embedding"'):
            shard.upsert("docs", other, **columns)


def test_halves_are_taken_as_they_are() -> None:
    shard = limnion.LocalBackend("shard")
    shard.upsert("docs", table(vector=fixed(ROWS.astype(np.float16), pa.float16())))
    assert np.array_equal(rows_of(shard)[1], ROWS.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_names_are_ids_where_they_may_be(kind: str, tmp_path: Path) -> None:
    names = [f"row {row}" for row in range(40)]
    named = table(id=pa.array(names, getattr(pa, kind)()))
    disk = limnion.FsBackend("disk", tmp_path)
    disk.upsert("docs", named)
    assert rows_of(disk)[0] == names
    with pytest.raises(errors.InvalidTypeError, match="ids must be integers here, got strings"):
        limnion.LocalBackend("shard").upsert("docs", named)
    disk.upsert("polars", frame({"id": names, "vector": ROWS.tolist()}))
    assert disk.describe("polars").count == 40


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "null id": (lambda: table(id=pa.array([None, *range(39)])), ValueError, "no nulls.* row 0"),
    "null vector": (
        lambda: table(vector=pa.array([*ROWS[:39].tolist(), None], pa.list_(pa.float32(), DIM))),
        ValueError,
        "no nulls.* row 39",
    ),
    "null number": (
        lambda: table(vector=pa.array([[1.0, None]] * 40, pa.list_(pa.float32()))),
        ValueError,
        "no nulls.* row 0, column 1",
    ),
    "ragged": (
        lambda: table(vector=pa.array([*ROWS[:39].tolist(), [1.0]], pa.list_(pa.float32()))),
        errors.DimensionMismatch,
        "got 1 in row 39 after 6",
    ),
    "ragged between chunks": (
        lambda: pa.concat_tables(
            [
                pa.table(
                    {"id": [row], "vector": pa.array([[1.0] * (row + 1)], pa.list_(pa.float32()))}
                )
                for row in range(2)
            ]
        ),
        errors.DimensionMismatch,
        "got 2 in row 1 after 1",
    ),
    "no numbers": (
        lambda: table(vector=pa.array([[]] * 40, pa.list_(pa.float32()))),
        ValueError,
        "1 to 65536 dimensions, got 0",
    ),
    "infinity": (lambda: table(vector=fixed(ROWS * np.float32(np.inf))), ValueError, "finite"),
    "beyond float32": (
        lambda: table(vector=fixed(ROWS.astype(np.float64) * 1e300, pa.float64())),
        ValueError,
        "finite",
    ),
    "integers": (
        lambda: table(vector=fixed(np.ones((40, DIM)), pa.int32())),
        TypeError,
        "lists of float32, float64 or float16",
    ),
    "texts": (lambda: table(vector=pa.array(["x"] * 40)), TypeError, "lists of float32"),
    "negative id": (
        lambda: table(id=pa.array(range(-1, 39))),
        ValueError,
        "0 or more, got -1 in row 0",
    ),
    "fractional id": (
        lambda: table(id=pa.array(np.arange(40.0))),
        TypeError,
        "integers or strings",
    ),
    "twice": (lambda: table(id=pa.array([7] * 40)), errors.DuplicateIdError, "7 twice"),
    "no id": (lambda: table(id=None), ValueError, 'no column "id" of ids among "vector"'),
    "no vector": (lambda: table(vector=None), ValueError, 'no column "vector" of vectors'),
    "an array": (lambda: pa.chunked_array([[1, 2]]), ValueError, "columns of ids and vectors"),
    "a column": (lambda: frame({"x": [1, 2]})["x"], ValueError, "columns of ids and vectors"),
    "a list": (lambda: [1, 2], TypeError, "ids and vectors, or one table .* got list alone"),
    "nothing": (lambda: None, TypeError, "got NoneType alone"),
}


@pytest.mark.parametrize(("made", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_changes_nothing(
    made: Callable[[], Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    shard, disk = limnion.LocalBackend("shard"), limnion.FsBackend("disk", tmp_path)
    for backend in (shard, disk):
        backend.upsert("docs", [1], np.ones((1, DIM), dtype=np.float32))
        with pytest.raises(error, match=message) as raised:
            backend.upsert("docs", made())
        assert isinstance(raised.value, errors.LimnionError)
        assert rows_of(backend)[0] == [1]


def test_an_empty_table_is_taken_where_its_type_says_what_it_is() -> None:
    shard = limnion.LocalBackend("shard")
    shard.upsert("docs", table().slice(0, 0))
    assert (shard.describe("docs").dim, shard.describe("docs").count) == (DIM, 0)
    empty = table(vector=pa.array(ROWS.tolist(), pa.list_(pa.float32()))).slice(0, 0)
    with pytest.raises(errors.InvalidArgumentError, match="a fixed size"):
        shard.upsert("other", empty)


def test_columns_go_with_tables_alone() -> None:
    shard = limnion.LocalBackend("shard")
    with pytest.raises(errors.InvalidArgumentError, match="must go with a table"):
        shard.upsert("docs", [1], [[1.0]], id_column="id")  # type: ignore[call-overload]
    with pytest.raises(errors.InvalidTypeError, match="vector_column must be a string, got int"):
        shard.upsert("docs", table(), vector_column=7)  # type: ignore[call-overload]


class Stream:
    """Whatever is handed over as a stream."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object | None = None, /) -> Any:
        """Return what it was made with, or raise it."""
        if isinstance(self.capsule, Exception):
            raise self.capsule
        return self.capsule


def test_a_stream_is_read_once() -> None:
    shard = limnion.LocalBackend("shard")
    capsule = table().__arrow_c_stream__()
    shard.upsert("docs", Stream(capsule))
    with pytest.raises(errors.InvalidArgumentError, match="released"):
        shard.upsert("docs", Stream(capsule))
    reader = table().to_reader()
    shard.upsert("docs", reader)
    shard.upsert("docs", reader)  # it has nothing more to give
    assert shard.describe("docs").count == 40


def test_what_is_no_stream_is_told() -> None:
    shard = limnion.LocalBackend("shard")
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    name = b"arrow_schema"  # the capsule points to it
    for wrong in (None, 7, new(1, name, None)):
        with pytest.raises(
            errors.InvalidTypeError, match='must give a capsule "arrow_array_stream"'
        ):
            shard.upsert("docs", Stream(wrong))
    with pytest.raises(ZeroDivisionError):
        shard.upsert("docs", Stream(ZeroDivisionError()))


def test_a_source_that_fails_midway_changes_nothing() -> None:
    shard = limnion.LocalBackend("shard")
    shard.upsert("docs", [1], ROWS[:1])

    def batches() -> Iterator[Any]:
        yield from table().to_batches(max_chunksize=10)
        raise RuntimeError("the cable is gone")

    reader = pa.RecordBatchReader.from_batches(table().schema, batches())
    with pytest.raises(errors.InvalidArgumentError, match="the cable is gone"):
        shard.upsert("docs", reader)
    assert rows_of(shard)[0] == [1]


def test_nothing_is_left_behind() -> None:
    shard = limnion.LocalBackend("shard")
    big = table()
    before = pa.total_allocated_bytes()
    for _ in range(20):
        shard.upsert("docs", big.to_reader())
        with pytest.raises(errors.InvalidArgumentError):
            shard.upsert("docs", big, id_column="nowhere")
    gc.collect()
    assert pa.total_allocated_bytes() <= before
    assert sys.getrefcount(big) <= 3
