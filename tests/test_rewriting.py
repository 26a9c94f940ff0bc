"""Rows replaced by their key: what changes, which files are written anew, and what makes no commit."""

from datetime import date
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from slidr import data_files, rewriting
from slidr.errors import ConflictError, InputError
from slidr.lake import Lake
from slidr.tables import CURRENT_DECISIONS
from tests.bench import upkeep as bench
from tests.frames import frame

DAYS = [date(2026, 3, 1), date(2026, 3, 2)]
NAMES = ("click_id", "slice", "is_invalid")


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Any) -> Lake:
    """Two days of current decisions, two files each, of three clicks each."""
    lake = Lake(spark, str(tmp_path))
    for day in DAYS:
        for first in (0, 3):
            lake.append(rows(lake, day, range(first, first + 3)), CURRENT_DECISIONS)
    return lake


def rows(lake: Lake, day: date, numbers: Any, **changed: Any) -> DataFrame:
    return frame(lake.spark, CURRENT_DECISIONS, [{**bench.row(CURRENT_DECISIONS, day, number), **changed} for number in numbers])


def found(lake: Lake) -> dict[str, tuple]:
    return {row["click_id"]: tuple(row[name] for name in NAMES[1:]) for row in lake.read(CURRENT_DECISIONS).select(*NAMES).collect()}


def paths(lake: Lake) -> dict[str, str]:
    """click_id -> name of its file."""
    return {row[0]: row[1] for row in lake.read(CURRENT_DECISIONS).select("click_id", "_metadata.file_name").collect()}


@pytest.mark.parametrize("few", [200_000, 0])
def test_rows_are_replaced_inserted_and_deleted_in_one_commit(lake: Lake, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(rewriting, "BROADCAST_KEYS", few)
    monkeypatch.setattr(rewriting, "ROWS_OF_A_FILE", 2)
    before, where, version = found(lake), paths(lake), lake.version(CURRENT_DECISIONS)
    new = rows(lake, DAYS[0], [1, 2], slice="new").unionByName(rows(lake, DAYS[1], [3, 4, 5, 8], slice="gone"))
    new = new.unionByName(rows(lake, DAYS[1], [6, 7], slice="new", is_invalid=True))
    rewriting.replace_rows(lake, new, CURRENT_DECISIONS, DAYS, ["slice"], rows=8, delete=F.col("slice") == "gone")
    was = before[f"{DAYS[0]}-0"]
    changed = {f"{DAYS[0]}-{n}": ("new", was[1]) for n in (1, 2)} | {f"{DAYS[1]}-{n}": ("new", True) for n in (6, 7)}
    gone = {f"{DAYS[1]}-{n}" for n in (3, 4, 5)}
    assert found(lake) == {name: row for name, row in (before | changed).items() if name not in gone}
    assert lake.version(CURRENT_DECISIONS) == version + 1
    kept = {name for name, path in paths(lake).items() if where.get(name) == path}
    assert kept == {f"{DAYS[0]}-{n}" for n in (3, 4, 5)} | {f"{DAYS[1]}-{n}" for n in (0, 1, 2)}
    assert {file.rows for file in data_files.of(lake, CURRENT_DECISIONS).files} <= {1, 2, 3}
    assert sum(file.rows or 0 for file in data_files.of(lake, CURRENT_DECISIONS).files) == len(found(lake))


def test_another_writer_of_these_days_refuses_it_and_one_of_others_does_not(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = data_files._commit

    def meanwhile(day: date) -> Any:
        def commit(*given: Any) -> None:
            monkeypatch.setattr(data_files, "_commit", committed)
            lake.append(rows(lake, day, [9]), CURRENT_DECISIONS)
            committed(*given)

        return commit

    new = rows(lake, DAYS[0], [1], slice="new")
    monkeypatch.setattr(data_files, "_commit", meanwhile(DAYS[0]))
    with pytest.raises(ConflictError, match="at the same time"):
        rewriting.replace_rows(lake, new, CURRENT_DECISIONS, DAYS[:1], ["slice"], rows=1)
    assert not [name for name, row in found(lake).items() if row[0] == "new"]
    monkeypatch.setattr(data_files, "_commit", meanwhile(DAYS[1]))
    rewriting.replace_rows(lake, new, CURRENT_DECISIONS, DAYS[:1], ["slice"], rows=1)
    assert [name for name, row in found(lake).items() if row[0] == "new"] == [f"{DAYS[0]}-1"]
    assert len(found(lake)) == 14


def test_a_null_where_none_is_allowed_commits_nothing(lake: Lake) -> None:
    version = lake.version(CURRENT_DECISIONS)
    with pytest.raises(Exception, match="expected no NULL, found NULL in slice") as told:
        rewriting.replace_rows(lake, rows(lake, DAYS[0], [1], slice=None), CURRENT_DECISIONS, DAYS, ["slice"], rows=1)
    assert InputError.__name__ in str(told.value)
    assert lake.version(CURRENT_DECISIONS) == version
