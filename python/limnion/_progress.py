"""The progress bar of `progress=True`."""

from __future__ import annotations

import sys
import time
from typing import Final

__all__ = ["Bar"]

_WIDTH: Final = 30


class Bar:
    """Draws how far a job is on stderr: over itself on a terminal, once at the end elsewhere.

    Args:
        label: What the job does.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._start = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        """Draws the bar; ends its line once all is done."""
        stream = sys.stderr
        over = done >= total
        if stream is None or not (over or stream.isatty()):
            return
        seconds = max(time.perf_counter() - self._start, 1e-9)
        share = done / total if total else 1.0
        bar = ("█" * round(share * _WIDTH)).ljust(_WIDTH, "·")
        line = f"{self._label} {bar} {share:4.0%}  {done:,}/{total:,}  {done / seconds:,.0f}/s"
        begin = "\r" if stream.isatty() else ""
        encoding = stream.encoding or "ascii"
        line = line.encode(encoding, "replace").decode(encoding)
        stream.write(begin + line + ("\n" if over else ""))
        stream.flush()
