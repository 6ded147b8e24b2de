"""A database does what a dict of lists does, in memory, in a folder, and encrypted.

`LIMNION_MODELS` says how many histories are made up for each of them; a campaign takes thousands.
"""

import asyncio
import datetime as dt
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import limnion
from limnion import errors
from limnion.records import Record
from limnion.sync_database import SyncSnapshot  # noqa: TC001

MODELS = int(os.environ.get("LIMNION_MODELS", "16"))
Place = tuple[str, str]
NAMESPACES = ["a", "b"]
KEYS = ["k", "k1", "k10", "k2", "z", "Ω", "\U0001f30a"]
WORDS = ["lake", "sea", "river"]
MICROSECOND = dt.timedelta(microseconds=1)


class Version(NamedTuple):
    """A version of a record; the value by its text, which tells types apart."""

    version: int
    time: dt.datetime
    kind: str
    value: str = "None"
    metadata: str = "{}"
    text: str | None = None
    vector: list[float] | None = None
    expires: dt.datetime | None = None


class Row(NamedTuple):
    """What is to be written."""

    value: Any
    metadata: dict[str, Any] | None = None
    text: str | None = None
    vector: list[float] | None = None
    expires: dt.datetime | None = None

    @property
    def beside(self) -> dict[str, Any]:
        """What is written beside the value."""
        return {"metadata": self.metadata, "text": self.text, "vector": self.vector}


class Live(NamedTuple):
    """A record that has a value."""

    row: Row
    version: int


class Point(NamedTuple):
    """A point in history: what it is called, the commit, and the moment at which records end."""

    name: int | str | dt.datetime | None
    seq: int
    moment: dt.datetime


def now() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


def version_of(record: Record) -> Version:
    """Return what a database says of a version."""
    return Version(
        record.version,
        record.timestamp,
        "expire" if record.expired else "delete" if record.deleted else "put",
        repr(record.value),
        repr(record.metadata),
        record.text,
        None if record.vector is None else record.vector.tolist(),
        record.expires_at,
    )


class Model:
    """Lists of versions by namespace and key, and the times of all commits."""

    def __init__(self) -> None:
        self.versions: dict[Place, list[tuple[Version, Row | None]]] = {}
        self.commits: list[tuple[dt.datetime, list[Place]]] = []
        self.tags: dict[str, int] = {}

    @property
    def head(self) -> int:
        """The newest commit."""
        return len(self.commits)

    def time(self, seq: int) -> dt.datetime:
        """Return when a commit was made."""
        return self.commits[seq - 1][0] if seq else dt.datetime.fromtimestamp(0, dt.UTC)

    def commit(self, moment: dt.datetime, kind: str, changes: dict[Place, Row | None]) -> None:
        """Add a commit."""
        assert moment > self.time(self.head)
        self.commits.append((moment, sorted(changes)))
        for place, row in changes.items():
            what = (self.head, moment, kind if row is None else "put")
            version = Version(*what)
            if row is not None:
                metadata = repr(row.metadata or {})
                version = Version(*what, repr(row.value), metadata, *row[2:])
            self.versions.setdefault(place, []).append((version, row))

    def history(self, place: Place) -> list[Version]:
        """Return the versions of a record."""
        return [version for version, _ in self.versions.get(place, [])]

    def latest(self) -> Point:
        """Return the point that is now."""
        return Point(None, self.head, now())

    def begun(self, place: Place, point: Point) -> bool:
        """Whether a record had been written at a point."""
        return any(version.version <= point.seq for version in self.history(place))

    def live(self, place: Place, point: Point) -> Live | None:
        """Return a record as it was at a point, if it had a value."""
        before = [each for each in self.versions.get(place, []) if each[0].version <= point.seq]
        if not before:
            return None
        version, row = before[-1]
        if row is None or (row.expires and row.expires <= point.moment):
            return None
        return Live(row, version.version)

    def all(self, namespace: str, point: Point) -> dict[str, Live]:
        """Return the records of a namespace in order, as they were."""
        keys = sorted(place[1] for place in self.versions if place[0] == namespace)
        found = ((key, self.live((namespace, key), point)) for key in keys)
        return {key: live for key, live in found if live is not None}


