"""A database: records written, read, scanned, queried, kept and given back."""

import datetime as dt
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Shop

import limnion
from limnion import errors


def test_what_is_put_can_be_got(db: limnion.SyncDatabase) -> None:
    assert db.put("users", "alice", {"name": "Alice"}) == 1
    assert db.put("users", "bob", [1, 2]) == 2
    assert db.get("users", "alice") == {"name": "Alice"}
    assert db.get_nowait("users", "bob") == [1, 2]
    assert db["users/alice"] == {"name": "Alice"}
    assert db.exists("users", "alice")
    assert not db.exists("users", "carol")


def test_a_value_belongs_to_who_got_it(db: limnion.SyncDatabase) -> None:
    value = {"tags": ["a"]}
    db.put("users", "alice", value)
    value["tags"].append("b")
    got = db.get("users", "alice")
    assert got == {"tags": ["a"]}
    got["tags"].append("c")
    assert db.get("users", "alice") == {"tags": ["a"]}


def test_a_missing_key_names_its_neighbours(db: limnion.SyncDatabase) -> None:
    db.put_batch({"users/alice": 1, "users/alex": 2, "users/bob": 3})
    for get in (db.get, db.get_nowait):
        with pytest.raises(errors.KeyNotFoundError) as raised:
            get("users", "alic")
        assert (raised.value.namespace, raised.value.key) == ("users", "alic")
        assert raised.value.suggestion is not None
        assert "did you mean 'alice'?" in raised.value.suggestion
        assert "alice" in str(raised.value)
        with pytest.raises(KeyError):
            get("nowhere", "x")


def test_a_default_stands_for_what_is_missing(db: limnion.SyncDatabase) -> None:
    assert db.get("users", "x", default=None) is None
    assert db.get("users", "x", default=7) == 7
    assert db.get_nowait("users", "x", default=7) == 7
    db.put("users", "none", None)
    assert db.get("users", "none", default=7) is None
    assert db.get_nowait("users", "none", default=7) is None
    assert db.get("users", "x", default=7, as_of=1) == 7


def test_deleting_says_whether_there_was_something(db: limnion.SyncDatabase) -> None:
    db.put("users", "alice", 1)
    assert db.delete("users", "alice") is True
    assert db.delete("users", "alice") is False
    assert db.get("users", "alice", default=None) is None
    assert db.put("users", "alice", 2) > 2
    del db["users/alice"]
    assert not db.exists("users", "alice")


def test_places_are_namespace_and_key(db: limnion.SyncDatabase) -> None:
    db.set("users/alice", 1)
    db["users/a/b"] = 2
    assert db.get("users", "a/b") == 2
    assert db["users/a/b"] == 2
    with pytest.raises(errors.ValidationError, match="'/'"):
        db.set("users", 1)
    with pytest.raises(errors.ValidationError, match="must be a string"):
        db[1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("namespace", "key", "message"),
    [
        ("", "k", "namespace must not be empty"),
        ("a/b", "k", "namespace must have no '/'"),
        ("n" * 256, "k", "at most 255 bytes"),
        ("ns", "", "key must not be empty"),
        ("ns", "k" * 4097, "at most 4096 bytes"),
        (1, "k", "namespace must be a string, got int"),
        ("ns", 1, "key must be a string, got int"),
        ("ns", "\ud800", "surrogate"),
    ],
)
def test_names_are_checked(
    db: limnion.SyncDatabase, namespace: Any, key: Any, message: str
) -> None:
    for call in (
        lambda: db.put(namespace, key, 1),
        lambda: db.get(namespace, key),
        lambda: db.delete(namespace, key),
        lambda: db.history(namespace, key),
        lambda: db.put_batch([(namespace, key, 1)]),
    ):
        with pytest.raises((errors.ValidationError, errors.InvalidTypeError), match=message) as e:
            call()
        assert e.value.suggestion


