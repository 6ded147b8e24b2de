"""JSON comes back exactly, other types as themselves, and the rest is refused in words."""

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import limnion
from limnion import errors, serializers
from limnion._native import Write


def through(value: Any) -> Any:
    """Return what comes back of a value: encoded and decoded as a store does."""
    return Write.put("ns", "k", value).value


def same(one: Any, other: Any) -> bool:
    """Equality that tells types apart, also zeros and NaNs, and looks at the order of members."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return bool(one.hex() == other.hex())
    return bool(one == other)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False)
    | st.text()
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("$limnion"), inner),
    max_leaves=30,
)


@given(json_values)
@settings(max_examples=500, deadline=None)
@example(-0.0)
@example(10**400)
@example(-(2**63))
@example(2**64)
@example(5e-324)
@example(1.7976931348623157e308)
@example("\0")
@example("\u2028\ud7ff\ue000\U0010ffff")
@example([[], {}, [[]], {"": {}}])
@example({"a": True, "b": 1, "c": 1.0})
@example({"$limnion": "date 2020-01-01"})
@example({"$limnion": {"$limnion": "set", "value": []}, "value": 1})
def test_json_comes_back_exactly(value: Any) -> None:
    assert same(through(value), value)


@given(json_values)
@settings(max_examples=200, deadline=None)
def test_what_json_writes_is_what_json_reads(value: Any) -> None:
    assert same(through(json.loads(json.dumps(value))), json.loads(json.dumps(value)))


def test_integers_of_any_length() -> None:
    for digits in (4299, 4300, 4301, 20_000):
        for sign in (1, -1):
            value = sign * (10**digits - 1)
            assert through([value])[0] == value


zones = (
    st.none()
    | st.timezones().map(lambda _: dt.UTC)
    | st.integers(-86399, 86399).map(lambda seconds: dt.timezone(dt.timedelta(seconds=seconds)))
)
others = (
    st.datetimes(timezones=zones)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.binary()
)
hashables = st.recursive(
    scalars | others, lambda inner: st.frozensets(inner) | st.tuples(inner, inner), max_leaves=5
)


@given(st.lists(others) | st.dictionaries(st.text(), others) | others)
@settings(max_examples=300, deadline=None)
def test_other_types_come_back_as_themselves(value: Any) -> None:
    back = through(value)
    assert type(back) is type(value)
    assert back == value
    if isinstance(value, dt.datetime):
        assert back.utcoffset() == value.utcoffset()
    if isinstance(value, decimal.Decimal):
        assert str(back) == str(value)


@given(st.sets(hashables) | st.frozensets(hashables))
@settings(max_examples=200, deadline=None)
def test_sets_come_back_with_what_is_in_them(value: Any) -> None:
    back = through(value)
    assert type(back) is type(value)
    assert back == value


def test_equal_sets_are_stored_alike(db: limnion.SyncDatabase) -> None:
    words = [f"word{i}" for i in range(100)]
    db.put("ns", "a", set(words))
    db.put("ns", "b", {*words[50:], *words[:50]})
    assert db.history("ns", "a")[0].hash == db.history("ns", "b")[0].hash


@given(
    hnp.arrays(
        hnp.boolean_dtypes()
        | hnp.integer_dtypes()
        | hnp.unsigned_integer_dtypes()
        | hnp.floating_dtypes(sizes=(16, 32, 64))
        | hnp.complex_number_dtypes(sizes=(64, 128))
        | hnp.datetime64_dtypes()
        | hnp.unicode_string_dtypes(min_len=1, max_len=4)
        | hnp.byte_string_dtypes(min_len=1, max_len=4),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
@settings(max_examples=200, deadline=None)
def test_arrays_come_back_with_dtype_and_shape(array: Any) -> None:
    back = through({"array": array})["array"]
    assert back.dtype == array.dtype.newbyteorder("<")
    assert back.shape == array.shape
    assert back.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert back.flags.writeable


def test_arrays_of_other_orders() -> None:
    array = np.arange(12, dtype=np.int16).reshape(3, 4)
    for other in (array.T, array[:, ::2], array[::-1], np.asfortranarray(array)):
        assert (through(other) == other).all()


def test_nan_and_infinity_come_back() -> None:
    back = through({"nan": math.nan, "inf": [math.inf, -math.inf]})
    assert math.isnan(back["nan"])
    assert back["inf"] == [math.inf, -math.inf]


def test_numpy_scalars_are_numbers() -> None:
    for value, plain in [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),  # noqa: FBT003
        (np.str_("x"), "x"),
    ]:
        assert same(through([value]), [plain])


Point = namedtuple("Point", "x y")  # noqa: PYI024


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


def test_relatives_of_json_are_stored_as_json() -> None:
    for value, plain in [
        ((1, (2, 3)), [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Text("x"), "x"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ({Text("k"): 1}, {"k": 1}),
    ]:
        assert same(through(value), plain)


def test_bytes_are_bytes(db: limnion.SyncDatabase) -> None:
    for value in (b"", b"\0\xff", b'{"a": 1}', bytearray(b"x"), memoryview(b"y")):
        db.put("ns", "k", value)
        assert same(db.get("ns", "k"), bytes(value))


@dataclasses.dataclass
class Address:
    city: str
    zip: str | None = None


@dataclasses.dataclass
class User:
    name: str
    born: dt.date
    addresses: list[Address] = dataclasses.field(default_factory=list)
    home: Address | None = None
    colour: Colour = Colour.RED
    size: tuple[int, ...] = ()
    initials: str = dataclasses.field(init=False, default="")

    def __post_init__(self) -> None:
        self.initials = self.name[:1]


class Model(pydantic.BaseModel):
    name: str
    when: dt.datetime
    parts: list["Model"] = []


USER = User("Alice", dt.date(2000, 1, 2), [Address("Ulm")], Address("Bonn", "1"), size=(1, 2))
MODEL = Model(
    name="a",
    when=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    parts=[Model(name="b", when=dt.datetime(2021, 1, 1, tzinfo=dt.UTC))],
)


def test_dataclasses_and_models_are_dicts(db: limnion.SyncDatabase) -> None:
    db.put("ns", "user", USER)
    assert db.get("ns", "user") == {
        "name": "Alice",
        "born": dt.date(2000, 1, 2),
        "addresses": [{"city": "Ulm", "zip": None}],
        "home": {"city": "Bonn", "zip": "1"},
        "colour": "red",
        "size": [1, 2],
        "initials": "A",
    }
    db.put("ns", "model", [MODEL])
    assert db.get("ns", "model") == [MODEL.model_dump()]


def test_and_the_class_when_asked(db: limnion.SyncDatabase) -> None:
    db.put("ns", "user", USER)
    assert db.get("ns", "user", type=User) == USER
    db.put("ns", "model", MODEL)
    assert db.get("ns", "model", type=Model) == MODEL
    db.put("ns", "list", [1, 2])
    assert db.get("ns", "list", type=list) == [1, 2]
    db.put("ns", "name", {"nickname": "x"})
    with pytest.raises(errors.SerializationError, match="User"):
        db.get("ns", "name", type=User)
    with pytest.raises(errors.SerializationError, match="must be a User, got list"):
        db.get("ns", "list", type=User)
    assert db.get("ns", "nothing", type=User, default=None) is None


class Money:
    def __init__(self, amount: int, unit: str) -> None:
        self.amount, self.unit = amount, unit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.amount, self.unit))


class Cents(Money):
    pass


@pytest.fixture
def _registry() -> Iterator[None]:
    """Forget what the test registers."""
    yield
    serializers._by_type.clear()  # noqa: SLF001
    serializers._by_name.clear()  # noqa: SLF001


@pytest.mark.usefixtures("_registry")
def test_registered_types(db: limnion.SyncDatabase) -> None:
    with pytest.raises(errors.SerializationError, match="register_serializer"):
        db.put("ns", "k", Money(1, "EUR"))
    limnion.register_serializer(Money, lambda m: (m.amount, m.unit), lambda parts: Money(*parts))
    value = {"price": Money(1, "EUR"), "all": {Money(2, "USD")}, "cents": Cents(3, "EUR")}
    db.put("ns", "k", value)
    assert db.get("ns", "k") == {**value, "cents": Money(3, "EUR")}
    limnion.register_serializer(User)
    limnion.register_serializer(Model, name="model")
    db.put("ns", "k", [USER, MODEL])
    assert db.get("ns", "k") == [USER, MODEL]
    limnion.register_serializer(Model, name="other")
    with pytest.raises(errors.SerializationError, match="'model'"):
        db.get("ns", "k")


@pytest.mark.usefixtures("_registry")
def test_what_is_registered_is_checked() -> None:
    with pytest.raises(errors.ValidationError, match="encode and decode"):
        limnion.register_serializer(Money)
    with pytest.raises(errors.ValidationError, match="must be a class"):
        limnion.register_serializer(1, str, str)  # type: ignore[arg-type]
    limnion.register_serializer(Money, vars, lambda parts: Money(**parts))
    with pytest.raises(errors.ValidationError, match="belongs to"):
        limnion.register_serializer(User, name="Money")
    with pytest.raises(errors.ValidationError, match="name must be"):
        limnion.register_serializer(User, name="")


@pytest.mark.usefixtures("_registry")
def test_what_an_encoder_raises_says_where() -> None:
    limnion.register_serializer(Money, lambda m: 1 / m.amount, lambda _: Money(0, ""))
    with pytest.raises(ZeroDivisionError) as raised:
        through({"a": [Money(0, "x")]})
    assert raised.value.__notes__ == ['while storing value["a"][0]']
    limnion.register_serializer(Money, lambda m: m, lambda m: m)
    with pytest.raises(errors.SerializationError, match="deeper than 200"):
        through(Money(0, "x"))


def nested(depth: int) -> Any:
    """Return lists in lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


