"""A class of one's own as a backend: what it does wrong is told, and harms nobody else."""

import dataclasses
import datetime as dt
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Vectors, random_vectors

import limnion
from limnion import Consistency, errors
from limnion.protocols import AsyncBackend, Backend, Changes, Description, Pulled


class Notebook:
    """Rows in memory, with every optional method."""

    def __init__(self, name: str = "notebook") -> None:
        self.name = name
        self.rows: dict[int, np.ndarray[Any, np.dtype[np.float32]]] = {}
        self.years: dict[int, int] = {}
        self.log: list[tuple[int, bool]] = []
        self.called: list[str] = []
        self.lock = threading.Lock()

    def put(self, id_: int, row: Any, year: int = 2000) -> None:
        """Write a row."""
        with self.lock:
            self.rows[id_] = np.asarray(row, dtype=np.float32)
            self.years[id_] = year
            self.log.append((id_, True))

    def remove(self, id_: int) -> None:
        """Remove a row."""
        with self.lock:
            del self.rows[id_]
            self.log.append((id_, False))

    def list_collections(self) -> Iterable[str]:
        """Return the only one."""
        return iter(["docs"])

    def describe(self, collection: str) -> Description:
        """Tell of the rows."""
        self.called.append("describe")
        if collection != "docs":
            raise limnion.UnknownCollection(f"{collection} is not among the notes")
        with self.lock:
            dim = len(next(iter(self.rows.values()))) if self.rows else 0
            return Description(dim, len(self.rows), len(self.log))

    def generation(self, collection: str) -> int:
        """Return how many changes there were."""
        self.called.append(f"generation {collection}")
        return len(self.log)

    def pull(self, collection: str) -> Pulled:
        """Return all rows."""
        self.called.append(f"pull {collection}")
        with self.lock:
            return Pulled(list(self.rows), np.stack(list(self.rows.values())), len(self.log))

    def changes(self, collection: str, since: int) -> Changes:
        """Return the last state of what has changed."""
        self.called.append(f"changes {collection}")
        with self.lock:
            ids = {id_ for id_, _ in self.log[since:]}
            there = sorted(ids & self.rows.keys())
            rows = np.stack([self.rows[id_] for id_ in there]) if there else np.empty((0, 4), "f4")
            return Changes(len(self.log), there, rows, sorted(ids - self.rows.keys()))

    def select(self, collection: str, filter: dict[str, Any]) -> tuple[list[int], int]:
        """Return the rows of some years."""
        self.called.append(f"select {collection}")
        least = filter["year"]["$gte"]
        with self.lock:
            return [id_ for id_, year in self.years.items() if year >= least], len(self.log)


EYE = np.eye(4, dtype=np.float32)


@pytest.fixture
def notebook() -> Notebook:
    """Return a backend of four rows."""
    notebook = Notebook()
    for row in range(4):
        notebook.put(row, EYE[row], 2000 + row)
    return notebook


def test_any_class_of_that_shape_is_a_backend(notebook: Notebook) -> None:
    assert isinstance(notebook, Backend)
    lake = limnion.Lake(backends=[notebook])
    assert lake.search_one("docs", EYE[2], k=1)[0] == limnion.LakeHit(
        "notebook", "docs", 2, 1.0, 0.0
    )
    assert lake.backends["notebook"] is notebook


def test_changes_are_worked_in_where_the_backend_tells_them(notebook: Notebook) -> None:
    lake = limnion.Lake(backends=[notebook])
    lake.prime("docs")
    notebook.put(9, -EYE[0])
    notebook.put(1, EYE[3])
    notebook.remove(2)
    hits = lake.search_one("docs", EYE[3], k=9)
    assert sorted(hit.id for hit in hits) == [0, 1, 3, 9]
    assert {hits[0].id, hits[1].id} == {1, 3}
    stats = lake.prime("docs")
    assert (stats.primes, stats.updates, stats.generation) == (1, 1, "7")
    assert notebook.called.count("pull docs") == 1


def test_a_backend_that_tells_no_changes_is_pulled_anew(notebook: Notebook) -> None:
    notebook.changes = lambda *_: None  # type: ignore[method-assign, assignment]
    lake = limnion.Lake(backends=[notebook])
    lake.prime("docs")
    notebook.put(9, -EYE[0])
    assert lake.search_one("docs", -EYE[0], k=1)[0].id == 9
    assert notebook.called.count("pull docs") == 2


