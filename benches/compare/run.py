"""Measure limnion beside its peers on one data set, and write the tables.

    python benches/compare/run.py --data synth384-200k
    python benches/compare/run.py --data FOLDER --only 'limnion|hnswlib' --into README.md

README.md in this folder has the method, and what a data folder holds.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import environments
import report
from entries import ENTRIES, NUMPY, Entry
from places import data_folder, home

HERE = Path(__file__).resolve().parent
PHASES = ("build", "single", "batch", "overhead")
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
            if line.startswith("  "):
                print(line, end="", flush=True)
    if process.returncode or not lines or not lines[-1].startswith("RESULT "):
        last = lines[-1].strip() if lines else "nothing said"
        raise FailedError(f"{phase}: exit {process.returncode}: {last}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def python_of(entry: Entry, wheel: Path | None) -> Path:
    """Return the Python that has the library: its own, or this one for an installed limnion."""
    if entry.adapter != "limnion":
        return environments.ready(entry.adapter, entry.requires)
    if wheel is None:
        return Path(sys.executable)
    return environments.ready("limnion", (str(wheel), NUMPY))


def measure(entry: Entry, data: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure the phases asked for; one that fails is written down with its reason."""
    result: dict[str, Any] = {"entry": entry.name, "measured": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        more = ["--entry", entry.name, "--data", str(data), "--folder", folder]
        more += ["--quick"] * asked.quick
        try:
            python = python_of(entry, asked.limnion_wheel)
            for phase in asked.phases:
                threads = asked.threads if phase in ("build", "batch") else 1
                key = phase if asked.threads == THREADS else f"{phase} on {asked.threads}"
                result[key] = run_phase(python, phase, threads, *more)
        except (FailedError, environments.CannotInstallError) as error:
            result["failed"] = str(error).replace(folder, "FOLDER")
            print(f"{entry.name} failed: {error}", flush=True)
    return result


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
        python = environments.ready("numpy_exact", (NUMPY,))
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
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES[:3])
    parser.add_argument("--threads", type=int, default=THREADS, help="of builds and batches")
    parser.add_argument("--limnion-wheel", type=Path, help="default: limnion as installed here")
    parser.add_argument("--missing", action="store_true", help="skip what has a result")
    parser.add_argument("--quick", action="store_true", help="does it work? Figures mean nothing")
    parser.add_argument("--into", nargs="*", type=Path, default=[], help="files with marked tables")
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
    if "single" in asked.phases or "batch" in asked.phases:
        asked.phases = [
            p for p in PHASES if p in {*asked.phases, "build"}
        ]  # they load what it saves
    data = find_data(asked.data)
    results = home() / ("quick" if asked.quick else "results")
    folder = results / data.name
    folder.mkdir(parents=True, exist_ok=True)
    if not asked.quick:
        python = environments.ready("numpy_exact", (NUMPY,))
        about = run_phase(python, "machine", 1)
        (results / "machine.json").write_text(json.dumps(about, indent=1))
    for entry in chosen:
        file = folder / f"{entry.name}.json"
        if asked.missing and file.exists():
            continue
        print(f"{data.name}: {entry.name}", flush=True)
        result = measure(entry, data, asked)
        known = json.loads(file.read_text()) if file.exists() else {}
        known.pop("failed", None)
        file.write_text(json.dumps(known | result, indent=1))
    tables = report.Tables(results)
    print(tables.show(f"compare {data.name}"))
    for path in asked.into:
        tables.write_into(path)


if __name__ == "__main__":
    main()
