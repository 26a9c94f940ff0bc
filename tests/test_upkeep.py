"""Upkeep of tables: fewer files and the same rows, beside writers, readers and plans; nothing goes that somebody may still ask for."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from slidr.jobs.upkeep import replayed_now

from slidr import direct, rewriting, run, upkeep
from slidr.config import Config
from slidr.errors import ConflictError
from slidr.lake import Lake
from slidr.replay import apply
from slidr.replay.plan import make_plan
from slidr.tables import CLICKS, CORRECTIONS, CURRENT_DECISIONS, DECISIONS, REPLAYS, RUNS, features_table
from tests import test_lease as lease
from tests import worlds
from tests.bench import upkeep as bench
from tests.commands import World
from tests.frames import at, click, clicks, frame
from tests.worlds import ANN, NOW, request, rows_of, version, versions_of

DAY = at("2026-03-01")
DAYS = [date(2026, 3, number) for number in (1, 2, 3, 4)]
COMMITS = 3


def filled(lake: Lake) -> None:
    """Small files of four days: each commit writes one a day."""
    for commit in range(COMMITS):
        rows = [click(f"{commit}-{day}", DAY + timedelta(days=day, minutes=commit)) for day in range(4)]
        direct.add(lake, CLICKS, rows)


def tended(lake: Lake, before: date = DAYS[2], leave: tuple[date, ...] = (DAYS[1],)) -> upkeep.Tended:
    return upkeep.tend(lake, CLICKS, before=before, leave=leave, days=100)


def files_by_day(lake: Lake) -> list[int]:
    files = [file["partition.click_date"] for file in direct.stored(lake, CLICKS).live]
    return [files.count(day) for day in DAYS]


def test_small_files_of_settled_days_are_brought_together_once(lake: Lake) -> None:
    filled(lake)
    session = {name: lake.spark.conf.get(name, None) for name in upkeep.SETTINGS}
    before, version = rows_of(lake, CLICKS), lake.version(CLICKS)
    done = tended(lake)
    assert (done.before.live, done.after.live, done.removed, done.left) == (4 * COMMITS, 3 * COMMITS + 1, 0, False)
    assert files_by_day(lake) == [1, COMMITS, COMMITS, COMMITS]
    assert rows_of(lake, CLICKS) == before
    assert lake.version(CLICKS) == version + 1
    assert {name: lake.spark.conf.get(name, None) for name in upkeep.SETTINGS} == session != upkeep.SETTINGS
    again = tended(lake)
    assert (again.before, again.left, lake.version(CLICKS)) == (again.after, False, version + 1)
    assert lake.read_version(CLICKS, version).count() == len(before)  # what was superseded stays
    assert direct.facts(lake, CLICKS).rows == len(before)  # the new files have their statistics


def test_a_faster_writer_leaves_the_table_as_it_is(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(lake)

    def faster(self: Lake, table: object) -> None:
        raise ConflictError("another writer was faster")

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "delta", faster)
        done = tended(lake)
    assert (done.left, done.before) == (True, done.after)


@pytest.mark.slow
def test_an_append_in_the_middle_is_neither_lost_nor_refused(lake: Lake) -> None:
    """Appends to the very day whose files are brought together, until one lands between the job's look and its commit."""
    filled(lake)
    stop = threading.Event()

    def append() -> int:
        done = 0
        while not stop.is_set():
            direct.add(lake, CLICKS, [click(f"late-{done}", DAY + timedelta(hours=1))])
            done += 1
        return done

    for _ in range(10):
        stop.clear()
        with ThreadPoolExecutor(max_workers=1) as pool:
            late = pool.submit(append)
            assert not tended(lake).left
            stop.set()
            assert late.result(60)
        commits = lake.delta(CLICKS).history().where("operation = 'OPTIMIZE'").collect()
        if any(commit["version"] > commit["readVersion"] + 1 for commit in commits):
            break
    else:
        raise AssertionError("no append came in between")
    names = [row[0] for row in rows_of(lake, CLICKS)]
    numbers = sorted(int(name.removeprefix("late-")) for name in names if name.startswith("late-"))
    assert len(names) == len(set(names)) + len(numbers) - len(set(numbers)) == 4 * COMMITS + len(numbers)


