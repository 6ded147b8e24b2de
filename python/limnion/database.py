"""The versioned store, for asyncio: records with a whole history in one folder.

`limnion.SyncDatabase` is the same without `await`; its source is made from this file by
`tools/make_sync.py`. The examples below are run with a new database `db`, and with `await` at the
top level, as in `python -m asyncio` and notebooks.

Every write makes a version, numbered by its commit. A record is a value under a namespace and a
key, with optional metadata, text, vectors and expiry. An await of a write returns once the write is
as durable as the configuration says; cancelling it neither takes the write back nor tears it.

>>> await db.put("config", "model", {"name": "small"})
1
>>> await db.put("config", "model", {"name": "large"})
2
>>> await db.get("config", "model")
{'name': 'large'}
>>> await db.get("config", "model", as_of=1)
{'name': 'small'}
>>> print(await db.diff("config", "model"))
~ name: 'small' -> 'large'
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, overload

from limnion import serializers
from limnion._arguments import (
    BUILTIN_MODEL,
    MISSING,
    NOTHING,
    Rows,
    alone,
    as_dict,
    as_group,
    as_sort,
    checked,
    folder,
    of_model,
    split,
    text_of,
    with_model,
)
from limnion._asking import ask, close, embedded, embedded_batch, wait
from limnion._native import Hold, Record, Store, Write
from limnion.config import Config, options_of
from limnion.diff import Diff, of_records
from limnion.errors import (
    ConflictError,
    DatabaseClosedError,
    DimensionMismatch,
    ForkedProcessError,
    KeyNotFoundError,
    NoValueAtTime,
    ValidationError,
)
from limnion.filters import plain
from limnion.records import (
    Change,
    CheckReport,
    Group,
    Health,
    MemoryTiers,
    NamespaceStats,
    Records,
    SimilarHit,
    Stats,
    Tag,
    TextHit,
    Vacuumed,
)

if TYPE_CHECKING:
    import datetime as dt
    import os
    from types import TracebackType
    from typing import Self

    from limnion.sync_database import SyncDatabase as _SyncDatabase
    from limnion.types import AsOf, EmbedFn, Expect, FilterLike, MatrixLike, VectorLike

__all__ = ["Database", "Namespace", "Snapshot", "Transaction", "Watch"]

T = TypeVar("T")
D = TypeVar("D")
_HASH_DIGITS: Final = 4
_CHANGES: Final = 1_000


class Database:
    """A versioned store: open it with `async with`, or just use it and `close` it.

    It is opened by `async with`, or by the first call. It can be used from any thread and any
    event loop of the process that opened it; after a fork the child gets `ForkedProcessError`.

    Args:
        config: A `Config`, or the path of a folder; in memory without.

    Raises:
        ValidationError: for a configuration that cannot be used.
        DatabaseLockedError: when it is opened, where another process has it open.

    >>> async with Database() as db:
    ...     version = await db.put("users", "alice", {"name": "Alice"})
    ...     await db.get("users", "alice")
    {'name': 'Alice'}
    """

    __slots__ = ("__weakref__", "_closed", "_config", "_lock", "_store")

    _store: Store

    def __init__(self, config: Config | str | os.PathLike[str] | None = None) -> None:
        self._config = config if isinstance(config, Config) else Config(config)
        self._lock = threading.Lock()
        self._closed = False

    @staticmethod
    def sync(config: Config | str | os.PathLike[str] | None = None) -> _SyncDatabase:
        """The same database without `await`: a `SyncDatabase`.

        >>> with limnion.Database.sync() as db:
        ...     version = db.put("users", "alice", {"name": "Alice"})
        ...     db.get("users", "alice")
        {'name': 'Alice'}
        """
        from limnion.sync_database import SyncDatabase as Sync  # noqa: PLC0415

        return Sync(config)

    @staticmethod
    async def salvage(
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        *,
        encryption_key: bytes | None = None,
    ) -> CheckReport:
        """Copies all that is whole from a damaged database into a new one.

        Args:
            source: The folder of the damaged database, which nobody has open.
            target: A folder that does not exist, or is empty.
            encryption_key: The key of the damaged database, where it has one.

        Returns:
            What was copied, and what was left behind as problems.
        """
        request = Store.salvage(folder(source), folder(target), encryption_key)
        return CheckReport(*await ask(request))

    # Opening and closing

    def __getattr__(self, name: str) -> Any:
        """Opens the store when it is first asked for."""
        if name != "_store":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with self._lock:
            if self._closed:
                self._raise_closed()
            try:
                return object.__getattribute__(self, "_store")
            except AttributeError:
                self._store = Store.open(options_of(self._config)).wait()
                return self._store

    async def __aenter__(self) -> Self:
        """Opens the database."""
        if self._closed:
            self._raise_closed()
        try:
            object.__getattribute__(self, "_store")
        except AttributeError:
            store = await ask(Store.open(options_of(self._config)))
            with self._lock:
                self._store = store
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the database; raises what went wrong with queued writes."""
        try:
            await self.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"and while the database was closed: {late!r}")

    async def close(self) -> None:
        """Finishes what was handed in, and frees every file, thread and lock.

        A database that is closed stays closed; closing it again does nothing. Raises what went
        wrong with writes that nobody has waited for, after everything is freed.
        """
        with self._lock:
            self._closed = True
            try:
                store: Store = object.__getattribute__(self, "_store")
            except AttributeError:
                return
            del self._store
        try:
            if store.busy:
                await ask(store.settle())
        except ForkedProcessError:
            return  # the files are the parent's
        finally:
            await close(store)

    @property
    def closed(self) -> bool:
        """Whether the database was closed."""
        return self._closed

    @property
    def config(self) -> Config:
        """What the database was opened with."""
        return self._config

    def __repr__(self) -> str:
        place = repr(str(self._config.path)) if self._config.path else ""
        return f"{type(self).__name__}({place}){' (closed)' if self._closed else ''}"

    def _raise_closed(self) -> NoReturn:
        raise DatabaseClosedError(f"{self!r} cannot be used any more", "open a new Database")

    async def _settle(self) -> None:
        """Waits for queued writes, and raises what went wrong."""
        if self._store.busy:
            await ask(self._store.settle())

    # Reading one record

    @overload
    async def get(
        self, namespace: str, key: str, *, type: type[T], as_of: AsOf | None = None
    ) -> T: ...
    @overload
    async def get(
        self, namespace: str, key: str, *, type: type[T], default: D, as_of: AsOf | None = None
    ) -> T | D: ...
    @overload
    async def get(
        self,
        namespace: str,
        key: str,
        *,
        default: Any = ...,
        as_of: AsOf | None = None,
        type: None = None,
    ) -> Any: ...
    async def get(
        self,
        namespace: str,
        key: str,
        *,
        default: Any = MISSING,
        as_of: AsOf | None = None,
        type: type[Any] | None = None,
    ) -> Any:
        """The value of a record.

        A record in the hot tier is answered at once, without a turn of the loop; another one is
        read in the calling thread, which takes some microseconds.

        Args:
            namespace: The namespace.
            key: The key.
            default: What to give where there is no value; without, that is an error.
            as_of: A version, a tag or an aware datetime: the value as it was then.
            type: A dataclass or a pydantic model to make of the value.

        Raises:
            KeyNotFoundError: where there is no value, naming the nearest keys.
            NoValueAtTime: where the record was written after `as_of`, or that version is forgotten.
            SerializationError: where the value does not fit `type`.

        >>> version = await db.put("users", "alice", {"name": "Alice"})
        >>> await db.get("users", "alice")
        {'name': 'Alice'}
        >>> await db.get("users", "bob", default=None)
        >>> await db.get("users", "alic")
        Traceback (most recent call last):
        limnion.errors.KeyNotFoundError: there is no key 'alic' in the namespace 'users'; did you \
mean 'alice'? Similar keys: ['alice']
        """
        store = self._store
        if as_of is None:
            value = store.hot(namespace, key, MISSING)
            if value is not MISSING:
                return value if type is None else serializers.build(type, value)
        if store.busy:
            await ask(store.settle())
        try:
            value = store.get(namespace, key, MISSING, as_of)
        except NoValueAtTime:
            if default is MISSING:
                raise
            return default
        if value is MISSING:
            if default is MISSING:
                raise store.not_found(namespace, key)
            return default
        return value if type is None else serializers.build(type, value)

    def get_nowait(self, namespace: str, key: str, *, default: Any = MISSING) -> Any:
        """`get` without `await`: for a record that is likely to be in the hot tier.

        Another one is read in the calling thread; queued writes are waited for.

        >>> version = await db.put("users", "alice", {"name": "Alice"})
        >>> db.get_nowait("users", "alice")
        {'name': 'Alice'}
        """
        store = self._store
        value = store.hot(namespace, key, MISSING)
        if value is not MISSING:
            return value
        if store.busy:
            store.settle_here()
        value = store.get(namespace, key, default)
        if value is MISSING:
            raise store.not_found(namespace, key)
        return value

    async def get_at(self, namespace: str, key: str, when: AsOf, *, default: Any = MISSING) -> Any:
        """The value of a record as it was.

        Args:
            namespace: The namespace.
            key: The key.
            when: A datetime, the number of a version, or a tag. A datetime without a zone is taken
                as UTC here, as `datetime.utcnow()` gives it.
            default: What to give where there was no value; without, that is an error.

        Raises:
            KeyNotFoundError: where the record had been deleted.
            NoValueAtTime: where it was written later, or what it was then is forgotten.

        >>> first = await db.put("config", "model", "small")
        >>> second = await db.put("config", "model", "large")
        >>> await db.get_at("config", "model", first)
        'small'
        """
        store = self._store
        if store.busy:
            await ask(store.settle())
        try:
            value = store.get(namespace, key, MISSING, when, naive=True)
        except NoValueAtTime:
            if default is MISSING:
                raise
            return default
        if value is not MISSING:
            return value
        if default is MISSING:
            raise store.not_found(namespace, key)
        return default

    async def record(self, namespace: str, key: str, *, as_of: AsOf | None = None) -> Record | None:
        """A record with all that belongs to it: value, metadata, version, time, hash, vectors.

        `None` where there is no value.

        >>> version = await db.put("users", "alice", {"age": 7}, metadata={"team": "blue"})
        >>> record = await db.record("users", "alice")
        >>> record.version, record.value, record.metadata
        (1, {'age': 7}, {'team': 'blue'})
        """
        store = self._store
        if store.busy:
            await ask(store.settle())
        return store.record(namespace, key, as_of)

    async def exists(self, namespace: str, key: str, *, as_of: AsOf | None = None) -> bool:
        """Whether a record has a value, now or then.

        >>> await db.exists("users", "alice")
        False
        """
        try:
            return await self.record(namespace, key, as_of=as_of) is not None
        except NoValueAtTime:
            return False

    def __getitem__(self, place: str) -> Coroutine[Any, Any, Any]:
        """`get` of `"namespace/key"`.

        >>> db["users/alice"] = {"name": "Alice"}
        >>> await db["users/alice"]
        {'name': 'Alice'}
        """
        return self.get(*split(place))

    # Writing

    async def put(
        self,
        namespace: str,
        key: str,
        value: Any,
        *,
        ttl: float | dt.timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        vectors: Mapping[str, VectorLike] | None = None,
        expect: Expect | None = None,
    ) -> int:
        """Writes a record, and gives its version.

        Args:
            namespace: A name without a slash.
            key: A name of up to 4,096 bytes.
            value: JSON, bytes, or another type that can be stored: see `limnion.serializers`.
            ttl: The record runs out after so many seconds.
            metadata: A dict of JSON to find the record by.
            text: What `text_search` looks at.
            vector: A vector that belongs to the record.
            vectors: Several, by name.
            expect: Write only where this holds at the moment of the commit: `"absent"`,
                `"present"`, or the version that is to be replaced.

        Raises:
            ConflictError: where `expect` does not hold; nothing is written then.
            SerializationError: for a value that cannot be stored; it says where and why.
            ReadOnlyError: where the database is open for reading.
            DiskFullError: where there is no space; what was acknowledged is safe.

        >>> first = await db.put("users", "alice", {"name": "Alice"})
        >>> await db.put("users", "alice", {"name": "Alice B."}, expect=first)
        2
        >>> await db.put("users", "alice", {"name": "Alice C."}, expect=first)
        Traceback (most recent call last):
        ...
        limnion.errors.ConflictError: ...
        """
        request = self._store.put(
            namespace, key, value, ttl, as_dict(metadata), text, vector, as_dict(vectors), expect
        )
        return await ask(request)

    async def put_if(
        self,
        namespace: str,
        key: str,
        value: Any,
        expect: Expect,
        *,
        ttl: float | dt.timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        vectors: Mapping[str, VectorLike] | None = None,
    ) -> int | None:
        """`put` under a condition; `None`, and nothing written, where it does not hold.

        >>> await db.put_if("locks", "job-7", "me", "absent", ttl=30)
        1
        >>> await db.put_if("locks", "job-7", "you", "absent", ttl=30)
        """
        try:
            return await self.put(
                namespace,
                key,
                value,
                ttl=ttl,
                metadata=metadata,
                text=text,
                vector=vector,
                vectors=vectors,
                expect=expect,
            )
        except ConflictError:
            return None

    async def set(self, place: str, value: Any, *, ttl: float | dt.timedelta | None = None) -> int:
        """`put` of `"namespace/key"`.

        >>> await db.set("users/alice", {"name": "Alice"})
        1
        """
        return await self.put(*split(place), value, ttl=ttl)

    def __setitem__(self, place: str, value: Any) -> None:
        """Queues a write of `"namespace/key"`, in order.

        The next await on this database, a read of that key, or leaving the `async with` makes it
        durable and raises what went wrong. `await db.set(...)` says it sooner.

        >>> db["users/alice"] = {"name": "Alice"}
        >>> await db.get("users", "alice")
        {'name': 'Alice'}
        """
        self._store.queue(Write.put(*split(place), value))  # sync: self.set(place, value)

    def __delitem__(self, place: str) -> None:
        """Queues a deletion of `"namespace/key"`, as an assignment queues a write."""
        self._store.queue(Write.delete(*split(place)))  # sync: self.delete(*split(place))

    async def flush(self) -> None:
        """Waits for writes that nobody has waited for, and raises what went wrong.

        >>> db["users/alice"] = {"name": "Alice"}
        >>> await db.flush()
        """
        await self._settle()

    async def delete(self, namespace: str, key: str, *, expect: Expect | None = None) -> bool:
        """Deletes a record, and says whether there was one. Its history stays.

        Args:
            namespace: The namespace.
            key: The key.
            expect: Delete only where this holds, as in `put`.

        >>> version = await db.put("users", "alice", 1)
        >>> await db.delete("users", "alice"), await db.delete("users", "alice")
        (True, False)
        """
        return await ask(self._store.delete(namespace, key, expect)) > 0

    async def put_batch(self, rows: Rows) -> int:
        """Writes many records in one commit, all or none, and gives its version.

        Args:
            rows: (namespace, key, value), or a mapping of `"namespace/key"` to values. Where a
                key comes twice, the last word counts.

        >>> await db.put_batch([("users", "alice", 1), ("users", "bob", 2)])
        1
        >>> await db.put_batch({"users/carol": 3})
        2
        """
        return await ask(self._store.put_batch(rows))

    def transaction(self) -> Transaction:
        """Reads and writes that happen together or not at all: `async with db.transaction()`.

        What is read is remembered, what is written is held back. At the end of the block all of it
        is written in one commit, unless somebody else has changed what was read: then nothing is
        written, and `ConflictError` is raised. An exception inside of the block writes nothing.

        >>> version = await db.put_batch({"accounts/a": 10, "accounts/b": 0})
        >>> async with db.transaction() as tx:
        ...     a, b = await tx.get("accounts", "a"), await tx.get("accounts", "b")
        ...     await tx.put("accounts", "a", a - 3)
        ...     await tx.put("accounts", "b", b + 3)
        >>> await db.get("accounts", "b")
        3
        """
        return Transaction(self)

    # Many records

    async def keys(
        self,
        namespace: str,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        as_of: AsOf | None = None,
    ) -> list[str]:
        """The keys of a namespace in order.

        Args:
            namespace: The namespace.
            prefix: What the keys begin with.
            start: Keys from this one on.
            end: Keys before this one.
            limit: So many at most.
            reverse: From the last to the first.
            as_of: The keys that had a value then.

        >>> version = await db.put_batch({"users/bob": 1, "users/alice": 2})
        >>> await db.keys("users")
        ['alice', 'bob']
        """
        return await ask(
            self._store.scan(
                namespace, False, alone(prefix, start, end), start, end, limit, reverse, as_of
            )
        )

    async def items(
        self,
        namespace: str,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        as_of: AsOf | None = None,
    ) -> list[tuple[str, Any]]:
        """Keys and values of a namespace in order; the arguments are those of `keys`.

        >>> version = await db.put_batch({"users/bob": 1, "users/alice": 2})
        >>> await db.items("users", prefix="a")
        [('alice', 2)]
        """
        records = await ask(
            self._store.scan(
                namespace, True, alone(prefix, start, end), start, end, limit, reverse, as_of
            )
        )
        return [(record.key, record.value) for record in records]

    async def namespaces(self) -> list[str]:
        """The namespaces that hold a record.

        >>> version = await db.put("users", "alice", 1)
        >>> await db.namespaces()
        ['users']
        """
        return await ask(self._store.namespaces())

    def namespace(self, name: str) -> Namespace:
        """A namespace as an object, with the same verbs.

        >>> users = db.namespace("users")
        >>> version = await users.put("bob", {"name": "Bob"})
        >>> await users.all()
        {'bob': {'name': 'Bob'}}
        """
        return Namespace(self, name)

    async def query(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        sort: str | Sequence[str] = (),
        limit: int | None = None,
        offset: int = 0,
        as_of: AsOf | None = None,
    ) -> Records:
        """The records that match a filter.

        Args:
            namespace: The namespace.
            filter: A dict (`{"year": {"$gte": 2020}}`), a string (`"year >= 2020"`), or what `F`
                makes (`F("year") >= 2020`), over the fields of metadata and value. All records
                without.
            sort: Fields, the first one first; with `-` before it, from the highest to the lowest.
                By key without.
            limit: So many at most.
            offset: Leave out so many.
            as_of: A version, a tag or an aware datetime: the records as they were then.

        >>> version = await db.put_batch({"users/a": {"age": 7}, "users/b": {"age": 9}})
        >>> found = await db.query("users", {"age": {"$gt": 7}}, sort="-age")
        >>> found.total, found[0].key
        (1, 'b')
        """
        records, total = await ask(
            self._store.query(namespace, plain(filter), as_sort(sort), offset, limit, as_of)
        )
        return Records(records, total)

    async def count(
        self, namespace: str, filter: FilterLike | None = None, *, as_of: AsOf | None = None
    ) -> int:
        """How many records match a filter.

        >>> version = await db.put_batch({"users/a": {"age": 7}, "users/b": {"age": 9}})
        >>> await db.count("users", "age > 7")
        1
        """
        _, total = await ask(self._store.query(namespace, plain(filter), [], 0, 0, as_of))
        return total

    @overload
    async def aggregate(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        group_by: None = None,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
        as_of: AsOf | None = None,
    ) -> Group: ...
    @overload
    async def aggregate(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        group_by: str,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
        as_of: AsOf | None = None,
    ) -> list[Group]: ...
    async def aggregate(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        group_by: str | None = None,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
        as_of: AsOf | None = None,
    ) -> Group | list[Group]:
        """Figures over the records that match a filter.

        Args:
            namespace: The namespace.
            filter: As in `query`.
            group_by: One group for each value of this field; one for all records without.
            sum: Fields to add up.
            avg: Fields to take the mean of.
            min: Fields to take the least value of.
            max: Fields to take the greatest value of.
            as_of: The records as they were then.

        >>> version = await db.put_batch({"sales/1": {"n": 2}, "sales/2": {"n": 4}})
        >>> figures = await db.aggregate("sales", sum="n", avg="n")
        >>> figures.count, figures.sum, figures.avg
        (2, {'n': 6}, {'n': 3.0})
        """
        asked = [
            (function, field)
            for function, fields in (("sum", sum), ("avg", avg), ("min", min), ("max", max))
            for field in ([fields] if isinstance(fields, str) else fields)
        ]
        rows = await ask(self._store.aggregate(namespace, plain(filter), group_by, asked, as_of))
        groups = [as_group(key, count, asked, values) for key, count, values in rows]
        if group_by is not None:
            return groups
        return groups[0] if groups else as_group(None, 0, asked, [None] * len(asked))

    async def text_search(
        self,
        namespace: str,
        query: str,
        *,
        limit: int = 10,
        filter: FilterLike | None = None,
        as_of: AsOf | None = None,
    ) -> list[TextHit]:
        """The records whose `text` matches words best, best first.

        Args:
            namespace: The namespace.
            query: Words; `"two words"` in quotes are a phrase, `begin*` is a prefix.
            limit: So many at most.
            filter: As in `query`.
            as_of: The records as they were then.

        >>> version = await db.put("docs", "1", {}, text="a small lake")
        >>> hits = await db.text_search("docs", "lake")
        >>> hits[0].record.key, hits[0].score > 0
        ('1', True)
        """
        rows = await ask(self._store.text_search(namespace, query, limit, plain(filter), as_of))
        return [TextHit(*row) for row in rows]

    # Vectors

    async def embed(
        self,
        namespace: str,
        key: str,
        content: Any,
        embedding: VectorLike | None = None,
        *,
        model: str | None = None,
        embed_fn: EmbedFn | None = None,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | dt.timedelta | None = None,
        expect: Expect | None = None,
    ) -> int:
        """Writes a record with its embedding, for `similar` to find it by, and gives its version.

        It is `put` with a vector, and a watch over whose vectors lie in a namespace: all of one
        dimension, and all of one model as far as that is said. The model is written into the
        metadata of the record, as `embedding_model`.

        Args:
            namespace: The namespace.
            key: The key.
            content: The value of the record.
            embedding: Its vector: a float32 array of shape (d,), a list or a tuple. Without one it
                is made of `text`, or of a content that is a string.
            model: What made the embedding.
            embed_fn: Makes the embedding, given the text: a function, which is called in a thread,
                or a coroutine function. `Embedder.builtin()` without.
            text: What `text_search` looks at; what is embedded, where there is no `embedding`.
            metadata: A dict of JSON to find the record by.
            ttl: The record runs out after so many seconds.
            expect: Write only where this holds, as in `put`.

        Raises:
            DimensionMismatch: where the namespace has embeddings of another model or dimension.
            ValidationError: where there is nothing to embed.

        >>> await db.embed("docs", "1", {"title": "Lakes"}, embedding=[0.6, 0.8], model="tiny")
        1
        >>> await db.embed("docs", "2", {"title": "Seas"}, embedding=[1, 2, 3], model="small")
        Traceback (most recent call last):
        limnion.errors.DimensionMismatch: embeddings in the namespace "docs" must all be of one \
model: it has 2 dimensions of the model "tiny", got 3 dimensions of the model "small"; ...
        >>> await db.embed("notes", "1", "A lake lies in layers.")
        2
        """
        if embedding is None:
            words = text_of(content, text)
            model = _model_of(model, embed_fn)
            embedding = await embedded(words, embed_fn)
        request = self._store.embed(
            namespace,
            key,
            content,
            embedding,
            model,
            ttl,
            with_model(metadata, model),
            text,
            expect,
        )
        return await ask(request)

    async def embed_batch(
        self,
        namespace: str,
        keys: Sequence[str],
        contents: Sequence[Any],
        embeddings: MatrixLike | None = None,
        *,
        model: str | None = None,
        texts: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        ttl: float | dt.timedelta | None = None,
    ) -> int:
        """`embed` of many records in one commit, all or none; gives its version.

        Args:
            namespace: The namespace.
            keys: Their keys.
            contents: Their values.
            embeddings: Their vectors: a float32 array of shape (n, d). Without, the built-in
                embedder makes them of `texts`, or of contents that are strings.
            model: What made the embeddings.
            texts: What `text_search` looks at, one a record.
            metadata: A dict of JSON for each record.
            ttl: The records run out after so many seconds.

        >>> notes = ["A lake lies in layers.", "The invoice is due on Friday."]
        >>> await db.embed_batch("notes", ["1", "2"], notes)
        1
        >>> hits = await db.similar_by_text("notes", "When do I have to pay?", top_k=1)
        >>> hits[0].content
        'The invoice is due on Friday.'
        """
        if embeddings is None:
            words = [
                text_of(content, None if texts is None else texts[at], f" (row {at})")
                for at, content in enumerate(contents)
            ]
            model = _model_of(model, None)
            embeddings = await embedded_batch(words)
        if model is not None:
            given = [None] * len(contents) if metadata is None else metadata
            metadata = [with_model(each, model) for each in given]
        request = self._store.embed_batch(
            namespace, keys, contents, embeddings, model, ttl, metadata, texts
        )
        return await ask(request)

    async def similar(
        self,
        namespace: str,
        query: VectorLike,
        *,
        top_k: int = 5,
        threshold: float | None = None,
        filter: FilterLike | None = None,
        as_of: AsOf | None = None,
        vector_name: str | None = None,
        model: str | None = None,
        recall: float | None = None,
    ) -> list[SimilarHit]:
        """The records whose vectors are most similar to `query`, by cosine, best first.

        As many as `top_k` come back where as many match. Whatever was put before is found, with
        `embed` or with `vector=`; a hit has the version whose vector it is.

        The first search of a namespace builds an index over it, which takes memory for its vectors
        and follows the database from then on. That of more than some thousand vectors is kept in
        the folder `cache` of the database when it is closed, unless it is encrypted.

        Args:
            namespace: The namespace.
            query: A vector of the dimension of the others: a float32 array, a list or a tuple.
            top_k: So many at most.
            threshold: Leave out what has a lower score.
            filter: As in `query`: only records that match are looked at.
            as_of: A version, a tag or an aware datetime: the records as they were then. The first
                such search indexes every version of the namespace.
            vector_name: The vectors of this name; those without a name unless told.
            model: What made `query`. Where the records were embedded with another one, that is an
                error.
            recall: The share of the true neighbours to find, in (0, 1]; nearly all unless told, and
                1 is exact.

        Raises:
            DimensionMismatch: where `query` has another dimension, or is of another model.

        >>> version = await db.embed("docs", "lake", {"year": 2020}, [1, 0], model="tiny")
        >>> version = await db.embed("docs", "sea", {"year": 2024}, [0.6, 0.8], model="tiny")
        >>> hits = await db.similar("docs", [1, 0.1], top_k=1)
        >>> hits[0].key, hits[0].content, round(hits[0].score, 3)
        ('lake', {'year': 2020}, 0.995)
        >>> [hit.key for hit in await db.similar("docs", [1, 0.1], filter={"year": {"$gt": 2020}})]
        ['sea']
        >>> [hit.key for hit in await db.similar("docs", [0, 1], as_of=1)]
        ['lake']
        """
        rows = await ask(
            self._store.similar(
                namespace, query, top_k, threshold, plain(filter), as_of, vector_name, recall
            )
        )
        hits = [SimilarHit(*row) for row in rows]
        return of_model(hits, model, "embed the query with the model that made the vectors")

    async def similar_by_text(
        self,
        namespace: str,
        query: str,
        *,
        embed_fn: EmbedFn | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        filter: FilterLike | None = None,
        as_of: AsOf | None = None,
        vector_name: str | None = None,
        model: str | None = None,
        recall: float | None = None,
    ) -> list[SimilarHit]:
        """`similar` to a text.

        Args:
            namespace: The namespace.
            query: The text.
            embed_fn: Makes a vector of the text: a function, which is called in a thread, or a
                coroutine function. `Embedder.builtin()` without, where that has made the others.
            top_k: As in `similar`.
            threshold: As in `similar`.
            filter: As in `similar`.
            as_of: As in `similar`.
            vector_name: As in `similar`.
            model: What `embed_fn` asks; where the records were embedded with another model, that
                is an error.
            recall: As in `similar`.

        Raises:
            DimensionMismatch: where the records were embedded with another model.

        >>> version = await db.embed("notes", "1", "A lake lies in layers.")
        >>> version = await db.embed("notes", "2", "The invoice is due on Friday.")
        >>> hits = await db.similar_by_text("notes", "When do I have to pay?")
        >>> hits[0].content
        'The invoice is due on Friday.'
        """
        hint = "pass embed_fn=, which asks the model that made the vectors"
        model = _model_of(model, embed_fn)
        vector = await embedded(query, embed_fn)
        try:
            hits = await self.similar(
                namespace,
                vector,
                top_k=top_k,
                threshold=threshold,
                filter=filter,
                as_of=as_of,
                vector_name=vector_name,
                recall=recall,
            )
        except DimensionMismatch as error:
            raise DimensionMismatch(error.message, hint) from None
        return of_model(hits, model, hint, strict=embed_fn is None)

    async def create_index(self, namespace: str, field: str) -> None:
        """Declares an index over a field, so that filters on it do not look at every record.

        >>> await db.create_index("users", "age")
        >>> await db.indexes()
        [('users', 'age')]
        """
        await ask(self._store.create_index(namespace, field))

    async def drop_index(self, namespace: str, field: str) -> bool:
        """Forgets an index, and says whether there was one."""
        return await ask(self._store.drop_index(namespace, field))

    async def indexes(self) -> list[tuple[str, str]]:
        """The declared indexes: (namespace, field)."""
        return await ask(self._store.indexes())

    # History

    async def history(
        self,
        namespace: str,
        key: str,
        *,
        limit: int | None = None,
        since: AsOf | None = None,
        until: AsOf | None = None,
    ) -> list[Record]:
        """The versions of a record, oldest first, deletions included.

        Args:
            namespace: The namespace.
            key: The key.
            limit: The newest so many.
            since: Versions after this one, or after this moment.
            until: Versions up to this one, or this moment.

        >>> for name in ("small", "large"):
        ...     version = await db.put("config", "model", name)
        >>> [(entry.version, entry.value) for entry in await db.history("config", "model")]
        [(1, 'small'), (2, 'large')]
        """
        store = self._store
        if store.busy:
            await ask(store.settle())
        return store.history(namespace, key, limit, since, until)

    async def diff(
        self,
        namespace: str,
        key: str,
        v1: AsOf | None = None,
        v2: AsOf | None = None,
    ) -> Diff:
        """What changed between two versions of a record.

        Args:
            namespace: The namespace.
            key: The key.
            v1: The older version: its number, its content hash or the beginning of it, a tag, or
                an aware datetime. The one before `v2` without.
            v2: The newer version. The newest one without.

        Raises:
            KeyNotFoundError: where the record was never written.
            ValidationError: for a version that is not one of this record.

        >>> for name in ("small", "large"):
        ...     version = await db.put("config", "model", {"name": name})
        >>> diff = await db.diff("config", "model", v1=1, v2=2)
        >>> diff.changed
        {'name': ('small', 'large')}
        """
        new = await self._version(namespace, key, v2)
        if v1 is not None:
            return of_records(await self._version(namespace, key, v1), new)
        before = (
            [] if new is None else await self.history(namespace, key, until=new.version, limit=2)
        )
        return of_records(before[0] if len(before) > 1 else None, new)

    async def _version(self, namespace: str, key: str, version: AsOf | None) -> Record | None:
        """The version of a record that is meant; `None` where it had no value yet."""
        if isinstance(version, str) and version not in await self.tags():
            return await self._by_hash(namespace, key, version)
        last = await self.history(namespace, key, until=version, limit=1)
        if not last and not await self.history(namespace, key, limit=1):
            raise self._store.not_found(namespace, key)
        return last[0] if last else None

    async def _by_hash(self, namespace: str, key: str, start: str) -> Record:
        """The newest version whose hash begins like this."""
        versions = await self.history(namespace, key)
        if not versions:
            raise self._store.not_found(namespace, key)
        found: Record | None = None
        if len(start) >= _HASH_DIGITS:
            for record in versions:
                if record.hash is not None and record.hash.startswith(start.lower()):
                    if found is not None and found.hash != record.hash:
                        raise ValidationError(
                            f"{start!r} must begin one hash, got one that begins several",
                            "write more digits",
                        )
                    found = record
        if found is None:
            raise ValidationError(
                f"{start!r} must be a tag, or begin the hash of a version of {namespace}/{key}",
                f"history({namespace!r}, {key!r}) has the hashes, and tags() the tags",
            )
        return found

    async def tag(self, name: str, as_of: AsOf | None = None, *, replace: bool = False) -> Tag:
        """Names a point in history, now or another; every `as_of` takes the name.

        Args:
            name: The name.
            as_of: A version, a tag or an aware datetime; now without.
            replace: Move a tag that is there already, which is otherwise an error.

        Raises:
            ConflictError: where there is such a tag.

        >>> version = await db.put("config", "model", "small")
        >>> (await db.tag("v1")).version
        1
        >>> version = await db.put("config", "model", "large")
        >>> await db.get("config", "model", as_of="v1")
        'small'
        """
        return Tag(*await ask(self._store.set_tag(name, as_of, replace)))

    async def tags(self) -> dict[str, Tag]:
        """All tags by name."""
        return {row[0]: Tag(*row) for row in await ask(self._store.tags())}

    async def untag(self, name: str) -> bool:
        """Removes a tag, and says whether there was one."""
        return await ask(self._store.remove_tag(name))

    async def snapshot(self, as_of: AsOf | None = None) -> Snapshot:
        """A view of all records as they are now, or were; later writes do not change it.

        Retention leaves alone what the view shows, as long as it is in use.

        >>> version = await db.put("config", "model", "small")
        >>> before = await db.snapshot()
        >>> version = await db.put("config", "model", "large")
        >>> await before.get("config", "model")
        'small'
        """
        await self._settle()
        at = self._store.resolve(as_of)
        return Snapshot(self, at, self._store.hold(at))

    async def restore(
        self, as_of: AsOf, *, namespace: str | None = None, key: str | None = None
    ) -> int:
        """Makes records what they were, in one commit, and gives its version.

        New versions are written where something differs, so that this can be undone, too.

        Args:
            as_of: A version, a tag or an aware datetime.
            namespace: Only this namespace.
            key: Only this key of it.

        >>> first = await db.put("config", "model", "small")
        >>> second = await db.put("config", "model", "large")
        >>> await db.restore(first)
        3
        >>> await db.get("config", "model")
        'small'
        """
        version, _ = await ask(self._store.restore(as_of, namespace, key))
        return version

    def watch(
        self,
        namespace: str | None = None,
        *,
        since: AsOf | None = None,
        timeout: float | None = None,
    ) -> Watch:
        """The changes from now on, in the order of commits: an iterator that waits for the next.

        None is missed, however slow the reader is. It ends when the database closes.

        Args:
            namespace: Only the changes of this namespace.
            since: Also those after this version, tag or moment.
            timeout: End where nothing has come for so many seconds.

        >>> changes = db.watch("users", timeout=0.1)
        >>> version = await db.put("users", "alice", 1)
        >>> async for change in changes:
        ...     print(change.kind, change.key, change.value)
        put alice 1
        """
        return Watch(self, namespace, since, timeout)

    # What it is like, and upkeep

    async def stats(self) -> Stats:
        """Sizes and counts.

        >>> version = await db.put("users", "alice", 1)
        >>> stats = await db.stats()
        >>> stats.key_count, stats.total_versions, stats.namespaces["users"].key_count
        (1, 1, 1)
        """
        told = await ask(self._store.stats())
        namespaces = {name: NamespaceStats(*figures) for name, *figures in told["namespaces"]}
        return Stats(
            key_count=sum(each.key_count for each in namespaces.values()),
            total_versions=sum(each.total_versions for each in namespaces.values()),
            namespace_count=sum(each.key_count > 0 for each in namespaces.values()),
            memory_usage_mb=told["memory_bytes"] / 1e6,
            hot_cache_size=told["hot_records"],
            hot_hits=told["hits"],
            hot_misses=told["misses"],
            disk_usage_mb=told["disk_bytes"] / 1e6,
            free_mb=told["free_bytes"] / 1e6,
            version=told["head"],
            timestamp=told["time"],
            namespaces=namespaces,
        )

    async def health(self) -> Health:
        """Whether all is well, and what is not. `check` looks closer.

        >>> (await db.health()).healthy
        True
        """
        return Health(await ask(self._store.issues()))

    async def memory_tiers(self) -> MemoryTiers:
        """How many records lie in memory and in the file, and how many old versions are compressed.

        >>> version = await db.put("users", "alice", 1)
        >>> (await db.memory_tiers()).hot
        1
        """
        told = await ask(self._store.stats())
        return MemoryTiers(told["hot_records"], told["warm_records"], told["cold_versions"])

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Writes a copy of the database, as it is now, into a new folder; writes go on meanwhile.

        Never copy the files of an open database by other means: the copy may be torn.
        """
        await ask(self._store.backup(folder(path)))

    async def check(self) -> CheckReport:
        """Reads and verifies everything, every version and the chain of commits.

        >>> version = await db.put("users", "alice", 1)
        >>> (await db.check()).ok
        True
        """
        return CheckReport(*await ask(self._store.check()))

    async def vacuum(self) -> Vacuumed:
        """Applies the retention, compresses old versions, and gives free space back."""
        return Vacuumed(*await ask(self._store.vacuum()))

    async def export_jsonl(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str | None = None,
        history: bool = False,
    ) -> int:
        """Writes the records as JSON lines, and gives their number.

        Args:
            path: The file.
            namespace: Only this namespace.
            history: All versions instead of the newest ones.
        """
        return await ask(self._store.export(folder(path), namespace, history))

    async def import_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Reads what `export_jsonl` has written, and gives the number of versions written."""
        return await ask(self._store.load(folder(path)))


