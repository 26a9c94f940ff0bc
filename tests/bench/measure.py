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


class Tree:
    """This process, or another one, and all below it, looked at again and again while the block runs.

    `cpu`: seconds of user and system, those of processes that end meanwhile included; `bytes`: the largest sum of resident memory;
    `worker`: that of the largest Python process below.
    """

    bytes, worker = 0, 0

    def __init__(self, pid: int | None = None, every: float = 0.1) -> None:
        self._root, self._every, self._stop = psutil.Process(pid), every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._cpu: dict[tuple[int, float], tuple[float, float]] = {}  # of each process ever seen: when it counts from, when last seen

    @property
    def cpu(self) -> float:
        return sum(last - first for first, last in self._cpu.values())

    def __enter__(self) -> "Tree":
        self._look()
        self._cpu = {process: (seconds, seconds) for process, (_, seconds) in self._cpu.items()}  # later ones count from their start
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._look()

    def _look(self) -> None:
        total = 0
        for process in self._family():
            try:
                with process.oneshot():
                    times, memory, name = process.cpu_times(), process.memory_info().rss, process.name()
            except psutil.NoSuchProcess:
                continue  # ended since: what was seen of it counts
            known = process.pid, process.create_time()
            self._cpu[known] = (self._cpu.get(known, (0.0, 0.0))[0], times.user + times.system)
            total += memory
            if process != self._root and "python" in name:
                self.worker = max(self.worker, memory)
        self.bytes = max(self.bytes, total)

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def side_by_side(ways: dict[str, Callable[[], Any]], runs: int = 3, warm: int = 1) -> dict[str, Cost]:
    """Costs of several ways, run in turns in this process; the first `warm` rounds are not counted."""
    seen: dict[str, list[tuple[float, float, int, Any]]] = {name: [] for name in ways}
    for _ in range(warm + runs):
        for name, way in ways.items():
            began = time.monotonic()
            with Tree() as tree:
                result = way()
            seen[name].append((tree.cpu, time.monotonic() - began, tree.worker, result))
    counted = {name: rounds[warm:] for name, rounds in seen.items()}
    return {name: _summary(rounds) for name, rounds in counted.items()}


def _summary(rounds: list[tuple[float, float, int, Any]]) -> Cost:
    cpu, wall, worker, result = zip(*rounds, strict=True)
    return Cost(cpu, statistics.median(wall), max(worker), result[-1])
