"""The hnswlib graph over float32 rows."""

import hnswlib
import numpy as np

from .base import Adapter, Answers, Ids, K, Knob, Rows

EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 400, 600)


class Library(Adapter):
    """Settings: M, ef_construction."""

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
        return self.index.knn_query(query, K)[0][0]

    def many(self, queries: Rows) -> Answers:
        return self.index.knn_query(queries, K)[0]
