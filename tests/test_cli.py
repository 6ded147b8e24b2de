"""The command `limnion`: what it prints, and how it refuses."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import limnion
from limnion import _passages
from limnion.cli import main

LAKE = """\
A lake lies in layers, each colder and older than the one above.

What lives at the bottom of a deep lake? Mostly bacteria, and a few worms in the mud.
"""
INVOICE = "The invoice is due on Friday; after that a reminder is sent, and then a fee is added."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "deep" / "lake.md").write_text(LAKE, "utf-8")
    (tmp_path / "deep" / "invoice.txt").write_text(INVOICE, "utf-8")
    (tmp_path / "many.txt").write_text(
        "\n\n".join(f"Passage {i} is about number {i}. " * 10 for i in range(300))
    )
    (tmp_path / ".hidden" / "secret.txt").write_text("Nobody should ever read this secret.")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0\0")
    (tmp_path / "latin.txt").write_bytes("Größe und Höhe eines Sees".encode("latin-1"))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the command; return its exit status, and what it said on stdout and stderr."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else -1
    said = capsys.readouterr()
    return status, said.out, said.err


def test_info_tells_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "info")
    assert (status, err) == (0, "")
    told = {line[:11].strip(): line[11:] for line in out.splitlines()}
    assert told["limnion"].startswith(limnion.__version__)
    assert told["limnion"].endswith(("(release build)", "(debug build)"))
    assert told["cpu level"] == limnion.cpu_features()["level"]
    assert told["numpy"] == np.__version__
    assert told["python"].startswith(".".join(map(str, sys.version_info[:3])))


def test_the_demo_searches_a_folder(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, err = run(
        capsys, "demo", folder, "--ask", "When do I have to pay?", "--ask", "worms"
    )
    assert (status, err) == (0, "")
    assert "left out, not text in UTF-8: latin.txt, picture.png" in out
    answer = out.partition("When do I have to pay?\n")[2]
    assert re.match(r"  0\.\d{3}  deep/invoice\.txt\n", answer)
    assert "side by side: 2 of 2 with the same hits" in out
    assert re.search(r"RabitqPlusIndex +\d+\.\d\d% +\d+ µs +\d\.\d MB", out)
    assert re.search(r"FlatF32Index, exact +100\.00% +\d+ µs +\d\.\d MB", out)
    assert "secret" not in out
    assert max(map(len, out.splitlines())) < 80


def test_the_demo_asks_what_the_text_asks(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    status, out, _ = run(capsys, "demo", folder / "deep" / "lake.md")
    assert status == 0
    assert "\nWhat lives at the bottom of a deep lake?\n  " in out
    assert "  lake.md\n" in out


def test_the_demo_searches_the_standard_library(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    status, out, err = run(capsys, "demo")
    assert (status, err) == (0, "")
    assert out.startswith("From the docstrings of Python's standard library:\n")
    first = out.partition("into a paragraph of a given width?\n")[2].partition("\n")[0]
    assert re.fullmatch(r"  0\.\d{3}  textwrap\..+", first)
    found = re.search(r"RabitqPlusIndex +(\d+\.\d\d)%", out)
    assert found is not None
    assert float(found[1]) >= 99
    assert max(map(len, out.splitlines())) < 80
    assert not {"turtle", "this", "antigravity", "tkinter"} & (set(sys.modules) - before)


def test_the_demo_says_what_it_cannot_search(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "signs.txt").write_text("☃ " * 50, "utf-8")
    for arguments, message in (
        (["no such folder"], "there is no no such folder"),
        ([tmp_path / "empty"], "empty has none"),
        ([tmp_path / "binary"], "binary has none; not text in UTF-8: a.bin"),
        ([tmp_path / "signs.txt"], "signs.txt has none"),
        (
            [tmp_path / "signs.txt", "--ask", "☃"],
            "QUESTION must have a word that the embedder knows, but '☃' has none",
        ),
    ):
        status, out, err = run(capsys, "demo", *arguments)
        assert (status, out) == (2, "")
        assert message in err


@pytest.mark.parametrize("arguments", [[], ["swim"], ["demo", "one", "two"], ["info", "--depth"]])
def test_misuse_is_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: limnion")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, f"limnion {limnion.__version__}\n")


def test_an_error_of_limnion_is_status_1(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise limnion.EmbedError("the model is missing", "install limnion again")

    monkeypatch.setattr("limnion._passages.of_files", broken)
    status, _, err = run(capsys, "demo", folder)
    assert (status, err) == (1, "limnion: the model is missing; install limnion again\n")


def test_ctrl_c_is_status_130(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("limnion._passages.of_files", interrupted)
    assert run(capsys, "demo", folder) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is another error there")
def test_a_reader_may_stop_reading(folder: Path) -> None:
    command = [sys.executable, "-m", "limnion", "demo", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_passages_end_between_paragraphs_and_hold_about_100_words() -> None:
    text = "\n\n".join("word " * length for length in (60, 30, 40, 260, 1))
    lengths = [len(passage.split()) for passage in _passages.split(text)]
    assert lengths == [90, 40, 100, 100, 61]
    assert list(_passages.split(" \n ")) == []


def test_the_demo_stops_reading_at_some_point(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limnion._passages.MAX_PASSAGES", 50)
    status, out, _ = run(capsys, "demo", folder / "many.txt")
    assert status == 0
    assert "left out, what follows the first 50 passages" in out
    assert "\n50 passages of " in out
