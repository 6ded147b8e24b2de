"""Values beyond JSON: which types can be stored, and how to add one.

| type                                              | comes back as               |
|---------------------------------------------------|-----------------------------|
| `None`, `bool`, `int`, `float`, `str`, `list`, `dict` with `str` keys | itself, exactly |
| `bytes`, `bytearray`, `memoryview`                | `bytes`                     |
| `tuple`, named tuples                             | `list`                      |
| `set`, `frozenset`                                | itself                      |
| `datetime`, `date`, `time`, `timedelta`           | itself; a zone as its offset|
| `Decimal`, `UUID`                                 | itself                      |
| `Enum`                                            | its value                   |
| numpy arrays of numbers, bools, text, times       | itself, little-endian       |
| numpy scalars                                     | the Python number           |
| dataclasses, pydantic models                      | `dict`; see `get(type=...)` |
| whatever `register_serializer` was told of        | what `decode` makes of it   |

Nothing that is stored is ever imported or run: a value names its type, and only types that this
program has registered are made.

>>> import limnion
>>> class Point:
...     def __init__(self, x, y):
...         self.x, self.y = x, y
>>> limnion.register_serializer(Point, lambda p: [p.x, p.y], lambda xy: Point(*xy))
>>> with limnion.Database.sync() as db:
...     version = db.put("shapes", "origin", Point(0, 0))
...     type(db.get("shapes", "origin")).__name__
'Point'
"""

from __future__ import annotations

import binascii
import dataclasses
import datetime as dt
import decimal
import enum
import math
import re
import types
import typing
import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np

from limnion.errors import SerializationError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["register_serializer"]

T = TypeVar("T")

_MICROSECOND: Final = dt.timedelta(microseconds=1)
_DTYPE: Final = re.compile(r"[<|](?:[biufcSU]\d+|[mM]8(?:\[\w+\])?)")
# The wider numbers of C differ from machine to machine.
_NUMBER_BYTES: Final = 16
_NUMPY_KINDS: Final = "biufcSUmM"


class _Serializer(NamedTuple):
    name: str
    type: type[Any]
    encode: Callable[[Any], object]
    decode: Callable[[Any], object]


_by_type: Final[dict[type[Any], _Serializer]] = {}
_by_name: Final[dict[str, _Serializer]] = {}


def register_serializer(
    type: type[T],
    encode: Callable[[T], object] | None = None,
    decode: Callable[[Any], T] | None = None,
    *,
    name: str | None = None,
) -> None:
    """Says how values of a type are stored and read, in this program.

    Values are stored as what `encode` gives, under `name`; a program that reads them must have
    registered that name, too. Derived classes are stored as their base unless they are registered
    themselves. Registering a class again replaces what was said before.

    Args:
        type: The class.
        encode: Gives something that can be stored: JSON, or other types of the table above. Not
            needed for dataclasses and pydantic models.
        decode: Makes a value of what `encode` gave. Not needed for dataclasses and pydantic models.
        name: What values of the class are marked with; the qualified name of the class without.

    Raises:
        ValidationError: for a name that another class has, or a class that needs `encode` and
            `decode`.

    >>> import dataclasses, limnion
    >>> @dataclasses.dataclass
    ... class User:
    ...     name: str
    >>> limnion.register_serializer(User)
    >>> with limnion.Database.sync() as db:
    ...     version = db.put("users", "alice", User("Alice"))
    ...     db.get("users", "alice")
    User(name='Alice')
    """
    if not isinstance(type, _type):
        raise ValidationError(
            f"type must be a class, got {_type(type).__name__}",
            "pass the class itself, not one of its instances",
        )
    if encode is None or decode is None:
        if not (_is_dataclass(type) or _is_model(type)):
            raise ValidationError(
                f"encode and decode must be given for {type.__qualname__}",
                "only dataclasses and pydantic models can do without",
            )
        encode = encode or _fields
        decode = decode or (lambda value: build(type, value))
    given: Any = type.__qualname__ if name is None else name
    if not isinstance(given, str) or not given:
        raise ValidationError(f"name must be a string that is not empty, got {given!r}")
    name = given
    other = _by_name.get(name)
    if other is not None and _identity(other.type) != _identity(type):
        raise ValidationError(
            f"the name {name!r} belongs to {'.'.join(_identity(other.type))} already",
            "pass another name=",
        )
    before = _by_type.get(type)
    if before is not None:
        _by_name.pop(before.name, None)
    serializer = _Serializer(name, type, encode, decode)
    _by_type[type] = _by_name[name] = serializer


