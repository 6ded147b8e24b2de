"""A table of LanceDB with an HNSW index, on disk as it is meant to be.

A mask must be a column: those of masks.py are stored with the rows.
"""

import sys
from pathlib import Path
from typing import Any

import masks
import numpy as np
import pyarrow as pa

from .base import Adapter, Ids, K, Knob, Mask, Rows

HERE = str(Path(__file__).resolve().parent.parent)


def lancedb_itself() -> Any:  # noqa: ANN401
    """Return the module, which would take our datasets.py for a package of that name."""
    kept, ours = list(sys.path), sys.modules.pop("datasets")
    sys.path[:] = [path for path in kept if path != HERE]
    import lancedb  # noqa: PLC0415

    sys.path[:] = kept
    sys.modules["datasets"] = ours
    return lancedb


lancedb = lancedb_itself()


class Library(Adapter):
    """Settings: M, ef_construction."""

    fewest_rows = 1_000
    allowed: str | None = None

    def build(self, rows: Rows) -> None:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), self.dim)
        columns = {name: pa.array(mask) for name, mask in masks.of(rows).items()}
        table = pa.table({"id": np.arange(len(rows)), "vector": vectors, **columns})
        self.table = lancedb.connect(self.folder).create_table("rows", table, mode="overwrite")
        self.table.create_index(
            metric="dot",
            index_type="IVF_HNSW_SQ",
            vector_column_name="vector",
            num_partitions=1,
            m=self.settings["M"],
            ef_construction=self.settings["ef_construction"],
        )
        for name in columns:
            self.table.create_scalar_index(name, index_type="BITMAP")

    def save(self) -> None:
        """All is on disk already."""

    def load(self) -> None:
        self.table = lancedb.connect(self.folder).open_table("rows")

    def knobs(self) -> list[Knob]:
        return [{"ef": ef} for ef in (16, 32, 64, 128, 256)]

    def one(self, query: Rows) -> Ids:
        asked = self.table.search(query).distance_type("dot").select(["id", "_distance"]).limit(K)
        asked = asked.nprobes(1).ef(self.knob["ef"])
        if self.allowed:
            asked = asked.where(self.allowed, prefilter=True)
        found: Ids = asked.to_arrow()["id"].to_numpy()
        return found

    def many(self, queries: Rows) -> list[Ids]:
        return [self.one(query) for query in queries]

    def allow(self, name: str, mask: Mask) -> None:  # noqa: ARG002 - the table has it
        self.allowed = f"`{name}` = true"