# Filters, evaluated in the plainest way.


def field(key: str, live: Live, path: str) -> list[Any]:
    """Return the value of a field, in a list; an empty one where there is none."""
    if path == "$key":
        return [key]
    if path == "$version":
        return [live.version]
    source: Any
    for source in (live.row.metadata, live.row.value):
        here: list[Any] = [source] if isinstance(source, dict) else []
        for name in path.split("."):
            inside, here = here[0] if here else None, []
            if isinstance(inside, dict) and name in inside:
                here = [inside[name]]
            elif isinstance(inside, list) and name.isdigit():
                here = inside[int(name) : int(name) + 1]
        if here:
            return here
    return []


def rank(value: Any) -> tuple[int, Any]:
    """Return what values are ordered by: null, bools, numbers, strings."""
    if value is None:
        return (0, 0)
    if isinstance(value, bool):
        return (1, value)
    return (2, value) if isinstance(value, (int, float)) else (3, value)


def equal(one: Any, two: Any) -> bool:
    """Whether two values are equal; a bool is no number."""
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(equal, one, two))
    if isinstance(one, (list, dict)) or isinstance(two, (list, dict)):
        return isinstance(one, dict) and isinstance(two, dict) and one == two
    return rank(one) == rank(two)


def ordered(one: Any, two: Any, holds: Callable[[Any, Any], bool]) -> bool:
    """Whether two values are of one type, and in that order."""
    if isinstance(one, (list, dict)):
        return False
    (kind, first), (other, second) = rank(one), rank(two)
    return kind == other and holds(first, second)


TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": equal,
    "$ne": lambda one, two: not equal(one, two),
    "$gt": lambda one, two: ordered(one, two, lambda x, y: x > y),
    "$gte": lambda one, two: ordered(one, two, lambda x, y: x >= y),
    "$lt": lambda one, two: ordered(one, two, lambda x, y: x < y),
    "$lte": lambda one, two: ordered(one, two, lambda x, y: x <= y),
    "$in": lambda one, several: any(equal(one, two) for two in several),
    "$nin": lambda one, several: not any(equal(one, two) for two in several),
    "$contains": lambda one, two: (
        any(equal(each, two) for each in one)
        if isinstance(one, list)
        else isinstance(one, str) and isinstance(two, str) and two in one
    ),
    "$startswith": lambda one, two: isinstance(one, str) and one.startswith(two),
    "$exists": lambda _, wanted: bool(wanted),
}


def matches(key: str, live: Live, wanted: dict[str, Any]) -> bool:
    """Whether a record matches a filter."""
    for name, condition in wanted.items():
        match name:
            case "$and":
                held = all(matches(key, live, part) for part in condition)
            case "$or":
                held = any(matches(key, live, part) for part in condition)
            case "$not":
                held = not matches(key, live, condition)
            case _:
                found = field(key, live, name)
                held = all(
                    bool(found) and TESTS[operator](found[0], operand)
                    for operator, operand in condition.items()
                )
        if not held:
            return False
    return True


places = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(KEYS))
namespaces = st.sampled_from(NAMESPACES)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.5, 1.0, -1.5, 2.0**53, 2**53 + 1, -(2**63), 2**64 - 1]),
    st.sampled_from(["", "x", "xy", "é", "\U0001f30a"]),
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "n": scalars,
        "s": st.sampled_from(["", "x", "xy", "yx"]),
        "tags": st.lists(scalars, max_size=3),
        "deep": st.fixed_dictionaries({"n": scalars}),
        "big": st.sampled_from([10**30, 1e300]) | st.just("w").map(lambda letter: letter * 3_000),
    },
)
values = st.one_of(
    objects,
    objects,
    scalars,
    st.lists(scalars, max_size=3),
    st.binary(max_size=5),
    st.sampled_from("ab").map(lambda letter: letter.encode() * 70_000),
    st.sampled_from("ab").map(lambda letter: {"n": 1, "large": letter * 70_000}),
)
metadatas = st.none() | st.fixed_dictionaries(
    {"shade": st.integers(0, 3)}, optional={"s": st.sampled_from(["", "x", "zz"])}
)
texts = st.none() | st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
vectors = st.none() | st.lists(st.sampled_from([0.0, 0.5, -2.0]), min_size=3, max_size=3)
rows = st.builds(Row, values, metadatas, texts, vectors, st.none())
operands = scalars.filter(lambda value: value is not None)
conditions = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), scalars | st.lists(scalars, max_size=2)),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), operands),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(scalars, max_size=3)),
    st.tuples(st.just("$contains"), scalars),
    st.tuples(st.just("$startswith"), st.sampled_from(["", "x", "k1"])),
    st.tuples(st.just("$exists"), st.just(value=True)),
).map(lambda pair: dict([pair]))
paths = st.sampled_from(["n", "n", "s", "tags", "deep.n", "tags.0", "shade", "$key", "$version"])
filters = st.recursive(
    st.just({}) | st.dictionaries(paths, conditions, min_size=1, max_size=2),
    lambda inner: (
        st.builds(lambda part: {"$not": part}, inner)
        | st.builds(
            lambda name, two: {name: two}, st.sampled_from(["$and", "$or"]), st.lists(inner)
        )
    ),
    max_leaves=4,
)


