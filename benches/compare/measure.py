"""One phase of one entry, in a process of its own; run.py starts it in the library's environment.

The last line printed is `RESULT` and one JSON object.
"""

import argparse
import importlib
import importlib.metadata
import itertools
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import machine
import masks
import numpy as np
from adapters.base import Adapter, Ids, K, Knob, Rows
from entries import BY_NAME, Entry

PASSES = 3  # timed passes a point; the median counts
SECONDS = 1.0  # of one pass of single queries
BATCH = 1_000  # queries handed over at once
BATCH_SECONDS = 3.0  # a slower library gets fewer
FEWEST = 50  # queries of a pass, however slow
SLOW_BUILD = 30.0  # seconds; a longer build is not repeated for quiet
LONGEST = 1_800  # seconds a phase may take
OVERHEAD_ROWS = 10  # as many as there are hits
OVERHEAD_CALLS = 20_000
WANTED = 0.95  # recall that a filtered search is to have
FILTER_SECONDS = 1.5  # of a look at one setting; a slower library is asked fewer queries
SLOWER = 2  # settings tried after the quickest that has it
OPENINGS = 5
REMOVALS = 200
REMOVAL_SECONDS = 2.0  # a slower library removes fewer


@dataclass
class Phase:
    """What a phase works on."""

    entry: Entry
    data: Path
    folder: Path
    threads: int
    quick: bool

    @property
    def tries(self) -> int:
        """How often a point is repeated for quiet."""
        return 1 if self.quick else machine.TRIES

    def library(self, dim: int) -> Adapter:
        """Return the adapter, its library imported."""
        module = importlib.import_module("adapters." + self.entry.adapter)
        made: Adapter = module.Library(dim, self.threads, self.folder, self.entry.settings)
        return made

    def version(self) -> str:
        """Return the version of the library that is installed."""
        return importlib.metadata.version(self.entry.library)

    def loaded(self) -> tuple[Adapter, Rows, dict[str, Any]]:
        """Return the library with its index loaded, the queries, and what loading took."""
        queries = datasets.read(self.data, "queries")
        library = self.library(queries.shape[1])
        zero = machine.settle()
        began = time.perf_counter()
        library.load()
        library.turn(library.knobs()[0])
        library.one(queries[0])
        took = time.perf_counter() - began
        return library, queries, {"load_s": took, "loaded_bytes": machine.resident() - zero}


def recall(found: list[Ids], truth: Any) -> float:  # noqa: ANN401
    """Return the share of the true K that was found."""
    same = (
        len({int(i) for i in f[:K]} & set(t[:K].tolist()))
        for f, t in zip(found, truth, strict=False)
    )
    return sum(same) / (K * len(found))


def build(phase: Phase) -> dict[str, Any]:
    """Build and save the index."""
    machine.pin(phase.threads)
    rows = datasets.read(phase.data, "base")
    library = phase.library(rows.shape[1])
    spent = 0.0
    zero = machine.settle()

    def once() -> tuple[float, float]:
        watch = machine.Watch()
        library.build(rows)
        return time.perf_counter() - watch.began, watch.used()

    tries = phase.tries
    while True:
        (seconds, used), guard = machine.undisturbed(once, 1)
        spent += seconds
        tries -= 1
        if guard["others"] <= machine.OTHERS or spent > SLOW_BUILD or not tries:
            break
    most = machine.peak() - zero
    built = machine.settle() - zero
    began = time.perf_counter()
    library.save()
    return {
        "version": phase.version(),
        "rows": len(rows),
        "dim": rows.shape[1],
        "threads": phase.threads,
        "build_s": seconds,
        "build_cpu_s": used,
        "built_bytes": built,
        "peak_bytes": most,
        "save_s": time.perf_counter() - began,
        "disk_bytes": sum(f.stat().st_size for f in phase.folder.rglob("*") if f.is_file()),
        "bytes_per_row": library.bytes_per_row(),
        **guard,
    }


