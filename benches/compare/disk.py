"""Measure a lake over a Parquet file beside LanceDB on the same rows.

    python benches/compare/disk.py [--data synth384-1000k] [--into benches/RESULTS.md]

Every step runs in a process of its own: priming on two threads; opening what the step before has
left on disk, with the first search; then one query a call on one processor, at recall@10 of 0.95
or more. LanceDB is given each of two indexes, and the better one counts. Files are warm.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import environments
import numpy as np
from entries import LANCEDB
from places import data_folder, home

MARK = re.compile(r"(<!-- table: disk -->\n).*?(<!-- end -->)", re.DOTALL)
KINDS = ("IVF_HNSW_SQ", "IVF_RQ")
K = 10
RECALL = 0.95
PASSES = 3
SECONDS = 2.0  # of a pass of single queries
# The goals: seconds, bytes, seconds, times LanceDB.
PRIME, BESIDE, RESTART, TIMES = 20.0, 256e6, 0.050, 3.0


def pin() -> None:
    """Confine the process to one processor."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def peak() -> int:
    """Return the most bytes that the process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Return the bytes that the process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def recall(found: list[list[int]], truth: datasets.Rows) -> float:
    """Return the share of the exact neighbours that was found."""
    pairs = zip(found, truth[:, :K], strict=False)
    return statistics.mean(len({*ids} & {*map(int, true)}) / K for ids, true in pairs)


def steady(search: Callable[[datasets.Rows], list[int]], queries: datasets.Rows) -> float:
    """Return queries a second: the median of several passes, one query a call."""
    for query in queries[:20]:
        search(query)
    rates = []
    for _ in range(PASSES):
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            search(queries[done % len(queries)])
            done += 1
        rates.append(done / (time.perf_counter() - began))
    return statistics.median(rates)


# limnion


def lake_of(data: Path) -> Any:  # noqa: ANN401
    """Return a lake over the folder of the Parquet file."""
    import limnion  # noqa: PLC0415

    return limnion.Lake(backends=[limnion.FsBackend("disk", data / "parquet")])


def limnion_prime(data: Path, work: Path, _: str) -> dict[str, Any]:
    """Build the index from Parquet, and save the cache."""
    lake = lake_of(data)
    before = resident()
    began = time.perf_counter()
    stats = lake.prime("docs")
    took = time.perf_counter() - began
    beside = peak() - before - stats.bytes
    began = time.perf_counter()
    lake.save_cache(work / "cache")
    return {
        "prime": took,
        "beside": beside,
        "bytes": stats.bytes,
        "save": time.perf_counter() - began,
    }


def limnion_open(data: Path, work: Path, _: str) -> dict[str, Any]:
    """Take the saved cache, and search once."""
    import limnion.lake  # noqa: F401, PLC0415 - as LanceDB, which is imported by now too

    query = datasets.read(data, "queries")[0]
    began = time.perf_counter()
    lake = lake_of(data)
    lake.load_cache(work / "cache")
    opened = time.perf_counter() - began
    lake.search_one("docs", query, k=K)
    return {"open": opened, "first": time.perf_counter() - began}


def limnion_steady(data: Path, work: Path, _: str) -> dict[str, Any]:
    """Search at the default, which finds more than is asked for."""
    queries, truth = datasets.read(data, "queries"), np.load(data / "neighbors.npy")
    lake = lake_of(data)
    lake.load_cache(work / "cache")
    pin()
    best: dict[str, Any] = {"qps": 0.0}
    for sure in (0.9, 0.95, 0.99):

        def search(query: datasets.Rows, sure: float = sure) -> list[int]:
            return [hit.id for hit in lake.search_one("docs", query, k=K, recall=sure)]

        found = recall([search(query) for query in queries], truth)
        if found >= RECALL:
            best = max(
                best,
                {"qps": steady(search, queries), "recall": found, "knob": f"recall={sure}"},
                key=lambda point: point["qps"],
            )
    return best


# LanceDB


def lancedb_itself() -> Any:  # noqa: ANN401
    """Return the module, which would take our datasets.py for a package of that name."""
    sys.path.remove(str(Path(__file__).resolve().parent))
    ours = sys.modules.pop("datasets")
    import lancedb  # noqa: PLC0415

    sys.modules["datasets"] = ours
    return lancedb


def lance_prime(data: Path, work: Path, kind: str) -> dict[str, Any]:
    """Build the table and its index."""
    from pyarrow import parquet  # noqa: PLC0415

    lancedb = lancedb_itself()
    before = resident()
    began = time.perf_counter()
    file = parquet.ParquetFile(data / "parquet" / "docs.parquet")
    table = lancedb.connect(work / kind).create_table(
        "docs", file.iter_batches(65_536), schema=file.schema_arrow
    )
    rows = table.count_rows()
    options: dict[str, Any] = (
        {"num_partitions": 1, "m": 16, "ef_construction": 128}
        if kind == "IVF_HNSW_SQ"
        else {"num_partitions": max(16, int(4 * rows**0.5) // 4)}
    )
    table.create_index(metric="dot", index_type=kind, vector_column_name="vector", **options)
    return {"prime": time.perf_counter() - began, "beside": peak() - before}


def lance_search(table: Any, knob: dict[str, int]) -> Callable[[datasets.Rows], list[int]]:  # noqa: ANN401
    """Return a search with one setting."""

    def search(query: datasets.Rows) -> list[int]:
        asked = table.search(query).distance_type("dot").select(["id", "_distance"]).limit(K)
        asked = asked.nprobes(knob["nprobes"])
        if "ef" in knob:
            asked = asked.ef(knob["ef"])
        if "refine" in knob:
            asked = asked.refine_factor(knob["refine"])
        return asked.to_arrow()["id"].to_pylist()  # type: ignore[no-any-return]

    return search


def lance_knobs(kind: str) -> list[dict[str, int]]:
    """Return the settings to try, the quickest first."""
    if kind == "IVF_HNSW_SQ":
        return [{"nprobes": 1, "ef": ef} for ef in (16, 32, 64, 128, 256)]
    pairs = ((4, 4), (8, 4), (16, 4), (16, 10), (32, 10), (64, 10), (128, 20))
    return [{"nprobes": nprobes, "refine": refine} for nprobes, refine in pairs]


def lance_open(data: Path, work: Path, kind: str) -> dict[str, Any]:
    """Open the table, and search once."""
    lancedb = lancedb_itself()
    query = datasets.read(data, "queries")[0]
    began = time.perf_counter()
    table = lancedb.connect(work / kind).open_table("docs")
    opened = time.perf_counter() - began
    lance_search(table, lance_knobs(kind)[2])(query)
    return {"open": opened, "first": time.perf_counter() - began}


def lance_steady(data: Path, work: Path, kind: str) -> dict[str, Any]:
    """Search at the quickest setting that finds enough."""
    lancedb = lancedb_itself()
    queries, truth = datasets.read(data, "queries"), np.load(data / "neighbors.npy")
    pin()
    table = lancedb.connect(work / kind).open_table("docs")
    for knob in lance_knobs(kind):
        search = lance_search(table, knob)
        found = recall([search(query) for query in queries[:300]], truth)
        if found >= RECALL:
            return {"qps": steady(search, queries), "recall": found, "knob": f"{kind} {knob}"}
    return {"qps": 0.0}


def write_parquet(data: Path, target: Path, _: str) -> dict[str, Any]:
    """Write the rows of a set as one Parquet file."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    path = next(p for p in (data / "base.f32.npy", data / "base.f16.npy") if p.exists())
    base = np.load(path, mmap_mode="r")
    dim = base.shape[1]
    schema = pa.schema({"id": pa.int64(), "vector": pa.list_(pa.float32(), dim)})
    target.mkdir(parents=True, exist_ok=True)
    partial = target / "docs.partial"
    with parquet.ParquetWriter(partial, schema) as writer:
        for start in range(0, len(base), 100_000):
            rows = np.ascontiguousarray(base[start : start + 100_000], np.float32)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim)
            ids = pa.array(np.arange(start, start + len(rows)))
            writer.write_table(pa.table({"id": ids, "vector": vectors}, schema=schema))
    partial.rename(target / "docs.parquet")
    return {"bytes": (target / "docs.parquet").stat().st_size}


