"""Measure the store beside SQLite as Python has it: `sqlite3` in the calling thread, and aiosqlite.

    python benches/compare/store.py [--quick] [--folder FOLDER] [--into benches/RESULTS.md]

All in one run, on one file system, with the same durability: a write-ahead log, synced at commits.
Each figure is the best of several rounds; what goes to the disk is the median. README.md in this
folder says more.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import environments

import limnion

MARK = re.compile(r"(<!-- table: store -->\n).*?(<!-- end -->)", re.DOTALL)

RECORD: dict[str, Any] = {
    "id": 4_711,
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "tags": ["vip", "mathematics", "early"],
    "score": 0.875,
    "active": True,
    "manager": None,
    "address": {"city": "London", "street": "St James's Square", "number": 12},
}
TEXT = json.dumps(RECORD, separators=(",", ":"))
DURABLE = "PRAGMA journal_mode = wal; PRAGMA synchronous = full;"
TABLE = "CREATE TABLE record (namespace TEXT, key TEXT, value BLOB, PRIMARY KEY (namespace, key))"
INSERT = "INSERT OR REPLACE INTO record VALUES (?, ?, ?)"
SELECT = "SELECT value FROM record WHERE namespace = ? AND key = ?"


def best(call: Callable[[], object], number: int, rounds: int = 7) -> float:
    """Return the seconds that one call takes."""
    return min(timeit.repeat(call, number=number, repeat=rounds)) / number


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def reads(folder: Path, scale: float) -> dict[str, float]:
    """Measure reads of one record, hot and cold."""
    count = int(20_000 * scale)
    keys = [f"user:{number:08}" for number in range(count)]
    text = TEXT.encode()
    with limnion.Database.sync(folder / "store") as db:
        db.put_batch([("users", key, RECORD) for key in keys])
        db.get_nowait("users", keys[0])
        got = best(lambda: db.get_nowait("users", keys[0]), 20_000)
    loads = best(lambda: json.loads(text), 20_000)

    async def awaited() -> float:
        async with limnion.Database(folder / "store") as db:
            await db.get("users", keys[0])
            rounds = []
            for _ in range(7):
                start = time.perf_counter()
                for _ in range(20_000):
                    await db.get("users", keys[0])
                rounds.append((time.perf_counter() - start) / 20_000)
        return min(rounds)

    waited = asyncio.run(awaited())
    shuffled = keys[::7] + keys[3::7]
    cold = []
    config = limnion.Config(path=folder / "store", max_memory_mb=0)
    with limnion.Database.sync(config) as db:
        for _ in range(7):
            start = time.perf_counter()
            for key in shuffled:
                db.get_nowait("users", key)
            cold.append((time.perf_counter() - start) / len(shuffled))
    plain = sqlite3.connect(folder / "plain.db")
    plain.executescript(DURABLE)
    plain.execute(TABLE)
    plain.executemany(INSERT, [("users", key, text) for key in keys])
    plain.commit()
    select, decoded = [], []
    for _ in range(7):
        start = time.perf_counter()
        for key in shuffled:
            plain.execute(SELECT, ("users", key)).fetchone()
        select.append((time.perf_counter() - start) / len(shuffled))
        start = time.perf_counter()
        for key in shuffled:
            json.loads(plain.execute(SELECT, ("users", key)).fetchone()[0])
        decoded.append((time.perf_counter() - start) / len(shuffled))
    plain.close()
    return {
        "get_nowait, hot": got,
        "json.loads": loads,
        "await get, hot": waited,
        "get, cold": min(cold),
        "sqlite3 select": min(select),
        "sqlite3 select and json.loads": min(decoded),
    }


def batches(folder: Path, scale: float) -> dict[str, float]:
    """Measure a batch of 1,000 new records, synced."""
    rounds = max(3, int(15 * scale))
    ours, theirs, encoded = [], [], []
    plain = sqlite3.connect(folder / "plain.db")
    plain.executescript(DURABLE)
    plain.execute(TABLE)
    with limnion.Database.sync(folder / "store") as db:
        for turn in range(rounds):
            keys = [f"{turn:04}:{number:04}" for number in range(1000)]
            rows = [("users", key, RECORD) for key in keys]
            start = time.perf_counter()
            db.put_batch(rows)
            ours.append(time.perf_counter() - start)
            raw = [("users", key, TEXT) for key in keys]
            start = time.perf_counter()
            plain.executemany(INSERT, raw)
            plain.commit()
            theirs.append(time.perf_counter() - start)
            rows = [("users", f"json:{key}", RECORD) for key in keys]
            start = time.perf_counter()
            plain.executemany(INSERT, [(n, k, json.dumps(v)) for n, k, v in rows])
            plain.commit()
            encoded.append(time.perf_counter() - start)
    plain.close()
    return {
        "put_batch of 1,000": statistics.median(ours),
        "executemany of 1,000": statistics.median(theirs),
        "executemany of 1,000 and json.dumps": statistics.median(encoded),
    }


def puts(folder: Path, scale: float) -> dict[str, float]:
    """Measure durable single puts from 64 tasks at once, and from one."""
    tasks, each = 64, max(5, int(60 * scale))

    async def run(count: int) -> float:
        async with limnion.Database(folder / f"store{count}") as db:

            async def worker(name: int) -> None:
                for step in range(each):
                    await db.put("users", f"{name}:{step}", RECORD)

            start = time.perf_counter()
            await asyncio.gather(*(worker(name) for name in range(count)))
            return (time.perf_counter() - start) / (count * each)

    return {"put, 64 tasks": asyncio.run(run(tasks)), "put, 1 task": asyncio.run(run(1))}


def history(folder: Path, scale: float) -> dict[str, float]:
    """Measure reads of the past in a small and in a large store."""
    figures = {}
    for name, total in (("10 k", int(10_000 * scale)), ("1 M", int(1_000_000 * scale))):
        keys = [f"key:{number:06}" for number in range(total // 100)]
        config = limnion.Config(path=folder / name, durability="batched")
        with limnion.Database.sync(config) as db:
            for version in range(100):
                for first in range(0, len(keys), 1_000):
                    rows = [("n", key, {"v": version}) for key in keys[first : first + 1_000]]
                    db.put_batch(rows)
            some = keys[:: max(1, len(keys) // 50)]
            middle = {key: db.history("n", key)[50].version for key in some}
            gets, lists = [], []
            for _ in range(7):
                start = time.perf_counter()
                for key in some:
                    db.get_at("n", key, middle[key])
                gets.append((time.perf_counter() - start) / len(some))
                start = time.perf_counter()
                for key in some:
                    db.history("n", key)
                lists.append((time.perf_counter() - start) / len(some))
            figures[f"get_at, {name} versions"] = min(gets)
            figures[f"history of 100, {name} versions"] = min(lists)
    return figures


FILL = """
import os, sys, limnion
path, megabytes, crash = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "crash"
db = limnion.Database.sync(limnion.Config(path=path, durability="batched"))
value = {"text": "x" * 4_000}
for first in range(0, megabytes * 250, 1_000):
    db.put_batch([("n", f"{first + n:08}", value) for n in range(1_000)])
