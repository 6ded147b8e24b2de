"""Text to vectors, with a model that comes along: no download, no network, no key.

>>> import limnion
>>> embedder = limnion.Embedder.builtin()
>>> passages = ["A lake lies in layers.", "The invoice is due on Friday.", "Deep water is cold."]
>>> index = limnion.RabitqPlusIndex.build(embedder.embed_batch(passages), metric="cosine")
>>> best = index.search(embedder.embed("When do I have to pay?"), k=1)[0]
>>> passages[best.id]
'The invoice is due on Friday.'
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from limnion._native import Embedder

__all__ = ["Embedder"]

BUILTIN: Final = Path(__file__).parent / "models" / "limnion-static-256"
"""The folder of the built-in model, which bears its name."""
