"""Curves of what was measured, as SVG that reads well on a light page and on a dark one.

    python pictures.py RESULTS_FOLDER TARGET_FOLDER DATA...

Of each data set two pictures: queries a second against recall, and recall against memory.
"""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import report
from curve import front, recall_at
from entries import BY_NAME

WIDTH, HEIGHT = 980, 720
LEFT, TOP, BOTTOM = 64, 64, 52
RIGHT = 305  # of which the labels take most
LINE = 15  # between labels
LOWEST, HIGHEST = 0.7, 0.9997  # of the recalls shown; beyond the highest all are one
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, HIGHEST)
DOT, STRONG_DOT = 3.2, 4.5
FAST = ((500_000, 5_000), (math.inf, 1_000))  # up to so many rows, so many queries a second
# A colour for each library, on light pages and on dark ones; limnion has one for each structure.
COLOURS = {
    "limnion-ivf": ("#0b6bcb", "#58a6ff"),
    "limnion-graph": ("#08836b", "#3ddbb6"),
    "limnion": ("#6a88ad", "#8ba6c9"),
    "rabitqlib": ("#c2410c", "#fb923c"),
    "faiss": ("#7e3fb8", "#c79bf2"),
    "scann": ("#46710c", "#a5cf4c"),
    "hnswlib": ("#b4215b", "#f580ad"),
    "usearch": ("#8a6100", "#e3b341"),
    "lancedb": ("#52606d", "#b8c4d0"),
    "turbovec": ("#a03a3a", "#f08d8d"),
    "numpy": ("#5f6670", "#a3abb6"),
}
STRONG = ("limnion-ivf", "limnion-graph")
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "5 5")  # tell the lines of one colour apart
Result = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """From a value to a place on paper."""

    of: Callable[[float], float]  # makes steps that are alike equal
    least: float
    most: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value; what lies beyond the ends is put there."""
        low, high = self.of(self.least), self.of(self.most)
        part = (self.of(min(max(value, self.least), self.most)) - low) / (high - low)
        return self.start + part * (self.end - self.start)


def nines(recall: float) -> float:
    """Return a recall by what is missed: each tenth of it is a step."""
    return -math.log10(max(1 - recall, 1e-9))


def round_values(least: float, most: float) -> list[float]:
    """Return the ticks of a logarithmic axis: 1, 2 and 5 times the powers of ten."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    values = (step * 10.0**power for power in powers for step in (1, 2, 5))
    return [value for value in values if least <= value <= most]


def family(result: Result) -> str:
    """Return whose colour an entry has: the first of COLOURS that its name begins with."""
    return next(name for name in COLOURS if result["entry"].startswith(name))


def kind_of(result: Result) -> str:
    """Return the classes of an entry's marks."""
    name = family(result)
    return f"of-{name}" + (" ours" if name in STRONG else "")


def dashes(results: Iterable[Result]) -> dict[str, str]:
    """Return the dashes of each entry's line."""
    met: Counter[str] = Counter()
    found = {}
    for result in results:
        place = met[family(result)]
        met[family(result)] += 1
        found[result["entry"]] = DASHES[place % len(DASHES)]
    return found


def style() -> str:
    """Return the colours and the type, for both kinds of pages."""

    def rules(place: int) -> str:
        return "".join(
            f".of-{name}{{stroke:{colours[place]};fill:{colours[place]}}}"
            for name, colours in COLOURS.items()
        )

    light = ".page{fill:#fff}.ink{fill:#1c2128}.faint{fill:#5f6670}.grid{stroke:#e2e6ea}"
    dark = ".page{fill:#0d1117}.ink{fill:#e6edf3}.faint{fill:#98a2ae}.grid{stroke:#262c34}"
    return (
        f"<style>{light}{rules(0)}@media (prefers-color-scheme:dark){{{dark}{rules(1)}}}"
        "text{font:12px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;stroke:none!important}"
        "text.title{font-size:17px;font-weight:600}text.ours{font-weight:600}"
        ".line{fill:none!important;stroke-width:1.4}.line.ours{stroke-width:2.6}"
        ".leader{fill:none!important;stroke-width:.7;opacity:.45}"
        ".hollow{fill:none!important}.lost{opacity:.4}</style>"
    )


