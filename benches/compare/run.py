"""Measure limnion beside its peers on one data set, and write the tables.

    python benches/compare/run.py --data synth384-200k
    python benches/compare/run.py --data FOLDER --only 'limnion|hnswlib' --into README.md
    python benches/compare/run.py --data FOLDER --keep --pictures docs/curves

README.md in this folder has the method, and what a data folder holds.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import environments
import pictures
import report
from entries import ENTRIES, NUMPY, Entry
from places import data_folder, home

HERE = Path(__file__).resolve().parent
PHASES = ("build", "single", "batch", "overhead", "filters", "upkeep")
OPTIONAL = ("filters", "upkeep")  # for the entries that have them
LOADING = {"single", "batch", *OPTIONAL}  # they load what a build saves
DEFAULT = ("build", "single", "batch", *OPTIONAL)
BEGAN = time.monotonic()
THREADS = 2  # of builds and batches
POOLS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class FailedError(Exception):
    """A phase ended without a result."""


def say(what: str) -> None:
    """Print what is going on, the hour, and the minutes since the start."""
    minutes = (time.monotonic() - BEGAN) / 60
    print(f"{time.strftime('%H:%M:%S')} {minutes:5.1f} min  {what}", flush=True)


def run_phase(python: Path, phase: str, threads: int, *more: str) -> dict[str, Any]:
    """Run one phase in a process of its own, and return what it measured."""
    command = [str(python), str(HERE / "measure.py"), phase, "--threads", str(threads), *more]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    pools = dict.fromkeys(POOLS, str(threads))
    lines: list[str] = []
    with subprocess.Popen(
        command,
        env={**kept, **pools, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith("- "):
                say(line.rstrip().removeprefix("- "))
    if process.returncode or not lines or not lines[-1].startswith("RESULT "):
        last = lines[-1].strip() if lines else "nothing said"
        raise FailedError(f"{phase}: exit {process.returncode}: {last}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def python_of(entry: Entry, wheel: Path | None) -> Path:
    """Return the Python that has the library: its own, or this one for an installed limnion."""
    if entry.adapter != "limnion":
        return environments.ready(entry.library, entry.requires)
    if wheel is None:
        return Path(sys.executable)
    return environments.ready("limnion", (str(wheel), NUMPY))


def measure(
    entry: Entry, data: Path, asked: argparse.Namespace, known: dict[str, Any]
) -> dict[str, Any]:
    """Measure the phases asked for; one that fails is written down with its reason."""
    result: dict[str, Any] = {"entry": entry.name, "measured": time.strftime("%Y-%m-%d")}
    with index_folder(entry, data, asked) as (folder, built):
        more = ["--entry", entry.name, "--data", str(data), "--folder", str(folder)]
        more += ["--quick"] * asked.quick
        try:
            python = python_of(entry, asked.limnion_wheel)
            for phase in asked.phases:
                if phase in OPTIONAL and phase not in entry.also:
                    continue
                threads = asked.threads if phase in ("build", "batch") else 1
                key = phase if asked.threads == THREADS else f"{phase} on {asked.threads}"
                if phase == "build" and built.exists() and key in known:
                    continue
                say(f"{data.name}, {entry.name}: {phase}")
                result[key] = run_phase(python, phase, threads, *more)
                if phase == "build":
                    built.write_text(stamp(entry, data))
        except (FailedError, environments.CannotInstallError) as error:
            result["failed"] = str(error).replace(str(folder), "FOLDER")
            say(f"{data.name}, {entry.name} failed: {error}")
    return result


def stamp(entry: Entry, data: Path) -> str:
    """Return all that a saved index of a peer depends on."""
    rows = (data / "neighbors.npy").stat()
    return json.dumps([entry.requires, entry.settings, str(data), rows.st_size, rows.st_mtime])


@contextmanager
def index_folder(
    entry: Entry, data: Path, asked: argparse.Namespace
) -> Iterator[tuple[Path, Path]]:
    """Give a folder for the index, and the file that says that a peer's lies in it already.

    Indexes of limnion are never kept: its code changes, a peer's is pinned.
    """
    if not asked.keep or entry.adapter == "limnion":
        with tempfile.TemporaryDirectory(dir=scratch()) as temporary:
            (folder := Path(temporary) / "index").mkdir()
            yield folder, Path(temporary) / "stamp.json"
        return
    kept = home() / "indexes" / ("quick" if asked.quick else "whole") / data.name / entry.name
    folder, built = kept / "index", kept / "stamp.json"
    if not built.exists() or built.read_text() != stamp(entry, data):
        shutil.rmtree(kept, ignore_errors=True)
        folder.mkdir(parents=True)
    yield folder, built


def scratch() -> Path:
    """Return a folder for indexes on the disk of the data: temporary ones may lie in memory."""
    path = home() / "work"
    path.mkdir(parents=True, exist_ok=True)
    return path


def find_data(name: str) -> Path:
    """Return the folder of the set; a synthetic one is made when it is not there."""
    folder = data_folder(name)
    if folder is None and re.fullmatch(r"synth\d+-\d+k", name):
        print(f"making {name}", flush=True)
        python = environments.ready("numpy", (NUMPY,))
        subprocess.run([str(python), str(HERE / "synthetic.py"), name], check=True)
        folder = data_folder(name)
    if folder is None:
        raise SystemExit(
            f"--data: expected a folder of data or a name like synth384-200k, got {name!r}"
        )
    return folder


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="synth384-100k", help="a folder, or a name")
    parser.add_argument("--only", default="", help="a regular expression for names of entries")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=DEFAULT)
    parser.add_argument("--threads", type=int, default=THREADS, help="of builds and batches")
    parser.add_argument("--limnion-wheel", type=Path, help="default: limnion as installed here")
    parser.add_argument("--missing", action="store_true", help="skip what has a result")
    parser.add_argument("--keep", action="store_true", help="peers' indexes, for the next time")
    parser.add_argument("--quick", action="store_true", help="does it work? Figures mean nothing")
    parser.add_argument("--into", nargs="*", type=Path, default=[], help="files with marked tables")
    parser.add_argument("--pictures", type=Path, help="a folder for curves of the set as SVG")
    parser.add_argument("--list", action="store_true", help="name the entries, measure nothing")
    return parser.parse_args()


def main() -> None:
    """Measure, store, and show."""
    asked = arguments()
    chosen = [entry for entry in ENTRIES if re.search(asked.only, entry.name)]
    if asked.list:
        print("\n".join(f"{entry.name:16} {entry.label}" for entry in chosen))
        return
    if sys.platform != "linux":
        raise SystemExit("the measurement pins threads and reads /proc: it needs Linux")
    if LOADING & {*asked.phases}:
        asked.phases = [phase for phase in PHASES if phase in {*asked.phases, "build"}]
    data = find_data(asked.data)
    results = home() / ("quick" if asked.quick else "results")
    folder = results / data.name
    folder.mkdir(parents=True, exist_ok=True)
    if not asked.quick:
        python = environments.ready("numpy", (NUMPY,))
        about = run_phase(python, "machine", 1)
        (results / "machine.json").write_text(json.dumps(about, indent=1))
    for place, entry in enumerate(chosen, 1):
        file = folder / f"{entry.name}.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        if asked.missing and known and "failed" not in known:
            continue
        say(f"{data.name}, {entry.name}: {place} of {len(chosen)}")
        result = measure(entry, data, asked, known)
        known.pop("failed", None)
        file.write_text(json.dumps(known | result, indent=1))
    say(f"{data.name}: measured")
    tables = report.Tables(results)
    for name in ("compare", "filters", "growth", "goals"):
        print(tables.show(f"{name} {data.name}"), end="\n\n")
    if asked.pictures:
        pictures.write(tables, data.name, asked.pictures)
    for path in asked.into:
        tables.write_into(path)


if __name__ == "__main__":
    main()
