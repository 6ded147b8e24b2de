"""What `Database` and `SyncDatabase` make of their arguments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from limnion._native import Write
from limnion.errors import DimensionMismatch, InvalidTypeError, ValidationError
from limnion.records import Group, SimilarHit

__all__ = [
    "BUILTIN_MODEL",
    "MISSING",
    "MODEL_FIELD",
    "NOTHING",
    "Rows",
    "alone",
    "as_dict",
    "as_group",
    "as_sort",
    "checked",
    "folder",
    "of_model",
    "split",
    "text_of",
    "with_model",
]

Rows = Iterable[tuple[str, str, Any]] | Mapping[str, Any] | Mapping[tuple[str, str], Any]

MODEL_FIELD: Final = "embedding_model"
"""The field of the metadata that names the model of the vector."""

BUILTIN_MODEL: Final = "limnion-static-256"
"""What `Embedder.builtin()` is called there."""


class _Mark:
    """Stands for something that no value is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


MISSING: Final[Any] = _Mark("MISSING")
NOTHING: Final[Any] = _Mark("NOTHING")


def split(place: str) -> tuple[str, str]:
    """Namespace and key."""
    if not isinstance(place, str):
        raise ValidationError(
            f"a place must be a string of namespace and key, got {type(place).__name__}",
            'write db["users/alice"]',
        )
    namespace, slash, key = place.partition("/")
    if not slash:
        raise ValidationError(
            f"a place must have a '/' between namespace and key, got {place!r}",
            f'write db["{place}/..."], or db.namespace({place!r})',
        )
    return namespace, key


def checked(name: str) -> str:
    """The name of a namespace, checked."""
    Write.delete(name, "key")
    return name


def folder(path: str | os.PathLike[str]) -> str:
    """The path from the root on; `~` is the home directory."""
    try:
        return os.path.abspath(os.path.expanduser(os.fspath(path)))  # noqa: PTH100, PTH111
    except TypeError:
        raise ValidationError(
            f"path must be a string or a path, got {type(path).__name__}"
        ) from None


def alone(prefix: str | None, start: str | None, end: str | None) -> str | None:
    """The prefix, which has no bounds beside it."""
    if prefix is not None and (start is not None or end is not None):
        raise ValidationError("prefix must stand alone, got start or end beside it")
    return prefix


def as_dict(given: Mapping[str, Any] | None) -> Any:
    """A mapping as a dict; whatever else as it is, for the native side to refuse."""
    return dict(given) if isinstance(given, Mapping) and not isinstance(given, dict) else given


def as_sort(given: str | Sequence[str]) -> list[tuple[str, bool]]:
    """Fields, and whether each is to go from the highest to the lowest."""
    fields = [given] if isinstance(given, str) else given
    return [(field.removeprefix("-"), field.startswith("-")) for field in fields]


def as_group(key: Any, count: int, asked: list[tuple[str, str]], values: list[Any]) -> Group:
    """A group, of what was asked and what came."""
    group = Group(key, count)
    for (function, field), value in zip(asked, values, strict=True):
        getattr(group, function)[field] = value
    return group


def text_of(content: Any, text: str | None, where: str = "") -> str:
    """What is to be embedded."""
    found = content if text is None else text
    if not isinstance(found, str):
        raise ValidationError(
            f"embedding must be given where there is no text to embed{where}, and the content is "
            f"no string but {type(found).__name__}",
            "pass embedding=, or text=",
        )
    return found


def with_model(metadata: Mapping[str, Any] | None, model: str | None) -> Any:
    """The metadata with the name of the model."""
    metadata = as_dict(metadata)
    if model is None or not (metadata is None or isinstance(metadata, dict)):
        return metadata
    if metadata is not None and metadata.get(MODEL_FIELD, model) != model:
        raise ValidationError(
            f"metadata must not say of the model what model= does not: {MODEL_FIELD!r} is "
            f"{metadata[MODEL_FIELD]!r}, and model is {model!r}",
            f"leave {MODEL_FIELD!r} out: it is written for you",
        )
    return {**(metadata or {}), MODEL_FIELD: model}


def of_model(
    hits: list[SimilarHit], model: str | None, hint: str, *, strict: bool = False
) -> list[SimilarHit]:
    """The hits, where their vectors are of the model that the query is of, as far as is known."""
    if model is not None:
        if not isinstance(model, str):
            raise InvalidTypeError(f"model must be a string, got {type(model).__name__}")
        for hit in hits:
            found = hit.metadata.get(MODEL_FIELD)
            if found != model and (strict or found is not None):
                raise DimensionMismatch(
                    f"query must be of the model of the vectors in {hit.namespace!r}, "
                    f"{found!r}, got one of {model!r}",
                    hint,
                )
    return hits
