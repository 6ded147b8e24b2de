"""How `limnion.sync_database` waits for the native store: the twin of `limnion._asking`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from limnion.errors import ForkedProcessError

if TYPE_CHECKING:
    from limnion._native import Request, Store

__all__ = ["ask", "close", "wait"]

T = TypeVar("T")


def ask(request: Request[T]) -> T:
    """The answer. Ctrl-C ends the wait."""
    return request.wait()


def wait(store: Store, after: int, timeout: float | None) -> bool:
    """Waits for a commit after `after`, or for the end; whether one came in time."""
    return store.wait_after(after, timeout)


def close(store: Store) -> None:
    """Closes the store. That of a parent process is not ours to close."""
    try:
        store.close().wait()
    except ForkedProcessError:
        return