class Machine(RuleBasedStateMachine):
    """Does the same to a database and to the model, and compares what they say."""

    keyword: dict[str, Any] = {}  # noqa: RUF012
    in_folder = False

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))  # noqa: S108
        self.db = self.open()
        self.db.stats()  # opens it
        self.snapshots: list[tuple[SyncSnapshot, Point]] = []
        self.cursor = 0
        self.indexed: set[tuple[str, str]] = set()

    def open(self, folder: str = "db", **options: Any) -> limnion.SyncDatabase:
        """Open a database."""
        path = self.root / folder if self.in_folder or folder != "db" else None
        keyword = self.keyword if path else {}
        return limnion.Database.sync(limnion.Config(path, **keyword, **options))

    def teardown(self) -> None:
        """Compare everything at the end."""
        try:
            self.compare(self.db)
            self.compare_points(self.db)
        finally:
            self.db.close()
            shutil.rmtree(self.root)

    # Comparing

    def compare(self, db: limnion.SyncDatabase, *, tags: bool = True) -> None:
        """Compare all versions, and what is there now."""
        model, point = self.model, self.model.latest()
        for place in model.versions:
            assert list(map(version_of, db.history(*place))) == model.history(place)
        for namespace in NAMESPACES:
            live = model.all(namespace, point)
            assert db.keys(namespace) == list(live)
            assert same_rows(db.query(namespace), live)
        assert db.namespaces() == [name for name in NAMESPACES if model.all(name, point)]
        stats = db.stats()
        assert stats.version == model.head
        assert stats.total_versions == sum(map(len, model.versions.values()))
        assert stats.key_count == sum(len(model.all(name, point)) for name in NAMESPACES)
        if tags:
            told = {name: (tag.version, tag.timestamp) for name, tag in db.tags().items()}
            assert told == {name: (seq, model.time(seq)) for name, seq in model.tags.items()}
        report = db.check()
        assert report.problems == []
        assert (report.versions, report.commits) == (stats.total_versions, model.head)

    def compare_points(self, db: limnion.SyncDatabase) -> None:
        """Compare every record at every commit."""
        for seq in range(self.model.head + 1):
            point = Point(seq, seq, self.model.time(seq))
            for namespace in NAMESPACES:
                assert same_rows(db.query(namespace, as_of=seq), self.model.all(namespace, point))

    @invariant()
    def newest_values_are_read(self) -> None:
        point = self.model.latest()
        for place in self.model.versions:
            live = self.model.live(place, point)
            if live is None:
                assert self.db.get(*place, default=self) is self
            else:
                assert repr(self.db.get(*place)) == repr(live.row.value)
                assert repr(self.db.get_nowait(*place)) == repr(live.row.value)

    def point(self, data: st.DataObject) -> Point:
        """Return some point in history."""
        model = self.model
        kind = data.draw(st.sampled_from(["now", "version", "tag", "moment", "between"]))
        seq = data.draw(st.integers(0, model.head))
        if kind == "now":
            return model.latest()
        if kind == "tag" and model.tags:
            name = data.draw(st.sampled_from(sorted(model.tags)))
            return Point(name, model.tags[name], model.time(model.tags[name]))
        if kind in ("moment", "between") and seq:
            moment = model.time(seq)
            if kind == "between":
                moment -= data.draw(st.sampled_from([1, 100, 10_000])) * MICROSECOND
                seq = sum(time <= moment for time, _ in model.commits)
            return Point(moment, seq, moment)
        return Point(seq, seq, model.time(seq))

    # Writing

    def committed(self, version: int, changes: dict[Place, Row | None]) -> None:
        """Tell the model of a commit, after sweeps that came before it."""
        if not changes:
            assert version == self.model.head
            return
        self.absorb(version - 1)
        assert version == self.model.head + 1
        times = {self.db.history(*place, since=version - 1)[0].timestamp for place in changes}
        (moment,) = times
        self.model.commit(moment, "delete", changes)

    def absorb(self, last: int) -> None:
        """Tell the model of sweeps up to a commit; there must be nothing else."""
        swept: dict[int, list[Place]] = {}
        times = {}
        for change in self.db.watch(since=self.model.head, timeout=0):
            if change.version <= last:
                assert change.kind == "expire"
                swept.setdefault(change.version, []).append((change.namespace, change.key))
                times[change.version] = change.timestamp
        for version, gone in swept.items():
            assert version == self.model.head + 1
            for place in gone:
                row = self.model.versions[place][-1][1]
                assert row is not None
                assert row.expires is not None
                assert row.expires <= times[version]
            self.model.commit(times[version], "expire", dict.fromkeys(gone))

    def put(self, place: Place, row: Row, **options: Any) -> int:
        """Put a row."""
        namespace, key = place
        return self.db.put(namespace, key, row.value, **row.beside, **options)

    @rule(place=places, row=rows)
    def put_one(self, place: Place, row: Row) -> None:
        self.committed(self.put(place, row), {place: row})

    @rule(place=places, row=rows)
    def put_what_runs_out_much_later(self, place: Place, row: Row) -> None:
        version = self.put(place, row, ttl=dt.timedelta(days=1))
        (written,) = self.db.history(*place, limit=1)
        assert written.expires_at is not None
        late = written.expires_at - written.timestamp
        assert dt.timedelta(hours=23) < late <= dt.timedelta(days=1)
        self.committed(version, {place: row._replace(expires=written.expires_at)})

    @rule(place=places, row=rows, again=st.none() | rows)
    def put_what_runs_out_at_once(self, place: Place, row: Row, again: Row | None) -> None:
        version = self.put(place, row, ttl=0.002)
        expires = self.db.history(*place, since=version - 1)[0].expires_at
        assert expires is not None
        self.committed(version, {place: row._replace(expires=expires)})
        time.sleep(max(0.0, (expires - now()).total_seconds()))
        while now() <= expires:
            time.sleep(0.000_1)
        # Whether it is swept by now or not makes no difference.
        assert self.db.get(*place, default=self) is self
        assert not self.db.exists(*place)
        assert place[1] not in self.db.keys(place[0])
        assert place[1] not in self.db.query(place[0]).keys
        assert self.db.put_if(*place, 1, "present") is None
        if again is not None:
            self.committed(self.put(place, again, expect="absent"), {place: again})
        deadline = time.monotonic() + 20
        while (newest := self.model.versions[place][-1][1]) and newest.expires == expires:
            assert time.monotonic() < deadline, "it is not swept"
            self.absorb(2**62)

    @rule(place=places)
    def delete(self, place: Place) -> None:
        live = self.model.live(place, self.model.latest())
        assert self.db.delete(*place) == (live is not None)
        if live is not None:
            self.committed(self.model.head + 1, {place: None})

    @rule(batch=st.lists(st.tuples(places, values), min_size=1, max_size=6), mapped=st.booleans())
    def put_batch(self, batch: list[tuple[Place, Any]], mapped: bool) -> None:
        written: dict[Place, Any] = dict(batch)
        version = self.db.put_batch(written if mapped else [(*place, x) for place, x in batch])
        self.committed(version, {place: Row(value) for place, value in written.items()})

    @rule(writes=st.lists(st.tuples(places, st.none() | objects), min_size=1, max_size=6))
    def queue(self, writes: list[tuple[Place, Any]]) -> None:
        for place, value in writes:
            if value is None:
                del self.db["/".join(place)]
            else:
                self.db["/".join(place)] = value
        self.db.flush()
        self.committed_in_order(writes)

    @rule(writes=st.lists(st.tuples(places, st.none() | values), min_size=2, max_size=6))
    def write_together(self, writes: list[tuple[Place, Any]]) -> None:
        twin = limnion.Database()
        twin._store = self.db._store  # noqa: SLF001 - for what shares a group of commits

        async def main() -> None:
            calls: list[Awaitable[Any]] = [
                twin.delete(*place) if value is None else twin.put(*place, value)
                for place, value in writes
            ]
            await asyncio.gather(*calls)

        asyncio.run(main())
        self.committed_in_order(writes)

    def committed_in_order(self, writes: list[tuple[Place, Any]]) -> None:
        """Tell the model of commits of one write each; `None` deletes."""
        for place, value in writes:
            if value is not None:
                self.committed(self.model.head + 1, {place: Row(value)})
            elif self.model.live(place, self.model.latest()):
                self.committed(self.model.head + 1, {place: None})

    @rule(
        place=places,
        row=rows,
        kind=st.sampled_from(["absent", "present", "newest", "old"]),
        verb=st.sampled_from(["put", "put_if", "delete"]),
        data=st.data(),
    )
    def compare_and_set(
        self, place: Place, row: Row, kind: Any, verb: str, data: st.DataObject
    ) -> None:
        live = self.model.live(place, self.model.latest())
        expect: Any = kind
        if kind == "newest":
            expect = live.version if live else max(1, self.model.head)
        elif kind == "old":
            expect = data.draw(st.integers(1, 2 + self.model.head))
        holds = {"absent": live is None, "present": live is not None}.get(
            kind, live is not None and live.version == expect
        )
        try:
            if verb == "delete":
                assert self.db.delete(*place, expect=expect) == (holds and live is not None)
                version: int | None = self.model.head + 1
            elif verb == "put_if":
                version = self.db.put_if(*place, row.value, expect, metadata=row.metadata)
                row = Row(row.value, row.metadata)
            else:
                version = self.put(place, row, expect=expect)
        except errors.ConflictError:
            assert not holds
            return
        if verb == "put_if" and not holds:
            assert version is None
            return
        assert holds
        assert version is not None
        if verb != "delete":
            self.committed(version, {place: row})
        elif live is not None:
            self.committed(version, {place: None})

    @rule(
        read=st.lists(places, max_size=3),
        writes=st.lists(st.tuples(places, st.none() | rows), max_size=4),
        meddle=st.none() | places,
        fail=st.integers(0, 5).map(lambda number: number == 0),
    )
    def transaction(
        self,
        read: list[Place],
        writes: list[tuple[Place, Row | None]],
        meddle: Place | None,
        fail: bool,
    ) -> None:
        point = self.model.latest()
        changes: dict[Place, Row | None] = {}
        tx = self.db.transaction()
        try:
            with tx:
                for place in read:
                    live = self.model.live(place, point)
                    told = tx.get(*place, default=self)
                    assert told is self if live is None else repr(told) == repr(live.row.value)
                for place, row in writes:
                    changes[place] = row
                    if row is None:
                        tx.delete(*place)
                    else:
                        tx.put(*place, row.value, **row.beside)
                for place, row in changes.items():
                    told = tx.get(*place, default=self)
                    assert told is self if row is None else repr(told) == repr(row.value)
                if meddle is not None:
                    self.committed(self.db.put(*meddle, "meddled"), {meddle: Row("meddled")})
                if fail:
                    raise ZeroDivisionError  # noqa: TRY301 - it is to go through the transaction
        except ZeroDivisionError:
            return
        except errors.ConflictError:
            assert meddle in read
            return
        assert meddle not in read or not changes
        point = self.model.latest()
        changes = {p: row for p, row in changes.items() if row or self.model.live(p, point)}
        if writes:
            assert tx.version is not None
            self.committed(tx.version, changes)
        else:
            assert tx.version is None

    @rule(data=st.data(), scope=st.sampled_from(["all", "namespace", "key"]), place=places)
    def restore(self, data: st.DataObject, scope: str, place: Place) -> None:
        point = self.point(data)
        as_of: Any = self.model.head if point.name is None else point.name
        latest = self.model.latest()
        keyword: dict[str, Any] = {}
        if scope != "all":
            keyword["namespace"] = place[0]
        if scope == "key":
            keyword["key"] = place[1]
        if scope == "key" and place in self.model.versions and not self.model.begun(place, point):
            with pytest.raises(errors.NoValueAtTime):
                self.db.restore(as_of, **keyword)
            return
        changes: dict[Place, Row | None] = {}
        for here in self.model.versions:
            if here[: len(keyword)] != place[: len(keyword)]:
                continue
            past, present = self.model.live(here, point), self.model.live(here, latest)
            if past and past.row.expires and past.row.expires <= now():
                past = None
            if past and (not present or repr(past.row) != repr(present.row)):
                changes[here] = past.row
            elif present and not past:
                changes[here] = None
        self.committed(self.db.restore(as_of, **keyword), changes)

    # Reading

    @rule(place=places, data=st.data())
    def read_one(self, place: Place, data: st.DataObject) -> None:
        point = self.point(data)
        live = self.model.live(place, point)
        as_of: Any = point.name
        assert self.db.exists(*place, as_of=as_of) == (live is not None)
        reads: list[Callable[..., Any]] = [lambda **rest: self.db.get(*place, as_of=as_of, **rest)]
        if as_of is not None:
            reads.append(lambda **rest: self.db.get_at(*place, as_of, **rest))
        for read in reads:
            if live is not None:
                assert repr(read()) == repr(live.row.value)
                continue
            assert read(default=self) is self
            early = place in self.model.versions and not self.model.begun(place, point)
            with pytest.raises(errors.NoValueAtTime if early else errors.KeyNotFoundError):
                read()
        if live is not None:
            record = self.db.record(*place, as_of=as_of)
            assert record is not None
            assert same_rows([record], {place[1]: live})

    @rule(
        namespace=namespaces,
        data=st.data(),
        start=st.none() | st.sampled_from(KEYS),
        end=st.none() | st.sampled_from(KEYS),
        prefix=st.sampled_from(["", "k", "k1", "Ω", "q"]),
        limit=st.none() | st.integers(0, 4),
        reverse=st.booleans(),
    )
    def scan(  # noqa: PLR0917
        self,
        namespace: str,
        data: st.DataObject,
        start: str | None,
        end: str | None,
        prefix: str,
        limit: int | None,
        reverse: bool,
    ) -> None:
        point = self.point(data)
        found = self.model.all(namespace, point)
        keyword: dict[str, Any] = {"limit": limit, "reverse": reverse, "as_of": point.name}
        if start is None and end is None:
            keyword["prefix"] = prefix
            found = {key: live for key, live in found.items() if key.startswith(prefix)}
        else:
            keyword.update(start=start, end=end)
            first, last = start or "", end or "\U0010ffff"
            found = {key: live for key, live in found.items() if first <= key < last}
        keys = list(found)[:: -1 if reverse else 1][:limit]
        assert self.db.keys(namespace, **keyword) == keys
        items = [(key, found[key].row.value) for key in keys]
        assert repr(self.db.items(namespace, **keyword)) == repr(items)

    @rule(place=places, data=st.data(), limit=st.none() | st.integers(0, 3))
    def read_history(self, place: Place, data: st.DataObject, limit: int | None) -> None:
        since, until = self.point(data), self.point(data)
        history = self.model.history(place)
        if since.name is not None:
            history = [version for version in history if version.version > since.seq]
        history = [version for version in history if version.version <= until.seq]
        history = history[max(0, len(history) - limit) :] if limit is not None else history
        found = self.db.history(*place, since=since.name, until=until.name, limit=limit)
        assert list(map(version_of, found)) == history

    @rule(
        namespace=namespaces,
        data=st.data(),
        wanted=filters,
        sort=st.sampled_from(["", "", "n", "-n", "-shade", "-$key", "$version"]),
        page=st.tuples(st.integers(0, 2), st.none() | st.integers(0, 3)),
    )
    def query(
        self,
        namespace: str,
        data: st.DataObject,
        wanted: dict[str, Any],
        sort: str,
        page: tuple[int, int | None],
    ) -> None:
        point = self.point(data)
        as_of: Any = point.name
        everything = self.model.all(namespace, point)
        found = {key: live for key, live in everything.items() if matches(key, live, wanted)}
        assert self.db.count(namespace, wanted, as_of=as_of) == len(found)
        groups = self.db.aggregate(namespace, wanted, group_by="shade", sum="shade", as_of=as_of)
        shades = [dict(enumerate(field(*each, "shade"))).get(0) for each in found.items()]
        assert {group.key: group.count for group in groups} == {
            shade: shades.count(shade) for shade in shades
        }
        assert all(g.sum == {"shade": g.key * g.count} for g in groups if g.key is not None)
        keys = list(found)
        if sort:
            path = sort.removeprefix("-")
            having = [key for key in keys if field(key, found[key], path)]
            having.sort(
                key=lambda key: rank(field(key, found[key], path)[0]), reverse=sort[0] == "-"
            )
            keys = having + [key for key in keys if key not in having]
        offset, limit = page
        keys = keys[offset:] if limit is None else keys[offset : offset + limit]
        keyword: dict[str, Any] = {"sort": sort} if sort else {}
        got = self.db.query(namespace, wanted, offset=offset, limit=limit, as_of=as_of, **keyword)
        assert got.total == len(found)
        assert got.keys == keys
        assert same_rows(got, {key: found[key] for key in keys})

    @rule(namespace=namespaces, data=st.data(), words=st.lists(st.sampled_from(WORDS), min_size=1))
    def search_text(self, namespace: str, data: st.DataObject, words: list[str]) -> None:
        point = self.point(data)
        hits = self.db.text_search(namespace, " ".join(words), limit=99, as_of=point.name)
        found = self.model.all(namespace, point)
        expected = {
            k for k, live in found.items() if set(words) <= set((live.row.text or "").split())
        }
        assert {hit.record.key for hit in hits} == expected
        assert len(hits) == len(expected)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)

    @rule(namespace=st.none() | namespaces, data=st.data())
    def follow(self, namespace: str | None, data: st.DataObject) -> None:
        since = data.draw(
            st.sampled_from([self.cursor, data.draw(st.integers(0, self.model.head))])
        )
        watch = self.db.watch(namespace, since=since, timeout=0)
        told = [(c.version, c.timestamp, c.namespace, c.key, c.kind, repr(c.value)) for c in watch]
        assert [each[0] for each in told] == sorted(each[0] for each in told)
        assert sorted(told) == list(self.changes(since, namespace))
        assert watch.version == self.model.head
        self.cursor = watch.version

    def changes(self, since: int, namespace: str | None) -> Iterator[tuple[Any, ...]]:
        """Return the changes after a commit."""
        for seq in range(since + 1, self.model.head + 1):
            moment, written = self.model.commits[seq - 1]
            for place in written:
                if namespace in (None, place[0]):
                    (now,) = [v for v in self.model.history(place) if v.version == seq]
                    yield seq, moment, *place, now.kind, now.value

    # Tags, snapshots and indexes

    @rule(name=st.sampled_from(["one", "two"]), data=st.data(), replace=st.booleans())
    def tag(self, name: str, data: st.DataObject, replace: bool) -> None:
        point = self.point(data)
        if name in self.model.tags and not replace:
            with pytest.raises(errors.ConflictError):
                self.db.tag(name, point.name)
            return
        if isinstance(point.name, dt.datetime) and not point.seq:
            with pytest.raises(errors.NoValueAtTime):
                self.db.tag(name, point.name, replace=replace)
            return
        tag = self.db.tag(name, point.name, replace=replace)
        assert tag == (name, point.seq, self.model.time(point.seq))
        self.model.tags[name] = point.seq

    @rule(name=st.sampled_from(["one", "two"]))
    def untag(self, name: str) -> None:
        assert self.db.untag(name) == (self.model.tags.pop(name, None) is not None)

    @rule(data=st.data())
    def take_snapshot(self, data: st.DataObject) -> None:
        point = self.point(data)
        self.snapshots.append((self.db.snapshot(point.name), point))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data(), wanted=filters)
    def read_snapshot(self, data: st.DataObject, wanted: dict[str, Any]) -> None:
        snapshot, point = data.draw(st.sampled_from(self.snapshots))
        for namespace in NAMESPACES:
            live = self.model.all(namespace, point)
            assert snapshot.keys(namespace) == list(live)
            assert same_rows(snapshot.query(namespace), live)
            assert snapshot.count(namespace, wanted) == sum(
                matches(*e, wanted) for e in live.items()
            )

    @precondition(lambda self: not self.keyword)
    @rule(namespace=namespaces, path=st.sampled_from(["n", "shade", "deep.n", "s"]))
    def create_or_drop_an_index(self, namespace: str, path: str) -> None:
        if (namespace, path) in self.indexed:
            assert self.db.drop_index(namespace, path)
            self.indexed.remove((namespace, path))
        else:
            self.db.create_index(namespace, path)
            self.indexed.add((namespace, path))
        assert set(self.db.indexes()) == self.indexed

    # The whole database

    @precondition(lambda self: self.in_folder)
    @rule(megabytes=st.sampled_from([0, 0.001, 64]), salvaged=st.booleans())
    def reopen(self, megabytes: float, salvaged: bool) -> None:
        self.db.close()
        self.snapshots.clear()
        if salvaged:
            target = self.root / "salvaged"
            report = limnion.SyncDatabase.salvage(self.root / "db", target, **self.keyword)
            assert report.problems == []
            with self.open("salvaged") as copy:
                self.compare(copy)
            shutil.rmtree(target)
        self.db = self.open(max_memory_mb=megabytes)

    @precondition(lambda self: self.in_folder)
    @rule()
    def look_from_beside(self) -> None:
        with self.open(read_only=True) as reader:
            self.compare(reader)

    @rule()
    def vacuum(self) -> None:
        assert self.db.vacuum().dropped == 0
        self.compare(self.db)

    @rule()
    def back_up(self) -> None:
        target = self.root / "backup"
        self.db.backup(target)
        with limnion.Database.sync(limnion.Config(target, **self.keyword)) as copy:
            self.compare(copy)
            self.compare_points(copy)
        shutil.rmtree(target)

    @rule(history=st.booleans())
    def export_and_import(self, history: bool) -> None:
        lines = self.root / "lines"
        count = self.db.export_jsonl(lines, history=history)
        with limnion.Database.sync() as copy:
            assert copy.import_jsonl(lines) == count
            if history:
                self.compare(copy, tags=False)
                self.compare_points(copy)
                return
            point = self.model.latest()
            for namespace in NAMESPACES:
                live = self.model.all(namespace, point)
                assert same_rows(copy.query(namespace), live, versions=False)


def same_rows(
    records: Iterable[Record], expected: dict[str, Live], *, versions: bool = True
) -> bool:
    """Whether these are the records, in this order."""
    told = [(record.key, version_of(record)) for record in records]
    if [key for key, _ in told] != list(expected):
        return False
    return all(
        version.version in (expected[key].version, *([] if versions else [version.version]))
        and version[3:]
        == (repr(row.value), repr(row.metadata or {}), row.text, row.vector, row.expires)
        for key, version in told
        for row in [expected[key].row]
    )


class Folder(Machine):
    """In a folder."""

    in_folder = True


class Encrypted(Machine):
    """In a folder, encrypted."""

    in_folder = True
    keyword = {"encryption_key": bytes(range(32))}  # noqa: RUF012


@pytest.mark.timeout(120 + 10 * MODELS)
@pytest.mark.parametrize("machine", [Machine, Folder, Encrypted])
def test_a_database_is_a_dict_of_lists(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=MODELS,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