def _model_of(model: str | None, embed_fn: EmbedFn | None) -> str | None:
    """What makes an embedding."""
    if embed_fn is not None:
        return model
    if model not in (None, BUILTIN_MODEL):
        raise ValidationError(
            f"model must go with embedding= or embed_fn=, got {model!r} alone",
            f"the built-in model is {BUILTIN_MODEL!r}",
        )
    return BUILTIN_MODEL


class Namespace:
    """A namespace of a database, with the same verbs. Made by `Database.namespace`."""

    __slots__ = ("_database", "_name")

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = checked(name)

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @overload
    async def get(self, key: str, *, type: type[T], as_of: AsOf | None = None) -> T: ...
    @overload
    async def get(
        self, key: str, *, type: type[T], default: D, as_of: AsOf | None = None
    ) -> T | D: ...
    @overload
    async def get(
        self, key: str, *, default: Any = ..., as_of: AsOf | None = None, type: None = None
    ) -> Any: ...
    async def get(
        self,
        key: str,
        *,
        default: Any = MISSING,
        as_of: AsOf | None = None,
        type: type[Any] | None = None,
    ) -> Any:
        """`Database.get`."""
        return await self._database.get(  # type: ignore[call-overload,misc,unused-ignore]
            self._name, key, default=default, as_of=as_of, type=type
        )

    def get_nowait(self, key: str, *, default: Any = MISSING) -> Any:
        """`Database.get_nowait`."""
        return self._database.get_nowait(self._name, key, default=default)

    async def get_at(self, key: str, when: AsOf, *, default: Any = MISSING) -> Any:
        """`Database.get_at`."""
        return await self._database.get_at(self._name, key, when, default=default)

    async def record(self, key: str, *, as_of: AsOf | None = None) -> Record | None:
        """`Database.record`."""
        return await self._database.record(self._name, key, as_of=as_of)

    async def exists(self, key: str, *, as_of: AsOf | None = None) -> bool:
        """`Database.exists`."""
        return await self._database.exists(self._name, key, as_of=as_of)

    def __getitem__(self, key: str) -> Coroutine[Any, Any, Any]:
        """`get` of a key."""
        return self.get(key)

    async def put(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | dt.timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        vectors: Mapping[str, VectorLike] | None = None,
        expect: Expect | None = None,
    ) -> int:
        """`Database.put`."""
        return await self._database.put(
            self._name,
            key,
            value,
            ttl=ttl,
            metadata=metadata,
            text=text,
            vector=vector,
            vectors=vectors,
            expect=expect,
        )

    async def put_if(
        self,
        key: str,
        value: Any,
        expect: Expect,
        *,
        ttl: float | dt.timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        vectors: Mapping[str, VectorLike] | None = None,
    ) -> int | None:
        """`Database.put_if`."""
        return await self._database.put_if(
            self._name,
            key,
            value,
            expect,
            ttl=ttl,
            metadata=metadata,
            text=text,
            vector=vector,
            vectors=vectors,
        )

    def __setitem__(self, key: str, value: Any) -> None:
        """Queues a write, as `db["namespace/key"] = value` does."""
        self._database[f"{self._name}/{key}"] = value

    def __delitem__(self, key: str) -> None:
        """Queues a deletion."""
        del self._database[f"{self._name}/{key}"]

    async def delete(self, key: str, *, expect: Expect | None = None) -> bool:
        """`Database.delete`."""
        return await self._database.delete(self._name, key, expect=expect)

    async def put_batch(self, rows: Iterable[tuple[str, Any]] | Mapping[str, Any]) -> int:
        """`Database.put_batch` of (key, value), or of a mapping of keys to values."""
        return await ask(self._database._store.put_batch(rows, self._name))  # noqa: SLF001

    async def keys(
        self,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        as_of: AsOf | None = None,
    ) -> list[str]:
        """`Database.keys`."""
        return await self._database.keys(
            self._name,
            prefix=prefix,
            start=start,
            end=end,
            limit=limit,
            reverse=reverse,
            as_of=as_of,
        )

    async def items(
        self,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        as_of: AsOf | None = None,
    ) -> list[tuple[str, Any]]:
        """`Database.items`."""
        return await self._database.items(
            self._name,
            prefix=prefix,
            start=start,
            end=end,
            limit=limit,
            reverse=reverse,
            as_of=as_of,
        )

    async def all(self, *, as_of: AsOf | None = None) -> dict[str, Any]:
        """All values by their keys, in order."""
        return dict(await self.items(as_of=as_of))

    async def query(
        self,
        filter: FilterLike | None = None,
        *,
        sort: str | Sequence[str] = (),
        limit: int | None = None,
        offset: int = 0,
        as_of: AsOf | None = None,
    ) -> Records:
        """`Database.query`."""
        return await self._database.query(
            self._name, filter, sort=sort, limit=limit, offset=offset, as_of=as_of
        )

    async def count(self, filter: FilterLike | None = None, *, as_of: AsOf | None = None) -> int:
        """`Database.count`."""
        return await self._database.count(self._name, filter, as_of=as_of)

    @overload
    async def aggregate(
        self,
        filter: FilterLike | None = None,
        *,
        group_by: None = None,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
        as_of: AsOf | None = None,
    ) -> Group: ...
    @overload
    async def aggregate(
        self,
        filter: FilterLike | None = None,
        *,
        group_by: str,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
        as_of: AsOf | None = None,
    ) -> list[Group]: ...
    async def aggregate(
        self,
        filter: FilterLike | None = None,
        *,
        group_by: str | None = None,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
        as_of: AsOf | None = None,
    ) -> Group | list[Group]:
        """`Database.aggregate`."""
        aggregate: Any = self._database.aggregate
        groups: Group | list[Group] = await aggregate(
            self._name,
            filter,
            group_by=group_by,
            sum=sum,
            avg=avg,
            min=min,
            max=max,
            as_of=as_of,
        )
        return groups

    async def text_search(
        self,
        query: str,
        *,
        limit: int = 10,
        filter: FilterLike | None = None,
        as_of: AsOf | None = None,
    ) -> list[TextHit]:
        """`Database.text_search`."""
        return await self._database.text_search(
            self._name, query, limit=limit, filter=filter, as_of=as_of
        )

    async def embed(
        self,
        key: str,
        content: Any,
        embedding: VectorLike | None = None,
        *,
        model: str | None = None,
        embed_fn: EmbedFn | None = None,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | dt.timedelta | None = None,
        expect: Expect | None = None,
    ) -> int:
        """`Database.embed`."""
        return await self._database.embed(
            self._name,
            key,
            content,
            embedding,
            model=model,
            embed_fn=embed_fn,
            text=text,
            metadata=metadata,
            ttl=ttl,
            expect=expect,
        )

    async def embed_batch(
        self,
        keys: Sequence[str],
        contents: Sequence[Any],
        embeddings: MatrixLike | None = None,
        *,
        model: str | None = None,
        texts: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        ttl: float | dt.timedelta | None = None,
    ) -> int:
        """`Database.embed_batch`."""
        return await self._database.embed_batch(
            self._name,
            keys,
            contents,
            embeddings,
            model=model,
            texts=texts,
            metadata=metadata,
            ttl=ttl,
        )

    async def similar(
        self,
        query: VectorLike,
        *,
        top_k: int = 5,
        threshold: float | None = None,
        filter: FilterLike | None = None,
        as_of: AsOf | None = None,
        vector_name: str | None = None,
        model: str | None = None,
        recall: float | None = None,
    ) -> list[SimilarHit]:
        """`Database.similar`."""
        return await self._database.similar(
            self._name,
            query,
            top_k=top_k,
            threshold=threshold,
            filter=filter,
            as_of=as_of,
            vector_name=vector_name,
            model=model,
            recall=recall,
        )

    async def similar_by_text(
        self,
        query: str,
        *,
        embed_fn: EmbedFn | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        filter: FilterLike | None = None,
        as_of: AsOf | None = None,
        vector_name: str | None = None,
        model: str | None = None,
        recall: float | None = None,
    ) -> list[SimilarHit]:
        """`Database.similar_by_text`."""
        return await self._database.similar_by_text(
            self._name,
            query,
            embed_fn=embed_fn,
            top_k=top_k,
            threshold=threshold,
            filter=filter,
            as_of=as_of,
            vector_name=vector_name,
            model=model,
            recall=recall,
        )

    async def create_index(self, field: str) -> None:
        """`Database.create_index`."""
        await self._database.create_index(self._name, field)

    async def drop_index(self, field: str) -> bool:
        """`Database.drop_index`."""
        return await self._database.drop_index(self._name, field)

    async def history(
        self,
        key: str,
        *,
        limit: int | None = None,
        since: AsOf | None = None,
        until: AsOf | None = None,
    ) -> list[Record]:
        """`Database.history`."""
        return await self._database.history(self._name, key, limit=limit, since=since, until=until)

    async def diff(self, key: str, v1: AsOf | None = None, v2: AsOf | None = None) -> Diff:
        """`Database.diff`."""
        return await self._database.diff(self._name, key, v1, v2)

    async def restore(self, as_of: AsOf, *, key: str | None = None) -> int:
        """`Database.restore` of this namespace, or of one key of it."""
        return await self._database.restore(as_of, namespace=self._name, key=key)

    def watch(self, *, since: AsOf | None = None, timeout: float | None = None) -> Watch:
        """`Database.watch`."""
        return self._database.watch(self._name, since=since, timeout=timeout)


