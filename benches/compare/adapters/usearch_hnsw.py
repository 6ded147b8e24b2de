"""The HNSW graph of usearch."""

import numpy as np
from usearch.index import Index

from .base import EFS, Adapter, Answers, Ids, K, Knob, Rows


class Library(Adapter):
    """Settings: dtype, M, ef_construction."""

    def empty(self) -> Index:
        return Index(
            ndim=self.dim,
            metric="ip",
            dtype=self.settings["dtype"],
            connectivity=self.settings["M"],
            expansion_add=self.settings["ef_construction"],
        )

    def build(self, rows: Rows) -> None:
        self.index = self.empty()
        self.index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=self.threads)

    def save(self) -> None:
        self.index.save(str(self.folder / "index.usearch"))

    def load(self) -> None:
        self.index = self.empty()
        self.index.load(str(self.folder / "index.usearch"))

    def knobs(self) -> list[Knob]:
        return [{"ef": ef} for ef in EFS]

    def turn(self, knob: Knob) -> None:
        self.index.expansion_search = knob["ef"]

    def one(self, query: Rows) -> Ids:
        return self.index.search(query, K).keys

    def many(self, queries: Rows) -> Answers:
        return self.index.search(queries, K, threads=self.threads).keys