def test_odd_names_are_fine(db: limnion.SyncDatabase) -> None:
    names = [
        "a b",
        "\0",
        "😀",
        "..",
        "%",
        "k" * 4096,
        "'; DROP TABLE x;--",
        "A",
        "a",
        "é",
        "e\u0301",
    ]
    db.put_batch([("odd ns \0 '😀", name, name) for name in names])
    assert sorted(db.keys("odd ns \0 '😀")) == sorted(names)
    for name in names:
        assert db.get("odd ns \0 '😀", name) == name


def test_a_batch_is_one_commit(db: limnion.SyncDatabase) -> None:
    version = db.put_batch([("a", "1", 1), ["b", "2", 2], ("a", "1", 3)])  # type: ignore[list-item]
    assert db.get("a", "1") == 3
    assert len(db.history("a", "1")) == 1
    assert {db.history(*place)[0].version for place in (("a", "1"), ("b", "2"))} == {version}
    assert db.namespace("a").put_batch({"x": 1, "y": 2}) == version + 1
    assert db.put_batch({("c", "1"): 1, ("c", "2"): 2}) == version + 2
    assert db.put_batch([]) == version + 2
    assert db.put_batch(("g", str(i), i) for i in range(1000)) == version + 3
    assert len(db.keys("g")) == 1000


def test_a_batch_with_a_mistake_writes_nothing(db: limnion.SyncDatabase) -> None:
    with pytest.raises(errors.SerializationError) as raised:
        db.put_batch([("a", "1", 1), ("a", "2", object())])
    assert raised.value.__notes__ == ["in row 1"]
    for rows in ([("a", "1")], ["abc"], [1], [("a", "b", "c", "d")]):
        with pytest.raises(errors.ValidationError, match="position 0"):
            db.put_batch(rows)  # type: ignore[arg-type]
    assert db.keys("a") == []


def test_keys_are_in_order_and_can_be_cut(db: limnion.SyncDatabase) -> None:
    db.put_batch({f"ns/{key}": key for key in ("b", "a1", "a", "é", "Z", "a2")})
    assert db.keys("ns") == ["Z", "a", "a1", "a2", "b", "é"]
    assert db.keys("ns", prefix="a") == ["a", "a1", "a2"]
    assert db.keys("ns", start="a1", end="b") == ["a1", "a2"]
    assert db.keys("ns", reverse=True, limit=2) == ["é", "b"]
    assert db.items("ns", prefix="a1") == [("a1", "a1")]
    assert db.keys("ns", limit=0) == []
    with pytest.raises(errors.ValidationError, match="prefix"):
        db.keys("ns", prefix="a", start="b")
    assert db.keys("nothing") == []


def test_a_namespace_has_the_same_verbs(db: limnion.SyncDatabase) -> None:
    users = db.namespace("users")
    version = users.put("bob", {"age": 7}, metadata={"team": "blue"})
    users["alice"] = {"age": 9}
    assert users["alice"] == users.get("alice") == users.get_nowait("alice") == {"age": 9}
    assert users.all() == {"alice": {"age": 9}, "bob": {"age": 7}}
    assert users.keys() == ["alice", "bob"]
    assert users.items() == list(users.all().items())
    assert users.put_if("bob", 1, "absent") is None
    assert users.exists("bob")
    assert users.get_at("bob", version) == {"age": 7}
    assert users.count("age > 7") == 1
    assert users.query({"team": "blue"})[0].key == "bob"
    assert users.aggregate(sum="age").sum == {"age": 16}
    assert len(users.history("bob")) == 1
    record = users.record("bob")
    assert record is not None
    assert record.metadata == {"team": "blue"}
    assert users.delete("bob")
    users.restore(version)
    assert users.all() == {"bob": {"age": 7}}
    del users["bob"]
    assert users.all() == {}
    assert users.name == "users"
    assert "users" in repr(users)
    with pytest.raises(errors.ValidationError):
        db.namespace("a/b")


def test_namespaces_are_those_with_a_record(db: limnion.SyncDatabase) -> None:
    assert db.namespaces() == []
    db.put_batch({"b/1": 1, "a/1": 1})
    assert db.namespaces() == ["a", "b"]