class Snapshot:
    """All records as they were at one point in history. Made by `Database.snapshot`."""

    __slots__ = ("_at", "_database", "_hold")

    def __init__(self, database: Database, at: int | dt.datetime, hold: Hold) -> None:
        self._database = database
        self._at: int | dt.datetime = at
        self._hold = hold

    @property
    def as_of(self) -> int | dt.datetime:
        """The version that the view shows, or the moment, where that was before all of them."""
        return self._at

    def __repr__(self) -> str:
        return f"{type(self).__name__}(as_of={self._at!r})"

    @overload
    async def get(self, namespace: str, key: str, *, type: type[T]) -> T: ...
    @overload
    async def get(self, namespace: str, key: str, *, type: type[T], default: D) -> T | D: ...
    @overload
    async def get(
        self, namespace: str, key: str, *, default: Any = ..., type: None = None
    ) -> Any: ...
    async def get(
        self,
        namespace: str,
        key: str,
        *,
        default: Any = MISSING,
        type: type[Any] | None = None,
    ) -> Any:
        """`Database.get`."""
        return await self._database.get(  # type: ignore[call-overload,misc,unused-ignore]
            namespace, key, default=default, as_of=self._at, type=type
        )

    def __getitem__(self, place: str) -> Coroutine[Any, Any, Any]:
        """`get` of `"namespace/key"`."""
        return self.get(*split(place))

    async def record(self, namespace: str, key: str) -> Record | None:
        """`Database.record`."""
        return await self._database.record(namespace, key, as_of=self._at)

    async def exists(self, namespace: str, key: str) -> bool:
        """`Database.exists`."""
        return await self._database.exists(namespace, key, as_of=self._at)

    async def keys(
        self,
        namespace: str,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[str]:
        """`Database.keys`."""
        return await self._database.keys(
            namespace,
            prefix=prefix,
            start=start,
            end=end,
            limit=limit,
            reverse=reverse,
            as_of=self._at,
        )

    async def items(
        self,
        namespace: str,
        *,
        prefix: str | None = None,
        start: str | None = None,
        end: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[tuple[str, Any]]:
        """`Database.items`."""
        return await self._database.items(
            namespace,
            prefix=prefix,
            start=start,
            end=end,
            limit=limit,
            reverse=reverse,
            as_of=self._at,
        )

    async def history(
        self, namespace: str, key: str, *, limit: int | None = None, since: AsOf | None = None
    ) -> list[Record]:
        """`Database.history` up to this point."""
        return await self._database.history(
            namespace, key, limit=limit, since=since, until=self._at
        )

    async def query(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        sort: str | Sequence[str] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> Records:
        """`Database.query`."""
        return await self._database.query(
            namespace, filter, sort=sort, limit=limit, offset=offset, as_of=self._at
        )

    async def count(self, namespace: str, filter: FilterLike | None = None) -> int:
        """`Database.count`."""
        return await self._database.count(namespace, filter, as_of=self._at)

    @overload
    async def aggregate(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        group_by: None = None,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
    ) -> Group: ...
    @overload
    async def aggregate(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        group_by: str,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
    ) -> list[Group]: ...
    async def aggregate(
        self,
        namespace: str,
        filter: FilterLike | None = None,
        *,
        group_by: str | None = None,
        sum: str | Sequence[str] = (),
        avg: str | Sequence[str] = (),
        min: str | Sequence[str] = (),
        max: str | Sequence[str] = (),
    ) -> Group | list[Group]:
        """`Database.aggregate`."""
        aggregate: Any = self._database.aggregate
        groups: Group | list[Group] = await aggregate(
            namespace,
            filter,
            group_by=group_by,
            sum=sum,
            avg=avg,
            min=min,
            max=max,
            as_of=self._at,
        )
        return groups

    async def text_search(
        self,
        namespace: str,
        query: str,
        *,
        limit: int = 10,
        filter: FilterLike | None = None,
    ) -> list[TextHit]:
        """`Database.text_search`."""
        return await self._database.text_search(
            namespace, query, limit=limit, filter=filter, as_of=self._at
        )

    async def similar(
        self,
        namespace: str,
        query: VectorLike,
        *,
        top_k: int = 5,
        threshold: float | None = None,
        filter: FilterLike | None = None,
        vector_name: str | None = None,
        model: str | None = None,
        recall: float | None = None,
    ) -> list[SimilarHit]:
        """`Database.similar`."""
        return await self._database.similar(
            namespace,
            query,
            top_k=top_k,
            threshold=threshold,
            filter=filter,
            as_of=self._at,
            vector_name=vector_name,
            model=model,
            recall=recall,
        )

    async def similar_by_text(
        self,
        namespace: str,
        query: str,
        *,
        embed_fn: EmbedFn | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        filter: FilterLike | None = None,
        vector_name: str | None = None,
        model: str | None = None,
        recall: float | None = None,
    ) -> list[SimilarHit]:
        """`Database.similar_by_text`."""
        return await self._database.similar_by_text(
            namespace,
            query,
            embed_fn=embed_fn,
            top_k=top_k,
            threshold=threshold,
            filter=filter,
            as_of=self._at,
            vector_name=vector_name,
            model=model,
            recall=recall,
        )


class Transaction:
    """Reads and writes that happen together or not at all. Made by `Database.transaction`."""

    __slots__ = ("_database", "_over", "_read", "_version", "_writes")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: dict[tuple[str, str], Expect] = {}
        self._writes: dict[tuple[str, str], Write] = {}
        self._over = True
        self._version: int | None = None

    @property
    def version(self) -> int | None:
        """The commit that the transaction became; `None` before it, or where it wrote nothing."""
        return self._version

    async def __aenter__(self) -> Self:
        """Begins."""
        if not self._over or self._version is not None:
            raise ValidationError(
                "a transaction must be entered once", "call db.transaction() again"
            )
        self._over = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commits, unless the block raised."""
        self._over = True
        if error is not None or not self._writes:
            return
        conditions = [(*place, expect) for place, expect in self._read.items()]
        request = self._database._store.commit(list(self._writes.values()), conditions)  # noqa: SLF001
        version, _ = await ask(request)
        self._version = version

    def _check(self) -> None:
        if self._over:
            raise ValidationError(
                "a transaction must be used inside of its block",
                "write: async with db.transaction() as tx: ...",
            )

    async def get(self, namespace: str, key: str, *, default: Any = MISSING) -> Any:
        """The value of a record: what this transaction has written, or what is stored.

        Raises:
            KeyNotFoundError: where there is no value and no `default`.
            ConflictError: where it has changed since this transaction read it first.
        """
        self._check()
        write = self._writes.get((namespace, key))
        if write is not None and not write.deletes:
            return write.value
        if write is None:
            record = await self._database.record(namespace, key)
            found: Expect = "absent" if record is None else record.version
            if self._read.setdefault((namespace, key), found) != found:
                raise ConflictError(
                    f"{namespace}/{key} has changed since the transaction read it first",
                    "begin the transaction again",
                )
            if record is not None:
                return record.value
        if default is MISSING:
            raise KeyNotFoundError(
                f"there is no key {key!r} in the namespace {namespace!r}",
                "pass default= to get a value instead of this error",
                namespace=namespace,
                key=key,
            )
        return default

    async def exists(self, namespace: str, key: str) -> bool:
        """Whether there is a value."""
        return await self.get(namespace, key, default=NOTHING) is not NOTHING

    async def put(
        self,
        namespace: str,
        key: str,
        value: Any,
        *,
        ttl: float | dt.timedelta | None = None,
        metadata: Mapping[str, Any] | None = None,
        text: str | None = None,
        vector: VectorLike | None = None,
        vectors: Mapping[str, VectorLike] | None = None,
    ) -> None:
        """Writes a record when the transaction commits, as `Database.put` does."""
        self._check()
        self._writes[namespace, key] = Write.put(
            namespace, key, value, ttl, as_dict(metadata), text, vector, as_dict(vectors)
        )

    async def set(self, place: str, value: Any) -> None:
        """`put` of `"namespace/key"`."""
        await self.put(*split(place), value)

    async def put_batch(self, rows: Iterable[tuple[str, str, Any]]) -> None:
        """`put` of each (namespace, key, value)."""
        for namespace, key, value in rows:
            await self.put(namespace, key, value)

    async def delete(self, namespace: str, key: str) -> None:
        """Deletes a record when the transaction commits."""
        self._check()
        self._writes[namespace, key] = Write.delete(namespace, key)


class Watch(AsyncIterator[Change]):
    """The changes of a database, one after another. Made by `Database.watch`."""

    __slots__ = ("_after", "_database", "_namespace", "_ready", "_timeout")

    def __init__(
        self,
        database: Database,
        namespace: str | None,
        since: AsOf | None,
        timeout: float | None,
    ) -> None:
        self._database = database
        self._namespace = None if namespace is None else checked(namespace)
        self._timeout = timeout
        self._ready: list[Change] = []
        self._after = database._store.version_at(since)  # noqa: SLF001

    @property
    def version(self) -> int:
        """The commit up to which changes have been fetched: `since=` to go on here."""
        return self._after

    def __aiter__(self) -> Self:
        """The iterator itself."""
        return self

    async def __anext__(self) -> Change:
        """The next change."""
        while not self._ready:
            try:
                rows, next_after = await ask(
                    self._database._store.changes(self._namespace, self._after, _CHANGES)  # noqa: SLF001
                )
                waits = not rows and next_after == self._after
                self._after = next_after
                self._ready = [Change(*row) for row in reversed(rows)]
                if waits and not await wait(self._database._store, self._after, self._timeout):  # noqa: SLF001
                    raise StopAsyncIteration
            except DatabaseClosedError:
                raise StopAsyncIteration from None
        return self._ready.pop()
