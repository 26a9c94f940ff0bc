"""The lake under two writers: a table made twice at once, rows inserted by another writer in the middle of an insert."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.errors import ConflictError, InputError
from slidr.lake import Lake
from slidr.tables import CLICKS, RUNS
from tests.frames import at, click, clicks

DAY = at("2026-03-01")


def rows(lake: Lake, *names: str) -> DataFrame:
    return clicks(lake.spark, *[click(name, DAY + timedelta(minutes=n)) for n, name in enumerate(names)])


def ids(lake: Lake) -> list[str]:
    return sorted(row[0] for row in lake.read(CLICKS).select("click_id").collect())


@pytest.mark.parametrize("round_", range(4))
def test_a_table_made_twice_at_once_is_made_once(lake: Lake, round_: int) -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda _: lake.create(RUNS), range(4)))
    assert lake.version(RUNS) == 0


def test_a_table_whose_folder_is_there_before_it(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loser of a race sees: files, and then the table. Without the table they are somebody else's files."""
    monkeypatch.setattr("slidr.lake.APPEARS_WITHIN", 2)
    Lake(lake.spark, str(tmp_path / "other")).create(RUNS)
    place = Path(lake.path(RUNS))
    place.mkdir(parents=True)
    (place / "0.parquet").touch()
    with pytest.raises(InputError, match="found other files there"):
        lake.create(RUNS)
    log = tmp_path / "other" / "runs" / "_delta_log"
    late = threading.Timer(1.0, lambda: shutil.copytree(log, place / "_delta_log"))
    late.start()
    lake.create(RUNS)
    late.join()
    assert lake.version(RUNS) == 0


def test_inserts_add_what_is_new_and_make_no_commit_for_nothing(lake: Lake) -> None:
    lake.create(CLICKS)
    assert lake.insert_new(rows(lake, "a", "b"), CLICKS, [DAY.date()]) == 2
    assert lake.insert_new(rows(lake, "a", "b", "c"), CLICKS, [DAY.date()]) == 1
    before = lake.version(CLICKS)
    assert lake.insert_new(rows(lake, "a", "c"), CLICKS, [DAY.date()]) == 0
    assert lake.version(CLICKS) == before
    assert ids(lake) == ["a", "b", "c"]


def test_an_insert_that_another_writer_overtakes_is_refused(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other writer commits after the slow one has read the table and before it commits."""
    lake.create(CLICKS)
    reading = threading.Event()
    others = Path(lake.path(CLICKS)) / "_delta_log" / f"{lake.version(CLICKS) + 1:020}.json"

    @F.udf("string")
    def slowly(name: str) -> str:
        import time

        deadline = time.monotonic() + 60
        while not others.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        return name

    def overtake() -> int:
        reading.wait(60)
        return lake.insert_new(rows(lake, "a"), CLICKS, [DAY.date()], expected=1)

    # One task that waits: the other writer needs the second core of the session.
    slow = rows(lake, "a", "b").coalesce(1).withColumn("click_id", slowly("click_id"))
    save = Lake._save

    def announced(self: Lake, writer: object, table: object) -> None:
        if threading.current_thread() is threading.main_thread():
            reading.set()
        save(self, writer, table)

    monkeypatch.setattr(Lake, "_save", announced)
    with ThreadPoolExecutor(max_workers=1) as pool:
        other = pool.submit(overtake)
        with pytest.raises(ConflictError, match="clicks"):
            lake.insert_new(slow, CLICKS, [DAY.date()], expected=2)
        assert other.result(60) == 1
    assert ids(lake) == ["a"]


def test_a_null_where_none_is_allowed_fails_the_write(lake: Lake) -> None:
    lake.create(CLICKS)
    with pytest.raises(Exception, match="expected no NULL, found NULL in device"):
        lake.append(rows(lake, "a").withColumn("device", F.lit(None).cast("string")), CLICKS)
    assert lake.version(CLICKS) == 0


def test_a_table_of_another_shape_lists_every_difference(lake: Lake) -> None:
    lake.create(CLICKS)
    wrong = rows(lake, "a").drop("device").withColumn("cost_micros", F.lit("1"))
    with pytest.raises(InputError, match="device is missing; cost_micros: expected bigint, found string"):
        lake.append(wrong, CLICKS)