_type = type
Lowered: typing.TypeAlias = tuple[str | None, str | None, object]


def lower(value: Any) -> Lowered | None:
    """What a value that is not JSON is stored as: tag, name and what stands for it.

    Without a tag it is stored as if it were the other; `None` says that it cannot be stored.
    """
    kind = type(value)
    if _by_type:
        for base in kind.__mro__:
            serializer = _by_type.get(base)
            if serializer is not None:
                return "object", serializer.name, serializer.encode(value)
    if isinstance(value, enum.Enum):
        return None, None, value.value
    for base, tag, encode in _LOWERED:
        if isinstance(value, base):
            return tag, None, encode(value)
    if (_is_dataclass(kind) and not isinstance(value, type)) or _is_model(kind):
        return None, None, _fields(value)
    return None


def restore(tag: str, name: str | None, value: Any) -> object:
    """The value that a marked object stands for."""
    if tag == "object":
        serializer = _by_name.get(name or "")
        if serializer is None:
            raise SerializationError(
                f"the value is of a type that was stored under the name {name!r}, "
                "which this program does not know",
                f"call limnion.register_serializer(..., name={name!r}) before it is read",
            )
        return serializer.decode(value)
    decode = _RESTORED.get(tag)
    if decode is None:
        raise SerializationError(
            f"the value has a part of a kind that this version does not know: {tag!r}",
            "read it with the version of limnion that wrote it, or a newer one",
        )
    try:
        return decode(value)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise SerializationError(f"a stored {tag} cannot be read: {error}") from error


def build(kind: Any, value: Any) -> Any:
    """An instance of `kind`, made of what its fields were stored as.

    Dataclasses and pydantic models are made with all that is in their fields; other types have to
    be what was stored.
    """
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return build(typing.get_args(kind)[0], value)
    if kind is Any or isinstance(kind, (str, TypeVar)):
        return value
    if origin is typing.Union or origin is types.UnionType:
        return _build_union(typing.get_args(kind), value)
    if origin is not None:
        return _build_generic(origin, typing.get_args(kind), value)
    if kind is None:
        kind = type(None)
    if not isinstance(kind, type):
        return value
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    if _is_dataclass(kind) and isinstance(value, dict):
        return _build_dataclass(kind, value)
    if issubclass(kind, enum.Enum):
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if issubclass(kind, tuple) and isinstance(value, list):
        return kind._make(value) if hasattr(kind, "_make") else kind(value)
    raise SerializationError(
        f"the value must be a {kind.__qualname__}, got {type(value).__qualname__}",
        "leave out type= to read what was stored",
    )


def _build_union(kinds: tuple[Any, ...], value: Any) -> Any:
    """The first member that fits."""
    problem: Exception | None = None
    for kind in kinds:
        try:
            return build(kind, value)
        except (TypeError, ValueError) as error:
            problem = error
    assert problem is not None
    raise problem


def _build_generic(origin: Any, arguments: tuple[Any, ...], value: Any) -> Any:
    if origin is typing.Literal:
        return value
    if isinstance(value, dict) and issubclass(origin, typing.Mapping) and len(arguments) == 2:  # noqa: PLR2004
        return {key: build(arguments[1], item) for key, item in value.items()}
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(build(arguments[0], item) for item in value)
        return tuple(build(kind, item) for kind, item in zip(arguments, value, strict=True))
    if isinstance(value, list) and issubclass(list, origin) and arguments:
        return [build(arguments[0], item) for item in value]
    if isinstance(value, (set, frozenset)) and issubclass(type(value), origin) and arguments:
        return type(value)(build(arguments[0], item) for item in value)
    return build(origin, value) if arguments == () or not hasattr(origin, "__mro__") else value


def _build_dataclass(kind: Any, value: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.name in value]
    built = {field.name: build(hints[field.name], value[field.name]) for field in fields}
    try:
        made = kind(**{field.name: built[field.name] for field in fields if field.init})
    except TypeError as error:
        raise SerializationError(
            f"a {kind.__qualname__} cannot be made of what was stored: {error}",
            "give new fields a default, or read without type=",
        ) from error
    for field in fields:
        if not field.init:
            object.__setattr__(made, field.name, built[field.name])
    return made


