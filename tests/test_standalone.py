"""A standalone cluster as people run it: the package shipped by --py-files to executors that lack it, which are killed on the way."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from slidr import config
from slidr.lake import Lake
from slidr.tables import CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAY_DECISIONS, SLICE_METRICS, Table, features_table
from tests.commands import World
from tests.hosts import ROOT, environment, killing, python_without_slidr, spark_submit, two_hosts
from tests.s3_chain import END, FIRST, LOOSE, SECOND, register, rows, traffic

pytestmark = pytest.mark.slow
SETTINGS = {**{key: str(value) for key, value in LOOSE.items()}, "spark.shuffle_partitions": "6"}
# Few rows would be one task.
TASKS = {"sql_adaptive_coalescePartitions_enabled": "false", "driver_host": "127.0.0.1"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As docs/cluster.md says: Spark ships a wheel to executors only under another name."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    wheel = next(folder.glob("slidr-*.whl"))
    return str(wheel.rename(folder / "slidr.zip"))


class Cluster:
    """A lake whose jobs run on the cluster at `url`: a copy of what is in a world."""

    def __init__(self, world: World, tmp_path: Path, url: str, package: str) -> None:
        shutil.copytree(world.root / "lake", tmp_path / "shared" / "lake")
        self.tmp_path, self.url, self.package = tmp_path, url, package
        self.options = [*world.options, "--set", f"lake.root={tmp_path}/shared/lake"]
        self.conf = config.load(config.shipped("local.yaml"))
        self.lake = Lake(world.spark, f"{tmp_path}/shared/lake")
        python = python_without_slidr(tmp_path / "python")
        self.env = {**environment(tmp_path), "PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": sys.executable}

    def run(self, job: str, *words: str) -> dict[str, Any]:
        first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
        given = [*words[:first], *self.options, *words[first:], "--json"]
        script = ROOT / "jobs" / f"{job}.py"
        printed = spark_submit(self.url, self.conf, self.tmp_path, script, *given, env=self.env, package=self.package, **TASKS)
        found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
        return found


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path) -> World:
    """Clicks of two days and two stable versions."""
    (tmp_path / "world").mkdir()
    found = World(tmp_path / "world", spark, SETTINGS)
    clicks, _ = traffic(tmp_path)
    found.ok("init")
    found.ok("ingest", clicks, "--source", "canonical")
    settings = tuple(word for word in found.options if "=" in word)
    register(config.load(config.shipped("local.yaml"), settings), found.lake, tmp_path)
    return found


def equal(cluster: Cluster, world: World, *tables: Table) -> None:
    for table in tables:
        found = rows(cluster.lake, table)
        assert found == rows(world.lake, table), table.name
        assert found, table.name


def test_features_and_scores_survive_killed_executors(world: World, tmp_path: Path, package: str) -> None:
    with two_hosts(tmp_path) as url:
        cluster = Cluster(world, tmp_path, url, package)
        for command, after in (("features", (3, 6)), ("score", (2, 3))):
            words = (command, "--from", FIRST, "--to", END)
            world.ok(*words)
            with killing(tmp_path, *after) as killed:
                cluster.run(*words)
            assert len(killed) == 2, command
    spec = config.load(config.shipped("local.yaml")).spec
    equal(cluster, world, features_table(spec), DECISIONS, CURRENT_DECISIONS)


def test_a_replay_and_a_day_on_a_cluster_equal_those_of_one_process(world: World, tmp_path: Path, package: str) -> None:
    world.ok("features", "--from", FIRST, "--to", SECOND)
    world.ok("score", "--from", FIRST, "--to", SECOND)
    plan = world.ok("replay", "plan", "--from", FIRST, "--to", SECOND, "--model", "2", "--allow-charges")["plan_id"]
    with two_hosts(tmp_path) as url:
        cluster = Cluster(world, tmp_path, url, package)
        here = world.ok("replay", "apply", plan)
        with killing(tmp_path, 3, 6) as killed:
            there = cluster.run("replay", "apply", plan)
        assert len(killed) == 2
        assert (there["corrections"], there["money"]) == (here["corrections"], here["money"])
        assert here["corrections"] > 0
        world.ok("daily", "--date", SECOND)
        cluster.run("daily", "--date", SECOND)
    equal(cluster, world, REPLAY_DECISIONS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, SLICE_METRICS)
