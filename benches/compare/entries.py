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
    also: tuple[str, ...] = ()
    """Phases that it has beyond the usual ones: "filters", "upkeep"."""

    @property
    def library(self) -> str:
        """The name of the distribution, which also names its environment."""
        return self.requires[0].partition("==")[0]


def limnion(name: str, index: str, label: str, **options: Any) -> Entry:  # noqa: ANN401
    """An index of limnion itself."""
    settings = {"index": index, "options": options}
    also = ("filters", "upkeep") if index in TRIED_AT_LENGTH else ()
    return Entry(
        f"limnion-{name}", f"limnion `{index}`{label}", "limnion", ("limnion",), settings, also
    )


def rabitqlib(name: str, label: str, adapter: str, **settings: Any) -> Entry:  # noqa: ANN401
    """An index of rabitqlib."""
    return Entry(f"rabitqlib-{name}", f"rabitqlib {label}", adapter, RABITQLIB, settings)


def faiss(name: str, label: str, factory: str, *also: str, **settings: Any) -> Entry:  # noqa: ANN401
    """An index of the faiss factory."""
    return Entry(f"faiss-{name}", label, "faiss", FAISS, {"factory": factory, **settings}, also)


TRIED_AT_LENGTH = ("IvfIndex", "GraphIndex", "RabitqPlusIndex")
HNSWLIB = ("hnswlib==0.8.0", NUMPY)
FAISS = ("faiss-cpu==1.15.1", NUMPY)
TURBOVEC = ("turbovec==1.1.2", NUMPY)
RABITQLIB = ("rabitqlib==0.7.1", NUMPY)
SCANN = ("scann==1.4.2", NUMPY)
USEARCH = ("usearch==2.26.6", NUMPY)
LANCEDB = ("lancedb==0.40.0", "pyarrow==24.0.0", NUMPY)
HNSW = {"M": 16, "ef_construction": 128}

ENTRIES = (
    limnion("ivf-1-f32", "IvfIndex", ", 1 bit + f32", bits=1, originals="f32"),
    limnion("ivf-4-f16", "IvfIndex", ", 4 bits + f16", bits=4, originals="f16"),
    limnion("ivf-8", "IvfIndex", ", 8 bits", bits=8, originals=None),
    limnion(
        "graph-inline-8",
        "GraphIndex",
        ", inline, 8 bits",
        layout="inline",
        degree=32,
        bits=8,
        originals=None,
    ),
    limnion(
        "graph-inline-5-f16",
        "GraphIndex",
        ", inline, 5 bits + f16",
        layout="inline",
        degree=32,
        bits=5,
        originals="f16",
    ),
    limnion(
        "graph-8",
        "GraphIndex",
        ", compact, 8 bits",
        layout="compact",
        degree=32,
        bits=8,
        originals=None,
    ),
    limnion(
        "graph-5-f16",
        "GraphIndex",
        ", compact, 5 bits + f16",
        layout="compact",
        degree=48,
        bits=5,
        originals="f16",
    ),
    limnion("plus-f32", "RabitqPlusIndex", ", 1 bit + f32", bits=1, originals="f32"),
    limnion("plus-f16", "RabitqPlusIndex", ", 1 bit + f16", bits=1, originals="f16"),
    limnion("asym", "RabitqAsymIndex", ", 4 bits", bits=4),
    limnion("asym-2", "RabitqAsymIndex", ", 2 bits", bits=2),
    limnion("asym-5", "RabitqAsymIndex", ", 5 bits", bits=5),
    limnion("asym-8", "RabitqAsymIndex", ", 8 bits", bits=8),
    limnion("rabitq", "RabitqIndex", ", 1 bit"),
    limnion("flat", "FlatF32Index", ", exact"),
    rabitqlib(
        "graph-raw",
        "SymphonyQG, degree 32, f32",
        "rabitqlib_symphony",
        degree=32,
        ef_construction=128,
        bits=0,
    ),
    rabitqlib(
        "graph-8",
        "SymphonyQG, degree 32, 8 bits",
        "rabitqlib_symphony",
        degree=32,
        ef_construction=128,
        bits=8,
    ),
    rabitqlib("hnsw-7", "HNSW, M = 16, 7 bits", "rabitqlib_hnsw", **HNSW, bits=7),
    rabitqlib("ivf-32", "IVF, 1 bit + f32", "rabitqlib_lists", bits=32),
    rabitqlib("ivf-8", "IVF, 8 bits", "rabitqlib_lists", bits=8),
    rabitqlib("ivf-5", "IVF, 5 bits", "rabitqlib_lists", bits=5),
    faiss("hnsw-sq8", "faiss HNSW, M = 16, SQ8", "HNSW16,SQ8", "filters", ef_construction=128),
    faiss(
        "ivf-pq",
        "faiss IVF-PQ FastScan + f16 refine",
        "IVF{lists},PQ{half}x4fs,Refine(SQfp16)",
        "filters",
    ),
    faiss(
        "ivf-rabitq",
        "faiss IVF-RaBitQ FastScan + f16 refine",
        "IVF{lists},RaBitQfs,Refine(SQfp16)",
        "filters",
    ),
    faiss("ivf-flat", "faiss IVF, f32", "IVF{lists},Flat", "filters", "upkeep"),
    Entry("scann", "ScaNN, 4 bits + f32", "scann", SCANN),
    Entry("hnswlib", "hnswlib, M = 16, f32", "hnswlib", HNSWLIB, HNSW, ("filters",)),
    Entry(
        "usearch-hnsw",
        "usearch HNSW, M = 16, f32",
        "usearch_hnsw",
        USEARCH,
        {"dtype": "f32", **HNSW},
    ),
    Entry("lancedb", "LanceDB, HNSW, SQ", "lancedb", LANCEDB, HNSW, ("filters",)),
    Entry("turbovec-2", "turbovec, 2 bits + f16 rerank", "turbovec", TURBOVEC, {"bits": 2}),
    Entry("turbovec-4", "turbovec, 4 bits + f16 rerank", "turbovec", TURBOVEC, {"bits": 4}),
    faiss(
        "rabitq",
        "faiss RaBitQ FastScan + f16 refine",
        "RaBitQfs,Refine(SQfp16)",
        bytes_per_row=(1 / 8, 8),
    ),
    faiss("flat", "faiss `IndexFlat`, exact", "Flat", "filters", "upkeep", bytes_per_row=(4, 0)),
    Entry("usearch-exact", "usearch, exact", "usearch_exact", USEARCH),
    Entry("numpy-exact", "numpy, exact", "numpy_exact", (NUMPY,)),
)
BY_NAME = {entry.name: entry for entry in ENTRIES}
