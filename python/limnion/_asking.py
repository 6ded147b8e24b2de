"""How `limnion.database` waits for the native store; `limnion._waiting` is its twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from limnion.errors import ForkedProcessError

if TYPE_CHECKING:
    from limnion._native import Request, Store

__all__ = ["ask", "close", "wait"]

T = TypeVar("T")


def ask(request: Request[T]) -> Request[T]:
    """What is to be awaited."""
    return request


async def wait(store: Store, after: int, timeout: float | None) -> bool:
    """Waits for a commit after `after`, or for the end; whether one came in time."""
    if timeout is None:
        await store.when_after(after)
        return True
    import asyncio  # noqa: PLC0415 - `import limnion` is to be quick

    try:
        async with asyncio.timeout(timeout):
            await store.when_after(after)
    except TimeoutError:
        return False
    return True


async def close(store: Store) -> None:
    """Closes the store. That of a parent process is not ours to close."""
    try:
        await store.close()
    except ForkedProcessError:
        return
