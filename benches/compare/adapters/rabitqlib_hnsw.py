"""The HNSW graph over codes of rabitqlib."""

import rabitqlib

from .base import EFS, Adapter, Answers, Ids, K, Knob, Rows

CENTRES = 16  # as the library's examples have it


class Library(Adapter):
    """Settings: M, ef_construction, bits."""

    fewest_rows = 64

    def build(self, rows: Rows) -> None:
        exact = rabitqlib.FinalAssignmentMode.Exact
        centres = rabitqlib.RaBitQKMeans(
            self.dim, CENTRES, num_threads=self.threads, final_assignment=exact
        )
        centres.train(rows)
        self.index = rabitqlib.HnswIndex(
            self.dim,
            len(rows),
            M=self.settings["M"],
            ef_construction=self.settings["ef_construction"],
            nbits=self.settings["bits"],
            metric="ip",
        )
        self.index.build(
            rows,
            centres.centroids,
            centres.assignments,
            num_threads=self.threads,
            fast_quantization=True,
        )

    def save(self) -> None:
        self.index.save(str(self.folder / "index.hnsw"))

    def load(self) -> None:
        self.index = rabitqlib.HnswIndex.load(str(self.folder / "index.hnsw"))

    def knobs(self) -> list[Knob]:
        return [{"ef": ef} for ef in EFS]

    def one(self, query: Rows) -> Ids:
        return self.index.search(query[None], K, self.knob["ef"], num_threads=1)[0][0]

    def many(self, queries: Rows) -> Answers:
        return self.index.search(queries, K, self.knob["ef"], num_threads=self.threads)[0]
