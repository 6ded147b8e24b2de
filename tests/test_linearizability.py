"""Reads, writes and compare-and-set through asyncio happen one after another, cancelled or not.

Every operation seems to happen at one moment between its call and its answer. `LIMNION_HISTORIES`
says how many histories are recorded and checked; a campaign takes hundreds.
"""

import asyncio
import dataclasses
import itertools
import os
import random
import threading
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

import limnion
from limnion import errors, records

HISTORIES = int(os.environ.get("LIMNION_HISTORIES", "20"))
SEED = os.environ.get("LIMNION_SEED", "1")
TRIED = 0.45  # so often a task is cancelled; some have ended by then, and 0.3 are left
NEVER = 2**62


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a client did to one key, and what it was told. Values are unique; `None` is no value."""

    kind: Literal["get", "put", "delete", "cas"]
    called: int
    answered: int = NEVER  # an answer that never came: it may happen at any time, or never
    value: Any = None
    """What was written, or read."""

    expected: Any = None
    """The value that cas replaces."""

    held: bool | None = None
    """Whether cas found what it expected, or a deletion a value; `None` where nobody knows."""


def apply(operation: Operation, value: Any) -> tuple[bool, Any]:
    """Whether an operation could have been told this at that value, and what the value is then."""
    match operation.kind:
        case "get":
            return operation.value == value, value
        case "put":
            return True, operation.value
        case "delete":
            return operation.held in (None, value is not None), None
        case "cas":
            holds = operation.expected == value
            return operation.held in (None, holds), operation.value if holds else value


def candidates(operations: list[Operation], done: int) -> list[int]:
    """Return who can be next: whoever was called before anybody else of the rest was answered."""
    rest: list[int] = []
    earliest = NEVER
    first = (~done & done + 1).bit_length() - 1  # who is not done
    for at in range(first, len(operations)):
        if operations[at].called > earliest:
            break
        if not done >> at & 1:
            rest.append(at)
            earliest = min(earliest, operations[at].answered)
    return rest


def is_linearizable(
    history: list[Operation],
    certain: frozenset[Operation] = frozenset(),
    order: list[Any] | None = None,
) -> bool:
    """Whether there is an order in which one after another explains what all were told.

    A search in the manner of Wing and Gong, which remembers where it has been. An operation without
    an answer may be left out, unless it is `certain` to have happened. With `order`, the values
    that were there one after another, it has to be that order.
    """
    operations = sorted(history, key=lambda each: each.called)
    sure = sum(
        1 << at for at, each in enumerate(operations) if each.answered != NEVER or each in certain
    )
    seen: set[tuple[int, Any, int]] = set()
    stack: list[tuple[int, Any, int]] = [(0, None, 0)]  # who is done, the value, changes so far
    while stack:
        done, value, changes = stack.pop()
        done = with_reads(operations, done, value)
        if done & sure == sure:
            return True
        if (done, value, changes) in seen:
            continue
        seen.add((done, value, changes))
        for at in reversed(candidates(operations, done)):
            possible, after = apply(operations[at], value)
            if possible and after == value:
                stack.append((done | 1 << at, value, changes))
            elif possible and (order is None or order[changes : changes + 1] == [after]):
                stack.append((done | 1 << at, after, changes + 1))
    return False


def with_reads(operations: list[Operation], done: int, value: Any) -> int:
    """Return who is done after all of those that see this value, and leave it as it is.

    Whoever can be next and changes nothing can as well be next.
    """
    before = -1
    while before != done:
        before = done
        for at in candidates(operations, done):
            operation = operations[at]
            if operation.kind == "put" or operation.answered == NEVER:
                continue
            if apply(operation, value) == (True, value):
                done |= 1 << at
    return done


class Known(NamedTuple):
    """What is known of a key in the end."""

    history: list[Operation]
    writes: list[Operation]
    """The operations that its versions come from, in order."""

    order: list[Any]
    """The values of its versions, deletions included."""

    def is_linearizable(self) -> bool:
        """Whether all of that can have happened."""
        return is_linearizable(self.history, frozenset(self.writes), self.order)


class Recorder:
    """Clients of one database; it keeps what they did, by key."""

    def __init__(self, db: limnion.Database, keys: int) -> None:
        self.db = db
        self.keys = [f"k{number}" for number in range(keys)]
        self.clock = itertools.count()  # next() is one step: threads never share a number
        self.unique = itertools.count()
        self.histories: dict[str, list[Operation]] = {key: [] for key in self.keys}
        self.begun = 0
        self.cancelled = 0

    async def client(self, seed: str, count: int) -> None:
        """Do one thing after another; have some of them cancelled."""
        chance = random.Random(seed)  # noqa: S311
        known: dict[str, tuple[Any, Any]] = {}
        for _ in range(count):
            key = chance.choice(self.keys)
            task = asyncio.ensure_future(self.operate(chance, key, known))
            if chance.random() < TRIED:
                await cancel(chance, task)
            self.begun += 1
            try:
                operation = await task
            except asyncio.CancelledError:
                self.cancelled += 1  # before it began, or before it knew what to write
                continue
            self.cancelled += operation.answered == NEVER
            if operation.kind != "get" or operation.answered != NEVER:
                self.histories[key].append(operation)

    async def operate(
        self, chance: random.Random, key: str, known: dict[str, tuple[Any, Any]]
    ) -> Operation:
        """Do something, and say what came of it."""
        kinds: list[Literal["get", "put", "delete", "cas"]] = ["get", "put", "delete", "cas"]
        kind = chance.choices(kinds, [40, 25, 5, 30])[0]
        operation = Operation(kind, next(self.clock))
        try:
            match kind:
                case "get":
                    known[key] = await self.read(chance, key)
                    operation = dataclasses.replace(operation, value=known[key][1])
                case "put":
                    operation = dataclasses.replace(operation, value=next(self.unique))
                    known[key] = (await self.db.put("a", key, operation.value), operation.value)
                case "delete":
                    held = await self.db.delete("a", key)
                    operation = dataclasses.replace(operation, held=held)
                case "cas":
                    version, expected = known.get(key, (None, None))
                    value = next(self.unique)
                    if version is None:
                        async with self.db.transaction() as tx:
                            expected = await tx.get("a", key, default=None)
                            await tx.put("a", key, value)
                            operation = dataclasses.replace(
                                operation, value=value, expected=expected
                            )
                    else:
                        operation = dataclasses.replace(operation, value=value, expected=expected)
                        version = await self.db.put("a", key, value, expect=version)
                        known[key] = (version, value)
                    operation = dataclasses.replace(operation, held=True)
        except errors.ConflictError:
            known.pop(key, None)
            operation = dataclasses.replace(operation, held=False)
        except asyncio.CancelledError:
            if kind == "cas" and operation.value is None:
                raise
            return operation
        return dataclasses.replace(operation, answered=next(self.clock))

    async def read(self, chance: random.Random, key: str) -> tuple[Any, Any]:
        """Read in one of the ways in which one can; return version and value."""
        record: records.Record | None
        match chance.randrange(4):
            case 0:
                return None, await self.db.get("a", key, default=None)
            case 1:
                return None, self.db.get_nowait("a", key, default=None)
            case 2:
                rows = await self.db.query("a", {"$key": key})
                record = rows[0] if rows else None
            case _:
                record = await self.db.record("a", key)
        return ("absent", None) if record is None else (record.version, record.value)

    def run(self, seed: str, *, threads: int, tasks: int, count: int) -> None:
        """Run clients, several in each of several threads, each with a loop of its own."""

        async def main(thread: int) -> None:
            seeds = [f"{seed} {thread} {task}" for task in range(tasks)]
            await asyncio.gather(*(self.client(each, count) for each in seeds))

        failed: list[BaseException] = []

        def work(thread: int) -> None:
            try:
                asyncio.run(main(thread))
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert failed == []

    async def known(self, key: str) -> Known:
        """Return what is known of a key, with a last read of it."""
        history = self.histories[key]
        last = Operation("get", next(self.clock), value=await self.db.get("a", key, default=None))
        last = dataclasses.replace(last, answered=next(self.clock))
        order = [entry.value for entry in await self.db.history("a", key)]
        by_value = {each.value: each for each in history if each.kind in ("put", "cas")}
        writes = [by_value[value] for value in order if value is not None]
        # What was cancelled has happened just where a version says so.
        told = [
            each
            for each in history
            if each.answered != NEVER or each.kind == "delete" or each in writes
        ]
        return Known([*told, last], writes, order)

    async def check(self) -> None:
        """Check the history of each key."""
        for key in self.keys:
            known = await self.known(key)
            assert known.is_linearizable(), (key, known)
            for each in known.history:
                if each.answered != NEVER and each.kind in ("put", "cas"):
                    assert (each in known.writes) == (each.held is not False)
            assert_order(known.writes)


async def cancel(chance: random.Random, task: asyncio.Future[Operation]) -> None:
    """Cancel at some moment: before it begins, on its way, or when it is about to end."""
    for _ in range(chance.randrange(4)):
        await asyncio.sleep(0)
    if chance.random() < 0.5:
        await asyncio.sleep(chance.random() * 0.000_5)
    task.cancel()


def assert_order(writes: list[Operation]) -> None:
    """Assert that no version comes before one that was acknowledged before it was asked for."""
    earliest = NEVER
    for write in reversed(writes):
        assert write.called < earliest, "versions are in the order in which they were written"
        earliest = min(earliest, write.answered)


@pytest.mark.timeout(60 + 20 * HISTORIES)
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_histories_are_linearizable(tmp_path: Path, where: str) -> None:
    begun = cancelled = 0
    start = time.monotonic()
    for number in range(HISTORIES):
        seed = f"{SEED} {where} {number}"
        chance = random.Random(seed)  # noqa: S311
        path = tmp_path / str(number) if where == "folder" else None
        memory = chance.choice([0, 0.001, 64])
        db = limnion.Database(limnion.Config(path, max_memory_mb=memory))
        recorder = Recorder(db, keys=chance.choice([1, 3, 8]))
        recorder.run(seed, threads=3, tasks=chance.choice([2, 5]), count=60)

        async def finish(db: limnion.Database = db, recorder: Recorder = recorder) -> None:
            async with db:
                await recorder.check()
                assert (await db.check()).problems == []

        asyncio.run(finish())
        begun, cancelled = begun + recorder.begun, cancelled + recorder.cancelled
    assert cancelled > begun / 5
    seconds = time.monotonic() - start
    told = f"{begun} operations, {cancelled} awaits cancelled, in {seconds:.0f} s"
    print(f"{where}: {HISTORIES} histories, {told}")  # noqa: T201


def test_a_recorded_history_that_is_doctored_is_refused() -> None:
    db = limnion.Database()
    recorder = Recorder(db, keys=1)
    recorder.run(f"{SEED} to be doctored", threads=2, tasks=2, count=40)

    async def finish() -> Known:
        async with db:
            return await recorder.known("k0")

    known = asyncio.run(finish())
    assert known.is_linearizable()
    end = max(each.called for each in known.history) + 100
    stale = known.writes[-3].value
    won = next(each for each in known.writes if each.held)
    read = next(each for each in known.history if each.kind == "get" and each.value is not None)
    added = [
        Operation("get", end, end + 1, value=stale),
        Operation("cas", end, end + 1, value=-1, expected=stale, held=True),
        Operation("cas", end, end + 1, value=-1, expected=known.order[-1], held=False),
        Operation("delete", end, end + 1, held=known.order[-1] is None),
    ]
    for operation in added:
        assert not known._replace(history=[*known.history, operation]).is_linearizable()
    changed = {
        won: dataclasses.replace(won, held=False),
        read: dataclasses.replace(read, called=-2, answered=-1),
    }
    for old, new in changed.items():
        history = [new if each == old else each for each in known.history]
        writes = [new if each == old else each for each in known.writes]
        assert not known._replace(history=history, writes=writes).is_linearizable()
    assert not known._replace(order=known.order[::-1]).is_linearizable()
    with pytest.raises(AssertionError):
        assert_order([*known.writes[5:], *known.writes[:5]])


def timed(*steps: tuple[int, int, Literal["get", "put", "delete", "cas"], Any]) -> list[Operation]:
    """Return a history: when each was called and answered, and what it was told."""
    history = []
    for called, answered, kind, told in steps:
        value, expected, held = told if kind == "cas" else (told, None, None)
        if kind == "delete":
            value, held = None, told
        history.append(Operation(kind, called, answered, value, expected, held))
    return history


def test_the_checker_takes_what_can_have_happened() -> None:
    assert is_linearizable([])
    assert is_linearizable(timed((0, 1, "get", None), (2, 3, "put", 1), (4, 5, "get", 1)))
    # A read beside a write finds either; two reads beside it find the old and then the new.
    assert is_linearizable(timed((0, 9, "put", 1), (1, 2, "get", None), (3, 4, "get", 1)))
    # Two writes at once: the one that ends first may win.
    assert is_linearizable(timed((0, 3, "put", 1), (1, 2, "put", 2), (4, 5, "get", 2)))
    assert is_linearizable(timed((0, 3, "put", 1), (1, 2, "put", 2), (4, 5, "get", 1)))
    # A write without an answer happens late, or never.
    for later in (None, 1):
        assert is_linearizable(
            timed((0, NEVER, "put", 1), (1, 2, "get", None), (3, 4, "get", later))
        )
    assert is_linearizable(
        timed((0, 1, "put", 1), (2, 5, "cas", (2, 1, True)), (3, 4, "cas", (3, 1, False)))
    )
    assert is_linearizable(
        timed((0, 1, "put", 1), (2, NEVER, "delete", None), (3, 4, "delete", False))
    )


WRONG = {
    "a stale read": timed((0, 1, "put", 1), (2, 3, "put", 2), (4, 5, "get", 1)),
    "a read of nothing": timed((0, 1, "put", 1), (2, 3, "get", None)),
    "a read of what nobody wrote": timed((0, 1, "put", 1), (2, 3, "get", 7)),
    "a read of the future": timed((0, 1, "get", 1), (2, 3, "put", 1)),
    "a lost update": timed(
        (0, 1, "put", 1), (2, 3, "cas", (2, 1, True)), (4, 5, "cas", (3, 1, True))
    ),
    "two that won at once": timed(
        (0, 1, "put", 1), (2, 5, "cas", (2, 1, True)), (3, 4, "cas", (3, 1, True))
    ),
    "a torn cas": timed((0, 1, "put", 1), (2, 3, "cas", (2, 1, False)), (4, 5, "get", 2)),
    "a cas that lost for no reason": timed((0, 1, "put", 1), (2, 3, "cas", (2, 1, False))),
    "a read that goes back": timed(
        (0, 1, "put", 1), (2, 9, "put", 2), (3, 4, "get", 2), (5, 6, "get", 1)
    ),
    "a cancelled write that comes and goes": timed(
        (0, 1, "put", 1), (2, NEVER, "put", 2), (3, 4, "get", 2), (5, 6, "get", 1)
    ),
    "a deletion that came back": timed((0, 1, "put", 1), (2, 3, "delete", True), (4, 5, "get", 1)),
    "a deletion of nothing": timed((0, 1, "delete", True)),
}


@pytest.mark.parametrize("how", WRONG)
def test_the_checker_refuses_what_cannot_have_happened(how: str) -> None:
    assert not is_linearizable(WRONG[how])


def test_the_checker_agrees_with_trying_every_order() -> None:
    chance = random.Random(SEED)  # noqa: S311
    told = {True: 0, False: 0}
    for _ in range(400):
        history = some_history(chance)
        expected = any(
            explains(order)
            for count in range(len(history) + 1)
            for order in itertools.permutations(history, count)
            if all(each in order for each in history if each.answered != NEVER)
        )
        assert is_linearizable(history) == expected, history
        assert expected == any(is_linearizable(history, order=order) for order in orders(history))
        told[expected] += 1
    assert min(told.values()) > 40


def orders(history: list[Operation]) -> list[list[Any]]:
    """Return all orders in which some of the values can have been there."""
    written = [each.value for each in history if each.kind in ("put", "cas")]
    counts = range(len(written) + 1)
    return [list(some) for count in counts for some in itertools.permutations(written, count)]


def explains(order: tuple[Operation, ...]) -> bool:
    """Whether this order is one in which they can have happened."""
    value = None
    for at, operation in enumerate(order):
        if any(later.answered < operation.called for later in order[at:]):
            return False
        possible, value = apply(operation, value)
        if not possible:
            return False
    return True


def some_history(chance: random.Random) -> list[Operation]:
    """Return up to five operations that may or may not be explained."""
    history = []
    for value in range(chance.randrange(1, 6)):
        called = chance.randrange(20)
        answered = NEVER if chance.random() < 0.15 else called + chance.randrange(1, 10)
        kind: Literal["get", "put", "delete", "cas"] = chance.choice(["get", "put", "put", "cas"])
        read = chance.choice([None, 0, 1, 2])
        held = chance.choice([True, False]) if kind == "cas" and answered != NEVER else None
        if kind == "get" and answered == NEVER:
            continue
        history.append(
            Operation(
                kind, called * 10 + value, answered, read if kind == "get" else value, read, held
            )
            if answered == NEVER
            else Operation(
                kind,
                called * 10 + value,
                answered * 10,
                read if kind == "get" else value,
                read,
                held,
            )
        )
    return history
