"""Late interaction, against a naive oracle."""

import asyncio
import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Vectors

import limnion
from limnion import errors

if TYPE_CHECKING:
    from limnion.types import Originals


DIM = 32
MetricOfDocuments = Literal["ip", "cosine"]


def some_documents(count: int, seed: int, dim: int = DIM, longest: int = 20) -> list[Vectors]:
    """Return documents whose vectors lie round topics that a document has few of."""
    numbers = np.random.default_rng(seed)
    topics = np.random.default_rng(7).standard_normal((60, dim), dtype=np.float32)
    made = []
    for _ in range(count):
        length = int(numbers.integers(1, longest + 1))
        chosen = topics[numbers.choice(60, 4)][numbers.integers(0, 4, length)]
        made.append(chosen + 0.4 * numbers.standard_normal((length, dim), dtype=np.float32))
    return made


def similarity(query: Vectors, document: Vectors, metric: MetricOfDocuments) -> float:
    """Return the sum over the query's vectors of the best product with one of the document's."""
    q, d = query.astype(np.float64), document.astype(np.float64)
    if metric == "cosine":
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        d /= np.linalg.norm(d, axis=1, keepdims=True)
    return float((q @ d.T).max(axis=1).sum())


def best(
    query: Vectors, documents: dict[int, Vectors], metric: MetricOfDocuments, k: int
) -> list[tuple[int, float]]:
    scored = [(similarity(query, document, metric), id) for id, document in documents.items()]
    return [(id, score) for score, id in sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:k]]


