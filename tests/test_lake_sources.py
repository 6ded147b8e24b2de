"""The backends that come along: the files of a folder, an object store, a database."""

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import RunPython, Vectors

import limnion
from limnion import errors
from limnion.protocols import Backend, Description

EYE = np.eye(4, dtype=np.float32)


def test_arrays_in_a_folder_are_collections(tmp_path: Path, vectors: Vectors) -> None:
    np.save(tmp_path / "docs.npy", vectors)
    np.save(tmp_path / "few.npy", EYE)
    np.save(tmp_path / "few.ids.npy", np.array([7, 8, 9, 10], dtype=np.uint64))
    folder = limnion.FsBackend("disk", tmp_path)
    assert isinstance(folder, Backend)
    assert folder.list_collections() == ["docs", "few"]
    assert folder.path == tmp_path.resolve()
    assert repr(folder) == 'FsBackend("disk")'
    lake = limnion.Lake(backends=[folder])
    assert lake.search_one("docs", vectors[9], k=1)[0].id == 9
    assert lake.search_one("few", EYE[2], k=1)[0] == limnion.LakeHit("disk", "few", 9, 1.0, 0.0)
    np.save(tmp_path / "few.npy", -EYE[::-1])
    assert lake.search_one("few", -EYE[3], k=1)[0].id == 7


@pytest.mark.parametrize("digest", [False, True])
def test_rows_are_written_to_a_folder(tmp_path: Path, digest: bool) -> None:
    folder = limnion.FsBackend("disk", os.fspath(tmp_path), digest=digest)
    lake = limnion.Lake(backends=[folder])
    folder.upsert("a/b", ["x", "y"], EYE[:2])
    assert [entry.name for entry in tmp_path.glob("*.rows")] == ["a%2Fb.rows"]
    assert lake.search_one("a/b", EYE[1], k=1)[0].id == "y"
    folder.upsert("a/b", ["z"], EYE[2:3])
    assert lake.search_one("a/b", EYE[2], k=1)[0].id == "z"
    assert folder.delete("a/b", "z") == 1
    assert folder.delete("a/b", ["z", "y"]) == 1
    assert [hit.id for hit in lake.search_one("a/b", EYE[2])] == ["x"]
    assert folder.describe("a/b").count == 1
    assert folder.drop_collection("a/b")
    assert not folder.drop_collection("a/b")
    folder.upsert("n", range(4), EYE)
    assert folder.delete("n", 3) == 1
    assert [hit.id for hit in lake.search_one("n", EYE[1], k=1)] == [1]
    with pytest.raises(limnion.UnknownCollection):
        lake.search_one("a/b", EYE[1])


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.BackendError, match="it is not there; make it first"):
        limnion.FsBackend("disk", tmp_path / "nowhere")
    with pytest.raises(errors.InvalidTypeError, match="path must be a string or a path, got int"):
        limnion.FsBackend("disk", 3)  # type: ignore[arg-type]
    (tmp_path / "docs.npy").write_bytes(b"nonsense")
    lake = limnion.Lake(backends=[limnion.FsBackend("disk", tmp_path)])
    with pytest.raises(limnion.LakeError, match="docs"):
        lake.search_one("docs", EYE[0])


def test_an_object_store_is_searched(tmp_path: Path, vectors: Vectors) -> None:
    np.save(tmp_path / "docs.npy", vectors)
    bucket = limnion.ObjectStoreBackend("bucket", tmp_path.as_uri(), attempts=2, silence=5)
    lake = limnion.Lake(backends=[bucket])
    assert bucket.list_collections() == ["docs"]
    assert lake.search_one("docs", vectors[9], k=1)[0].id == 9
    bucket.put_rows("more", [3, 4], EYE[:2])
    assert lake.search_one("more", EYE[1], k=1)[0].id == 4
    assert bucket.describe("more").count == 2
    assert bucket.drop_collection("more")
    assert not bucket.drop_collection("more")
    with pytest.raises(errors.InvalidArgumentError):
        limnion.ObjectStoreBackend("bucket", "nonsense")
    with pytest.raises(errors.InvalidTypeError, match="region must be a string, a number or a"):
        limnion.ObjectStoreBackend("bucket", "s3://bucket", region=[1])  # type: ignore[arg-type]