def test_filters_are_evaluated_by_the_backend(notebook: Notebook) -> None:
    lake = limnion.Lake(backends=[notebook])
    for where in ({"year": {"$gte": 2002}}, "year >= 2002", limnion.F("year") >= 2002):
        hits = lake.search_one("docs", EYE[0], where=where)
        assert sorted(hit.id for hit in hits) == [2, 3]
    batch = lake.search_batch("docs", EYE[:2], where={"year": {"$gte": 2003}})
    assert [[hit.id for hit in hits] for hits in batch] == [[3], [3]]
    hits = lake.search_federated("docs", EYE[0], where="year >= 2003")
    assert [hit.id for hit in hits] == [3]
    notebook.put(7, EYE[0], 2010)
    assert lake.search_one("docs", EYE[0], where="year >= 2002")[0].id == 7


@pytest.mark.parametrize("form", ["at once", "tuple", "list of pieces", "generator"])
def test_rows_come_at_once_or_in_pieces(form: str) -> None:
    rows = random_vectors(1000, 16)
    expected = limnion.RabitqPlusIndex.build(rows, metric="cosine")

    class Source:
        name = "source"
        closed = 0

        def list_collections(self) -> list[str]:
            return ["docs"]

        def describe(self, _collection: str) -> tuple[int, int, str]:
            return (16, 1000, "one")

        def pieces(self) -> Iterator[Pulled]:
            try:
                for ids in np.array_split(np.arange(1000), 9):
                    yield Pulled(ids, rows[ids], "one")
            finally:
                self.closed += 1

        def pull(self, _collection: str) -> Any:
            if form == "tuple":
                return (range(1000), rows, "one")
            if form == "at once":
                return Pulled(np.arange(1000, dtype=np.uint16), rows, "one")
            return list(self.pieces()) if form == "list of pieces" else self.pieces()

    source = Source()
    lake = limnion.Lake(backends=[source])  # type: ignore[list-item]
    assert lake.index("docs") == expected
    assert source.closed == (form in {"list of pieces", "generator"})
    assert lake.prime("docs").generation == "one"


def test_a_backend_may_say_what_metric_its_vectors_are_for(notebook: Notebook) -> None:
    described = notebook.describe
    notebook.describe = lambda collection: dataclasses.replace(  # type: ignore[method-assign]
        described(collection), metric="l2"
    )
    lake = limnion.Lake(backends=[notebook])
    assert lake.index("docs").metric == "l2"
    cosine = limnion.LocalBackend("cosine")
    cosine.upsert("docs", [1], EYE[:1])
    lake.register_backend(cosine)
    with pytest.raises(errors.InvalidArgumentError, match="must have one metric"):
        lake.search_federated("docs", EYE[0])


def test_objects_that_belong_to_one_thread_are_used_in_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with sqlite3.connect(path) as writer:
        writer.execute("create table docs (id integer, row blob)")
        rows = [(id_, EYE[id_].tobytes()) for id_ in range(4)]
        writer.executemany("insert into docs values (?, ?)", rows)
    writer.close()

    class Table:
        name = "table"

        def list_collections(self) -> list[str]:
            return ["docs"]

        def describe(self, _collection: str) -> Description:
            return Description(4, 4, 1)

        def pull(self, _collection: str) -> Iterator[Pulled]:
            reader = sqlite3.connect(path)
            try:
                for id_, blob in reader.execute("select id, row from docs"):
                    yield Pulled([id_], np.frombuffer(blob, dtype=np.float32)[None], 1)
            finally:
                reader.close()

    lake = limnion.Lake(backends=[Table()])
    assert lake.search_one("docs", EYE[1], k=1)[0].id == 1


