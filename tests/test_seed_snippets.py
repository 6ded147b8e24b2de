"""The snippets of the API that limnion set out from, with their import changed."""

import asyncio
import datetime as dt
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import limnion
from limnion import Config, Database, KeyNotFoundError, LimnionError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the snippets write where they like."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the home directory be one that is ours."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))


def test_the_top_level_layout() -> None:
    for name in (
        "FlatF32Index",
        "RabitqIndex",
        "RabitqPlusIndex",
        "RabitqAsymIndex",
        "Lake",
        "LocalBackend",
        "FsBackend",
        "Consistency",
        "LakeBundle",
        "RefreshResult",
        "Embedder",
        "LimnionError",
        "__version__",
    ):
        assert hasattr(limnion, name)
    assert limnion.cpu_features()


def test_the_vector_index(capsys: pytest.CaptureFixture[str]) -> None:
    # Build from an (n, d) float32 array. Dtype is enforced; mismatch raises.
    vectors = np.random.randn(100_000, 768).astype(np.float32)  # noqa: NPY002
    idx = limnion.RabitqPlusIndex.build(
        vectors,
        seed=42,
        rerank_factor=20,
    )

    # Search a single query.
    query = np.random.randn(768).astype(np.float32)  # noqa: NPY002
    hits = idx.search(query, k=10)
    for h in hits:
        print(h.id, h.score)  # noqa: T201

    # Pythonic conveniences
    assert len(idx) == 100_000
    assert idx.dim == 768
    assert idx.memory_bytes > 4 * 768 * 100_000
    idx.save("index.rbpx")
    idx2 = limnion.RabitqPlusIndex.load("index.rbpx")

    # Add after build
    idx.add(id=100_001, vector=np.random.randn(768).astype(np.float32))  # noqa: NPY002

    assert len(capsys.readouterr().out.splitlines()) == 10
    assert idx2.search(query, k=10) == hits
    assert len(idx) == 100_001


def test_other_arrays_raise_at_once() -> None:
    vectors = np.random.default_rng(0).standard_normal((100, 16))
    for wrong in (vectors, np.asfortranarray(vectors, dtype=np.float32), vectors[:, ::2]):
        with pytest.raises(TypeError, match="float32"):
            limnion.RabitqPlusIndex.build(wrong)  # type: ignore[arg-type]


def test_any_index_is_a_runtime_checkable_protocol() -> None:
    idx = limnion.RabitqPlusIndex.build(np.eye(8, dtype=np.float32))
    assert isinstance(idx, limnion.AnyIndex)


def test_pythonic_conveniences() -> None:
    vectors = np.random.default_rng(1).standard_normal((200, 32)).astype(np.float32)
    idx = limnion.RabitqPlusIndex.build(vectors, seed=42)
    assert len(idx) == 200
    assert (idx[17] == vectors[17]).all()
    with pytest.raises(LookupError):
        limnion.RabitqIndex.build(vectors)[17]
    for row, (id_, vector) in enumerate(idx):
        assert id_ == row
        assert (vector == vectors[row]).all()
    assert np.asarray(idx).shape == (200, 32)
    assert np.shares_memory(np.asarray(idx), np.asarray(idx))
    for part in ("RabitqPlusIndex", "200", "32", "memory"):
        assert part in repr(idx)
    idx2 = limnion.RabitqPlusIndex.build(vectors, seed=42)
    assert idx == idx2


def test_numpy_is_the_lingua_franca() -> None:
    vectors = np.random.default_rng(2).standard_normal((50, 8)).astype(np.float32)
    idx = limnion.RabitqPlusIndex.build(vectors)
    hit = idx.search(vectors[0].tolist(), k=1)[0]
    assert hit == idx.search(tuple(vectors[0].tolist()), k=1)[0]
    assert type(hit.id) is int
    assert type(hit.score) is float
    assert isinstance(idx[0], np.ndarray)
    assert idx[0].dtype == np.float32


def test_the_errors_of_an_index() -> None:
    idx = limnion.FlatF32Index.build(np.eye(4, dtype=np.float32))
    with pytest.raises(limnion.DimensionMismatch):
        idx.search(np.zeros(5, dtype=np.float32))
    with pytest.raises(limnion.EmptyIndex):
        limnion.FlatF32Index.build(np.zeros((0, 4), dtype=np.float32)).search(idx[0])
    with pytest.raises(limnion.PersistError):
        limnion.FlatF32Index.load("nothing")
    for error in (limnion.DimensionMismatch, limnion.EmptyIndex, limnion.PersistError):
        assert issubclass(error, limnion.IndexError)
    assert issubclass(limnion.IndexError, limnion.LimnionError)
    assert issubclass(limnion.EmbedError, limnion.LimnionError)


