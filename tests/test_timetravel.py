"""Time travel: every version stays, and can be asked for by number, tag, hash and moment."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Shop

import limnion
from limnion import errors
from limnion.diff import compare


@pytest.fixture
def model(db: limnion.SyncDatabase) -> limnion.SyncDatabase:
    """Return a database with three versions of a record, the last of which is a deletion."""
    db.put("config", "model", {"version": "small", "tags": ["a"]})
    db.put("config", "model", {"version": "large", "tags": ["a", "b"]})
    db.delete("config", "model")
    return db


def test_history_has_every_version(model: limnion.SyncDatabase) -> None:
    history = model.history("config", "model")
    assert [entry.version for entry in history] == [1, 2, 3]
    assert [entry.previous for entry in history] == [None, 1, 2]
    assert [entry.deleted for entry in history] == [False, False, True]
    assert history[2].value is None
    assert history[2].hash is None
    assert repr(history[2]) == "Record('config/model', version=3, deleted)"
    assert history[0].timestamp < history[1].timestamp < history[2].timestamp
    assert model.history("config", "nothing") == []
    assert [e.version for e in model.history("config", "model", limit=2)] == [2, 3]
    assert [e.version for e in model.history("config", "model", since=1)] == [2, 3]
    assert [e.version for e in model.history("config", "model", until=2)] == [1, 2]
    moment = history[1].timestamp
    assert [e.version for e in model.history("config", "model", since=moment)] == [3]
    assert [e.version for e in model.history("config", "model", until=moment, limit=1)] == [2]


def test_a_moment_names_a_version(model: limnion.SyncDatabase) -> None:
    history = model.history("config", "model")
    microsecond = dt.timedelta(microseconds=1)
    for entry in history[:2]:
        for when in (entry.version, entry.timestamp, entry.timestamp.astimezone()):
            assert model.get_at("config", "model", when) == entry.value
            assert model.get("config", "model", as_of=when) == entry.value
        assert model.get_at("config", "model", entry.timestamp.replace(tzinfo=None)) == entry.value
    assert model.get_at("config", "model", history[1].timestamp - microsecond) == history[0].value
    with pytest.raises(errors.NoValueAtTime):
        model.get_at("config", "model", history[0].timestamp - microsecond)
    assert model.get_at("config", "model", history[0].timestamp - microsecond, default=1) == 1
    with pytest.raises(LookupError):
        model.get_at("config", "model", dt.datetime(1960, 1, 1))  # noqa: DTZ001
    with pytest.raises(errors.KeyNotFoundError):
        model.get_at("config", "model", history[2].timestamp)
    with pytest.raises(errors.KeyNotFoundError):
        model.get_at("config", "model", 3)
    assert not model.exists("config", "model", as_of=3)
    assert model.exists("config", "model", as_of=2)
    assert not model.exists("config", "model", as_of=history[0].timestamp - microsecond)


@pytest.mark.parametrize("wrong", [dt.datetime(2020, 1, 1), -1, 1.5, "no such tag", True, b"x", 99])  # noqa: DTZ001
def test_points_in_history_are_checked(model: limnion.SyncDatabase, wrong: Any) -> None:
    with pytest.raises(limnion.LimnionError):
        model.get("config", "model", as_of=wrong)


def test_tags(model: limnion.SyncDatabase) -> None:
    tag = model.tag("v1", 1)
    assert tag == ("v1", 1, model.history("config", "model")[0].timestamp)
    assert model.get("config", "model", as_of="v1") == {"version": "small", "tags": ["a"]}
    with pytest.raises(errors.ConflictError):
        model.tag("v1", 2)
    assert model.tag("v1", 2, replace=True).version == 2
    assert model.get("config", "model", as_of="v1")["version"] == "large"
    assert model.tag("now").version == 3
    assert set(model.tags()) == {"v1", "now"}
    assert model.untag("v1")
    assert not model.untag("v1")
    with pytest.raises(errors.ValidationError):
        model.get("config", "model", as_of="v1")


def test_a_tag_of_the_beginning_has_the_time_of_no_commit(db: limnion.SyncDatabase) -> None:
    db.put("a", "x", 1)
    assert db.tag("nothing", 0).timestamp == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert db.keys("a", as_of="nothing") == []


def test_diffs_by_number_hash_tag_and_moment(model: limnion.SyncDatabase) -> None:
    first, second, _ = model.history("config", "model")
    model.tag("tagged", 1)
    assert first.hash is not None
    assert second.hash is not None
    for v1 in (1, "tagged", first.hash, first.hash[:12], first.hash[:12].upper(), first.timestamp):
        for v2 in (2, second.hash, second.timestamp):
            diff = model.diff("config", "model", v1=v1, v2=v2)
            assert diff.changed == {"version": ("small", "large")}
            assert diff.added == {"tags[1]": "b"}
            assert diff.removed == {}
            assert (diff.old, diff.new) == (first, second)
            assert str(diff) == "~ version: 'small' -> 'large'\n+ tags[1]: 'b'"
            assert "<td>changed</td>" in diff._repr_html_()
    gone = model.diff("config", "model")
    assert gone.removed == {".": second.value}
    born = model.diff("config", "model", v2=1)
    assert born.added == {".": first.value}
    assert not model.diff("config", "model", v1=2, v2=2)
    for wrong in ("abcd" * 16, "v9", first.hash[:2]):
        with pytest.raises(errors.ValidationError, match="hash"):
            model.diff("config", "model", v1=wrong)
    with pytest.raises(errors.KeyNotFoundError):
        model.diff("config", "nothing")
    with pytest.raises(errors.KeyNotFoundError):
        model.diff("config", "nothing", v1="abcdef")


def test_a_diff_aligns_lists() -> None:
    diff = compare([1, 2, 3, 4], [1, 9, 2, 3, 5])
    assert [str(change) for change in diff] == ["+ [1]: 9", "~ [4]: 4 -> 5"]
    assert compare({"a": [{"x": 1}]}, {"a": [{"x": 2}]}).changed == {"a[0].x": (1, 2)}
    assert compare(True, 1).changed == {".": (True, 1)}  # noqa: FBT003
    assert compare(1, 1.0)
    assert not compare(float("nan"), float("nan"))
    assert compare({"a b": 1}, {}).removed == {"['a b']": 1}
    assert str(compare(1, 1)) == "no difference"
    assert len(compare(list(range(2000)), list(range(1, 2001)))) > 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=15,
)


@given(json_values, json_values)
@settings(max_examples=200, deadline=None)
def test_a_diff_is_empty_just_where_values_are_equal(old: Any, new: Any) -> None:
    assert not compare(old, old)
    assert bool(compare(old, new)) == (typed(old) != typed(new))


def typed(value: Any) -> Any:
    """Return the value in a form whose equality tells types apart, and not the order of members."""
    if isinstance(value, dict):
        return ("dict", {key: typed(item) for key, item in value.items()})
    if isinstance(value, list):
        return ("list", [typed(item) for item in value])
    return (type(value), value)


def test_snapshots_stay_as_they_were(db: limnion.SyncDatabase) -> None:
    empty = db.snapshot()
    db.put("docs", "1", {"n": 1}, text="first words")
    db.put("docs", "2", {"n": 2})
    before = db.snapshot()
    db.put("docs", "1", {"n": 10})
    db.delete("docs", "2")
    db.put("docs", "3", {"n": 3})
    assert before.get("docs", "1") == before["docs/1"] == {"n": 1}
    assert before.keys("docs") == ["1", "2"]
    assert before.items("docs") == [("1", {"n": 1}), ("2", {"n": 2})]
    assert before.exists("docs", "2")
    assert not before.exists("docs", "3")
    assert before.get("docs", "3", default=None) is None
    assert before.query("docs", "n > 1").keys == ["2"]
    assert before.count("docs") == 2
    assert before.aggregate("docs", sum="n").sum == {"n": 3}
    assert len(before.history("docs", "1")) == 1
    record = before.record("docs", "1")
    assert record is not None
    assert record.version == 1
    assert [hit.record.key for hit in before.text_search("docs", "words")] == ["1"]
    assert empty.keys("docs") == []
    assert empty.as_of == 0
    assert db.snapshot(1).keys("docs") == ["1"]
    assert db.snapshot(db.history("docs", "2")[0].timestamp).keys("docs") == ["1", "2"]
    assert "as_of=2" in repr(before)


def test_queries_travel_in_time(db: limnion.SyncDatabase) -> None:
    db.put_batch({f"n/{i}": {"i": i} for i in range(5)})
    db.tag("five")
    db.put_batch({f"n/{i}": {"i": -i} for i in range(5)})
    assert db.count("n", "i > 2", as_of="five") == 2
    assert db.count("n", "i > 2") == 0
    assert db.keys("n", as_of=1, limit=2) == ["0", "1"]
    assert db.items("n", as_of=1)[4] == ("4", {"i": 4})


def test_restoring_is_a_new_version(db: limnion.SyncDatabase) -> None:
    db.put_batch({"a/1": 1, "a/2": 2, "b/1": 1})
    db.tag("good")
    db.put_batch({"a/1": 10, "a/3": 3, "b/1": 10})
    db.delete("a", "2")
    version = db.restore("good", namespace="a")
    assert db.namespace("a").all() == {"1": 1, "2": 2}
    assert db.get("b", "1") == 10
    assert db.history("a", "1")[-1].version == version
    db.restore("good")
    assert db.get("b", "1") == 1
    db.restore(2, namespace="a", key="1")
    assert db.get("a", "1") == 10
    assert db.get("a", "2") == 2


def test_history_survives_reopening(shop: Shop) -> None:
    if shop.folder is None:
        pytest.skip("there is nothing to open again")
    with shop.sync() as db:
        for i in range(200):
            db.put("n", "k", {"i": i})
        db.tag("end")
        stamps = [entry.timestamp for entry in db.history("n", "k")]
    with shop.sync() as db:
        assert [entry.timestamp for entry in db.history("n", "k")] == stamps
        for i in range(0, 200, 7):
            assert db.get("n", "k", as_of=i + 1) == {"i": i}
            assert db.get_at("n", "k", stamps[i]) == {"i": i}
        db.vacuum()
        assert [entry.value["i"] for entry in db.history("n", "k")] == list(range(200))
        assert db.get("n", "k", as_of="end") == {"i": 199}
