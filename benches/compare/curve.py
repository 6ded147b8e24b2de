"""From the points of a sweep to the speed at a recall."""

import itertools
import math
from collections.abc import Iterable
from typing import Any


def front(points: Iterable[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return recall and QPS of the points that no other beats in both, by rising recall."""
    kept: list[tuple[float, float]] = []
    for recall, qps in sorted((p["recall"], p["qps"]) for p in points):
        while kept and kept[-1][1] <= qps:
            kept.pop()
        kept.append((recall, qps))
    return kept


def qps_at(points: Iterable[dict[str, Any]], recall: float) -> float | None:
    """Return the QPS at a recall, log-linear between points of the front; None when not reached."""
    kept = front(points)
    if not kept or kept[-1][0] < recall:
        return None
    if kept[0][0] >= recall:
        return kept[0][1]
    for (low, fast), (high, slow) in itertools.pairwise(kept):
        if high >= recall:
            part = (recall - low) / (high - low)
            return math.exp(math.log(fast) + part * math.log(slow / fast))
    return None


def recall_at(points: Iterable[dict[str, Any]], qps: float) -> float | None:
    """Return the best recall at no less than a speed, between points of the front; None if none."""
    kept = front(points)
    best = None
    for (low, fast), (high, slow) in itertools.pairwise(kept):
        if slow < qps <= fast:
            best = low + (high - low) * math.log(fast / qps) / math.log(fast / slow)
    reached = [recall for recall, speed in kept if speed >= qps]
    return max([*reached, *([best] if best else [])], default=None)
