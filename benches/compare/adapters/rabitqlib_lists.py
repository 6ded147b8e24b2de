"""The lists (IVF) of rabitqlib, round the centres that its own k-means finds."""

import rabitqlib

from .base import PROBES, Adapter, Answers, Ids, K, Knob, Rows, lists

MANY = 1_024  # from so many centres on the library advises its other k-means


class Library(Adapter):
    """Settings: bits (1 to 9, or 32 for the rows beside 1-bit codes)."""

    fewest_rows = 64

    def build(self, rows: Rows) -> None:
        count = min(lists(len(rows)), len(rows) // 2)
        kind = rabitqlib.QGKMeans if count >= MANY else rabitqlib.RaBitQKMeans
        exact = rabitqlib.FinalAssignmentMode.Exact
        centres = kind(self.dim, count, num_threads=self.threads, final_assignment=exact)
        centres.train(rows)
        self.index = rabitqlib.IvfIndex(
            self.dim, len(rows), count, self.settings["bits"], metric="ip"
        )
        self.index.build(
            rows,
            centres.centroids,
            centres.assignments,
            num_threads=self.threads,
            fast_quantization=True,
        )

    def save(self) -> None:
        self.index.save(str(self.folder / "index.ivf"))

    def load(self) -> None:
        self.index = rabitqlib.IvfIndex.load(str(self.folder / "index.ivf"))

    def knobs(self) -> list[Knob]:
        return [{"nprobe": nprobe} for nprobe in PROBES]

    def one(self, query: Rows) -> Ids:
        return self.index.search(query[None], K, self.knob["nprobe"], num_threads=1)[0][0]

    def many(self, queries: Rows) -> Answers:
        return self.index.search(queries, K, self.knob["nprobe"], num_threads=self.threads)[0]
