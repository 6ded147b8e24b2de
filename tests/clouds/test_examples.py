"""The examples run, and say what they promise."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str, *arguments: str) -> list[str]:
    """Return the lines that an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_question_is_asked_of_four_places() -> None:
    question, *found = example("four_places.py")
    assert question == "Who is to rotate the keys, and when?"
    assert len(found) == 5
    assert {line.split()[1] for line in found} == {"memory", "folder", "bucket", "database"}
