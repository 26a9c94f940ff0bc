"""Executors killed while they work, and after they have finished tasks: the same rows."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from slidr import config, data_files, tables
from slidr.features import counters
from slidr.lake import Lake
from tests.faults.summary import SURVIVED
from tests.frames import day
from tests.test_cluster import DAY, HOME, _no_work_folder, fill, submit, write_conf  # noqa: F401  (a fixture)

KILLS = 3
EVERY = 4.0  # seconds


def executors(folder: Path) -> list[int]:
    """Processes of executors that work below the folder."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            here = os.readlink(place / "cwd").startswith(str(folder))
            if here and b"CoarseGrainedExecutorBackend" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def kill_some(folder: Path, killed: list[int], over: threading.Event) -> None:
    """Kills an executor every few seconds; Spark starts another in its place."""
    while len(killed) < KILLS and not over.is_set():
        running = [pid for pid in executors(folder) if pid not in killed]
        if running:
            time.sleep(EVERY)
            os.kill(running[0], signal.SIGKILL)
            killed.append(running[0])
        time.sleep(0.2)


@pytest.mark.fault("executors killed in the middle of a job", "the job ends well; the same rows as in one process", ends=SURVIVED)
@pytest.mark.slow
@pytest.mark.usefixtures("_no_work_folder")
def test_executors_killed(spark: SparkSession, tmp_path: Path) -> None:
    conf = config.load(write_conf(tmp_path))
    lake = Lake(spark, conf.lake.root)
    fill(lake, spark)
    killed: list[int] = []
    over = threading.Event()
    killer = threading.Thread(target=kill_some, args=(HOME / "work", killed, over))
    killer.start()
    try:
        done = submit(conf, tmp_path, "features", "--from", DAY, "--to", "2025-03-21", "--conf", str(tmp_path / "cluster.yaml"))
    finally:
        over.set()
        killer.join()
    assert len(killed) >= 2, killed
    assert done["written"] == lake.read(tables.CLICKS).count()
    clicks = data_files.of(lake, tables.CLICKS)
    expected = counters.build(spark, clicks, spec=conf.spec, start=day(DAY), end=day("2025-03-21"), known="then", zones=conf.marketplaces)
    found = lake.read(tables.features_table(conf.spec))
    assert_df_equality(found, expected, ignore_row_order=True, ignore_nullable=True, ignore_metadata=True)
