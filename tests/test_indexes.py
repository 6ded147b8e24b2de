"""What the indexes do, against numpy."""

import asyncio
import copy
import itertools
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import KEEPING, IndexClass, KeepingClass, Vectors, random_vectors

import limnion
from limnion import errors
from limnion.types import Metric, Originals

METRICS: list[Metric] = ["l2", "ip", "cosine"]


def true_distances(vectors: Vectors, query: Vectors, metric: Metric) -> NDArray[np.float64]:
    """Return the metric's own number for each row."""
    rows, point = vectors.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        result: NDArray[np.float64] = np.linalg.norm(rows - point, axis=1)
    elif metric == "ip":
        result = -(rows @ point)
    else:
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(point)
        result = 1 - rows @ point / lengths
    return result


def nearest(vectors: Vectors, query: Vectors, metric: Metric, k: int) -> list[int]:
    distances = true_distances(vectors, query, metric)
    order = np.lexsort((np.arange(len(vectors)), distances))
    return [int(row) for row in order[:k]]


def recall(found: limnion.Hits, truth: list[int]) -> float:
    return len({hit.id for hit in found} & set(truth)) / len(truth)


@pytest.mark.parametrize("metric", METRICS)
def test_exact_indexes_find_what_numpy_finds(
    vectors: Vectors,
    metric: Metric,
    keeping_class: KeepingClass,
) -> None:
    index = keeping_class.build(vectors, metric=metric)
    for query in random_vectors(20, vectors.shape[1], seed=1):
        hits = index.search(query, k=10, recall=1.0)
        assert hits.ids.tolist() == nearest(vectors, query, metric, 10)
        expected = np.sort(true_distances(vectors, query, metric))[:10]
        np.testing.assert_allclose(hits.distances, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("index_class", "settings_of_build", "floor"),
    [
        (limnion.RabitqIndex, {}, 0.30),
        (limnion.RabitqAsymIndex, {"bits": 2}, 0.55),
        (limnion.RabitqAsymIndex, {"bits": 4}, 0.80),
        (limnion.RabitqAsymIndex, {"bits": 8}, 0.97),
        (limnion.RabitqAsymIndex, {"bits": 4, "originals": "f16"}, 0.98),
        (limnion.RabitqPlusIndex, {}, 0.98),
        (limnion.RabitqPlusIndex, {"bits": 4, "originals": "f16"}, 0.98),
    ],
)
def test_codes_find_nearly_what_numpy_finds(
    vectors: Vectors,
    metric: Metric,
    index_class: type[limnion.RabitqAsymIndex],
    settings_of_build: dict[str, int],
    floor: float,
) -> None:
    index = index_class.build(vectors, metric=metric, **settings_of_build)  # type: ignore[arg-type]
    queries = random_vectors(50, vectors.shape[1], seed=2)
    shares = [recall(index.search(query), nearest(vectors, query, metric, 10)) for query in queries]
    assert np.mean(shares) >= floor


@pytest.mark.parametrize("metric", METRICS)
def test_higher_scores_are_better_in_every_metric(
    vectors: Vectors, index_class: IndexClass, metric: Metric
) -> None:
    index = index_class.build(vectors, metric=metric)
    hits = index.search(vectors[3], k=50)
    assert (np.diff(hits.scores) <= 0).all()
    assert (np.diff(hits.distances) >= 0).all()
    expected: dict[Metric, Vectors] = {
        "l2": np.float32(1) / (1 + hits.distances),
        "ip": -hits.distances,
        "cosine": 1 - hits.distances,
    }
    np.testing.assert_allclose(hits.scores, expected[metric], rtol=1e-5, atol=1e-6)


def test_ties_are_broken_by_id(keeping_class: KeepingClass) -> None:
    same = np.ones((40, 64), dtype=np.float32)
    index = keeping_class.build(same, ids=np.arange(40)[::-1].copy())
    assert index.search(same[0], k=5).ids.tolist() == [0, 1, 2, 3, 4]


