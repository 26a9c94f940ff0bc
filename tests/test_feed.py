"""The feed of corrections grows for years: who publishes reads its newest days, and numbers and dates still have one order."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import functions as F

from slidr.config import Config
from slidr.errors import ConflictError
from slidr.lake import Lake
from slidr.replay import apply, feed, outcomes, rows
from slidr.replay.plan import make_plan
from slidr.tables import CORRECTIONS
from tests.worlds import ANN, NOW, SECOND, request, version


def publish(lake: Lake, conf: Config, now: datetime, **window: Any) -> apply.Applied:
    made = make_plan(lake, request=request(**window), version=version("2"), conf=conf, now=NOW, who=ANN)
    return apply.apply_plan(lake, plan_id=made.plan_id, version=version("2"), now=now, who=ANN)


def test_who_publishes_reads_the_newest_day_of_the_feed_alone(world: Lake, loose: Config) -> None:
    """The files of older days are gone: nobody misses them, not even who publishes by a clock that is behind."""
    first = publish(world, loose, NOW, end=SECOND.replace(hour=10, minute=20), allow_charges=True)
    again = publish(world, loose, NOW + timedelta(days=3), start=SECOND.replace(hour=10, minute=20), end=SECOND.replace(hour=10, minute=50))
    assert (first.publication_no, again.publication_no) == (1, 2)
    shutil.rmtree(next(Path(world.path(CORRECTIONS)).glob(f"correction_date={NOW:%Y-%m-%d}")))
    behind = publish(world, loose, NOW, start=SECOND.replace(hour=10, minute=50))
    assert behind.publication_no == 3
    there = feed.newest(world).groupBy("publication_no").agg(F.max("published_time"), F.max("correction_date")).orderBy("publication_no")
    days = [(row[0], row[1].replace(tzinfo=NOW.tzinfo), row[2]) for row in there.collect()]
    assert days == [(number, NOW + timedelta(days=3), (NOW + timedelta(days=3)).date()) for number in (2, 3)]


def test_of_two_that_publish_at_the_turn_of_the_day_one_conflicts(world: Lake, loose: Config, tmp_path: Path) -> None:
    """The later day commits first, while the other has read the feed and not committed: both would take the same number."""
    publish(world, loose, NOW, end=SECOND, allow_charges=True)
    plans = [
        make_plan(world, request=request(**window), version=version("2"), conf=loose, now=NOW, who=ANN)
        for window in ({"start": SECOND, "end": SECOND.replace(hour=10, minute=40)}, {"start": SECOND.replace(hour=10, minute=40)})
    ]
    begun, go = str(tmp_path / "begun"), str(tmp_path / "go")

    def waiting(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        Path(begun).touch()
        while not Path(go).exists():
            time.sleep(0.1)
        yield from batches

    slow = rows.planned(world, plans[0]).mapInPandas(waiting, outcomes.SCHEMA)
    numbered = [
        outcomes.corrections(planned, feed.newest(world), plan=plan, now=now)
        for plan, planned, now in ((plans[0], slow, NOW), (plans[1], rows.planned(world, plans[1]), NOW + timedelta(days=1)))
    ]
    with ThreadPoolExecutor() as pool:
        earlier = pool.submit(world.append, numbered[0], CORRECTIONS)
        while not Path(begun).exists():
            assert not earlier.done(), earlier.result()
            time.sleep(0.1)
        world.append(numbered[1], CORRECTIONS)
        Path(go).touch()
        with pytest.raises(ConflictError, match="another writer changed the table corrections"):
            earlier.result()
    assert {row[0] for row in world.read(CORRECTIONS).select("publication_no").collect()} == {1, 2}
