"""Vector search in a database: what is embedded is found at once, exactly, and in the past."""

import asyncio
import datetime as dt
import os
import shutil
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Shop, Vectors, random_vectors

import limnion
from limnion import Config, Database, SyncDatabase, errors
from limnion.records import SimilarHit

DIM = 8
SAVED = 5_000
"""So many rows are worth a file."""


def keys(hits: list[SimilarHit]) -> list[str]:
    """Return the keys of hits."""
    return [hit.key for hit in hits]


def cosine(a: Vectors, b: Vectors) -> float:
    """Return the cosine of two vectors."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / length if length else 0.0


Model = dict[str, tuple[Vectors, dict[str, Any]]]


def agrees(hits: list[SimilarHit], model: Model, query: Vectors, k: int) -> None:
    """Assert that hits are the k nearest of a model, with the values that belong to them."""
    assert len(hits) == min(k, len(model))
    scores = sorted((cosine(vector, query) for vector, _ in model.values()), reverse=True)
    for hit, expected in zip(hits, scores, strict=False):
        vector, value = model[hit.key]
        assert hit.score == pytest.approx(expected, abs=1e-5)
        assert cosine(vector, query) == pytest.approx(expected, abs=1e-5)
        assert hit.distance == pytest.approx(1 - hit.score, abs=1e-5)
        assert hit.content == value
    assert len(set(keys(hits))) == len(hits)


# What is found


def test_what_is_embedded_is_found(db: SyncDatabase) -> None:
    version = db.embed(
        "docs", "lake", {"title": "Lakes"}, [1.0, 0.0], model="tiny", metadata={"year": 2020}
    )
    db.embed("docs", "sea", {"title": "Seas"}, np.array([0.6, 0.8], np.float32), model="tiny")
    first, second = db.similar("docs", (1.0, 0.1))
    assert (first.namespace, first.key, first.version) == ("docs", "lake", version)
    assert first.content == {"title": "Lakes"}
    assert first.metadata == {"year": 2020, "embedding_model": "tiny"}
    assert first.score == pytest.approx(1 / np.hypot(1, 0.1))
    assert first.distance == pytest.approx(1 - first.score)
    assert second.key == "sea"
    record, score, distance = second
    assert (record.key, score, distance) == ("sea", second.score, second.distance)
    with pytest.raises(AttributeError):
        first.score = 1.0  # type: ignore[misc]


def test_vectors_of_put_are_found_too(db: SyncDatabase) -> None:
    db.put("docs", "a", 1, vector=[1.0, 0.0])
    db["docs/plain"] = 2
    assert keys(db.similar("docs", [1.0, 0.0])) == ["a"]


def test_a_queued_write_is_found_by_the_next_search(shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            await db.embed("docs", "a", 1, [1.0, 0.0])
            assert keys(await db.similar("docs", [1.0, 0.0])) == ["a"]
            del db["docs/a"]
            assert await db.similar("docs", [1.0, 0.0]) == []

    asyncio.run(main())


def test_as_many_as_asked_for_and_no_more(db: SyncDatabase) -> None:
    vectors = random_vectors(50, DIM)
    db.embed_batch("docs", [str(at) for at in range(50)], list(range(50)), vectors)
    for at in range(0, 50, 2):
        db.delete("docs", str(at))
    assert len(db.similar("docs", vectors[0])) == 5
    assert len(db.similar("docs", vectors[0], top_k=25)) == 25
    assert len(db.similar("docs", vectors[0], top_k=10**18)) == 25
    assert keys(db.similar("docs", vectors[1], threshold=0.999)) == ["1"]
    assert db.similar("docs", vectors[1], threshold=1.5) == []
    assert len(db.similar("docs", vectors[1], threshold=-1, top_k=30)) == 25


def test_nothing_is_found_where_nothing_is(db: SyncDatabase) -> None:
    assert db.similar("nowhere", [1.0, 2.0]) == []
    db.put("docs", "a", 1)
    assert db.similar("docs", [1.0, 2.0]) == []
    assert db.similar("docs", [1.0, 2.0], vector_name="title") == []
    assert db.similar("docs", [1.0, 2.0], as_of=1, filter={"x": 1}) == []
    with pytest.raises(errors.ValidationError, match="no version 7"):
        db.similar("nowhere", [1.0], as_of=7)
    db.embed("docs", "b", 1, [1.0, 2.0])
    db.delete("docs", "b")
    assert db.similar("docs", [1.0, 2.0]) == []
    db.embed("docs", "c", 1, [1.0, 2.0, 3.0])
    assert keys(db.similar("docs", [1.0, 2.0, 3.0])) == ["c"]


def test_what_runs_out_is_found_no_longer(db: SyncDatabase) -> None:
    db.embed("docs", "brief", 1, [1.0, 0.0], ttl=0.25)
    db.embed("docs", "long", 2, [0.8, 0.6], ttl=dt.timedelta(hours=1))
    both = db.embed("docs", "for ever", 3, [0.0, 1.0])
    assert keys(db.similar("docs", [1.0, 0.0])) == ["brief", "long", "for ever"]
    time.sleep(0.3)
    assert keys(db.similar("docs", [1.0, 0.0], top_k=2)) == ["long", "for ever"]
    assert keys(db.similar("docs", [1.0, 0.0], as_of=both)) == ["brief", "long", "for ever"]


def test_vectors_by_name(db: SyncDatabase) -> None:
    db.put("docs", "a", 1, vectors={"title": [1.0, 0.0], "body/text": [0.0, 1.0, 0.0]})
    version = db.put("docs", "b", 2, vectors={"title": [0.6, 0.8]}, vector=[1.0, 0.0, 0.0, 0.0])
    assert keys(db.similar("docs", [1.0, 0.0], vector_name="title")) == ["a", "b"]
    assert keys(db.similar("docs", [0.0, 1.0, 0.0], vector_name="body/text")) == ["a"]
    assert keys(db.similar("docs", [1.0, 0.0, 0.0, 0.0])) == ["b"]
    db.delete("docs", "a")
    assert keys(db.similar("docs", [1.0, 0.0], vector_name="title")) == ["b"]
    assert keys(db.similar("docs", [1.0, 0.0], vector_name="title", as_of=version)) == ["a", "b"]


def test_versions_tags_and_times(db: SyncDatabase) -> None:
    first = db.embed("docs", "a", "old", [1.0, 0.0])
    db.tag("before")
    snapshot = db.snapshot()
    moment = db.record("docs", "a").timestamp  # type: ignore[union-attr]
    db.embed("docs", "a", "new", [0.0, 1.0])
    db.embed("docs", "b", "other", [1.0, 0.0])
    for as_of in (first, "before", moment):
        (hit,) = db.similar("docs", [1.0, 0.0], as_of=as_of)
        assert (hit.key, hit.content, hit.version) == ("a", "old", first)
        assert hit.score == pytest.approx(1)
    (hit,) = snapshot.similar("docs", [1.0, 0.0])
    assert hit.content == "old"
    assert db.similar("docs", [1.0, 0.0], as_of=moment - dt.timedelta(days=1)) == []
    assert keys(db.similar("docs", [1.0, 0.0], as_of=dt.datetime.now(dt.UTC))) == ["b", "a"]
    with pytest.raises(errors.ValidationError, match='no tag "after"'):
        db.similar("docs", [1.0, 0.0], as_of="after")
    with pytest.raises(errors.ValidationError, match="aware"):
        db.similar("docs", [1.0, 0.0], as_of=dt.datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_namespace_and_a_snapshot_have_the_verbs(db: SyncDatabase) -> None:
    docs = db.namespace("docs")
    docs.embed("a", "A lake lies in layers.")
    docs.embed_batch(["b", "c"], ["The invoice is due on Friday.", "Deep water is cold."])
    snapshot = db.snapshot()
    docs.delete("b")
    assert keys(docs.similar_by_text("When do I have to pay?", top_k=1)) != ["b"]
    assert keys(snapshot.similar_by_text("docs", "When do I have to pay?", top_k=1)) == ["b"]
    query = limnion.Embedder.builtin().embed("lakes")
    assert docs.similar(query, top_k=2) == db.similar("docs", query, top_k=2)
    assert len(snapshot.similar("docs", query)) == 3


# Like the oracle


@pytest.mark.parametrize("seed", range(3))
def test_every_state_is_searched_as_an_oracle_would(shop: Shop, seed: int) -> None:
    rng = np.random.default_rng(seed)
    db = shop.sync()
    model: Model = {}
    states: dict[int, Model] = {}
    runs_out: list[str] = []

    def vector() -> Vectors:
        return rng.standard_normal(DIM, dtype=np.float32)

    db.put("other", "x", 1, vector=vector())
    for step in range(150):
        key = f"k{rng.integers(30)}"
        match rng.integers(8):
            case 0:
                db.delete("docs", key)
                model.pop(key, None)
            case 1:
                db.put("docs", key, {"n": step})
                model.pop(key, None)
            case 2:
                rows = [f"k{at}" for at in rng.choice(30, 5, replace=False)]
                vectors = random_vectors(5, DIM, seed=step)
                values = [{"n": step, "row": at} for at in range(5)]
                db.embed_batch("docs", rows, values, vectors)
                model.update(zip(rows, zip(vectors, values, strict=True), strict=True))
            case 3 if shop.folder is None:
                db.put("docs", f"brief{step}", {"n": -1}, vector=vector(), ttl=0.05)
                runs_out.append(f"brief{step}")
                time.sleep(0.06)
            case _:
                made = vector()
                db.embed("docs", key, {"n": step}, made)
                model[key] = (made, {"n": step})
        version = int(db.stats().version)
        if not runs_out:
            states[version] = dict(model)
        query, k = vector(), int(rng.integers(1, 12))
        agrees(db.similar("docs", query, top_k=k, recall=1), model, query, k)
        few = {key: row for key, row in model.items() if row[1]["n"] % 2 == 0 or row[1]["n"] > 90}
        even = {"n": {"$in": list(range(0, 150, 2))}}
        hits = db.similar(
            "docs", query, top_k=k, recall=1, filter={"$or": [even, {"n": {"$gt": 90}}]}
        )
        agrees(hits, few, query, k)
    for version, then in states.items():
        query = vector()
        agrees(db.similar("docs", query, top_k=7, recall=1, as_of=version), then, query, 7)
        late = {key: row for key, row in then.items() if row[1]["n"] >= 20}
        hits = db.similar("docs", query, top_k=7, recall=1, as_of=version, filter="n >= 20")
        agrees(hits, late, query, 7)


def test_a_filter_never_makes_an_answer_short(db: SyncDatabase) -> None:
    vectors = random_vectors(3_000, DIM)
    values = [{"group": at % 100} for at in range(3_000)]
    db.embed_batch("docs", [f"{at:04}" for at in range(3_000)], values, vectors)
    for group in (0, 7, 99):
        for filter in ({"group": group}, f"group = {group}", limnion.F("group") == group):
            hits = db.similar("docs", vectors[5], top_k=30, filter=filter)
            assert len(hits) == 30
            assert {hit.content["group"] for hit in hits} == {group}
    db.create_index("docs", "group")
    assert len(db.similar("docs", vectors[5], top_k=31, filter={"group": 8})) == 30
    db.embed("docs", "0000", {"group": 7}, vectors[0])
    assert len(db.similar("docs", vectors[5], top_k=31, filter={"group": 7})) == 31
    assert db.similar("docs", vectors[5], filter={"group": 100}) == []


# Misuse


def test_a_query_that_cannot_be(db: SyncDatabase) -> None:
    db.embed("docs", "a", 1, [1.0, 0.0, 0.0])
    for dim in (2, 4):
        with pytest.raises(errors.DimensionMismatch, match=f"3 dimensions.*{dim}"):
            db.similar("docs", [1.0] * dim)
        with pytest.raises(errors.DimensionMismatch, match=f"3.*{dim}"):
            db.similar("docs", [1.0] * dim, as_of=1, filter={"x": 1})
    for odd in (float("nan"), float("inf")):
        with pytest.raises(errors.InvalidArgumentError, match="position 1"):
            db.similar("docs", [1.0, odd, 0.0])
        with pytest.raises(errors.InvalidArgumentError, match=r"embedding.*position 1"):
            db.embed("docs", "b", 1, [1.0, odd, 0.0])
    with pytest.raises(errors.InvalidArgumentError):
        db.similar("docs", [])
    with pytest.raises(errors.InvalidTypeError, match="float64"):
        db.similar("docs", np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidTypeError):
        db.similar("docs", "lake")  # type: ignore[arg-type]
    for k in (0, -1):
        with pytest.raises(errors.InvalidArgumentError, match="top_k"):
            db.similar("docs", [1.0, 0.0, 0.0], top_k=k)
    for wrong in (None, "5", 2.5):
        with pytest.raises(TypeError, match="top_k"):
            db.similar("docs", [1.0, 0.0, 0.0], top_k=wrong)  # type: ignore[arg-type]
    for recall in (0, 1.5, float("nan")):
        with pytest.raises(errors.InvalidArgumentError, match="recall"):
            db.similar("docs", [1.0, 0.0, 0.0], recall=recall)
    with pytest.raises(errors.InvalidArgumentError, match="threshold"):
        db.similar("docs", [1.0, 0.0, 0.0], threshold=float("nan"))
    with pytest.raises(errors.LimnionError):
        db.similar("docs", [1.0, 0.0, 0.0], filter={"x": {"$near": 1}})
    with pytest.raises(errors.ValidationError, match="namespace"):
        db.similar("a/b", [1.0])
    with pytest.raises(TypeError):
        db.similar("docs", [1.0, 0.0, 0.0], vector_name=3)  # type: ignore[arg-type]
    assert keys(db.similar("docs", [1.0, 0.0, 0.0])) == ["a"]


def test_one_namespace_has_one_model(shop: Shop) -> None:
    db = shop.sync()
    db.embed("docs", "a", 1, [1.0, 0.0], model="small")
    with pytest.raises(errors.DimensionMismatch, match=r'2 .*"small".*3 .*"small"') as raised:
        db.embed("docs", "b", 1, [1.0, 0.0, 0.0], model="small")
    assert raised.value.suggestion is not None
    with pytest.raises(errors.DimensionMismatch, match=r'"small".*"large"'):
        db.embed("docs", "b", 1, [1.0, 0.0], model="large")
    with pytest.raises(errors.DimensionMismatch, match=r'"small".*"limnion-static-256"'):
        db.embed("docs", "b", "text")
    with pytest.raises(errors.DimensionMismatch):
        db.embed_batch("docs", ["b"], [1], [[1.0, 0.0, 0.0]])
    assert db.keys("docs") == ["a"]
    db.embed("docs", "b", 1, [0.0, 1.0])  # nobody says that it is another one
    assert len(db.similar("docs", [1.0, 0.0], model="small")) == 2
    with pytest.raises(errors.DimensionMismatch, match="'small', got one of 'large'"):
        db.similar("docs", [1.0, 0.0], model="large")
    with pytest.raises(errors.DimensionMismatch) as raised:
        db.similar_by_text("docs", "lake")
    assert "embed_fn=" in str(raised.value.suggestion)
    db.embed("docs", "c", "x" * 256, np.ones(2, np.float32))
    with pytest.raises(errors.DimensionMismatch):
        db.similar_by_text("docs", "lake", embed_fn=lambda _: [1.0, 0.0], model="large")
    db.embed("elsewhere", "a", 1, [1.0, 0.0, 0.0], model="large")
    if shop.folder is not None:
        db.close()
        db = shop.sync()
        with pytest.raises(errors.DimensionMismatch):
            db.embed("docs", "d", 1, [1.0, 0.0, 0.0], model="large")
    for key in db.keys("docs"):
        db.delete("docs", key)
    db.embed("docs", "a", 1, [1.0, 0.0, 0.0], model="large")
    assert keys(db.similar("docs", [1.0, 0.0, 0.0], model="large")) == ["a"]


def test_vectors_of_several_dimensions_are_told_of(db: SyncDatabase) -> None:
    db.put("docs", "a", 1, vector=[1.0, 0.0])
    db.put("docs", "b", 1, vector=[1.0, 0.0, 0.0])
    with pytest.raises(errors.DimensionMismatch, match='"a" has 2, and "b" has 3'):
        db.similar("docs", [1.0, 0.0])
    db.delete("docs", "b")
    assert keys(db.similar("docs", [1.0, 0.0])) == ["a"]


def test_a_model_that_the_metadata_contradicts(db: SyncDatabase) -> None:
    with pytest.raises(errors.ValidationError, match="embedding_model"):
        db.embed("docs", "a", 1, [1.0], model="x", metadata={"embedding_model": "y"})
    with pytest.raises(errors.ValidationError, match="embed_fn"):
        db.embed("docs", "a", "text", model="x")
    with pytest.raises(errors.ValidationError, match="text"):
        db.embed("docs", "a", {"no": "text"})
    with pytest.raises(errors.ValidationError, match="row 1"):
        db.embed_batch("docs", ["a", "b"], ["text", 1])
    with pytest.raises(errors.ValidationError, match="keys must be as many"):
        db.embed_batch("docs", ["a", "b"], [1], [[1.0, 0.0]])
    with pytest.raises(errors.InvalidTypeError, match="keys"):
        db.embed_batch("docs", "a", [1], [[1.0, 0.0]])
    with pytest.raises(errors.InvalidTypeError, match="embed_fn"):
        db.embed("docs", "a", "text", embed_fn=3)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidTypeError, match="metadata"):
        db.embed("docs", "a", 1, [1.0], model="x", metadata=[1])  # type: ignore[arg-type]
    assert db.namespaces() == []


def test_a_condition_that_does_not_hold_writes_nothing(db: SyncDatabase) -> None:
    first = db.embed("docs", "a", 1, [1.0, 0.0], expect="absent")
    with pytest.raises(errors.ConflictError):
        db.embed("docs", "a", 2, [0.0, 1.0], expect="absent")
    db.embed("docs", "a", 2, [0.0, 1.0], expect=first)
    (hit,) = db.similar("docs", [0.0, 1.0])
    assert hit.content == 2
    assert hit.score == pytest.approx(1)
    with pytest.raises(errors.ConflictError):
        db.embed("late", "a", 2, [0.0, 1.0], model="x", expect="present")
    db.embed("late", "a", 2, [0.0, 1.0, 0.0], model="y")  # the one before came to nothing


def test_a_batch_is_one_commit(db: SyncDatabase) -> None:
    vectors = random_vectors(10_000, 64)
    names = [f"{at:05}" for at in range(10_000)]
    began = time.perf_counter()
    version = db.embed_batch(
        "docs",
        names,
        [{"n": at} for at in range(10_000)],
        vectors,
        model="m",
        texts=[None, "lake"] * 5_000,
        metadata=[{"odd": bool(at % 2)} for at in range(10_000)],
    )
    assert time.perf_counter() - began < 5
    assert db.stats().version == version
    (hit,) = db.similar("docs", vectors[77], top_k=1)
    assert (hit.key, hit.content) == ("00077", {"n": 77})
    assert hit.metadata == {"odd": True, "embedding_model": "m"}
    assert (hit.record.text, hit.version) == ("lake", version)
    assert np.array_equal(hit.record.vector, vectors[77])  # type: ignore[arg-type]
    assert db.embed_batch("docs", [], [], np.zeros((0, 64), np.float32)) == version


# Text


def test_text_is_embedded_by_the_built_in_model(db: SyncDatabase) -> None:
    db.embed("notes", "1", "A lake lies in layers.", text="A lake lies in layers.")
    db.embed("notes", "2", {"id": 7}, text="The invoice is due on Friday.")
    (hit,) = db.similar_by_text("notes", "When do I have to pay?", top_k=1)
    assert (hit.key, hit.content) == ("2", {"id": 7})
    assert hit.metadata == {"embedding_model": "limnion-static-256"}
    assert [hit.record.key for hit in db.text_search("notes", "invoice")] == ["2"]


@pytest.mark.parametrize("kind", ["function", "coroutine", "object"])
def test_functions_that_embed(shop: Shop, kind: str) -> None:
    threads: set[int] = set()

    def plain(text: str) -> list[float]:
        threads.add(threading.get_ident())
        return [float(len(text)), 1.0]

    async def later(text: str) -> list[float]:
        await asyncio.sleep(0)
        return plain(text)

    class Client:
        async def __call__(self, text: str) -> list[float]:
            return await later(text)

    embed: Any = {"function": plain, "coroutine": later, "object": Client()}[kind]

    async def main() -> None:
        async with Database() as db:
            await db.embed("notes", "a", "a", embed_fn=embed, model="lengths")
            await db.embed("notes", "b", "b" * 9, embed_fn=embed, model="lengths")
            hits = await db.similar_by_text("notes", "ccccccccc", embed_fn=embed, model="lengths")
            assert keys(hits) == ["b", "a"]
            # What takes its time does so elsewhere.
            assert (threading.get_ident() in threads) == (kind != "function")

    asyncio.run(main())
    db = shop.sync()
    db.embed("notes", "a", "a", embed_fn=embed)
    assert keys(db.similar_by_text("notes", "x", embed_fn=embed)) == ["a"]


def test_what_a_function_raises_is_raised(db: SyncDatabase) -> None:
    def fails(_: str) -> list[float]:
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        db.embed("notes", "a", "a", embed_fn=fails)
    with pytest.raises(errors.InvalidTypeError, match="embedding"):
        db.embed("notes", "a", "a", embed_fn=lambda _: "vector")  # type: ignore[arg-type,return-value]
    assert db.namespaces() == []


# Files


def fill(db: SyncDatabase, vectors: Vectors) -> None:
    """Embed vectors under their numbers."""
    names = [str(at) for at in range(len(vectors))]
    db.embed_batch("docs", names, list(range(len(vectors))), vectors, model="m")


def files(folder: Path) -> list[str]:
    """Return the names of the indexes that are kept."""
    return sorted(path.name for path in (folder / "cache").iterdir())


def test_an_index_is_kept_for_the_next_time(tmp_path: Path) -> None:
    folder, vectors = tmp_path / "db", random_vectors(SAVED, 32)
    with SyncDatabase(folder) as db:
        fill(db, vectors)
        found = db.similar("docs", vectors[3], top_k=9, recall=1)
        size = db.stats().disk_usage_mb
    assert len(files(folder)) == 3
    before = files(folder)
    with SyncDatabase(folder) as db:
        assert db.similar("docs", vectors[3], top_k=9, recall=1) == found
        assert db.stats().disk_usage_mb == pytest.approx(size, abs=1)
        assert db.check().ok
        db.backup(tmp_path / "copy")
        # What was written since is worked in.
        db.embed("docs", "new", -1, vectors[3], model="m")
        db.delete("docs", "4")
        assert set(keys(db.similar("docs", vectors[3], top_k=2))) == {"3", "new"}
        assert keys(db.similar("docs", vectors[4], top_k=1)) != ["4"]
    assert files(folder) == before  # so little is caught up with next time
    with SyncDatabase(folder) as db:
        assert set(keys(db.similar("docs", vectors[3], top_k=2))) == {"3", "new"}
        fill(db, vectors[::-1].copy())
        assert set(keys(db.similar("docs", vectors[3], top_k=2))) == {str(SAVED - 4), "new"}
    assert files(folder) != before
    assert len(files(folder)) == 3
    assert files(tmp_path / "copy") == []
    with SyncDatabase(tmp_path / "copy") as copy:
        assert copy.similar("docs", vectors[3], top_k=9, recall=1) == found


def damage(path: Path, fault: str) -> None:
    """Do to a file what should cost time and nothing else."""
    data = bytearray(path.read_bytes())
    match fault:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            data[len(data) // 2] ^= 16
            path.write_bytes(data)
        case "empty":
            path.write_bytes(b"")
        case "gone" if "index" in path.name:
            path.unlink()
        case "folder":
            path.unlink()
            path.mkdir()
        case _:
            pass


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty", "gone", "foreign", "folder"])
def test_a_damaged_cache_costs_time_and_no_answer(tmp_path: Path, fault: str) -> None:
    folder, vectors = tmp_path / "db", random_vectors(SAVED, 32)
    with SyncDatabase(folder) as db:
        fill(db, vectors)
        expected = db.similar("docs", vectors[3], top_k=9, recall=1)
    with SyncDatabase(tmp_path / "other") as other:
        fill(other, random_vectors(SAVED, 32, seed=9))
        other.similar("docs", vectors[3])
    kept = [folder / "cache" / name for name in files(folder)]
    strange = [tmp_path / "other" / "cache" / name for name in files(tmp_path / "other")]
    for path in kept:
        damage(path, fault)
    if fault == "foreign":
        for path in kept:
            path.unlink()
        for path in strange:
            shutil.copy(path, folder / "cache" / path.name)
    for _ in range(2):
        with SyncDatabase(folder) as db:
            assert db.similar("docs", vectors[3], top_k=9, recall=1) == expected
            assert db.check().ok


@pytest.mark.parametrize("only", ["index", "names", "bundle"])
def test_damage_in_any_one_file_costs_time_alone(tmp_path: Path, only: str) -> None:
    folder, vectors = tmp_path / "db", random_vectors(SAVED, 32)
    with SyncDatabase(folder) as db:
        fill(db, vectors)
        expected = db.similar("docs", vectors[3], top_k=9, recall=1)
    (path,) = [folder / "cache" / name for name in files(folder) if only in name]
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 12)):
        data = bytearray(whole)
        data[at] ^= 1
        path.write_bytes(data)
        with SyncDatabase(
            folder,
        ) as db:
            assert db.similar("docs", vectors[3], top_k=9, recall=1) == expected
        if not path.exists():
            break


def test_a_copy_that_went_ways_of_its_own_is_not_served_from_the_cache(tmp_path: Path) -> None:
    vectors = random_vectors(SAVED, 32)
    with SyncDatabase(tmp_path / "db") as db:
        fill(db, vectors)
        db.similar("docs", vectors[0])
    shutil.copytree(tmp_path / "db", tmp_path / "twin")
    with SyncDatabase(tmp_path / "twin") as twin:
        twin.embed("docs", "0", "twin", -vectors[0])
        twin.similar("docs", vectors[0])
    with SyncDatabase(tmp_path / "db") as db:
        db.embed("docs", "1", "db", -vectors[1])
        assert keys(db.similar("docs", vectors[0], top_k=1)) == ["0"]
    for name in files(tmp_path / "db"):
        shutil.copy(tmp_path / "db" / "cache" / name, tmp_path / "twin" / "cache" / name)
    with SyncDatabase(tmp_path / "twin") as twin:
        assert keys(twin.similar("docs", vectors[0], top_k=1)) != ["0"]
        assert keys(twin.similar("docs", vectors[1], top_k=1)) == ["1"]


def test_an_encrypted_database_leaves_no_vectors_lying_about(tmp_path: Path) -> None:
    config = Config(tmp_path / "db", encryption_key=b"k" * 32)
    vectors = random_vectors(SAVED, 32)
    for _ in range(2):
        with SyncDatabase(config) as db:
            fill(db, vectors)
            assert keys(db.similar("docs", vectors[3], top_k=1)) == ["3"]
        assert files(tmp_path / "db") == []


def test_small_namespaces_have_no_files(tmp_path: Path) -> None:
    with SyncDatabase(tmp_path / "db") as db:
        fill(db, random_vectors(100, 32))
        db.similar("docs", [1.0] * 32)
    assert files(tmp_path / "db") == []


def test_a_reader_beside_the_writer_sees_its_commits(tmp_path: Path) -> None:
    vectors = random_vectors(SAVED, 32)
    with SyncDatabase(tmp_path / "db") as db:
        fill(db, vectors)
        db.similar("docs", vectors[0])
    with (
        SyncDatabase(tmp_path / "db") as db,
        SyncDatabase(Config(tmp_path / "db", read_only=True)) as reader,
    ):
        assert keys(reader.similar("docs", vectors[7], top_k=1)) == ["7"]
        db.embed("docs", "new", 1, -vectors[7], model="m")
        assert keys(reader.similar("docs", -vectors[7], top_k=1)) == ["new"]
        with pytest.raises(errors.ReadOnlyError):
            reader.embed("docs", "x", 1, vectors[0])
        before = files(tmp_path / "db")
        reader.close()
        assert files(tmp_path / "db") == before


# Threads, loops, processes


def write_at_random(db: SyncDatabase, stop: threading.Event, seed: int) -> None:
    """Delete and embed until told to stop."""
    rng = np.random.default_rng(seed)
    while not stop.is_set():
        at = int(rng.integers(40))
        vector = rng.standard_normal(DIM, dtype=np.float32)
        if rng.integers(4) == 0:
            db.delete("docs", str(at))
        else:
            db.embed("docs", str(at), {"even": at % 2 == 0}, vector)


def search_at_random(db: SyncDatabase, seed: int) -> list[str]:
    """Search many times; return what is wrong with the answers."""
    rng = np.random.default_rng(seed)
    wrong = []
    for turn in range(60):
        query = rng.standard_normal(DIM, dtype=np.float32)
        options: dict[str, Any] = {"top_k": 5, "recall": 1}
        if turn % 3 == 0:
            options["filter"] = {"even": True}
        lower = int(db.stats().version)
        hits = db.similar("docs", query, **options)
        upper = int(db.stats().version)
        for hit in hits:
            vector = hit.record.vector
            if vector is None or abs(cosine(vector, query) - hit.score) > 1e-4:
                wrong.append(f"{hit} mixes two versions")
        got = [(hit.key, hit.version) for hit in hits]
        if turn % 10 == 0 and upper - lower < 200:
            versions = range(lower, upper + 1)
            answers = (db.similar("docs", query, **options, as_of=at) for at in versions)
            if not any(got == [(hit.key, hit.version) for hit in then] for then in answers):
                wrong.append(f"{got} was never so from {lower} to {upper}")
    return wrong


def test_each_answer_is_that_of_some_version(shop: Shop) -> None:
    db = shop.sync()
    db.embed_batch("docs", [str(at) for at in range(40)], [{}] * 40, random_vectors(40, DIM))
    stop = threading.Event()
    with ThreadPoolExecutor(5) as pool:
        writing = [pool.submit(write_at_random, db, stop, seed) for seed in range(2)]
        searching = [pool.submit(search_at_random, db, seed) for seed in range(10, 13)]
        try:
            assert [wrong for done in searching for wrong in done.result(90)] == []
        finally:
            stop.set()
        for done in writing:
            done.result(30)


def test_two_models_at_once_come_to_one(shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            for turn in range(20):
                name = f"docs{turn}"
                tasks = [
                    db.embed(name, str(at), at, [1.0] * (2 + at % 2), model=f"m{at % 2}")
                    for at in range(8)
                ]
                done = await asyncio.gather(*tasks, return_exceptions=True)
                refused = [each for each in done if isinstance(each, errors.DimensionMismatch)]
                written = [each for each in done if isinstance(each, int)]
                assert len(refused) + len(written) == 8
                assert len(written) == 4
                records = (await db.query(name)).values
                assert len({value % 2 for value in records}) == 1

    asyncio.run(main())


def test_a_hot_search_takes_no_turn_of_the_loop() -> None:
    async def main() -> None:
        async with Database() as db:
            await db.embed_batch("docs", ["a", "b"], [1, 2], [[1.0, 0.0], [0.0, 1.0]])
            await db.similar("docs", [1.0, 0.0])
            with pytest.raises(StopIteration) as answer:
                db.similar("docs", [1.0, 0.0]).send(None)
            assert keys(answer.value.value) == ["a", "b"]

    asyncio.run(main())


def test_the_loop_goes_on_while_an_index_is_built() -> None:
    vectors = random_vectors(60_000, 256)

    async def main() -> None:
        async with Database() as db:
            names = [str(at) for at in range(len(vectors))]
            await db.embed_batch("docs", names, names, vectors)
            longest, last, running = 0.0, time.perf_counter(), True

            async def tick() -> None:
                nonlocal longest, last
                while running:
                    await asyncio.sleep(0.001)
                    now = time.perf_counter()
                    longest, last = max(longest, now - last), now

            ticker = asyncio.create_task(tick())
            await asyncio.sleep(0.01)
            longest = 0.0
            waiting = [asyncio.create_task(db.similar("docs", vectors[at])) for at in range(20)]
            waiting[3].cancel()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            running = False
            await ticker
            for at, answer in enumerate(answers):
                if at == 3:
                    assert isinstance(answer, asyncio.CancelledError)
                else:
                    assert not isinstance(answer, BaseException)
                    assert answer[0].key == str(at)
            assert longest < 0.25  # the build takes longer, and two cores do it

    asyncio.run(main())


def test_a_cancelled_search_and_a_cancelled_embed(shop: Shop) -> None:
    async def main() -> None:
        async with shop.open() as db:
            for turn in range(30):
                writing = asyncio.create_task(db.embed("docs", str(turn), turn, [1.0, float(turn)]))
                await asyncio.sleep(0)
                searching = asyncio.create_task(db.similar("docs", [1.0, 1.0], as_of=0))
                await asyncio.sleep(0)
                writing.cancel()
                searching.cancel()
                await asyncio.gather(writing, searching, return_exceptions=True)
            # A write whose await was cancelled may land a moment later, or not at all.
            last = await db.embed("docs", "last", -1, [1.0, 0.5])
            hits = await db.similar("docs", [1.0, 0.5], top_k=100, as_of=last)
            assert keys(hits)[0] == "last"
            assert sorted(keys(hits)) == await db.keys("docs", as_of=last)
            assert (await db.similar("docs", [1.0, 0.5], top_k=1))[0].key == "last"

    asyncio.run(main())


def test_a_database_that_closes_while_it_is_searched(shop: Shop) -> None:
    async def main() -> None:
        db = shop.open()
        vectors = random_vectors(20_000, 64)
        names = [str(at) for at in range(len(vectors))]
        await db.embed_batch("docs", names, names, vectors)
        waiting = [asyncio.create_task(db.similar("docs", vectors[at])) for at in range(4)]
        waiting += [
            asyncio.create_task(db.similar("docs", vectors[at], as_of=1)) for at in range(4)
        ]
        await asyncio.sleep(0.02)
        await db.close()
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(answer, list | errors.DatabaseClosedError), answer
        with pytest.raises(errors.DatabaseClosedError):
            await db.similar("docs", vectors[0])

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_child_is_told_that_the_database_is_its_parents(shop: Shop) -> None:
    db = shop.sync()
    fill(db, random_vectors(100, DIM))
    db.similar("docs", [1.0] * DIM)
    db.similar("docs", [1.0] * DIM, as_of=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in (
                lambda: db.similar("docs", [1.0] * DIM),
                lambda: db.similar("docs", [1.0] * DIM, as_of=1),
                lambda: db.embed("docs", "x", 1, [1.0] * DIM),
                lambda: db.similar_by_text("docs", "text", embed_fn=lambda _: [1.0] * DIM),
            ):
                try:
                    call()
                except errors.ForkedProcessError:
                    continue
                os._exit(2)
            db.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(db.similar("docs", [1.0] * DIM)) == 5
