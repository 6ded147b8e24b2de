r"""Filters, built from fields: `F("year") >= 2020`.

Wherever a filter is taken, it is one of three: what is built here, a dict in the manner of Mongo,
or a string. They mean the same.

>>> from limnion.filters import F
>>> recent = (F("year") >= 2020) & ~F("tags").contains("draft")
>>> recent.to_dict()
{'$and': [{'year': {'$gte': 2020}}, {'$not': {'tags': {'$contains': 'draft'}}}]}

| built                   | string             | holds where the field is there, and       |
|-------------------------|--------------------|-------------------------------------------|
| `F("a") == 1`           | `a = 1`            | its value equals the other                |
| `F("a") != 1`           | `a != 1`           | its value does not                        |
| `F("a") >= 1`, `>`, ... | `a >= 1`, `>`, ... | both are of one type, and in this order   |
| `F("a").is_in([1, 2])`  | `a IN [1, 2]`      | it equals one of these                    |
| `F("a").not_in([1, 2])` | `a NOT IN [1, 2]`  | it equals none of these                   |
| `F("a").contains("x")`  | `a CONTAINS 'x'`   | it is a string with this part, or a list  |
|                         |                    | with this member                          |
| `F("a").startswith("x")`| `a STARTSWITH 'x'` | it is a string that begins like this      |
| `F("a").endswith("x")`  | `a ENDSWITH 'x'`   | it is a string that ends like this        |
| `F("a").exists()`       | `a EXISTS`         | nothing more: `None` is a value           |

`&`, `|` and `~` put filters together; comparisons need parentheses then. A missing field makes
every condition false, `!=` and `not_in` too; `~` turns the result round, so `~(F("a") == 1)` holds
where there is no `a`. A bool is not a number, numbers compare by their exact value, strings by code
point.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NoReturn

import numpy as np

from limnion.errors import InvalidTypeError, ValidationError

if TYPE_CHECKING:
    from typing import Self

    from limnion.types import FilterLike

__all__ = ["F", "Filter"]

_PATH: Final = re.compile(r"(?:[^.\\]|\\[.\\$])+(?:\.(?:[^.\\]|\\[.\\$])+)*", re.DOTALL)
_SIGNS: Final = {"$eq": "==", "$ne": "!=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_METHODS: Final = {
    "$in": "is_in",
    "$nin": "not_in",
    "$contains": "contains",
    "$startswith": "startswith",
    "$endswith": "endswith",
    "$exists": "exists",
}

_Kind = Literal["all", "and", "or", "not", "field"]


class Filter:
    """A condition on the fields of a record. It never changes, and is made by `F`.

    `Filter()` holds always: what to begin with when conditions are added one by one.

    >>> wanted = Filter()
    >>> for name, value in {"lang": "el", "year": 2021}.items():
    ...     wanted &= F(name) == value
    >>> wanted
    (F('lang') == 'el') & (F('year') == 2021)

    Two filters are equal when they are built alike, and can be keys of a dict then.
    """

    __slots__ = ("_kind", "_parts")

    _kind: _Kind
    _parts: tuple[Any, ...]

    def __init__(self) -> None:
        object.__setattr__(self, "_kind", "all")
        object.__setattr__(self, "_parts", ())

    @classmethod
    def _of(cls, kind: _Kind, *parts: object) -> Self:
        made = cls()
        object.__setattr__(made, "_kind", kind)
        object.__setattr__(made, "_parts", parts)
        return made

    def to_dict(self) -> dict[str, Any]:
        """The filter as a dict, which means the same wherever a filter is taken.

        >>> (F("a") == 1).to_dict()
        {'a': {'$eq': 1}}
        """
        if self._kind == "field":
            path, operator, operand = self._parts
            return {path: {operator: copy.deepcopy(operand)}}
        if self._kind == "not":
            return {"$not": self._parts[0].to_dict()}
        if self._kind == "all":
            return {}
        return {f"${self._kind}": [part.to_dict() for part in self._parts]}

    def __and__(self, other: Filter) -> Filter:
        """Holds where both hold."""
        if not isinstance(other, Filter):
            return NotImplemented
        if self._kind == "all":
            return other
        if other._kind == "all":
            return self
        return Filter._of("and", *self._flat("and"), *other._flat("and"))

    def __or__(self, other: Filter) -> Filter:
        """Holds where at least one holds."""
        if not isinstance(other, Filter):
            return NotImplemented
        return Filter._of("or", *self._flat("or"), *other._flat("or"))

    def __invert__(self) -> Filter:
        """Holds where this one does not: also where the field is missing."""
        return Filter._of("not", self)

    def _flat(self, kind: _Kind) -> tuple[Filter, ...]:
        return self._parts if self._kind == kind else (self,)

    def __bool__(self) -> NoReturn:
        """Nothing is true or false before there is a record."""
        raise InvalidTypeError(
            "a filter is neither true nor false: it cannot stand in if, and, or, not, or between "
            "two comparisons",
            'write (F("a") > 1) & (F("a") < 5) with &, | and ~, and parentheses',
        )

    def __eq__(self, other: object) -> bool:
        """Whether the other is a filter that is built alike."""
        # By their text, since 1 == True == 1.0 in Python, and not in filters.
        return repr(self) == repr(other) if isinstance(other, Filter) else NotImplemented

    def __hash__(self) -> int:
        """Equal filters have equal hashes."""
        return hash(repr(self))

    def __repr__(self) -> str:
        """Python that makes the same filter."""
        if self._kind == "all":
            return "Filter()"
        if self._kind == "not":
            return f"~{_inner(self._parts[0])}"
        if self._kind != "field":
            sign = " & " if self._kind == "and" else " | "
            return sign.join(_inner(part) for part in self._parts)
        path, operator, operand = self._parts
        if operator in _SIGNS:
            return f"F({path!r}) {_SIGNS[operator]} {operand!r}"
        return f"F({path!r}).{_METHODS[operator]}({'' if operator == '$exists' else repr(operand)})"

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """A filter is a value."""
        raise AttributeError("a filter cannot be changed; build another one")

    def __delattr__(self, name: str) -> NoReturn:
        """A filter is a value."""
        raise AttributeError("a filter cannot be changed; build another one")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies as what it is made of."""
        return Filter._of, (self._kind, *self._parts)


