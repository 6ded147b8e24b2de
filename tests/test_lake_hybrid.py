"""Vectors and text in one search."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Vectors, random_vectors

import limnion
from limnion import errors
from limnion.protocols import Description, Pulled

DIM = 8


class Library:
    """A backend whose rows have scores that every text gives them, or none."""

    name = "library"

    def __init__(self, rows: Vectors, scores: list[float | None]) -> None:
        self.rows = rows
        self.scores = scores
        self.generation_now = 1
        self.asked: list[tuple[str, str, int]] = []

    def list_collections(self) -> list[str]:
        """Return the only one."""
        return ["docs"]

    def describe(self, collection: str) -> Description:
        """Return what it is."""
        assert collection == "docs"
        return Description(DIM, len(self.rows), self.generation_now, "l2")

    def pull(self, collection: str) -> Pulled:
        """Return all rows."""
        assert collection == "docs"
        return Pulled(range(len(self.rows)), self.rows, self.generation_now)

    def text_search(self, collection: str, query: str, k: int) -> list[tuple[int, float]]:
        """Return the best, best first."""
        self.asked.append((collection, query, k))
        found = [(id_, score) for id_, score in enumerate(self.scores) if score is not None]
        return sorted(found, key=lambda hit: -hit[1])[:k]


def oracle(
    library: Library, query: Vectors, k: int, fusion: str, weight: float
) -> dict[int, float]:
    """Return the score of each row that may be among the best, by the definition."""
    depth = max(4 * k, 60)
    apart = {row: math.dist(vector, query) for row, vector in enumerate(library.rows)}
    near = sorted(apart, key=lambda row: (np.float32(apart[row]), row))[:depth]
    scores = {row: score for row, score in enumerate(library.scores) if score is not None}
    told = sorted(scores, key=lambda row: (-scores[row], row))[:depth]
    rows = {*near, *told}
    if fusion == "rrf":
        return {
            row: (2 * weight / (61 + near.index(row)) if row in near else 0.0)
            + (2 * (1 - weight) / (61 + told.index(row)) if row in told else 0.0)
            for row in rows
        }
    worst = min([0.0, *(scores[row] for row in told)])
    by_vector = {row: 1 / (1 + apart[row]) for row in rows}
    by_text = {row: scores[row] if row in told else worst for row in rows}

    def stretched(of: dict[int, float], row: int) -> float:
        low, high = min(of.values()), max(of.values())
        return (of[row] - low) / (high - low) if high > low else 0.0

    return {
        row: weight * stretched(by_vector, row) + (1 - weight) * stretched(by_text, row)
        for row in rows
    }


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 120),
    seed=st.integers(0, 10**6),
    k=st.integers(1, 30),
    fusion=st.sampled_from(["rrf", "weighted"]),
    weight=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    scores=st.lists(st.none() | st.integers(-5, 5).map(float), min_size=120, max_size=120),
)
def test_hits_are_those_of_the_definition(
    *, count: int, seed: int, k: int, fusion: Any, weight: float, scores: list[float | None]
) -> None:
    library = Library(random_vectors(count, DIM, seed), scores[:count])
    lake = limnion.Lake(backends=[library])
    query = random_vectors(1, DIM, seed + 1)[0]
    wanted = oracle(library, query, k, fusion, weight)
    hits = lake.search_hybrid("docs", query, "text", k, fusion=fusion, weight=weight)
    best = sorted(wanted.values(), reverse=True)[:k]
    assert len(hits) == min(k, len(wanted))
    assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
    for hit in hits:
        assert isinstance(hit.id, int)
        assert hit.score == pytest.approx(wanted[hit.id], abs=1e-5)
        assert hit.distance == pytest.approx(math.dist(library.rows[hit.id], query), abs=1e-4)
    if fusion == "rrf":
        ids = sorted(wanted, key=lambda row: (-wanted[row], row))[:k]
        assert [hit.id for hit in hits] == ids
    with lake.session() as session:
        again = session.search_hybrid("docs", query, "text", k, fusion=fusion, weight=weight)
    assert again == hits


@pytest.fixture(params=["memory", "folder"])
def notes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[limnion.SyncDatabase]:
    """Return a database of notes, each with a vector, a text and a year."""
    config = limnion.Config(tmp_path / "db" if request.param == "folder" else None)
    with limnion.Database.sync(config) as db:
        for row, vector in enumerate(random_vectors(200, DIM)):
            text = f"note {row} on " + ("lakes and rivers" if row % 7 == 0 else "dry land")
            db.put("docs", f"note-{row:03}", {"year": 2000 + row}, vector=vector, text=text)
        yield db


def test_a_database_is_searched_by_both(notes: limnion.SyncDatabase) -> None:
    lake = limnion.Lake(backends=[limnion.StoreBackend(notes, name="notes")])
    query = random_vectors(200, DIM)[14]
    hits = lake.search_hybrid("docs", query, "lakes", k=5)
    assert hits[0].id == "note-014"  # the nearest, and it tells of lakes
    assert hits[0].distance == pytest.approx(0, abs=1e-6)
    assert hits[0].score > hits[1].score
    assert not any(math.isnan(hit.distance) for hit in hits)
    text = lake.search_hybrid("docs", query, "lakes", k=29, weight=0.0)
    assert {hit.id for hit in text} == {f"note-{row:03}" for row in range(0, 200, 7)}
    alone = lake.search_hybrid("docs", query, "lakes", k=10, weight=1.0)
    assert [hit.id for hit in alone] == [hit.id for hit in lake.search_one("docs", query, k=10)]
    assert (
        lake.search_hybrid("docs", query, "nowhere", k=3).ids
        == lake.search_one("docs", query, k=3).ids
    )


def test_a_filter_bounds_both_halves(notes: limnion.SyncDatabase) -> None:
    lake = limnion.Lake(backends=[limnion.StoreBackend(notes)])
    query = random_vectors(200, DIM)[14]
    for fusion in ("rrf", "weighted"):
        for where in ({"year": {"$gte": 2150}}, limnion.F("year") >= 2150, "year >= 2150"):
            hits = lake.search_hybrid("docs", query, "lakes", k=50, fusion=fusion, where=where)
            assert len(hits) == 50
            assert min(str(hit.id) for hit in hits) >= "note-150"
        few = lake.search_hybrid("docs", query, "lakes", where=["note-000", "note-001", "nobody"])
        assert sorted(str(hit.id) for hit in few) == ["note-000", "note-001"]
        assert few[0].id == "note-000"


def test_what_is_written_is_found_by_the_next_search(notes: limnion.SyncDatabase) -> None:
    lake = limnion.Lake(backends=[limnion.StoreBackend(notes)])
    query = np.full(DIM, 9, dtype=np.float32)
    lake.search_hybrid("docs", query, "volcano")
    notes.put("docs", "new", {}, vector=-query, text="a volcano")
    assert "new" in lake.search_hybrid("docs", query, "volcano").ids
    notes.put("docs", "without", {}, text="a volcano without a vector")
    assert "without" not in lake.search_hybrid("docs", query, "volcano").ids
    notes.delete("docs", "new")
    assert "new" not in lake.search_hybrid("docs", query, "volcano").ids


def test_a_text_of_a_later_generation_waits_for_the_index() -> None:
    library = Library(random_vectors(5, DIM), [1.0] * 5)
    lake = limnion.Lake(backends=[library], consistency=limnion.Consistency.FROZEN)
    query = random_vectors(1, DIM, 1)[0]
    assert len(lake.search_hybrid("docs", query, "text")) == 5
    library.rows = random_vectors(6, DIM)
    library.scores = [*library.scores, 9.0]
    library.generation_now = 2
    assert 5 not in lake.search_hybrid("docs", query, "text").ids
    lake.refresh("docs")
    assert lake.search_hybrid("docs", query, "text", weight=0.1)[0].id == 5


async def test_it_can_be_awaited() -> None:
    library = Library(random_vectors(50, DIM), [float(row) for row in range(50)])
    lake = limnion.Lake(backends=[library])
    query = random_vectors(1, DIM, 1)[0]
    asked = [lake.search_hybrid_async("docs", query, "text", k=7) for _ in range(8)]
    answers = await asyncio.gather(*asked)
    assert all(answer == answers[0] for answer in answers)
    async with lake.session() as session:
        assert await session.search_hybrid_async("docs", query, "text", k=7) == answers[0]
    assert library.asked[0] == ("docs", "text", 60)


def test_a_backend_without_text_is_told(vectors: Vectors) -> None:
    shard = limnion.LocalBackend("shard")
    shard.upsert("docs", range(10), vectors[:10])
    lake = limnion.Lake(backends=[shard])
    with pytest.raises(errors.InvalidArgumentError, match=r"has no text to search; .*StoreBackend"):
        lake.search_hybrid("docs", vectors[0], "text")


def test_what_cannot_be_used_is_told() -> None:
    library = Library(random_vectors(5, DIM), [1.0] * 5)
    lake = limnion.Lake(backends=[library])
    query = np.zeros(DIM, dtype=np.float32)
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (errors.InvalidArgumentError, "fusion must be 'rrf' or 'weighted'", {"fusion": "sum"}),
        (errors.InvalidArgumentError, "weight must be from 0 to 1", {"weight": 1.5}),
        (errors.InvalidArgumentError, "weight must be from 0 to 1", {"weight": math.nan}),
        (errors.InvalidTypeError, "weight must be a number", {"weight": "half"}),
        (errors.InvalidArgumentError, "text must not be empty; search_one", {"text": " \n"}),
        (errors.InvalidTypeError, "text must be a string", {"text": 7}),
        (errors.InvalidArgumentError, "k must be at least 1", {"k": 0}),
        (errors.DimensionMismatch, "dimensions", {"query": np.zeros(3, dtype=np.float32)}),
        (errors.CacheMissError, "in memory", {"cached_only": True}),
    ]
    for error, message, options in reversed(refused):
        with pytest.raises(error, match=message):
            lake.search_hybrid(**({"collection": "docs", "query": query, "text": "x"} | options))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([(1, math.nan)], "gave 1 a score of NaN"),
        ([("one", 1.0)], "ids of the collection are numbers"),
        ([(1, "much")], "gave what cannot be used"),
        (7, "gave what cannot be used"),
    ],
)
def test_what_a_backend_gets_wrong_is_told(found: Any, message: str) -> None:
    library = Library(random_vectors(5, DIM), [1.0] * 5)
    library.text_search = lambda *_: found  # type: ignore[method-assign]
    lake = limnion.Lake(backends=[library])
    with pytest.raises(errors.BackendError, match=message):
        lake.search_hybrid("docs", np.zeros(DIM, dtype=np.float32), "x")


def test_a_backend_may_find_a_row_twice_or_more_than_it_was_asked_for() -> None:
    library = Library(random_vectors(3, DIM), [1.0] * 3)
    library.text_search = lambda *_: [(2, 3.0), (2, 9.0), (0, 5.0), (77, 99.0)] * 30  # type: ignore[method-assign]
    lake = limnion.Lake(backends=[library])
    hits = lake.search_hybrid("docs", library.rows[1], "x", weight=0.0)
    assert [hit.id for hit in hits] == [2, 0, 1]
    assert hits[2].score == 0
