"""Where the benchmark keeps what it makes: data sets, environments, results."""

import os
from pathlib import Path


def home() -> Path:
    """Return the folder of everything: LIMNION_BENCH_DATA, or one among the caches."""
    return Path(os.environ.get("LIMNION_BENCH_DATA", Path.home() / ".cache" / "limnion-bench"))


def data_folder(name_or_path: str) -> Path | None:
    """Return the folder of a data set, given by path or by its name under `home`."""
    for folder in (Path(name_or_path), home() / "data" / name_or_path):
        if (folder / "neighbors.npy").is_file():
            return folder.resolve()
    return None
