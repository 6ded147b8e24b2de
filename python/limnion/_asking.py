"""How `limnion.database` waits for the native store; `limnion._waiting` is its twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from limnion.errors import ForkedProcessError, InvalidTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limnion._native import Embedder, Request, Store
    from limnion.types import EmbedFn, MatrixLike, VectorLike

__all__ = ["ask", "close", "embedded", "embedded_batch", "wait"]

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


async def embedded(text: str, embed_fn: EmbedFn | None) -> VectorLike:
    """The vector of a text, by a function or by the embedder that comes along.

    A plain function is called in a thread, so that it may take its time.
    """
    if embed_fn is None:
        return await (await _builtin()).embed_async(text)
    if not callable(embed_fn):
        raise InvalidTypeError(
            f"embed_fn must be a function of a text, got {type(embed_fn).__name__}"
        )
    import asyncio  # noqa: PLC0415 - `import limnion` is to be quick
    import inspect  # noqa: PLC0415

    is_quick = inspect.iscoroutinefunction(embed_fn)  # to call, that is
    found = embed_fn(text) if is_quick else await asyncio.to_thread(embed_fn, text)
    return await found if inspect.isawaitable(found) else found


async def embedded_batch(texts: Sequence[str]) -> MatrixLike:
    """The vectors of texts, by the embedder that comes along."""
    return await (await _builtin()).embed_batch_async(texts)


async def _builtin() -> Embedder:
    import asyncio  # noqa: PLC0415

    from limnion.embed import Embedder  # noqa: PLC0415

    global _is_read  # noqa: PLW0603
    if not _is_read:
        await asyncio.to_thread(Embedder.builtin)
        _is_read = True
    return Embedder.builtin()


_is_read = False
