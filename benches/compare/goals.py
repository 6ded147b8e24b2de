"""The speed that the flat indexes are to reach, and whether they do."""

from collections.abc import Callable, Iterator
from typing import Any

from curve import qps_at

Of = Callable[[str, str], dict[str, Any]]  # the result of an entry on a data set, or nothing
INDEXES = ("limnion-plus-f32", "limnion-plus-f16")
SMALL = ("minilm-100k",)
LARGE = ("minilm-200k", "synth384-200k")
MILLION = "synth384-1000k"
WIDE = "synth768-100k"


def rows(of: Of) -> Iterator[list[str]]:
    """Return each goal, what is wanted, what was reached, and whether that is enough."""

    def speed(data: str, entry: str, recall: float = 0.99, phase: str = "single") -> float | None:
        return qps_at(of(data, entry).get(phase, {}).get("points", []), recall)

    def times(what: str, wanted: float, mine: float | None, *theirs: float | None) -> list[str]:
        known = [x for x in theirs if x]
        reached = mine / max(known) if mine and known else None
        return [what, f"≥ {wanted:g} ×", *verdict(reached, wanted, "×")]

    for data in (*SMALL, *LARGE):
        for index in INDEXES:
            mine = speed(data, index)
            name = f"{data}, {index}"
            if data in SMALL:
                yield times(f"{name} / hnswlib at 0.95", 1, mine, speed(data, "hnswlib", 0.95))
            else:
                yield times(f"{name} / numpy exact", 60, mine, speed(data, "numpy-exact"))
                yield times(f"{name} / faiss flat", 25, mine, speed(data, "faiss-flat"))
                turbovec = (speed(data, f"turbovec-{bits}") for bits in (2, 4))
                yield times(f"{name} / better turbovec", 2, mine, *turbovec)
                yield times(f"{name} / faiss RaBitQ", 4, mine, speed(data, "faiss-rabitq"))
            both = speed(data, index, phase="batch")
            yield times(f"{name}, batch on two threads / single", 2.5, both, mine)

    for index in INDEXES:
        took = of(MILLION, index).get("build", {}).get("build_s")
        reached = verdict(None if took is None else -took, -15, "s")
        yield [f"build of {MILLION}, {index}", "≤ 15 s", *reached]
        one = of(WIDE, index).get("build on 1", {})
        rate = one["rows"] / one["build_s"] / 1e3 if one else None
        name = f"build of {WIDE}, one thread, {index}"
        yield [name, "≥ 100 k rows/s", *verdict(rate, 100, "k rows/s")]
    for index in (*INDEXES, "limnion-flat", "limnion-rabitq", "limnion-asym"):
        called = of(SMALL[0], index).get("overhead", {}).get("call_us")
        reached = verdict(None if called is None else -called, -3, "µs")
        yield [f"a call, {index}", "≤ 3 µs", *reached]


def verdict(reached: float | None, wanted: float, unit: str) -> tuple[str, str]:
    """Return what was reached, and whether that is enough; costs come as negative numbers."""
    if reached is None:
        return "—", "not measured"
    return f"{abs(reached):,.2f} {unit}", "yes" if reached >= wanted else "**no**"
