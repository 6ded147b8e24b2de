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
Mask = npt.NDArray[np.bool_]
Knob = dict[str, Any]
EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 400, 600)  # candidates of a search in a graph
PROBES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # lists that a search looks into
LISTS = ((120_000, 256), (300_000, 512))  # up to so many rows, so many lists
MANY_LISTS = 2_048


def lists(rows: int) -> int:
    """Return how many lists to make where the library leaves that to its user."""
    return next((count for most, count in LISTS if rows <= most), MANY_LISTS)


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

    def allow(self, name: str, mask: Mask) -> None:
        """Let the searches to come find the rows of the mask alone; `name` is its name in masks.py.

        For entries with the phase `filters`.
        """
        raise NotImplementedError

    def map(self) -> None:
        """Make the saved index ready to search, mapped where the library can do that.

        For entries with the phase `upkeep`, as `remove`.
        """
        self.load()

    def remove(self, row: int) -> None:
        """Take one row out of the index."""
        raise NotImplementedError

    def bytes_per_row(self) -> float | None:
        """Return the bytes a search reads of every row at the least; None when it visits few."""
        return None


def rerank(candidates: npt.NDArray[Any], originals: npt.NDArray[np.float16], query: Rows) -> Ids:
    """Order candidates by their float16 originals, as a user of a library without them would."""
    scores = originals[candidates].astype(np.float32) @ query
    best: npt.NDArray[Any] = candidates[np.argsort(-scores)[:K]]
    return best
