"""The quantised graph (SymphonyQG) of rabitqlib: what a good graph reaches beside the scans."""

import rabitqlib

from .base import Adapter, Answers, Ids, K, Knob, Rows

EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 400, 600)


class Library(Adapter):
    """Settings: degree, ef_construction, bits."""

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
