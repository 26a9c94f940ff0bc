"""Tables without Spark are the tables that Spark knows: same declaration, same rows, both ways."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from slidr import direct, ledger
from slidr.direct import Place
from slidr.errors import ConflictError, InputError
from slidr.lake import Lake
from slidr.registry import log
from slidr.tables import MODEL_PROMOTIONS, RUNS

NOW = datetime(2026, 3, 20, 23, 59, 59, 999_999, tzinfo=timezone.utc)


def event(number: int) -> dict[str, Any]:
    text = {name: f"{name}-{number} ä" for name in MODEL_PROMOTIONS.names}
    time = NOW + timedelta(hours=number)
    return {**text, "event_no": number, "event_time": time, "event_date": time.date(), "from_state": None}


def declared(root: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and protocol of the first commit, without what differs by chance."""
    lines = (Path(root) / "model_promotions/_delta_log/00000000000000000000.json").read_text().splitlines()
    actions = {key: value for line in lines for key, value in json.loads(line).items()}
    meta = {key: value for key, value in actions["metaData"].items() if key not in ("id", "createdTime") and value is not None}
    return {**meta, "schemaString": json.loads(meta["schemaString"])}, actions["protocol"]


def test_both_make_the_same_table(lake: Lake, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "other lake"))
    lake.create(MODEL_PROMOTIONS)
    direct.create(place, MODEL_PROMOTIONS)
    direct.create(place, MODEL_PROMOTIONS)
    assert declared(place.root) == declared(lake.root)
    assert declared(lake.root)[1]["minReaderVersion"] == 1


def test_each_reads_what_the_other_wrote(lake: Lake) -> None:
    known = log.read(lake)
    assert known.events == []
    direct.create(lake, MODEL_PROMOTIONS)
    assert log.read(lake).append([event(1), event(2)])
    rows = [tuple(event(3)[name] for name in MODEL_PROMOTIONS.names)]
    lake.append(lake.spark.createDataFrame(rows, MODEL_PROMOTIONS.schema), MODEL_PROMOTIONS)
    assert log.read(lake).events == [event(1), event(2), event(3)]
    found = lake.read(MODEL_PROMOTIONS).orderBy("event_no").collect()
    assert [{**row.asDict(), "event_time": row["event_time"].replace(tzinfo=timezone.utc)} for row in found] == log.read(lake).events


def test_a_run_is_on_record_either_way(lake: Lake) -> None:
    row = {name: name for name in RUNS.names} | {"run_date": NOW.date(), "started_time": NOW, "ended_time": NOW, "exit_code": 0}
    for number in range(3):
        direct.add(lake, RUNS, [{**row, "run_id": str(number)}])
    assert sorted(r["run_id"] for r in lake.read(RUNS).collect()) == ["0", "1", "2"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    with pytest.raises(InputError, match="slidr init"):
        direct.read(place, MODEL_PROMOTIONS)
    direct.create(place, MODEL_PROMOTIONS)
    with pytest.raises(InputError, match="found NULL in actor"):
        direct.append(direct.read(place, MODEL_PROMOTIONS), [{**event(1), "actor": None}])
    assert direct.read(place, MODEL_PROMOTIONS).rows == []
    (tmp_path / "runs" / "_delta_log").mkdir(parents=True)
    (tmp_path / "runs" / "_delta_log" / "00000000000000000000.json").write_text("torn")
    with pytest.raises(InputError, match="expected a whole log .* of the table runs .* restore the table's folder from a copy"):
        direct.read(place, RUNS)


def test_which_lakes_need_spark() -> None:
    assert all(
        direct.reaches(root, None) for root in ("/lake", "file:///lake", "s3a://bucket/lake", "abfss://a@b.c/lake", "hdfs://host/lake")
    )
    assert not direct.reaches("dbfs:/lake".replace(":/", "://"), None)
    assert not direct.reaches("/lake", "main.slidr")


def test_a_catalog_goes_through_spark_with_the_same_rules(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql("CREATE SCHEMA promoted LOCATION '" + str(tmp_path / "promoted") + "'")  # noqa: S608
    lake = Lake(spark, str(tmp_path), "promoted")
    try:
        log.create(lake)
        first, second = log.read(lake), log.read(lake)
        assert first.append([event(1)])
        assert not second.append([event(1)])
        assert log.read(lake).append([event(2), event(3)])
        assert log.read(lake).events == [event(1), event(2), event(3)]
        assert not (tmp_path / "model_promotions").exists()
    finally:
        spark.sql("DROP SCHEMA promoted CASCADE")


def test_a_conflict_inside_spark_counts_as_beaten(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(spark, str(tmp_path))
    direct.create(lake, MODEL_PROMOTIONS)

    def beaten(*_: object) -> None:
        raise ConflictError("another writer")

    monkeypatch.setattr(Lake, "append", beaten)
    assert not ledger._by_spark(lake, MODEL_PROMOTIONS).append([event(1)])
