"""What the measurement asks of a library."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

K = 10  # neighbours asked for
Rows = npt.NDArray[np.float32]
Ids = Sequence[int] | npt.NDArray[Any]
Answers = Sequence[Ids] | npt.NDArray[Any]
Knob = dict[str, Any]


@dataclass
class Adapter(ABC):
    """A library with one index. Rows have unit length: inner product and cosine order them alike.

    `build` and `load` run in different processes: whatever `load` needs must lie in `folder`.
    """

    fewest_rows = 1
    dim: int
    threads: int
    folder: Path
    settings: dict[str, Any]

    @abstractmethod
    def build(self, rows: Rows) -> None:
        """Make the index in memory; the id of a row is its number."""

    @abstractmethod
    def save(self) -> None:
        """Write the index into the folder."""

    @abstractmethod
    def load(self) -> None:
        """Make the saved index ready to search."""

    def knobs(self) -> list[Knob]:
        """Return the settings of a search to sweep, cheapest first."""
        return [{}]

    def turn(self, knob: Knob) -> None:
        """Take one of `knobs` for the searches to come."""
        self.knob = knob

    @abstractmethod
    def one(self, query: Rows) -> Ids:
        """Return the ids of the K nearest rows, best first."""

    @abstractmethod
    def many(self, queries: Rows) -> Answers:
        """Return the same for each of many queries, handed over at once."""

    def bytes_per_row(self) -> float | None:
        """Return the bytes a search reads of every row at the least; None when it visits few."""
        return None


def rerank(candidates: npt.NDArray[Any], originals: npt.NDArray[np.float16], query: Rows) -> Ids:
    """Order candidates by their float16 originals, as a user of a library without them would."""
    scores = originals[candidates].astype(np.float32) @ query
    best: npt.NDArray[Any] = candidates[np.argsort(-scores)[:K]]
    return best
