"""Writers that are killed at random moments lose nothing acknowledged, and tear nothing.

`LIMNION_PYTHON_CRASHES` says how many kills; a campaign takes hundreds.
"""

import datetime as dt
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import crash_writer
import pytest
from crash_writer import DURABILITIES, Place, Row, plan

import limnion
from limnion.records import Change, Record

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

CRASHES = int(os.environ.get("LIMNION_PYTHON_CRASHES", "25"))
SEED = os.environ.get("LIMNION_SEED", "1")
CYCLES_OF_A_FOLDER = 25


class Ledger:
    """What the writers have told: what they attempted, and what became of it."""

    def __init__(self) -> None:
        self.attempted: dict[str, tuple[int, int | None]] = {}
        """By name: the newest version acknowledged before, and the version that cas expected."""
        self.done: dict[str, int] = {}
        self.deleted: dict[str, bool] = {}
        self.refused: set[str] = set()
        self.tags_attempted: dict[str, int] = {}
        self.tags: dict[str, int] = {}
        self.newest = 0

    def hear(self, line: str) -> None:
        """Take a line."""
        match line.split():
            case ["opening"] | ["open"]:
                pass
            case ["attempt", name, *rest]:
                assert name not in self.attempted
                self.attempted[name] = (self.newest, int(rest[0]) if rest else None)
            case ["done", name, version]:
                self.done[name] = int(version)
                self.newest = max(self.newest, int(version))
            case ["deleted", name, was_there]:
                self.deleted[name] = was_there == "True"
            case ["refused", name]:
                self.refused.add(name)
            case ["tag", name, version]:
                self.tags_attempted[name] = int(version)
            case ["tagged", name, version]:
                self.tags[name] = int(version)
            case _:
                pytest.fail(f"{line!r} was told")


class Version(NamedTuple):
    """What is remembered of a version."""

    version: int
    previous: int | None
    timestamp: dt.datetime
    deleted: bool
    hash: str | None
    expires_at: dt.datetime | None
    text: str | None
    metadata: dict[str, Any]
    counted: int


def version_of(record: Record) -> Version:
    """Return what is remembered; the hash stands for the value."""
    return Version(
        record.version,
        record.previous,
        record.timestamp,
        record.deleted,
        record.hash,
        record.expires_at,
        record.text,
        record.metadata,
        record.value if record.namespace == "counters" else 0,
    )


