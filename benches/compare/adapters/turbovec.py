"""The codes of turbovec, scanned; the best are ordered again by originals kept beside them."""

import numpy as np
import turbovec

from .base import Adapter, Ids, K, Knob, Rows, rerank

CANDIDATES = (2, 4, 8, 16, 32)  # times K
CALIBRATION = 2_000


class Library(Adapter):
    """Settings: bits."""

    def build(self, rows: Rows) -> None:
        self.index = turbovec.TurboQuantIndex(dim=self.dim, bit_width=self.settings["bits"])
        chosen = np.random.default_rng(0).permutation(len(rows))[:CALIBRATION]
        self.index.calibrate(np.ascontiguousarray(rows[chosen]))
        self.index.add(rows)
        self.originals = rows.astype(np.float16)

    def save(self) -> None:
        self.index.write(str(self.folder / "index.tv"))
        np.save(self.folder / "originals.npy", self.originals)

    def load(self) -> None:
        self.index = turbovec.TurboQuantIndex.load(str(self.folder / "index.tv"))
        self.originals = np.load(self.folder / "originals.npy")

    def knobs(self) -> list[Knob]:
        return [{"candidates": n} for n in CANDIDATES]

    def turn(self, knob: Knob) -> None:
        self.candidates = K * knob["candidates"]

    def one(self, query: Rows) -> Ids:
        found = self.index.search(query[None], self.candidates)[1][0]
        return rerank(found, self.originals, query)

    def many(self, queries: Rows) -> list[Ids]:
        found = self.index.search(queries, self.candidates)[1]
        return [rerank(f, self.originals, q) for f, q in zip(found, queries, strict=True)]

    def bytes_per_row(self) -> float:
        return self.dim * self.settings["bits"] / 8 + 4