CYCLE: list[Any] = []
CYCLE.append({"self": CYCLE})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "value has a type that cannot be stored: object"),
        ({"a": [1, {"b c": object()}]}, r'value\["a"\]\[1\]\["b c"\] has a type'),
        (lambda: None, "cannot be stored: function"),
        (1j, "cannot be stored: complex"),
        ({1: 2}, "strings as keys, got int 1"),
        ({None: 2}, "strings as keys, got NoneType None"),
        ({"a": {(1, 2): 2}}, r'value\["a"\] must have strings as keys'),
        (CYCLE, "contains itself"),
        (nested(201), "deeper than 200"),
        ("\ud800", "surrogate"),
        (["\udfff"], r"value\[0\] has a surrogate"),
        ({"\ud800": 1}, "surrogate"),
        (np.array([object()]), "dtype object"),
        (np.zeros(2, dtype=[("a", "i4")]), "cannot be stored"),
        (np.datetime64("2020-01-01", "ns"), "numpy scalar"),
        (range(3), "cannot be stored: range"),
        (User, "cannot be stored: type"),
        ({frozenset([Colour]): 1}, "strings as keys"),
        ({"x": {np.float32}}, "<set>"),
    ],
)
def test_what_cannot_be_stored_is_told(db: limnion.SyncDatabase, value: Any, message: str) -> None:
    with pytest.raises(errors.SerializationError, match=message) as raised:
        db.put("ns", "k", value)
    assert raised.value.suggestion
    assert isinstance(raised.value, TypeError)
    with pytest.raises(errors.SerializationError, match=message):
        db["ns/k"] = value
    assert not db.exists("ns", "k")


