"""What type checkers make of limnion: each line says what it expects.

`make check` has mypy read this file; `tests/test_typing.py` has basedpyright read it, too.
"""

import dataclasses
import datetime as dt
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import limnion
from limnion.indexes import Explanation
from limnion.lake import ObjectShelf
from limnion.records import SimilarHit
from limnion.types import Layout, Metric, Originals

vectors = np.zeros((4, 8), dtype=np.float32)
query = np.zeros(8, dtype=np.float32)


def build() -> limnion.AnyIndex:
    """Each class builds itself, from arrays and from lists."""
    assert_type(limnion.FlatF32Index.build(vectors), limnion.FlatF32Index)
    assert_type(limnion.RabitqIndex.build(vectors, metric="ip"), limnion.RabitqIndex)
    assert_type(
        limnion.RabitqAsymIndex.build(vectors, bits=2, originals="f16"), limnion.RabitqAsymIndex
    )
    index = limnion.RabitqPlusIndex.build([[1.0, 2.0]], ids=range(1), progress=print)
    assert_type(index, limnion.RabitqPlusIndex)
    limnion.RabitqPlusIndex.build(vectors, metric="euclid")  # type: ignore[arg-type]
    limnion.FlatF32Index.build(vectors, bits=2)  # type: ignore[call-arg]
    anything: limnion.AnyIndex = limnion.IvfIndex.build(vectors, lists=2, originals=None)
    return anything if len(index) else index


def search(index: limnion.RabitqPlusIndex) -> None:
    """A search gives hits, which are named tuples and arrays."""
    hits = index.search(query, k=3, recall=0.9, where=[1, 2])
    assert_type(hits, limnion.Hits)
    assert_type(hits[0], limnion.Hit)
    assert_type(hits[1:], limnion.Hits)
    assert_type(hits.ids, NDArray[np.uint64])
    assert_type(hits.scores, NDArray[np.float32])
    assert_type(hits.distances, NDArray[np.float32])
    assert_type(hits.to_list(), list[limnion.Hit])
    for hit in hits:
        assert_type(hit.id, int)
        id_, score, distance = hit
        assert_type((id_, score, distance), tuple[int, float, float])
    batch = index.search_batch(vectors)
    assert_type(batch, limnion.HitsBatch)
    assert_type(batch[0], limnion.Hits)
    assert_type(batch.ids, NDArray[np.uint64])
    index.search("text")  # type: ignore[arg-type]
    index.search(query, 3, 0.9)  # type: ignore[call-arg]


async def search_async(index: limnion.RabitqPlusIndex) -> None:
    """The twins are awaited."""
    waiting = assert_type(index.search_async(query), Coroutine[Any, Any, limnion.Hits])
    assert_type(await waiting, limnion.Hits)
    assert_type(await index.search_batch_async(vectors), limnion.HitsBatch)


def search_lists(index: limnion.IvfIndex) -> None:
    """An index of lists is told how many to look into, and tells."""
    assert_type(index.search(query, nprobe=3, radius=0.5), limnion.Hits)
    assert_type(index.search_batch(vectors, recall=0.9), limnion.HitsBatch)
    assert_type(index.explain(query, 3), Explanation)
    assert_type(index.explain(query).lists, int)
    assert_type(index.lists, int)
    assert_type(limnion.IvfIndex.load("x"), limnion.IvfIndex)
    index.search(query, rerank_factor=2)  # type: ignore[call-arg]


def search_graph(index: limnion.GraphIndex) -> None:
    """A graph is told how far to walk, and tells."""
    assert_type(index.search(query, ef=30), limnion.Hits)
    assert_type(index.explain(query).followed, int)
    assert_type(index.layout, Layout)
    index.set_layout("inline")
    index.set_layout("dense")  # type: ignore[arg-type]
    assert_type(limnion.GraphIndex.build(vectors, range(4), "ip"), limnion.GraphIndex)
    anything: limnion.AnyIndex = limnion.build(vectors, recall=0.9, memory=1 << 20, changes=True)
    assert_type(anything.memory_bytes, int)


