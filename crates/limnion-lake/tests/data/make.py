# ruff: noqa: INP001 (a script, not a package)
"""Makes the files that tests/files.rs reads: `python make.py`, with numpy and pyarrow.

Row i, column j is i + j / 8, which float16 has too; there are 20 rows of 4 columns. Ids are
100 + i, or "row-i".
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

here = Path(__file__).parent
rows, dim = 20, 4
vectors = (np.arange(rows)[:, None] + np.arange(dim)[None, :] / 8).astype(np.float32)
ids = np.arange(rows) + 100
names = [f"row-{i}" for i in range(rows)]
chosen = vectors == vectors[7, 2]


def array(name: str, values: np.ndarray, version: tuple[int, int] | None = None) -> None:
    """Save an array."""
    with (here / f"{name}.npy").open("wb") as file:
        np.lib.format.write_array(file, values, version=version)


array("plain", vectors)
array("version2", vectors, (2, 0))
array("version3", vectors, (3, 0))
array("half", vectors.astype(np.float16))
array("half.ids", ids.astype(np.int64))
array("double", vectors.astype(np.float64))
array("big", vectors.astype(">f4"))
array("integer", vectors.astype(np.int32))
array("fortran", np.asfortranarray(vectors))
array("flat", vectors.ravel())
array("cube", vectors.reshape(2, 10, 4))
array("records", np.zeros(3, dtype=[("a", "<f4"), ("b", "<f4")]))
array("empty", vectors[:0])
array("named", vectors)
array("named.ids", ids.astype(np.uint64))
array("negative", vectors)
array("negative.ids", ids.astype(np.int64) - 110)
array("few", vectors)
array("few.ids", ids[:-1].astype(np.uint64))


def table(
    name: str,
    column: pa.Array,
    id_column: pa.Array | None = None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Save a table with texts, vectors and ids."""
    columns = {"text": pa.array(names), "vector": column}
    if id_column is not None:
        columns["id"] = id_column
    pq.write_table(pa.table(columns), here / f"{name}.parquet", **options)


def fixed(kind: type, values: np.ndarray = vectors) -> pa.Array:
    """Make a column of vectors."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel().astype(kind)), dim)


numbers = pa.array(ids)
table("fixed", fixed(np.float32), numbers)
table("fixed16", fixed(np.float16), numbers.cast(pa.uint64()), compression="zstd")
table("fixed64", fixed(np.float64), numbers.cast(pa.int32()), compression="lz4")
table(
    "list",
    pa.array(vectors.tolist(), pa.list_(pa.float32())),
    numbers.cast(pa.uint32()),
    compression="none",
)
table(
    "list64",
    pa.array(vectors.tolist(), pa.list_(pa.float64())),
    pa.array(names),
    data_page_version="2.0",
)
table(
    "large",
    pa.array(vectors.tolist(), pa.large_list(pa.float32())),
    pa.array(names, pa.large_string()),
)
table("dictionary", fixed(np.float32), pa.array(names).dictionary_encode())
table("view", fixed(np.float32), pa.array(names, pa.string_view()))
table(
    "groups", fixed(np.float32), numbers, row_group_size=3, data_page_size=16, use_dictionary=False
)
table(
    "checked",
    fixed(np.float32),
    numbers,
    write_page_checksum=True,
    compression="none",
    use_dictionary=False,
)
table("bare", pa.array(vectors.tolist(), pa.list_(pa.float32())), numbers, store_schema=False)
table("noids", fixed(np.float32))
pq.write_table(
    pa.table({"vector": pa.array([], pa.list_(pa.float32(), dim))}), here / "none.parquet"
)
table(
    "nullvector",
    pa.array([*vectors.tolist()[:-3], None, *vectors.tolist()[-2:]], pa.list_(pa.float32(), dim)),
    numbers,
)
table(
    "nullnumber",
    pa.array([*vectors.tolist()[:-1], [1.0, 2.0, None, 3.0]], pa.list_(pa.float32())),
    numbers,
)
table("nullid", fixed(np.float32), pa.array([*ids.tolist()[:-1], None]))
table("minus", fixed(np.float32), pa.array([*ids.tolist()[:-1], -1]))
table("lengths", pa.array([*vectors.tolist()[:-1], [1.0]], pa.list_(pa.float32())), numbers)
table("infinite", fixed(np.float32, np.where(chosen, np.inf, vectors)), numbers)
table("toolarge", fixed(np.float64, np.where(chosen, 1e300, vectors.astype(np.float64))), numbers)
table("integers", pa.array(vectors.astype(np.int32).tolist(), pa.list_(pa.int32())), numbers)
table("blobs", fixed(np.float32), pa.array([b"x"] * rows))
table("scalar", pa.array(range(rows)), numbers)
table("gzip", fixed(np.float32), numbers, compression="gzip")
pq.write_table(
    pa.table(
        {"key": numbers, "embedding": fixed(np.float32), "nested": pa.array([{"a": [1.0]}] * rows)}
    ),
    here / "renamed.parquet",
)
(here / "parts").mkdir(exist_ok=True)
for number, part in enumerate([slice(0, 7), slice(7, 7), slice(7, 20)]):
    pq.write_table(
        pa.table({"vector": pa.array(vectors[part].tolist(), pa.list_(pa.float32()))}),
        here / "parts" / f"part-{number}.parquet",
    )
