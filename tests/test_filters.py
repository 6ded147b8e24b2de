"""Filters built with F: immutable values that say what they mean, and explain what goes wrong."""

import copy
import datetime as dt
import pickle
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limnion.errors import InvalidTypeError, ValidationError
from limnion.filters import F, Filter, plain


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (F("a") == 1, {"a": {"$eq": 1}}),
        (F("a") != "x", {"a": {"$ne": "x"}}),
        (F("a") > 1.5, {"a": {"$gt": 1.5}}),
        (F("a") >= 1, {"a": {"$gte": 1}}),
        (F("a") < False, {"a": {"$lt": False}}),
        (F("a") <= None, {"a": {"$lte": None}}),
        (2020 <= F("a"), {"a": {"$gte": 2020}}),  # noqa: SIM300 - the other way round works too
        (F("a").is_in((1, "x")), {"a": {"$in": [1, "x"]}}),
        (F("a").is_in(range(3)), {"a": {"$in": [0, 1, 2]}}),
        (F("a").not_in([]), {"a": {"$nin": []}}),
        (F("a").contains("x"), {"a": {"$contains": "x"}}),
        (F("a").startswith("x"), {"a": {"$startswith": "x"}}),
        (F("a").endswith("x"), {"a": {"$endswith": "x"}}),
        (F("a").exists(), {"a": {"$exists": True}}),
        (F("a.b") == [1, {"c": (2,)}], {"a.b": {"$eq": [1, {"c": [2]}]}}),
        (F("a")["b"] == 1, {"a.b": {"$eq": 1}}),
        (F("a")["b.c"][0] == 1, {"a.b\\.c.0": {"$eq": 1}}),
        (F("a")["b\\"] == 1, {"a.b\\\\": {"$eq": 1}}),
        (F("$key").startswith("x"), {"$key": {"$startswith": "x"}}),
        (~(F("a") == 1), {"$not": {"a": {"$eq": 1}}}),
        (Filter(), {}),
        (Filter() & (F("one") == 1) & Filter(), {"one": {"$eq": 1}}),
        (
            (F("a") == 1) & ~(F("b").is_in([2])) | F("c").exists(),
            {
                "$or": [
                    {"$and": [{"a": {"$eq": 1}}, {"$not": {"b": {"$in": [2]}}}]},
                    {"c": {"$exists": True}},
                ]
            },
        ),
        (
            (F("a") == 1) & ((F("b") == 2) & (F("c") == 3)),
            {"$and": [{"a": {"$eq": 1}}, {"b": {"$eq": 2}}, {"c": {"$eq": 3}}]},
        ),
    ],
    ids=repr,
)
def test_a_built_filter_is_the_dict_that_one_would_write(
    built: Filter, expected: dict[str, Any]
) -> None:
    assert built.to_dict() == expected


def test_what_is_no_json_stays_for_the_encoder() -> None:
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert (F("a") >= now).to_dict() == {"a": {"$gte": now}}
    assert type((F("a") == np.float32(0.5)).to_dict()["a"]["$eq"]) is float
    assert type((F("a") == np.int64(3)).to_dict()["a"]["$eq"]) is int


def test_a_filter_cannot_be_changed() -> None:
    values = [1, [2]]
    built = F("a").is_in(values)
    before = repr(built)
    values.append(3)
    assert isinstance(values[1], list)
    values[1].append(4)
    built.to_dict()["a"]["$in"].append(5)
    assert repr(built) == before
    with pytest.raises(AttributeError, match="cannot be changed"):
        built._kind = "all"  # noqa: SLF001
    with pytest.raises(AttributeError, match="cannot be changed"):
        del built._parts  # noqa: SLF001
    assert not hasattr(built, "__dict__")


scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
fields = st.sampled_from(["a", "b.c", "x\\.y", "$key"]).map(F)
leaves = st.one_of(
    st.builds(lambda f, v: f == v, fields, scalars),
    st.builds(lambda f, v: f != v, fields, st.one_of(scalars, st.lists(scalars))),
    st.builds(lambda f, v: f < v, fields, scalars),
    st.builds(lambda f, v: f.is_in(v), fields, st.lists(scalars)),
    st.builds(lambda f, v: f.contains(v), fields, scalars),
    st.builds(lambda f: f.exists(), fields),
    st.just(Filter()),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=8,
)


