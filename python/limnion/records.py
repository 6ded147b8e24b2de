"""What a database gives back: records, pages of them, changes, tags and figures."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, overload

from limnion._native import Record

if TYPE_CHECKING:
    import datetime as dt

__all__ = [
    "Change",
    "CheckReport",
    "Group",
    "Health",
    "MemoryTiers",
    "NamespaceStats",
    "Record",
    "Records",
    "SimilarHit",
    "Stats",
    "Tag",
    "TextHit",
    "Vacuumed",
]

_SHOWN: Final = 60
_ROWS: Final = 50


class Records(Sequence[Record]):
    """A page of records, in order, and how many there are in all. A table in a notebook."""

    __slots__ = ("_records", "total")

    total: int
    """How many records match, also those that are not on this page."""

    def __init__(self, records: list[Record], total: int) -> None:
        self._records = records
        self.total = total

    @property
    def keys(self) -> list[str]:
        """The keys."""
        return [record.key for record in self._records]

    @property
    def values(self) -> list[Any]:
        """The values."""
        return [record.value for record in self._records]

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        """A record, or a part of the page."""
        if isinstance(index, slice):
            return Records(self._records[index], self.total)
        return self._records[index]

    def __len__(self) -> int:
        """How many records are on this page."""
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same versions of the same records."""
        if not isinstance(other, Records):
            return NotImplemented
        return self._records == other._records and self.total == other.total

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{record.key!r}: {_short(record.value)}" for record in self._records[:3])
        more = ", ..." if len(self) > 3 else ""  # noqa: PLR2004
        return f"Records({len(self)} of {self.total}{': ' if shown else ''}{shown}{more})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(record.key)}</td>"
            f"<td><code>{html.escape(_short(record.value))}</code></td>"
            f"<td>{record.version}</td><td>{record.timestamp:%Y-%m-%d %H:%M:%S}</td></tr>"
            for record in self._records[:_ROWS]
        )
        head = "<tr><th>key</th><th>value</th><th>version</th><th>written</th></tr>"
        foot = f"<caption>{len(self)} of {self.total} records</caption>"
        return f"<table>{foot}<thead>{head}</thead><tbody>{rows}</tbody></table>"


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A change, as `watch` gives it."""

    namespace: str
    key: str
    version: int
    """The commit that made it."""

    timestamp: dt.datetime
    """The time of the commit, in UTC."""

    kind: Literal["put", "delete", "expire"] | None
    """What happened; `None` where retention has dropped the version since."""

    record: Record | None
    """The version; `None` where retention has dropped it since."""

    @property
    def value(self) -> Any:
        """The value that was written; `None` for a deletion."""
        return None if self.record is None else self.record.value


class Tag(NamedTuple):
    """A name for a point in history."""

    name: str
    version: int
    """The commit it names."""

    timestamp: dt.datetime
    """The time of that commit, in UTC."""


class TextHit(NamedTuple):
    """A match of a full-text search."""

    record: Record
    score: float
    """BM25: higher is better."""


class SimilarHit(NamedTuple):
    """A match of a vector search."""

    record: Record
    """The version whose vector it is."""

    score: float
    """The cosine, from -1 to 1: higher is better."""

    distance: float
    """1 - the cosine: lower is nearer."""

    @property
    def namespace(self) -> str:
        """The namespace."""
        return self.record.namespace

    @property
    def key(self) -> str:
        """The key."""
        return self.record.key

    @property
    def content(self) -> Any:
        """The value of the record."""
        return self.record.value

    @property
    def metadata(self) -> Any:
        """The metadata of the record; an empty dict where none was given."""
        return self.record.metadata

    @property
    def version(self) -> int:
        """The number of the commit that wrote it."""
        return self.record.version


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Records that have something in common, put together."""

    key: Any
    """What they have in common; `None` for all, and for records without the field."""

    count: int
    """How many records."""

    sum: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The sums, by field."""

    avg: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The means, by field; `None` where no record has a number."""

    min: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The least values, by field."""

    max: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The greatest values, by field."""


@dataclasses.dataclass(frozen=True, slots=True)
class NamespaceStats:
    """What a namespace holds."""

    key_count: int
    """Records with a value now."""

    total_versions: int
    """Versions that are kept, the newest included."""

    size_bytes: int
    """Bytes of the newest versions."""

    history_bytes: int
    """Bytes of older versions, before compression."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """Sizes and counts of a database."""

    key_count: int
    """Records with a value now."""

    total_versions: int
    """Versions that are kept."""

    namespace_count: int
    """Namespaces with a record."""

    memory_usage_mb: float
    """Megabytes of records in memory."""

    hot_cache_size: int
    """Records in the hot tier."""

    hot_hits: int
    """Reads that the hot tier answered."""

    hot_misses: int
    """Reads that it did not."""

    disk_usage_mb: float
    """Megabytes on disk: database, log and segments."""

    free_mb: float
    """Megabytes on disk that `vacuum` would give back."""

    version: int
    """The newest commit."""

    timestamp: dt.datetime
    """Its time, in UTC."""

    namespaces: dict[str, NamespaceStats]
    """The namespaces, by name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """Whether all is well."""

    issues: list[str]
    """What is not, in sentences."""

    @property
    def healthy(self) -> bool:
        """Whether there is no issue."""
        return not self.issues


class MemoryTiers(NamedTuple):
    """How many records or versions lie where."""

    hot: int
    """Records in memory."""

    warm: int
    """Records whose newest version lies in the file."""

    cold: int
    """Old versions that lie compressed in the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check, or a salvage, has found."""

    problems: list[str]
    """What is wrong, in sentences."""

    records: int
    """Records looked at."""

    versions: int
    """Versions looked at."""

    commits: int
    """Commits looked at."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class Vacuumed(NamedTuple):
    """What a vacuum has done."""

    dropped: int
    """Versions that retention dropped."""

    compressed: int
    """Versions that were compressed."""

    freed_bytes: int
    """Bytes given back to the file system."""


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= _SHOWN else told[: _SHOWN - 3] + "..."
