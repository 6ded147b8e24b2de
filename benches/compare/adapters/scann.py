"""ScaNN: a tree, 4-bit codes of two dimensions each, and the float32 rows to order the best by."""

import numpy as np
from scann import scann_ops_pybind as scann

from .base import Adapter, Answers, Ids, K, Knob, Rows

TRAINING = 100_000
THRESHOLD = 0.2  # of the anisotropic loss, as the library's guide has it
LEAVES = 2.0  # times the square root of the rows, of the same guide
# Leaves that are looked into, and rows that are ordered again.
SEARCHES = (
    *((4, 20), (8, 30), (12, 40), (16, 50), (24, 60), (32, 80), (48, 100)),
    *((64, 120), (96, 150), (128, 200), (200, 300), (400, 400)),
)


class Library(Adapter):
    """No settings."""

    fewest_rows = 1_000

    def build(self, rows: Rows) -> None:
        leaves = int(LEAVES * np.sqrt(len(rows)))
        builder = scann.builder(rows, K, "dot_product")
        builder = builder.tree(
            num_leaves=leaves,
            num_leaves_to_search=max(1, leaves // 30),
            training_sample_size=min(len(rows), TRAINING),
        )
        builder = builder.score_ah(2, anisotropic_quantization_threshold=THRESHOLD).reorder(100)
        builder.set_n_training_threads(self.threads)
        self.index = builder.build()

    def save(self) -> None:
        self.index.serialize(str(self.folder))

    def load(self) -> None:
        self.index = scann.load_searcher(str(self.folder))
        self.index.set_num_threads(self.threads)

    def knobs(self) -> list[Knob]:
        return [{"leaves": leaves, "reorder": rows} for leaves, rows in SEARCHES]

    def turn(self, knob: Knob) -> None:
        self.asked = {
            "final_num_neighbors": K,
            "leaves_to_search": knob["leaves"],
            "pre_reorder_num_neighbors": knob["reorder"],
        }

    def one(self, query: Rows) -> Ids:
        return self.index.search(query, **self.asked)[0]

    def many(self, queries: Rows) -> Answers:
        if self.threads == 1:
            return self.index.search_batched(queries, **self.asked)[0]
        return self.index.search_batched_parallel(queries, **self.asked)[0]
