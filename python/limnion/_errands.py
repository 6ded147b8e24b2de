"""How a lake asks a backend that is written in Python: in threads that Python itself has begun."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from limnion.errors import InvalidTypeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from typing import Protocol

    class Take(Protocol):
        """Takes the pieces of a pull."""

        def __call__(self, piece: object) -> bool:
            """Takes a piece; whether more are wanted."""
            ...

        def end(self, raised: BaseException | None) -> None:
            """That was all, or why there is no more."""
            ...


__all__ = ["answer", "pull"]


def answer(
    backend: object,
    method: str,
    arguments: tuple[Any, ...],
    loop: asyncio.AbstractEventLoop | None,
    take: Callable[[Any, BaseException | None], None],
) -> None:
    """Calls a method of a backend, and hands over what it gives or raises."""
    try:
        take(_settled(getattr(backend, method)(*arguments), loop), None)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the lake is told
        take(None, error)


def pull(
    backend: Any,
    collection: str,
    loop: asyncio.AbstractEventLoop | None,
    take: Take,
) -> None:
    """Hands over the pieces of a pull, one after the other."""
    try:
        pulled = _settled(backend.pull(collection), loop)
        if isinstance(pulled, tuple) or hasattr(pulled, "vectors"):
            take(pulled)
        elif hasattr(pulled, "__aiter__"):
            _settled(_drain(pulled, take, shared=loop is not None), loop)
        elif hasattr(pulled, "__iter__"):
            _hand_over(pulled, take)
        else:
            take.end(_no_rows(pulled))
        take.end(None)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the lake is told
        take.end(error)


def _no_rows(pulled: object) -> InvalidTypeError:
    return InvalidTypeError(
        "it must give Pulled(ids, vectors, generation), or an iterator of such, "
        f"got {type(pulled).__name__}"
    )


def _hand_over(pieces: Iterable[object], take: Take) -> None:
    iterator = iter(pieces)
    try:
        for piece in iterator:
            if not take(piece):
                return
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


async def _drain(pieces: AsyncIterator[object], take: Take, *, shared: bool) -> None:
    try:
        async for piece in pieces:
            # The lake may be slower: other coroutines of the loop are not to wait for it.
            if not (await asyncio.to_thread(take, piece) if shared else take(piece)):
                return
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _awaited(found: Awaitable[Any]) -> Any:
    return await found


def _settled(found: Any, loop: asyncio.AbstractEventLoop | None) -> Any:
    """What was given; awaited, where it is to be."""
    if not inspect.isawaitable(found):
        return found
    waiting = _awaited(found)
    if loop is None:
        return asyncio.run(waiting)
    try:
        if not loop.is_running():
            raise RuntimeError("the loop of the backend does not run")  # noqa: TRY301
        future = asyncio.run_coroutine_threadsafe(waiting, loop)
    except RuntimeError:
        waiting.close()
        if inspect.iscoroutine(found):
            found.close()
        raise
    return future.result()
