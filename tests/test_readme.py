"""What the README shows, runs."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    assert "```python\n" in (ROOT / "README.md").read_text("utf-8")
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "run_markdown.py", ROOT / "README.md"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
