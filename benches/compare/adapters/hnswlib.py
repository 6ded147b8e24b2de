"""The hnswlib graph over float32 rows."""

from typing import Any

import hnswlib
import numpy as np

from .base import EFS, Adapter, Answers, Ids, K, Knob, Mask, Rows


class Library(Adapter):
    """Settings: M, ef_construction."""

    allowed: Any = None

    def build(self, rows: Rows) -> None:
        self.index = hnswlib.Index("ip", self.dim)
        self.index.init_index(len(rows), random_seed=1, **self.settings)
        self.index.set_num_threads(self.threads)
        self.index.add_items(rows, np.arange(len(rows)))

    def save(self) -> None:
        self.index.save_index(str(self.folder / "index.bin"))

    def load(self) -> None:
        self.index = hnswlib.Index("ip", self.dim)
        self.index.load_index(str(self.folder / "index.bin"))
        self.index.set_num_threads(self.threads)

    def knobs(self) -> list[Knob]:
        return [{"ef": ef} for ef in EFS]

    def turn(self, knob: Knob) -> None:
        self.index.set_ef(knob["ef"])

    def one(self, query: Rows) -> Ids:
        if self.allowed is None:
            return self.index.knn_query(query, K)[0][0]
        try:
            return self.index.knn_query(query, K, filter=self.allowed)[0][0]
        except RuntimeError:  # it met fewer than K rows that it may return, and returns none
            return []

    def many(self, queries: Rows) -> Answers:
        return self.index.knn_query(queries, K)[0]

    def allow(self, name: str, mask: Mask) -> None:  # noqa: ARG002 - for those that store it
        self.allowed = mask.tolist().__getitem__
