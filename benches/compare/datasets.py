"""Data sets: how they are read and written, and what is exactly true of them.

A set is a folder with `base.f16.npy` or `base.f32.npy` (rows of unit length), `queries.*.npy` and
`neighbors.npy` (int32, the exact nearest of each query, best first). Measurement reads float32; a
float16 set is widened, so that all libraries see the same.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from places import home

Rows = npt.NDArray[np.float32]
TRUTH = 100  # neighbours kept of each query


def read(path: Path, part: str) -> Rows:
    """Return `base` or `queries` as float32."""
    wide, narrow = path / f"{part}.f32.npy", path / f"{part}.f16.npy"
    return np.ascontiguousarray(np.load(wide if wide.exists() else narrow), np.float32)


@dataclass(frozen=True)
class Truth:
    """Return the nearest rows of each query, best first, and their inner products."""

    ids: npt.NDArray[np.int32]
    scores: Rows


def exact(base: Rows, queries: Rows, count: int = TRUTH, block: int = 20_000) -> Truth:
    """Return the nearest rows by inner product, found by blocked multiplication."""
    ids = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(base), block):
        product = queries @ base[start : start + block].T
        keep = min(count, product.shape[1])
        best = np.argpartition(product, -keep, axis=1)[:, -keep:]
        ids = np.concatenate([ids, best + start], axis=1)
        scores = np.concatenate([scores, np.take_along_axis(product, best, 1)], axis=1)
        order = np.lexsort((ids, -scores), axis=1)[:, :count]
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    return Truth(ids.astype(np.int32), scores)


def statistics(base: Rows, queries: Rows, truth: Truth) -> dict[str, Any]:
    """Return how hard a set is: its offset, its spread over dimensions, its nearness."""
    sample = base[:: max(1, len(base) // 50_000)]
    mean = sample.mean(0, dtype=np.float64)
    spectrum = np.linalg.eigvalsh(np.cov(sample - mean, rowvar=False, dtype=np.float64))[::-1]
    chance = np.random.default_rng(0)
    left, right = chance.integers(0, len(base), (2, 50_000))
    return {
        "rows": len(base),
        "dim": base.shape[1],
        "queries": len(queries),
        "mean_norm2": round(float(mean @ mean), 4),
        "participation_ratio": round(float(spectrum.sum() ** 2 / (spectrum**2).sum()), 1),
        "top1_cosine": round(float(truth.scores[:, 0].mean()), 3),
        "top10_cosine": round(float(truth.scores[:, 9].mean()), 3),
        "top100_cosine": round(float(truth.scores[:, 99].mean()), 3),
        "random_cosine": round(float(np.einsum("ij,ij->i", base[left], base[right]).mean()), 3),
    }


def write(name: str, base: npt.NDArray[Any], queries: npt.NDArray[Any]) -> dict[str, Any]:
    """Store a set under home(), with its exact neighbours and its statistics (returned)."""
    path = home() / "data" / name
    path.mkdir(parents=True, exist_ok=True)
    for part, rows in (("base", base), ("queries", queries)):
        np.save(path / f"{part}.{'f16' if rows.dtype == np.float16 else 'f32'}.npy", rows)
    wide_base, wide_queries = read(path, "base"), read(path, "queries")
    truth = exact(wide_base, wide_queries)
    figures = statistics(wide_base, wide_queries, truth)
    (path / "statistics.json").write_text(json.dumps(figures, indent=1))
    np.save(path / "neighbors.npy", truth.ids)  # last: a folder with it is whole
    return figures
