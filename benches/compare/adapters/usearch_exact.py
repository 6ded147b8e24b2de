"""The exact search of usearch over float32 rows."""

import numpy as np
from usearch.index import MetricKind, search

from .base import Adapter, Answers, Ids, K, Rows


class Library(Adapter):
    """A matrix and a kernel."""

    def build(self, rows: Rows) -> None:
        self.rows = rows.copy()

    def save(self) -> None:
        np.save(self.folder / "rows.npy", self.rows)

    def load(self) -> None:
        self.rows = np.load(self.folder / "rows.npy")

    def one(self, query: Rows) -> Ids:
        return self.many(query)  # type: ignore[return-value]

    def many(self, queries: Rows) -> Answers:
        return search(self.rows, queries, K, MetricKind.IP, exact=True, threads=self.threads).keys

    def bytes_per_row(self) -> float:
        return 4 * self.dim