def test_a_search_gives_k_hits_whenever_k_rows_match(
    vectors: Vectors, index_class: IndexClass
) -> None:
    index = index_class.build(vectors[:50])
    for k in (1, 7, 50):
        assert len(index.search(vectors[0], k=k)) == k
    assert len(index.search(vectors[0], k=51)) == 50
    assert len(index.search(vectors[0], k=10**12)) == 50


def test_a_batch_finds_what_single_searches_find(vectors: Vectors, index_class: IndexClass) -> None:
    index = index_class.build(vectors, metric="cosine")
    queries = random_vectors(33, vectors.shape[1], seed=3)
    batch = index.search_batch(queries, k=7)
    assert list(batch) == [index.search(query, k=7) for query in queries]
    assert batch.ids.shape == batch.scores.shape == batch.distances.shape == (33, 7)
    assert (batch.ids[4] == batch[4].ids).all()


def test_a_batch_without_queries_is_empty(vectors: Vectors, index_class: IndexClass) -> None:
    batch = index_class.build(vectors).search_batch(vectors[:0], k=3)
    assert len(batch) == 0
    assert batch.ids.shape[0] == 0


@pytest.mark.parametrize("share", [0.5, 0.05, 0.002])
def test_where_takes_a_mask_or_ids_and_misses_nothing(
    vectors: Vectors, keeping_class: KeepingClass, share: float
) -> None:
    ids = np.arange(5_000, 5_000 + len(vectors), dtype=np.uint64)
    index = keeping_class.build(vectors, ids=ids)
    mask = np.random.default_rng(5).random(len(vectors)) < share
    allowed = np.flatnonzero(mask)
    query = random_vectors(1, vectors.shape[1], seed=6)[0]
    truth = [int(ids[allowed[row]]) for row in nearest(vectors[mask], query, "l2", 10)]
    for where in (mask, ids[mask], ids[mask].astype(np.int32), ids[mask].tolist()):
        hits = index.search(query, k=10, recall=1.0, where=where)
        assert hits.ids.tolist() == truth
        assert index.search_batch(query[None], k=10, recall=1.0, where=where)[0] == hits


def test_where_allows_nothing_but_what_it_names(vectors: Vectors, index_class: IndexClass) -> None:
    index = index_class.build(vectors)
    assert index.search(vectors[0], k=5, where=[17, 4, 17, 10**9]).ids.tolist() in (
        [4, 17],
        [17, 4],
    )
    assert len(index.search(vectors[0], k=5, where=[])) == 0
    assert len(index.search(vectors[0], k=5, where=np.zeros(len(vectors), dtype=bool))) == 0


def test_nothing_beyond_the_radius_is_found(vectors: Vectors, keeping_class: KeepingClass) -> None:
    index = keeping_class.build(vectors)
    query = random_vectors(1, vectors.shape[1], seed=6)[0]
    everything = index.search(query, k=len(vectors), recall=1.0)
    radius = float(everything.distances[19] + everything.distances[20]) / 2
    near = everything[:20]
    assert index.search(query, k=100, recall=1.0, radius=radius) == near
    assert index.search(query, k=5, recall=1.0, radius=radius) == near[:5]
    assert index.search_batch(query[None], k=100, recall=1.0, radius=radius)[0] == near
    assert len(index.search(query, radius=float(near.distances[0]) / 2)) == 0
    some = index.search_batch(np.stack([query, query + 100]), k=100, recall=1.0, radius=radius)
    assert list(some) == [near, near[:0]]
    assert pickle.loads(pickle.dumps(some)) == some != some[:1]
    assert repr(some) == "HitsBatch(2 queries, 0 to 20 hits each)"
    assert some[:1].ids.shape == (1, 20)
    with pytest.raises(errors.InvalidArgumentError, match="these have 0 to 20"):
        some.ids  # noqa: B018 - it raises
    with pytest.raises(errors.InvalidArgumentError, match="radius must be a finite number"):
        index.search(query, radius=float("nan"))
    with pytest.raises(errors.InvalidTypeError, match="radius must be a number, got str"):
        index.search(query, radius="1")  # type: ignore[arg-type]


