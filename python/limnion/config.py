"""How a database is opened.

>>> import limnion
>>> config = limnion.Config(path="~/.myapp/db", max_memory_mb=64)
>>> config.path.is_absolute()
True
>>> limnion.Config(durability="sometimes")
Traceback (most recent call last):
limnion.errors.ValidationError: durability must be 'commit', 'batched' or 'none', got 'sometimes'
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from limnion._arguments import folder
from limnion.errors import ValidationError

if TYPE_CHECKING:
    import os

    from limnion.types import Durability

__all__ = ["Config", "Retention"]

_KEY_BYTES: Final = 32
_MOST_VERSIONS: Final = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """Which versions of a record are kept. The newest one always is.

    A version is kept as long as one of the limits keeps it; what none keeps is dropped in the
    background and by `vacuum`. Without a retention, a database keeps everything.

    Args:
        keep_last: At least so many versions of each record.
        keep_for: Every version that was current at some moment of this last stretch of time.
        keep_tagged: Every version that was current where a tag was set.

    >>> import datetime, limnion
    >>> limnion.Retention(keep_last=10, keep_for=datetime.timedelta(days=30))
    Retention(keep_last=10, keep_for=datetime.timedelta(days=30), keep_tagged=True)
    """

    keep_last: int | None = None
    keep_for: dt.timedelta | None = None
    keep_tagged: bool = True

    def __post_init__(self) -> None:
        """Checks the fields."""
        if self.keep_last is None and self.keep_for is None:
            raise ValidationError(
                "a retention must have keep_last or keep_for",
                "pass retention=None to keep every version",
            )
        if self.keep_last is not None and not (
            _is_int(self.keep_last) and 1 <= self.keep_last <= _MOST_VERSIONS
        ):
            raise ValidationError(f"keep_last must be an integer from 1, got {self.keep_last!r}")
        keep_for: Any = self.keep_for
        if keep_for is not None and not (
            isinstance(keep_for, dt.timedelta) and keep_for > dt.timedelta(0)
        ):
            raise ValidationError(
                f"keep_for must be a timedelta of more than 0, got {keep_for!r}",
                "write keep_for=datetime.timedelta(days=30)",
            )
        if not isinstance(self.keep_tagged, bool):
            raise ValidationError(f"keep_tagged must be True or False, got {self.keep_tagged!r}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All options of a database.

    Args:
        path: The folder; it is made where it is missing, and `~` is the home directory. In memory
            without one.
        max_memory_mb: How much the records may take that are kept in memory to be read at once.
        enable_wal: A write-ahead log. Without it a write takes longer; for file systems that
            cannot share memory.
        durability: How sure a write is when its await returns. `"commit"`: on the disk, it
            survives a power cut. `"batched"`: with the operating system, it survives the process,
            and a power cut a moment later. `"none"`: nobody ever waits for the disk.
        retention: Which versions are kept; all of them without.
        encryption_key: 32 bytes. Values, metadata, text and vectors are encrypted with it;
            namespaces, keys and times are not. It is never shown.
        read_only: Open for reading, beside the process that writes.
        accept_loss: Open although commits are missing that had been acknowledged, which is
            otherwise an error: after a backup was put in place of the files, for example.

    Raises:
        ValidationError: for a value that cannot be used; it says what to write.
    """

    path: Path | None = None
    max_memory_mb: float = 512
    enable_wal: bool = True
    durability: Durability = "commit"
    retention: Retention | None = None
    encryption_key: bytes | None = dataclasses.field(default=None, repr=False)
    read_only: bool = False
    accept_loss: bool = False

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_memory_mb: float = 512,
        enable_wal: bool = True,
        durability: Durability = "commit",
        retention: Retention | None = None,
        encryption_key: bytes | None = None,
        read_only: bool = False,
        accept_loss: bool = False,
    ) -> None:
        for name, value in (
            ("path", _path(path)),
            ("max_memory_mb", max_memory_mb),
            ("enable_wal", enable_wal),
            ("durability", durability),
            ("retention", retention),
            ("encryption_key", encryption_key),
            ("read_only", read_only),
            ("accept_loss", accept_loss),
        ):
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        memory: Any = self.max_memory_mb
        if (
            isinstance(memory, bool)
            or not isinstance(memory, (int, float))
            or not 0 <= memory < 2**40
        ):
            raise ValidationError(
                f"max_memory_mb must be a number of megabytes from 0, got {memory!r}",
                "write max_memory_mb=512",
            )
        if self.durability not in ("commit", "batched", "none"):
            raise ValidationError(
                f"durability must be 'commit', 'batched' or 'none', got {self.durability!r}"
            )
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise ValidationError(
                f"retention must be a Retention, got {type(self.retention).__name__}",
                "write retention=Retention(keep_last=10)",
            )
        for name in ("enable_wal", "read_only", "accept_loss"):
            if not isinstance(getattr(self, name), bool):
                raise ValidationError(f"{name} must be True or False, got {getattr(self, name)!r}")
        key: Any = self.encryption_key
        if key is not None and not (isinstance(key, bytes) and len(key) == _KEY_BYTES):
            came = f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
            raise ValidationError(
                f"encryption_key must be {_KEY_BYTES} bytes, got {came}",
                "make one with secrets.token_bytes(32), and keep it safe",
            )
        if self.path is None:
            for name in ("encryption_key", "read_only"):
                if getattr(self, name):
                    raise ValidationError(f"{name} needs a path", "give Config a path=")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _path(given: str | os.PathLike[str] | None) -> Path | None:
    if given is None or given == ":memory:":
        return None
    if given == "":
        raise ValidationError("path must not be empty", "leave it out for a database in memory")
    return Path(folder(given))


def options_of(config: Config) -> dict[str, Any]:
    """What the native store takes."""
    retention = config.retention
    return {
        "path": config.path,
        "max_memory": int(config.max_memory_mb * 1_000_000),
        "wal": config.enable_wal,
        "durability": config.durability,
        "retention": None
        if retention is None
        else (retention.keep_last, retention.keep_for, retention.keep_tagged),
        "encryption_key": config.encryption_key,
        "read_only": config.read_only,
        "accept_loss": config.accept_loss,
    }
