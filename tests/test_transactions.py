"""Transactions: all or nothing, and never on top of what somebody else wrote meanwhile."""

import asyncio
import threading
from typing import Any

import pytest
from support import Shop

import limnion
from limnion import errors


def test_a_transaction_is_one_commit(db: limnion.SyncDatabase) -> None:
    db.put_batch({"a/x": 10, "a/y": 0})
    with db.transaction() as tx:
        x, y = tx.get("a", "x"), tx.get("a", "y")
        tx.put("a", "x", x - 3, metadata={"why": "moved"})
        tx.set("a/y", y + 3)
        tx.delete("a", "z")
        assert db.get("a", "x") == 10
    assert db.namespace("a").all() == {"x": 7, "y": 3}
    assert db.history("a", "x")[-1].version == db.history("a", "y")[-1].version == tx.version
    assert db.history("a", "x")[-1].metadata == {"why": "moved"}


def test_it_reads_what_it_wrote(db: limnion.SyncDatabase) -> None:
    db.put("a", "x", 1)
    with db.transaction() as tx:
        tx.put("a", "x", {"n": 2})
        assert tx.get("a", "x") == {"n": 2}
        tx.delete("a", "x")
        assert not tx.exists("a", "x")
        assert tx.get("a", "x", default=5) == 5
        with pytest.raises(errors.KeyNotFoundError):
            tx.get("a", "x")
        tx.put_batch([("a", "y", 1), ("a", "z", 2)])
        assert tx.exists("a", "y")
    assert db.namespace("a").all() == {"y": 1, "z": 2}


def test_an_exception_writes_nothing(db: limnion.SyncDatabase) -> None:
    def fail() -> None:
        with db.transaction() as tx:
            tx.put("a", "x", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert db.keys("a") == []


@pytest.mark.parametrize("change", ["put", "delete", "same", "create"])
def test_somebody_elses_write_is_a_conflict(db: limnion.SyncDatabase, change: str) -> None:
    db.put("a", "x", 1)
    key = "new" if change == "create" else "x"

    def write() -> None:
        with db.transaction() as tx:
            tx.get("a", key, default=None)
            tx.put("a", "result", 1)
            if change == "delete":
                db.delete("a", "x")
            else:
                db.put("a", key, 1 if change == "same" else 2)

    with pytest.raises(errors.ConflictError) as raised:
        write()
    assert raised.value.kind == "conflict"
    assert not db.exists("a", "result")


def test_reading_twice_reads_the_same_or_raises(db: limnion.SyncDatabase) -> None:
    db.put("a", "x", 1)
    with db.transaction() as tx:
        assert tx.get("a", "x") == tx.get("a", "x") == 1
        db.put("a", "x", 2)
        with pytest.raises(errors.ConflictError):
            tx.get("a", "x")


def test_blind_writes_do_not_conflict(db: limnion.SyncDatabase) -> None:
    db.put("a", "x", 1)
    with db.transaction() as tx:
        tx.put("a", "x", 2)
        db.put("a", "x", 3)
    assert db.get("a", "x") == 2


def test_a_transaction_is_used_inside_of_its_block(db: limnion.SyncDatabase) -> None:
    tx = db.transaction()
    with pytest.raises(errors.ValidationError, match="inside"):
        tx.put("a", "x", 1)
    with tx:
        tx.put("a", "x", 1)
    for call in (lambda: tx.get("a", "x"), lambda: tx.delete("a", "x"), tx.__enter__):
        with pytest.raises(errors.ValidationError):
            call()
    with db.transaction() as nothing:
        nothing.get("a", "x")
    assert nothing.version is None


def test_a_value_that_cannot_be_stored_is_told_at_once(db: limnion.SyncDatabase) -> None:
    with db.transaction() as tx:
        tx.put("a", "x", 1)
        with pytest.raises(errors.SerializationError):
            tx.put("a", "y", object())
    assert db.keys("a") == ["x"]


def test_no_increment_is_lost_between_threads(db: limnion.SyncDatabase) -> None:
    db.put("a", "n", 0)

    def add() -> None:
        done = 0
        while done < 25:
            try:
                with db.transaction() as tx:
                    tx.put("a", "n", tx.get("a", "n") + 1)
                done += 1
            except errors.ConflictError:
                continue

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert db.get("a", "n") == 100
    assert len(db.history("a", "n")) == 101


async def test_no_money_is_made_between_tasks(shop: Shop) -> None:
    async with shop.open() as db:
        await db.put_batch({f"a/{i}": 100 for i in range(5)})

        async def move(source: int, target: int) -> None:
            for _ in range(10):
                while True:
                    try:
                        async with db.transaction() as tx:
                            one: Any = await tx.get("a", str(source))
                            two: Any = await tx.get("a", str(target))
                            await tx.put("a", str(source), one - 1)
                            await tx.put("a", str(target), two + 1)
                        break
                    except errors.ConflictError:
                        await asyncio.sleep(0)

        await asyncio.gather(*(move(i, (i + 1) % 5) for i in range(5)))
        balances = await db.namespace("a").all()
        assert sum(balances.values()) == 500
        assert set(balances.values()) == {100}
        last = (await db.history("a", "0"))[-1].version
        for version in range(1, last + 1):
            then = await db.items("a", as_of=version)
            assert sum(value for _, value in then) == 500