def select(index: limnion.IvfIndex, bits: NDArray[np.uint8]) -> None:
    """Rows are named by ids, by masks, and once for many searches."""
    chosen = assert_type(index.select([1, 2], exclude=2), limnion.Selection)
    assert_type(index.search_by_id(3, where=chosen, exclude=[4]), limnion.Hits)
    assert_type(index.vectors([1]), NDArray[np.float32])
    index.merge(index)
    binary = assert_type(limnion.HammingIndex.build(bits), limnion.HammingIndex)
    assert_type(binary.search(bits[0], radius=3), limnion.Hits)
    assert_type(binary.search_batch(bits), limnion.HitsBatch)
    index.search(query, where=3)  # type: ignore[arg-type]


def look(index: limnion.RabitqPlusIndex) -> None:
    """An index is a collection of vectors."""
    assert_type(len(index), int)
    assert_type(index.dim, int)
    assert_type(index.metric, Metric)
    assert_type(index.bits, int)
    assert_type(index.originals, Originals | None)
    assert_type(index.memory_bytes, int)
    assert_type(index.ids, NDArray[np.uint64])
    assert_type(index[3], NDArray[np.float32])
    assert_type(3 in index, bool)
    for id_, vector in index:
        assert_type(id_, int)
        assert_type(vector, NDArray[np.float32])
    assert_type(limnion.RabitqPlusIndex.load(Path("x"), mmap=True), limnion.RabitqPlusIndex)


def rest() -> None:
    """What stands beside the indexes."""
    advice = limnion.recommend(10, 20, recall=0.9)
    assert_type(advice, limnion.Recommendation)
    assert_type(advice.bytes, int)
    assert_type(limnion.cpu_features(), dict[str, bool | str])
    assert_type(limnion.__version__, str)
    assert_type(limnion.Embedder.builtin().embed("text"), NDArray[np.float32])
    assert_type(limnion.LimnionError("message").suggestion, str | None)
    assert_type(limnion.DimensionMismatch.kind, str)


async def lake() -> None:
    """A lake finds hits, publishes its indexes, and saves them."""
    shard = limnion.LocalBackend("shard")
    shard.upsert("docs", range(4), vectors)
    shard.upsert("docs", [1, 2])  # type: ignore[call-overload]
    shard.upsert("docs", [1, 2], vectors, id_column="key")  # type: ignore[call-overload]
    lake = limnion.Lake(consistency=limnion.Consistency.EVENTUAL, ttl=1, backends=[shard])
    hits = lake.search_one("docs", query, k=3, where=[1, 2])
    assert_type(hits, limnion.LakeHits)
    assert_type(hits[0].id, int | str)
    assert_type(hits.ids, NDArray[np.uint64] | list[int | str])
    hybrid = lake.search_hybrid("docs", query, "text", fusion="weighted", weight=0.3)
    assert_type(hybrid, limnion.LakeHits)
    lake.search_hybrid("docs", query, "text", fusion="sum")  # type: ignore[arg-type]
    assert_type(await lake.search_hybrid_async("docs", query, "text"), limnion.LakeHits)
    assert_type(lake.publish_bundle("docs", Path("x"), lineage_id="run"), str)
    assert_type(await lake.publish_bundle_async("docs", "s3://bucket/x"), str)
    bundle = lake.take_bundle("docs", ObjectShelf("s3://bucket/x", from_env=True, region="here"))
    assert_type(bundle, limnion.LakeBundle)
    assert_type(limnion.LakeBundle.read("x"), limnion.LakeBundle)
    assert_type(bundle.generation, int | str)
    bundle.rows = 3  # type: ignore[misc]
    result = lake.refresh_from_bundle_dir(key=("shard", "docs"), dir="x")
    assert_type(result, limnion.RefreshResult)
    lake.refresh_from_bundle_dir("docs", "x")  # type: ignore[arg-type]
    assert_type(lake.save_cache("x"), list[tuple[str, str]])
    loaded = lake.load_cache("x")
    assert_type(loaded.loaded, list[tuple[str, str]])
    assert_type(loaded.skipped, dict[tuple[str, str], limnion.LimnionError])
    lake.set_consistency("docs", "fresh")  # type: ignore[arg-type]
    with lake.session() as session:
        assert_type(session.search_hybrid("docs", query, "text"), limnion.LakeHits)


