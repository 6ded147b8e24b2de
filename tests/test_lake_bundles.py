"""What outlives a process: published bundles, and saved indexes."""

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import RunPython, Vectors, random_vectors

import limnion
from limnion import Consistency, LakeBundle, RefreshResult, errors
from limnion.lake import ObjectShelf
from limnion.protocols import Description, Pulled

EYE = np.eye(4, dtype=np.float32)
RULAKE = {
    "format_version": 1,
    "data_ref": "gs://bucket/x.parquet",
    "dim": 128,
    "rotation_seed": 42,
    "rerank_factor": 20,
    "generation": 7,
    "rvf_witness": "7eac1775d1f76a4db88672655fc64977287ec60eda47c6df3a19bacfd0c038cd",
}


@pytest.fixture
def disk(tmp_path: Path, vectors: Vectors) -> limnion.FsBackend:
    """Return a folder with a collection of numbers, and one of names."""
    (tmp_path / "data").mkdir()
    disk = limnion.FsBackend("disk", tmp_path / "data")
    disk.upsert("docs", range(len(vectors)), vectors)
    disk.upsert("named", [f"row {row}" for row in range(300)], vectors[:300])
    return disk


def answers(lake: limnion.Lake) -> list[Any]:
    """Return what a lake finds in both collections."""
    queries = random_vectors(5, 96, seed=5)
    return [
        lake.search_one(name, query, k=5).to_list()
        for name in ("docs", "named")
        for query in queries
    ]


def primes(lake: limnion.Lake) -> int:
    """Return how many indexes the lake has built."""
    return lake.stats().primes


def test_one_publishes_and_many_take(disk: limnion.FsBackend, tmp_path: Path) -> None:
    writer = limnion.Lake(backends=[disk])
    wanted = answers(writer)
    for name in ("docs", "named"):
        witness = writer.publish_bundle(name, tmp_path / name, lineage_id="run 7")
        bundle = LakeBundle.read(tmp_path / name)
        assert bundle.witness == witness
        assert (bundle.metric, bundle.bits, bundle.originals) == ("cosine", 1, "f32")
        assert (bundle.has_names, bundle.lineage_id) == (name == "named", "run 7")
        assert bundle.rerank_factor is None
        bundle.verify(os.fspath(tmp_path / name))
    for verify in (True, False):
        reader = limnion.Lake(backends=[limnion.FsBackend("disk", disk.path)])
        for name in ("docs", "named"):
            assert reader.take_bundle(name, tmp_path / name, verify=verify) == LakeBundle.read(
                tmp_path / name
            )
        assert answers(reader) == wanted
        assert primes(reader) == 0
    disk.upsert("docs", [10**9], EYE[:1].repeat(24, axis=1))
    assert reader.search_one("docs", EYE[0].repeat(24), k=1)[0].id == 10**9
    # What was published is not current any more, and is no reason to find less.
    late = limnion.Lake(backends=[disk])
    late.take_bundle("docs", tmp_path / "docs")
    assert late.search_one("docs", EYE[0].repeat(24), k=1)[0].id == 10**9


def test_a_reader_hears_of_a_new_bundle(tmp_path: Path) -> None:
    shard = limnion.LocalBackend("hot-shard")
    shard.upsert("docs", [1, 2, 3], EYE[:3])
    lake = limnion.Lake(backends=[shard], consistency=Consistency.FROZEN)
    key, place = ("hot-shard", "docs"), tmp_path / "bundle"
    assert lake.refresh_from_bundle_dir(key, place) is RefreshResult.BUNDLE_MISSING
    with pytest.raises(errors.CacheMissError, match="publish_bundle"):
        lake.take_bundle("docs", place)
    old = lake.publish_bundle("docs", place)
    assert lake.refresh_from_bundle_dir(key=key, dir=place) is RefreshResult.UP_TO_DATE
    writer = limnion.Lake(backends=[shard])
    shard.upsert("docs", [4], EYE[3:])
    new = writer.publish_bundle("docs", place)
    assert new != old
    assert len(lake.search_one("docs", EYE[3])) == 3  # as the lake was told to
    assert lake.refresh_from_bundle_dir(key, place) is RefreshResult.INVALIDATED
    assert key not in lake
    assert lake.take_bundle("docs", place).witness == new
    assert lake.search_one("docs", EYE[3], k=1)[0].id == 4
    assert primes(lake) == 1