@pytest.mark.slow
def test_beside_merges_each_commit_holds_or_is_refused(lake: Lake) -> None:
    """Merges into the very day whose files are brought together, while readers count: a change that was told as done is there."""
    clicks_of_day = 6
    for number in range(clicks_of_day):
        direct.add(lake, CURRENT_DECISIONS, [bench.row(CURRENT_DECISIONS, DAYS[0], number)])

    def merge() -> list[int]:
        done = []
        for number in range(clicks_of_day):
            rows = frame(lake.spark, CURRENT_DECISIONS, [{**bench.row(CURRENT_DECISIONS, DAYS[0], number), "slice": "merged"}])
            try:
                rewriting.replace_rows(lake, rows, CURRENT_DECISIONS, [DAYS[0]], ["slice"], rows=1)
            except ConflictError:
                continue
            done.append(number)
        return done

    with ThreadPoolExecutor(max_workers=1) as pool:
        merging = pool.submit(merge)
        while not merging.done():
            upkeep.tend(lake, CURRENT_DECISIONS, before=DAYS[1], leave=[], days=100)
            assert lake.read(CURRENT_DECISIONS).select("click_id").distinct().count() == clicks_of_day
        done = merging.result()
    found = {row["click_id"]: row["slice"] for row in lake.read(CURRENT_DECISIONS).collect()}
    assert found == {f"{DAYS[0]}-{number}": "merged" if number in done else "x" for number in range(clicks_of_day)}
    assert lake.read(CURRENT_DECISIONS).count() == clicks_of_day
    assert done


def test_what_no_replay_can_need_goes_after_the_retention(lake: Lake, conf: Config) -> None:
    """A file that a killed writer left behind, and none that is younger."""
    assert upkeep.kept_days(conf) == 100
    longer = conf.model_copy(update={"replay": conf.replay.model_copy(update={"max_days_after_close": 120})})
    assert upkeep.kept_days(longer) == 31 + 7 + 120
    assert upkeep.settled_before(at("2026-03-10 00:00:01"), conf) == date(2026, 3, 7)
    filled(lake)
    old, young = (Path(lake.path(CLICKS), "click_date=2026-03-01", name) for name in ("left.parquet", "young.parquet"))
    for path, days in ((old, 101), (young, 99)):
        path.write_bytes(b"PAR1")
        os.utime(path, (time.time() - 86_400 * days,) * 2)
    assert tended(lake).removed == 1
    assert (old.exists(), young.exists()) == (False, True)


def test_days_of_open_replays_are_left_alone(tmp_path: Path, conf: Config) -> None:
    """From the first event of somebody who publishes to the last; a plan alone merges nothing."""
    places = {"lake": conf.lake.model_copy(update={"root": str(tmp_path)}), "work": conf.work.model_copy(update={"root": tmp_path})}
    job = run.begin(conf.model_copy(update=places), quiet=True)
    direct.create(job.place, REPLAYS)
    lease.note(job.place, lease.FIRST_DAY, "plan")
    lease.note(job.place, lease.SECOND_DAY, "plan")
    assert replayed_now(job) == []
    lease.working(job.place, lease.SECOND_DAY)
    assert replayed_now(job) == [worlds.SECOND.date()]
    lease.note(job.place, lease.SECOND_DAY, "applied", order=1)
    assert replayed_now(job) == []