def sweep(
    phase: Phase, library: Adapter, measure: Callable[[], tuple[list[Ids], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Measure one point for each setting of the knob."""
    truth = np.load(phase.data / "neighbors.npy")
    points = []
    for knob in library.knobs():
        library.turn(knob)
        found, point = measure()
        points.append({"knob": knob, "recall": recall(found, truth), **point})
        said = " ".join(f"{name}={value:g}" for name, value in knob.items())
        print(
            f"- {phase.entry.name} {said}: recall {points[-1]['recall']:.4f},"
            f" {point['qps']:,.0f} queries/s, others {point['others']:.2f}",
            flush=True,
        )
    return points


def rates(timed: list[float], count: int) -> dict[str, float]:
    """Return the queries a second: the median of the passes, the worst and the best."""
    return {
        "qps": count / statistics.median(timed),
        "qps_min": count / max(timed),
        "qps_max": count / min(timed),
        "queries": count,
    }


def plain(ids: Ids) -> list[int]:
    """Return ids as numbers: arrays that stay would keep the freed memory of a search in between.

    That is the library's to reuse, and would look like the memory of its index.
    """
    return [int(i) for i in ids]


def one_by_one(
    phase: Phase, library: Adapter, queries: list[Rows]
) -> tuple[list[Ids], dict[str, Any]]:
    """Search one query a call: all once for what is found, then again against the clock."""
    one, clock = library.one, time.perf_counter
    began = clock()
    found = [plain(one(query)) for query in queries]
    took = (clock() - began) / len(queries)
    count = min(len(queries), max(FEWEST, int((0.1 if phase.quick else SECONDS) / took)))

    def passes() -> list[list[float]]:
        timed = []
        for _ in range(PASSES):
            marks = [clock()]
            for query in queries[:count]:
                one(query)
                marks.append(clock())
            timed.append(marks)
        return timed

    timed, guard = machine.undisturbed(passes, phase.tries)
    calls = sorted(b - a for marks in timed for a, b in itertools.pairwise(marks))
    return found, {
        **rates([marks[-1] - marks[0] for marks in timed], count),
        "p50_us": 1e6 * calls[len(calls) // 2],
        "p99_us": 1e6 * calls[len(calls) * 99 // 100],
        **guard,
    }


def single(phase: Phase) -> dict[str, Any]:
    """One query a call, in a Python loop, on one processor."""
    machine.pin(1)
    library, queries, loading = phase.loaded()
    zero = machine.resident() - loading["loaded_bytes"]
    points = sweep(phase, library, lambda: one_by_one(phase, library, list(queries)))
    return {**loading, "resident_bytes": machine.resident() - zero, "points": points}


def batch(phase: Phase) -> dict[str, Any]:
    """All queries in one call; a set with fewer than BATCH of them is gone through again."""
    machine.pin(phase.threads)
    library, queries, loading = phase.loaded()
    repeated = np.ascontiguousarray(np.tile(queries, (-(-BATCH // len(queries)), 1))[:BATCH])

    def measure() -> tuple[list[Ids], dict[str, Any]]:
        began = time.perf_counter()
        library.many(repeated[:FEWEST])
        took = (time.perf_counter() - began) / FEWEST
        count = min(BATCH, max(FEWEST, int((1 if phase.quick else BATCH_SECONDS) / took)))
        found: list[Ids] = []

        def passes() -> list[float]:
            timed = []
            for _ in range(PASSES):
                began = time.perf_counter()
                found[:] = library.many(repeated[:count])
                timed.append(time.perf_counter() - began)
            return timed

        timed, guard = machine.undisturbed(passes, phase.tries)
        return found[: len(queries)], {**rates(timed, count), **guard}

    return {**loading, "threads": phase.threads, "points": sweep(phase, library, measure)}


def overhead(phase: Phase) -> dict[str, Any]:
    """Microseconds a call, when there is nothing to search: an index of a few rows."""
    machine.pin(1)
    rows = datasets.read(phase.data, "base")
    library = phase.library(rows.shape[1])
    rows = rows[: max(OVERHEAD_ROWS, library.fewest_rows)].copy()
    library.build(rows)
    library.save()
    library.load()
    library.turn(library.knobs()[0])
    query, one = rows[0], library.one

    def passes() -> float:
        timed = []
        for _ in range(2 * PASSES + 1):
            began = time.perf_counter()
            for _ in range(OVERHEAD_CALLS):
                one(query)
            timed.append(time.perf_counter() - began)
        return statistics.median(timed)

    took, guard = machine.undisturbed(passes, phase.tries)
    return {"call_us": 1e6 * took / OVERHEAD_CALLS, "rows": len(rows), **guard}


def filters(phase: Phase) -> dict[str, Any]:
    """Searches that may find some rows only, each at the quickest setting that finds enough.

    Beside each case stands what the same setting finds for the same queries among all rows.
    """
    machine.pin(1)
    library, queries, _ = phase.loaded()
    rows = datasets.read(phase.data, "base")
    everything = np.load(phase.data / "neighbors.npy")
    cases = [(case, case.truth(rows, queries, K)) for case in masks.cases(rows, queries)]
    del rows
    among_all = {}
    for knob in library.knobs():
        library.turn(knob)
        among_all[str(knob)] = [plain(library.one(query)) for query in queries]
    measured = []
    for case, truth in cases:
        library.allow(case.name, case.mask)
        knob, count = quickest(library, list(queries[case.queries]), truth)
        library.turn(knob)
        asked = case.queries[:count]
        found, point = one_by_one(phase, library, list(queries[asked]))
        unfiltered = recall([among_all[str(knob)][i] for i in asked], everything[asked])
        measured.append(
            {
                "mask": case.name,
                "share": case.share,
                "asked": case.asked,
                "passing": int(case.mask.sum()),
                "knob": knob,
                "recall": recall(found, truth),
                "unfiltered": unfiltered,
                **point,
            }
        )
        print(
            f"- {phase.entry.name} {case.name}, {case.asked}: recall {measured[-1]['recall']:.4f}"
            f" (of all rows {unfiltered:.4f}), {point['qps']:,.0f} queries/s",
            flush=True,
        )
    return {"cases": measured}


def quickest(library: Adapter, queries: list[Rows], truth: Any) -> tuple[Knob, int]:  # noqa: ANN401
    """Return the quickest setting with the recall wanted, or else that with the best recall.

    Also how many of the queries a library of this speed is asked.
    """
    best: tuple[bool, float, float] | None = None  # enough, recall if not, speed
    chosen, asked, slower = library.knobs()[0], len(queries), 0
    for knob in library.knobs():
        library.turn(knob)
        library.one(queries[0])
        began = time.perf_counter()
        library.one(queries[-1])
        took = time.perf_counter() - began
        count = min(len(queries), max(FEWEST, int(FILTER_SECONDS / took)))
        began = time.perf_counter()
        found = [plain(library.one(query)) for query in queries[:count]]
        speed = count / (time.perf_counter() - began)
        share = recall(found, truth)
        enough = share >= WANTED
        score = (enough, 0.0 if enough else share, speed)
        if best is None or score > best:
            best, chosen, asked, slower = score, knob, count, 0
        elif best[0]:
            slower += 1
        if slower > SLOWER:
            break
    return chosen, asked


def upkeep(phase: Phase) -> dict[str, Any]:
    """Opening the saved index, mapped where the library can do that; taking rows out of it."""
    machine.pin(1)
    rows = datasets.read(phase.data, "base")
    library = phase.library(rows.shape[1])
    chosen = np.random.default_rng(0).permutation(len(rows))[:REMOVALS]
    del rows
    opened = []
    for _ in range(OPENINGS):
        began = time.perf_counter()
        library.map()
        opened.append(time.perf_counter() - began)
    library.load()

    def removals() -> list[float]:
        timed: list[float] = []
        for row in chosen.tolist():
            began = time.perf_counter()
            library.remove(row)
            timed.append(time.perf_counter() - began)
            if sum(timed) > REMOVAL_SECONDS:
                break
        return timed

    timed, guard = machine.undisturbed(removals, 1)  # a row is there to be removed once
    return {
        "open_s": statistics.median(opened),
        "remove_us": 1e6 * statistics.median(timed),
        "removed": len(timed),
        **guard,
    }


PHASES = {
    "build": build,
    "single": single,
    "batch": batch,
    "overhead": overhead,
    "filters": filters,
    "upkeep": upkeep,
}


def main() -> None:
    """Run the phase that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("phase", choices=[*PHASES, "machine"])
    parser.add_argument("--entry", choices=BY_NAME)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    signal.alarm(LONGEST)  # ends the process: run.py reports it, and goes on
    if asked.phase == "machine":
        result = machine.describe()
    else:
        phase = Phase(BY_NAME[asked.entry], asked.data, asked.folder, asked.threads, asked.quick)
        result = PHASES[asked.phase](phase)
    print("RESULT", json.dumps(result), flush=True)
    os._exit(0)  # some libraries take long to take themselves apart


if __name__ == "__main__":
    main()