def test_the_lake(capsys: pytest.CaptureFixture[str]) -> None:
    # Builder pattern
    lake = (
        limnion.Lake.builder()
        .rerank_factor(20)
        .rotation_seed(42)
        .max_cache_entries(1_000_000)
        .consistency(limnion.Consistency.FRESH)
        .build()
    )

    # Backends are first-class Python objects.
    backend = limnion.LocalBackend(name="hot-shard")
    backend.upsert("docs", ids=[1, 2, 3], vectors=np.random.randn(3, 768).astype(np.float32))  # noqa: NPY002
    lake.register_backend(backend)
    query = np.random.randn(768).astype(np.float32)  # noqa: NPY002

    # Sync search.
    hits = lake.search_one(collection="docs", query=query, k=10)

    # Async search
    async def main() -> None:
        hits = await lake.search_one_async(collection="docs", query=query, k=10)
        print([(h.backend, h.id, h.score) for h in hits])  # noqa: T201

    asyncio.run(main())
    said = capsys.readouterr().out
    assert said == f"{[(h.backend, h.id, h.score) for h in hits]}\n"
    assert sorted(h.id for h in hits) == [1, 2, 3]

    # Federated search across all backends
    assert lake.search_federated(collection="docs", query=query, k=10) == hits

    # Bundle witness operations: "local" of the snippet is the name of the backend
    witness = lake.publish_bundle("docs", out_dir="bundle/")
    result = lake.refresh_from_bundle_dir(key=("hot-shard", "docs"), dir="bundle/")
    assert result == limnion.RefreshResult.UP_TO_DATE  # or INVALIDATED, BUNDLE_MISSING
    assert limnion.LakeBundle.read("bundle/").witness == witness
    assert [member.name for member in limnion.RefreshResult] == [
        "UP_TO_DATE",
        "INVALIDATED",
        "BUNDLE_MISSING",
    ]

    # Pythonic conveniences
    index = lake.index("docs")
    assert index in lake
    assert ("hot-shard", "docs") in lake
    with lake.session() as s:
        assert s.search_one("docs", query) == hits
    with pytest.raises(TypeError, match=r"Consistency\.FRESH"):
        limnion.Lake.builder().consistency("fresh").build()  # type: ignore[arg-type]
    assert limnion.Consistency["STALE"] is limnion.Consistency.FROZEN


def test_the_errors_of_a_lake() -> None:
    for error in (limnion.BackendError, limnion.CacheMissError, limnion.WitnessMismatch):
        assert issubclass(error, limnion.LakeError)
    assert issubclass(limnion.LakeError, limnion.LimnionError)


# The versioned store. `await db[key] = value` is not Python: the lines have lost their `await`.


async def test_the_core_of_the_database() -> None:
    # Zero-config, in-memory
    async with Database() as db:
        # Store anything JSON-serializable
        db["users/alice"] = {"name": "Alice", "tags": ["vip"]}

        # Retrieve
        user = await db["users/alice"]

        # Namespace-scoped access
        users = db.namespace("users")
        await users.put("bob", {"name": "Bob"})
        all_users = await users.all()

    assert user == {"name": "Alice", "tags": ["vip"]}
    assert all_users == {"alice": user, "bob": {"name": "Bob"}}


class datetime(dt.datetime):  # noqa: N801 - as the snippet calls it
    """A clock that is an hour and half a second off: an hour ago lies between the two puts."""

    @classmethod
    def utcnow(cls) -> dt.datetime:  # type: ignore[override]
        """Return a naive datetime, as the one of the standard library does."""
        return dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(hours=1, seconds=-0.5)


async def test_time_travel(capsys: pytest.CaptureFixture[str]) -> None:
    async with Database() as db:
        # Store multiple versions
        await db.put("config", "model", {"version": "gpt-3.5"})
        await asyncio.sleep(1)
        await db.put("config", "model", {"version": "gpt-4"})

        # Get current
        current = await db.get("config", "model")
        assert current == {"version": "gpt-4"}

        # Get at specific time
        one_hour_ago = datetime.utcnow() - dt.timedelta(hours=1)
        old = await db.get_at("config", "model", one_hour_ago)
        assert old == {"version": "gpt-3.5"}

        # Get history
        history = await db.history("config", "model")
        for entry in history:
            print(f"{entry.timestamp}: {entry.value}")  # noqa: T201
        assert [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()] == [
            "{'version': 'gpt-3.5'}",
            "{'version': 'gpt-4'}",
        ]

        # Diff between versions
        hash1, hash2 = (entry.hash for entry in history)
        diff = await db.diff("config", "model", v1=hash1, v2=hash2)
        assert str(diff) == "~ version: 'gpt-3.5' -> 'gpt-4'"

        # ... or with names of one's own
        await db.tag("hash1", history[0].version)
        await db.tag("hash2", history[1].version)
        assert await db.diff("config", "model", v1="hash1", v2="hash2") == diff


class Embeddings:
    """What the client of a provider has; its vectors say how often letters come."""

    async def create(self, *, model: str, input: str) -> Any:  # noqa: A002 - as it is called there
        """Return what looks like a response."""
        assert model == "text-embedding-3-small"
        await asyncio.sleep(0)
        counts = [float(input.lower().count(letter)) for letter in "aim"]
        return SimpleNamespace(data=[SimpleNamespace(embedding=counts)])


