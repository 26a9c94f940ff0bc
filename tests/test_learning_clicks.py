"""What a training reads: the tables as of its start, and clicks without features in no part."""

from datetime import timedelta

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from slidr.config import Config
from slidr.lake import Lake
from slidr.learning.clicks import PARTS, Days, labelled_clicks, read_versions
from slidr.run import Job
from slidr.tables import LABELS, PURCHASES, features_table
from slidr.thresholds import FOLDS
from tests import worlds
from tests.frames import frame, purchase

DAYS = Days(worlds.DAYS[:1], [], [])


@pytest.fixture
def job(lake: Lake, spark: SparkSession, conf: Config) -> Job:
    spec = {"entities": {"ip": ["ip_key"]}, "counters": [{"entity": "ip", "measure": "clicks", "windows": ["1h"]}]}
    changed = conf.model_copy(update={"features": {**spec, "time_of_click": False, "logged_in": True}})
    job = Job(changed, "run-1", worlds.NOW, Console(quiet=True), actor="test")
    job.__dict__.update(lake=lake, spark=spark)  # the session of the tests, as if it had started already
    worlds.fill(lake, conf)
    lake.append(frame(spark, PURCHASES, [purchase("o1", worlds.FIRST + timedelta(hours=12))]), PURCHASES)
    return job


def test_a_training_reads_the_tables_as_they_were_at_its_start(job: Job) -> None:
    versions = read_versions(job)
    before = sorted(row["click_id"] for row in labelled_clicks(job, DAYS, versions).collect())
    assert before
    job.lake.delta(LABELS).delete()
    assert sorted(row["click_id"] for row in labelled_clicks(job, DAYS, versions).collect()) == before
    assert labelled_clicks(job, DAYS, read_versions(job)).isEmpty()


def test_a_click_without_features_is_in_no_part(job: Job) -> None:
    table = features_table(worlds.SPEC)
    one = min(row["click_id"] for row in labelled_clicks(job, DAYS, read_versions(job)).where("part = 'training'").collect())
    job.lake.delta(table).delete(f"click_id = '{one}'")
    found = {row["click_id"]: row for row in labelled_clicks(job, DAYS, read_versions(job)).collect()}
    assert (found[one]["has_features"], found[one]["part"]) == (False, None)
    assert {row["has_features"] for name, row in found.items() if name != one} == {True}


def test_users_beyond_the_shares_are_in_no_part(job: Job) -> None:
    def parts(*shares: float) -> dict[str, set[str]]:
        job.conf = job.conf.model_copy(update={"training": job.conf.training.model_copy(update={"user_shares": shares})})
        rows = labelled_clicks(job, DAYS, read_versions(job)).collect()
        return {part: {row["click_id"] for row in rows if row["part"] == part} for part in (*PARTS, None)}

    whole, less, end = parts(0.8, 0.1, 0.1), parts(0.4, 0.1, 0.1), parts(0.1, 0.1, 0.8)
    assert less["training"] < whole["training"]
    assert less[None] >= whole["training"] - less["training"]
    assert less["judging"].isdisjoint(whole["judging"])  # from 0.5 to 0.6, and from 0.9 on
    assert less["judging"] | whole["judging"] <= end["judging"]


def test_slices_on_a_feature_have_a_name_where_the_feature_has_none(job: Job) -> None:
    parts = [{"column": "campaign_id"}, {"column": "ip_clicks_1h", "cuts": [1, 3]}]
    job.conf = job.conf.model_copy(update={"calibration": job.conf.calibration.model_copy(update={"slices": parts})})
    one = min(row["click_id"] for row in labelled_clicks(job, DAYS, read_versions(job)).where("part = 'training'").collect())
    job.lake.delta(features_table(worlds.SPEC)).delete(f"click_id = '{one}'")
    found = {row["click_id"]: row for row in labelled_clicks(job, DAYS, read_versions(job)).collect()}
    for name, row in found.items():
        count = row["ip_clicks_1h"]
        band = "=none" if name == one else "<1" if count < 1 else "[1,3)" if count < 3 else ">=3"
        assert row["slice"] == f"{row['campaign_id']}/ip_clicks_1h{band}"
    assert len({row["slice"].split("/")[1] for row in found.values()}) == 4


def test_a_user_is_in_one_fold(job: Job) -> None:
    rows = labelled_clicks(job, DAYS, read_versions(job)).collect()
    folds: dict[int, set[int]] = {}
    for row in rows:
        folds.setdefault(row["user_key"], set()).add(row["fold"])
    assert {len(found) for found in folds.values()} == {1}
    assert all(0 <= row["fold"] < FOLDS for row in rows)
    users = {row["user_id"] or row["ip_key"] or row["session_id"] for row in rows}
    assert len(folds) == len(users)