def _identity(kind: type[Any]) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__


def _is_dataclass(kind: type[Any]) -> bool:
    return dataclasses.is_dataclass(kind)


def _is_model(kind: type[Any]) -> bool:
    """Whether it has the interface of pydantic's models, version 2."""
    return hasattr(kind, "model_dump") and hasattr(kind, "model_validate")


def _fields(value: Any) -> dict[str, Any]:
    if _is_model(type(value)):
        dumped: dict[str, Any] = value.model_dump()
        return dumped
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _base64(value: Any) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _array(value: np.ndarray[Any, Any]) -> object:
    wide = value.dtype.itemsize > _NUMBER_BYTES and value.dtype.kind in "fc"
    if wide or value.dtype.kind not in _NUMPY_KINDS:
        raise SerializationError(
            f"an array of dtype {value.dtype} cannot be stored",
            "store array.tolist(), or one array for each field",
        )
    little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    return {
        "dtype": little.dtype.str,
        "shape": list(value.shape),
        "data": _base64(little.tobytes()),
    }


def _restore_array(value: Any) -> np.ndarray[Any, Any]:
    if not _DTYPE.fullmatch(value["dtype"]):
        raise ValueError(f"dtype {value['dtype']!r}")
    dtype = np.dtype(value["dtype"])
    shape = [int(length) for length in value["shape"]]
    data = binascii.a2b_base64(value["data"], strict_mode=True)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes do not fill the shape {shape}")
    array: np.ndarray[Any, Any] = (
        np.frombuffer(bytearray(data), dtype=dtype) if data else np.empty(0, dtype)
    )
    return array.reshape(shape)


def _datetime(value: dt.datetime) -> str:
    """The moment in UTC and the offset, so that words are in the order of moments."""
    offset = value.utcoffset()
    naive = value.replace(tzinfo=None)
    if offset is None:
        return naive.isoformat(timespec="microseconds")
    try:
        moment = naive - offset
    except OverflowError:  # within a day of year 1 or 9999
        return value.replace(tzinfo=dt.timezone(offset)).isoformat(timespec="microseconds")
    word = moment.isoformat(timespec="microseconds") + "Z"
    return f"{word} {offset // _MICROSECOND}" if offset else word


def _restore_datetime(word: str) -> dt.datetime:
    moment, _, offset = word.partition(" ")
    value = dt.datetime.fromisoformat(moment)
    return value.astimezone(dt.timezone(int(offset) * _MICROSECOND)) if offset else value


def _scalar(value: Any) -> object:
    if value.dtype.kind in "biufSU":
        return value.item()
    raise SerializationError(
        f"a numpy scalar of dtype {value.dtype} cannot be stored",
        "store an array of one element, or value.item()",
    )


def _frozen(value: Any) -> Any:
    """Lists, which were tuples inside of a set, as tuples again."""
    return tuple(_frozen(item) for item in value) if type(value) is list else value


_LOWERED: Final[list[tuple[Any, str | None, Callable[[Any], object]]]] = [
    # Derived classes of what JSON knows; numpy's float64 is one.
    (str, None, str.__str__),
    (int, None, int.__int__),
    (float, None, float.__float__),
    (dict, None, dict),
    (list, None, list),
    (tuple, None, tuple),
    (dt.datetime, "datetime", _datetime),
    (dt.date, "date", dt.date.isoformat),
    (dt.time, "time", lambda value: value.isoformat("microseconds")),
    (dt.timedelta, "timedelta", lambda value: str(value // _MICROSECOND)),
    ((bytes, bytearray, memoryview), "bytes", _base64),
    (decimal.Decimal, "decimal", str),
    (uuid.UUID, "uuid", str),
    (set, "set", list),
    (frozenset, "frozenset", list),
    (np.ndarray, "ndarray", _array),
    (np.generic, None, _scalar),
]

_RESTORED: Final[dict[str, Callable[[Any], object]]] = {
    "int": lambda value: int(value, 16),
    "float": float,
    "datetime": _restore_datetime,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "timedelta": lambda value: int(value) * _MICROSECOND,
    "bytes": lambda value: binascii.a2b_base64(value, strict_mode=True),
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "set": lambda value: {_frozen(item) for item in value},
    "frozenset": lambda value: frozenset(_frozen(item) for item in value),
    "ndarray": _restore_array,
}
