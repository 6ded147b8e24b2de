"""The same searches from asyncio and uvloop: same answers, no threads to fight, cancellable."""

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
from support import IndexClass, RunPython, Vectors, random_vectors

import limnion
from limnion import errors

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run[Any]:
    """Return what runs a coroutine, on each kind of loop."""
    if request.param == "asyncio":
        return asyncio.run
    uvloop = pytest.importorskip("uvloop")
    runner: Run[Any] = uvloop.run
    return runner


@pytest.fixture(scope="module")
def large() -> limnion.RabitqPlusIndex:
    """Return an index too large to be searched on the loop's own thread."""
    return limnion.RabitqPlusIndex.build(random_vectors(60_000, 256))


@pytest.fixture
def busy(large: limnion.RabitqPlusIndex) -> Iterator[limnion.RabitqPlusIndex]:
    """Return an index that is being changed for about as long as the test runs."""
    rows = np.asarray(large)
    again = limnion.RabitqPlusIndex.build(rows[:1000], bits=8)
    begun = threading.Event()

    def change() -> None:
        again.add_batch(rows, progress=lambda *_: begun.set())

    thread = threading.Thread(target=change)
    thread.start()
    assert begun.wait(10)
    yield again
    thread.join()


def test_awaits_find_what_calls_find(
    run: Run[Any], index_class: IndexClass, vectors: Vectors
) -> None:
    index = index_class.build(vectors, ids=range(10, 10 + len(vectors)))
    queries = vectors[:5]

    async def main() -> None:
        for query in queries:
            assert await index.search_async(query, k=4) == index.search(query, k=4)
        assert await index.search_async(queries[0], 3, where=[11, 12]) == index.search(
            queries[0], 3, where=[11, 12]
        )
        assert await index.search_batch_async(queries, k=4) == index.search_batch(queries, k=4)

    run(main())


def test_many_awaits_run_side_by_side(run: Run[Any], large: limnion.RabitqPlusIndex) -> None:
    queries = np.asarray(large)[:200]

    async def main() -> list[limnion.Hits]:
        return await asyncio.gather(*(large.search_async(query, k=3) for query in queries))

    found = run(main())
    assert found == [large.search(query, k=3) for query in queries]


def test_the_loop_goes_on_meanwhile(run: Run[Any], large: limnion.RabitqPlusIndex) -> None:
    queries = random_vectors(2_000, 256, seed=1)

    async def main() -> int:
        work = asyncio.ensure_future(large.search_batch_async(queries))
        turns = 0
        while not work.done():
            await asyncio.sleep(0.001)
            turns += 1
        await work
        return turns

    assert run(main()) > 20


def test_an_await_is_a_coroutine_to_asyncio(run: Run[Any], vectors: Vectors) -> None:
    index = limnion.FlatF32Index.build(vectors)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(index.search_async(vectors[3], k=1))
        assert task.result()[0].id == 3
        async with asyncio.timeout(10):
            assert (await asyncio.shield(index.search_async(vectors[4], k=1)))[0].id == 4

    run(main())
    assert run(index.search_async(vectors[5], k=1))[0].id == 5
    assert asyncio.iscoroutine(index.search_async(vectors[5], k=1))


def test_a_coroutine_is_awaited_once(vectors: Vectors) -> None:
    index = limnion.FlatF32Index.build(vectors)

    async def main() -> None:
        waiting = index.search_async(vectors[3], k=1)
        await waiting
        with pytest.raises(RuntimeError, match="already awaited"):
            await waiting

    asyncio.run(main())


def test_a_small_index_answers_without_a_turn_of_the_loop(vectors: Vectors) -> None:
    index = limnion.RabitqPlusIndex.build(vectors)
    waiting = index.search_async(vectors[3], k=1)
    with pytest.raises(StopIteration) as answer:
        waiting.send(None)
    assert answer.value.value == index.search(vectors[3], k=1)