def test_a_record_has_all_that_belongs_to_it(db: limnion.SyncDatabase) -> None:
    before = dt.datetime.now(dt.UTC)
    vector = np.arange(3, dtype=np.float32)
    db.put(
        "docs",
        "1",
        {"title": "x"},
        ttl=dt.timedelta(hours=1),
        metadata={"year": 2020},
        text="some words",
        vector=vector,
        vectors={"title": [1.0, 2.0]},
    )
    record = db.record("docs", "1")
    assert record is not None
    assert (record.namespace, record.key, record.version, record.previous) == ("docs", "1", 1, None)
    assert (record.value, record.metadata, record.text) == (
        {"title": "x"},
        {"year": 2020},
        "some words",
    )
    assert record.vector is not None
    assert record.vector.dtype == np.float32
    assert (record.vector == vector).all()
    assert set(record.vectors) == {"", "title"}
    assert record.vectors["title"].tolist() == [1.0, 2.0]
    assert record.timestamp.tzinfo is dt.UTC
    assert before - dt.timedelta(seconds=1) <= record.timestamp <= before + dt.timedelta(minutes=1)
    assert record.expires_at is not None
    age = record.expires_at - record.timestamp
    assert abs(age - dt.timedelta(hours=1)) < dt.timedelta(seconds=5)
    assert re.fullmatch("[0-9a-f]{64}", record.hash or "")
    assert not record.deleted
    assert repr(record) == "Record('docs/1', version=1, {'title': 'x'})"
    assert record == db.record("docs", "1")
    assert hash(record) == hash(db.record("docs", "1"))
    assert db.record("docs", "2") is None
    plain = db.put("docs", "2", 1)
    other = db.record("docs", "2", as_of=plain)
    assert other is not None
    assert (other.vector, other.vectors, other.metadata, other.text, other.expires_at) == (
        None,
        {},
        {},
        None,
        None,
    )


def test_equal_values_have_equal_hashes(db: limnion.SyncDatabase) -> None:
    for key, value in [("a", {"x": 1}), ("b", {"x": 1}), ("c", {"x": 2}), ("d", b"1"), ("e", 1)]:
        db.put("ns", key, value)
    hashes = {key: db.history("ns", key)[0].hash for key in "abcde"}
    assert hashes["a"] == hashes["b"]
    assert len(set(hashes.values())) == 4


