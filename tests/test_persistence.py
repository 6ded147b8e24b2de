"""Files: what is saved comes back, whatever lies there is answered with a sentence."""

import itertools
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import CLASSES, IndexClass, Vectors, random_vectors

import limnion
from limnion import errors

BUILDS: list[tuple[IndexClass, dict[str, Any]]] = [
    (limnion.FlatF32Index, {}),
    (limnion.FlatF32Index, {"metric": "cosine"}),
    (limnion.RabitqIndex, {"metric": "ip"}),
    (limnion.RabitqAsymIndex, {"bits": 3}),
    (limnion.RabitqAsymIndex, {"bits": 5, "originals": "f16", "metric": "cosine"}),
    (limnion.RabitqPlusIndex, {"seed": 2**63 + 1, "rerank_factor": 7}),
    (limnion.RabitqPlusIndex, {"originals": "f16", "bits": 2}),
    (limnion.IvfIndex, {}),
    (limnion.IvfIndex, {"originals": "f16", "bits": 3, "metric": "cosine", "lists": 20}),
    (limnion.IvfIndex, {"originals": None, "bits": 4, "metric": "ip"}),
    (limnion.GraphIndex, {}),
    (limnion.GraphIndex, {"originals": None, "bits": 8, "metric": "ip", "layout": "inline"}),
]


@pytest.fixture(params=BUILDS, ids=lambda build: f"{build[0].__name__}-{build[1]}")
def index(request: pytest.FixtureRequest, vectors: Vectors) -> Any:
    """Return an index of each kind."""
    index_class, options = request.param
    return index_class.build(vectors, ids=range(7, 7 + len(vectors)), **options)


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_saved_comes_back(
    index: limnion.RabitqPlusIndex, vectors: Vectors, tmp_path: Path, mmap: bool
) -> None:
    index.save(tmp_path / "index")
    again = type(index).load(tmp_path / "index", mmap=mmap)
    assert type(again) is type(index)
    assert again == index
    assert repr(again).partition(", memory")[0] == repr(index).partition(", memory")[0]
    assert again.search_batch(vectors[:20]) == index.search_batch(vectors[:20])


def test_paths_are_strings_or_paths(vectors: Vectors, tmp_path: Path) -> None:
    index = limnion.FlatF32Index.build(vectors)
    index.save(str(tmp_path / "a"))
    assert limnion.FlatF32Index.load(path=str(tmp_path / "a")) == index
    for wrong in (3, None, b"a"):
        with pytest.raises(errors.InvalidTypeError, match="path must be a string or a path"):
            index.save(wrong)  # type: ignore[arg-type]


