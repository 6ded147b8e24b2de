"""The types that checkers see are the ones that are written down."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USAGE = Path(__file__).parent / "typing" / "usage.py"


# As `make check` has mypy, but from outside the project: it is the installed package that is read.
CONFIG = {"typeCheckingMode": "standard", "enableTypeIgnoreComments": True}
CHECKERS = {
    "mypy": ["--strict", "--follow-imports=silent", USAGE.name],
    "basedpyright": ["--level", "error", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_checkers_agree(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(CONFIG))
    shutil.copy(USAGE, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", checker, *CHECKERS[checker]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