def test_every_answer_is_of_a_state_that_was_there() -> None:  # noqa: C901
    rng = random.Random(7)  # noqa: S311 - a test that can be repeated
    notebook, stop = Notebook(), threading.Event()
    states: list[frozenset[int]] = [frozenset()]
    for id_ in range(4):
        notebook.put(id_, EYE[id_ % 4])
        states.append(states[-1] | {id_})
    lakes = {
        "fresh": limnion.Lake(backends=[notebook]),
        "eventual": limnion.Lake(consistency=Consistency.EVENTUAL, ttl=0.05, backends=[notebook]),
        "frozen": limnion.Lake(consistency=Consistency.FROZEN, backends=[notebook]),
    }
    wrong: list[str] = []

    def write() -> None:
        for turn in range(300):
            there = sorted(states[-1])
            if rng.random() < 0.4 and len(there) > 2:
                id_ = rng.choice(there)
                states.append(states[-1] - {id_})
                notebook.remove(id_)
            else:
                states.append(states[-1] | {turn + 10})
                notebook.put(turn + 10, EYE[turn % 4])
            time.sleep(0.001)
        stop.set()

    def read(kind: str) -> None:
        lake, frozen = lakes[kind], None
        while not stop.is_set():
            before, begun = len(notebook.log), time.monotonic()
            found = frozenset(hit.id for hit in lake.search_one("docs", EYE[0], k=10**6))
            after = len(notebook.log)
            if kind == "fresh" and found not in states[before : after + 1]:
                wrong.append(f"fresh: {len(found)} rows, states {before} to {after}")
            if kind == "eventual" and found not in states:
                wrong.append("eventual: a state that never was")
            frozen = frozen or found
            if kind == "frozen" and found != frozen:
                wrong.append(f"frozen: changed after {time.monotonic() - begun} s")

    threads = [threading.Thread(target=read, args=(kind,)) for kind in lakes for _ in range(2)]
    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# What goes wrong.


class Liar(Notebook):
    """A backend that gives whatever it is told to."""

    def __init__(self, **gives: Any) -> None:
        super().__init__("liar")
        self.put(0, EYE[0])
        self.gives = gives

    def _give(self, method: str, otherwise: Any) -> Any:
        given = self.gives.get(method, otherwise)
        if isinstance(given, BaseException):
            raise given
        return given

    def list_collections(self) -> Any:
        """Give the names."""
        return self._give("list_collections", ["docs"])

    def describe(self, collection: str) -> Any:
        """Give the description."""
        return self._give("describe", super().describe(collection))

    def pull(self, collection: str) -> Any:
        """Give the rows."""
        return self._give("pull", super().pull(collection))

    def generation(self, collection: str) -> Any:
        """Give the generation."""
        return self._give("generation", super().generation(collection))

    def changes(self, collection: str, since: int) -> Any:
        """Give the changes."""
        return self._give("changes", super().changes(collection, since))

    def select(self, collection: str, filter: dict[str, Any]) -> Any:
        """Give the ids."""
        return self._give("select", super().select(collection, filter))