class Model:
    """What a database must hold, made of its changes, each of which the ledger must explain."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.head = 0
        self.recovered: dict[str, int] = {}
        self.versions: dict[Place, list[Version]] = defaultdict(list)

    def live(self, place: Place) -> Version | None:
        """Return the newest version, where it is a value; whether it has run out is not asked."""
        newest = self.versions[place][-1:]
        return newest[0] if newest and not newest[0].deleted else None

    def take(self, db: limnion.SyncDatabase) -> list[Place]:
        """Take the changes since the last time, commit by commit; return what has changed."""
        changes = list(db.watch(since=self.head, timeout=0))
        head = max([self.head, *(change.version for change in changes)])
        commits: dict[int, list[Change]] = defaultdict(list)
        for change in changes:
            commits[change.version].append(change)
        assert list(commits) == list(range(self.head + 1, head + 1)), "versions have no gaps"
        for version, commit in commits.items():
            there: dict[Place, Record] = {}
            for change in commit:
                assert change.record is not None
                there[change.namespace, change.key] = change.record
            assert len(there) == len(commit)
            self._explain(version, there)
            for place, record in there.items():
                versions = self.versions[place]
                assert record.previous == (versions[-1].version if versions else None)
                versions.append(version_of(record))
        self.head = head
        return list({(change.namespace, change.key) for change in changes})

    def _explain(self, version: int, commit: dict[Place, Record]) -> None:
        """Find the operation that made a commit, and compare them."""
        names = {by(record) for record in commit.values() if not record.deleted}
        if not names:
            for place, record in commit.items():
                before = self.live(place)
                assert before is not None
                if record.expired:
                    assert before.expires_at is not None
                    assert before.expires_at <= record.timestamp
                else:  # a deletion does not say who made it: see `_compare_deletions`
                    assert len(commit) == 1
                    assert place[0].startswith("own")
            return
        (name,) = names
        assert name in self.ledger.attempted, "written by nobody"
        floor, expected = self.ledger.attempted[name]
        assert version > floor, "an attempt comes after what was acknowledged before it"
        assert name not in self.recovered, "nothing is written twice"
        assert name not in self.ledger.refused
        self.recovered[name] = version
        rows = plan(name).rows
        whole = {place for place, row in rows.items() if row is not None or self.live(place)}
        assert set(commit) == whole, "a batch is whole"
        for place, record in commit.items():
            self._compare_row(place, record, rows[place])
        if expected is not None:
            newest = self.live(next(iter(rows)))
            assert expected == (newest.version if newest else 0), "compared and set at once"

    def _compare_row(self, place: Place, record: Record, row: Row | None) -> None:
        assert record.deleted == (row is None)
        assert not record.expired
        if row is None:
            return
        before = self.live(place)
        count = (before.counted if before else 0) + 1
        assert record.value == (count if place[0] == "counters" else row.value)
        assert record.metadata == row.metadata
        assert record.text == row.text
        assert (None if record.vector is None else record.vector.tolist()) == row.vector
        assert (record.expires_at is None) == (row.ttl is None)

    def compare(self, db: limnion.SyncDatabase, places: list[Place]) -> None:
        """Compare the ledger with the changes, and them with what else the database says."""
        for name, version in self.ledger.done.items():
            assert version in (0, self.recovered[name]), "what was acknowledged is there"
        self._compare_deletions()
        tags = {name: tag.version for name, tag in db.tags().items()}
        assert self.ledger.tags.items() <= tags.items() <= self.ledger.tags_attempted.items()
        now = dt.datetime.now(dt.UTC)
        for place in places:
            history = db.history(*place, until=self.head)
            assert [version_of(record) for record in history] == self.versions[place]
            newest = self.live(place)
            if newest is not None and newest.expires_at is None:
                record = db.record(*place)
                assert record is not None
                assert version_of(record) == newest
                if record.text is not None:
                    hits = db.text_search(place[0], f'"{record.text}"')
                    assert [hit.record for hit in hits] == [record]
            elif newest is None or newest.expires_at is None or newest.expires_at < now:
                assert db.record(*place) is None
                assert not db.exists(*place)

    def compare_namespaces(self, db: limnion.SyncDatabase) -> None:
        """Compare scans and queries with the newest versions."""
        for namespace in {place[0] for place in self.versions} - {"ttl"}:
            places = sorted(place for place in self.versions if place[0] == namespace)
            live = {key: newest for _, key in places if (newest := self.live((namespace, key)))}
            assert {r.key: version_of(r) for r in db.query(namespace)} == live
            assert db.keys(namespace) == list(live)
            shades = [version.metadata.get("shade", 0) for version in live.values()]
            assert db.count(namespace, "shade > 2") == sum(shade > 2 for shade in shades)

    def _compare_deletions(self) -> None:
        """Compare deletions with the attempts at them between the writes around them.

        A writer does one thing after another, and is alone at its own keys.
        """
        attempts: dict[Place, list[str]] = {
            place: [] for place in self.versions if place[0].startswith("own")
        }
        for name in self.ledger.attempted:
            what = plan(name)
            place = next(iter(what.rows))
            if place in attempts and (what.kind == "delete" or name in self.recovered):
                attempts[place].append(name)
        for place, names in attempts.items():
            versions = self.versions[place]
            at, live = 0, False
            told: list[bool | None] = []
            for name in [*sorted(names, key=order), "the end"]:
                if name in self.ledger.attempted and name not in self.recovered:
                    told.append(self.ledger.deleted.get(name))
                    continue
                gone = at < len(versions) and versions[at].deleted
                at += gone
                assert may_be(told, live=live, gone=gone), (place, told)
                if name in self.recovered:
                    assert versions[at].version == self.recovered[name], "in the writer's order"
                    at, live, told = at + 1, True, []
            assert at == len(versions)


def may_be(told: list[bool | None], *, live: bool, gone: bool) -> bool:
    """Whether deletions that told this, or were killed on their way, do that to a record."""
    if gone:
        return live and told.count(True) <= 1 and (True in told or None in told)
    return True not in told and not (live and False in told)


def by(record: Record) -> str:
    """Return the name of the operation that made a version."""
    name: str = record.metadata["by"] if "by" in record.metadata else record.value["by"]
    return name


def order(name: str) -> list[int]:
    """Return what names are ordered by."""
    return [int(part) for part in name.split(".")]


def write_and_kill(folder: Path, manner: str, cycle: int, ledger: Ledger) -> None:
    """Have a program write to a database, and kill it at some moment."""
    chance = random.Random(f"{SEED} {manner} {cycle}")  # noqa: S311
    # Now and then it is killed while it opens, and repairs what the last one left behind.
    word, most = ("opening", 0.02) if chance.random() < 0.2 else ("open", 0.3)
    source, pipe = os.pipe()
    program = [sys.executable, crash_writer.__file__, str(folder), str(pipe), manner, str(cycle)]
    writer = subprocess.Popen(program, pass_fds=[pipe], stderr=subprocess.PIPE)
    os.close(pipe)
    heard, deadline = b"", float("inf")
    with os.fdopen(source, "rb", buffering=0) as lines, writer:
        while True:
            left = min(deadline - time.monotonic(), 60)
            if left <= 0:
                writer.kill()
                deadline = float("inf")
                continue
            if not select.select([lines], [], [], left)[0]:
                assert deadline < float("inf"), "nothing was heard for a minute"
                continue
            more = lines.read(1 << 16)
            if not more:
                break
            heard += more
            if deadline == float("inf") and word + "\n" in heard[:100].decode():
                deadline, word = time.monotonic() + chance.random() * most, "told once"
        assert writer.stderr is not None
        assert writer.stderr.read().decode() == ""
    assert writer.returncode == -signal.SIGKILL
    for line in heard.decode().splitlines():
        ledger.hear(line)


def crash_again_and_again(folder: Path, manner: str, cycles: range) -> Ledger:
    """Kill writers of one database, and look at it each time."""
    ledger = Ledger()
    model = Model(ledger)
    for cycle in cycles:
        write_and_kill(folder, manner, cycle, ledger)
        with limnion.Database.sync(limnion.Config(folder, **DURABILITIES[manner])) as db:
            model.compare(db, model.take(db))
            before = sum(map(len, model.versions.values()))
            report = db.check()
            assert report.problems == []
            model.take(db)  # what has run out meanwhile
            assert before <= report.versions <= sum(map(len, model.versions.values()))
            ledger.newest = model.head
    with limnion.Database.sync(limnion.Config(folder, **DURABILITIES[manner])) as db:
        model.compare(db, list(model.versions))
        model.compare_namespaces(db)
    return ledger


@pytest.mark.parametrize("manner", DURABILITIES)
@pytest.mark.timeout(60 + 4 * CRASHES)
def test_killed_writers_lose_nothing(tmp_path: Path, manner: str) -> None:
    share = {"commit": 0.6, "batched": 0.24, "encrypted": 0.16}[manner]
    cycles, start, attempted, done = round(CRASHES * share), time.monotonic(), 0, 0
    for first in range(0, cycles, CYCLES_OF_A_FOLDER):
        some = range(first, min(cycles, first + CYCLES_OF_A_FOLDER))
        ledger = crash_again_and_again(tmp_path / f"db{first}", manner, some)
        attempted += len(ledger.attempted)
        done += len(ledger.done) + len(ledger.deleted)
    assert done > 10 * cycles
    seconds = time.monotonic() - start
    print(f"{manner}: {cycles} kills, {attempted} attempts, {done} done, in {seconds:.0f} s")  # noqa: T201


def test_the_oracle_notices_what_is_lost_torn_and_made_up(tmp_path: Path) -> None:
    ledger = Ledger()
    write_and_kill(tmp_path / "db", "batched", 7, ledger)
    with limnion.Database.sync(tmp_path / "db") as db:
        model = Model(ledger)
        model.compare(db, model.take(db))
        lost = dict(ledger.done, **{"7.0.99999": model.head + 1})
        name, version = next((n, v) for n, v in ledger.done.items() if plan(n).kind == "batch")
        moved = dict(ledger.done, **{name: version + 1})
        for done in (lost, moved):
            model.ledger.done, honest = done, model.ledger.done
            with pytest.raises((AssertionError, KeyError)):
                model.compare(db, [])
            model.ledger.done = honest
        for by_whom, told in (("7.0.88888", "by nobody"), (name, "twice")):
            db.put("made", "up", {"by": by_whom})
            with pytest.raises(AssertionError, match=told):
                model.take(db)
            model.head = db.stats().version
        half = next(n for n in map("8.0.{}".format, range(99)) if plan(n).kind == "batch")
        ledger.attempted[half] = (0, None)
        place, row = next(iter(plan(half).rows.items()))
        assert row is not None
        db.put(*place, row.value)
        with pytest.raises(AssertionError, match="whole"):
            model.take(db)


def test_the_oracle_knows_what_deletions_may_do() -> None:
    assert may_be([True], live=True, gone=True)
    assert may_be([None, False], live=True, gone=True)
    assert may_be([None], live=True, gone=False)
    assert may_be([False], live=False, gone=False)
    wrong: list[tuple[list[bool | None], bool, bool]] = [
        ([True], True, False),
        ([True], False, False),
        ([False], True, False),
        ([False], True, True),
        ([], True, True),
        ([None], False, True),
        ([True, True], True, True),
    ]
    for told, live, gone in wrong:
        assert not may_be(told, live=live, gone=gone)
