"""Measure what a call from Python costs: an index of one row, so that there is no work to speak of.

Run it as `python benches/call_overhead.py`. Each figure is the best of several runs.
"""

import asyncio
import time
import timeit
from collections.abc import Callable

import numpy as np

import limnion

CALLS = 20_000


def nanoseconds(call: Callable[[], object]) -> float:
    """Return the time that one call takes."""
    return min(timeit.repeat(call, number=CALLS, repeat=5)) / CALLS * 1e9


async def awaited(index: limnion.FlatF32Index, query: np.ndarray) -> float:
    """Return the time that one awaited search takes."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(CALLS):
            await index.search_async(query)
        best = min(best, time.perf_counter() - start)
    return best / CALLS * 1e9


def main() -> None:
    """Print the figures."""
    for dim in (8, 384):
        vectors = np.ones((1, dim), dtype=np.float32)
        index, query = limnion.FlatF32Index.build(vectors), vectors[0].copy()
        hits = index.search(query)
        numbers = query.tolist()
        calls: dict[str, Callable[[], object]] = {
            "search": lambda index=index, query=query: index.search(query),
            "search of a list": lambda index=index, numbers=numbers: index.search(numbers),
            "search, first hit": lambda index=index, query=query: index.search(query)[0],
            "search_batch of one": lambda index=index, vectors=vectors: index.search_batch(vectors),
            "index[id]": lambda index=index: index[0],
            "hits.ids": lambda hits=hits: hits.ids,
            "np.asarray(index)": lambda index=index: np.asarray(index),
        }
        for name, call in calls.items():
            print(f"{dim:>4} dimensions  {name:<22}{nanoseconds(call):>9,.0f} ns")
        waited = asyncio.run(awaited(index, query))
        print(f"{dim:>4} dimensions  {'await search_async':<22}{waited:>9,.0f} ns")


if __name__ == "__main__":
    main()