def test_any_byte_but_zero_is_true_in_a_mask(vectors: Vectors) -> None:
    index = limnion.FlatF32Index.build(vectors[:64])
    odd = np.zeros(64, dtype=np.uint8)
    odd[9] = 0xFE
    assert index.search(vectors[0], where=odd.view(bool)).ids.tolist() == [9]


def test_recall_one_is_exact_and_rerank_factor_looks_closer(vectors: Vectors) -> None:
    index = limnion.RabitqPlusIndex.build(vectors)
    queries = random_vectors(40, vectors.shape[1], seed=8)
    truth = [nearest(vectors, query, "l2", 10) for query in queries]

    def mean_recall(**options: float) -> float:
        found = [index.search(query, **options) for query in queries]  # type: ignore[arg-type]
        return float(np.mean([recall(*pair) for pair in zip(found, truth, strict=True)]))

    assert mean_recall(recall=1.0) == 1.0
    assert mean_recall(rerank_factor=1) < mean_recall(rerank_factor=8) <= 1.0
    assert mean_recall(rerank_factor=len(vectors)) == 1.0


def test_the_same_data_and_seed_give_the_same_index(
    vectors: Vectors, index_class: IndexClass
) -> None:
    one, two = index_class.build(vectors, seed=7), index_class.build(vectors.copy(), seed=7)
    assert one == two
    assert not one != two  # noqa: SIM202 - both operators are meant
    assert one != index_class.build(vectors[:-1], seed=7)
    assert one != object()
    if index_class is not limnion.FlatF32Index:
        assert one != index_class.build(vectors, seed=8)


def test_indexes_are_not_hashable(vectors: Vectors, index_class: IndexClass) -> None:
    with pytest.raises(TypeError):
        hash(index_class.build(vectors[:3]))


def test_comparing_is_for_all_classes(vectors: Vectors) -> None:
    flat, plus = limnion.FlatF32Index.build(vectors), limnion.RabitqPlusIndex.build(vectors)
    assert flat != plus


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda i: pickle.loads(pickle.dumps(i))]
)
def test_copies_and_pickles_are_equal_and_apart(
    vectors: Vectors, index_class: IndexClass, again: object
) -> None:
    assert callable(again)
    index = index_class.build(vectors[:100], ids=range(100, 200), metric="ip")
    second = again(index)
    assert type(second) is index_class
    assert second == index
    second.add(id=1, vector=vectors[0])
    assert len(index) == 100
    assert second != index


def test_rows_come_change_and_go(vectors: Vectors, index_class: IndexClass) -> None:
    index = index_class.build(vectors[:100])
    index.add(id=500, vector=vectors[100])
    index.add(501, vectors[101])
    index.add_batch(vectors[102:110])
    assert index.ids.tolist()[-10:] == list(range(500, 510))
    index.add_batch(vectors[110:112], ids=[7_000, 2**64 - 1])
    assert len(index) == 112
    assert 2**64 - 1 in index
    assert index.search(vectors[105], k=1)[0].id == 505
    index.remove(505)
    index.remove([500, 7_000])
    index.remove(np.array([501]))
    assert len(index) == 108
    assert 505 not in index
    assert index.search(vectors[105], k=1)[0].id != 505
    index.update(id=3, vector=vectors[105])
    assert index.search(vectors[105], k=1)[0].id == 3
    index.update_batch([4, 5], vectors[200:202])
    assert index.search(vectors[201], k=1)[0].id == 5
    assert sorted(index.ids.tolist()) == sorted(
        [*range(100), *range(502, 505), *range(506, 510), 2**64 - 1]
    )


def test_memory_is_given_back(vectors: Vectors, index_class: IndexClass) -> None:
    index = index_class.build(vectors)
    before = index.memory_bytes
    index.remove(index.ids[100:])
    assert index.memory_bytes < before / 4
    assert len(index) == 100


