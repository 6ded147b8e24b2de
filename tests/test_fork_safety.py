"""A forked child works, whatever the parent's threads were doing."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable

import pytest
from support import random_vectors

import limnion
from limnion import errors

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    # Python 3.12 and later warn of forks beside threads, which is what is tested here.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

VECTORS = random_vectors(20_000, 64)


def in_child(work: Callable[[], bool], seconds: float = 20) -> None:
    """Fork; assert that `work` is true in the child, in time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.001)


def everything(index: limnion.RabitqPlusIndex) -> bool:
    """Do whatever needs threads, and a change."""
    index.add(id=10**6, vector=VECTORS[0])
    batch = index.search_batch(VECTORS[:100], k=1)
    built = limnion.RabitqAsymIndex.build(VECTORS[:5000])
    index.remove(10**6)
    return bool(batch.ids.shape == (100, 1)) and len(built) == 5000


def test_a_child_builds_searches_and_changes() -> None:
    index = limnion.RabitqPlusIndex.build(VECTORS)
    assert everything(index)
    in_child(lambda: everything(index))
    assert everything(index)

    def with_a_child_of_its_own() -> bool:
        in_child(lambda: everything(index))
        return everything(index)

    in_child(with_a_child_of_its_own)


def test_a_child_works_while_the_parents_threads_search() -> None:
    index = limnion.RabitqPlusIndex.build(VECTORS)
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            index.search(VECTORS[1], k=3)
            index.search_batch(VECTORS[:8], k=3)

    threads = [threading.Thread(target=search) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            in_child(lambda: everything(index))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert everything(index)


def test_a_child_of_a_change_under_way_says_so() -> None:
    index = limnion.RabitqAsymIndex.build(VECTORS[:100], bits=8)
    big = random_vectors(300_000, 64)
    begun = threading.Event()

    def change() -> None:
        index.add_batch(big, progress=lambda *_: begun.set())

    writer = threading.Thread(target=change)
    writer.start()
    assert begun.wait(10)

    def says_so() -> bool:
        try:
            index.search(VECTORS[0])
        except errors.InternalError as problem:
            return "fork" in str(problem) and everything(limnion.RabitqPlusIndex.build(VECTORS))
        return False

    in_child(says_so)
    writer.join()
    assert len(index) == 300_100
    assert len(index.search(VECTORS[0])) == 10


def double(row: int) -> int:
    """Search in a worker of a pool, with an index that came by fork."""
    hits = SHARED.search(VECTORS[row], k=1)
    return 2 * hits[0].id


SHARED = limnion.RabitqPlusIndex.build(VECTORS[:500])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pools_of_processes_work(method: str) -> None:
    SHARED.search_batch(VECTORS[:10])
    context = multiprocessing.get_context(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with context.Pool(2) as pool:
            if method == "fork":
                assert pool.map(double, range(20)) == [2 * row for row in range(20)]
            indexes = pool.map(limnion.FlatF32Index.build, [VECTORS[:7], VECTORS[:8]])
    assert [len(index) for index in indexes] == [7, 8]


def test_a_hook_before_exec_is_silent() -> None:
    everything(limnion.RabitqPlusIndex.build(VECTORS))
    done = subprocess.run(
        [sys.executable, "-c", "print(1)"],
        preexec_fn=lambda: None,  # what is tested
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_a_fork_inside_a_progress_callable_does_not_hang() -> None:
    def progress(_done: int, _total: int) -> None:
        if not children:
            children.append(0)
            in_child(lambda: everything(SHARED))

    children: list[int] = []
    limnion.RabitqPlusIndex.build(VECTORS, progress=progress)
    assert children
