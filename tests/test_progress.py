"""Signs of life: what is done, how fast, how long it will take, and no long silence."""

import re
import time

import pytest
from pyspark.sql import SparkSession

from slidr.progress import Progress, clock


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (65, "1:05"), (600, "10:00"), (3725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_long_step_is_never_silent_for_long(spark: SparkSession) -> None:
    said: list[tuple[float, str]] = []
    began = time.monotonic()
    progress = Progress(lambda line: said.append((time.monotonic() - began, line)), every=0.3)
    with progress.step(spark, "waiting"):
        time.sleep(1.6)
    times = [when for when, _ in said]
    assert max(b - a for a, b in zip(times, times[1:], strict=False)) < 0.9
    assert any("Spark is planning" in line for _, line in said)
    assert re.fullmatch(r"waiting: done in 0:0[12]", said[-1][1])


def test_chunks_tell_what_is_done_and_left(spark: SparkSession) -> None:
    said: list[str] = []
    assert list(Progress(said.append).chunks(spark, "deciding", [30, 10])) == [0, 1]
    assert [line for line in said if "of 40" in line][0].startswith("deciding: 30 of 40 clicks, ")
    assert said[-1].endswith("0:00 left")
