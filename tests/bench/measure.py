"""CPU and memory of this process and all that it started (JVM, Python workers), and medians of several runs."""

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

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


Looking = TypeVar("Looking", bound="Watch")


class Watch:
    """Looks at processes again and again while the block runs."""

    def __init__(self, every: float = 0.1) -> None:
        self._every, self._stop = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self: Looking) -> Looking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.look()

    def look(self) -> None:
        raise NotImplementedError


class Peak(Watch):
    """The largest resident memory of a Python process below this one, in bytes."""

    bytes = 0

    def look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                if "python" in process.name():
                    self.bytes = max(self.bytes, process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue


class Tree(Watch):
    """A process and all below it: the largest sum of resident memory, in bytes, and the CPU seconds last seen."""

    bytes, cpu = 0, 0.0

    def __init__(self, pid: int) -> None:
        super().__init__(every=0.2)
        self._pid = pid

    def look(self) -> None:
        try:
            root = psutil.Process(self._pid)
            family = [root, *root.children(recursive=True)]
            times = [process.cpu_times() for process in family]
            self.bytes = max(self.bytes, sum(process.memory_info().rss for process in family))
            self.cpu = max(self.cpu, sum(t.user + t.system + t.children_user + t.children_system for t in times))
        except psutil.NoSuchProcess:
            pass  # one of them has just ended: the next look sees the others


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
