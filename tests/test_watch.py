"""A watch sees every change, in the order of commits, once."""

import asyncio
import threading
import time

import pytest
from support import Shop

import limnion
from limnion import errors


def test_changes_come_in_order(db: limnion.SyncDatabase) -> None:
    changes = db.watch(timeout=0.2)
    db.put("a", "x", {"n": 1})
    db.put_batch({"a/y": 2, "b/z": 3})
    db.delete("a", "x")
    seen = [(c.namespace, c.key, c.version, c.kind, c.value) for c in changes]
    assert seen[0] == ("a", "x", 1, "put", {"n": 1})
    assert sorted(seen[1:3]) == [("a", "y", 2, "put", 2), ("b", "z", 2, "put", 3)]
    assert seen[3:] == [("a", "x", 3, "delete", None)]
    assert changes.version == 3
    stamps = [entry.timestamp for entry in db.history("a", "x")]
    assert [c.timestamp for c in db.watch("a", since=0, timeout=0) if c.key == "x"] == stamps


def test_a_watch_begins_where_it_is_told(db: limnion.SyncDatabase) -> None:
    for i in range(5):
        db.put("a", "x", i)
    db.tag("three", 3)
    moment = db.history("a", "x")[2].timestamp
    for since in (3, "three", moment):
        assert [c.value for c in db.watch("a", since=since, timeout=0)] == [3, 4]
    assert [c.value for c in db.watch(timeout=0)] == []
    assert [c.value for c in db.watch("other", since=0, timeout=0)] == []
    with pytest.raises(errors.ValidationError):
        db.watch(since="no such tag")
    with pytest.raises(errors.ValidationError):
        db.watch("a/b")


def test_a_slow_reader_misses_nothing(db: limnion.SyncDatabase) -> None:
    changes = db.watch("a", timeout=1)
    for i in range(3_000):
        db["a/x"] = i
    assert [next(changes).value for _ in range(3_000)] == list(range(3_000))


def test_a_watch_waits_for_another_thread(db: limnion.SyncDatabase) -> None:
    changes = db.watch("a", timeout=30)

    def write() -> None:
        for i in range(20):
            time.sleep(0.002)
            db.put("noise", "x", i)
            db.put("a", "x", i)

    thread = threading.Thread(target=write)
    thread.start()
    assert [next(changes).value for _ in range(20)] == list(range(20))
    thread.join()


def test_a_timeout_ends_the_watch_in_time(db: limnion.SyncDatabase) -> None:
    start = time.perf_counter()
    assert list(db.watch(timeout=0.2)) == []
    assert 0.15 < time.perf_counter() - start < 2


def test_closing_ends_the_watch(shop: Shop) -> None:
    db = shop.sync()
    db.put("a", "x", 1)
    changes = db.watch(since=0)
    assert next(changes).value == 1
    threading.Timer(0.1, db.close).start()
    assert list(changes) == []
    with pytest.raises(StopIteration):
        next(changes)


async def test_watching_in_a_task(shop: Shop) -> None:
    async with shop.open() as db:
        seen: list[object] = []

        async def watch(changes: limnion.database.Watch) -> None:
            async for change in changes:
                seen.append(change.value)  # noqa: PERF401 - one by one

        watchers = [asyncio.create_task(watch(db.watch("a"))) for _ in range(3)]
        for i in range(50):
            await db.put("a", "x", i)
            if i % 10 == 0:
                await asyncio.sleep(0.001)
        while len(seen) < 150:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        watchers[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await watchers[0]
        await db.put("a", "x", 50)
        while len(seen) < 152:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await asyncio.wait_for(asyncio.gather(*watchers[1:]), 5)
    assert seen.count(50) == 2


async def test_a_watch_with_a_timeout_ends(shop: Shop) -> None:
    async with shop.open() as db:
        changes = db.watch(timeout=0.1)
        await db.put("a", "x", 1)
        assert [change.value async for change in changes] == [1]


def test_a_watch_that_is_given_up_leaves_nothing(db: limnion.SyncDatabase) -> None:
    for _ in range(2_000):
        assert list(db.watch(timeout=0)) == []
    changes = db.watch(timeout=10)
    db.put("a", "x", 1)
    assert next(changes).value == 1


async def test_cancelled_watches_leave_nothing(shop: Shop) -> None:
    async with shop.open() as db:
        for _ in range(500):
            changes = db.watch()
            task = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            task.cancel()
        task = asyncio.ensure_future(anext(changes))
        await db.put("a", "x", 1)
        assert (await asyncio.wait_for(task, 10)).value == 1
