"""Two threads and more on one index: every answer is one that some order of the calls gives."""

import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from support import IndexClass, Vectors, random_vectors

import limnion


def at_once(*work: Callable[[], object], seconds: float = 30) -> None:
    """Run each in a thread of its own; raise what one of them raised."""
    problems: list[BaseException] = []

    def guarded(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as problem:  # noqa: BLE001 - raised below
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    if problems:
        raise problems[0]
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"


def test_searches_beside_changes_see_whole_states(index_class: IndexClass) -> None:
    vectors = random_vectors(4_000, 64)
    index = index_class.build(vectors[:2_000])
    stop = threading.Event()

    def change() -> None:
        for _ in range(30):
            index.add_batch(vectors[2_000:])
            index.remove(np.arange(2_000, 4_000))
        stop.set()

    def search() -> None:
        while not stop.is_set():
            hits = index.search(vectors[3_000], k=5)
            assert len(hits) == 5
            assert all(hit.id < 4_000 for hit in hits)
            assert len(index) in (2_000, 4_000)
            assert len(index.ids) in (2_000, 4_000)
            assert index.search_batch(vectors[:9], k=2).ids.shape == (9, 2)
            assert index.memory_bytes > 0

    at_once(change, search, search, search)
    assert len(index) == 2_000


def test_changes_from_many_threads_all_arrive(index_class: IndexClass) -> None:
    vectors = random_vectors(800, 16)
    index = index_class.build(vectors[:0])

    def add(start: int) -> Callable[[], None]:
        def work() -> None:
            for row in range(start, start + 100):
                index.add(id=row, vector=vectors[row])
                if row % 2:
                    index.remove(row)

        return work

    at_once(*(add(start) for start in range(0, 800, 100)))
    assert sorted(index.ids.tolist()) == list(range(0, 800, 2))


def test_comparing_crosswise_does_not_lock_up(vectors: Vectors) -> None:
    one, two = limnion.FlatF32Index.build(vectors), limnion.FlatF32Index.build(vectors)

    def compare(left: limnion.FlatF32Index, right: limnion.FlatF32Index) -> Callable[[], None]:
        def work() -> None:
            for _ in range(200):
                left == right  # noqa: B015 - it returns at all

        return work

    def change(index: limnion.FlatF32Index) -> Callable[[], None]:
        def work() -> None:
            for _ in range(200):
                index.update(id=1, vector=vectors[1])

        return work

    at_once(compare(one, two), compare(two, one), change(one), change(two), compare(one, one))
    assert one == two


def test_a_progress_callable_may_use_the_index() -> None:
    vectors = random_vectors(100_000, 128)
    index = limnion.RabitqAsymIndex.build(vectors[:10], bits=8)
    lengths = []

    def progress(_done: int, _total: int) -> None:
        lengths.append(len(index))
        index.search(vectors[0], k=1)

    index.add_batch(vectors, progress=progress)
    assert lengths[-1] == 100_010


def test_a_change_does_not_wait_for_ever() -> None:
    vectors = random_vectors(20_000, 64)
    index = limnion.RabitqPlusIndex.build(vectors)
    stop = threading.Event()

    def search() -> None:
        while not stop.is_set():
            index.search(vectors[5])

    def change() -> None:
        try:
            start = time.perf_counter()
            for row in range(20):
                index.add(id=10**6 + row, vector=vectors[row])
            assert time.perf_counter() - start < 10
        finally:
            stop.set()

    at_once(*[search] * 8, change)


def test_threads_of_python_switch_at_any_moment() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        test_changes_from_many_threads_all_arrive(limnion.RabitqPlusIndex)
    finally:
        sys.setswitchinterval(before)
