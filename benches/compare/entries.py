"""What is measured: one entry a row of the tables."""

from dataclasses import dataclass, field
from typing import Any

NUMPY = "numpy==2.4.6"


@dataclass(frozen=True)
class Entry:
    """One library with one index; `requires` begins with the library itself."""

    name: str
    label: str
    adapter: str
    requires: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def limnion(name: str, index: str, label: str, **options: Any) -> Entry:  # noqa: ANN401
    """An index of limnion itself."""
    settings = {"index": index, "options": options}
    return Entry(f"limnion-{name}", f"limnion `{index}`{label}", "limnion", ("limnion",), settings)


HNSWLIB = ("hnswlib==0.8.0", NUMPY)
FAISS = ("faiss-cpu==1.15.1", NUMPY)
TURBOVEC = ("turbovec==1.1.2", NUMPY)
RABITQLIB = ("rabitqlib==0.7.1", NUMPY)

ENTRIES = (
    limnion("plus-f32", "RabitqPlusIndex", ", 1 bit + f32", bits=1, originals="f32"),
    limnion("plus-f16", "RabitqPlusIndex", ", 1 bit + f16", bits=1, originals="f16"),
    limnion("asym", "RabitqAsymIndex", ", 4 bits", bits=4),
    limnion("asym-2", "RabitqAsymIndex", ", 2 bits", bits=2),
    limnion("asym-5", "RabitqAsymIndex", ", 5 bits", bits=5),
    limnion("asym-8", "RabitqAsymIndex", ", 8 bits", bits=8),
    limnion("rabitq", "RabitqIndex", ", 1 bit"),
    limnion("flat", "FlatF32Index", ", exact"),
    Entry(
        "hnswlib",
        "hnswlib, M = 16, f32",
        "hnswlib",
        HNSWLIB,
        {"M": 16, "ef_construction": 128},
    ),
    Entry(
        "rabitqlib-graph",
        "rabitqlib SymphonyQG, degree 32, 8 bits",
        "rabitqlib",
        RABITQLIB,
        {"degree": 32, "ef_construction": 128, "bits": 8},
    ),
    Entry("turbovec-2", "turbovec, 2 bits + f16 rerank", "turbovec", TURBOVEC, {"bits": 2}),
    Entry("turbovec-4", "turbovec, 4 bits + f16 rerank", "turbovec", TURBOVEC, {"bits": 4}),
    Entry(
        "faiss-rabitq",
        "faiss RaBitQ FastScan + f16 refine",
        "faiss",
        FAISS,
        {"factory": "RaBitQfs,Refine(SQfp16)", "bytes_per_row": (1 / 8, 8)},
    ),
    Entry(
        "faiss-flat",
        "faiss `IndexFlat`, exact",
        "faiss",
        FAISS,
        {"factory": "Flat", "bytes_per_row": (4, 0)},
    ),
    Entry("usearch-exact", "usearch, exact", "usearch", ("usearch==2.26.6", NUMPY)),
    Entry("numpy-exact", "numpy, exact", "numpy_exact", (NUMPY,)),
)
BY_NAME = {entry.name: entry for entry in ENTRIES}