@given(filters)
def test_the_repr_makes_the_same_filter(built: Filter) -> None:
    again = eval(repr(built), {"F": F, "Filter": Filter})  # noqa: S307
    assert again == built
    assert hash(again) == hash(built)
    assert repr(again.to_dict()) == repr(built.to_dict())
    assert pickle.loads(pickle.dumps(built)) == built
    assert copy.deepcopy(built) == built


def test_equality_tells_apart_what_filters_tell_apart() -> None:
    assert (F("a") == 1) == (F("a") == 1)
    assert (F("a") == 1) != (F("a") == True)  # noqa: E712 - a bool is not a number
    assert (F("a") == 1) != (F("b") == 1)
    assert (F("a") == 1) != {"a": {"$eq": 1}}
    assert len({F("a") == 1, F("a") == 1, F("a") == True}) == 2  # noqa: E712


@pytest.mark.parametrize(
    ("mistake", "kind", "message"),
    [
        ("(F('a') > 1) and (F('a') < 5)", InvalidTypeError, "with &, | and ~"),
        ("1 < F('a') < 5", InvalidTypeError, "between two comparisons"),
        ("not (F('a') == 1)", InvalidTypeError, "neither true nor false"),
        ("F('a') == 1 & F('b') == 2", InvalidTypeError, "in parentheses"),
        ("F('a') | (F('b') == 2)", InvalidTypeError, "in parentheses"),
        ("(F('b') == 2) & F('a')", InvalidTypeError, "in parentheses"),
        ("~F('a')", InvalidTypeError, "in parentheses"),
        ("bool(F('a'))", InvalidTypeError, r"F\('a'\).exists\(\)"),
        ("'x' in F('a')", InvalidTypeError, r"F\('a'\).contains\('x'\)"),
        ("list(F('a'))", TypeError, "not iterable"),
        ("{F('a'): 1}", TypeError, "unhashable"),
        ("F('a').is_in('xyz')", InvalidTypeError, "values must be a list of values, got str"),
        ("F('a').not_in(3)", InvalidTypeError, "got int"),
        ("F('a').startswith(3)", InvalidTypeError, "prefix must be a string, got int"),
        ("F('a') == F('b')", InvalidTypeError, r"compared with a value, got F\('b'\)"),
        ("F('a') == (F('b') == 1)", InvalidTypeError, "compared with a value"),
        ("F('a') > [1]", ValidationError, "have no order"),
        ("F('a') == float('nan')", ValidationError, "finite numbers, got nan"),
        ("F('a').is_in([1, -float('inf')])", ValidationError, "finite numbers, got -inf"),
        ("F(3)", InvalidTypeError, "path must be a string, got int"),
        ("F('')", ValidationError, "a name before and after each dot, got ''"),
        ("F('a..b')", ValidationError, r"got 'a\.\.b'"),
        (r"F('a\\b')", ValidationError, "backslash"),
        ("F('a')['']", ValidationError, "must not be empty"),
        ("F('a')[-1]", ValidationError, "got -1"),
        ("F('a')[1.5]", InvalidTypeError, "got float"),
        ("(F('a') == 1) & {'b': 2}", TypeError, "unsupported operand"),
        ("(F('a') == 1) | None", TypeError, "unsupported operand"),
        ("plain(3)", InvalidTypeError, "filter must be a dict, a string or built with F"),
        ("plain(F('a'))", InvalidTypeError, "is a field, and not a filter yet"),
        ("plain({'$and': [F('a')]})", InvalidTypeError, "is a field, and not a filter yet"),
    ],
)
def test_a_mistake_is_explained(mistake: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        eval(mistake, {"F": F, "plain": plain})  # noqa: S307


def test_every_form_is_taken() -> None:
    assert plain(None) == {}
    assert plain("a = 1") == "a = 1"
    assert plain(F("a") == 1) == {"a": {"$eq": 1}}
    mixed = plain(MappingProxyType({"$or": (F("a") == 1, MappingProxyType({"b": 2}))}))
    assert mixed == {"$or": [{"a": {"$eq": 1}}, {"b": 2}]}
    assert type(mixed) is dict
