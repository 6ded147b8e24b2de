"""Grow a real data set: text found on this machine, embedded by an ONNX sentence model.

    python embed_corpus.py --model MODEL_FOLDER --base DATA_FOLDER --name minilm-200k FOLDER...

Needs numpy, onnxruntime and tokenizers. The new set is the base's rows followed by the new ones;
its queries are the base's followed by passages of files that give no row. Texts are cut at blank
lines into passages of at most 80 words. One is dropped when half of its sampled word windows were
seen before, in the base's texts (`texts.jsonl.gz`, when there) or among the new ones. Embedding
takes one thread and can be interrupted: what is done is kept, and the next run goes on from there.
The set is written as float16, with the exact neighbours of the float16 values and no text.
"""

import argparse
import ast
import gzip
import hashlib
import html.parser
import json
import random
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers
from places import home

WORDS = 80  # longest passage, in words
FEWEST_WORDS = 15
FILE_BYTES = range(500, 2_000_000)
TOKENS = 80  # what the model reads of a passage
PER_FILE = 12  # passages taken from one file, so that no book drowns the rest
WINDOW = 6  # words that two passages must share in a row to count as alike
QUERY_FILES = 0.02  # share of the files that give queries and no rows
PROSE_SHARE = 0.6  # of the passages; the rest is code
CHUNK = 2_048  # passages embedded between two writes to disk
BATCH = 16
PROSE = {".md", ".rst", ".txt", ".html", ".htm", ".adoc", ".texi", ".pod"}
CODE = {".py", ".rs", ".c", ".h", ".pl", ".js", ".go", ".java"}


