"""What many tests share: vectors and the classes of index."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import limnion

Vectors = NDArray[np.float32]
IndexClass = type[
    limnion.FlatF32Index
    | limnion.RabitqIndex
    | limnion.RabitqAsymIndex
    | limnion.RabitqPlusIndex
    | limnion.IvfIndex
]
KeepingClass = type[limnion.FlatF32Index | limnion.RabitqPlusIndex | limnion.IvfIndex]
RunPython = Callable[..., subprocess.CompletedProcess[str]]

CLASSES: list[IndexClass] = [
    limnion.FlatF32Index,
    limnion.RabitqIndex,
    limnion.RabitqAsymIndex,
    limnion.RabitqPlusIndex,
    limnion.IvfIndex,
]
KEEPING: list[KeepingClass] = [limnion.FlatF32Index, limnion.RabitqPlusIndex, limnion.IvfIndex]


def random_vectors(n: int, dim: int, seed: int = 0) -> Vectors:
    """Return n vectors, the same at every call."""
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


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