STEPS = {
    step.__name__: step
    for step in (
        write_parquet,
        limnion_prime,
        limnion_open,
        limnion_steady,
        lance_prime,
        lance_open,
        lance_steady,
    )
}


def run(python: Path, step: Callable[..., Any], data: Path, work: Path, kind: str = "-") -> Any:  # noqa: ANN401
    """Run one step in a process of its own, and return what it measured."""
    command = [str(python), __file__, "--step", step.__name__, str(data), str(work), kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"{step.__name__} {kind}: {figures}", flush=True)
    return figures


def median(python: Path, step: Callable[..., Any], data: Path, work: Path, kind: str = "-") -> Any:  # noqa: ANN401
    """Run a quick step several times; the median of the first search counts."""
    runs = [run(python, step, data, work, kind) for _ in range(PASSES)]
    return sorted(runs, key=lambda figures: figures["first"])[PASSES // 2]


def table_of(ours: dict[str, Any], lance: dict[str, Any], rows: int, dim: int) -> str:
    """Return the figures as Markdown."""

    def beside(what: str, mine: float, other: float, unit: str, times: float) -> str:
        reached = "yes" if times >= TIMES else "no"
        ratio = f"{times:.1f} × (≥ {TIMES:g} ×)"
        return f"| {what} | {mine:,.4g} {unit} | {other:,.4g} {unit} | {ratio} | {reached} |"

    def alone(what: str, figure: float, unit: str, goal: float) -> str:
        reached = "yes" if figure <= goal else "no"
        return f"| {what} | {figure:.3g} {unit} | | (≤ {goal:g} {unit}) | {reached} |"

    lines = [
        f"Measured {time.strftime('%Y-%m-%d')}, {rows:,} rows of {dim} dimensions in Parquet.",
        "",
        "| what | limnion | LanceDB | ratio (goal) | reached |",
        "| --- | ---: | ---: | ---: | --- |",
        alone("index from Parquet", ours["prime"], "s", PRIME),
        alone("memory above the result", ours["beside"] / 1e6, "MB", BESIDE / 1e6),
        alone("restart to the first hit", ours["first"] * 1e3, "ms", RESTART * 1e3),
        beside(
            "table and index",
            ours["prime"] + ours["save"],
            lance["prime"],
            "s",
            lance["prime"] / (ours["prime"] + ours["save"]),
        ),
        beside("open", ours["open"] * 1e3, lance["open"] * 1e3, "ms", lance["open"] / ours["open"]),
        beside(
            "open and first search",
            ours["first"] * 1e3,
            lance["first"] * 1e3,
            "ms",
            lance["first"] / ours["first"],
        ),
        beside(
            f"queries a second at recall {RECALL}",
            ours["qps"],
            lance["qps"],
            "",
            ours["qps"] / lance["qps"],
        ),
        "",
        (
            f"limnion: {ours['knob']}, recall {ours['recall']:.3f}. "
            f"LanceDB: {lance['knob']}, recall {lance['recall']:.3f}."
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the table where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--data", default="synth384-1000k", help="a set, by name or folder")
    parser.add_argument("--into", type=Path, nargs="*", default=[], help="files with a table of it")
    options = parser.parse_args()
    if options.step:
        name, data, work, kind = options.step
        print(json.dumps(STEPS[name](Path(data), Path(work), kind)))
        return
    folder = data_folder(options.data)
    if folder is None:
        sys.exit(
            f"there is no set {options.data!r}: python benches/compare/synthetic.py makes some"
        )
    lancedb, me = environments.ready("lancedb", LANCEDB), Path(sys.executable)
    # Given sets may lie where nothing can be written.
    data = home() / "disk" / folder.name
    data.mkdir(parents=True, exist_ok=True)
    for part in folder.glob("*.npy"):
        if not (data / part.name).exists():
            (data / part.name).symlink_to(part)
    if not (data / "parquet" / "docs.parquet").exists():
        run(lancedb, write_parquet, data, data / "parquet")
    with tempfile.TemporaryDirectory(dir=data) as scratch:
        work = Path(scratch)
        ours = run(me, limnion_prime, data, work)
        ours |= median(me, limnion_open, data, work) | run(me, limnion_steady, data, work)
        each = []
        for kind in KINDS:
            figures = run(lancedb, lance_prime, data, work, kind)
            figures |= median(lancedb, lance_open, data, work, kind)
            each.append(figures | run(lancedb, lance_steady, data, work, kind))
    base = np.load(next(iter(data.glob("base.*.npy"))), mmap_mode="r")
    text = table_of(ours, max(each, key=lambda figures: figures["qps"]), *base.shape)
    print(text)
    for path in options.into:
        content = path.read_text()
        path.write_text(MARK.sub(lambda mark: f"{mark[1]}\n{text}\n{mark[2]}", content))


if __name__ == "__main__":
    main()