def text(x: float, y: float, said: str, kind: str = "faint", anchor: str = "start") -> str:
    """Return a line of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(said)}</text>'
    )


def dot(x: float, y: float, kind: str, radius: float = 2.6) -> str:
    """Return a point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind}"/>'


def spread(wanted: Sequence[float], least: float, most: float) -> list[float]:
    """Return heights for labels, near the wanted ones, but LINE apart and within the bounds."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    step = min(LINE, (most - least) / max(1, len(wanted) - 1))
    placed: list[float] = []
    for rank, i in enumerate(order):
        lowest = placed[-1] + step if placed else least
        placed.append(max(lowest, min(wanted[i], most - step * (len(order) - 1 - rank))))
    for rank in range(len(placed) - 2, -1, -1):  # what was pushed down may rise half way again
        gap = placed[rank] - wanted[order[rank]]
        room = placed[rank] - (placed[rank - 1] + step if rank else least)
        placed[rank] -= max(0.0, min(gap / 2, room))
    found = [0.0] * len(wanted)
    for i, height in zip(order, placed, strict=True):
        found[i] = height
    return found


def page(title: str, subtitle: str, body: Iterable[str]) -> str:
    """Return the whole file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}">'
    )
    above = (
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        text(LEFT, 26, title, "ink title"),
        text(LEFT, 46, subtitle),
    )
    return "\n".join((head, style(), *above, *body, "</svg>\n"))


def tick(value: float) -> str:
    """Return a number at an axis."""
    return "1" if value == HIGHEST else f"{value:,g}"


def axes(
    across: Scale, upward: Scale, x_ticks: Iterable[float], y_ticks: Iterable[float]
) -> Iterable[str]:
    """Return the grid, with a number at each line."""
    for value in x_ticks:
        x = across(value)
        yield f'<path class="grid" d="M{x:.1f} {upward.end}V{upward.start}"/>'
        yield text(x, upward.start + 18, tick(value), anchor="middle")
    for value in y_ticks:
        y = upward(value)
        yield f'<path class="grid" d="M{across.start} {y:.1f}H{across.end}"/>'
        yield text(across.start - 8, y + 4, tick(value), anchor="end")


def speed_picture(data: str, results: Sequence[Result]) -> str:
    """Return queries a second against recall; points that another beats are faint."""
    shown = [r for r in results if front(r["single"]["points"])[-1][0] >= LOWEST]
    speeds = [p["qps"] for r in shown for p in r["single"]["points"] if p["recall"] >= LOWEST]
    across = Scale(nines, LOWEST, HIGHEST, LEFT, WIDTH - RIGHT)
    upward = Scale(math.log10, min(speeds) / 1.3, max(speeds) * 1.3, HEIGHT - BOTTOM, TOP)
    ticks = [recall for recall in RECALLS if LOWEST <= recall <= HIGHEST]
    body = list(axes(across, upward, ticks, round_values(upward.least, upward.most)))
    body.append(text(across.end, upward.start + 38, "recall of the ten nearest", anchor="end"))
    ends, dashed = [], dashes(shown)
    for result in shown:
        kind = kind_of(result)
        kept = front(result["single"]["points"])
        visible = visible_part(kept)
        path = "L".join(f"{across(recall):.1f} {upward(qps):.1f}" for recall, qps in visible)
        dash = dashed[result["entry"]]
        body.append(f'<path class="line {kind}" stroke-dasharray="{dash}" d="M{path}"/>')
        best = set(kept)
        for point in result["single"]["points"]:
            place = point["recall"], point["qps"]
            if place[0] >= LOWEST:
                lost = "" if place in best else " lost"
                body.append(dot(across(place[0]), upward(place[1]), kind + lost))
        ends.append((across(visible[-1][0]), upward(visible[-1][1])))
    body += labels(shown, ends, across.end + 22)
    about = results[0]["build"]
    return page(
        f"{data}: queries a second against recall",
        f"{about['rows']:,} × {about['dim']}, ten neighbours, one thread, one query a call."
        " Faint: another setting beats it. Up and right is better.",
        body,
    )


