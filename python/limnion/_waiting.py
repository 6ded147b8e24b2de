"""How `limnion.sync_database` waits for the native store: the twin of `limnion._asking`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from limnion.errors import ForkedProcessError, InvalidTypeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from limnion._native import Request, Store
    from limnion.types import EmbedFn, MatrixLike, VectorLike

__all__ = ["ask", "close", "embedded", "embedded_batch", "wait"]

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


def embedded(text: str, embed_fn: EmbedFn | None) -> VectorLike:
    """The vector of a text, by a function or by the embedder that comes along.

    A coroutine function runs in a loop of its own.
    """
    if embed_fn is None:
        from limnion.embed import Embedder  # noqa: PLC0415 - `import limnion` is to be quick

        return Embedder.builtin().embed(text)
    if not callable(embed_fn):
        raise InvalidTypeError(
            f"embed_fn must be a function of a text, got {type(embed_fn).__name__}"
        )
    import inspect  # noqa: PLC0415

    found = embed_fn(text)
    if not inspect.isawaitable(found):
        return found
    import asyncio  # noqa: PLC0415

    return asyncio.run(_awaited(found))


async def _awaited(found: Awaitable[T]) -> T:
    return await found


def embedded_batch(texts: Sequence[str]) -> MatrixLike:
    """The vectors of texts, by the embedder that comes along."""
    from limnion.embed import Embedder  # noqa: PLC0415

    return Embedder.builtin().embed_batch(texts)
