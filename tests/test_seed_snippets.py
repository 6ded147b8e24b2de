"""The snippets of the API that limnion set out from, with their import changed."""

from pathlib import Path

import numpy as np
import pytest

import limnion


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the snippets write where they like."""
    monkeypatch.chdir(tmp_path)


def test_the_top_level_layout() -> None:
    for name in (
        "FlatF32Index",
        "RabitqIndex",
        "RabitqPlusIndex",
        "RabitqAsymIndex",
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
