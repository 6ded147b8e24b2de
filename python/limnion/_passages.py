"""Text to try limnion on: the text files of a folder, or the docstrings of the standard library."""

from __future__ import annotations

import ast
import itertools
import os
import re
import sysconfig
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Corpus", "NothingToSearchError", "Passage", "of_files", "of_python", "some", "split"]

WORDS: Final = 100
"""Words in a passage, about."""

MAX_PASSAGES: Final = 200_000
MAX_FILE_BYTES: Final = 64_000_000

_FEWEST_CHARACTERS: Final = 20
_NOT_DOCUMENTATION: Final = frozenset(
    {
        "dist-packages",
        "idle_test",
        "idlelib",
        "lib2to3",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    }
)


class NothingToSearchError(ValueError):
    """There is no text, or no question, where one was looked for."""


class Passage(NamedTuple):
    """A piece of text, and where it is from."""

    source: str
    text: str


class Corpus(NamedTuple):
    """What was read, and why the rest was not."""

    passages: list[Passage]
    left_out: dict[str, list[str]]
    """Names by reason."""


def split(text: str) -> Iterator[str]:
    r"""Cuts a text into passages of about `WORDS` words, between paragraphs where that is possible.

    >>> [len(passage.split()) for passage in split("one two three\n\n" * 50)]
    [99, 51]
    """
    words: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        more = paragraph.split()
        if words and len(words) + len(more) > WORDS:
            yield " ".join(words)
            words = []
        words += more
        while len(words) > WORDS * 5 // 4:
            yield " ".join(words[:WORDS])
            words = words[WORDS:]
    if words:
        yield " ".join(words)


def of_files(path: Path, progress: Callable[[int, int], object]) -> Corpus:
    """Reads the text file `path`, or all below the folder `path`; hidden ones are passed over.

    Raises:
        NothingToSearchError: where nothing is there, or nothing that is text in UTF-8.
    """
    if not path.exists():
        raise NothingToSearchError(f"PATH must be a file or a folder, but there is no {path}")
    left_out: dict[str, list[str]] = {}
    files = [path] if path.is_file() else list(_walk(path, left_out))

    def texts() -> Iterator[tuple[str, str]]:
        for done, file in enumerate(files):
            progress(done, len(files))
            name = file.name if file == path else file.relative_to(path).as_posix()
            try:
                yield name, _read(file)
            except OSError as error:
                left_out.setdefault(_reason(error), []).append(name)
            except ValueError as error:
                left_out.setdefault(str(error), []).append(name)

    passages = _passages(texts())
    progress(len(files), len(files))
    if not passages:
        why = "".join(f"; {reason}: {some(names)}" for reason, names in left_out.items())
        raise NothingToSearchError(f"PATH must hold text in UTF-8, but {path} has none{why}")
    return Corpus(passages, left_out)


def of_python(progress: Callable[[int, int], object]) -> Corpus:
    """Reads the docstrings of Python's standard library from its source; no module is imported.

    Raises:
        NothingToSearchError: where Python was installed without its source.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = [
        file
        for file in sorted(root.rglob("*.py"))
        if _NOT_DOCUMENTATION.isdisjoint(file.relative_to(root).parts)
    ]

    def texts() -> Iterator[tuple[str, str]]:
        for done, file in enumerate(files):
            progress(done, len(files))
            module = file.relative_to(root).with_suffix("")
            name = ".".join(part for part in module.parts if part != "__init__")
            try:
                with warnings.catch_warnings(action="ignore"):
                    tree = ast.parse(file.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
            yield from _docstrings(tree, name)

    passages = _passages(texts())
    progress(len(files), len(files))
    if not passages:
        raise NothingToSearchError(
            f"PATH must be named: the source of Python's standard library is not in {root}"
        )
    return Corpus(passages, {})


def some(names: list[str]) -> str:
    """The first few of many names.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown, rest = names[:3], len(names) - 3
    return ", ".join(shown) + (f" and {rest:,} more" if rest > 0 else "")


def _passages(texts: Iterable[tuple[str, str]]) -> list[Passage]:
    sources: dict[str, str] = {}
    for source, text in texts:
        for passage in split(text):
            if len(passage) >= _FEWEST_CHARACTERS:
                sources.setdefault(passage, source)
        if len(sources) >= MAX_PASSAGES:
            break
    return [
        Passage(source, text) for text, source in itertools.islice(sources.items(), MAX_PASSAGES)
    ]


def _walk(folder: Path, left_out: dict[str, list[str]]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        left_out.setdefault(_reason(error), []).append(str(error.filename))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(parent, name)
            if not name.startswith(".") and file.is_file():
                yield file


def _read(file: Path) -> str:
    if file.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES // 1_000_000} MB")
    text = file.read_bytes()
    try:
        if b"\0" not in text:
            return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    raise ValueError("not text in UTF-8")


def _docstrings(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str
) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node)
    if text:
        yield name, text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, f"{name}.{child.name}")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
