"""Run the Python of a Markdown file: its ```python blocks, in order, as one program.

Every other line is left blank, so a traceback names the line of the Markdown file.
"""

import sys
from pathlib import Path


def program(markdown: str) -> str:
    """Return the text of the python blocks, each line where it was."""
    lines: list[str] = []
    inside = False
    for line in markdown.splitlines():
        if line.startswith("```"):
            inside = line.strip() == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    exec(compile(program(path.read_text("utf-8")), path, "exec"), {"__name__": "__main__"})  # noqa: S102