ONE, TWO = np.ones((1, 4), dtype=np.float32), np.ones((2, 4), dtype=np.float32)
DOUBLE: Any = ONE.astype(np.float64)
HALVES: Any = [1.5]
YES: Any = True
CHANGED = (Pulled([1], ONE, 1), Pulled([2], ONE, 2))


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        ({"pull": ValueError("no such table")}, 'pull("docs") raised ValueError: no such table'),
        ({"pull": ValueError()}, 'pull("docs") raised ValueError'),
        ({"pull": SystemExit(3)}, 'pull("docs") raised SystemExit: 3'),
        ({"describe": OSError(5, "I/O")}, 'describe("docs") raised OSError: [Errno 5] I/O'),
        ({"pull": None}, "must give Pulled(ids, vectors, generation), or an iterator of such"),
        ({"pull": 3}, "or an iterator of such, got int"),
        ({"pull": [3]}, "it must be Pulled(ids, vectors, generation), got int without ids"),
        ({"pull": ([1], ONE)}, "got tuple without generation"),
        ({"pull": Pulled([1], DOUBLE, 1)}, "got float64 of shape (1, 4)"),
        ({"pull": Pulled([1], ONE[0], 1)}, "vectors must be a C-contiguous float32 array of shape"),
        ({"pull": Pulled([1], TWO, 1)}, "ids must be as many as the vectors: 1 ids, 2 vectors"),
        ({"pull": Pulled([1], ONE * np.nan, 1)}, "got NaN or infinity in row 0, column 0"),
        ({"pull": Pulled([-1], ONE, 1)}, "ids must be from 0"),
        ({"pull": Pulled(HALVES, ONE, 1)}, "ids must be an integer, got float"),
        ({"pull": Pulled([1], ONE, HALVES[0])}, "generation must be an integer from 0 or a string"),
        ({"pull": Pulled([1], ONE, YES)}, "generation must be an integer from 0 or a string"),
        ({"pull": Pulled([1], np.ones((1, 5), "f4"), 1)}, "of 4 dimensions, and pull gave 5"),
        (
            {"pull": [CHANGED[0], Pulled([2], np.ones((1, 5), "f4"), 1)]},
            "of 4 dimensions, and then of 5",
        ),
        ({"pull": CHANGED[:1] + CHANGED[1:]}, "got tuple"),
        ({"pull": list(CHANGED)}, "changed while it was read: from generation 1 to 2"),
        ({"pull": [Pulled([1], ONE, 1), Pulled(["a"], ONE, 1)]}, "ids must be all numbers or all"),
        ({"describe": None}, "it must be Description(dim, count, generation), got NoneType"),
        ({"describe": (4, 1)}, "got tuple without generation"),
        ({"describe": ("4", 1, 1)}, "dim must be an integer, got str"),
        ({"describe": (4, -1, 1)}, "count must be from 0"),
        ({"describe": (4, 1, None)}, "generation must be an integer from 0 or a string"),
        ({"describe": (4, 1, 1, "euclid")}, "metric"),
    ],
)
def test_what_a_backend_does_wrong_is_told_with_its_name(
    gives: Any, message: str, vectors: Vectors
) -> None:
    good = limnion.LocalBackend("good")
    good.upsert("docs", range(len(vectors)), vectors)
    lake = limnion.Lake(backends=[Liar(**gives), good])
    for _ in range(2):
        with pytest.raises(errors.BackendError) as raised:
            lake.search_one("docs", EYE[0], backend="liar")
        assert str(raised.value).startswith(('backend "liar": ', "liar/docs: "))
        assert message in str(raised.value)
        assert raised.value.kind == "backend"
        thrown = next((value for value in gives.values() if isinstance(value, BaseException)), None)
        if thrown is not None:
            assert raised.value.__cause__ is thrown
            assert raised.value.__cause__.__traceback__ is not None
    assert lake.search_one("docs", vectors[3], k=1, backend="good")[0].id == 3
    assert lake.stats().backends["liar"].errors == 2


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        ({"generation": KeyError("gone")}, "generation(\"docs\") raised KeyError: 'gone'"),
        ({"generation": None}, "generation must be an integer from 0 or a string, got NoneType"),
        ({"changes": RuntimeError("torn")}, 'changes("docs") raised RuntimeError: torn'),
        ({"changes": 3}, "it must be Changes(generation, ids, vectors, removed), got int"),
        ({"changes": (9, [1], TWO, [])}, "ids must be as many as the vectors: 1 ids, 2 vectors"),
    ],
)
def test_a_backend_that_fails_later_is_told_and_may_recover(gives: Any, message: str) -> None:
    liar = Liar()
    lake = limnion.Lake(backends=[liar])
    lake.prime("docs")
    liar.put(1, EYE[1])
    liar.gives = gives
    with pytest.raises(errors.BackendError) as raised:
        lake.search_one("docs", EYE[1])
    assert message in str(raised.value)
    liar.gives = {}
    assert lake.search_one("docs", EYE[1], k=1)[0].id == 1


def test_a_filter_that_fails_is_told() -> None:
    lake = limnion.Lake(backends=[Liar(select=3)])
    with pytest.raises(errors.BackendError, match=r"must be a tuple \(ids, generation\) or None"):
        lake.search_one("docs", EYE[0], where="year >= 3")
    lake = limnion.Lake(backends=[Liar(select=None)])
    with pytest.raises(errors.InvalidArgumentError, match="has nothing to filter by"):
        lake.search_one("docs", EYE[0], where="year >= 3")
    lake = limnion.Lake(backends=[Notebook(), Liar(list_collections="docs")])
    with pytest.raises(errors.BackendError, match="must be a list of names, got str"):
        lake.search_one("docs", EYE[0])


def test_duplicate_ids_are_told() -> None:
    lake = limnion.Lake(backends=[Liar(pull=Pulled([1, 1], TWO, 1))])
    with pytest.raises(limnion.LimnionError, match="liar/docs"):
        lake.search_one("docs", EYE[0])


def test_an_unknown_collection_stays_what_it_is(notebook: Notebook) -> None:
    lake = limnion.Lake(backends=[notebook])
    with pytest.raises(limnion.UnknownCollection, match="letters is not among the notes"):
        lake.search_one("letters", EYE[0])


