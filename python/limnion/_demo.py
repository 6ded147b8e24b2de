"""What `limnion demo` shows: real text, searched by meaning, with the price of it."""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Final

import numpy as np

import limnion
from limnion import _passages
from limnion._passages import NothingToSearchError
from limnion._progress import Bar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from limnion._passages import Corpus, Passage
    from limnion.protocols import AnyIndex

__all__ = ["run"]

WIDTH: Final = 79
SHOWN: Final = 3
K: Final = 10
QUERIES: Final = 500
QUERY_WORDS: Final = 12

OF_PYTHON: Final = (
    "How do I break long lines of text into a paragraph of a given width?",
    "What is the middle value of a list of numbers?",
    "Hide a password while it is typed.",
    "How can I tell which kind of image a file is?",
)


def run(path: Path | None, asked: Sequence[str]) -> None:
    """Reads, embeds, indexes, answers and measures.

    Raises:
        NothingToSearchError: where there is nothing to search.
    """
    embedder = limnion.Embedder.builtin()
    for question in asked:
        if not embedder.embed(question).any():
            message = (
                f"QUESTION must have a word that the embedder knows, but {question!r} has none"
            )
            raise NothingToSearchError(message)

    shown = sys.stderr is not None and sys.stderr.isatty()
    start = time.perf_counter()
    bar = Bar("read") if shown else lambda _done, _total: None
    corpus = _passages.of_python(bar) if path is None else _passages.of_files(path, bar)
    reading = time.perf_counter() - start
    _tell_left_out(corpus)

    start = time.perf_counter()
    vectors = embedder.embed_batch([passage.text for passage in corpus.passages], progress=shown)
    embedding = time.perf_counter() - start

    # A passage without a single known word has no direction, and so no place in the index.
    known: NDArray[np.bool_] = np.any(vectors, axis=1)
    passages = [passage for passage, keep in zip(corpus.passages, known, strict=True) if keep]
    vectors = np.ascontiguousarray(vectors[known])
    if not passages:
        raise NothingToSearchError(
            f"PATH must hold words that the embedder knows, but {path} has none"
        )

    start = time.perf_counter()
    index = limnion.RabitqPlusIndex.build(vectors, metric="cosine", progress=shown)
    building = time.perf_counter() - start

    words = sum(len(passage.text.split()) for passage in passages)
    origin = "the docstrings of Python's standard library" if path is None else str(path)
    print(textwrap.fill(f"From {origin}:", WIDTH))
    print(f"{len(passages):,} passages of {words:,} words, read in {reading:.2f} s")
    print(f"embedded in {embedding:.2f} s: {len(vectors) / embedding:,.0f} passages a second")
    print(f"indexed in {building:.2f} s: {len(vectors) / building:,.0f} vectors a second")

    questions = asked or (OF_PYTHON if path is None else _questions(embedder, passages))
    answers = [index.search(embedder.embed(question), k=SHOWN) for question in questions]
    for question, hits in zip(questions, answers, strict=True):
        _show(question, hits, passages)

    start = time.perf_counter()
    again = asyncio.run(_side_by_side(embedder, index, questions))
    together = time.perf_counter() - start
    same = sum(one == other for one, other in zip(answers, again, strict=True))
    print(f"\nThe same under asyncio, side by side: {same} of {len(answers)} with the same hits,")
    print(f"in {together * 1e3:.1f} ms all together.")
    _measure(embedder, index, vectors, passages)


async def _side_by_side(
    embedder: limnion.Embedder, index: limnion.RabitqPlusIndex, questions: Sequence[str]
) -> list[limnion.Hits]:
    async def answer(question: str) -> limnion.Hits:
        return await index.search_async(await embedder.embed_async(question), k=SHOWN)

    return await asyncio.gather(*map(answer, questions))


def _questions(embedder: limnion.Embedder, passages: list[Passage]) -> list[str]:
    """Questions that the text itself asks, or else the openings of some passages."""
    asks = re.compile(r"\b[A-Z][^.!?]{15,100}\?")
    found = list(dict.fromkeys(ask for passage in passages for ask in asks.findall(passage.text)))
    openings = [" ".join(passage.text.split()[:QUERY_WORDS]) for passage in passages]
    chosen = _spread(found, SHOWN) + _spread(openings, SHOWN)
    return [question for question in chosen if embedder.embed(question).any()][:SHOWN]


def _spread(items: list[str], count: int) -> list[str]:
    return items[:: max(1, len(items) // count)][:count]


def _show(question: str, hits: limnion.Hits, passages: list[Passage]) -> None:
    print()
    print(textwrap.fill(question, WIDTH))
    for hit in hits:
        passage = passages[hit.id]
        print(f"  {hit.score:.3f}  {textwrap.shorten(passage.source, WIDTH - 9)}")
        text = textwrap.shorten(passage.text, 3 * (WIDTH - 12), placeholder=" ...")
        print(textwrap.fill(text, WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 9))


def _measure(
    embedder: limnion.Embedder,
    index: limnion.RabitqPlusIndex,
    vectors: NDArray[np.float32],
    passages: list[Passage],
) -> None:
    openings = [" ".join(passage.text.split()[:QUERY_WORDS]) for passage in passages]
    queries = embedder.embed_batch(_spread(openings, QUERIES))
    queries = queries[queries.any(axis=1)]
    if not len(queries):
        return
    exact = limnion.FlatF32Index.build(vectors, metric="cosine")
    found, seconds = _search(index, queries)
    truth, exact_seconds = _search(exact, queries)
    pairs = zip(found, truth, strict=True)
    recall = np.mean([np.isin(right, ids).mean() for ids, right in pairs])
    print(f"\n{len(queries)} more searches, one by one, for the nearest {len(truth[0])}:\n")
    print("                    recall    a search      memory")
    for name, share, time_, memory in (
        ("RabitqPlusIndex", recall, seconds, index.memory_bytes),
        ("FlatF32Index, exact", 1.0, exact_seconds, exact.memory_bytes),
    ):
        print(f"{name:19} {share:7.2%} {time_ * 1e6:8,.0f} µs {memory / 1e6:8,.1f} MB")


def _search(
    index: AnyIndex, queries: NDArray[np.float32]
) -> tuple[list[NDArray[np.uint64]], float]:
    start = time.perf_counter()
    found = [index.search(query, k=K) for query in queries]
    seconds = (time.perf_counter() - start) / len(queries)
    return [hits.ids for hits in found], seconds


def _tell_left_out(corpus: Corpus) -> None:
    for reason, names in corpus.left_out.items():
        print(
            textwrap.shorten(
                f"left out, {reason}: {_passages.some(names)}", WIDTH, placeholder=" ..."
            )
        )
    if len(corpus.passages) == _passages.MAX_PASSAGES:
        print(f"left out, what follows the first {_passages.MAX_PASSAGES:,} passages")