@settings(max_examples=30, deadline=None)
@given(data=st.data(), originals=st.sampled_from(["f32", "f16"]), bits=st.integers(1, 8))
def test_an_index_holds_what_a_dictionary_holds(
    data: st.DataObject, originals: Originals, bits: int
) -> None:
    dim = 8
    numbers = np.random.default_rng(data.draw(st.integers(0, 1000), label="seed"))

    def fresh(n: int) -> Vectors:
        return numbers.integers(-50, 50, (n, dim)).astype(np.float32)

    start = fresh(5)
    index = limnion.RabitqPlusIndex.build(start, bits=bits, originals=originals)
    model = dict(enumerate(start))
    ids = st.integers(0, 30)
    for step in data.draw(
        st.lists(st.sampled_from(["add", "batch", "remove", "update"]), max_size=12)
    ):
        id_ = data.draw(ids, label=step)
        vector = fresh(1)[0]
        if step == "add" and id_ not in model:
            index.add(id_, vector)
            model[id_] = vector
        elif step == "batch":
            several = fresh(3)
            first = max(model, default=-1) + 1
            index.add_batch(several)
            model.update(zip(itertools.count(first), several, strict=False))
        elif step == "remove" and id_ in model:
            index.remove(id_)
            del model[id_]
        elif step == "update" and id_ in model:
            index.update(id_, vector)
            model[id_] = vector
    assert dict(index).keys() == model.keys()
    for id_, vector in index:
        np.testing.assert_array_equal(vector, model[id_])
        np.testing.assert_array_equal(index[id_], vector)
    if model:
        query = fresh(1)[0]
        hits = index.search(query, k=3, recall=1.0)
        rows = np.stack(list(model.values()))
        expected = np.sort(true_distances(rows, query, "l2"))[:3]
        np.testing.assert_allclose(hits.distances, expected, rtol=1e-5)


def test_iteration_sees_the_index_as_it_was(vectors: Vectors) -> None:
    index = limnion.RabitqPlusIndex.build(vectors[:10])
    rows = iter(index)
    assert next(rows)[0] == 0
    index.remove(list(range(1, 10)))
    assert [id_ for id_, _ in rows] == list(range(1, 10))


def test_properties_tell_what_an_index_is(vectors: Vectors, index_class: IndexClass) -> None:
    index = index_class.build(vectors, metric="ip")
    n, dim = vectors.shape
    assert (len(index), index.dim, index.metric) == (n, dim, "ip")
    assert index.ids.dtype == np.uint64
    assert index.ids.tolist() == list(range(n))
    per_row = index.memory_bytes / n
    expected = {
        limnion.FlatF32Index: (0, "f32", 4 * dim),
        limnion.RabitqIndex: (1, None, 128 / 8 + 6),
        limnion.RabitqAsymIndex: (4, None, 128 / 2 + 6),
        limnion.RabitqPlusIndex: (1, "f32", 4 * dim + 128 / 8 + 6),
        limnion.IvfIndex: (1, "f32", 4 * dim + 128 / 8 + 6 + 4),
        limnion.GraphIndex: (5, "f16", 2 * dim + 64 + 4 * 128 / 8 + 8 + 4 * 48 + 8),
    }[index_class]
    assert (index.bits, index.originals) == expected[:2]
    assert expected[2] <= per_row <= 1.15 * expected[2] + 12


def test_a_repr_is_one_telling_line(vectors: Vectors) -> None:
    index = limnion.RabitqPlusIndex.build(vectors, bits=2, originals="f16", metric="cosine")
    said = repr(index)
    start = "RabitqPlusIndex(n=2000, dim=96, metric='cosine', bits=2, originals='f16', memory="
    assert said.startswith(start)
    assert said.endswith(" MB)")
    assert "\n" not in said
    assert "bits" not in repr(limnion.FlatF32Index.build(vectors))


def test_all_are_any_index(vectors: Vectors, index_class: IndexClass) -> None:
    index = index_class.build(vectors[:5])
    assert isinstance(index, limnion.AnyIndex)
    assert not isinstance(vectors, limnion.AnyIndex)


def test_an_index_is_not_made_by_calling_its_class(index_class: IndexClass) -> None:
    for arguments in ((), (3,), ([[1.0]],)):
        with pytest.raises(errors.InvalidTypeError, match=rf"{index_class.__name__}\.build\("):
            index_class(*arguments)