def test_a_mapped_index_takes_no_memory_and_can_be_changed(
    vectors: Vectors, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    index = limnion.RabitqPlusIndex.build(vectors)
    index.save(path)
    before = path.read_bytes()
    mapped = limnion.RabitqPlusIndex.load(path, mmap=True)
    assert mapped.memory_bytes < index.memory_bytes / 4
    view = np.asarray(mapped)
    mapped.add(id=10**6, vector=vectors[0])
    mapped.remove(3)
    index.add(id=10**6, vector=vectors[0])
    index.remove(3)
    assert mapped == index
    assert path.read_bytes() == before
    del mapped
    np.testing.assert_array_equal(view, vectors)


def test_the_same_index_gives_the_same_bytes(
    index: limnion.RabitqPlusIndex, tmp_path: Path
) -> None:
    index.save(tmp_path / "one")
    type(index).load(tmp_path / "one").save(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_is_replaced_all_at_once(vectors: Vectors, tmp_path: Path) -> None:
    path = tmp_path / "index"
    small, large = limnion.FlatF32Index.build(vectors[:100]), limnion.FlatF32Index.build(vectors)
    small.save(path)
    stop = threading.Event()

    def write() -> None:
        for index in itertools.cycle([large, small]):
            if stop.is_set():
                return
            index.save(path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            assert limnion.FlatF32Index.load(path) in (small, large)
    finally:
        stop.set()
        writer.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_an_index_may_be_saved_over_the_file_that_it_maps(vectors: Vectors, tmp_path: Path) -> None:
    path = tmp_path / "index"
    limnion.RabitqPlusIndex.build(vectors).save(path)
    mapped = limnion.RabitqPlusIndex.load(path, mmap=True)
    mapped.add(id=10**6, vector=vectors[0])
    if sys.platform == "win32":
        pytest.skip("a mapped file cannot be replaced there")
    mapped.save(path)
    assert limnion.RabitqPlusIndex.load(path) == mapped


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(("saved", "loaded"), list(itertools.permutations(CLASSES, 2)))
def test_a_file_of_another_class_names_it(
    vectors: Vectors, tmp_path: Path, saved: IndexClass, loaded: IndexClass, mmap: bool
) -> None:
    saved.build(vectors).save(tmp_path / "index")
    with pytest.raises(errors.PersistError, match=rf"{saved.__name__}\.load\(path\)") as raised:
        loaded.load(tmp_path / "index", mmap=mmap)
    assert "index" in raised.value.message


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_not_there_is_not_found(
    index_class: IndexClass, tmp_path: Path, mmap: bool
) -> None:
    with pytest.raises(FileNotFoundError, match="missing") as raised:
        index_class.load(tmp_path / "missing", mmap=mmap)
    assert isinstance(raised.value, errors.IndexFileNotFoundError)
    with pytest.raises(OSError, match="folder") as failed:
        index_class.build(random_vectors(3, 4)).save(tmp_path / "folder" / "index")
    assert isinstance(failed.value, errors.PersistError)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_folder_is_no_index(index_class: IndexClass, tmp_path: Path, mmap: bool) -> None:
    with pytest.raises(errors.PersistError):
        index_class.load(tmp_path, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("content", [b"", b"x", b"limnidx\n", b"\0" * 4096, b"PK\x03\x04" * 99])
def test_what_is_no_index_is_corrupt(tmp_path: Path, content: bytes, mmap: bool) -> None:
    path = tmp_path / "index"
    path.write_bytes(content)
    with pytest.raises(errors.PersistError) as raised:
        limnion.RabitqPlusIndex.load(path, mmap=mmap)
    assert isinstance(raised.value, errors.CorruptFileError) or not content


def test_every_cut_is_noticed(index: limnion.RabitqPlusIndex, tmp_path: Path) -> None:
    path = tmp_path / "index"
    index.save(path)
    whole = path.read_bytes()
    for length in {0, 1, 31, 32, 60, 200, 256, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        for mmap in (False, True):
            with pytest.raises(errors.PersistError):
                type(index).load(path, mmap=mmap)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(tmp_path: Path, place: float, bit: int) -> None:
    path = tmp_path / "flipped"
    index = limnion.RabitqPlusIndex.build(random_vectors(70, 24), bits=2, ids=range(5, 75))
    index.save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        again = limnion.RabitqPlusIndex.load(path)
    except errors.PersistError:
        return
    assert again == index  # a bit between two sections means nothing


def test_a_mapped_part_is_verified_when_it_is_used(vectors: Vectors, tmp_path: Path) -> None:
    path = tmp_path / "index"
    limnion.FlatF32Index.build(vectors).save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(errors.CorruptFileError):
        limnion.FlatF32Index.load(path)
    mapped = limnion.FlatF32Index.load(path, mmap=True)
    with pytest.raises(errors.CorruptFileError):
        mapped.search(vectors[0])
    with pytest.raises(errors.CorruptFileError):
        np.asarray(mapped)


def test_a_newer_version_is_refused_with_a_sentence(vectors: Vectors, tmp_path: Path) -> None:
    path = tmp_path / "index"
    limnion.FlatF32Index.build(vectors).save(path)
    content = bytearray(path.read_bytes())
    content[8:12] = struct.pack("<I", 2)
    path.write_bytes(content)
    with pytest.raises(errors.PersistError) as raised:
        limnion.FlatF32Index.load(path)
    assert isinstance(raised.value, errors.NewerFileError | errors.CorruptFileError)


def rbpx(vectors: Vectors, ids: list[int], rerank_factor: int = 20, seed: int = 42) -> bytes:
    """Write a file of ruvector, version 1."""
    rows, dim = vectors.shape
    header = struct.pack("<8sIIQII", b"rbpx0001", 1, dim, seed, rerank_factor, rows)
    body = b"".join(
        struct.pack("<I", id_) + row.tobytes() for id_, row in zip(ids, vectors, strict=True)
    )
    return header + body


@pytest.mark.parametrize("mmap", [False, True])
def test_files_of_ruvector_are_read(vectors: Vectors, tmp_path: Path, mmap: bool) -> None:
    path = tmp_path / "index.rbpx"
    ids = list(range(1000, 1000 + len(vectors)))
    path.write_bytes(rbpx(vectors, ids))
    index = limnion.RabitqPlusIndex.load(path, mmap=mmap)
    assert index == limnion.RabitqPlusIndex.build(vectors, ids=ids, rerank_factor=20, seed=42)
    assert index.search(vectors[3], k=1)[0].id == 1003
    for other in (limnion.FlatF32Index, limnion.IvfIndex):
        with pytest.raises(errors.PersistError, match=r"write RabitqPlusIndex\.load"):
            other.load(path, mmap=mmap)


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "a byte short": lambda content: content[:-1],
    "a byte long": lambda content: content + b"\0",
    "half a header": lambda content: content[:20],
    "no dimension": lambda content: content[:12] + struct.pack("<I", 0) + content[16:],
    "a huge dimension": lambda content: content[:12] + b"\xff" * 4 + content[16:],
    "too many rows": lambda content: content[:28] + b"\xff" * 4 + content[32:],
    "a later version": lambda content: content[:8] + struct.pack("<I", 9) + content[12:],
    "a number that is none": lambda content: content[:40] + b"\xff" * 4 + content[44:],
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_spoilt_files_of_ruvector_are_refused(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "index.rbpx"
    path.write_bytes(spoil(rbpx(random_vectors(20, 8), list(range(20)))))
    with pytest.raises(limnion.LimnionError):
        limnion.RabitqPlusIndex.load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits there")
def test_a_hostile_count_does_not_take_memory(tmp_path: Path) -> None:
    path = tmp_path / "index.rbpx"
    content = bytearray(rbpx(random_vectors(2, 8), [1, 2]))
    content[28:32] = struct.pack("<I", 100_000_000)
    path.write_bytes(content)
    program = (
        "import resource, sys, limnion\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try:\n"
        "    limnion.RabitqPlusIndex.load(sys.argv[1])\n"
        "except limnion.PersistError as problem:\n"
        "    print(problem.kind)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, os.fspath(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "corrupt-file\n", done.stderr
