"""Any index of the faiss factory: flat, lists or a graph, refined or not.

The sweep is over the lists or the candidates of a graph, and over how many rows are refined.
"""

import itertools
from typing import Any

import faiss
import numpy as np

from .base import EFS, PROBES, Adapter, Answers, Ids, K, Knob, Mask, Rows, lists

REFINED = (1, 2, 4, 8, 16, 32)  # times K
REFINED_OF_LISTS = (4, 10, 20)
FEWEST_PROBES = 8
TRAINING = 100_000


class Library(Adapter):
    """Settings: factory, and bytes_per_row for flat ones: a number a dimension, and one beside.

    In the factory {lists} stands for as many as suit the rows, {half} for half the dimensions.
    Also: ef_construction, for graphs.
    """

    allowed: Any = None
    parameters: Any = None

    def build(self, rows: Rows) -> None:
        count = min(lists(len(rows)), max(1, len(rows) // 40))
        factory = self.settings["factory"].format(lists=count, half=self.dim // 2)
        self.index = faiss.index_factory(self.dim, factory, faiss.METRIC_INNER_PRODUCT)
        if self.is_graph():
            self.index.hnsw.efConstruction = self.settings["ef_construction"]
        chosen = np.random.default_rng(0).permutation(len(rows))[:TRAINING]
        self.index.train(rows if len(chosen) == len(rows) else rows[np.sort(chosen)])
        self.index.add(rows)

    def save(self) -> None:
        faiss.write_index(self.index, str(self.folder / "index.faiss"))

    def load(self) -> None:
        self.index = faiss.read_index(str(self.folder / "index.faiss"))

    def has(self, part: str) -> bool:
        return part in self.settings["factory"]

    def is_graph(self) -> bool:
        return self.has("HNSW")

    def knobs(self) -> list[Knob]:
        if self.is_graph():
            return [{"ef": ef} for ef in EFS]
        if not self.has("IVF"):
            return [{"refine": n} for n in REFINED] if self.has("Refine") else [{}]
        probes = [n for n in PROBES if n >= FEWEST_PROBES]
        if not self.has("Refine"):
            return [{"nprobe": nprobe} for nprobe in probes]
        pairs = itertools.product(probes, REFINED_OF_LISTS)
        return [{"nprobe": nprobe, "refine": refine} for nprobe, refine in pairs]

    def turn(self, knob: Knob) -> None:
        only = {"sel": self.allowed} if self.allowed else {}
        inner = None
        if "nprobe" in knob:
            inner = faiss.SearchParametersIVF(nprobe=knob["nprobe"], **only)
        elif "ef" in knob:
            inner = faiss.SearchParametersHNSW(efSearch=knob["ef"], **only)
        elif only:
            inner = faiss.SearchParameters(**only)
        self.parameters = inner
        if "refine" in knob:
            within = {"base_index_params": inner} if inner else {}
            self.parameters = faiss.IndexRefineSearchParameters(k_factor=knob["refine"], **within)

    def one(self, query: Rows) -> Ids:
        return self.index.search(query[None], K, params=self.parameters)[1][0]

    def many(self, queries: Rows) -> Answers:
        return self.index.search(queries, K, params=self.parameters)[1]

    def allow(self, name: str, mask: Mask) -> None:  # noqa: ARG002 - for those that store it
        self.allowed = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))

    def remove(self, row: int) -> None:
        self.index.remove_ids(np.array([row]))

    def bytes_per_row(self) -> float | None:
        if "bytes_per_row" not in self.settings:
            return None
        per_dim, constant = self.settings["bytes_per_row"]
        return per_dim * self.dim + constant
