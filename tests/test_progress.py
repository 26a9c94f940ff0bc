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
    assert [line for line in said if line.startswith("deciding: ")][0].startswith("deciding: 30 of 40 clicks, ")
    assert said[-1].endswith("0:00 left")


def test_before_the_first_chunk_is_done_earlier_ones_tell_the_pace(spark: SparkSession) -> None:
    said: list[str] = []
    chunks = Progress(said.append, every=0.3).chunks(spark, "deciding", [30_000, 10_000], expected=100.0)
    next(chunks)
    time.sleep(1.4)
    next(chunks)
    assert said[0] == "deciding, chunk 1 of 2, 30,000 clicks; 0 of 40,000 clicks, 400 a second, 1:40 left"
    assert re.search(r"30,000 clicks: 0:0[01]; 0 of 40,000 clicks, 400 a second, 1:(40|3\d) left; Spark", said[1])
    assert any(re.search(r"chunk 2 of 2, 10,000 clicks; 30,000 of 40,000 clicks, [\d,]+ a second, 0:0\d left", line) for line in said)
    unknown = Progress(said.append).chunks(spark, "deciding", [30])
    next(unknown)
    assert said[-1] == "deciding, chunk 1 of 1, 30 clicks; 0 of 30 clicks"
