"""Python goes on while limnion works."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from support import random_vectors

import limnion

VECTORS = random_vectors(60_000, 256)


def ticks_during(work: Callable[[], object]) -> tuple[int, float]:
    """Return how often another thread came to run during `work`, and the longest it had to wait."""
    stop = threading.Event()
    times: list[float] = []

    def tick() -> None:
        while not stop.is_set():
            times.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    work()
    stop.set()
    thread.join()
    return len(times), float(np.diff(times).max(initial=0))


@pytest.mark.parametrize("verb", ["build", "add_batch", "search_batch", "exact search"])
def test_other_threads_run_meanwhile(verb: str) -> None:
    index = limnion.RabitqPlusIndex.build(VECTORS)
    ones = np.ones(256, dtype=np.float32)
    work: dict[str, Callable[[], object]] = {
        "build": lambda: limnion.RabitqAsymIndex.build(VECTORS, bits=8),
        "add_batch": lambda: limnion.RabitqAsymIndex.build(VECTORS[:10]).add_batch(VECTORS),
        "search_batch": lambda: index.search_batch(VECTORS[:3000]),
        "exact search": lambda: [index.search(ones, recall=1.0) for _ in range(40)],
    }
    start = time.perf_counter()
    ticks, longest = ticks_during(work[verb])
    seconds = time.perf_counter() - start
    assert seconds > 0.02
    assert ticks > seconds / 0.050
    assert longest < 0.100
