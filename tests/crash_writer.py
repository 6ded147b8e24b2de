"""A program with eight writers, for test_crash.py to kill: it tells a pipe what it attempts.

What an operation writes follows from its name, so that the one who reads the pipe knows it too.
"""

import asyncio
import dataclasses
import os
import random
import sys
from typing import Any, Literal

import limnion
from limnion import errors

WRITERS = 8
SOON = 0.03
Place = tuple[str, str]
Kind = Literal["put", "delete", "queue", "batch", "transaction", "cas"]
DURABILITIES: dict[str, Any] = {
    "commit": {"durability": "commit"},
    "batched": {"durability": "batched"},
    "encrypted": {"encryption_key": bytes(range(32))},
}


@dataclasses.dataclass
class Row:
    """What an operation writes to one place."""

    value: Any
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    text: str | None = None
    vector: list[float] | None = None
    ttl: float | None = None


@dataclasses.dataclass
class Plan:
    """What an operation does: `None` stands for a deletion."""

    kind: Kind
    rows: dict[Place, Row | None]


def plan(name: str) -> Plan:
    """Return what the operation of that name does."""
    chance = random.Random(name)  # noqa: S311
    writer = name.split(".")[1]
    own = (f"own{writer}", f"k{chance.randrange(6)}")
    kinds: list[Kind] = ["put", "delete", "queue", "batch", "transaction", "cas"]
    kind = chance.choices(kinds, [50, 10, 4, 14, 12, 10])[0]
    rows: dict[Place, Row | None]
    match kind:
        case "put":
            place = own
            row = _row(name, chance)
            if chance.random() < 0.15:
                place = ("ttl", f"{writer}.{chance.randrange(3)}")
                row.ttl = chance.choice([SOON, 3600])
            rows = {place: row}
        case "delete":
            rows = {own: None}
        case "queue":
            rows = {own: Row({"by": name, "queued": True})}
        case "batch":
            rows = {
                (chance.choice(["shared", "other"]), f"b{chance.randrange(20)}"): Row(
                    {"by": name, "filler": "x" * chance.choice([0, 10, 1_000])}
                )
                for _ in range(chance.randrange(2, 10))
            }
        case "transaction":
            rows = {
                ("counters", f"c{chance.randrange(3)}"): Row({}, {"by": name}),  # and a number
                ("ledger", name): Row({"by": name}),
                ("shared", f"b{chance.randrange(20)}"): None,
            }
        case "cas":
            rows = {("shared", f"cas{chance.randrange(3)}"): _row(name, chance)}
    return Plan(kind, rows)


def _row(name: str, chance: random.Random) -> Row:
    metadata = {"by": name, "shade": chance.randrange(5)}
    match chance.randrange(12):
        case 0:  # the same for many, so that it is stored once
            value: Any = bytes([chance.randrange(3)]) * 70_000
        case 1:
            value = {"of": name, "long": "y" * chance.randrange(60_000, 100_000)}
        case 2:
            value = name.encode() * chance.randrange(500)
        case 3:
            value = [name, None, 1.5, 10**30, {"deep": [name]}]
        case _:
            value = {"of": name, "filler": "z" * chance.randrange(300)}
    text = f"lake number {name.replace('.', 'x')}" if chance.random() < 0.3 else None
    vector = [chance.randrange(100) / 4 for _ in range(8)] if chance.random() < 0.3 else None
    return Row(value, metadata, text, vector)


class Writer:
    """One of the eight: one operation after another, each told before and after."""

    def __init__(self, db: limnion.Database, pipe: int, cycle: str, number: int) -> None:
        self.db = db
        self.pipe = pipe
        self.prefix = f"{cycle}.{number}"

    def tell(self, *words: object) -> None:
        """Write a line, whole: what is shorter than a page cannot be torn in a pipe."""
        os.write(self.pipe, (" ".join(map(str, words)) + "\n").encode())

    async def run(self) -> None:
        """Write for ever."""
        number = 0
        while True:
            name = f"{self.prefix}.{number}"
            try:
                await self.perform(name, plan(name))
            except errors.ConflictError:
                self.tell("refused", name)
            number += 1

    async def perform(self, name: str, what: Plan) -> None:
        """Do one operation."""
        db = self.db
        ((namespace, key), row), *_ = what.rows.items()
        if what.kind != "cas":
            self.tell("attempt", name)
        match what.kind:
            case "put":
                assert row is not None
                version = await db.put(namespace, key, row.value, **_rest(row))
                self.tell("done", name, version)
                if row.ttl != SOON:
                    assert await db.get(namespace, key) == row.value
            case "delete":
                self.tell("deleted", name, await db.delete(namespace, key))
                assert await db.get(namespace, key, default=None) is None
            case "queue":
                assert row is not None
                db[f"{namespace}/{key}"] = row.value
                assert await db.get(namespace, key) == row.value
                self.tell("done", name, 0)
            case "batch":
                rows = [(*place, row.value) for place, row in what.rows.items() if row is not None]
                self.tell("done", name, await db.put_batch(rows))
            case "transaction":
                await self.transact(name, what)
            case "cas":
                assert row is not None
                record = await db.record(namespace, key)
                expect: Any = "absent" if record is None else record.version
                self.tell("attempt", name, 0 if record is None else record.version)
                version = await db.put(namespace, key, row.value, expect=expect, **_rest(row))
                self.tell("done", name, version)

    async def transact(self, name: str, what: Plan) -> None:
        """Add one to a counter, and write something down beside it."""
        async with self.db.transaction() as tx:
            for (namespace, key), row in what.rows.items():
                if row is None:
                    await tx.delete(namespace, key)
                elif namespace == "counters":
                    count = await tx.get(namespace, key, default=0)
                    await asyncio.sleep(0)
                    await tx.put(namespace, key, count + 1, metadata=row.metadata)
                else:
                    await tx.put(namespace, key, row.value)
        self.tell("done", name, tx.version)


def _rest(row: Row) -> dict[str, Any]:
    return {"metadata": row.metadata, "text": row.text, "vector": row.vector, "ttl": row.ttl}


async def keep_house(db: limnion.Database, writer: Writer, cycle: str) -> None:
    """Tag and vacuum all the while."""
    number = 0
    while True:
        await asyncio.sleep(0.02)
        name = f"t{cycle}-{number}"
        version = (await db.snapshot()).as_of
        writer.tell("tag", name, version)
        await db.tag(name, version)
        writer.tell("tagged", name, version)
        if number % 4 == 3:
            await db.vacuum()
        number += 1


async def main(path: str, pipe: int, manner: str, cycle: str) -> None:
    """Write until somebody ends it."""
    os.write(pipe, b"opening\n")
    async with limnion.Database(limnion.Config(path, **DURABILITIES[manner])) as db:
        os.write(pipe, b"open\n")
        writers = [Writer(db, pipe, cycle, number) for number in range(WRITERS)]
        tasks = [writer.run() for writer in writers]
        await asyncio.gather(*tasks, keep_house(db, writers[0], cycle))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]))