def test_what_nests_as_deep_as_allowed_comes_back(db: limnion.SyncDatabase) -> None:
    db.put("ns", "k", nested(200))
    assert db.get("ns", "k") == nested(200)
    assert db.query("ns", {"x": 1}).total == 0
    db.put("ns", "k", {"a": nested(190), "x": 1})
    assert db.query("ns", {"x": 1}).total == 1


def test_values_that_change_while_they_are_stored() -> None:
    class Changing(dict):  # type: ignore[type-arg]
        pass

    value: dict[str, Any] = {}

    @dataclasses.dataclass
    class Clearing:
        part: int = 1

        def __getattribute__(self, name: str) -> Any:
            value.clear()
            return super().__getattribute__(name)

    value.update(a=1, b=Clearing(), c=2)
    assert through(value) == {"a": 1, "b": {"part": 1}, "c": 2}


def test_an_unknown_kind_is_told() -> None:
    for tag, name in [("set ", None), ("object", "Unknown"), ("new", None)]:
        with pytest.raises(errors.SerializationError):
            serializers.restore(tag, name, [])
    for tag, value in [
        ("datetime", "never"),
        ("decimal", "x"),
        ("int", "zz"),
        ("bytes", "*"),
        ("set", [[{}]]),
        ("ndarray", {"dtype": "|O8", "shape": [1], "data": ""}),
        ("ndarray", {"dtype": "<f4", "shape": [2**40], "data": ""}),
        ("ndarray", {"dtype": "<f4", "shape": [-1], "data": ""}),
        ("ndarray", {}),
    ]:
        with pytest.raises(errors.SerializationError):
            serializers.restore(tag, None, value)


def test_datetimes_can_be_queried(db: limnion.SyncDatabase) -> None:
    zone = dt.timezone(dt.timedelta(hours=9))
    days = [
        dt.datetime(2020, 1, day, 3, tzinfo=zone if day % 2 else dt.UTC) for day in range(1, 10)
    ]
    db.put_batch({f"d/{day.day}": {"when": day} for day in days})
    found = db.query("d", limnion.F("when") >= days[5], sort="when")
    assert [record.value["when"] for record in found] == days[5:]
    assert db.count("d", {"when": {"$lt": days[2]}}) == 2
    assert db.count("d", {"when": days[3]}) == 1
    assert uuid.UUID(int=5) == through(uuid.UUID(int=5))
