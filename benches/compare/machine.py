"""The machine under the measurement: processors, memory, bandwidth, other users. Linux only."""

import gc
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

OTHERS = 0.15  # cores that other processes may use while a point is measured
TRIES = 6
PATIENCE = 10.0  # seconds that a process spends on repetitions; beyond, it takes what it gets
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MEGABYTE = 1 << 20
SPENT = [0.0]  # seconds of repetitions so far
BANDWIDTH_MEGABYTES = (4, 8, 16, 32, 64, 256, 1024)


def pin(count: int) -> None:
    """Confine this process, and all threads it will start, to the first `count` processors."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def resident() -> int:
    """Return the bytes of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def forget_peak() -> None:
    """Let `peak` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most bytes of memory this process had since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def settle() -> int:
    """Drop garbage, and return the memory that is left as the zero of what follows."""
    gc.collect()
    forget_peak()
    return resident()


class Watch:
    """The processor time of this process and of all others since it was made."""

    def __init__(self) -> None:
        self.began, self.all_began, self.own_began = time.perf_counter(), self.all(), self.own()

    @staticmethod
    def all() -> float:
        """Return the seconds of all processors in use, stolen by a hypervisor included."""
        user, nice, system, _idle, _wait, irq, softirq, steal = (
            int(x) for x in Path("/proc/stat").read_text().split(None, 9)[1:9]
        )
        return (user + nice + system + irq + softirq + steal) / TICKS

    @staticmethod
    def own() -> float:
        """Return the seconds this process and its children used."""
        return sum(
            usage.ru_utime + usage.ru_stime
            for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        )

    def used(self) -> float:
        """Return the seconds of processor time this process used."""
        return self.own() - self.own_began

    def others(self) -> float:
        """Return the cores that everything else kept busy."""
        elapsed = time.perf_counter() - self.began
        return max(0.0, (self.all() - self.all_began - self.used()) / elapsed)


def undisturbed(
    measure: Callable[[], Result], tries: int = TRIES
) -> tuple[Result, dict[str, float]]:
    """Measure until the rest of the machine was quiet; return the quietest result, and how quiet.

    `others` above `OTHERS` in what comes back means that no try was quiet.
    """
    best: tuple[float, Result] | None = None
    attempt = 0
    while attempt < tries and (best is None or best[0] > OTHERS):
        began = time.perf_counter()
        if attempt:
            if SPENT[0] > PATIENCE:
                break
            time.sleep(attempt)
        attempt += 1
        watch = Watch()
        result = measure()
        others = watch.others()
        if best is None or others < best[0]:
            best = (others, result)
        if attempt > 1:
            SPENT[0] += time.perf_counter() - began
    if best is None:
        raise ValueError(f"tries: expected at least 1, got {tries}")
    return best[1], {"others": round(best[0], 3), "tries": attempt}


def cpu_field(name: str) -> str:
    """Return a field of the first processor, or nothing."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def bandwidth(megabytes: int) -> float:
    """Return the bytes a second that one core reads of an array gone through again and again."""
    row = np.ones(megabytes * MEGABYTE // 4, np.float32)
    repeats = max(3, 512 // megabytes)

    def read() -> float:
        best = 0.0
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(repeats):
                row.dot(row)
            best = max(best, repeats * row.nbytes / (time.perf_counter() - began))
        return best

    read()
    return undisturbed(read)[0]


def describe() -> dict[str, object]:
    """Return what a reader must know, with the bandwidth of one core by the size of an array."""
    pin(1)
    return {
        "processor": cpu_field("model name"),
        "nominal_mhz": float(cpu_field("cpu MHz") or 0),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30),
        "system": platform.system() + " " + platform.release().partition("-")[0],
        "python": platform.python_version(),
        "bandwidth": {str(size): bandwidth(size) for size in BANDWIDTH_MEGABYTES},
    }
