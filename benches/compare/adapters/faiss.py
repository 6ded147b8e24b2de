"""Any index of the faiss factory; where it refines, the sweep is over how many."""

import faiss

from .base import Adapter, Answers, Ids, K, Knob, Rows

REFINED = (1, 2, 4, 8, 16, 32)  # times K
TRAINING = 50_000


class Library(Adapter):
    """Settings: factory, bytes_per_row (a number for each dimension, and one for the rest)."""

    parameters = None

    def build(self, rows: Rows) -> None:
        metric = faiss.METRIC_INNER_PRODUCT
        self.index = faiss.index_factory(self.dim, self.settings["factory"], metric)
        self.index.train(rows[:TRAINING])
        self.index.add(rows)

    def save(self) -> None:
        faiss.write_index(self.index, str(self.folder / "index.faiss"))

    def load(self) -> None:
        self.index = faiss.read_index(str(self.folder / "index.faiss"))

    def knobs(self) -> list[Knob]:
        return [{"refine": n} for n in REFINED] if "Refine" in self.settings["factory"] else [{}]

    def turn(self, knob: Knob) -> None:
        if knob:
            self.parameters = faiss.IndexRefineSearchParameters(k_factor=knob["refine"])

    def one(self, query: Rows) -> Ids:
        return self.index.search(query[None], K, params=self.parameters)[1][0]

    def many(self, queries: Rows) -> Answers:
        return self.index.search(queries, K, params=self.parameters)[1]

    def bytes_per_row(self) -> float:
        per_dim, constant = self.settings["bytes_per_row"]
        return per_dim * self.dim + constant
