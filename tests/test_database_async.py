"""A database from asyncio and uvloop: durable once awaited, whatever becomes of the await."""

import asyncio
import gc
import random
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support import RunPython, Shop

import limnion
from limnion import errors

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Return what runs a coroutine, on each kind of loop."""
    if request.param == "asyncio":
        return asyncio.run
    runner: Run = pytest.importorskip("uvloop").run
    return runner


def test_the_verbs(run: Run, shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            assert await db.put("users", "alice", {"name": "Alice"}) == 1
            assert await db.get("users", "alice") == {"name": "Alice"}
            assert await db["users/alice"] == {"name": "Alice"}
            assert db.get_nowait("users", "alice") == {"name": "Alice"}
            assert await db.set("users/bob", 2) == 2
            assert await db.keys("users") == ["alice", "bob"]
            assert (await db.query("users", sort="-$key")).keys == ["bob", "alice"]
            assert await db.delete("users", "bob")
            with pytest.raises(errors.KeyNotFoundError):
                await db.get("users", "bob")
            assert await db.get_at("users", "bob", 2) == 2
            with pytest.raises(errors.ConflictError):
                await db.put("users", "alice", 1, expect="absent")
            assert (await db.check()).ok
            assert (await db.stats()).key_count == 1
        with pytest.raises(errors.DatabaseClosedError):
            await db.get("users", "alice")
        await db.close()

    run(main())


def test_a_hot_get_takes_no_turn_of_the_loop(run: Run, shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            await db.put("a", "b", [1])
            with pytest.raises(StopIteration) as answer:
                db.get("a", "b").send(None)
            assert answer.value.value == [1]

    run(main())


def test_many_tasks_write_at_once(run: Run, shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            versions = await asyncio.gather(*(db.put("a", str(i), i) for i in range(500)))
            assert sorted(versions) == list(range(1, 501))
            assert await db.namespace("a").all() == {str(i): i for i in sorted(range(500), key=str)}
            for i in range(0, 500, 50):
                assert (await db.history("a", str(i)))[0].version == versions[i]

    run(main())


def test_what_is_written_together_leaves_what_came_last(run: Run, shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            large = "x" * 300_000  # too large for the hot tier
            for _ in range(10):
                await asyncio.gather(
                    db.put("a", "gone", 1),
                    db.delete("a", "gone"),
                    db.put("a", "kept", 1),
                    db.put("a", "kept", large),
                )
                assert await db.get("a", "gone", default=None) is None
                assert db.get_nowait("a", "gone", default=None) is None
                assert await db.get("a", "kept") == large

    run(main())


def test_assignments_are_written_in_order(run: Run, shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            for i in range(100):
                db["a/x"] = i
            assert await db["a/x"] == 99
            assert [e.value for e in await db.history("a", "x")] == list(range(100))
            db["a/x"] = 100
            assert db.get_nowait("a", "x") == 100
            db["a/x"] = 101
            await db.put("a", "x", 102)
            db["a/x"] = 103
            assert await db.keys("a") == ["x"]
            assert [e.value for e in await db.history("a", "x", limit=4)] == [100, 101, 102, 103]
            del db["a/x"]
            await db.flush()
            assert not await db.exists("a", "x")
            db["a/last"] = 1
        if shop.folder is not None:
            async with shop.open() as db:
                assert await db["a/last"] == 1

    run(main())


def test_an_assignment_that_failed_is_heard_of(run: Run, shop: Shop) -> None:
    if shop.folder is None:
        pytest.skip("a database in memory is never read-only")

    async def main() -> None:
        async with shop.open() as db:
            await db.put("a", "x", 1)
        reader = shop.open(read_only=True)
        async with reader as db:
            for call in (
                lambda: db.get("a", "x"),
                lambda: db.keys("a"),
                lambda: db.history("a", "x"),
                lambda: db.put("a", "x", 3),
                db.flush,
            ):
                db["a/x"] = 2
                with pytest.raises(errors.ReadOnlyError):
                    await call()
                assert await db.get("a", "x") == 1
            db["a/x"] = 2
            with pytest.raises(errors.ReadOnlyError):
                db.get_nowait("a", "x")
        with pytest.raises(errors.ReadOnlyError):
            async with shop.open(read_only=True) as db:
                db["a/x"] = 2
        with pytest.raises(ZeroDivisionError) as raised:  # noqa: PT012
            async with shop.open(read_only=True) as db:
                db["a/x"] = 2
                raise ZeroDivisionError
        assert "ReadOnlyError" in raised.value.__notes__[0]

    run(main())


def test_the_last_assignment_is_waited_for_on_the_way_out(run: Run, shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            db["a/x"] = "y"

    run(main())
    if shop.folder is not None:
        assert shop.sync().get("a", "x") == "y"


def test_a_cancelled_write_is_whole_or_not_there(run: Run, shop: Shop) -> None:
    chance = random.Random(5)  # noqa: S311

    async def main() -> None:
        async with shop.open() as db:
            acknowledged: set[int] = set()

            async def write(i: int) -> None:
                await db.put_batch({f"a/{i}": i, f"b/{i}": i})
                acknowledged.add(i)

            tasks = []
            for i in range(400):
                tasks.append(asyncio.create_task(write(i)))
                if chance.random() < 0.3:
                    for _ in range(chance.randrange(3)):
                        await asyncio.sleep(0)
                    chance.choice(tasks).cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert any(task.cancelled() for task in tasks)
            a, b = await db.namespace("a").all(), await db.namespace("b").all()
            assert a == b
            assert {str(i) for i in acknowledged} <= set(a)
            assert await db.put("after", "x", 1) > len(acknowledged)

    run(main())


def test_a_timeout_is_a_cancel(run: Run, shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            for i in range(50):
                try:
                    async with asyncio.timeout(0):
                        await db.put("a", str(i), i)
                except TimeoutError:
                    pass
            await db.flush()
            assert await db.put("a", "end", 1) > 0
            assert set(await db.keys("a")) <= {str(i) for i in range(50)} | {"end"}

    run(main())


def test_one_database_serves_several_loops(shop: Shop) -> None:
    db = shop.open()

    async def work(name: str) -> None:
        for i in range(50):
            await db.put(name, str(i), i)
            assert await db.get(name, str(i)) == i
        assert len(await db.keys(name)) == 50

    threads = [threading.Thread(target=asyncio.run, args=(work(f"t{n}"),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    asyncio.run(work("main"))

    async def finish() -> None:
        assert len(await db.namespaces()) == 5
        await db.close()

    asyncio.run(finish())


def test_threads_without_loops(shop: Shop) -> None:
    db = shop.sync()
    errors_seen: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for i in range(200):
                db.put(name, str(i % 10), i)
                assert db.get(name, str(i % 10)) == i
                if i % 50 == 0:
                    assert db.count(name) <= 10
        except BaseException as error:  # noqa: BLE001 - told below
            errors_seen.append(error)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors_seen == []
    assert db.stats().key_count == 60


def test_a_namespace_comes_into_being_while_it_is_read(shop: Shop) -> None:
    db = shop.sync()
    names = [f"n{number}" for number in range(150)]
    errors_seen: list[BaseException] = []

    def read() -> None:
        try:
            for name in names:
                while not db.exists(name, "x"):
                    assert db.get(name, "y", default=None) is None
        except BaseException as error:  # noqa: BLE001 - told below
            errors_seen.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for name in names:
        db.put(name, "x", 1)
    for thread in threads:
        thread.join(60)
    assert errors_seen == []


@pytest.mark.parametrize("memory", [0, 64])
def test_nobody_sees_less_than_he_has_seen(shop: Shop, memory: float) -> None:
    db = shop.sync(max_memory_mb=memory)
    db.put("a", "x", 0)
    errors_seen: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            while not stop.is_set():
                record = db.record("a", "x")
                assert record is not None
                assert db.get("a", "x", as_of=record.version) == record.value
                as_of = db.snapshot().as_of
                assert isinstance(as_of, int)
                assert as_of >= record.version
                assert db.query("a")[0].version >= record.version
                assert db.stats().version >= record.version
        except BaseException as error:  # noqa: BLE001 - told below
            errors_seen.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1000):
        db.put("a", "x", number)
    stop.set()
    for thread in threads:
        thread.join(60)
    assert errors_seen == []


def test_the_loop_goes_on_while_the_store_works(run: Run, shop: Shop) -> None:
    async def main() -> int:
        async with shop.open() as db:
            await db.put_batch((("n", str(i), {"i": i, "x": "y" * 100})) for i in range(20_000))
            work = asyncio.create_task(db.query("n", "i >= 0", sort="-i", limit=1))
            turns = 0
            while not work.done():
                await asyncio.sleep(0)
                turns += 1
            assert (await work).total == 20_000
            return turns

    assert run(main()) > 5


def test_a_database_without_async_with(run: Run, shop: Shop) -> None:
    async def main() -> None:
        db = shop.open()
        await db.put("a", "x", 1)
        async with db:
            assert await db.get("a", "x") == 1
        assert db.closed

    run(main())


def test_errors_while_opening(run: Run, shop: Shop) -> None:
    if shop.folder is None:
        pytest.skip("there is nothing to open")

    async def main() -> None:
        async with shop.open() as db:
            await db.put("a", "x", 1)
            with pytest.raises(errors.DatabaseLockedError):
                async with shop.open():
                    pass
            with pytest.raises(errors.DatabaseLockedError):
                await shop.open().get("a", "x")

    run(main())


def test_a_request_is_a_request_once() -> None:
    db = limnion.Database.sync()
    request = db._store.namespaces()  # noqa: SLF001
    assert request.wait() == []
    with pytest.raises(RuntimeError):
        request.wait()
    db.close()


def test_nothing_is_kept_of_finished_awaits(shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            value = {"x": "y"}
            for _ in range(50):
                await db.put("a", "x", value)
                await db.get("a", "x")
                await db.keys("a")
                task = asyncio.ensure_future(db.put("a", "x", value))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert len(gc.get_objects()) < before + 200


def test_a_loop_that_closes_first_is_no_matter(run_python: RunPython) -> None:
    done = run_python(
        """
        import asyncio, limnion
        db = limnion.Database()
        for turn in range(30):
            loop = asyncio.new_event_loop()
            async def main():
                tasks = [asyncio.ensure_future(db.put("a", str(i), turn)) for i in range(20)]
                tasks.append(asyncio.ensure_future(db.keys("a")))
                await asyncio.sleep(0.00003 * turn)
                return tasks
            for task in loop.run_until_complete(main()):
                task._log_destroy_pending = False
            loop.close()
        print(len(asyncio.run(db.keys("a"))))
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("20\n", "", 0)


def test_switching_threads_at_any_moment(shop: Shop) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        test_threads_without_loops(shop)
    finally:
        sys.setswitchinterval(before)
