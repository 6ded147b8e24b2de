"""What limnion raises: classes, kinds, messages, and how they travel."""

import copy
import errno
import inspect
import pickle

import pytest
from support import random_vectors

import limnion
from limnion import _native, errors

ALL: list[type[errors.LimnionError]] = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, errors.LimnionError)
]
BUILTINS: dict[type[errors.LimnionError], type[Exception]] = {
    errors.InvalidArgumentError: ValueError,
    errors.InvalidTypeError: TypeError,
    errors.DimensionMismatch: ValueError,
    errors.EmptyIndex: LookupError,
    errors.DuplicateIdError: ValueError,
    errors.IdNotFoundError: KeyError,
    errors.NoOriginalsError: LookupError,
    errors.PersistError: OSError,
    errors.IndexFileNotFoundError: FileNotFoundError,
    errors.CorruptFileError: ValueError,
    errors.KeyNotFoundError: KeyError,
    errors.NoValueAtTime: LookupError,
    errors.SerializationError: TypeError,
    errors.ValidationError: ValueError,
    errors.DatabaseClosedError: RuntimeError,
    errors.ForkedProcessError: RuntimeError,
    errors.ReadOnlyError: PermissionError,
    errors.DatabaseLockedError: OSError,
    errors.StoreIOError: OSError,
    errors.DiskFullError: OSError,
    errors.EmbedError: RuntimeError,
    errors.InternalError: RuntimeError,
}


def test_both_sides_list_the_same_kinds() -> None:
    assert set(errors.KINDS) == set(_native.error_kinds())
    assert len(_native.error_kinds()) == len(set(_native.error_kinds()))


def test_kinds_are_never_renamed() -> None:
    assert set(errors.KINDS) >= {
        "invalid-argument",
        "invalid-type",
        "dimension-mismatch",
        "empty-index",
        "duplicate-id",
        "id-not-found",
        "no-originals",
        "io",
        "file-not-found",
        "corrupt-file",
        "newer-file",
        "key-not-found",
        "no-value-at-time",
        "conflict",
        "serialization",
        "database-locked",
        "database-closed",
        "read-only",
        "corruption",
        "disk-full",
        "forked-process",
        "validation",
        "store-io",
        "newer-database",
        "embed",
        "cancelled",
        "internal",
    }


@pytest.mark.parametrize("error", ALL)
def test_every_class_has_a_kind_of_its_own(error: type[errors.LimnionError]) -> None:
    assert [other for other in ALL if other.kind == error.kind] == [error]
    assert errors.KINDS.get(error.kind, error) is error
    assert error.__name__ in errors.__all__


@pytest.mark.parametrize(("error", "builtin"), BUILTINS.items())
def test_each_is_also_the_builtin_that_one_would_catch(
    error: type[errors.LimnionError], builtin: type[Exception]
) -> None:
    assert issubclass(error, builtin)
    with pytest.raises(builtin):
        raise error("message")


@pytest.mark.parametrize("error", ALL)
def test_the_tree_in_the_docstring_is_the_tree(error: type[errors.LimnionError]) -> None:
    assert errors.__doc__ is not None
    assert error.__name__ in errors.__doc__
    assert issubclass(error, limnion.LimnionError)


@pytest.mark.parametrize("error", ALL)
@pytest.mark.parametrize("suggestion", [None, "do this"])
def test_errors_pickle_and_copy(error: type[errors.LimnionError], suggestion: str | None) -> None:
    original = error("went wrong", suggestion)
    original.add_note("a note")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for again in (pickle.loads(pickle.dumps(original, protocol)), copy.copy(original)):
            assert type(again) is error
            assert str(again) == str(original)
            assert (again.kind, again.message, again.suggestion) == (
                error.kind,
                "went wrong",
                suggestion,
            )
            assert again.__notes__ == ["a note"]


@pytest.mark.parametrize("error", ALL)
def test_str_is_one_plain_line(error: type[errors.LimnionError]) -> None:
    assert str(error("went wrong")) == "went wrong"
    assert str(error("went wrong", "do this")) == "went wrong; do this"
    assert error("went wrong").args == ("went wrong",)


def test_a_missing_file_has_its_errno() -> None:
    with pytest.raises(FileNotFoundError) as raised:
        limnion.FlatF32Index.load("no/such/file")
    assert raised.value.errno == 2
    assert "no/such/file" in str(raised.value)


def test_a_missing_key_is_named() -> None:
    error = errors.KeyNotFoundError("no 'bob'", "did you mean 'rob'?", namespace="users", key="bob")
    for again in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (again.namespace, again.key) == ("users", "bob")
        assert str(again) == "no 'bob'; did you mean 'rob'?"


def test_a_full_disk_has_its_errno() -> None:
    assert errors.DiskFullError("no space").errno == errno.ENOSPC
    assert pickle.loads(pickle.dumps(errors.DiskFullError("no space"))).errno == errno.ENOSPC


def test_what_cannot_be_stored_is_what_json_raises() -> None:
    assert issubclass(errors.SerializationError, TypeError)
    assert issubclass(errors.SerializationError, ValueError)


def test_the_index_error_of_the_seeds_is_ours() -> None:
    assert limnion.IndexError is limnion.VectorIndexError
    assert "IndexError" not in limnion.__all__
    assert not issubclass(limnion.VectorIndexError, IndexError)


def test_messages_come_with_what_to_do() -> None:
    index = limnion.RabitqIndex.build(random_vectors(3, 8))
    with pytest.raises(errors.NoOriginalsError) as raised:
        index[1]
    assert raised.value.kind == "no-originals"
    assert raised.value.suggestion is not None
    assert str(raised.value) == f"{raised.value.message}; {raised.value.suggestion}"


def test_unknown_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="'limnion' has no attribute 'nothing'"):
        limnion.nothing  # noqa: B018


def test_everything_in_all_is_there() -> None:
    for name in limnion.__all__:
        assert getattr(limnion, name) is not None
        assert name in dir(limnion)