async def test_every_verb_can_be_awaited(tmp_path: Path, disk: limnion.FsBackend) -> None:
    lake = limnion.Lake(backends=[disk])
    key, place = ("disk", "docs"), tmp_path / "bundle"
    witness = await lake.publish_bundle_async("docs", place, timeout=60)
    assert await lake.refresh_from_bundle_dir_async(key, place) is RefreshResult.UP_TO_DATE
    bundle = await lake.take_bundle_async("docs", place)
    assert bundle.witness == witness
    await asyncio.to_thread(bundle.verify, place)
    assert await lake.save_cache_async(tmp_path / "cache") == [key]
    fresh = limnion.Lake(backends=[disk])
    assert (await fresh.load_cache_async(tmp_path / "cache")).loaded == [key]


def test_a_bundle_of_other_data_is_refused(tmp_path: Path) -> None:
    shards = [limnion.LocalBackend("shard") for _ in range(2)]
    for row, shard in enumerate(shards):
        shard.upsert("docs", [row], EYE[row : row + 1])
    one, other = (limnion.Lake(backends=[shard]) for shard in shards)
    one.publish_bundle("docs", tmp_path)
    with pytest.raises(errors.WitnessMismatch, match="the backend has"):
        other.take_bundle("docs", tmp_path)
    other.prime("docs")
    with pytest.raises(errors.WitnessMismatch):
        other.refresh_from_bundle_dir(("shard", "docs"), tmp_path)
    finer = limnion.Lake(backends=[shards[0]], bits=2)
    with pytest.raises(errors.InvalidArgumentError, match=r"bits=1.*bits=2.*same settings"):
        finer.take_bundle("docs", tmp_path)
    bundle = LakeBundle.read(tmp_path)
    other.publish_bundle("docs", tmp_path)
    with pytest.raises(errors.WitnessMismatch, match="another one has been published"):
        bundle.verify(tmp_path)


