"""Has the examples in docstrings use `await` at the top level, as `python -m asyncio` does."""

import ast
import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

import pytest

import limnion

T = TypeVar("T")

LOOP: asyncio.AbstractEventLoop | None = None


def wait(awaitable: Awaitable[T]) -> T:
    """Await on a loop that all examples share."""
    global LOOP  # noqa: PLW0603
    if LOOP is None:
        LOOP = asyncio.new_event_loop()

    async def awaited() -> T:
        return await awaitable

    return LOOP.run_until_complete(awaited())


@contextmanager
def enter(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter and leave an asynchronous context."""
    entered = wait(manager.__aenter__())
    try:
        yield entered
    except BaseException as error:
        if not wait(manager.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        wait(manager.__aexit__(None, None, None))


def iterate(iterator: AsyncIterator[T]) -> Iterator[T]:
    """Go through an asynchronous iterator."""
    while True:
        try:
            yield wait(iterator.__anext__())
        except StopAsyncIteration:
            return


class Synchronous(ast.NodeTransformer):
    """Replaces what needs a coroutine around it."""

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        return ast.Call(ast.Name("__wait__", ast.Load()), [node.value], [])

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = ast.Call(ast.Name("__enter__", ast.Load()), [item.context_expr], [])
        return ast.With(node.items, node.body)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        walk: ast.expr = ast.Call(ast.Name("__iterate__", ast.Load()), [node.iter], [])
        return ast.For(node.target, walk, node.body, node.orelse)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return node  # a coroutine of its own


def pytest_itemcollected(item: pytest.Item) -> None:
    """Rewrite the examples that await."""
    if not isinstance(item, pytest.DoctestItem):
        return
    for example in item.dtest.examples:
        if "await " in example.source or "async " in example.source:
            tree = Synchronous().visit(ast.parse(example.source))
            example.source = ast.unparse(ast.fix_missing_locations(tree)) + "\n"


@pytest.fixture(autouse=True)
def database_for_examples(
    request: pytest.FixtureRequest, doctest_namespace: dict[str, Any]
) -> Iterator[None]:
    """Give the examples of the two modules a database, and what awaits."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    doctest_namespace.update(__wait__=wait, __enter__=enter, __iterate__=iterate, limnion=limnion)
    kinds: dict[str, type[Any]] = {
        "limnion.database": limnion.Database,
        "limnion.sync_database": limnion.SyncDatabase,
    }
    kind = next((kinds[name] for name in kinds if request.node.name.startswith(name)), None)
    if kind is None:
        yield
        return
    doctest_namespace["db"] = database = kind()
    yield
    closing = database.close()
    if closing is not None:
        wait(closing)
