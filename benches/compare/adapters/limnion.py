"""The indexes of limnion. The sweep is over the recall asked for; a graph's also over `ef`."""

from typing import Any

import limnion

from .base import EFS, Adapter, Answers, Ids, K, Knob, Mask, Rows

RECALLS = (0.8, 0.9, 0.95, 0.99, 0.999)
LIST_RECALLS = (0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
WITHOUT_KNOB = {"FlatF32Index", "RabitqIndex"}
FLAT = {"FlatF32Index", "RabitqIndex", "RabitqAsymIndex", "RabitqPlusIndex"}
FACTORS = 6  # bytes of a row beside its code


class Library(Adapter):
    """Settings: index (the class), options (of its `build`)."""

    allowed: Any = None

    def kind(self) -> Any:  # noqa: ANN401
        return getattr(limnion, self.settings["index"])

    def build(self, rows: Rows) -> None:
        # Of the three metrics, which order unit vectors alike, cosine is the one for text.
        self.index = self.kind().build(rows, metric="cosine", **self.settings.get("options", {}))

    def save(self) -> None:
        self.index.save(self.folder / "index.limnion")

    def load(self) -> None:
        self.index = self.kind().load(self.folder / "index.limnion")

    def map(self) -> None:
        self.index = self.kind().load(self.folder / "index.limnion", mmap=True)

    def knobs(self) -> list[Knob]:
        index = self.settings["index"]
        if index in WITHOUT_KNOB:
            return [{}]
        if index in FLAT:
            return [{"recall": recall} for recall in RECALLS]
        asked: list[Knob] = [{"recall": recall} for recall in LIST_RECALLS]
        return asked + [{"ef": ef} for ef in EFS] if index == "GraphIndex" else asked

    def turn(self, knob: Knob) -> None:
        self.asked = knob if self.allowed is None else knob | {"where": self.allowed}

    def one(self, query: Rows) -> Ids:
        return self.index.search(query, K, **self.asked).ids

    def many(self, queries: Rows) -> Answers:
        return self.index.search_batch(queries, K, **self.asked).ids

    def allow(self, name: str, mask: Mask) -> None:  # noqa: ARG002 - for those that store it
        self.allowed = self.index.select(mask)

    def remove(self, row: int) -> None:
        self.index.remove(row)

    def bytes_per_row(self) -> float | None:
        index = self.settings["index"]
        if index not in FLAT:
            return None
        if index == "FlatF32Index":
            return 4 * self.dim
        padded = -(-self.dim // 64) * 64
        return padded / 8 + FACTORS
