"""What many tests share: vectors and the classes of index."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import limnion
from limnion.types import Metric

Vectors = NDArray[np.float32]
IndexClass = type[
    limnion.FlatF32Index
    | limnion.RabitqIndex
    | limnion.RabitqAsymIndex
    | limnion.RabitqPlusIndex
    | limnion.IvfIndex
    | limnion.GraphIndex
]
KeepingClass = type[
    limnion.FlatF32Index | limnion.RabitqPlusIndex | limnion.IvfIndex | limnion.GraphIndex
]
RunPython = Callable[..., subprocess.CompletedProcess[str]]

CLASSES: list[IndexClass] = [
    limnion.FlatF32Index,
    limnion.RabitqIndex,
    limnion.RabitqAsymIndex,
    limnion.RabitqPlusIndex,
    limnion.IvfIndex,
    limnion.GraphIndex,
]
KEEPING: list[KeepingClass] = [limnion.FlatF32Index, limnion.RabitqPlusIndex, limnion.IvfIndex]


def random_vectors(n: int, dim: int, seed: int = 0) -> Vectors:
    """Return n vectors, the same at every call."""
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def clustered(n: int, seed: int, dim: int = 64) -> Vectors:
    """Return vectors as embeddings lie: round some topics, of which there are many and few."""
    numbers = np.random.default_rng(seed)
    topics = np.random.default_rng(99).standard_normal((200, dim), dtype=np.float32)
    of_topics = (200 * numbers.random(n) ** 2).astype(np.int64)
    spread = 0.6 * numbers.standard_normal((n, dim), dtype=np.float32)
    made: Vectors = topics[of_topics] + spread
    return made


def share(found: limnion.HitsBatch, truth: limnion.HitsBatch) -> float:
    """Return the mean share of the true hits that was found."""
    pairs = zip(found, truth, strict=True)
    return float(np.mean([len(np.intersect1d(a.ids, b.ids)) / len(b) for a, b in pairs]))


def nearest_of(model: dict[int, Vectors], query: Vectors, metric: Metric) -> list[float]:
    """Return the distances of all rows to a query, the least first."""
    rows = np.stack(list(model.values())).astype(np.float64)
    point = query.astype(np.float64)
    if metric == "l2":
        found = np.linalg.norm(rows - point, axis=1)
    elif metric == "ip":
        found = -(rows @ point)
    else:
        found = 1 - rows @ point / (np.linalg.norm(rows, axis=1) * np.linalg.norm(point))
    return sorted(found.tolist())


def whole_numbers(numbers: np.random.Generator, n: int) -> Vectors:
    """Return vectors that f16 keeps as they are, none of them zero."""
    made = numbers.integers(-20, 21, (n, 8)).astype(np.float32)
    made[:, 0] = numbers.integers(1, 20, n)
    return made


class Shop:
    """Opens databases of one kind, in memory or in a folder, and closes what is left open."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._opened: list[limnion.SyncDatabase] = []

    def config(self, **options: Any) -> limnion.Config:
        """Return a configuration; always of the same folder."""
        return limnion.Config(self.folder, **options)

    def open(self, **options: Any) -> limnion.Database:
        """Return a database for asyncio, which the test closes."""
        return limnion.Database(self.config(**options))

    def sync(self, **options: Any) -> limnion.SyncDatabase:
        """Return a database without await."""
        database = limnion.Database.sync(self.config(**options))
        self._opened.append(database)
        return database

    def close(self) -> None:
        """Close what the test has not closed."""
        for database in self._opened:
            database.close()
