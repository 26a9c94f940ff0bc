"""Several responders at once, and responders that die: processes of their own, killed for good."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from slidr.config import Config
from slidr.lake import Lake
from slidr.replay import apply, audit
from slidr.replay.plan import make_plan
from slidr.tables import CORRECTIONS, REPLAYS
from tests import worlds
from tests.worlds import ANN, NOW, SECOND, copy_of, request, rows_of, version, versions_of

CODES = (5, 6)  # conflict, locked


@contextmanager
def replayer(root: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that waits for plans to publish; at the end it is killed with its JVM."""
    command = [sys.executable, "-m", "tests.replayer", root, *options]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def ask(process: subprocess.Popen[str], plan_id: str, number: str) -> None:
    assert process.stdin
    process.stdin.write(f"{plan_id} {number}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


@pytest.fixture
def world(spark: SparkSession, conf: Config, tmp_path: Path) -> Lake:
    lake = Lake(spark, str(tmp_path / "lake"))
    worlds.fill(lake, worlds.loose(conf))
    return lake


def planned(lake: Lake, conf: Config, number: str, **given: Any) -> str:
    made = make_plan(lake, request=request(**given), version=version(number), conf=worlds.loose(conf), now=NOW, who=ANN)
    return made.plan_id


def test_two_at_once(world: Lake, conf: Config) -> None:
    """Of other windows both publish, without a gap in their numbers; of one window one publishes and the other is told."""
    first, second = (planned(world, conf, "2", allow_charges=True, **half) for half in ({"end": SECOND}, {"start": SECOND}))
    with replayer(world.root) as one, replayer(world.root) as other:
        ask(one, first, "2")
        ask(other, second, "2")
        found = [answer(process) for process in (one, other)]
        assert [row["exit"] for row in found] == [0, 0], found
        assert sorted(row["publication_no"] for row in found) == [1, 2]
        assert sorted({row["publication_no"] for row in world.read(CORRECTIONS).collect()}) == [1, 2]
        overlapping = planned(world, conf, "3", allow_charges=True), planned(world, conf, "1", allow_charges=True)
        ask(one, overlapping[0], "3")
        ask(other, overlapping[1], "1")
        found = [answer(process) for process in (one, other)]
        assert sorted(row["exit"] for row in found) in [[0, code] for code in CODES], found
        refused = next(row for row in found if row["exit"])
        assert any(word in refused["message"] for word in ("stale", "nobody else at work", "no other replay")), refused
        log = audit.read(world)
        assert [log.counted(plan_id)["applied"] for plan_id in overlapping].count(1) == 1
        assert len({row["replay_id"] for row in world.read(CORRECTIONS).collect()}) == 3


def undisturbed(world: Lake, plan_id: str, tmp_path: Path) -> Lake:
    smooth = copy_of(world.root, world.spark, str(tmp_path / "smooth"))
    apply.apply_plan(smooth, plan_id=plan_id, version=version("2"), now=NOW, who=ANN)
    return smooth


def require_equal(world: Lake, smooth: Lake, plan_id: str) -> None:
    apply.apply_plan(world, plan_id=plan_id, version=version("2"), now=NOW, who=ANN)
    for table in worlds.PUBLISHED:
        assert without_run(rows_of(world, table)) == without_run(rows_of(smooth, table)), table.name
    assert versions_of(world, *worlds.PUBLISHED) == versions_of(smooth, *worlds.PUBLISHED)  # nothing was written twice
    names = [event.name for event in audit.read(world).of(plan_id)]
    assert (names.count("publish"), names.count("applied")) == (1, 1)
    assert world.read(REPLAYS).where("event = 'applied'").count() == 1


def without_run(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple("run" if value in ("run-a", "run-p") else value for value in row) for row in rows]


@pytest.mark.slow
def test_killed_at_every_commit(world: Lake, conf: Config, tmp_path: Path) -> None:
    """Right after each commit of any table, whoever comes next completes it."""
    plan_id = planned(world, conf, "2", allow_charges=True)
    smooth, commits = undisturbed(world, plan_id, tmp_path), 0
    while True:
        lake = copy_of(world.root, world.spark, str(tmp_path / f"lake-{commits}"))
        with replayer(lake.root, "--die-after", str(commits + 1)) as process:
            ask(process, plan_id, "2")
            assert process.stdout
            survived = process.stdout.readline()
        require_equal(lake, smooth, plan_id)
        if survived:
            break
        commits += 1
    assert commits == 6  # apply, decisions, publish, corrections, state, applied
    print(f"killed after each of {commits} commits")


@pytest.mark.slow
def test_killed_at_random_moments(world: Lake, conf: Config, tmp_path: Path) -> None:
    """Fifty times, alone or with its JVM; then the next process, killed as well or not, until one completes it."""
    rng = random.Random(7)
    plan_id = planned(world, conf, "2", allow_charges=True)
    smooth, killed, whole = undisturbed(world, plan_id, tmp_path), 0, 10.0
    while killed < 50:
        lake = copy_of(world.root, world.spark, str(tmp_path / f"lake-{killed}"))
        for _ in range(rng.choice([1, 2, 3])):
            with replayer(lake.root) as process:
                ask(process, plan_id, "2")
                moment, alone = rng.uniform(0, whole), rng.random() < 0.5
                time.sleep(moment)
                if alone:
                    process.kill()
                    process.wait()
                    time.sleep(rng.uniform(0, 2))  # its JVM goes on for a moment: a commit may land that nobody waits for
            killed += 1
        require_equal(lake, smooth, plan_id)
    print(f"killed {killed} times")
