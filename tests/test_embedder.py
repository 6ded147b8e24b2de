"""The built-in embedder: its reference vectors, wrong input, threads, asyncio and Ctrl-C."""

import asyncio
import json
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import limnion
from limnion.errors import InvalidArgumentError, InvalidTypeError

DATA = Path(__file__).parent / "data" / "embedder"
TEXTS: list[str] = json.loads((DATA / "reference.json").read_text("utf-8"))
VECTORS: NDArray[np.float32] = np.load(DATA / "reference.npy")

LONG = "A lake lies in layers. " * 1000

INTERRUPTED = """
import os, signal, threading, time
import limnion

embedder = limnion.Embedder.builtin()
# New words throughout, so that it takes many seconds.
texts = [" ".join(f"lake{i}x{j}" for j in range(100)) for i in range(20_000)] * 10

def press():
    global pressed
    pressed = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)

threading.Timer(1, press).start()
try:
    embedder.embed_batch(texts)
except KeyboardInterrupt:
    print(time.perf_counter() - pressed)
"""


@pytest.fixture(scope="module")
def embedder() -> limnion.Embedder:
    return limnion.Embedder.builtin()


def test_the_reference_vectors_come_out(embedder: limnion.Embedder) -> None:
    np.testing.assert_allclose(embedder.embed_batch(TEXTS), VECTORS, rtol=0, atol=1e-5)
    for text, vector in zip(TEXTS, VECTORS, strict=True):
        np.testing.assert_allclose(embedder.embed(text), vector, rtol=0, atol=1e-5)


def test_vectors_are_float32_of_unit_length(embedder: limnion.Embedder) -> None:
    vectors = embedder.embed_batch(["a lake", "water " * 1000])
    assert vectors.shape == (2, embedder.dim) == (2, 256)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_text_without_a_known_word_has_the_zero_vector(embedder: limnion.Embedder) -> None:
    assert not embedder.embed_batch(["", " \n", "\0"]).any()


def test_alone_or_in_a_batch_a_text_has_the_same_vector(embedder: limnion.Embedder) -> None:
    texts = [f"passage {i} about the lake" for i in range(300)]
    alone = np.stack([embedder.embed(text) for text in texts])
    np.testing.assert_array_equal(embedder.embed_batch(texts), alone)


def test_similar_meanings_are_near(embedder: limnion.Embedder) -> None:
    question, right, wrong = embedder.embed_batch(
        [
            "How do I get my money back?",
            "Refunds are paid within a week.",
            "The mountain is covered by snow.",
        ]
    )
    assert question @ right > question @ wrong + 0.1


def test_builtin_is_one_object(embedder: limnion.Embedder) -> None:
    assert limnion.Embedder.builtin() is embedder
    assert pickle.loads(pickle.dumps(embedder)) is embedder
    assert repr(embedder) == "Embedder.builtin(dim=256)"


def test_no_texts_give_an_array_without_rows(embedder: limnion.Embedder) -> None:
    assert embedder.embed_batch([]).shape == (0, 256)


def test_whatever_yields_strings_is_a_batch(embedder: limnion.Embedder) -> None:
    class Title(str):
        __slots__ = ()

    expected = embedder.embed_batch(["one", "two"])
    for texts in (
        ("one", "two"),
        iter(["one", "two"]),
        [Title("one"), Title("two")],
        np.array(["one", "two"]),
    ):
        np.testing.assert_array_equal(embedder.embed_batch(texts), expected)
    np.testing.assert_array_equal(embedder.embed(Title("one")), expected[0])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a lake", "texts must be a list of strings, got str; embed takes a single text"),
        (b"a lake", "texts must be a list of strings, got bytes; embed takes a single text"),
        (None, "texts must be a list of strings, got NoneType"),
        (3, "texts must be a list of strings, got int"),
        (["a", 3], r"texts\[1\] must be a string, got int"),
        (["a", "b", b"c"], r"texts\[2\] must be a string, got bytes; decode the bytes first"),
        ([["a"]], r"texts\[0\] must be a string, got list"),
    ],
)
def test_what_is_no_list_of_strings_is_named(
    embedder: limnion.Embedder, texts: object, message: str
) -> None:
    with pytest.raises(InvalidTypeError, match=message):
        embedder.embed_batch(texts)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=message):
        _ = embedder.embed_batch_async(texts)  # type: ignore[arg-type]


def test_what_is_no_string_is_named(embedder: limnion.Embedder) -> None:
    with pytest.raises(InvalidTypeError, match="text must be a string, got int"):
        embedder.embed(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="text must be a string, got NoneType"):
        _ = embedder.embed_async(None)  # type: ignore[arg-type]


def test_half_a_surrogate_pair_is_named(embedder: limnion.Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=r"texts\[1\] must be valid Unicode"):
        embedder.embed_batch(["fine", "\ud800"])


def test_an_error_of_the_iterable_comes_through(embedder: limnion.Embedder) -> None:
    def texts() -> object:
        yield "one"
        raise LookupError("no more pages")

    with pytest.raises(LookupError, match="no more pages"):
        embedder.embed_batch(texts())  # type: ignore[arg-type]


def test_a_damaged_installation_is_an_embed_error(tmp_path: Path) -> None:
    script = f"""
import limnion, limnion.embed
limnion.embed.BUILTIN = {str(tmp_path)!r}
try:
    limnion.Embedder.builtin()
except limnion.EmbedError as error:
    print(error.kind, error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("embed cannot read")
    assert "model.safetensors" in run.stdout


async def test_awaited_vectors_are_the_same(embedder: limnion.Embedder) -> None:
    short, long, batch = await asyncio.gather(
        embedder.embed_async(TEXTS[0]),
        embedder.embed_async(LONG),
        embedder.embed_batch_async(TEXTS),
    )
    np.testing.assert_array_equal(short, embedder.embed(TEXTS[0]))
    np.testing.assert_array_equal(long, embedder.embed(LONG))
    np.testing.assert_array_equal(batch, embedder.embed_batch(TEXTS))


def test_progress_tells_the_way_to_the_end(embedder: limnion.Embedder) -> None:
    told: list[tuple[int, int]] = []
    embedder.embed_batch(["a lake"] * 100, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (100, 100)
    assert told == sorted(told)
    with pytest.raises(InvalidTypeError, match="progress must be"):
        embedder.embed_batch(["a lake"], progress=3)  # type: ignore[arg-type]


def test_other_threads_run_during_a_batch(embedder: limnion.Embedder) -> None:
    texts = [" ".join(f"lake{i}x{j}" for j in range(100)) for i in range(5_000)]
    turns = 0
    over = threading.Event()

    def count() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            time.sleep(0.001)

    other = threading.Thread(target=count)
    other.start()
    start = time.perf_counter()
    embedder.embed_batch(texts)
    seconds, seen = time.perf_counter() - start, turns
    over.set()
    other.join()
    assert seen > seconds * 1000 / 20  # it would be none while the interpreter is held


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process there")
def test_ctrl_c_ends_a_batch_within_200_ms() -> None:
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 0.2


def test_two_threads_share_an_embedder(embedder: limnion.Embedder) -> None:
    texts = [f"passage {i}" for i in range(2_000)]
    expected = embedder.embed_batch(texts)
    results: list[NDArray[np.float32]] = []
    threads = [
        threading.Thread(target=lambda: results.append(embedder.embed_batch(texts)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)