async def test_vectors_and_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    client_class = lambda: SimpleNamespace(embeddings=Embeddings())  # noqa: E731
    monkeypatch.setitem(sys.modules, "openai", SimpleNamespace(AsyncOpenAI=client_class))

    async with Database() as db:
        # Store with embedding (automatic if you provide embedding)
        await db.embed(
            "documents",
            "doc1",
            content={"title": "AI Paper", "text": "..."},
            embedding=[0.1, 0.2, 0.3],  # or numpy array
            model="text-embedding-3-small",
        )
        await db.embed(
            "documents",
            "doc2",
            content={"title": "Another"},
            embedding=np.array([0.3, -0.2, 0.1], dtype=np.float32),
            model="text-embedding-3-small",
            metadata={"source": "web"},
        )

        # Search by vector
        results = await db.similar("documents", query=[0.1, 0.2, 0.3], top_k=5, threshold=0.8)
        assert [(r.key, r.content["title"]) for r in results] == [("doc1", "AI Paper")]
        assert results[0].score == pytest.approx(1)

        # Or search by text (if you provide embed_fn)
        from openai import AsyncOpenAI  # type: ignore[import-not-found] # noqa: PLC0415

        client = AsyncOpenAI()

        async def embed_text(text: str) -> list[float]:
            response = await client.embeddings.create(model="text-embedding-3-small", input=text)
            embedding: list[float] = response.data[0].embedding
            return embedding

        results = await db.similar_by_text(
            "documents", query="AI and machine learning", embed_fn=embed_text, top_k=5
        )
        assert [r.key for r in results] == ["doc1", "doc2"]
        assert results[1].metadata == {"source": "web", "embedding_model": "text-embedding-3-small"}


async def test_persistence_and_configuration(tmp_path: Path) -> None:
    # With persistence
    config = Config(
        path="~/.myapp/db",  # Auto-expands to absolute path
        max_memory_mb=512,
        enable_wal=True,  # Write-ahead logging for durability
    )

    async with Database(config) as db:
        # Data persists across restarts
        await db.put("state", "counter", 42)

    # Later...
    async with Database(config) as db:
        counter = await db.get("state", "counter")
        assert counter == 42
    assert config.path == Path(os.path.expanduser("~/.myapp/db"))  # noqa: ASYNC240, PTH111
    assert (tmp_path / ".myapp" / "db").is_dir()


async def test_observability(capsys: pytest.CaptureFixture[str]) -> None:
    async with Database() as db:
        # Stats
        stats = await db.stats()
        print(f"Keys: {stats.key_count}")  # noqa: T201
        print(f"Memory: {stats.memory_usage_mb:.1f} MB")  # noqa: T201
        print(f"Hot tier: {stats.hot_cache_size}")  # noqa: T201

        # Health check
        health = await db.health()
        if not health.healthy:
            print(f"Issues: {health.issues}")  # noqa: T201

        # Query memory tier breakdown
        tiers = await db.memory_tiers()
        print(f"Hot: {tiers.hot}, Warm: {tiers.warm}, Cold: {tiers.cold}")  # noqa: T201

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Keys: 0"
    assert lines[1].endswith(" MB")
    assert lines[2:] == ["Hot tier: 0", "Hot: 0, Warm: 0, Cold: 0"]


async def test_errors_that_help(capsys: pytest.CaptureFixture[str]) -> None:
    async with Database() as db:
        await db.put_batch({"users/alice": 1, "users/alex": 2})
        for key in ("nonexistent", "alicia"):
            try:
                value = await db.get("users", key)
            except KeyNotFoundError as e:
                print(f"Key not found: {e.key}")  # noqa: T201
                print(e)  # noqa: T201
        try:
            value = await db.put("users", "", 1)
        except LimnionError as e:
            print(f"Database error: {e}")  # noqa: T201
            print(f"Suggestion: {e.suggestion}")  # noqa: T201
            value = None
        assert value is None
    out = capsys.readouterr().out
    assert "Key not found: nonexistent" in out
    assert "did you mean 'alice'? Similar keys: ['alice'" in out
    assert "Database error: key must not be empty" in out
    assert "Suggestion: " in out


async def get_user(db: Database, user_id: str) -> dict[str, Any] | None:
    """Get user by ID."""
    user: dict[str, Any] | None = await db.get("users", user_id)
    return user


async def test_the_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with Database() as db:
            # Store
            db["messages/1"] = {"role": "user", "content": "Hello!"}

            # Retrieve
            msg = await db["messages/1"]
            print(msg["content"])  # noqa: T201

            # History
            history = await db.history("messages", "1")
            print(f"Versions: {len(history)}")  # noqa: T201

            await db.put("users", "alice", {"name": "Alice"})
            assert await get_user(db, "alice") == {"name": "Alice"}

    await main()
    assert capsys.readouterr().out == "Hello!\nVersions: 1\n"
