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
from slidr.jobs import replay
from typer.testing import CliRunner

from slidr import config
from slidr.cli import app
from slidr.config import Config
from slidr.lake import Lake
from slidr.replay import apply, audit
from slidr.replay.plan import make_plan
from slidr.replay.revert import make_revert
from slidr.tables import CORRECTIONS
from tests import worlds
from tests.test_replay_job import Versions, with_replay
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_is_resumed_by_the_command(
    world: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    """Within a chunk. Asked to stop it gives up its lease and leaves its record; killed, it is seen to be gone."""
    work = tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-m", "tests.replay_command", world.root, str(work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            while not (work / "waits").exists():
                assert process.poll() is None
                time.sleep(0.1)
            process.send_signal(sent)
            process.wait(60)
        finally:
            kill(process)
    log = audit.read(world)
    plan_id = log.events[0].replay_id
    assert [event.name for event in log.events] == ["plan", "apply", *(["interrupt"] if sent == signal.SIGTERM else [])]
    results = [json.loads(path.read_text()) for path in work.glob("runs/*/run_result.json")]
    assert [(row["exit_code"], row["outcome"]) for row in results] == ([(143, "interrupted")] if sent == signal.SIGTERM else [])
    monkeypatch.setattr(replay, "_registry", lambda job: Versions())
    options = [word for setting in (f"lake.root={world.root}", f"work.root={work}") for word in ("--set", setting)]
    options = ["--conf", str(config.shipped("local.yaml")), *options, "--json", "-q"]
    resumed = CliRunner().invoke(app, ["replay", "resume", plan_id, *options])
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout.strip().splitlines()[-1])["publication_no"] == 1
    assert json.loads(CliRunner().invoke(app, ["replay", "status", plan_id, *options]).stdout)["state"] == "applied"
    assert [row[0] for row in world.read(CORRECTIONS).select("publication_no").distinct().collect()] == [1]


def undisturbed(world: Lake, plan_id: str, tmp_path: Path, number: str = "2") -> Lake:
    smooth = copy_of(world.root, world.spark, str(tmp_path / "smooth"))
    apply.apply_plan(smooth, plan_id=plan_id, version=None if number == "-" else version(number), now=NOW, who=ANN)
    return smooth


def require_equal(world: Lake, smooth: Lake, plan_id: str, number: str = "2") -> None:
    apply.apply_plan(world, plan_id=plan_id, version=None if number == "-" else version(number), now=NOW, who=ANN)
    for table in worlds.PUBLISHED:
        assert without_run(rows_of(world, table)) == without_run(rows_of(smooth, table)), table.name
    assert versions_of(world, *worlds.PUBLISHED) == versions_of(smooth, *worlds.PUBLISHED)  # nothing was written twice
    names = [event.name for event in audit.read(world).of(plan_id)]
    assert (names.count("publish"), names.count("applied")) == (1, 1)


def without_run(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [tuple("run" if value in ("run-a", "run-p") else value for value in row) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replay", "in chunks", "revert"])
def test_killed_at_every_commit(world: Lake, conf: Config, tmp_path: Path, kind: str) -> None:
    """Right after each commit of any table, whoever comes next completes it."""
    conf = with_replay(conf, chunk_clicks=14) if kind == "in chunks" else conf
    plan_id, number = planned(world, conf, "2", allow_charges=True), "2"
    if kind == "revert":
        apply.apply_plan(world, plan_id=plan_id, version=version("2"), now=NOW, who=ANN)
        plan_id, number = make_revert(world, replay_id=plan_id, conf=worlds.loose(conf), now=NOW, who=ANN).plan_id, "-"
    smooth, commits = undisturbed(world, plan_id, tmp_path, number), 0
    while True:
        lake = copy_of(world.root, world.spark, str(tmp_path / f"lake-{commits}"))
        with replayer(lake.root, "--die-after", str(commits + 1)) as process:
            ask(process, plan_id, number)
            assert process.stdout
            survived = process.stdout.readline()
        require_equal(lake, smooth, plan_id, number)
        if survived:
            break
        commits += 1
    # apply, decisions, publish, second look, corrections, state, applied; chunks are four, with three renewals between them
    assert commits == {"replay": 7, "in chunks": 13, "revert": 6}[kind]
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
