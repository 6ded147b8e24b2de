"""Ctrl-C ends what takes long, soon and without a trace."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import random_vectors

import limnion

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")

Progress = Callable[[int, int], object]

VECTORS = random_vectors(400_000, 128)
SECONDS = 0.200


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Have SIGINT raise KeyboardInterrupt, whatever the runner of the tests made of it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(work: Callable[[Progress], object], after: float = 0.0) -> float:
    """Send SIGINT `after` so many seconds of `work`; return how long it went on after that.

    `work` is given what to call when it has begun.
    """
    begun = threading.Event()
    sent = 0.0

    def send() -> None:
        nonlocal sent
        assert begun.wait(30)
        time.sleep(after)
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        work(lambda *_: begun.set())
        time.sleep(after + 1)  # what was through before the signal came still has to meet it
    except KeyboardInterrupt:
        return time.perf_counter() - sent
    finally:
        thread.join()
    pytest.fail("nothing was interrupted")


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2])
def test_a_build_stops(after: float) -> None:
    def build(progress: Progress) -> None:
        limnion.RabitqAsymIndex.build(VECTORS, bits=8, originals="f16", progress=progress)

    assert interrupted(build, after) < SECONDS


def test_adding_stops_and_leaves_the_index_as_it_was() -> None:
    index = limnion.RabitqAsymIndex.build(VECTORS[:1000], bits=8)
    before = index.search_batch(VECTORS[:50])
    assert interrupted(lambda progress: index.add_batch(VECTORS, progress=progress)) < SECONDS
    assert index.ids.tolist() == list(range(1000))
    assert index.search_batch(VECTORS[:50]) == before
    index.add_batch(VECTORS[:10])
    assert len(index) == 1010


def test_a_batch_of_searches_stops() -> None:
    index = limnion.FlatF32Index.build(VECTORS)
    queries = VECTORS[:20_000]
    assert interrupted(lambda progress: index.search_batch(queries, progress=progress)) < SECONDS
    assert len(index.search(VECTORS[0])) == 10


def test_waiting_for_another_thread_stops() -> None:
    index = limnion.RabitqAsymIndex.build(VECTORS[:1000], bits=8)
    ids = range(10**6, 14 * 10**5)
    changing = threading.Event()

    def change() -> None:
        index.add_batch(VECTORS, ids=ids, progress=lambda *_: changing.set())

    writer = threading.Thread(target=change)
    writer.start()
    assert changing.wait(30)

    def search(begin: Progress) -> None:
        begin(0, 0)
        index.search(VECTORS[0])

    took = interrupted(search, 0.05)
    writer.join()
    assert took < SECONDS
    assert len(index) == 401_000
    assert len(index.search(VECTORS[0])) == 10


def test_a_file_that_is_half_written_is_not_left_behind(tmp_path: Path) -> None:
    index = limnion.FlatF32Index.build(VECTORS)
    path = tmp_path / "index"

    def save(begin: Progress) -> None:
        while True:
            begin(0, 0)
            index.save(path)

    interrupted(save, 0.1)
    deadline = time.monotonic() + 30
    while list(tmp_path.glob("*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.01)  # the file that was being written is finished in the background
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]
    assert limnion.FlatF32Index.load(path) == index
