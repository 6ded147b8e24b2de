"""Measure what a lake costs beside its bare index.

    python benches/compare/lake.py [--data FOLDER] [--into benches/RESULTS.md]

All in one run, in turns, one query a call. The data is a set as of run.py, or made-up rows.
"""

import argparse
import asyncio
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

# Before limnion makes its pool: federation is measured on one thread.
os.environ.setdefault("LIMNION_THREADS", "1")

import numpy as np
from datasets import Rows, read

import limnion

MARK = re.compile(r"(<!-- table: lake -->\n).*?(<!-- end -->)", re.DOTALL)
ROUNDS = 9
SHARDS = 4
# The goals: of the bare index's speed, of a second, of one index's time.
ONE, CHECK, MANY, AWAITED, LAG = 0.97, 1e-6, 1.15, 1.2, 10e-3
AT_ONCE = 100


def rows(path: Path | None) -> tuple[Rows, Rows]:
    """Return base rows and queries."""
    if path is not None:
        return read(path, "base"), read(path, "queries")
    random = np.random.default_rng(1)
    made = random.standard_normal((100_200, 384), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made[200:], made[:200]


def turns(calls: dict[str, Callable[[Rows], object]], queries: Rows) -> dict[str, float]:
    """Return the median over rounds, in turns, of the seconds that one query takes."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for query in queries:
                call(query)
            found[name].append((time.perf_counter() - start) / len(queries))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def awaited(lake: limnion.Lake, queries: Rows) -> tuple[float, float]:
    """Return the time of many awaits over the processor time of a sequence, and the loop's lag."""
    ratios, lags = [], []

    async def at_once() -> tuple[float, float]:
        worst = 0.0

        async def tick() -> None:
            nonlocal worst
            while True:
                start = time.perf_counter()
                await asyncio.sleep(0.001)
                worst = max(worst, time.perf_counter() - start - 0.001)

        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.01)
        worst = 0.0
        searches = (lake.search_one_async("docs", q, k=10, backend="whole") for q in queries)
        began = time.perf_counter()
        await asyncio.gather(*searches)
        seconds = time.perf_counter() - began
        ticking.cancel()
        return worst, seconds

    for _ in range(ROUNDS):
        began = time.process_time()
        for query in queries:
            lake.search_one("docs", query, k=10, backend="whole")
        alone = time.process_time() - began
        lag, seconds = asyncio.run(at_once())
        lags.append(lag)
        ratios.append(seconds / alone)
    return statistics.median(ratios), statistics.median(lags)


def main() -> None:
    """Measure, print, and write the table where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, help="a folder with base and queries")
    parser.add_argument("--into", type=Path, nargs="*", default=[], help="files with a table of it")
    options = parser.parse_args()
    base, queries = rows(options.data)
    queries = queries[:300]
    index = limnion.RabitqPlusIndex.build(base)
    whole = limnion.LocalBackend("whole")
    whole.upsert("docs", ids=range(len(base)), vectors=base)
    tiny = limnion.LocalBackend("tiny")
    tiny.upsert("docs", ids=[1], vectors=base[:1])
    database = limnion.Database.sync()
    database.put("docs", "one", None, vector=base[0])
    store = limnion.StoreBackend(database, "store")
    lake = limnion.Lake(backends=[whole, tiny, store])
    frozen = limnion.Lake(backends=[whole, tiny, store], consistency=limnion.Consistency.FROZEN)
    parts = []
    for shard, ids in enumerate(np.array_split(np.arange(len(base)), SHARDS)):
        part = limnion.LocalBackend(f"shard-{shard}")
        part.upsert("docs", ids=ids, vectors=base[ids])
        parts.append(part)
    shards = limnion.Lake(backends=parts)
    figure = turns(
        {
            "bare index": lambda query: index.search(query, k=10),
            "search_one": lambda query: lake.search_one("docs", query, k=10, backend="whole"),
            f"search_federated over {SHARDS}": lambda query: shards.search_federated(
                "docs", query, k=10
            ),
        },
        queries,
    )
    figure |= turns(
        {
            "search_one of one row, fresh": lambda query: lake.search_one(
                "docs", query, k=1, backend="tiny"
            ),
            "search_one of one row, frozen": lambda query: frozen.search_one(
                "docs", query, k=1, backend="tiny"
            ),
            "search_one of one row in a store, fresh": lambda query: lake.search_one(
                "docs", query, k=1, backend="store"
            ),
            "search_one of one row in a store, frozen": lambda query: frozen.search_one(
                "docs", query, k=1, backend="store"
            ),
        },
        np.repeat(queries, 20, axis=0),
    )
    one = figure["bare index"] / figure["search_one"]
    check = figure["search_one of one row, fresh"] - figure["search_one of one row, frozen"]
    stored = (
        figure["search_one of one row in a store, fresh"]
        - figure["search_one of one row in a store, frozen"]
    )
    awaits, lag = awaited(lake, queries[:AT_ONCE])
    many = figure[f"search_federated over {SHARDS}"] / figure["bare index"]
    goals = [
        ("`search_one`, warm", f"{one:.3f} × the bare index (≥ {ONE} ×)", one >= ONE),
        ("the check of `FRESH`, memory", f"{check * 1e6:.2f} µs (≤ 1 µs)", check <= CHECK),
        ("the check of `FRESH`, database", f"{stored * 1e6:.2f} µs (≤ 1 µs)", stored <= CHECK),
        (f"federation over {SHARDS}, one thread", f"{many:.2f} × (≤ {MANY} ×)", many <= MANY),
        (
            f"{AT_ONCE} awaits at once, one thread",
            f"{awaits:.2f} × the processor time in sequence (≤ {AWAITED} ×)",
            awaits <= AWAITED,
        ),
        ("lag of the loop meanwhile", f"{lag * 1e3:.1f} ms (≤ 10 ms)", lag <= LAG),
    ]
    lines = [
        f"Measured {time.strftime('%Y-%m-%d')}, {len(base):,} rows of {base.shape[1]} dimensions.",
        "",
        "| what | ratio (goal) | reached |",
        "| --- | ---: | --- |",
        *(f"| {what} | {ratio} | {'yes' if reached else 'no'} |" for what, ratio, reached in goals),
        "",
        "| all figures | |",
        "| --- | ---: |",
        *(f"| {name} | {seconds * 1e6:.1f} µs |" for name, seconds in figure.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    for path in options.into:
        content = path.read_text()
        path.write_text(MARK.sub(lambda mark: f"{mark[1]}\n{text}\n{mark[2]}", content))


if __name__ == "__main__":
    main()