@pytest.mark.slow
def test_a_plan_can_be_published_and_taken_back_after_upkeep(world: Lake, loose: Config) -> None:
    """Commits move under the plan, and what they superseded is gone, far beyond what the job would ever remove."""
    plan = make_plan(world, request=request(allow_charges=True), version=version("2"), conf=loose, now=NOW, who=ANN)
    tables = [CLICKS, DECISIONS, CURRENT_DECISIONS, features_table(worlds.SPEC)]
    for number, table in enumerate(tables):
        world.append(world.read(table).where("false"), table)
        if table is CURRENT_DECISIONS:  # a commit that rewrites a file
            one = world.read(table).where("click_id = 'c00'")
            rewriting.replace_rows(world, one, table, worlds.DAYS, ["slice"], rows=1)
        upkeep.tend(world, table, before=date(2027, 1, 1), leave=[], days=100)
        DeltaTable(world.path(table)).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
        assert world.version(table) > plan.pins["tables"].get(table.name, -1), number
    done = apply.apply_plan(world, plan_id=plan.plan_id, version=version("2"), now=NOW, who=ANN)
    assert done.publication_no == 1
    assert world.read(CORRECTIONS).where(F.col("replay_id") == plan.plan_id).count() > 0


@pytest.mark.slow
def test_the_command(spark: SparkSession, tmp_path: Path) -> None:
    world = World(tmp_path, spark, {})
    assert "run `slidr init`" in world.ok("tables", "optimize", code=3)["message"]
    world.ok("init")
    yesterday = date.today() - timedelta(days=40)
    for number in range(3):
        world.lake.append(clicks(world.spark, click(f"c{number}", at(str(yesterday)))), CLICKS)
    first = {row["table"]: row for row in world.ok("tables", "optimize")["tables"]}
    assert (first["clicks"]["files before"], first["clicks"]["files"]) == (3, 1)
    assert {name.split("/")[0] for name in first} >= {"clicks", "features", "runs", "replays"}
    before = versions_of(world.lake, CLICKS, DECISIONS)
    again = {row["table"]: row for row in world.ok("tables", "optimize")["tables"]}
    assert (again["clicks"]["files before"], versions_of(world.lake, CLICKS, DECISIONS)) == (1, before)
    assert world.rows(RUNS) == 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "_compacted", lambda *_: False)
        assert "another writer was faster in clicks" in world.ok("tables", "optimize", code=5)["message"]


@pytest.mark.slow
def test_tables_of_a_catalog_are_found_and_tended(spark: SparkSession, conf: Config, tmp_path: Path) -> None:
    spark.sql("CREATE SCHEMA tended LOCATION '" + str(tmp_path / "tended") + "'")  # noqa: S608
    lake = Lake(spark, str(tmp_path / "nowhere"), "tended")
    try:
        features = features_table(conf.spec)
        for table in (CURRENT_DECISIONS, features):
            lake.create(table)
        assert [table.name for table in upkeep.every_table(lake)] == [CURRENT_DECISIONS.name, features.name]
        for number in range(2):
            rows = [bench.row(CURRENT_DECISIONS, DAYS[0], number)]
            lake.append(frame(spark, CURRENT_DECISIONS, rows), CURRENT_DECISIONS)
        done = [upkeep.tend(lake, table, before=DAYS[1], leave=[], days=100) for table in upkeep.every_table(lake)]
        assert [(one.before.live, one.after.live) for one in done] == [(2, 1), (0, 0)]
        assert lake.read(CURRENT_DECISIONS).count() == 2
    finally:
        spark.sql("DROP SCHEMA tended CASCADE")


@pytest.mark.slow
def test_files_and_log_stay_bounded(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A month of daily runs with the log kept for a week: about one file a settled day, and the log does not grow with the days."""
    monkeypatch.setattr(bench, "KEPT", 7)
    monkeypatch.setattr(bench, "TABLES", (CLICKS, RUNS))
    found = bench.both(lake.spark, Path(lake.root), days=30)
    middle, last = found[True][-4:-2], found[True][-2:]
    for without, before, now in zip(found[False][-2:], middle, last, strict=True):
        assert now.rows == without.rows
        assert now.files < 0.6 * without.files
        assert now.log_files <= 1.2 * before.log_files
