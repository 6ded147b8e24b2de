"""`np.asarray(index)`: the vectors as they lie in the index, never pulled away from under you."""

import gc

import numpy as np
import pytest
from support import KeepingClass, Vectors, random_vectors

import limnion
from limnion import errors


def test_the_array_is_the_index_own_memory(vectors: Vectors, keeping_class: KeepingClass) -> None:
    index = keeping_class.build(vectors)
    one, two = np.asarray(index), np.asarray(index)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, vectors)
    assert one.ctypes.data == two.ctypes.data
    assert np.shares_memory(one, two)
    assert one.flags.c_contiguous
    assert not one.flags.owndata


def test_it_cannot_be_written(vectors: Vectors, keeping_class: KeepingClass) -> None:
    view = np.asarray(keeping_class.build(vectors))
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True


def test_it_outlives_the_index_and_its_changes(keeping_class: KeepingClass) -> None:
    vectors = random_vectors(500, 32)
    index = keeping_class.build(vectors)
    view = np.asarray(index)
    index.add_batch(vectors)
    index.update(id=0, vector=vectors[1])
    index.remove(list(range(1, 400)))
    np.testing.assert_array_equal(view, vectors)
    np.testing.assert_array_equal(np.asarray(index)[0], vectors[1])
    del index
    gc.collect()
    random_vectors(5_000, 32)
    np.testing.assert_array_equal(view, vectors)


def test_rows_are_in_the_order_of_the_ids(keeping_class: KeepingClass) -> None:
    index = keeping_class.build(random_vectors(50, 16), ids=range(100, 150))
    index.remove([103, 110])
    view = np.asarray(index)
    for row, id_ in enumerate(index.ids.tolist()):
        np.testing.assert_array_equal(view[row], index[id_])


def test_dtype_and_copy_mean_what_numpy_means(vectors: Vectors) -> None:
    index = limnion.RabitqPlusIndex.build(vectors)
    kept = np.asarray(index)
    assert np.shares_memory(np.asarray(index, dtype=np.float32), kept)
    wide = np.asarray(index, dtype=np.float64)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, vectors)
    copied = np.array(index)
    assert copied.flags.writeable
    assert not np.shares_memory(copied, kept)
    assert np.shares_memory(index.__array__(copy=False), kept)
    with pytest.raises(ValueError, match="without a copy"):
        index.__array__(np.float64, copy=False)
    assert not np.shares_memory(index.__array__(copy=True), kept)


def test_half_precision_stays_half(vectors: Vectors) -> None:
    index = limnion.RabitqPlusIndex.build(vectors, originals="f16")
    view = np.asarray(index)
    assert view.dtype == np.float16
    np.testing.assert_array_equal(view, vectors.astype(np.float16))
    assert index[3].dtype == np.float32
    np.testing.assert_array_equal(index[3], view[3].astype(np.float32))
    id_, vector = next(iter(index))
    assert id_ == 0
    assert vector.dtype == np.float32


def test_an_empty_index_is_an_array_without_rows() -> None:
    index = limnion.FlatF32Index.build(np.empty((0, 7), dtype=np.float32))
    assert np.asarray(index).shape == (0, 7)


@pytest.mark.parametrize("index_class", [limnion.RabitqIndex, limnion.RabitqAsymIndex])
def test_without_originals_there_is_nothing_to_see(
    vectors: Vectors, index_class: type[limnion.RabitqIndex]
) -> None:
    index = index_class.build(vectors)
    for look in (np.asarray, iter, list, lambda index: index[0]):
        with pytest.raises(LookupError) as raised:
            look(index)
        assert isinstance(raised.value, errors.NoOriginalsError)


def test_what_is_not_there_is_a_key_error(vectors: Vectors) -> None:
    index = limnion.FlatF32Index.build(vectors)
    with pytest.raises(KeyError, match="12345"):
        index[12345]
    with pytest.raises(errors.InvalidTypeError):
        index["a"]  # type: ignore[index]
    with pytest.raises(errors.InvalidArgumentError):
        index[-1]
    assert "a" not in index
    assert -1 not in index
    assert 2.0 not in index
