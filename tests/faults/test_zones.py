"""The zone of the host and of the Spark session shows nowhere, least of all on the days when clocks change."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tests.commands import World
from tests.faults.processes import CHEAPLY, ROOT
from tests.faults.shop import contents, settings
from tests.faults.summary import SURVIVED
from tests.foreign import row, write_csv

# (host, session): an hour is missing or double in each host's zone on one of the days below.
ZONES = (
    ("UTC", "UTC"),
    ("America/New_York", "Asia/Kolkata"),
    ("Europe/Berlin", "America/New_York"),
    ("Australia/Lord_Howe", "Pacific/Apia"),
)
DAYS = ("2026-03-08", "2026-03-29", "2026-04-05")  # clocks change in New York, in Berlin, on Lord Howe
HOURS = ("00:30", "01:59", "02:00", "02:30", "03:00", "06:59", "07:00", "15:30", "23:30")


def made_clicks(path: Path) -> str:
    times = [(f"{day}T{hour}:00.000001Z", place) for day in DAYS for hour in HOURS for place in ("US", "DE")]
    rows = [row(click_id=f"z{n}", click_time=time, marketplace=place, session_id="", user_id="") for n, (time, place) in enumerate(times)]
    naive = [row(click_id=f"naive{n}", click_time=f"{day} 02:30:00") for n, day in enumerate(DAYS)]  # no offset: UTC
    return write_csv(path, [*rows, *naive])


def run_in(host: str, session: str, world: World, file: str) -> None:
    """Ingest, features, labels and decisions by a process on a host of that zone."""
    options = [*world.options, *CHEAPLY, "--set", f"spark.settings.spark.sql.session.timeZone={session}", "--set", "spark.driver_memory=1g"]
    window = ("--from", DAYS[0], "--to", "2026-04-06")
    chain = [("ingest", "--source", "canonical", file), ("features", *window, "--allow-gaps"), ("labels", *window), ("score", *window)]
    words = json.dumps([[*command, *options, "--json", "-q"] for command in chain])
    command = [sys.executable, "-m", "tests.faults.chain"]
    done = subprocess.run(command, input=words, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "TZ": host}, check=False)
    ended = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [code for code, _, _ in ended] == [0] * len(chain), (ended, done.stderr)


@pytest.mark.fault(
    "hosts and sessions in other time zones, on days when clocks change", "the same features, labels and decisions", ends=SURVIVED
)
@pytest.mark.slow
def test_no_zone_shows(shop_template: Path, spark: SparkSession, tmp_path: Path) -> None:
    file, found = made_clicks(tmp_path / "clicks.csv"), {}
    for number, (host, session) in enumerate(ZONES):
        root = tmp_path / str(number)
        shutil.copytree(shop_template / "lake", root / "lake")
        shutil.copy(shop_template / "registry.db", root / "registry.db")
        world = World(root, spark, settings(shop_template))
        run_in(host, session, world, file)
        found[host, session] = contents(world.lake)
    first = found[ZONES[0]]
    assert sum("z1'" in text for text in first["decisions"]) == 1
    for zones, tables in found.items():
        assert tables == first, zones
