"""Install a wheel into an empty environment, alone on the PATH, and run the README there."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(wheel: Path) -> None:
    """Fail when the wheel needs a compiler, or the README's example does not run with it."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder, "Scripts" if os.name == "nt" else "bin")
        python = programs / "python"
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYO3_", "PYTHON", "VIRTUAL_ENV"))
        }
        environment["PATH"] = str(programs)
        commands: list[list[str | Path]] = [
            [python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel.resolve()],
            [python, ROOT / "tools" / "run_markdown.py", ROOT / "README.md"],
            [programs / "limnion", "info"],
        ]
        for command in commands:
            subprocess.run(command, cwd=folder, env=environment, check=True)
    print(f"{wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB) works where there is no compiler")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