def test_users_may_derive(vectors: Vectors) -> None:
    class Mine(limnion.RabitqPlusIndex):
        pass

    index = Mine.build(vectors[:10])
    assert type(index) is Mine
    assert isinstance(index, limnion.RabitqPlusIndex)
    assert repr(index).startswith("Mine(")


def test_hits_are_a_sequence_of_named_tuples(vectors: Vectors) -> None:
    index = limnion.FlatF32Index.build(vectors)
    hits = index.search(vectors[11], k=5)
    assert isinstance(hits, Sequence)
    assert isinstance(hits[0], limnion.Hit)
    id_, score, distance = hits[0]
    assert (id_, score, distance) == (11, 1.0, 0.0) == hits[0]
    assert hits[-1] == hits[4] == list(hits)[4]
    assert hits[1:3].ids.tolist() == hits.ids[1:3].tolist()
    assert hits[::-2].to_list() == hits.to_list()[::-2]
    assert list(reversed(hits)) == hits.to_list()[::-1]
    assert hits.index(hits[2]) == 2
    assert hits.count(hits[2]) == 1
    assert hits[2] in hits
    assert (11, 0.5, 0.5) not in hits
    assert object() not in hits
    with pytest.raises(ValueError, match="not among"):
        hits.index(hits[0], 1)
    with pytest.raises(IndexError):
        hits[5]
    with pytest.raises(IndexError):
        hits[-6]
    with pytest.raises(TypeError):
        hits["x"]  # type: ignore[call-overload]
    assert hits.ids.dtype == np.uint64
    assert hits.scores.dtype == hits.distances.dtype == np.float32


def test_hits_compare_pickle_and_copy(vectors: Vectors) -> None:
    index = limnion.FlatF32Index.build(vectors)
    hits, batch = index.search(vectors[1]), index.search_batch(vectors[:4], k=3)
    for result in (hits, hits[:0], hits[0], batch, batch[1:3]):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(result, protocol))
            assert again == result
            assert type(again) is type(result)
        assert copy.deepcopy(result) == result
    assert hits != index.search(vectors[2])
    assert hits != hits[:3]
    assert hits != hits.to_list()
    assert batch != index.search_batch(vectors[:4], k=2)


def test_a_batch_is_a_sequence_of_hits(vectors: Vectors) -> None:
    batch = limnion.FlatF32Index.build(vectors).search_batch(vectors[:6], k=2)
    assert isinstance(batch, Sequence)
    assert isinstance(batch[0], limnion.Hits)
    assert batch[-1] == batch[5] == batch.to_list()[5]
    assert batch[1:5:2].ids.tolist() == batch.ids[1:5:2].tolist()
    assert next(reversed(batch)) == batch[5]
    assert batch.index(batch[3]) == 3
    assert batch.count(batch[3]) == 1
    assert batch[3] in batch
    assert 3 not in batch
    with pytest.raises(IndexError):
        batch[6]
    assert repr(batch) == "HitsBatch(6 queries, 2 hits each)"


def test_hits_show_themselves(vectors: Vectors) -> None:
    hits = limnion.FlatF32Index.build(vectors).search(vectors[1], k=5)
    assert repr(hits).startswith("Hits(5: 1: 1.0000, ")
    assert repr(hits).endswith(", ...)")
    assert "\n" not in repr(hits)
    assert repr(hits[:0]) == "Hits(0)"
    html = hits._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == 6
    assert "<td>1</td><td>1.0000</td><td>0.0000</td>" in html


@pytest.mark.parametrize("progress_of", ["build", "add_batch", "search_batch"])
def test_progress_is_told(vectors: Vectors, progress_of: str) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    index = limnion.RabitqPlusIndex.build(
        vectors, progress=progress if progress_of == "build" else False
    )
    if progress_of == "add_batch":
        index.add_batch(vectors, progress=progress)
    elif progress_of == "search_batch":
        index.search_batch(vectors, k=1, progress=progress)
    assert told[-1] == (2_000, 2_000)
    assert told == sorted(told)


def test_what_progress_raises_ends_the_work(vectors: Vectors) -> None:
    def progress(done: int, total: int) -> None:
        raise InterruptedError(f"{done}/{total}")

    with pytest.raises(InterruptedError):
        limnion.RabitqPlusIndex.build(vectors, progress=progress)


