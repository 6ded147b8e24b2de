"""Make python/limnion/sync_database.py of python/limnion/database.py: the same without `await`.

    python tools/make_sync.py            writes the file
    python tools/make_sync.py --check    fails where the file is not what would be written

A line that ends in `# sync: code` is replaced by that code.
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "python" / "limnion"
SOURCE, TARGET = PACKAGE / "database.py", PACKAGE / "sync_database.py"

RULES = [
    (r"(?m)^( *)\S.*# sync: (.*)$", r"\1\2"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"Coroutine\[Any, Any, (.*)\]:", r"\1:"),
    (r"\bCoroutine, ", ""),
    (r"\b_asking\b", "_waiting"),
    (r"(?<![`.\w])(Database|Namespace|Snapshot|Transaction|Watch)\b(?!`)", r"Sync\1"),
    (r"`(Database|Namespace|Snapshot|Transaction|Watch)(\.\w+)?`", r"`Sync\1\2`"),
    (r'"(Database|Namespace|Snapshot|Transaction|Watch)"', r'"Sync\1"'),
]
HEAD = '''"""The versioned store, without `await`: the twin of `limnion.database`.

Made from database.py by tools/make_sync.py: change that file, and run `make format`.
"""
'''


def synchronous(source: str) -> str:
    """Return the source without what is asynchronous about it."""
    for pattern, replacement in RULES:
        source = re.sub(pattern, replacement, source)
    source = re.sub(r'\A""".*?"""\n', lambda _: HEAD, source, flags=re.DOTALL)
    # The way from one twin to the other is needed once.
    start = source.index("    @staticmethod\n    def sync(")
    end = source.index("    @staticmethod\n    def salvage(")
    source = source[:start] + source[end:]
    source = re.sub(r"    from limnion\.sync_database import .*\n", "", source)
    for arguments in (["check", "--fix", "--quiet", "--exit-zero"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(TARGET), "-"]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
        source = done.stdout
    return source


def main() -> int:
    """Write the file, or compare it; return the exit status."""
    made = synchronous(SOURCE.read_text("utf-8"))
    if "--check" in sys.argv:
        if TARGET.read_text("utf-8") == made:
            return 0
        print(f"{TARGET.name} is not what {SOURCE.name} makes: run `make format`")
        return 1
    TARGET.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
