"""The quantised graph (SymphonyQG) of rabitqlib."""

import rabitqlib

from .base import EFS, Adapter, Answers, Ids, K, Knob, Rows


class Library(Adapter):
    """Settings: degree, ef_construction, bits (0: the rows as they are)."""

    fewest_rows = 64

    def build(self, rows: Rows) -> None:
        self.index = rabitqlib.SymqgIndex(
            self.dim,
            self.settings["degree"],
            metric="ip",
            quantization_bits=self.settings["bits"],
        )
        self.index.build(rows, self.settings["ef_construction"], num_threads=self.threads)

    def save(self) -> None:
        self.index.save(str(self.folder / "index.qg"))

    def load(self) -> None:
        self.index = rabitqlib.SymqgIndex.load(str(self.folder / "index.qg"))

    def knobs(self) -> list[Knob]:
        return [{"ef": ef} for ef in EFS]

    def one(self, query: Rows) -> Ids:
        return self.index.search(query[None], K, self.knob["ef"], num_threads=1)[0][0]

    def many(self, queries: Rows) -> Answers:
        return self.index.search_batch(queries, K, self.knob["ef"], num_threads=self.threads)[0]
