"""Two of every job at once, four `init` at once: processes of their own, as two schedulers would start them."""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from slidr import direct, tables
from slidr.lake import Lake
from slidr.threads import together
from tests.commands import World
from tests.faults.processes import copy_of, process
from tests.faults.shop import EXIT, contents, one_line, settings, steps
from tests.faults.summary import REFUSED, SURVIVED
from tests.faults.test_kill import Story, completed, story  # noqa: F401  (a fixture)

BEATEN = (5, 6)  # conflict, locked


def at_once(world: World, many: int, *words: str) -> list[tuple[int, str, str]]:
    """(exit code, message, stderr) of equal commands that were started together."""
    with ExitStack() as stack:
        children = [stack.enter_context(process(world, 0, *words)) for _ in range(many)]
        ended = [child.communicate(timeout=220) for child in children]
    found = []
    for child, (said, complaint) in zip(children, ended, strict=True):
        answer = [line for line in said.splitlines() if line.startswith("{")]
        found.append((child.returncode, str(json.loads(answer[-1])["message"]) if answer else "", complaint))
    return found


@pytest.mark.fault(
    "two of each job at once",
    "one does it; the other finds it done or is told (exit 5 or 6), then run again: tables as of one run",
    ends=REFUSED,
)
@pytest.mark.slow
@pytest.mark.parametrize("step", list(steps("")))
def test_two_of_every_job(step: str, story: Story, tmp_path: Path) -> None:  # noqa: F811
    world = copy_of(story.before(step), tmp_path)
    found = at_once(world, 2, *story.words(step))
    good = EXIT.get(step, 0)
    assert good in [code for code, _, _ in found], [(code, message) for code, message, _ in found]
    for code, message, complaint in found:
        assert code in (good, *BEATEN), [(code, message) for code, message, _ in found]
        if code != good:
            one_line(message)
            assert "run" in message or "watch it with `slidr" in message, message
            assert "Traceback" not in complaint
    print(f"{step}: {[code for code, _, _ in found]}")
    completed(story, step, world)


@pytest.mark.fault("Spark and delta-rs make one table at the same moment", "it is made once, and both go on", ends=SURVIVED)
@pytest.mark.slow
def test_a_table_made_with_and_without_spark(spark: SparkSession, tmp_path: Path) -> None:
    for number, delay in enumerate((0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)):  # seconds that Spark is ahead
        lake = Lake(spark, str(tmp_path / str(number)))

        def without_spark(lake: Lake = lake, delay: float = delay) -> None:
            time.sleep(delay)
            direct.create(lake, tables.MODEL_PROMOTIONS)

        together(without_spark, lambda lake=lake: lake.create(tables.MODEL_PROMOTIONS))
        assert lake.version(tables.MODEL_PROMOTIONS) == 0


@pytest.mark.fault("four `init` at once", "each ends well, and there is one lake and one registry", ends=SURVIVED)
@pytest.mark.slow
def test_four_inits(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, settings(tmp_path))
    found = at_once(world, 4, "init")
    assert [code for code, _, _ in found] == [0] * 4, [(code, message) for code, message, _ in found]
    assert {world.lake.version(table) for table in tables.ALL if table is not tables.RUNS} == {0}
    assert world.rows(tables.RUNS) == 4
    assert contents(world.lake)
    world.ok("init")
    assert world.ok("models", "list")["versions"] == []