def test_a_backend_without_rows_is_empty() -> None:
    class Empty(Notebook):
        def pull(self, _collection: str) -> Any:
            return iter(())

    lake = limnion.Lake(backends=[Empty()])
    assert len(lake.search_one("docs", EYE[0])) == 0
    lake = limnion.Lake(backends=[Liar(pull=Pulled([], np.empty((0, 4), "f4"), 1))])
    assert len(lake.search_one("docs", EYE[0])) == 0
    lake = limnion.Lake(backends=[Liar(pull=Pulled([], [], 1))])
    assert len(lake.search_one("docs", EYE[0])) == 0


def test_a_backend_that_hangs_harms_nobody_else(notebook: Notebook) -> None:
    free = threading.Event()

    class Hanging(Notebook):
        def pull(self, collection: str) -> Pulled:
            free.wait(30)
            return super().pull(collection)

    hanging = Hanging("hanging")
    hanging.put(7, EYE[0])
    lake = limnion.Lake(backends=[hanging, notebook])
    try:
        for _ in range(3):
            with pytest.raises(limnion.DeadlineExceeded):
                lake.search_one("docs", EYE[0], backend="hanging", timeout=0.05)
        assert lake.search_one("docs", EYE[0], k=1, backend="notebook")[0].id == 0
        hits = lake.search_federated("docs", EYE[0], timeout=0.1, on_error="partial")
        assert hits.report["hanging"].error is not None
        assert {hit.backend for hit in hits} == {"notebook"}
        with pytest.raises(limnion.DeadlineExceeded):
            lake.search_federated("docs", EYE[0], timeout=0.1)
    finally:
        free.set()
    assert lake.search_one("docs", EYE[0], k=1, backend="hanging")[0].id == 7


def test_who_asks_for_names_is_not_kept_for_ever(notebook: Notebook) -> None:
    free = threading.Event()

    class Mute(Notebook):
        def list_collections(self) -> list[str]:
            free.wait(30)
            return ["other"]

    lake = limnion.Lake(backends=[Mute("mute"), notebook])
    try:
        with pytest.raises(limnion.DeadlineExceeded):
            lake.search_one("docs", EYE[0], timeout=dt.timedelta(seconds=0.1))
    finally:
        free.set()
    assert lake.search_one("docs", EYE[0], k=1)[0].id == 0


def test_a_backend_may_search_the_lake(notebook: Notebook) -> None:
    lake = limnion.Lake(backends=[notebook])

    class Derived(Notebook):
        def pull(self, _collection: str) -> Pulled:
            hits = lake.search_one("docs", EYE[1], k=2, backend="notebook")
            ids = np.asarray(hits.ids, dtype=np.uint64)
            return Pulled(ids, EYE[ids], 1)

    derived = Derived("derived")
    derived.put(0, EYE[0])
    derived.log = derived.log[:1]
    lake.register_backend(derived)
    assert lake.search_one("docs", EYE[1], k=1, backend="derived")[0].id == 1


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (3, "or fit limnion.protocols.Backend, got int, which has no method list_collections"),
        (Notebook, "got the class Notebook"),
        (limnion.LocalBackend, "got the class LocalBackend"),
        (type("Half", (), {"list_collections": print, "describe": print})(), "no method pull"),
        (type("Odd", (Notebook,), {"pull": 3})(), "got Odd, which has no method pull"),
    ],
)
def test_what_is_no_backend_is_refused(backend: Any, message: str) -> None:
    with pytest.raises(errors.InvalidTypeError) as raised:
        limnion.Lake().register_backend(backend)
    assert message in str(raised.value)


def test_a_backend_needs_a_name_and_a_loop_is_one(notebook: Notebook) -> None:
    lake = limnion.Lake()
    with pytest.raises(errors.InvalidTypeError, match="loop must be an event loop, got int"):
        lake.register_backend(notebook, loop=3)  # type: ignore[arg-type]
    notebook.name = 3  # type: ignore[assignment]
    with pytest.raises(
        errors.InvalidTypeError, match="name of the backend must be a string, got int"
    ):
        lake.register_backend(notebook)
    del notebook.name
    with pytest.raises(errors.InvalidTypeError, match="backend must have a name, got Notebook"):
        lake.register_backend(notebook)
    notebook.name = ""
    with pytest.raises(errors.InvalidArgumentError, match="must not be empty"):
        lake.register_backend(notebook)
    assert lake.backends == {}


def test_an_array_is_no_backend() -> None:
    assert not isinstance(EYE, Backend)
    assert not isinstance(EYE, AsyncBackend)