if crash:
    os._exit(0)
db.close()
"""

OPEN = """
import sys, time, limnion
limnion.Database.sync().close()  # what is imported when first used is not what is measured
start = time.perf_counter()
db = limnion.Database.sync(sys.argv[1])
db.get("n", "00000001")
print(time.perf_counter() - start)
db.close()
"""


def opening(folder: Path, scale: float) -> dict[str, float]:
    """Measure how long a store of 1 GB takes to open and to answer, also after a crash."""
    figures = {}
    for name in ("closed", "crash"):
        path = folder / name
        arguments = [str(path), str(max(4, int(1_000 * scale))), name]
        subprocess.run([sys.executable, "-c", FILL, *arguments], check=True)
        opened = subprocess.run(
            [sys.executable, "-c", OPEN, str(path)], check=True, capture_output=True, text=True
        )
        after = "" if name == "closed" else " after a crash"
        figures[f"open and get, 1 GB{after}"] = float(opened.stdout)
        shutil.rmtree(path)
    return figures


AIOSQLITE = """
import asyncio, json, sys, time
import aiosqlite
folder, each = sys.argv[1], int(sys.argv[2])
text, insert, select, durable, table = json.loads(sys.argv[3])

async def main():
    async with aiosqlite.connect(folder + "/aio.db") as db:
        await db.executescript(durable)
        await db.execute(table)
        async def worker(name):
            for step in range(each):
                await db.execute(insert, ("users", f"{name}:{step}", text))
                await db.commit()
        start = time.perf_counter()
        await asyncio.gather(*(worker(name) for name in range(64)))
        shared = (time.perf_counter() - start) / (64 * each)
        alone = asyncio.Lock()
        async def careful(name):
            for step in range(each):
                async with alone:
                    await db.execute(insert, ("users", f"{name}:{step}", text))
                    await db.commit()
        start = time.perf_counter()
        await asyncio.gather(*(careful(64 + name) for name in range(64)))
        put = (time.perf_counter() - start) / (64 * each)
        rounds = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(500):
                async with db.execute(select, ("users", "0:0")) as cursor:
                    await cursor.fetchone()
            rounds.append((time.perf_counter() - start) / 500)
    print(json.dumps({
        "aiosqlite put, 64 tasks, a commit each": put,
        "aiosqlite put, 64 tasks, whoever commits commits all": shared,
        "aiosqlite get": min(rounds),
    }))

