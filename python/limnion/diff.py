"""What changed between two versions of a value.

>>> from limnion.diff import compare
>>> diff = compare({"model": "a", "tags": ["x"]}, {"model": "b", "tags": ["x", "y"]})
>>> print(diff)
~ model: 'a' -> 'b'
+ tags[1]: 'y'
>>> diff.added, diff.removed, diff.changed
({'tags[1]': 'y'}, {}, {'model': ('a', 'b')})
>>> bool(compare(1, 1))
False
"""

from __future__ import annotations

import dataclasses
import html
import math
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limnion._native import Record

__all__ = ["Diff", "Difference", "compare"]

_PLAIN: Final = re.compile(r"[A-Za-z_]\w*")
# Lists whose lengths have a larger product are not aligned: it would take too long.
_ALIGNED: Final = 500 * 500
_SHOWN: Final = 80

Step = str | int


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        kind: `"added"`, `"removed"` or `"changed"`.
        path: The way to it: names of members and positions in lists. A position is that in the
            newer list, or, for what was removed, in the older one.
        old: What was there; `None` where it was added.
        new: What is there; `None` where it was removed.
    """

    kind: Literal["added", "removed", "changed"]
    path: tuple[Step, ...]
    old: Any = None
    new: Any = None

    @property
    def where(self) -> str:
        """The path as text: `users[0].name`; a whole value is `.`."""
        return _spell(self.path)

    def __str__(self) -> str:
        """The change on one line."""
        if self.kind == "added":
            return f"+ {self.where}: {_short(self.new)}"
        if self.kind == "removed":
            return f"- {self.where}: {_short(self.old)}"
        return f"~ {self.where}: {_short(self.old)} -> {_short(self.new)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Diff:
    """The differences between two values, in the order of the values: a sequence of `Difference`.

    It is true where there are any, prints as a readable list, and is a table in a notebook.

    Attributes:
        changes: The differences.
        old: The older version, where the values came from records.
        new: The newer version, where the values came from records.
    """

    changes: tuple[Difference, ...]
    old: Record | None = None
    new: Record | None = None

    @property
    def added(self) -> dict[str, Any]:
        """What is new, by its path."""
        return {change.where: change.new for change in self.changes if change.kind == "added"}

    @property
    def removed(self) -> dict[str, Any]:
        """What is gone, by its path."""
        return {change.where: change.old for change in self.changes if change.kind == "removed"}

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """What is different, by its path: before and after."""
        return {
            change.where: (change.old, change.new)
            for change in self.changes
            if change.kind == "changed"
        }

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.changes)

    def __len__(self) -> int:
        """How many differences."""
        return len(self.changes)

    def __iter__(self) -> Iterator[Difference]:
        """Goes through the differences."""
        return iter(self.changes)

    def __str__(self) -> str:
        """One difference a line."""
        return "\n".join(map(str, self.changes)) or "no difference"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{change.kind}</td><td><code>{html.escape(change.where)}</code></td>"
            f"<td>{'' if change.kind == 'added' else html.escape(_short(change.old))}</td>"
            f"<td>{'' if change.kind == 'removed' else html.escape(_short(change.new))}</td></tr>"
            for change in self.changes
        )
        head = "<tr><th></th><th>path</th><th>before</th><th>after</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def compare(old: Any, new: Any) -> Diff:
    """The differences between two values.

    Members of dicts are matched by name. Elements of lists are aligned, so that one which was put
    in between is one addition and not a change of all that follow.
    """
    return Diff(tuple(_walk(old, new, ())))


def of_records(old: Record | None, new: Record | None) -> Diff:
    """The differences between two versions; a version that is a deletion has nothing."""
    before = None if old is None or old.deleted else old
    after = None if new is None or new.deleted else new
    if before is None and after is None:
        changes: tuple[Difference, ...] = ()
    elif before is None:
        changes = (Difference("added", (), new=after.value),) if after is not None else ()
    elif after is None:
        changes = (Difference("removed", (), old=before.value),)
    else:
        changes = tuple(_walk(before.value, after.value, ()))
    return Diff(changes, old, new)


def _walk(old: Any, new: Any, path: tuple[Step, ...]) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            if name in new:
                yield from _walk(value, new[name], (*path, name))
            else:
                yield Difference("removed", (*path, name), old=value)
        for name, value in new.items():
            if name not in old:
                yield Difference("added", (*path, name), new=value)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _walk_lists(old, new, path)
    elif not _same(old, new):
        yield Difference("changed", path, old, new)


def _walk_lists(old: list[Any], new: list[Any], path: tuple[Step, ...]) -> Iterator[Difference]:
    for gone, come in _gaps(old, new):
        both = min(len(gone), len(come))
        for before, after in zip(gone[:both], come[:both], strict=True):
            yield from _walk(old[before], new[after], (*path, after))
        for before in gone[both:]:
            yield Difference("removed", (*path, before), old=old[before])
        for after in come[both:]:
            yield Difference("added", (*path, after), new=new[after])


def _gaps(old: list[Any], new: list[Any]) -> Iterator[tuple[range, range]]:
    """The stretches between elements that stayed, as positions in both lists."""
    start = 0
    while start < min(len(old), len(new)) and _same(old[start], new[start]):
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and _same(old[-1 - end], new[-1 - end]):
        end += 1
    rows, columns = len(old) - start - end, len(new) - start - end
    before = after = 0
    if rows * columns <= _ALIGNED:
        for row, column in _common(old[start : start + rows], new[start : start + columns]):
            yield (
                range(start + before, start + row),
                range(start + after, start + column),
            )
            before, after = row + 1, column + 1
    yield range(start + before, start + rows), range(start + after, start + columns)


def _common(old: list[Any], new: list[Any]) -> Iterator[tuple[int, int]]:
    """The positions of the longest run of elements that both have in this order."""
    lengths = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for row in range(len(old) - 1, -1, -1):
        for column in range(len(new) - 1, -1, -1):
            lengths[row][column] = (
                lengths[row + 1][column + 1] + 1
                if _same(old[row], new[column])
                else max(lengths[row + 1][column], lengths[row][column + 1])
            )
    row = column = 0
    while row < len(old) and column < len(new):
        if _same(old[row], new[column]):
            yield row, column
            row, column = row + 1, column + 1
        elif lengths[row + 1][column] >= lengths[row][column + 1]:
            row += 1
        else:
            column += 1


def _same(old: Any, new: Any) -> bool:
    """Equality that tells `True` from 1 and 1.0, and takes NaN for equal to itself."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(
            _same(value, new[key]) for key, value in old.items()
        )
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, np.ndarray):
        alike = old.dtype == new.dtype and old.shape == new.shape
        return bool(alike and old.tobytes() == new.tobytes())
    if isinstance(old, float) and math.isnan(old):
        return math.isnan(new)
    return bool(old == new)


def _spell(path: tuple[Step, ...]) -> str:
    told = ""
    for step in path:
        if isinstance(step, int):
            told += f"[{step}]"
        elif _PLAIN.fullmatch(step):
            told += f".{step}" if told else step
        else:
            told += f"[{step!r}]"
    return told or "."


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= _SHOWN else told[: _SHOWN - 3] + "..."