def test_errors_are_those_of_the_call(run: Run[Any], large: limnion.RabitqPlusIndex) -> None:
    with pytest.raises(errors.InvalidTypeError):
        large.search_async("text")  # type: ignore[arg-type, unused-coroutine]

    async def main() -> None:
        with pytest.raises(errors.InvalidArgumentError, match="k must be"):
            await large.search_async(np.ones(256, dtype=np.float32), k=0)
        with pytest.raises(errors.DimensionMismatch):
            await large.search_async(np.ones(3, dtype=np.float32))
        with pytest.raises(errors.InvalidArgumentError, match="recall"):
            await large.search_batch_async(np.ones((3, 256), dtype=np.float32), recall=2)

    run(main())


def test_a_loop_is_needed_only_when_a_thread_is(large: limnion.RabitqPlusIndex) -> None:
    waiting = large.search_async(np.ones(256, dtype=np.float32))
    with pytest.raises(RuntimeError, match="no running event loop"):
        waiting.send(None)


def test_cancelling_stops_the_work(run: Run[Any], large: limnion.RabitqPlusIndex) -> None:
    queries = random_vectors(20_000, 256, seed=1)

    async def main() -> float:
        start = time.perf_counter()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await large.search_batch_async(queries, recall=1.0)
        # The pool is free again when a single search comes through.
        await large.search_async(queries[0], recall=1.0)
        return time.perf_counter() - start

    assert run(main()) < 2.0


def test_a_cancelled_await_in_line_is_forgotten(
    run: Run[Any], busy: limnion.RabitqPlusIndex
) -> None:
    async def main() -> None:
        tasks = [
            asyncio.ensure_future(busy.search_async(np.ones(256, dtype=np.float32)))
            for _ in range(100)
        ]
        await asyncio.sleep(0.01)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in done[::2])
        assert all(isinstance(one, limnion.Hits) for one in done[1::2])

    run(main())
    assert len(busy) == 61_000


def test_closing_a_coroutine_is_quiet(large: limnion.RabitqPlusIndex) -> None:
    large.search_async(np.ones(256, dtype=np.float32)).close()

    async def main() -> None:
        waiting = large.search_async(np.ones(256, dtype=np.float32))
        waiting.send(None)
        waiting.close()
        with pytest.raises(ValueError, match="thrown"):
            large.search_async(np.ones(256, dtype=np.float32)).throw(ValueError("thrown"))

    asyncio.run(main())


def test_a_loop_that_closes_first_is_no_matter(run_python: RunPython) -> None:
    done = run_python(
        """
        import asyncio, numpy as np, limnion
        index = limnion.RabitqPlusIndex.build(
            np.random.default_rng(0).standard_normal((60_000, 128), dtype=np.float32))
        queries = np.asarray(index)[:500]
        for turn in range(30):
            loop = asyncio.new_event_loop()
            async def main():
                for query in queries[:8]:
                    asyncio.ensure_future(index.search_async(query))
                batch = asyncio.ensure_future(index.search_batch_async(queries))
                await asyncio.sleep(0.0003 * turn)
            loop.run_until_complete(main())
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False
            loop.close()
        print(len(index.search(queries[0])))
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("10\n", "", 0)


def test_nothing_is_kept_of_a_finished_await(large: limnion.RabitqPlusIndex) -> None:
    async def main() -> weakref.ref[asyncio.Task[limnion.Hits]]:
        task = asyncio.ensure_future(large.search_async(np.ones(256, dtype=np.float32)))
        await task
        return weakref.ref(task)

    kept = asyncio.run(main())
    gc.collect()
    assert kept() is None


def test_references_do_not_leak(large: limnion.RabitqPlusIndex) -> None:
    query = np.ones(256, dtype=np.float32)

    async def main() -> None:
        for _ in range(50):
            await large.search_async(query)
            task = asyncio.ensure_future(large.search_async(query))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    gc.collect()
    before = (sys.getrefcount(query), len(gc.get_objects()))
    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert sys.getrefcount(query) == before[0]
    assert len(gc.get_objects()) < before[1] + 100
