"""Signs of life of long work: what is done of how much, how fast, how long it will still take."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

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
    def step(self, spark: SparkSession, name: str, pace: Callable[[], str] | None = None) -> Iterator[None]:
        """Tells `pace` and the tasks of the running Spark stages while the block runs, and how long it took at its end."""
        self.tell(f"{name}; {pace()}" if pace else name)
        began, ended = time.monotonic(), threading.Event()
        thread = threading.Thread(target=self._watch, args=(spark, name, pace, began, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        self.tell(f"{name}: done in {clock(time.monotonic() - began)}")

    def _watch(self, spark: SparkSession, name: str, pace: Callable[[], str] | None, began: float, ended: threading.Event) -> None:
        while not ended.wait(min(1.0, self.every)):
            if time.monotonic() - self._said >= self.every:
                self.tell("; ".join([f"{name}: {clock(time.monotonic() - began)}", *([pace()] if pace else []), _tasks(spark)]))

    def chunks(self, spark: SparkSession, name: str, clicks: list[int], expected: float | None = None) -> Iterator[int]:
        """The numbers of the chunks; in and between them what is done, the rate, and the time that is left. `clicks` are those of each.

        `expected` are the seconds that all of them took at the pace of earlier ones, where it is known: told until the first is done.
        """
        began, done, total = time.monotonic(), 0, sum(clicks)
        rate = total / max(expected, 1e-9) if expected else 0.0
        for number, part in enumerate(clicks):
            with self.step(
                spark, f"{name}, chunk {number + 1} of {len(clicks)}, {part:,} clicks", partial(_pace, began, done, total, rate)
            ):
                yield number
            done += part
            rate = done / max(time.monotonic() - began, 1e-9)
            self.tell(f"{name}: {_pace(began, done, total, rate)}")


def _pace(began: float, done: int, total: int, rate: float) -> str:
    """What is done, how fast, and the time that is left at this rate; 0 for a rate that is not known yet."""
    said = f"{done:,} of {total:,} clicks"
    left = max(total / rate - (time.monotonic() - began), 0.0) if rate else 0.0
    return f"{said}, {rate:,.0f} a second, {clock(left)} left" if rate else said


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