def test_damage_is_noticed(tmp_path: Path, disk: limnion.FsBackend) -> None:
    lake = limnion.Lake(backends=[disk])
    lake.publish_bundle("named", tmp_path / "bundle")
    bundle = LakeBundle.read(tmp_path / "bundle")
    for file in sorted((tmp_path / "bundle").iterdir()):
        whole = file.read_bytes()
        for at in {0, len(whole) // 3, len(whole) // 2, len(whole) - 2}:
            for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
                file.write_bytes(damaged)
                with pytest.raises(errors.LakeError):
                    bundle.verify(tmp_path / "bundle")
                with pytest.raises(errors.LakeError):
                    lake.take_bundle("named", tmp_path / "bundle")
        file.unlink()
        with pytest.raises(errors.LakeError):
            bundle.verify(tmp_path / "bundle")
        file.write_bytes(whole)
    bundle.verify(tmp_path / "bundle")


def test_manifests_of_rulake_are_read(tmp_path: Path) -> None:
    manifest = tmp_path / "table.rulake.json"
    manifest.write_text(json.dumps(RULAKE))
    bundle = LakeBundle.read(tmp_path)
    assert (bundle.format_version, bundle.dim, bundle.generation) == (1, 128, 7)
    assert (bundle.data_ref, bundle.rerank_factor) == ("gs://bucket/x.parquet", 20)
    assert (bundle.rows, bundle.metric, bundle.bits, bundle.content) == (None, None, None, None)
    bundle.verify(tmp_path)
    manifest.write_text(json.dumps(RULAKE | {"generation": 8}))
    with pytest.raises(errors.WitnessMismatch):
        LakeBundle.read(tmp_path)
    manifest.write_text(json.dumps(RULAKE | {"format_version": 99}))
    with pytest.raises(errors.LakeError, match="newer version"):
        LakeBundle.read(tmp_path)


def test_places_may_be_addresses(tmp_path: Path, disk: limnion.FsBackend) -> None:
    url = (tmp_path / "bucket").as_uri()
    lake = limnion.Lake(backends=[disk])
    wanted = answers(lake)
    witness = lake.publish_bundle("docs", url + "/docs")
    shelf = ObjectShelf(url + "/docs")
    assert repr(shelf) == f'ObjectShelf("{shelf.url}")'
    assert LakeBundle.read(shelf).witness == witness
    LakeBundle.read(tmp_path / "bucket" / "docs").verify(shelf)
    assert lake.save_cache(url) == [("disk", "docs"), ("disk", "named")]
    for place in (url, tmp_path / "bucket"):
        reader = limnion.Lake(backends=[disk])
        assert not reader.load_cache(place).skipped
        assert answers(reader) == wanted
        assert primes(reader) == 0


def test_places_that_cannot_be_are_told() -> None:
    lake = limnion.Lake()
    for wrong in (7, None, b"\0"):
        with pytest.raises((TypeError, ValueError)):
            lake.save_cache(wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match="dir must be a folder"):
        lake.load_cache("")
    with pytest.raises(errors.InvalidArgumentError):
        lake.save_cache("nosuch://bucket/x")
    with pytest.raises(errors.InvalidArgumentError):
        ObjectShelf("file:///tmp", region="x")
    for key in ("docs", ("docs",), (1, 2)):
        with pytest.raises(errors.InvalidTypeError, match=r"key must be a tuple"):
            lake.refresh_from_bundle_dir(key, "x")  # type: ignore[arg-type]
    with pytest.raises(errors.UnknownCollection):
        lake.refresh_from_bundle_dir(("nobody", "docs"), "x")


def test_a_folder_that_is_a_file_is_told(tmp_path: Path, disk: limnion.FsBackend) -> None:
    (tmp_path / "file").write_text("")
    lake = limnion.Lake(backends=[disk])
    lake.prime("docs")
    for ask in (lake.save_cache, lake.load_cache, lambda place: lake.publish_bundle("docs", place)):
        with pytest.raises(errors.LakeError):
            ask(tmp_path / "file")


def test_saved_indexes_survive_a_restart(
    tmp_path: Path, disk: limnion.FsBackend, run_python: RunPython
) -> None:
    lake = limnion.Lake(backends=[disk])
    wanted = answers(lake)
    assert lake.save_cache(tmp_path / "cache") == [("disk", "docs"), ("disk", "named")]
    program = """
        import sys
        import numpy as np
        import limnion

        lake = limnion.Lake(backends=[limnion.FsBackend("disk", sys.argv[1])])
        loaded = lake.load_cache(sys.argv[2])
        assert loaded.loaded == [("disk", "docs"), ("disk", "named")], loaded
        assert not loaded.skipped
        queries = np.random.default_rng(5).standard_normal((5, 96), dtype=np.float32)
        for name in ("docs", "named"):
            for query in queries:
                print([(hit.id, hit.score) for hit in lake.search_one(name, query, k=5)])
        assert lake.stats().primes == 0
    """
    ran = run_python(program, os.fspath(disk.path), os.fspath(tmp_path / "cache"))
    assert ran.stderr == ""
    said = "".join(f"{[(hit.id, hit.score) for hit in hits]}\n" for hits in wanted)
    assert ran.stdout == said


@pytest.mark.parametrize(
    "consistency",
    [{}, {"consistency": Consistency.FROZEN}, {"consistency": Consistency.EVENTUAL, "ttl": 60}],
)
def test_a_saved_index_is_never_staler_than_any(
    tmp_path: Path, disk: limnion.FsBackend, vectors: Vectors, consistency: dict[str, Any]
) -> None:
    limnion.Lake(backends=[disk]).prime("docs")
    first = limnion.Lake(backends=[disk])
    first.prime("docs")
    first.save_cache(tmp_path / "cache")
    disk.upsert("docs", [10**9], -vectors[:1])
    lake = limnion.Lake(backends=[disk], **consistency)
    assert lake.load_cache(tmp_path / "cache").loaded == [("disk", "docs")]
    assert ("disk", "docs") in lake
    assert lake.search_one("docs", -vectors[0], k=1)[0].id == 10**9
    # What is in memory is not put back to what it was.
    assert lake.load_cache(tmp_path / "cache").loaded == [("disk", "docs")]
    assert lake.search_one("docs", -vectors[0], k=1)[0].id == 10**9


def test_a_database_is_warm_after_a_restart(tmp_path: Path, vectors: Vectors) -> None:
    with limnion.Database.sync(tmp_path / "db") as db:
        for row, vector in enumerate(vectors[:50]):
            db.put("docs", f"row {row}", {}, vector=vector)
        lake = limnion.Lake(backends=[limnion.StoreBackend(db)])
        wanted = lake.search_one("docs", vectors[3]).to_list()
        lake.save_cache(tmp_path / "cache")
    with limnion.Database.sync(tmp_path / "db") as db:
        lake = limnion.Lake(backends=[limnion.StoreBackend(db)])
        lake.load_cache(tmp_path / "cache")
        assert lake.search_one("docs", vectors[3]).to_list() == wanted
        db.put("docs", "new", {}, vector=-vectors[0])
        assert lake.search_one("docs", -vectors[0], k=1)[0].id == "new"
        assert primes(lake) == 0


class Table:
    """A backend of one's own, which says where its data lies, or does not."""

    name = "table"

    def __init__(self, source: str | None, rows: Vectors = EYE) -> None:
        self.source = source
        self.rows = rows

    def list_collections(self) -> list[str]:
        """Return the only one."""
        return ["docs"]

    def describe(self, collection: str) -> Description:
        """Return what it is."""
        assert collection == "docs"
        return Description(4, len(self.rows), 1, source=self.source)

    def pull(self, collection: str) -> Pulled:
        """Return all rows."""
        assert collection == "docs"
        return Pulled(range(len(self.rows)), self.rows, 1)


@pytest.mark.parametrize(("source", "built"), [("db://host/table", 0), (None, 1)])
def test_a_source_says_whose_data_it_is(tmp_path: Path, source: str | None, built: int) -> None:
    first = limnion.Lake(backends=[Table(source)])
    first.prime("docs")
    first.save_cache(tmp_path)
    lake = limnion.Lake(backends=[Table(source)])
    lake.load_cache(tmp_path)
    assert lake.search_one("docs", EYE[2], k=1)[0].id == 2
    assert primes(lake) == built
    stranger = limnion.Lake(backends=[Table("db://other", -EYE)])
    stranger.load_cache(tmp_path)
    assert stranger.search_one("docs", -EYE[2], k=1)[0].id == 2
    assert primes(stranger) == 1


def test_damaged_files_cost_time_and_no_answer(tmp_path: Path, disk: limnion.FsBackend) -> None:
    first = limnion.Lake(backends=[disk])
    wanted = answers(first)
    first.save_cache(tmp_path / "cache")
    for file in sorted((tmp_path / "cache").iterdir()):
        whole = file.read_bytes()
        half = len(whole) // 2
        flipped = whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :]
        for spoiled in (b"", whole[:-1], flipped, b"\xff" * len(whole)):
            file.unlink()  # and not overwritten: lakes of before have it mapped
            file.write_bytes(spoiled)
            lake = limnion.Lake(backends=[disk])
            loaded = lake.load_cache(tmp_path / "cache")
            assert len(loaded.loaded) + len(loaded.skipped) == 2
            assert all(isinstance(why, errors.LakeError) for why in loaded.skipped.values())
            assert answers(lake) == wanted
            assert primes(lake) == 1, (file, loaded)
        file.write_bytes(whole)
    shutil.rmtree(tmp_path / "cache")
    lake = limnion.Lake(backends=[disk])
    assert lake.load_cache(tmp_path / "cache") == ([], {})
    assert answers(lake) == wanted


