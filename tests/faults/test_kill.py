"""`kill -9` of the driver in every job, after each of its commits and at random, then the same command again: as if nothing had been."""

import random
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests import worlds
from tests.commands import World
from tests.faults.processes import copy_of, kill, process
from tests.faults.shop import EXIT, contents, late_clicks, settings, steps, words_of
from tests.faults.summary import SURVIVED
from tests.faults.test_days import own, traffic  # noqa: F401  (fixtures)

JOBS = ("ingest", "features", "labels", "score", "monitor", "replay plan", "daily")  # replay apply: tests/test_replay_processes.py
RANDOM_KILLS = 3


class Story:
    """The shop before and after each job, undisturbed; told as far as somebody asks."""

    def __init__(self, shop: World, file: str) -> None:
        self.shop, self.file = shop, file
        self.left = list(steps(file))
        self._before: dict[str, World] = {}
        self._after: dict[str, dict[str, list[str]]] = {}

    def before(self, step: str) -> World:
        while step not in self._after:
            self._next(self.left.pop(0))
        return self._before[step]

    def after(self, step: str) -> dict[str, list[str]]:
        self.before(step)
        return self._after[step]

    def words(self, step: str) -> tuple[str, ...]:
        return words_of(self.before(step), step, self.file)

    def _next(self, step: str) -> None:
        self._before[step] = copy_of(self.shop, self.shop.root / "before" / step.replace(" ", "-"))
        self.shop.ok(*words_of(self.shop, step, self.file), code=EXIT.get(step, 0))
        self._after[step] = contents(self.shop.lake)


@pytest.fixture(scope="module")
def story(shop_template: Path, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("story")
    worlds.copy_of(str(shop_template / "lake"), spark, str(root / "lake"))
    (root / "registry.db").write_bytes((shop_template / "registry.db").read_bytes())
    return Story(World(root, spark, settings(shop_template)), late_clicks(root / "clicks.csv"))


def completed(story: Story, step: str, world: World) -> None:
    """The same command again gives the tables of an undisturbed run."""
    world.ok(*story.words(step), code=EXIT.get(step, 0))
    assert contents(world.lake) == story.after(step)


@pytest.mark.fault("the driver killed right after each commit of each job", "run again: tables equal to an undisturbed run", ends=SURVIVED)
@pytest.mark.slow
@pytest.mark.parametrize("step", JOBS)
def test_killed_after_every_commit(step: str, story: Story, tmp_path: Path) -> None:
    commits = 0
    while True:
        world = copy_of(story.before(step), tmp_path / str(commits))
        with process(world, commits + 1, *story.words(step)) as child:
            said, complaint = child.communicate(timeout=200)
        if "commits" in said:
            assert child.returncode == EXIT.get(step, 0), said + complaint
            break
        commits += 1
        completed(story, step, world)
    print(f"{step}: killed after each of {commits} commits")
    assert commits >= 2  # what it makes, and its row in `runs`


@pytest.mark.fault("the driver killed at random moments of each job, alone or with its JVM", "the same", ends=SURVIVED)
@pytest.mark.slow
@pytest.mark.parametrize("step", JOBS)
def test_killed_at_random_moments(step: str, story: Story, tmp_path: Path) -> None:
    rng = random.Random(step)
    whole = 15.0  # seconds; longer than each of them takes here
    for number in range(RANDOM_KILLS):
        world = copy_of(story.before(step), tmp_path / str(number))
        with process(world, 0, *story.words(step)) as child:
            time.sleep(rng.uniform(3, whole))
            if rng.random() < 0.5:
                child.kill()  # its JVM goes on for a moment: a commit may land that nobody waits for
                child.wait()
                time.sleep(2)
            kill(child)
        completed(story, step, world)


@pytest.mark.fault("training killed after each of its commits, and at random", "run again: one version, of the same bytes", ends=SURVIVED)
@pytest.mark.slow
def test_training_killed(own: World, tmp_path: Path) -> None:  # noqa: F811
    words = ("train", "--as-of", "2025-03-12", "--override", "few clicks")
    smooth = copy_of(own, tmp_path / "smooth")
    whole = smooth.ok(*words)
    rng = random.Random(5)
    for number, (after, moment) in enumerate([(1, 0.0), (2, 0.0), (0, rng.uniform(8, 20)), (0, rng.uniform(20, 40))]):
        world = copy_of(own, tmp_path / str(number))
        with process(world, after, *words) as child:
            if after:
                child.wait(timeout=200)
            time.sleep(moment)
        again = world.ok(*words)
        assert again["version"] == "1"
        assert [version["version"] for version in world.ok("models", "list")["versions"]] == ["1"]
        assert world.ok("models", "show", "1")["thresholds"] == smooth.ok("models", "show", "1")["thresholds"] == whole["thresholds"]