def test_a_bar_is_drawn_on_stderr(vectors: Vectors, capfd: pytest.CaptureFixture[str]) -> None:
    limnion.RabitqPlusIndex.build(vectors, progress=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("build ")
    assert "100%  2,000/2,000" in captured.err
    assert captured.err.count("\n") == 1


def test_recommend_says_what_to_build_and_why() -> None:
    advice = limnion.recommend(1_000_000, 384, recall=0.99)
    assert advice.index_class is limnion.IvfIndex
    assert advice.reason
    assert advice.recall >= 0.99
    assert limnion.recommend(100, 384).index_class is limnion.FlatF32Index
    assert limnion.recommend(10_000, 384).index_class is limnion.RabitqPlusIndex
    assert limnion.recommend(1_000_000, 384, recall=0.95).index_class is limnion.IvfIndex
    graph = limnion.recommend(1_000_000, 384, recall=0.95, memory=900_000_000)
    assert graph.index_class is limnion.GraphIndex
    changing = limnion.recommend(1_000_000, 384, recall=0.95, memory=900_000_000, changes=True)
    assert changing.index_class is limnion.IvfIndex
    tight = limnion.recommend(1_000_000, 384, recall=0.9, memory=250_000_000)
    assert tight.bytes <= 250_000_000
    for choice in (advice, tight, graph, limnion.recommend(10**9, 768, recall=0.5, memory=1)):
        built = choice.index_class.build(random_vectors(50, 384), **choice.settings)
        assert len(built) == 50


def test_cpu_features_name_the_level() -> None:
    features = limnion.cpu_features()
    assert features["level"] in {"scalar", "avx2", "avx512", "avx512vnni", "neon"}
    assert all(isinstance(value, bool) for name, value in features.items() if name != "level")


@pytest.mark.parametrize("index_class", KEEPING)
def test_a_vector_that_is_in_the_index_is_found_at_distance_zero(
    index_class: type[limnion.FlatF32Index], vectors: Vectors
) -> None:
    index = index_class.build(vectors)
    for row in range(0, 2_000, 97):
        assert index.search(vectors[row], k=1).to_list() == [limnion.Hit(row, 1.0, 0.0)]


@pytest.mark.parametrize(
    ("index_class", "settings_of_build"),
    [
        (limnion.RabitqPlusIndex, {}),
        (limnion.RabitqPlusIndex, {"bits": 3, "originals": "f16"}),
        (limnion.RabitqAsymIndex, {"bits": 4}),
    ],
)
def test_a_recall_that_is_asked_for_is_found_on_other_queries(
    index_class: type[limnion.RabitqAsymIndex],
    settings_of_build: dict[str, int],
    tmp_path: Path,
) -> None:
    rows, queries = random_vectors(20_000, 48, seed=40), random_vectors(400, 48, seed=41)
    index = index_class.build(rows, metric="cosine", **settings_of_build)  # type: ignore[arg-type]
    truth = index.search_batch(queries, recall=0.99999).ids
    for asked in (0.9, 0.95, 0.99):
        batch = index.search_batch(queries, recall=asked)
        shares = [len(np.intersect1d(*pair)) / 10 for pair in zip(truth, batch.ids, strict=True)]
        # Half of the tolerance is for the 400 queries that this is measured by.
        assert asked - 0.01 <= np.mean(shares) <= asked + 0.015
        assert index.search(queries[0], recall=asked) == batch[0]
        assert asyncio.run(found_later(index, queries[0], asked)) == batch[0]
    index.save(tmp_path / "index")
    again = index_class.load(tmp_path / "index", mmap=True)
    assert again.search(queries[0], recall=asked) == batch[0]
    fresh = index_class.build(rows, metric="cosine", **settings_of_build)  # type: ignore[arg-type]
    assert fresh == again
    assert asyncio.run(found_later(fresh, queries[0], asked)) == batch[0]


async def found_later(index: limnion.RabitqAsymIndex, query: Vectors, asked: float) -> limnion.Hits:
    return await index.search_async(query, recall=asked)