class Prose(html.parser.HTMLParser):
    """The running text of a page: no scripts, styles or navigation."""

    SILENT = frozenset({"script", "style", "nav", "head", "svg", "button"})
    BREAKS = frozenset({"p", "li", "pre", "h1", "h2", "h3", "h4", "td", "div", "section", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.depth = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        """Count what is silent, and break before blocks."""
        self.depth += tag in self.SILENT
        if tag in self.BREAKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        """Leave what is silent."""
        self.depth -= tag in self.SILENT and self.depth > 0

    def handle_data(self, data: str) -> None:
        """Take text that is not silent."""
        if not self.depth:
            self.parts.append(data)


def docstrings(source: str) -> str:
    """The prose in a Python file."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return "\n\n".join(text for text in found if text)


def read(path: Path) -> tuple[str, str]:
    """The prose and the code of a file; both empty when it is not text."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return "", ""
    if path.suffix in {".html", ".htm"}:
        parser = Prose()
        parser.feed(text)
        return "".join(parser.parts), ""
    if path.suffix in PROSE:
        return text, ""
    return (docstrings(text) if path.suffix == ".py" else ""), text


def passages(text: str, *, code: bool) -> Iterator[str]:
    """Neighbouring paragraphs joined up to WORDS words; a longer paragraph is cut."""
    held: list[str] = []
    words = 0
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.strip("\n") if code else " ".join(paragraph.split())
        count = len(lines.split())
        if held and words + count > WORDS:
            yield ("\n" if code else " ").join(held)
            held, words = [], 0
        if count > WORDS:
            pieces = lines.split()
            for start in range(0, len(pieces) - 20, WORDS):
                yield " ".join(pieces[start : start + WORDS])
        elif count:
            held.append(lines)
            words += count
    if held:
        yield ("\n" if code else " ").join(held)


class Seen:
    """Remembers word windows, a quarter of them chosen by their hash."""

    def __init__(self) -> None:
        self.windows: set[int] = set()

    def add(self, text: str) -> bool:
        """Remember a passage; true when it was mostly new."""
        words = re.findall(r"\w+", text.lower())
        chosen = set()
        for start in range(max(1, len(words) - WINDOW + 1)):
            digest = hashlib.blake2b(
                " ".join(words[start : start + WINDOW]).encode(), digest_size=8
            ).digest()
            value = int.from_bytes(digest, "little")
            if value % 4 == 0 or len(words) < 2 * WINDOW:
                chosen.add(value)
        old = len(chosen & self.windows)
        self.windows |= chosen
        return old * 2 < max(1, len(chosen))


def readable(text: str) -> bool:
    """Words rather than tables, hashes or encoded data."""
    words = text.split()
    letters = sum(c.isalpha() or c.isspace() for c in text)
    return len(words) >= FEWEST_WORDS and len(text) < 12 * len(words) and letters > 0.7 * len(text)


def gather(
    folders: list[Path], seen: Seen, rows: int, queries: int, seed: int
) -> tuple[list[str], list[str]]:
    """Passages for rows and, from files of their own, for queries."""
    files = sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in PROSE | CODE and path.is_file() and path.stat().st_size in FILE_BYTES
    )
    chance = random.Random(seed)  # noqa: S311
    chance.shuffle(files)
    found: dict[tuple[bool, bool], list[str]] = {
        (asks, code): [] for asks in (False, True) for code in (False, True)
    }
    room = {
        (asks, code): round(
            (queries if asks else rows) * (1 - PROSE_SHARE if code else PROSE_SHARE)
        )
        for asks, code in found
    }
    for path in files:
        asks = chance.random() < QUERY_FILES
        for code, text in enumerate(read(path)):
            target = found[asks, bool(code)]
            whole = [p for p in passages(text, code=bool(code)) if readable(p)]
            chance.shuffle(whole)
            most = min(2 if asks else PER_FILE, room[asks, bool(code)] - len(target))
            for passage in whole[:most]:
                if seen.add(passage):
                    target.append(passage)
    chosen = [found[asks, False] + found[asks, True] for asks in (False, True)]
    for passages_found in chosen:
        chance.shuffle(passages_found)
    return chosen[0], chosen[1]


class Model:
    """An ONNX sentence model: mean over the tokens, then unit length."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = next(iter(sorted((folder / "onnx").glob("*.onnx"))))
        self.session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(TOKENS)
        self.tokenizer.no_padding()

    def embed(self, texts: list[str]) -> npt.NDArray[np.float16]:
        """Return one row of unit length for each text."""
        encoded = [e.ids for e in self.tokenizer.encode_batch(texts)]
        order = sorted(
            range(len(texts)), key=lambda i: len(encoded[i])
        )  # equal lengths together: no padding wasted
        out: npt.NDArray[np.float16] | None = None
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            width = max(len(encoded[i]) for i in batch)
            ids = np.zeros((len(batch), width), np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(encoded[i])] = encoded[i]
                mask[row, : len(encoded[i])] = 1
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            hidden = self.session.run(None, feed)[0]
            vectors = (hidden * mask[..., None]).sum(1)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            if out is None:
                out = np.zeros((len(texts), vectors.shape[1]), np.float16)
            out[batch] = vectors
        assert out is not None
        return out


def embed_into(
    folder: Path, stem: str, texts: list[str], model: Model, until: float
) -> npt.NDArray[np.float16]:
    """Embed in chunks kept on disk; stops at the deadline with what is whole."""
    parts = []
    for start in range(0, len(texts), CHUNK):
        part = folder / f"{stem}-{start:07d}.npy"
        if not part.exists():
            if time.monotonic() > until:
                break
            began = time.monotonic()
            np.save(part, model.embed(texts[start : start + CHUNK]))
            rate = CHUNK / (time.monotonic() - began)
            print(f"{stem} {start + CHUNK:,} of {len(texts):,}, {rate:.0f}/s", flush=True)
        parts.append(np.load(part))
    return np.concatenate(parts)


def main() -> None:
    """Gather, embed, and write the set."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--rows", type=int, default=101_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--seed", type=int, default=5)
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    work = home() / "embedding" / asked.name
    work.mkdir(parents=True, exist_ok=True)

    gathered = work / "texts.json"
    if gathered.exists():
        rows, queries = json.loads(gathered.read_text())
    else:
        seen = Seen()
        known = asked.base / "texts.jsonl.gz"
        if known.exists():
            with gzip.open(known, "rt", encoding="utf-8") as lines:
                for line in lines:
                    seen.add(json.loads(line)["text"])
        rows, queries = gather(asked.folders, seen, asked.rows, asked.queries, asked.seed)
        gathered.write_text(json.dumps([rows, queries]))
    print(f"{len(rows):,} passages and {len(queries):,} queries", flush=True)

    model = Model(asked.model)
    new_queries = embed_into(work, "queries", queries, model, until)
    new_rows = embed_into(work, "rows", rows, model, until)
    base = np.concatenate([np.load(asked.base / "base.f16.npy"), new_rows])
    query = np.concatenate([np.load(asked.base / "queries.f16.npy"), new_queries])
    print(datasets.write(asked.name, base, query))


if __name__ == "__main__":
    main()
