"""Fixtures that many tests share."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from support import (
    CLASSES,
    KEEPING,
    IndexClass,
    KeepingClass,
    RunPython,
    Shop,
    Vectors,
    random_vectors,
)

import limnion

# `make test-clouds` runs them, in an environment that has it.
collect_ignore = [] if find_spec("limnion_clouds") else ["clouds"]


@pytest.fixture(scope="session")
def vectors() -> Vectors:
    """Return 2,000 vectors of 96 dimensions, which nobody may change."""
    made = random_vectors(2_000, 96)
    made.flags.writeable = False
    return made


@pytest.fixture(params=CLASSES, ids=lambda index_class: index_class.__name__)
def index_class(request: pytest.FixtureRequest) -> IndexClass:
    """Return each class of index in turn."""
    chosen: IndexClass = request.param
    return chosen


@pytest.fixture(params=KEEPING, ids=lambda index_class: index_class.__name__)
def keeping_class(request: pytest.FixtureRequest) -> KeepingClass:
    """Return each class that keeps the original vectors."""
    chosen: KeepingClass = request.param
    return chosen


@pytest.fixture(params=["memory", "folder"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """Return what opens databases: in memory, then in a folder."""
    shop = Shop(tmp_path / "db" if request.param == "folder" else None)
    yield shop
    shop.close()


@pytest.fixture
def db(shop: Shop) -> limnion.SyncDatabase:
    """Return a new database without await."""
    return shop.sync()


@pytest.fixture
def run_python() -> RunPython:
    """Return a function that runs a program in a process of its own, and gives what came of it."""

    def run(program: str, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program), *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    return run
