"""A program ends when it wants to, silently, whatever is still under way."""

import os
import sys

import pytest
from support import RunPython

PRELUDE = """
import asyncio, sys, threading, time
import numpy as np
import limnion
vectors = np.random.default_rng(0).standard_normal((120_000, 128), dtype=np.float32)
index = limnion.RabitqPlusIndex.build(vectors)
"""

WAYS = {
    "awaits in flight": """
loop = asyncio.new_event_loop()
async def main():
    global kept
    kept = [asyncio.ensure_future(index.search_async(query)) for query in vectors[:1000]]
    kept.append(asyncio.ensure_future(index.search_batch_async(vectors[:2000])))
    await asyncio.sleep({delay})
    for task in kept:
        task._log_destroy_pending = False
loop.run_until_complete(main())
""",
    "asyncio.run leaves": """
async def main():
    for query in vectors[:1000]:
        asyncio.ensure_future(index.search_async(query))
    asyncio.ensure_future(index.search_batch_async(vectors[:2000]))
    await asyncio.sleep({delay})
asyncio.run(main())
""",
    "sys.exit inside the loop": """
async def main():
    asyncio.ensure_future(index.search_batch_async(vectors[:2000]))
    await asyncio.sleep({delay})
    sys.exit(0)
asyncio.run(main())
""",
    "daemon threads that wait": """
class Slow:
    name = "slow"
    def list_collections(self): return ["docs"]
    def describe(self, collection): time.sleep(0.4)
    def pull(self, collection): time.sleep(0.4)
lake = limnion.Lake(backends=[Slow()])
for _ in range(4):
    threading.Thread(target=lambda: lake.search_one("docs", [1.0, 0.0]), daemon=True).start()
time.sleep({delay})
""",
    "daemon threads in a hurry": """
database = limnion.Database.sync()
def work():
    while True:
        index.search(vectors[0])
def write():
    while True:
        database.put("n", "k", 1)
for target in (work, work, write):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.02 + {delay})
""",
    "daemon threads at work": """
def work():
    while True:
        index.search(vectors[0])
        index.search_batch(vectors[:50])
def build():
    while True:
        limnion.RabitqAsymIndex.build(vectors, bits=8)
for target in (work, build):
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.05 + {delay})
""",
}


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01, 0.05])
@pytest.mark.parametrize("way", WAYS)
def test_exit_is_silent_and_clean(run_python: RunPython, way: str, delay: float) -> None:
    done = run_python(PRELUDE + WAYS[way].format(delay=delay))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_exits_as_well(run_python: RunPython) -> None:
    done = run_python(
        PRELUDE
        + """
import os
index.search_batch(vectors[:100])
child = os.fork()
if child == 0:
    index.search_batch(vectors[:100])
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert (done.stdout, done.returncode) == ("7\n", 0)
    assert done.stderr == "" or sys.version_info >= (3, 12)


@pytest.mark.parametrize("count", ["0", "two", "-1", "4096"])
def test_a_wrong_number_of_threads_is_told(
    run_python: RunPython, monkeypatch: pytest.MonkeyPatch, count: str
) -> None:
    monkeypatch.setenv("LIMNION_THREADS", count)
    done = run_python(
        """
        import asyncio, limnion, numpy as np
        vectors = np.ones((4, 8), dtype=np.float32)
        try:
            limnion.FlatF32Index.build(vectors)
        except ValueError as problem:
            print(type(problem).__name__, problem)
        """
    )
    assert done.stdout.startswith("InvalidArgumentError LIMNION_THREADS must be 1 to 1024, got ")


def test_the_number_of_threads_changes_nothing(
    run_python: RunPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
        import hashlib, pickle, limnion, numpy as np
        vectors = np.random.default_rng(0).standard_normal((5_000, 100), dtype=np.float32)
        index = limnion.RabitqPlusIndex.build(vectors, bits=3)
        batch = index.search_batch(vectors[:100], recall=0.9)
        print(hashlib.sha256(pickle.dumps((index, batch))).hexdigest())
        """
    said = set()
    for count in ("1", "2", "5"):
        monkeypatch.setenv("LIMNION_THREADS", count)
        said.add(run_python(program).stdout)
    assert len(said) == 1
    assert len(said.pop()) == 65


def test_the_level_of_the_cpu_changes_nothing(
    run_python: RunPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
        import hashlib, pickle, limnion, numpy as np
        vectors = np.random.default_rng(0).standard_normal((3_000, 100), dtype=np.float32)
        index = limnion.RabitqPlusIndex.build(vectors, bits=3, metric="cosine")
        batch = index.search_batch(vectors[:100], recall=0.9)
        print(limnion.cpu_features()["level"])
        print(hashlib.sha256(pickle.dumps((index, batch))).hexdigest())
        """
    levels, hashes = set(), set()
    for level in ("", "scalar", "avx2", "avx512", "neon"):
        monkeypatch.setenv("LIMNION_SIMD", level)
        used, digest = run_python(program).stdout.split()
        levels.add(used)
        hashes.add(digest)
    assert "scalar" in levels
    assert len(hashes) == 1
