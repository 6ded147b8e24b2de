"""The command `limnion`.

limnion demo [PATH]   search text by meaning: the files under PATH, or Python's own docstrings
limnion info          what is installed, and what this machine can do
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import limnion
from limnion import _native

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the arguments are those of the process unless given.

    Returns:
        The exit status: 0, or 1 where limnion raised, or 130 after Ctrl-C.

    Raises:
        SystemExit: with status 2 for arguments that cannot be used, 0 for `--help` and `--version`.
    """
    parser = argparse.ArgumentParser(
        prog="limnion", description="Search by meaning, on this machine."
    )
    parser.add_argument("--version", action="version", version=f"limnion {limnion.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    demo = commands.add_parser("demo", help="search text by meaning", description=_demo.__doc__)
    demo.add_argument(
        "path", nargs="?", type=Path, metavar="PATH", help="a text file, or a folder of them"
    )
    demo.add_argument(
        "--ask",
        action="append",
        default=[],
        metavar="QUESTION",
        help="what to search for; may come again",
    )
    demo.set_defaults(run=_demo, parser=demo)

    info = commands.add_parser("info", help="what is installed", description=_info.__doc__)
    info.set_defaults(run=_info, parser=info)

    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # text may hold what the terminal cannot show
    try:
        options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough. Python flushes once more at exit, and must not fail there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except limnion.LimnionError as error:
        print(f"limnion: {error}", file=sys.stderr)
        return 1
    return 0


def _demo(options: argparse.Namespace) -> None:
    """Search the text files under PATH, or the docstrings of Python's standard library."""
    from limnion import _demo as demo  # noqa: PLC0415
    from limnion._passages import NothingToSearchError  # noqa: PLC0415

    try:
        demo.run(options.path, options.ask)
    except NothingToSearchError as error:
        options.parser.error(str(error))


def _info(_options: argparse.Namespace) -> None:
    """Print the versions, and the CPU level that the kernels use."""
    features = limnion.cpu_features()
    level = features.pop("level")
    for label, value in (
        ("limnion", f"{limnion.__version__} ({_native.PROFILE} build)"),
        ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
        ("numpy", np.__version__),
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"),
        ("cpu level", level),
        ("cpu has", ", ".join(name for name, present in features.items() if present) or "-"),
        ("cpu lacks", ", ".join(name for name, present in features.items() if not present) or "-"),
    ):
        indent = " " * 11
        print(textwrap.fill(str(value), 79, initial_indent=f"{label:11}", subsequent_indent=indent))