@dataclasses.dataclass
class User:
    """What a record may hold."""

    name: str


async def embed_text(text: str) -> list[float]:
    """What asks a provider."""
    return [float(len(text))]


async def database(db: limnion.Database) -> None:
    """The verbs of a database are awaited."""
    assert_type(await db.put("users", "alice", User("Alice"), ttl=3, expect="absent"), int)
    assert_type(await db.get("users", "alice", type=User), User)
    assert_type(await db.get("users", "alice", type=User, default=None), User | None)
    assert_type(await db["users/alice"], Any)
    db["users/alice"] = 1
    assert_type(await db.put_if("users", "alice", 1, 7), int | None)
    found = await db.query("users", limnion.F("age") > 7, sort="-age", as_of="tag")
    assert_type(found, limnion.Records)
    assert_type(found[0], limnion.Record)
    assert_type(found[1:], limnion.Records)
    assert_type(found[0].timestamp, dt.datetime)
    assert_type(found[0].vector, NDArray[np.float32] | None)
    assert_type(await db.keys("users"), list[str])
    assert_type((await db.aggregate("users", sum="age")).count, int)
    assert_type((await db.aggregate("users", group_by="team"))[0].key, Any)
    assert_type(await db.diff("users", "alice", v1=1, v2=dt.datetime.now(dt.UTC)), limnion.Diff)
    async with db.transaction() as tx:
        await tx.put("users", "alice", await tx.get("users", "alice"))
    assert_type(await db.embed("docs", "a", {"n": 1}, query, model="m", expect="absent"), int)
    assert_type(await db.embed("docs", "b", "text", embed_fn=embed_text), int)
    assert_type(await db.embed_batch("docs", ["c"], ["text"], vectors, metadata=[None]), int)
    hits = await db.similar("docs", [0.1, 0.2], top_k=3, filter="n > 1", as_of=1)
    assert_type(hits, list[SimilarHit])
    record, score, distance = hits[0]
    assert_type((record, score, distance), tuple[limnion.Record, float, float])
    assert_type(hits[0].key, str)
    await db.similar_by_text("docs", "text", embed_fn=lambda text: [float(len(text))])
    await db.similar_by_text("docs", "text", embed_fn=embed_text, threshold=0.5)
    await db.similar("docs", "text")  # type: ignore[arg-type]
    await db.similar("docs", query, k=3)  # type: ignore[call-arg]
    await (await db.snapshot()).similar("docs", query, as_of=1)  # type: ignore[call-arg]
    async for change in db.watch():
        assert_type(change.key, str)
    await db.put("users", "alice", 1, expect="maybe")  # type: ignore[arg-type]
    await db.get("users", "alice", as_of=1.5)  # type: ignore[call-overload]


def database_without_await() -> None:
    """The twin has the same verbs."""
    config = limnion.Config("db", durability="batched", retention=limnion.Retention(keep_last=3))
    with limnion.Database.sync(config) as db:
        assert_type(db, limnion.SyncDatabase)
        assert_type(db.put("users", "alice", 1), int)
        assert_type(db.get("users", "alice", type=User), User)
        assert_type(db.query("users"), limnion.Records)
        assert_type(db.namespace("users").all(), dict[str, Any])
        assert_type(db.namespace("users").similar(query)[0].version, int)
        assert_type(db.snapshot().similar_by_text("users", "text")[0].score, float)
        for change in db.watch(timeout=1):
            assert_type(change.version, int)
    limnion.Config(durability="maybe")  # type: ignore[arg-type]
    limnion.register_serializer(User, lambda user: user.name, User)
