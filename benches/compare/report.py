"""Tables of what was measured, printed or written between marks in Markdown files.

    python report.py RESULTS_FOLDER FILE...

A mark is a line `<!-- table: NAME -->`; all up to the next `<!-- end -->` is replaced. Names:
`machine`, `goals` (of the flat indexes), and for each data set `compare DATA`, `detail DATA`,
`limits DATA`, `builds DATA`, `filters DATA`, `growth DATA`, `goals DATA` (of lists and graphs).
"""

import itertools
import json
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import goals
from curve import front, qps_at
from entries import BY_NAME, ENTRIES

Result = dict[str, Any]
RECALLS = (0.9, 0.95, 0.99)
OTHERS = 0.15  # as in machine.py: cores of other processes beyond which a figure is marked
UNKNOWN = "Not measured yet"
MARK = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
SAID_OF_FILTERS = "queries a second of searches among a part of the rows, and the recall found."
GIGA = 1e9
MEGA = 1e6


def number(value: float | None, digits: int = 0) -> str:
    """Return a number as a table shows it."""
    return "—" if value is None else f"{value:,.{digits}f}"


def rate(result: Result, phase: str, recall: float) -> str:
    """Return the QPS at a recall, marked ≥ when the cheapest point is better than asked."""
    points = result.get(phase, {}).get("points", [])
    value = qps_at(points, recall)
    if value is None:
        return "—"
    more = len(points) > 1 and front(points)[0][0] >= recall
    return ("≥ " if more else "") + number(value)


