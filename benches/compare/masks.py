"""Which rows a filtered search may find, and which queries it is asked.

Masks pass a tenth, a hundredth and a thousandth of the rows, once drawn at random and once the
nearest to one row, the anchor. Of the latter two questions are asked: by the queries nearest to
the anchor, whose neighbours mostly pass, and by those farthest from it, whose neighbours do not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt

SHARES = {"tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}
SEED = 7
QUARTER = 4  # of the queries are near, and one of these parts is far
FEWEST = 10  # rows that pass: as many as are asked for


@dataclass(frozen=True)
class Case:
    """A mask by its name, and who asks."""

    name: str
    share: float
    asked: str  # "any", "near" or "far"
    mask: npt.NDArray[np.bool_]
    queries: npt.NDArray[np.int64]

    def truth(self, rows: datasets.Rows, queries: datasets.Rows, count: int) -> npt.NDArray[Any]:
        """Return the exact neighbours of the case's queries among the rows that pass."""
        passing = np.flatnonzero(self.mask)
        found = datasets.exact(rows[passing], queries[self.queries], count)
        return passing[found.ids]


def anchor(rows: datasets.Rows) -> datasets.Rows:
    """Return the row round which the correlated masks lie."""
    chosen: datasets.Rows = rows[np.random.default_rng(SEED).integers(len(rows))]
    return chosen


def of(rows: datasets.Rows) -> dict[str, npt.NDArray[np.bool_]]:
    """Return all masks by name, the same each time for the same rows."""
    shuffled = np.random.default_rng(SEED).permutation(len(rows))
    nearest = np.argsort(-(rows @ anchor(rows)), kind="stable")
    found = {}
    for kind, order in (("random", shuffled), ("round", nearest)):
        for size, share in SHARES.items():
            mask = np.zeros(len(rows), bool)
            mask[order[: max(FEWEST, round(share * len(rows)))]] = True
            found[f"{kind}_{size}"] = mask
    return found


def cases(rows: datasets.Rows, queries: datasets.Rows) -> Iterator[Case]:
    """Return what is asked, the widest masks first."""
    by_nearness = np.argsort(-(queries @ anchor(rows)), kind="stable")
    part = max(1, len(queries) // QUARTER)
    asked = {
        "any": np.arange(len(queries)),
        "near": by_nearness[:part],
        "far": by_nearness[-part:],
    }
    found = of(rows)
    for size, share in SHARES.items():
        for who, chosen in asked.items():
            name = f"{'random' if who == 'any' else 'round'}_{size}"
            yield Case(name, share, who, found[name], chosen)