def test_large_values_and_vectors_come_back(shop: Shop) -> None:
    rng = np.random.default_rng(0)
    large = {"text": "x" * 300_000, "bytes": rng.bytes(100_000)}
    vector = rng.standard_normal(50_000, dtype=np.float32)
    db = shop.sync()
    db.put("ns", "large", large, vector=vector)
    db.put("ns", "bytes", large["bytes"])
    for _ in range(2):
        assert db.get("ns", "large") == large
        assert db.get("ns", "bytes") == large["bytes"]
        (record,) = db.history("ns", "large")
        assert record.vector is not None
        assert (record.vector == vector).all()
        (found,) = db.query("ns", limit=1, sort="-$key")
        assert (found.vectors[""] == vector).all()
        if shop.folder is None:
            return
        db.close()
        db = shop.sync()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": 0}, "ttl must be"),
        ({"ttl": -1}, "ttl must be"),
        ({"ttl": float("nan")}, "ttl must be"),
        ({"ttl": "1"}, "ttl must be"),
        ({"ttl": True}, "ttl must be"),
        ({"metadata": [1]}, "metadata must be a dict"),
        (
            {"metadata": {"when": dt.date(2020, 1, 1)}},
            r'metadata\["when"\] must hold nothing but JSON',
        ),
        ({"metadata": {"n": float("nan")}}, "must be a finite number"),
        ({"text": 1}, "text must be a string"),
        ({"vector": np.ones(3)}, "vector must be"),
        ({"vector": [1.0, float("nan")]}, "finite"),
        ({"vector": []}, "vector must have"),
        ({"vectors": [1.0]}, "vectors must be a dict"),
        ({"vectors": {1: [1.0]}}, "the name of a vector must be a string"),
        ({"vector": [1.0], "vectors": {"": [1.0]}}, "empty name"),
        ({"expect": "maybe"}, "expect must be"),
        ({"expect": -1}, "expect must be"),
        ({"expect": True}, "expect must be"),
    ],
)
def test_what_a_put_takes_is_checked(
    db: limnion.SyncDatabase, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(limnion.LimnionError, match=message):
        db.put("ns", "k", 1, **options)
    assert not db.exists("ns", "k")


def test_records_run_out(db: limnion.SyncDatabase) -> None:
    db.put("ns", "short", 1, ttl=0.15)
    db.put("ns", "long", 2, ttl=1000)
    assert db.get("ns", "short") == 1
    time.sleep(0.25)
    assert db.get("ns", "short", default=None) is None
    assert not db.exists("ns", "short")
    assert db.keys("ns") == ["long"]
    assert db.count("ns") == 1
    assert db.put_if("ns", "short", 3, "absent")
    assert db.get("ns", "short") == 3
    with pytest.raises(errors.KeyNotFoundError):
        db.get("ns", "gone")


def test_conditions(db: limnion.SyncDatabase) -> None:
    first = db.put("ns", "k", 1, expect="absent")
    second = db.put("ns", "k", 2, expect=first)
    for expect in ("absent", first, 999):
        with pytest.raises(errors.ConflictError):
            db.put("ns", "k", 3, expect=expect)
        assert db.put_if("ns", "k", 3, expect) is None
        with pytest.raises(errors.ConflictError):
            db.delete("ns", "k", expect=expect)
    assert db.put("ns", "k", 3, expect="present") == second + 1
    assert db.get("ns", "k") == 3
    assert db.delete("ns", "k", expect=second + 1)
    with pytest.raises(errors.ConflictError):
        db.put("ns", "k", 4, expect="present")


def test_queries_take_filters_in_three_forms(db: limnion.SyncDatabase) -> None:
    db.put_batch({f"n/{i:02}": {"i": i, "even": i % 2 == 0} for i in range(20)})
    for filter in ({"i": {"$gte": 15}}, "i >= 15", limnion.F("i") >= 15):
        found = db.query("n", filter)
        assert [record.value["i"] for record in found] == [15, 16, 17, 18, 19]
        assert found.total == len(found) == 5
        assert db.count("n", filter) == 5
    page = db.query("n", {"even": True}, sort="-i", limit=2, offset=1)
    assert (page.values, page.total) == ([{"i": 16, "even": True}, {"i": 14, "even": True}], 10)
    assert page.keys == ["16", "14"]
    assert [record.key for record in db.query("n", sort=["even", "-i"], limit=2)] == ["19", "17"]
    assert "2 of 10" in repr(page)
    assert "<table>" in page._repr_html_()
    assert page[0:1].keys == ["16"]
    assert page == db.query("n", {"even": True}, sort="-i", limit=2, offset=1)
    assert db.query("n", "i > 100").total == 0
    for wrong in (["i"], 1):
        with pytest.raises(errors.InvalidTypeError, match="filter must be"):
            db.query("n", wrong)  # type: ignore[arg-type]
    with pytest.raises(limnion.LimnionError):
        db.query("n", {"i": {"$near": 1}})


def test_figures_over_records(db: limnion.SyncDatabase) -> None:
    db.put_batch({f"s/{i}": {"shop": "ab"[i % 2], "n": i} for i in range(10)})
    figures = db.aggregate("s", sum="n", avg=["n"], min="n", max="n")
    assert (figures.count, figures.sum, figures.avg) == (10, {"n": 45}, {"n": 4.5})
    assert (figures.min, figures.max) == ({"n": 0}, {"n": 9})
    groups = {group.key: group for group in db.aggregate("s", "n > 1", group_by="shop", sum="n")}
    assert {key: (group.count, group.sum) for key, group in groups.items()} == {
        "a": (4, {"n": 20}),
        "b": (4, {"n": 24}),
    }
    nothing = db.aggregate("nothing", sum="n", avg="n")
    assert nothing.count == 0
    assert nothing.avg == {"n": None}


def test_declared_indexes_change_nothing_but_speed(db: limnion.SyncDatabase) -> None:
    db.put_batch({f"n/{i}": {"i": i} for i in range(50)})
    before = db.query("n", "i >= 40", sort="i")
    db.create_index("n", "i")
    assert db.indexes() == [("n", "i")]
    assert db.query("n", "i >= 40", sort="i") == before
    db.put("n", "new", {"i": 45.5})
    assert db.count("n", "i >= 40") == 11
    assert db.drop_index("n", "i")
    assert not db.drop_index("n", "i")
    assert db.count("n", "i >= 40") == 11


def test_text_is_found_by_its_words(db: limnion.SyncDatabase) -> None:
    texts = {"1": "a small lake", "2": "a small small small boat", "3": "mountains"}
    for key, text in texts.items():
        db.put("docs", key, {"key": key}, text=text)
    hits = db.text_search("docs", "small lake")
    assert hits[0].record.key == "1"
    assert all(hits[i].score >= hits[i + 1].score for i in range(len(hits) - 1))
    assert [hit.record.key for hit in db.text_search("docs", '"small lake"')] == ["1"]
    assert [hit.record.key for hit in db.text_search("docs", "moun*")] == ["3"]
    assert [hit.record.key for hit in db.text_search("docs", "small", filter={"key": "2"})] == ["2"]
    assert len(db.text_search("docs", "small", limit=1)) == 1
    db.delete("docs", "3")
    assert db.text_search("docs", "mountains") == []


def test_figures_of_the_database(db: limnion.SyncDatabase) -> None:
    empty = db.stats()
    assert (empty.key_count, empty.total_versions, empty.namespace_count) == (0, 0, 0)
    for i in range(3):
        db.put("a", "k", {"i": i})
    db.put("b", "k", "x" * 100)
    stats = db.stats()
    assert (stats.key_count, stats.total_versions, stats.namespace_count) == (2, 4, 2)
    assert stats.version == 4
    assert stats.namespaces["a"].total_versions == 3
    assert stats.namespaces["a"].history_bytes > 0
    assert stats.memory_usage_mb > 0
    assert stats.hot_cache_size == 2
    assert db.memory_tiers().hot == 2
    assert db.health().healthy
    assert db.health().issues == []
    assert db.check().ok
    assert db.check().versions == 4


def test_export_and_import(shop: Shop, tmp_path: Path) -> None:
    db = shop.sync()
    values = {"a": 1, "b": {"when": dt.date(2020, 1, 2), "raw": b"\xff"}, "c": b"bytes"}
    for key, value in values.items():
        db.put("ns", key, value, metadata={"key": key}, vector=[1.0, 2.0], text="word")
    db.put("other", "x", 1)
    assert db.export_jsonl(tmp_path / "all.jsonl") == 4
    assert db.export_jsonl(str(tmp_path / "ns.jsonl"), namespace="ns") == 3
    with limnion.Database.sync() as other:
        assert other.import_jsonl(tmp_path / "ns.jsonl") == 3
        assert other.namespace("ns").all() == values
        record = other.record("ns", "b")
        assert record is not None
        assert record.metadata == {"key": "b"}
        assert record.vectors[""].tolist() == [1.0, 2.0]
        assert len(other.text_search("ns", "word")) == 3
        assert other.namespaces() == ["ns"]


def test_a_closed_database_says_so(shop: Shop) -> None:
    db = shop.sync()
    db.put("a", "b", 1)
    db.close()
    db.close()
    assert db.closed
    assert "closed" in repr(db)
    for call in (
        lambda: db.get("a", "b"),
        lambda: db.get_nowait("a", "b"),
        lambda: db.put("a", "b", 2),
        lambda: db.keys("a"),
        lambda: db.history("a", "b"),
        db.watch,
        db.__enter__,
        db.stats,
    ):
        with pytest.raises(errors.DatabaseClosedError) as raised:
            call()
        assert raised.value.suggestion
    never = shop.sync()
    never.close()
    with pytest.raises(RuntimeError):
        never.get("a", "b")


def test_it_opens_on_first_use(tmp_path: Path) -> None:
    db = limnion.Database.sync(tmp_path / "db")
    assert not (tmp_path / "db").exists()
    db.put("a", "b", 1)
    assert (tmp_path / "db").exists()
    db.close()


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "db"


def test_what_was_acknowledged_is_there_again(folder: Path) -> None:
    with limnion.Database.sync(folder) as db:
        db.put("state", "counter", 42, metadata={"a": 1})
        db.put("state", "counter", 43)
    with limnion.Database.sync(str(folder)) as db:
        assert db.get("state", "counter") == 43
        assert [record.value for record in db.history("state", "counter")] == [42, 43]
        assert db.put("state", "counter", 44) == 3
        assert db.check().ok


def test_a_second_handle_is_locked_out(folder: Path) -> None:
    with limnion.Database.sync(folder) as db:
        db.put("a", "b", 1)
        with pytest.raises(errors.DatabaseLockedError, match=str(os.getpid())):
            limnion.Database.sync(folder).get("a", "b")
        with pytest.raises(OSError, match=str(os.getpid())), limnion.Database.sync(folder):
            pass
    with limnion.Database.sync(folder) as db:
        assert db.get("a", "b") == 1


def test_readers_beside_a_writer(folder: Path) -> None:
    with limnion.Database.sync(folder) as db:
        db.put("a", "b", 1)
        with limnion.Database.sync(limnion.Config(folder, read_only=True)) as reader:
            assert reader.get("a", "b") == 1
            for write in (
                lambda: reader.put("a", "b", 2),
                lambda: reader.delete("a", "b"),
                lambda: reader.tag("x"),
            ):
                with pytest.raises(errors.ReadOnlyError):
                    write()
            with pytest.raises(PermissionError):
                reader.put("a", "b", 2)
            db.put("a", "b", 3)
            deadline = time.monotonic() + 5
            while reader.get("a", "b") != 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert reader.get("a", "b") == 3


def test_backups_are_databases(folder: Path, tmp_path: Path) -> None:
    with limnion.Database.sync(folder) as db:
        for i in range(100):
            db.put("a", str(i % 10), i)
        db.backup(tmp_path / "copy")
        db.put("a", "0", "later")
    with limnion.Database.sync(tmp_path / "copy") as copy:
        assert copy.get("a", "0") == 90
        assert len(copy.history("a", "0")) == 10
        assert copy.check().ok


def test_retention_and_vacuum(shop: Shop) -> None:
    db = shop.sync(retention=limnion.Retention(keep_last=2))
    for i in range(20):
        db.put("a", "k", i)
        if i == 5:
            db.tag("kept")
    db.vacuum()
    assert [record.value for record in db.history("a", "k")] == [5, 18, 19]
    assert db.get("a", "k", as_of="kept") == 5
    with pytest.raises(errors.NoValueAtTime):
        db.get("a", "k", as_of=8)
    assert db.check().ok


def test_a_snapshot_keeps_what_it_shows(shop: Shop) -> None:
    db = shop.sync(retention=limnion.Retention(keep_last=1))
    db.put("config", "model", "small")
    before = db.snapshot()
    for size in ("medium", "large"):
        db.put("config", "model", size)
    db.vacuum()
    assert before.get("config", "model") == "small"
    assert [entry.value for entry in db.history("config", "model")] == ["small", "large"]
    del before
    db.vacuum()
    assert [entry.value for entry in db.history("config", "model")] == ["large"]
    with pytest.raises(limnion.NoValueAtTime):
        db.get("config", "model", as_of=1)


def test_encryption_hides_values(folder: Path) -> None:
    key = bytes(range(32))
    secret = "correct horse battery staple"  # noqa: S105
    with limnion.Database.sync(limnion.Config(folder, encryption_key=key)) as db:
        db.put("a", "k", {"secret": secret}, metadata={"m": secret}, text=secret)
        assert db.query("a", {"m": secret}).total == 1
        assert [hit.record.key for hit in db.text_search("a", "horse")] == ["k"]
    for file in folder.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()
    with limnion.Database.sync(limnion.Config(folder, encryption_key=key)) as db:
        assert db.get("a", "k") == {"secret": secret}
    for wrong in (None, bytes(32)):
        with pytest.raises(limnion.StoreError):  # noqa: SIM117 - the second is what must fail
            with limnion.Database.sync(limnion.Config(folder, encryption_key=wrong)) as db:
                db.get("a", "k")


def test_salvage_copies_what_is_whole(folder: Path, tmp_path: Path) -> None:
    with limnion.Database.sync(folder) as db:
        for i in range(10):
            db.put("a", str(i), i)
    report = limnion.SyncDatabase.salvage(folder, tmp_path / "saved")
    assert report.ok
    with limnion.Database.sync(tmp_path / "saved") as saved:
        assert saved.namespace("a").all() == {str(i): i for i in range(10)}


# Configuration


def test_a_configuration_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert limnion.Config("~/x/y").path == tmp_path / "x" / "y"
    monkeypatch.chdir(tmp_path)
    assert limnion.Config("rel/../db").path == tmp_path / "db"
    assert limnion.Config(":memory:").path is None
    cases: list[tuple[dict[str, Any], str]] = [
        ({"path": 1}, "path must be"),
        ({"path": ""}, "path must not be empty"),
        ({"max_memory_mb": -1}, "max_memory_mb must be"),
        ({"max_memory_mb": "1"}, "max_memory_mb must be"),
        ({"durability": "maybe"}, "durability must be"),
        ({"retention": 3}, "retention must be a Retention"),
        ({"enable_wal": 1}, "enable_wal must be"),
        ({"read_only": True}, "read_only needs a path"),
        ({"path": "x", "encryption_key": b"short"}, "32 bytes, got 5 bytes"),
        ({"path": "x", "encryption_key": "k" * 32}, "32 bytes, got str"),
    ]
    for options, message in cases:
        with pytest.raises(errors.ValidationError, match=message):
            limnion.Config(**options)
    retentions: list[dict[str, Any]] = [{}, {"keep_last": 0}, {"keep_last": True}, {"keep_for": 5}]
    for retention in retentions:
        with pytest.raises(errors.ValidationError):
            limnion.Retention(**retention)
    with pytest.raises(ValueError, match="path"):
        limnion.Database(1)  # type: ignore[arg-type]


def test_a_configuration_does_not_tell_its_key() -> None:
    config = limnion.Config("x", encryption_key=b"k" * 32)
    assert "kkk" not in repr(config)
    assert "kkk" not in repr(limnion.Database(config))
    with pytest.raises(AttributeError):
        config.path = None  # type: ignore[misc]
    assert config == limnion.Config("x", encryption_key=b"k" * 32)


@pytest.mark.parametrize("durability", ["commit", "batched", "none"])
@pytest.mark.parametrize("enable_wal", [True, False])
def test_every_durability_keeps_what_was_closed(
    folder: Path, durability: Any, enable_wal: bool
) -> None:
    config = limnion.Config(folder, durability=durability, enable_wal=enable_wal)
    with limnion.Database.sync(config) as db:
        db.put("a", "b", 1)
    with limnion.Database.sync(config) as db:
        assert db.get("a", "b") == 1


def test_a_hot_tier_of_nothing_works(shop: Shop) -> None:
    db = shop.sync(max_memory_mb=0)
    db.put("a", "b", {"x": 1})
    assert db.get("a", "b") == {"x": 1}
    assert db.get_nowait("a", "b") == {"x": 1}


def test_an_empty_value_beside_a_vector_is_found(db: limnion.SyncDatabase) -> None:
    db.put("a", "b", b"", vector=[1.0, 2.0], metadata={"shade": 1})
    assert db.query("a", "shade = 1").values == [b""]


@pytest.mark.parametrize("history", [True, False])
def test_null_is_a_value_in_lines_too(
    db: limnion.SyncDatabase, tmp_path: Path, history: bool
) -> None:
    db.put("a", "b", None, metadata={"x": None})
    assert db.export_jsonl(tmp_path / "lines", history=history) == 1
    with limnion.Database.sync() as other:
        assert other.import_jsonl(tmp_path / "lines") == 1
        assert other.get("a", "b") is None
        assert other.query("a", {"x": None}).keys == ["b"]
