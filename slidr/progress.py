"""Signs of life of long work: what is done of how much, how fast, how long it will still take."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from pyspark.sql import SparkSession

EVERY = 10.0  # seconds between two lines; a person waits for this long without doubts


def _nowhere(_: str) -> None:
    """Where nobody listens."""


@dataclass
class Progress:
    """Counts clicks of one piece of work after the other and says so; the default says nothing.

    `every` is the longest silence in seconds while a step runs; the lines in between count Spark's tasks.
    """

    say: Callable[[str], None] = _nowhere
    every: float = EVERY
    _said: float = field(default_factory=time.monotonic, init=False)

    def tell(self, text: str) -> None:
        self.say(text)
        self._said = time.monotonic()

    @contextmanager
    def step(self, spark: SparkSession, name: str) -> Iterator[None]:
        """Tells the tasks of the running Spark stages while the block runs, and how long it took at its end."""
        self.tell(name)
        began, ended = time.monotonic(), threading.Event()
        thread = threading.Thread(target=self._watch, args=(spark, name, began, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        self.tell(f"{name}: done in {clock(time.monotonic() - began)}")

    def _watch(self, spark: SparkSession, name: str, began: float, ended: threading.Event) -> None:
        while not ended.wait(min(1.0, self.every)):
            if time.monotonic() - self._said >= self.every:
                self.tell(f"{name}: {clock(time.monotonic() - began)}; {_tasks(spark)}")

    def chunks(self, spark: SparkSession, name: str, clicks: list[int]) -> Iterator[int]:
        """The numbers of the chunks; between them what is done, the rate, and the time that is left. `clicks` are those of each."""
        began, done, total = time.monotonic(), 0, sum(clicks)
        for number, part in enumerate(clicks):
            with self.step(spark, f"{name}, chunk {number + 1} of {len(clicks)}, {part:,} clicks"):
                yield number
            done += part
            rate = done / max(time.monotonic() - began, 1e-9)
            self.tell(f"{name}: {done:,} of {total:,} clicks, {rate:,.0f} a second, {clock((total - done) / max(rate, 1e-9))} left")


def clock(seconds: float) -> str:
    """1:05 for 65 seconds."""
    return str(timedelta(seconds=round(seconds))).removeprefix("0:").removeprefix("0")


def _tasks(spark: SparkSession) -> str:
    """Finished and all tasks of the stages that run now; Spark plans where none does."""
    tracker = spark.sparkContext.statusTracker()
    stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    running = [stage for stage in stages if stage]
    if not running:
        return "Spark is planning"
    return f"{sum(s.numCompletedTasks for s in running)} of {sum(s.numTasks for s in running)} tasks of the stages that run"