def put(db: limnion.SyncDatabase, key: str, row: Any, **value: Any) -> None:
    """Write a record with a vector."""
    db.put("docs", key, value, vector=row)


def test_a_database_is_fresh_after_each_put() -> None:
    with limnion.Database.sync() as db:
        lake = limnion.Lake(backends=[limnion.StoreBackend(db)])
        for row in range(4):
            put(db, f"doc-{row}", EYE[row], year=2000 + row)
        assert lake.search_one("docs", EYE[2], k=1)[0].id == "doc-2"
        put(db, "new", -EYE[2], year=2010)
        assert lake.search_one("docs", -EYE[2], k=1)[0].id == "new"
        hits = lake.search_one("docs", EYE[0], where=limnion.F("year") >= 2003)
        assert sorted(str(hit.id) for hit in hits) == ["doc-3", "new"]
        db.delete("docs", "new")
        assert "new" not in {hit.id for hit in lake.search_one("docs", -EYE[2])}
        stats = lake.prime("docs")
        assert stats.primes == 1
        assert stats.updates >= 2
        described = lake.backends["store"].describe("docs")
        assert isinstance(described, Description)
        assert (described.dim, described.count) == (4, 4)
    with pytest.raises(errors.BackendError):
        lake.search_one("docs", EYE[0])


async def test_a_database_of_asyncio_is_a_backend() -> None:
    async with limnion.Database() as db:
        await db.put("docs", "a", {}, vector=EYE[0])
        lake = limnion.Lake(backends=[limnion.StoreBackend(db, "main")])
        hits = await lake.search_one_async("docs", EYE[0])
        assert [(hit.backend, hit.id) for hit in hits] == [("main", "a")]
        await asyncio.gather(*(db.put("docs", str(i), {}, vector=EYE[i % 4]) for i in range(40)))
        assert len(await lake.search_one_async("docs", EYE[0], k=100)) == 41


def test_what_is_no_database_is_refused() -> None:
    with pytest.raises(errors.InvalidTypeError, match="must be a limnion"):
        limnion.StoreBackend("docs.db")  # type: ignore[arg-type]


def test_one_question_to_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "bucket").mkdir()
    shard = limnion.LocalBackend("memory")
    shard.upsert("docs", [0], EYE[:1])
    disk = limnion.FsBackend("disk", tmp_path / "disk")
    disk.upsert("docs", [1], EYE[1:2])
    bucket = limnion.ObjectStoreBackend("bucket", (tmp_path / "bucket").as_uri())
    bucket.put_rows("docs", [2], EYE[2:3])
    with limnion.Database.sync() as db:
        put(db, "three", EYE[3])
        lake = limnion.Lake(backends=[shard, disk, bucket, limnion.StoreBackend(db)])
        query = np.array([1, 2, 3, 4], dtype=np.float32)
        hits = lake.search_federated("docs", query)
        found = [(hit.backend, hit.id) for hit in hits]
        assert found == [("store", "three"), ("bucket", 2), ("disk", 1), ("memory", 0)]
        assert hits.ids == ["three", 2, 1, 0]
        assert list(hits.report) == ["bucket", "disk", "memory", "store"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_child_leaves_the_database_of_its_parent_alone(run_python: RunPython) -> None:
    done = run_python(
        """
        import os, numpy as np, limnion
        rows = np.eye(4, dtype=np.float32)
        db = limnion.Database.sync()
        db.put("docs", "a", 1, vector=rows[0])
        shard = limnion.LocalBackend("shard")
        shard.upsert("near", [1], rows[:1])
        lake = limnion.Lake(backends=[limnion.StoreBackend(db), shard])
        lake.search_one("docs", rows[0])
        child = os.fork()
        if child == 0:
            try:
                lake.search_one("docs", rows[0], backend="store")
            except limnion.LimnionError as error:
                print(error.kind, lake.search_one("near", rows[0], backend="shard")[0].id)
            import sys
            sys.exit(0)
        os.waitpid(child, 0)
        print(lake.search_one("docs", rows[0])[0].id)
        """
    )
    assert done.stdout == "forked-process 1\na\n", done.stderr