def test_what_belongs_to_nobody_is_left_out(tmp_path: Path, disk: limnion.FsBackend) -> None:
    first = limnion.Lake(backends=[disk])
    answers(first)
    first.save_cache(tmp_path / "cache")
    (tmp_path / "cache" / "+bundle.json").write_text("{}")
    (tmp_path / "cache" / "%zz+x+bundle.json").write_text("{}")
    (tmp_path / "cache" / "disk+huge+bundle.json").write_bytes(b"[" * 100_000)
    loaded = limnion.Lake().load_cache(tmp_path / "cache")
    assert not loaded.loaded
    kinds = {key: why.kind for key, why in loaded.skipped.items()}
    assert kinds[("disk", "docs")] == "unknown-collection"
    lake = limnion.Lake(backends=[disk])
    loaded = lake.load_cache(tmp_path / "cache")
    assert loaded.loaded == [("disk", "docs"), ("disk", "named")]
    assert loaded.skipped[("disk", "huge")].kind == "witness-mismatch"


def test_a_lake_may_be_saved_while_it_is_searched(tmp_path: Path, disk: limnion.FsBackend) -> None:
    lake = limnion.Lake(backends=[disk])
    wanted = answers(lake)

    async def both() -> None:
        saving = asyncio.gather(*[lake.save_cache_async(tmp_path / "cache") for _ in range(4)])
        while not saving.done():
            assert await asyncio.to_thread(answers, lake) == wanted
        await saving

    asyncio.run(both())
    reader = limnion.Lake(backends=[disk])
    assert not reader.load_cache(tmp_path / "cache").skipped
    assert answers(reader) == wanted
    # It is saved again over the files that it has mapped.
    reader.save_cache(tmp_path / "cache")
    assert answers(reader) == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_may_load_what_its_parent_saved(
    tmp_path: Path, disk: limnion.FsBackend, run_python: RunPython
) -> None:
    program = """
        import os, sys
        import numpy as np
        import limnion

        lake = limnion.Lake(backends=[limnion.FsBackend("disk", sys.argv[1])])
        query = np.ones(96, dtype=np.float32)
        wanted = lake.search_one("docs", query).to_list()
        lake.save_cache(sys.argv[2])
        child = os.fork()
        if child == 0:
            assert lake.load_cache(sys.argv[2]).loaded == [("disk", "docs")]
            assert lake.search_one("docs", query).to_list() == wanted
            assert lake.stats().primes == 0
            sys.stdout.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    ran = run_python(program, os.fspath(disk.path), os.fspath(tmp_path / "cache"))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_cancelled_publication_leaves_the_folder_whole(
    tmp_path: Path, disk: limnion.FsBackend
) -> None:
    lake = limnion.Lake(backends=[disk])
    lake.prime("docs")

    async def give_up(seconds: float) -> None:
        publishing = asyncio.ensure_future(lake.publish_bundle_async("docs", tmp_path / "bundle"))
        await asyncio.sleep(seconds)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)

    for seconds in (0.0, 0.001, 0.003, 0.01, 0.03):
        asyncio.run(give_up(seconds))
        if (tmp_path / "bundle" / "bundle.json").exists():
            LakeBundle.read(tmp_path / "bundle").verify(tmp_path / "bundle")
    time.sleep(0.1)  # what was begun comes to its end
    lake.publish_bundle("docs", tmp_path / "bundle")
    LakeBundle.read(tmp_path / "bundle").verify(tmp_path / "bundle")