def noisy(result: Result) -> str:
    """Return a star when a figure was taken while others used the machine."""
    guards = [result[p] for p in ("build", "overhead") if p in result]
    guards += [x for p in ("single", "batch") for x in result.get(p, {}).get("points", ())]
    guards += result.get("filters", {}).get("cases", ())
    return "\\*" if any(g["others"] > OTHERS for g in guards) else ""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    titles = list(head)
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Tables:
    """Everything below a folder of results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "machine.json"
        self.about: Result = json.loads(file.read_text()) if file.exists() else {}

    def of(self, data: str, entry: str) -> Result:
        """Return the result of an entry; empty when there is none."""
        file = self.folder / data / f"{entry}.json"
        found: Result = json.loads(file.read_text()) if file.exists() else {}
        return found

    def results(self, data: str) -> list[Result]:
        """Return the results of a data set, in the order of the entries."""
        return [found for entry in ENTRIES if (found := self.of(data, entry.name))]

    def by_speed(self, data: str) -> list[Result]:
        """Return the results that have single queries, the fastest at 0.99 first."""

        def key(result: Result) -> tuple[float, ...]:
            points = result["single"]["points"]
            return tuple(-(qps_at(points, recall) or 0) for recall in reversed(RECALLS))

        return sorted((r for r in self.results(data) if "single" in r), key=key)

    def compare(self, data: str) -> str:
        """Return the short table."""
        rows = []
        for result in self.by_speed(data):
            label = BY_NAME[result["entry"]].label + noisy(result)
            points = result["single"]["points"]
            rows.append(
                [
                    f"**{label}**" if label.startswith("limnion") else label,
                    *(rate(result, "single", recall) for recall in RECALLS),
                    rate(result, "batch", RECALLS[-1]),
                    f"{max(p['recall'] for p in points):.3f}",
                    number(result["build"]["build_s"], 1),
                    number(result["single"]["resident_bytes"] / MEGA),
                ]
            )
        head = ["", "QPS at recall 0.90", "0.95", "0.99", "two threads, 0.99", "best recall"]
        return self.with_notes(data, table([*head, "build s", "memory MB"], rows))

    def detail(self, data: str) -> str:
        """Return the long table: every point."""
        rows = []
        for result in self.by_speed(data):
            many = result.get("batch", {}).get("points", [])
            for place, point in enumerate(result["single"]["points"]):
                knob = " ".join(f"{k} {v:g}" for k, v in point["knob"].items())
                batch = many[place] if place < len(many) else {}
                worst = max(point["others"], batch.get("others", 0))
                rows.append(
                    [
                        f"{result['entry']} {knob}".strip(),
                        f"{point['recall']:.4f}",
                        number(point["qps"]),
                        f"{number(point['qps_min'])} to {number(point['qps_max'])}",
                        number(point["p50_us"], 1),
                        number(point["p99_us"], 1),
                        number(batch.get("qps")),
                        f"{worst:.2f}" + ("\\*" if worst > OTHERS else ""),
                    ]
                )
        head = ["entry and knob", "recall", "QPS", "passes", "p50 µs", "p99 µs", "QPS, two threads"]
        points = table([*head, "others, cores"], rows)
        return self.with_notes(data, f"{points}\n\n{self.builds(data)}")

    def builds(self, data: str) -> str:
        """Return what it cost to build, keep and load each index."""
        head = [
            "entry",
            "version",
            "build s",
            "CPU s",
            "peak MB",
            "disk MB",
            "load s",
            "resident MB",
        ]
        rows = (
            [
                r["entry"] + noisy(r),
                r["build"]["version"],
                number(r["build"]["build_s"], 2),
                number(r["build"]["build_cpu_s"], 1),
                number(r["build"]["peak_bytes"] / MEGA),
                number(r["build"]["disk_bytes"] / MEGA),
                number(r["single"]["load_s"], 3),
                number(r["single"]["resident_bytes"] / MEGA),
            ]
            for r in self.by_speed(data)
        )
        return table(head, rows)

    def filters(self, data: str) -> str:
        """Return what filtered searches reach: QPS, and the recall found at it."""
        rows, head = [], [""]
        for result in self.results(data):
            cases = result.get("filters", {}).get("cases")
            if not cases:
                continue
            head = [
                "",
                *(f"{100 * case['share']:g} %, {goals.ASKED[case['asked']]}" for case in cases),
            ]
            label = BY_NAME[result["entry"]].label + noisy(result)
            cells = (f"{number(case['qps'])} ({case['recall']:.3f})" for case in cases)
            rows.append([f"**{label}**" if label.startswith("limnion") else label, *cells])
        if not rows:
            return f"{UNKNOWN}."
        return f"{data}: {SAID_OF_FILTERS}\n\n{table(head, rows)}"

    def growth(self, data: str) -> str:
        """Return the time of a query at recall 0.95 in a set and in one ten times its size."""
        larger = goals.larger(data)
        rows = []
        for result in self.results(data):
            speeds = (
                qps_at(
                    self.of(name, result["entry"]).get("single", {}).get("points", []), RECALLS[1]
                )
                for name in (data, larger)
            )
            few, many = speeds
            if few and many:
                times = (number(1e6 / few, 1), number(1e6 / many, 1), f"{few / many:.2f} ×")
                rows.append([BY_NAME[result["entry"]].label, *times])
        if not rows:
            return f"{UNKNOWN} on both {data} and {larger}."
        head = ["µs a query at recall 0.95", data, larger, "growth"]
        return table(head, sorted(rows, key=lambda row: row[0]))

    def goals(self, data: str) -> str:
        """Return the goals: of lists and graphs on a set, or of the flat indexes without one."""
        found = goals.on(self.of, data) if data else goals.rows(self.of)
        return table(["goal", "wanted", "reached", "met"], found)

    def with_notes(self, data: str, text: str) -> str:
        """Return the table with what it is about before it, and what went wrong after it."""
        results = self.results(data)
        builds = [r["build"] for r in results if "build" in r]
        if not builds:
            return f"{UNKNOWN}."
        days = sorted({r["measured"] for r in results})
        said = [
            f"{data}: {builds[0]['rows']:,} × {builds[0]['dim']}, k = 10, measured {days[-1]}.",
            text,
        ]
        if any(noisy(r) for r in results):
            said.append(f"\\* Others used more than {OTHERS} cores meanwhile.")
        said += [f"Not measured: {r['entry']}: {r['failed']}" for r in results if "failed" in r]
        return "\n\n".join(said)

    def bandwidth(self, size: float) -> float | None:
        """Return what one core reads a second of an array of this size, between measured sizes."""
        known = sorted((float(k) * 2**20, v) for k, v in self.about.get("bandwidth", {}).items())
        if not known:
            return None
        if size <= known[0][0]:
            return float(known[0][1])
        for (low, fast), (high, slow) in itertools.pairwise(known):
            if size <= high:
                part = math.log(size / low) / math.log(high / low)
                return float(fast + part * (slow - fast))
        return float(known[-1][1])

    def limits(self, data: str) -> str:
        """Return what the memory allows beside what the scans reach."""
        rows = []
        for result in self.by_speed(data):
            per_row = result["build"]["bytes_per_row"]
            points = result["single"]["points"]
            recall = min(RECALLS[-1], max(p["recall"] for p in points))
            qps = qps_at(points, recall)
            if per_row is None or qps is None:
                continue
            count = result["build"]["rows"]
            scanned = per_row * count
            speed = self.bandwidth(scanned)
            limit = speed / scanned if speed else None
            each = 1e9 / qps / count
            mhz = self.about.get("nominal_mhz")
            rows.append(
                [
                    result["entry"] + noisy(result),
                    f"{recall:.3f}",
                    number(per_row, 1),
                    number(scanned / MEGA, 1),
                    number(speed / GIGA if speed else None, 1),
                    number(limit),
                    number(qps),
                    number(100 * qps / limit if limit else None) + " %",
                    number(each, 2),
                    number(each * mhz / 1e3 if mhz else None, 2),
                ]
            )
        head = ["entry", "recall", "bytes a row", "MB a query", "GB/s of one core", "QPS at that"]
        return table([*head, "QPS measured", "share", "ns a row", "cycles a row"], rows)

    def show(self, name: str) -> str:
        """Return the table of a mark."""
        kind, _, data = name.partition(" ")
        kinds = {
            "compare": self.compare,
            "detail": self.detail,
            "limits": self.limits,
            "builds": self.builds,
            "filters": self.filters,
            "growth": self.growth,
            "goals": self.goals,
        }
        if kind in kinds:
            return kinds[kind](data)
        if kind == "machine":
            return self.machine()
        return UNKNOWN  # of another program, such as store.py

    def machine(self) -> str:
        """Return the machine in words and its bandwidth as a table."""
        if not self.about:
            return f"{UNKNOWN}."
        about = self.about
        said = (
            f"{about['processor']}, {about['cores']} cores of {about['nominal_mhz']:,.0f} MHz,"
            f" {about['memory_gib']} GiB; {about['system']}, Python {about['python']}."
        )
        sizes = about["bandwidth"]
        speeds = ["one core reads, GB/s", *(number(v / GIGA, 1) for v in sizes.values())]
        return f"{said}\n\n{table(['array of', *(f'{k} MiB' for k in sizes)], [speeds])}"

    def write_into(self, path: Path) -> None:
        """Replace the marked tables of a file that these results have something to say of."""

        def renewed(mark: re.Match[str]) -> str:
            shown = self.show(mark[2])
            return mark[0] if shown.startswith(UNKNOWN) else f"{mark[1]}\n{shown}\n\n{mark[3]}"

        path.write_text(MARK.sub(renewed, path.read_text("utf-8")), encoding="utf-8")


def main() -> None:
    """Write the tables of a folder of results into files."""
    folder, *files = map(Path, sys.argv[1:])
    for file in files:
        Tables(folder).write_into(file)


if __name__ == "__main__":
    main()