class F:
    r"""A field of a record: what comes of comparing it is a `Filter`.

    Args:
        path: The name of the field. Dots lead inwards: `F("author.name")`, `F("tags.0")`. A dot
            that is part of a name is written `\\.`, or reached by brackets: `F("a")["b.c"]`.
            `F("$key")`, `F("$namespace")` and `F("$version")` are those of the record itself.

    >>> (F("year") >= 2020) & (F("lang") == "el") | F("pinned").exists()
    ((F('year') >= 2020) & (F('lang') == 'el')) | F('pinned').exists()
    >>> F("author")["name"].is_in(["Sappho", "Hypatia"])
    F('author.name').is_in(['Sappho', 'Hypatia'])
    """

    __slots__ = ("_path",)

    _path: str
    __hash__: ClassVar[None]  # type: ignore[assignment] # == makes a filter, so no dict can find one
    __iter__: ClassVar[None] = None  # `in` would try every position, for ever

    def __init__(self, path: str) -> None:
        if not isinstance(path, str):
            raise InvalidTypeError(
                f"path must be a string, got {type(path).__name__}", 'write F("year")'
            )
        if not _PATH.fullmatch(path):
            raise ValidationError(
                f"path must have a name before and after each dot, got {path!r}",
                r"write \. for a dot that is part of a name, and \\ for a backslash",
            )
        self._path = path

    def __getitem__(self, name: str | int) -> F:
        """The field of that name inside of this one, dots and all; or the element of a list."""
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise InvalidTypeError(
                f"name must be a string or a position, got {type(name).__name__}",
                'write F("a")["b"] or F("a")[0]',
            )
        if name == "" or (isinstance(name, int) and name < 0):
            raise ValidationError(f"name must not be empty or negative, got {name!r}")
        escaped = str(name).replace("\\", "\\\\").replace(".", "\\.")
        return F(f"{self._path}.{escaped}")

    def __eq__(self, other: object) -> Filter:  # type: ignore[override] # this is what F is for
        """Holds where the value equals the other; lists and dicts are compared as a whole."""
        return self._test("$eq", _operand(other))

    def __ne__(self, other: object) -> Filter:  # type: ignore[override] # this is what F is for
        """Holds where there is a value, and it does not equal the other."""
        return self._test("$ne", _operand(other))

    def __gt__(self, other: object) -> Filter:
        """Holds where the value is of the other's type, and greater."""
        return self._test("$gt", _ordered(other))

    def __ge__(self, other: object) -> Filter:
        """Holds where the value is of the other's type, and greater or equal."""
        return self._test("$gte", _ordered(other))

    def __lt__(self, other: object) -> Filter:
        """Holds where the value is of the other's type, and less."""
        return self._test("$lt", _ordered(other))

    def __le__(self, other: object) -> Filter:
        """Holds where the value is of the other's type, and less or equal."""
        return self._test("$lte", _ordered(other))

    def is_in(self, values: Iterable[Any]) -> Filter:
        """Holds where the value equals one of these.

        >>> F("lang").is_in(["el", "en"])
        F('lang').is_in(['el', 'en'])
        """
        return self._test("$in", _operands(values))

    def not_in(self, values: Iterable[Any]) -> Filter:
        """Holds where there is a value, and it equals none of these.

        >>> F("lang").not_in(["el", "en"]).to_dict()
        {'lang': {'$nin': ['el', 'en']}}
        """
        return self._test("$nin", _operands(values))

    def contains(self, value: object) -> Filter:
        """Holds where the value is a string with this part, or a list with this member.

        >>> F("tags").contains("news")
        F('tags').contains('news')
        """
        return self._test("$contains", _operand(value))

    def startswith(self, prefix: str) -> Filter:
        """Holds where the value is a string that begins like this.

        >>> F("$key").startswith("user:")
        F('$key').startswith('user:')
        """
        return self._test("$startswith", _text("prefix", prefix))

    def endswith(self, suffix: str) -> Filter:
        """Holds where the value is a string that ends like this.

        >>> F("path").endswith(".md")
        F('path').endswith('.md')
        """
        return self._test("$endswith", _text("suffix", suffix))

    def exists(self) -> Filter:
        """Holds where the field is there, `None` or not.

        >>> ~F("deleted_at").exists()
        ~F('deleted_at').exists()
        """
        return self._test("$exists", True)

    def _test(self, operator: str, operand: object) -> Filter:
        return Filter._of("field", self._path, operator, operand)  # noqa: SLF001 - of this module

    def __repr__(self) -> str:
        """Python that makes the same field."""
        return f"F({self._path!r})"

    def __contains__(self, value: object) -> NoReturn:
        """Python makes a bool of the answer, so there is no filter to be had this way."""
        raise InvalidTypeError(
            f"in does not make a filter of {self!r}", f"write {self!r}.contains({value!r})"
        )

    def __bool__(self) -> NoReturn:
        """A field is neither true nor false before there is a record."""
        raise InvalidTypeError(
            f"{self!r} is neither true nor false", f"write {self!r} == True, or {self!r}.exists()"
        )

    def _not_a_filter(self, other: object = None) -> NoReturn:
        """`&` and `|` bind tighter than comparisons: what comes here lacks parentheses."""
        del other
        raise InvalidTypeError(
            f"{self!r} is a field, and not a filter yet",
            'put comparisons in parentheses: (F("a") == 1) & (F("b") == 2)',
        )

    def __and__(self, other: object) -> NoReturn:
        self._not_a_filter(other)

    def __rand__(self, other: object) -> NoReturn:
        self._not_a_filter(other)

    def __or__(self, other: object) -> NoReturn:
        self._not_a_filter(other)

    def __ror__(self, other: object) -> NoReturn:
        self._not_a_filter(other)

    def __invert__(self) -> NoReturn:
        self._not_a_filter()


