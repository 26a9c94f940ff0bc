"""Days that are empty, of one class or of one slice, through every job."""

import math
import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from slidr.tables import CLICKS, CURRENT_DECISIONS, LABELS, PURCHASES, SLICE_METRICS
from tests.commands import World
from tests.faults.shop import WINDOW, refused
from tests.faults.summary import REFUSED, SURVIVED
from tests.test_backtest_walk import TINY

EMPTY = ("--from", "2026-03-05", "--to", "2026-03-06")
DAYS = ("--from", "2025-03-01", "--to", "2025-03-09")


@pytest.mark.fault("a day without a click", "each job ends with exit 9 and says that it found none; nothing is written", ends=REFUSED)
@pytest.mark.slow
def test_an_empty_day(shop: World) -> None:
    shop.ok("score", *WINDOW)
    before = {table.name: shop.lake.version(table) for table in (CURRENT_DECISIONS, LABELS, SLICE_METRICS)}
    for command in ("features", "labels", "score", "monitor"):
        refused(shop, command, *EMPTY, code=9, said="found none")
    refused(shop, "replay", "plan", *EMPTY, code=9, said="found none")
    assert {table.name: shop.lake.version(table) for table in (CURRENT_DECISIONS, LABELS, SLICE_METRICS)} == before
    refused(shop, "daily", "--date", "2026-03-05", code=9, said="found none")
    refused(shop, "report", *EMPTY, code=9, said="found none")


@pytest.fixture(scope="module")
def traffic(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Nine days of made clicks with features."""
    world = World(tmp_path_factory.mktemp("traffic"), spark, TINY)
    files = str(world.root / "traffic")
    world.ok("simulate", files, "--clicks", "16000", "--days", "9", "--start", "2025-03-01", "--seed", "5")
    world.ok("ingest", "--source", "canonical_purchases", f"{files}/purchases")
    world.ok("ingest", "--source", "canonical", f"{files}/clicks")
    world.ok("features", *DAYS)
    world.ok("labels", *DAYS)
    return world


@pytest.fixture
def own(traffic: World, tmp_path: Path) -> World:
    shutil.copytree(traffic.root / "lake", tmp_path / "lake")
    return World(tmp_path, traffic.spark, TINY)


@pytest.mark.fault(
    "days on which nobody bought, or everybody is human", "training ends with exit 4, no version; the reason first", ends=REFUSED
)
@pytest.mark.slow
@pytest.mark.parametrize("which", ["nobody", "everybody"])
def test_one_class(which: str, own: World) -> None:
    if which == "nobody":
        own.lake.delta(PURCHASES).delete()
        own.ok("labels", *DAYS)
    else:
        own.lake.delta(LABELS).update(set={"is_human": F.lit(True)})
    found = own.ok("train", "--as-of", "2025-03-12", code=4)
    assert found["message"].startswith("stopped by")
    assert "Traceback" not in found["message"]
    assert own.ok("models", "list")["versions"] == []


@pytest.mark.fault("all clicks in one slice", "training, decisions, metrics and report of it; no number that is none", ends=SURVIVED)
@pytest.mark.slow
def test_one_slice(own: World) -> None:
    own.lake.delta(CLICKS).delete("device <> 'desktop'")
    own.ok("init")
    made = own.ok("train", "--as-of", "2025-03-12", "--override", "few clicks", "--set", "calibration.slices=[{column: device}]")
    assert set(made["thresholds"]) == {"desktop"}
    numbers = [value for value in made["bundle_metrics"].values() if isinstance(value, float)]
    assert numbers
    assert all(map(math.isfinite, numbers))
    own.ok("models", "promote", made["version"], "--reason", "test")
    window = ("--from", "2025-03-08", "--to", "2025-03-09")
    assert own.ok("score", *window)["new_decisions"] > 0
    own.ok("monitor", *window)
    own.ok("report", *window)