def visible_part(kept: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the part of a curve at the recalls shown, cut where it enters them."""
    inside = [(recall, qps) for recall, qps in kept if recall >= LOWEST]
    before = [(recall, qps) for recall, qps in kept if recall < LOWEST]
    if before and inside:
        (low, fast), (high, slow) = before[-1], inside[0]
        part = (LOWEST - low) / (high - low)
        inside.insert(0, (LOWEST, fast * (slow / fast) ** part))
    return inside


def labels(
    results: Sequence[Result], ends: Sequence[tuple[float, float]], x: float
) -> Iterable[str]:
    """Return the names at the right, each led to from the end of its line."""
    heights = spread([y for _, y in ends], TOP + 4, HEIGHT - BOTTOM)
    for result, (end_x, end_y), height in zip(results, ends, heights, strict=True):
        kind = kind_of(result)
        yield (
            f'<path class="leader {kind}" d="M{end_x:.1f} {end_y:.1f}'
            f'L{x - 12:.1f} {height:.1f}H{x - 3:.1f}"/>'
        )
        yield text(x, height + 4, plain(result), kind)


def plain(result: Result) -> str:
    """Return the label of an entry without marks of Markdown."""
    return BY_NAME[result["entry"]].label.replace("`", "")


def memory_picture(data: str, results: Sequence[Result]) -> str:
    """Return recall against memory, at a speed, and the best there is at any."""
    about = results[0]["build"]
    fast = next(speed for most, speed in FAST if about["rows"] <= most)
    sizes = [r["single"]["resident_bytes"] / 1e6 for r in results]
    across = Scale(math.log10, min(sizes) / 1.15, max(sizes) * 1.15, LEFT, WIDTH - RIGHT)
    upward = Scale(nines, 0.5, HIGHEST, HEIGHT - BOTTOM, TOP)
    body = list(axes(across, upward, round_values(across.least, across.most), RECALLS))
    body.append(text(across.end, upward.start + 38, "memory, MB", anchor="end"))
    ends = []
    for result, size in zip(results, sizes, strict=True):
        kind, x = kind_of(result), across(size)
        radius = STRONG_DOT if family(result) in STRONG else DOT
        points = result["single"]["points"]
        most = max(point["recall"] for point in points)
        at_speed = recall_at(points, fast)
        top = upward(most)
        if at_speed is not None:
            body.append(
                f'<path class="leader {kind}" d="M{x:.1f} {upward(at_speed):.1f}V{top:.1f}"/>'
            )
            body.append(dot(x, upward(at_speed), kind, radius))
        body.append(dot(x, top, kind + " hollow", radius))
        ends.append((x, upward(at_speed) if at_speed is not None else top))
    body += labels(results, ends, across.end + 22)
    return page(
        f"{data}: recall against memory",
        f"{about['rows']:,} × {about['dim']}. Filled: at {fast:,} queries a second on one thread."
        " Hollow: at any speed. Up and left is better.",
        body,
    )


def write(tables: report.Tables, data: str, target: Path) -> None:
    """Write the two pictures of a data set, where anything was measured."""
    results = tables.by_speed(data)
    if not results:
        return
    target.mkdir(parents=True, exist_ok=True)
    for name, picture in (("qps", speed_picture), ("memory", memory_picture)):
        (target / f"{data}-{name}.svg").write_text(picture(data, results), encoding="utf-8")


def main() -> None:
    """Write the pictures of sets from a folder of results."""
    folder, target, *names = sys.argv[1:]
    for name in names:
        write(report.Tables(Path(folder)), name, Path(target))


if __name__ == "__main__":
    main()
