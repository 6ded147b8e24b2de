"""A virtual environment for each library, made when first needed and kept."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from places import home


class CannotInstallError(Exception):
    """pip said no; its last words say why."""


def ready(name: str, requires: Sequence[str]) -> Path:
    """Return the Python of the environment, made anew when what it requires has changed.

    A requirement may be the path of a wheel; another wheel at the same path counts as a change.
    """
    folder = home() / "environments" / name
    python, stamp = folder / "bin" / "python", folder / "requires.txt"
    wanted = "\n".join([sys.version, *requires, *map(digest, requires)])
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"making the environment of {name}", flush=True)
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *requires],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotInstallError(done.stderr.strip().splitlines()[-1])
    stamp.write_text(wanted)
    return python


def digest(requirement: str) -> str:
    """Return a hash of the wheel, when the requirement is one."""
    path = Path(requirement)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
