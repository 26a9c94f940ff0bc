"""CPU and memory of this process and all that it started (JVM, Python workers), and medians of several runs."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Cost:
    """One way of doing a thing: CPU seconds by round, wall seconds (median), largest Python worker in bytes, last result."""

    cpus: tuple[float, ...]
    wall: float
    worker: int
    result: Any

    @property
    def cpu(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.cpus)

    def over(self, other: "Cost") -> float:
        """The median over the rounds of this CPU / the other's: the speed of a shared machine changes from round to round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.cpus, other.cpus, strict=True))


def cpu_of_tree() -> float:
    """User and system seconds of this process and all below it, those that have ended included."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


class Peak:
    """The largest resident memory of a Python process below this one, seen while the block runs, in bytes."""

    def __enter__(self) -> "Peak":
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "python" in process.name():
                        self.bytes = max(self.bytes, process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def side_by_side(ways: dict[str, Callable[[], Any]], runs: int = 3, warm: int = 1) -> dict[str, Cost]:
    """Costs of several ways, run in turns in this process; the first `warm` rounds are not counted."""
    seen: dict[str, list[tuple[float, float, int, Any]]] = {name: [] for name in ways}
    for _ in range(warm + runs):
        for name, way in ways.items():
            with Peak() as peak:
                cpu, wall = cpu_of_tree(), time.monotonic()
                result = way()
                seen[name].append((cpu_of_tree() - cpu, time.monotonic() - wall, peak.bytes, result))
    counted = {name: rounds[warm:] for name, rounds in seen.items()}
    return {name: _summary(rounds) for name, rounds in counted.items()}


def _summary(rounds: list[tuple[float, float, int, Any]]) -> Cost:
    cpu, wall, worker, result = zip(*rounds, strict=True)
    return Cost(cpu, statistics.median(wall), max(worker), result[-1])