asyncio.run(main())
"""


def aiosqlite(folder: Path, scale: float) -> dict[str, float]:
    """Measure aiosqlite, in an environment of its own."""
    python = environments.ready("aiosqlite", ["aiosqlite==0.22.1"])
    settings = json.dumps([TEXT, INSERT, SELECT, DURABLE, TABLE])
    each = str(max(3, int(20 * scale)))
    done = subprocess.run(
        [str(python), "-c", AIOSQLITE, str(folder), each, settings],
        check=True,
        capture_output=True,
        text=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def sync_time(folder: Path) -> float:
    """Return the seconds that the disk takes to append 4 KiB and sync them."""
    times = []
    with (folder / "sync").open("wb") as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def spoken(seconds: float) -> str:
    """Return a time as people read it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


class Row(NamedTuple):
    """A goal, and what came of it."""

    what: str
    ours: str
    theirs: str
    ratio: str
    reached: bool


def goals(figure: dict[str, float]) -> Iterator[Row]:
    """Yield what was to be reached."""

    def at_most(what: str, ours: str, theirs: str, limit: float) -> Row:
        ratio = figure[ours] / figure[theirs]
        told = f"{theirs}: {spoken(figure[theirs])}"
        goal = f"{ratio:.2f} × (≤ {limit:g} ×)"
        return Row(what, spoken(figure[ours]), told, goal, ratio <= limit)

    def at_least(what: str, ours: str, theirs: str, limit: float) -> Row:
        ratio = figure[theirs] / figure[ours]
        told = f"{theirs}: {spoken(figure[theirs])}"
        goal = f"{ratio:.2f} × as fast (≥ {limit:g} ×)"
        return Row(what, spoken(figure[ours]), told, goal, ratio >= limit)

    def absolute(what: str, seconds: float, theirs: str, limit: float) -> Row:
        goal = f"{spoken(seconds)} (≤ {spoken(limit)})"
        return Row(what, spoken(seconds), theirs, goal, seconds <= limit)

    yield at_most("hot `get_nowait`, 200 bytes", "get_nowait, hot", "json.loads", 1.0)
    more = figure["await get, hot"] - figure["get_nowait, hot"]
    peer = f"aiosqlite get: {spoken(figure['aiosqlite get'])}"
    yield absolute("awaited hot `get`, beyond `get_nowait`", more, peer, 1e-6)
    yield at_most("cold `get`", "get, cold", "sqlite3 select", 1.5)
    yield at_least(
        "durable put, 64 tasks", "put, 64 tasks", "aiosqlite put, 64 tasks, a commit each", 10
    )
    yield at_least("batch of 1,000 records", "put_batch of 1,000", "executemany of 1,000", 0.8)
    for what in ("get_at", "history of 100"):
        ours, theirs = f"{what}, 1 M versions", f"{what}, 10 k versions"
        yield at_most(f"`{what}`, 1 M versions", ours, theirs, 2)
    for after in ("", " after a crash"):
        yield absolute(f"open 1 GB{after}", figure[f"open and get, 1 GB{after}"], "", 0.05)


def table(figure: dict[str, float], disk: float) -> str:
    """Return the goals and all figures as Markdown."""
    lines = [
        f"Measured {time.strftime('%Y-%m-%d')}; the disk takes {spoken(disk)} to sync 4 KiB.",
        "",
        "| what | limnion | beside | ratio (goal) | reached |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for row in goals(figure):
        reached = "yes" if row.reached else "no"
        lines.append(f"| {row.what} | {row.ours} | {row.theirs} | {row.ratio} | {reached} |")
    lines += ["", "| all figures | |", "| --- | ---: |"]
    lines += [f"| {name} | {spoken(seconds)} |" for name, seconds in figure.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write the table where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="only show that everything works")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a disk to measure on")
    parser.add_argument("--into", type=Path, nargs="*", default=[], help="files with a table of it")
    options = parser.parse_args()
    scale = 0.02 if options.quick else 1.0
    figure: dict[str, float] = {}
    with scratch(options.folder) as folder:
        disk = sync_time(folder)
        for measure in (reads, batches, puts, aiosqlite, history, opening):
            place = folder / measure.__name__
            place.mkdir()
            found = measure(place, scale)
            for name, seconds in found.items():
                print(f"  {name:<54}{spoken(seconds):>12}", flush=True)
            figure.update(found)
            shutil.rmtree(place)
    text = table(figure, disk)
    print(text)
    for path in options.into:
        content = path.read_text()
        path.write_text(MARK.sub(lambda mark: f"{mark[1]}\n{text}\n{mark[2]}", content))


if __name__ == "__main__":
    main()
