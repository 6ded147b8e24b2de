"""The flat indexes of limnion; the sweep is over the recall asked for."""

from typing import Any

import limnion

from .base import Adapter, Answers, Ids, K, Knob, Rows

RECALLS = (0.8, 0.9, 0.95, 0.99, 0.999)
FACTORS = 6  # bytes of a row beside its code


class Library(Adapter):
    """Settings: index (the class), options (of its `build`)."""

    def kind(self) -> Any:  # noqa: ANN401
        return getattr(limnion, self.settings["index"])

    def exact(self) -> bool:
        return self.settings["index"] == "FlatF32Index"

    def build(self, rows: Rows) -> None:
        # Of the three metrics, which order unit vectors alike, cosine is the one for text.
        self.index = self.kind().build(rows, metric="cosine", **self.settings.get("options", {}))

    def save(self) -> None:
        self.index.save(self.folder / "index.limnion")

    def load(self) -> None:
        self.index = self.kind().load(self.folder / "index.limnion")

    def knobs(self) -> list[Knob]:
        if self.settings["index"] in {"FlatF32Index", "RabitqIndex"}:
            return [{}]
        return [{"recall": recall} for recall in RECALLS]

    def one(self, query: Rows) -> Ids:
        return self.index.search(query, K, **self.knob).ids

    def many(self, queries: Rows) -> Answers:
        return self.index.search_batch(queries, K, **self.knob).ids

    def bytes_per_row(self) -> float:
        if self.exact():
            return 4 * self.dim
        padded = -(-self.dim // 64) * 64
        return padded / 8 + FACTORS