def agrees(hits: limnion.Hits, expected: list[tuple[int, float]]) -> None:
    assert [hit.id for hit in hits] == [id for id, _ in expected]
    scores = [score for _, score in expected]
    np.testing.assert_allclose(hits.scores, scores, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(hits.distances, -hits.scores)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_exact_searches_agree_with_a_naive_oracle_through_any_changes(data: st.DataObject) -> None:
    metric: MetricOfDocuments = data.draw(st.sampled_from(["ip", "cosine"]))
    seed = data.draw(st.integers(0, 1_000))
    held = dict(enumerate(some_documents(data.draw(st.integers(1, 40)), seed)))
    originals: Originals = data.draw(st.sampled_from(["f32", "f32", "f16"]))
    index = limnion.MultiVectorIndex.build(
        list(held.values()),
        metric=metric,
        originals=originals,
        bits=data.draw(st.sampled_from([1, 4])),
    )
    for at, document in enumerate(some_documents(6, seed + 1)):
        index.add(1_000 + at, document)
        held[1_000 + at] = document
        gone = data.draw(st.sampled_from(sorted(held)))
        index.remove(gone)
        del held[gone]
    if originals == "f16":
        held = {id: one.astype(np.float16).astype(np.float32) for id, one in held.items()}
    assert sorted(index.ids.tolist()) == sorted(held)
    assert len(index) == len(held)
    (query,) = some_documents(1, seed + 2)
    k = data.draw(st.integers(1, 12))
    if held:
        agrees(index.search(query, k, exact=True), best(query, held, metric, k))
        agrees(index.search(query, k), best(query, held, metric, k))
        picked = sorted(held)[::2]
        among = {id: held[id] for id in picked}
        rest = {id: document for id, document in held.items() if id not in among}
        agrees(index.search(query, k, where=[*picked, 77_777]), best(query, among, metric, k))
        for exact in (True, False):
            found = index.search(query, k, exclude=picked, exact=exact)
            agrees(found, best(query, rest, metric, k))


@pytest.mark.parametrize("metric", ["ip", "cosine"])
def test_candidates_by_their_vectors_hold_the_best_documents(metric: MetricOfDocuments) -> None:
    documents = some_documents(6_000, 1)
    index = limnion.MultiVectorIndex.build(documents, metric=metric)
    assert isinstance(index.tokens, limnion.IvfIndex)
    same = total = 0
    for query in some_documents(15, 2, longest=12):
        truth = index.search(query, exact=True)
        found = index.search(query)
        assert len(found) == 10
        assert asyncio.run(index.search_async(query)) == found
        assert asyncio.run(index.search_async(query, exact=True)) == truth
        same += len(set(truth.ids.tolist()) & set(found.ids.tolist()))
        total += 10
        fewer = index.search(query, candidates=10)
        assert fewer.scores[0] <= truth.scores[0]
        where = np.arange(0, 6_000, 2)
        allowed = index.search(query, where=where)
        assert len(allowed) == 10
        assert (allowed.ids % 2 == 0).all()
    assert same / total >= 0.95


def test_documents_are_a_collection(tmp_path: Path) -> None:
    documents = some_documents(30, 3)
    ids = [5 + 1_000_000_007 * at for at in range(30)]
    index = limnion.MultiVectorIndex.build(documents, ids=ids)
    assert len(index) == 30
    assert index.ids.tolist() == ids
    assert (index.dim, index.metric) == (DIM, "ip")
    assert index.memory_bytes == index.tokens.memory_bytes
    np.testing.assert_array_equal(index[ids[4]], documents[4])
    assert ids[4] in index
    assert 6 not in index
    assert "x" not in index
    assert repr(index).startswith("MultiVectorIndex(RabitqPlusIndex(")
    for kind in (limnion.RabitqPlusIndex, limnion.IvfIndex, limnion.FlatF32Index):
        tokens = kind.build(np.asarray(index.tokens), ids=index.tokens.ids, metric="ip")
        wrapped = limnion.MultiVectorIndex(tokens)
        wrapped.save(tmp_path / "index")
        for mmap in (False, True):
            again = limnion.MultiVectorIndex.load(tmp_path / "index", mmap=mmap)
            assert type(again.tokens) is kind
            assert again == wrapped
            assert again.search(documents[3], exact=True) == index.search(documents[3], exact=True)
    assert pickle.loads(pickle.dumps(index)) == index
    index.remove(ids[:2])
    index.remove(np.array(ids[2:4]))
    assert len(index) == 26
    assert (index == "text") is False


def test_a_search_sees_a_document_whole_or_not_at_all() -> None:
    documents = some_documents(200, 4)
    index = limnion.MultiVectorIndex.build(documents)
    (moving,) = some_documents(1, 5)
    query, stop = moving[:3].copy(), threading.Event()
    whole = similarity(query, moving, "ip")
    seen: list[float] = []

    def look() -> None:
        while not stop.is_set():
            found = {hit.id: hit.score for hit in index.search(query, 3, exclude=[1])}
            seen.extend(score for id, score in found.items() if id == 999)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(60):
        index.add(999, moving)
        index.search(query)
        index.remove(999)
    stop.set()
    thread.join()
    np.testing.assert_allclose(seen, whole, rtol=1e-4)


ONE = np.ones((2, DIM), dtype=np.float32)


def test_misuse_is_told() -> None:
    index = limnion.MultiVectorIndex.build([ONE, 2 * ONE])
    build = limnion.MultiVectorIndex.build
    wrong: list[tuple[Any, ...]] = [
        (errors.InvalidArgumentError, "at least one document", build, []),
        (errors.InvalidArgumentError, r"documents\[1\] must have 1 to", build, [ONE, ONE[:0]]),
        (errors.InvalidTypeError, r"documents\[0\] must be a float32", build, [ONE[0]]),
        (errors.InvalidTypeError, "float64", build, [ONE.astype(np.float64)]),
        (errors.DimensionMismatch, "one dimension", build, [ONE, ONE[:, :3]]),
        (errors.InvalidArgumentError, "finite", build, [ONE * np.nan]),
        (errors.DuplicateIdError, "id 1 is in the index", index.add, 1, ONE),
        (errors.InvalidArgumentError, r"2\*\*48", index.add, 1 << 48, ONE),
        (errors.InvalidTypeError, "id must be integers", index.add, "x", ONE),
        (errors.DimensionMismatch, "dimensions", index.add, 7, ONE[:, :3].copy()),
        (errors.IdNotFoundError, "id 7", index.remove, [1, 7]),
        (errors.IdNotFoundError, "id 7", index.__getitem__, 7),
        (errors.InvalidTypeError, "must be a C-contiguous", index.search, ONE[0]),
        (errors.InvalidArgumentError, "at least one vector", index.search, ONE[:0]),
        (errors.DimensionMismatch, "dimensions", index.search, ONE[:, :3].copy()),
        (errors.InvalidArgumentError, "k must be at least 1", index.search, ONE, 0),
        (errors.InvalidTypeError, "k must be an integer", index.search, ONE, "3"),
    ]
    for kind, message, call, *arguments in wrong:
        with pytest.raises(kind, match=message):
            call(*arguments)
    with pytest.raises(errors.InvalidArgumentError, match="candidates must be at least 1"):
        index.search(ONE, candidates=0)
    with pytest.raises(errors.DuplicateIdError):
        build([ONE, ONE], ids=[3, 3])
    with pytest.raises(errors.InvalidArgumentError, match="as many as the documents"):
        build([ONE, ONE], ids=[3])
    with pytest.raises(errors.InvalidArgumentError, match="got 'l2'"):
        limnion.MultiVectorIndex(limnion.FlatF32Index.build(ONE))
    with pytest.raises(errors.InvalidArgumentError, match="codes alone"):
        limnion.MultiVectorIndex(limnion.RabitqAsymIndex.build(ONE, metric="ip"))
    assert len(index) == 2
    assert len(index.search(ONE, where=[])) == 0
    index.remove([0, 1])
    with pytest.raises(errors.EmptyIndex):
        index.search(ONE)
    with pytest.raises(errors.EmptyIndex):
        index.search(ONE, exact=True)
