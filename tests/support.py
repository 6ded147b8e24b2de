"""What many tests share: vectors and the four classes."""

import subprocess
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import limnion

Vectors = NDArray[np.float32]
IndexClass = type[
    limnion.FlatF32Index | limnion.RabitqIndex | limnion.RabitqAsymIndex | limnion.RabitqPlusIndex
]
KeepingClass = type[limnion.FlatF32Index | limnion.RabitqPlusIndex]
RunPython = Callable[..., subprocess.CompletedProcess[str]]

CLASSES: list[IndexClass] = [
    limnion.FlatF32Index,
    limnion.RabitqIndex,
    limnion.RabitqAsymIndex,
    limnion.RabitqPlusIndex,
]
KEEPING: list[KeepingClass] = [limnion.FlatF32Index, limnion.RabitqPlusIndex]


def random_vectors(n: int, dim: int, seed: int = 0) -> Vectors:
    """Return n vectors, the same at every call."""
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