def plain(given: FilterLike | None) -> dict[str, Any] | str:
    """A filter in whatever form, as the native module takes it: dicts, lists and strings.

    Dicts may have built filters inside of them.

    >>> plain({"$or": [F("a") == 1, {"b": 2}]})
    {'$or': [{'a': {'$eq': 1}}, {'b': 2}]}
    """
    lowered = {} if given is None else _lowered(given)
    if not isinstance(lowered, (dict, str)):
        raise InvalidTypeError(
            f"filter must be a dict, a string or built with F, got {type(given).__name__}",
            'write filter=F("year") >= 2020 or filter={"year": {"$gte": 2020}}',
        )
    return lowered


def _inner(part: Filter) -> str:
    """The repr as a part of something larger."""
    kind, parts = part._kind, part._parts  # noqa: SLF001 - of this module
    bare = kind in {"all", "not"} or (kind == "field" and parts[1] in _METHODS)
    return repr(part) if bare else f"({part!r})"


def _lowered(value: object) -> object:
    if isinstance(value, Filter):
        return value.to_dict()
    if isinstance(value, F):
        value._not_a_filter()  # noqa: SLF001 - of this module
    if isinstance(value, Mapping):
        return {key: _lowered(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lowered(inner) for inner in value]
    return value


def _operand(value: object) -> object:
    """A copy, so that nobody changes a filter from outside."""
    if isinstance(value, (F, Filter)):
        raise InvalidTypeError(
            f"a field is compared with a value, got {value!r}",
            "compare two fields where the records are read",
        )
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValidationError(f"a field is compared with finite numbers, got {value!r}")
    if isinstance(value, Mapping):
        return {key: _operand(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_operand(inner) for inner in value]
    return copy.deepcopy(value)


def _ordered(value: object) -> object:
    operand = _operand(value)
    if isinstance(operand, (list, dict, set, frozenset)):
        raise ValidationError(
            f"lists, dicts and sets have no order, got {value!r}",
            "compare with a number, a string, a bool or None",
        )
    return operand


def _operands(values: Iterable[object]) -> list[object]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidTypeError(
            f"values must be a list of values, got {type(values).__name__}",
            'write F("lang").is_in(["el", "en"]), or F("tags").contains("news")',
        )
    return [_operand(value) for value in values]


def _text(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be a string, got {type(value).__name__}")
    return value
