"""What the checks are made of, on Spark: one pass over labelled clicks, counts of other tables, decisions of two models."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from rich.console import Console
from slidr.jobs import look

from slidr import evaluation, judging
from slidr.bundle import Bundle
from slidr.config import Config
from slidr.guardrails import (
    REFERENCE,
    Alike,
    Check,
    check_champion,
    clicks_by_hour,
    decided_alike,
    measure,
    orders_by_hour,
    rejects_by_reason,
    rows,
    window_tables,
)
from slidr.guardrails.champion import COUNTS
from slidr.guardrails.drift import BOUNDED
from slidr.lake import Lake
from slidr.learning.checks import check_data, check_judging
from slidr.learning.clicks import Days
from slidr.run import Job
from slidr.slices import slice_name
from slidr.tables import CLICKS, LABELS, PURCHASES, REJECTS, features_table
from slidr.tally import bins_of
from slidr.version import Version
from tests import worlds
from tests.bundles import LOGIN_SLICES
from tests.frames import at, click, clicks, day, frame, purchase, purchases
from tests.test_guardrails import calibrated
from tests.worlds import SPEC

NEW = worlds.version("1").bundle
FEATURES = ("ip_clicks_1h", "ip_since_prev", "hour_sin", "logged_in")
LABELLED = (
    "click_time timestamp, click_date date, arrival_time timestamp, user_id string, ip_key string, is_human boolean, is_purchase boolean, "
    "label_reason string, ip_clicks_1h int, ip_since_prev double, hour_sin double, logged_in boolean, has_features boolean"
)


def labelled_rows(count: int = 400, seed: int = 3) -> list[tuple[Any, ...]]:
    random = np.random.default_rng(seed)
    made = []
    for number in range(count):
        time = at("2026-01-04 22:00:00") + timedelta(seconds=int(random.integers(0, 4 * 3600)))
        reason = str(random.choice(["purchase", "rfm", "none"]))
        late = timedelta(seconds=int(random.choice([0, 3600, 3601])))
        made.append(
            (
                time,
                time.date(),
                time + late,
                None if random.random() < 0.3 else f"u{number}",
                None if random.random() < 0.1 else "192.0.2.1",
                reason != "none",
                reason == "purchase",
                reason,
                None if random.random() < 0.1 else int(random.integers(0, 100)),
                None if random.random() < 0.5 else float(random.random() * 1e6),
                float(random.uniform(-1, 1)),
                bool(random.random() < 0.5),
                bool(random.random() < 0.9) and time.hour != 1,
            )
        )
    return made


@pytest.mark.parametrize("partitions", [1, 5])
def test_one_pass_counts_hours_and_bins(spark: SparkSession, partitions: int) -> None:
    made = labelled_rows()
    labelled = spark.createDataFrame(made, LABELLED).repartition(partitions)
    hours, histogram, missing = window_tables(measure(labelled, features=FEATURES, late_minutes=60), FEATURES)
    table = pd.DataFrame(made, columns=[part.split()[0] for part in LABELLED.split(", ")])
    table["hour"] = [time.hour for time in table["click_time"]]
    assert (
        dict(zip(missing["day"], missing["missing"], strict=True)) == table[~table["has_features"]].groupby("click_date").size().to_dict()
    )
    table = table[table["has_features"]].reset_index(drop=True)
    groups = table.groupby(["click_date", "hour"])
    expected = {
        "clicks": groups.size(),
        "humans": groups["is_human"].sum(),
        "purchasing": groups["is_purchase"].sum(),
        "high_rfm": groups["label_reason"].apply(lambda reasons: (reasons == "rfm").sum()),
        "no_user": groups["user_id"].apply(lambda users: users.isna().sum()),
        "no_address": groups["ip_key"].apply(lambda keys: keys.isna().sum()),
        "late": groups[["click_time", "arrival_time"]].apply(lambda t: (t["arrival_time"] - t["click_time"] > timedelta(hours=1)).sum()),
    }
    assert [(row.day, row.hour) for row in hours.itertuples()] == list(expected["clicks"].index)
    for name, values in expected.items():
        assert hours[name].tolist() == [int(value) for value in values], name
    values = table[list(FEATURES)].astype(float)
    binned = {name: bins_of(values[name].to_numpy(), bounded=name in BOUNDED) for name in FEATURES}
    bins = pd.DataFrame(binned).assign(day=table["click_date"])
    wanted = bins.melt("day", var_name="feature", value_name="bin").value_counts().to_dict()
    assert {(r.day, r.feature, r.bin): r.clicks for r in histogram.itertuples()} == wanted


def test_clicks_and_orders_by_hour(spark: SparkSession) -> None:
    made = clicks(
        spark, click("a", at("2026-01-04 23:59:59")), click("b", at("2026-01-04 23:00:00")), click("c", at("2026-01-05 00:00:00"))
    )
    assert sorted(map(tuple, clicks_by_hour(made).collect())) == [(day("2026-01-04"), 23, 2), (day("2026-01-05"), 0, 1)]
    bought = at("2026-01-04 10:30:00")
    orders = purchases(
        spark,
        purchase("in time", bought, arrival_time=at("2026-01-07")),  # the label time of the day with a delay of 2 days
        purchase("late", bought, arrival_time=at("2026-01-07 00:00:01")),
        purchase("cancelled", bought, cancelled=True),
        purchase("other", at("2026-01-04 11:00:00")),
    )
    found = orders_by_hour(orders, delay_days=2)
    assert sorted(map(tuple, found.collect())) == [(day("2026-01-04"), 10, 1, 3), (day("2026-01-04"), 11, 1, 1)]


def reject(table: str, reason: str, when: datetime, number: int) -> dict[str, Any]:
    base = {"raw": f"{number}", "source_file": "f", "run_id": "r", "rejected_time": when, "reject_date": when.date()}
    return {**base, "table_name": table, "reason": reason}


def test_rejects_since_the_window_began(spark: SparkSession) -> None:
    made = [
        reject("clicks", "no id", at("2026-01-04 10:00:00"), 1),
        reject("purchases", "no id", at("2026-01-05"), 2),
        reject("clicks", "conflicting_duplicate", at("2026-01-05"), 3),
        reject("clicks", "no id", at("2026-01-03 23:00:00"), 4),
        reject("decisions", "no id", at("2026-01-05"), 5),
    ]
    found = rejects_by_reason(frame(spark, REJECTS, made), date(2026, 1, 4))
    assert dict(map(tuple, found.collect())) == {"no id": 2, "conflicting_duplicate": 1}


DECIDED = "slice string, advertiser_id string, currency string, cost_micros bigint, old_invalid boolean, new_invalid boolean"


def test_decisions_of_both_models_are_counted_in_clicks_and_money(spark: SparkSession) -> None:
    made = [
        ("desktop", "x", "USD", 10, True, True),
        ("desktop", "x", "USD", 20, True, False),
        ("desktop", "y", "EUR", 40, False, True),
        ("phone", "y", "EUR", None, False, True),
        ("phone", "x", "USD", 80, None, True),  # the champion had no features
    ]
    found = decided_alike(spark.createDataFrame(made, DECIDED), "7", min_clicks=1)
    empty = dict.fromkeys(COUNTS, 0)
    desktop = {"clicks": 3, "changed": 2, "old_invalid": 2, "new_invalid": 2, "cost_micros": 70, "changed_micros": 60}
    desktop |= {"credited_micros": 40, "charged_micros": 20}
    phone = {**empty, "clicks": 1, "changed": 1, "new_invalid": 1}
    assert found.slices.to_dict("records") == [{"slice": "desktop", **desktop}, {"slice": "phone", **phone}]
    usd = {
        **empty,
        "clicks": 2,
        "changed": 1,
        "old_invalid": 2,
        "new_invalid": 1,
        "cost_micros": 30,
        "changed_micros": 20,
        "charged_micros": 20,
    }
    eur = {**empty, "clicks": 2, "changed": 2, "new_invalid": 2, "cost_micros": 40, "changed_micros": 40, "credited_micros": 40}
    assert found.currencies.to_dict("records") == [{"currency": "EUR", **eur}, {"currency": "USD", **usd}]
    assert found.advertisers.to_dict("records") == [
        {"advertiser_id": "y", "currency": "EUR", **eur},
        {"advertiser_id": "x", "currency": "USD", **usd},
    ]
    assert found.undecided == 1


def test_the_driver_gets_few_advertisers_among_them_those_that_differ_most(spark: SparkSession) -> None:
    made = [("desktop", f"a{number:03d}", "USD", 10, False, False) for number in range(300) for _ in range(2)]
    made += [("desktop", "dear", "USD", 10**6, False, True), *[("desktop", "changed", "USD", 0, False, True)] * 2]
    found = decided_alike(spark.createDataFrame(made, DECIDED), "7", min_clicks=2)
    assert {"dear", "changed"} <= set(found.advertisers["advertiser_id"])
    assert len(found.advertisers) <= 150


# The job's part, on the little lake of tests/worlds.py.


@pytest.fixture(scope="module")
def template(spark: SparkSession, conf: Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    lake = Lake(spark, str(tmp_path_factory.mktemp("judged") / "lake"))
    worlds.fill(lake, conf)
    lake.append(frame(spark, PURCHASES, [purchase("o1", worlds.FIRST + timedelta(hours=12))]), PURCHASES)
    lake.append(frame(spark, REJECTS, [reject("clicks", "no id", worlds.NOW, 1)]), REJECTS)
    return lake.root


@pytest.fixture
def job(template: str, spark: SparkSession, conf: Config) -> Job:
    """Reads only: the tests share the lake."""
    spec = {"entities": {"ip": ["ip_key"]}, "counters": [{"entity": "ip", "measure": "clicks", "windows": ["1h"]}]}
    changed = {"features": {**spec, "time_of_click": False, "logged_in": True}}
    job = Job(conf.model_copy(update=changed), "run-1", worlds.NOW, Console(quiet=True), actor="test")
    lake = Lake(spark, template)
    job.__dict__.update(lake=lake, place=lake, spark=spark)  # the session of the tests, as if it had started already
    return job


def judging_clicks(job: Job) -> DataFrame:
    """The first day's clicks as `labelled_clicks` gives them."""
    stored = job.lake.read(features_table(SPEC), worlds.DAYS[:1]).select("click_id", "ip_clicks_1h")
    labels = job.lake.read(LABELS).select("click_id", "is_human", "is_purchase", "label_reason", "in_heavy_session")
    made = job.lake.read(CLICKS, worlds.DAYS[:1]).where("upstream_filter is null").drop("upstream_filter")
    labelled = made.join(labels, "click_id").join(stored, "click_id")
    user = {"user_key": F.xxhash64("session_id"), "fold": F.lit(0)}
    return labelled.withColumns({"has_features": F.lit(True), "slice": slice_name(LOGIN_SLICES), "part": F.lit("judging"), **user})


def test_data_of_a_lake_is_measured_and_every_query_runs(job: Job) -> None:
    days = Days(worlds.DAYS[:1], [], [])
    checks, features = check_data(job, days, judging_clicks(job), None)
    seen = {check.name: check for check in checks}
    assert seen["purchasing clicks"].observed == 2
    assert seen["share of rejects"].observed == pytest.approx(1 / 34)  # of 32 clicks and an order
    assert seen["labelled clicks of a day without features"].observed == 0
    assert features["days"] == ["2026-03-01"]
    assert sum(features["shares"]["ip_clicks_1h"].values()) == pytest.approx(1)
    assert json.loads(json.dumps(features)) == features
    unlike = {"bins": 1, "days": ["2026-02-01"], "shares": {"ip_clicks_1h": {"40": 1.0}, "gone": {"1": 1.0}}}
    champion = worlds.version("1", "champion")
    champion.bundle.metrics[REFERENCE] = unlike
    against, _ = check_data(job, days, judging_clicks(job), champion)
    moved = next(check for check in against if check.name == "drift of ip_clicks_1h")
    assert not moved.passed
    assert "2026-02-01" in moved.advice
    for text in {check.query for check in [*checks, *against, *champion_rows(job, worlds.version("3", "champion"))]} - {""}:
        assert look.sql(job, text).answer["rows"] is not None, text


@contextmanager
def scored(job: Job, champion: Bundle | None, clicks_of: DataFrame | None = None) -> Iterator[tuple[DataFrame, str]]:
    """The first day's clicks by version 1 and a champion, and why the champion did not score them."""
    named = {"lake": job.lake, "days": worlds.DAYS[:1], "zones": job.conf.marketplaces}
    with judging.scored(clicks_of or judging_clicks(job), {"mlp": NEW}, champion, **named) as found:
        yield found


def decided(job: Job, champion: Version) -> tuple[Alike | None, str]:
    """How version 1 and the champion decide these clicks, or why they are not compared."""
    with scored(job, champion.bundle) as (found, why):
        if judging.SCORE + judging.CHAMPION not in found.columns:
            return None, why
        return decided_alike(judging.decided_by_both(found, ("mlp", NEW), champion.bundle), champion.number, min_clicks=1), why


def champion_rows(job: Job, champion: Version) -> list[Check]:
    alike, why = decided(job, champion)
    bounds = job.conf.guardrails.model_copy(update={"min_slice_clicks": 1, "min_advertiser_clicks": 1})
    return check_champion(alike, champion=champion.number, why=f"champion {champion.number}: {why}", bounds=bounds, days=worlds.DAYS[:1])


def test_the_champion_decides_the_same_clicks_by_its_own_slices(job: Job) -> None:
    """Version 1 invalidates from two earlier clicks on, version 3 from one: scores of 0 to 7 earlier clicks of two addresses."""
    both, _ = decided(job, worlds.version("3", "champion"))
    assert both is not None
    assert both.slices["clicks"].sum() == 15  # 16 without the one that upstream made free
    seen = {check.name: check for check in champion_rows(job, worlds.version("3", "champion"))}
    found = seen["clicks decided otherwise than by the champion"]
    assert found.observed == pytest.approx(both.slices["changed"].sum() / 15)
    assert 0 < found.observed < 1
    assert both.slices["old_invalid"].sum() > both.slices["new_invalid"].sum()
    assert any(name.startswith("money decided otherwise in USD") for name in seen)
    same = {check.name: check for check in champion_rows(job, worlds.version("1", "champion"))}
    assert same["clicks decided otherwise than by the champion"].observed == 0
    assert [row["verdict"] for row in rows(list(same.values())) if "champion" in row["check"]] == ["passed", "passed"]


def test_clicks_without_a_score_of_the_champion_are_not_compared(job: Job) -> None:
    champion = worlds.version("3", "champion").bundle
    with scored(job, champion) as (found, _):
        first = min(row["click_id"] for row in found.select("click_id").collect())
        some = found.withColumn("score_champion", F.when(F.col("click_id") != first, F.col("score_champion")))
        both = decided_alike(judging.decided_by_both(some, ("mlp", NEW), champion), "3", min_clicks=1)
    assert (both.undecided, both.slices["clicks"].sum()) == (1, 14)


def test_a_training_without_a_champion_compares_nothing(job: Job) -> None:
    both_parts = judging_clicks(job).withColumn("part", F.explode(F.array(F.lit("calibration"), F.lit("judging"))))
    with scored(job, None, both_parts) as (found, _):
        curves, _ = judging.method_curves(found, judging.score_counts(found))
    judgement = evaluation.Judgement("mlp", calibrated(), curves, pd.DataFrame(), pd.DataFrame(), None, "")
    checks = check_judging(job, Days([], [], worlds.DAYS[:1]), judgement, None)
    assert {check.verdict for check in checks if check.advice == "there is no champion to compare with"} == {"not judged"}
    assert "judging IVR, highest" in {check.name for check in checks}


def test_a_champion_of_another_spec_is_not_compared_where_the_lake_lacks_its_features(job: Job, conf: Config) -> None:
    other = Version("9", "champion", worlds.bundle(1.0, -1.0, {}, conf.spec))
    checks = champion_rows(job, other)
    assert [check.verdict for check in checks] == ["passed", *["not judged"] * 5]  # it need not be compared: min_compared is 0
    assert f"champion 9: it reads features of spec {conf.spec.spec_id}" in checks[0].advice
    assert check_champion(None, champion=None, why="none", bounds=conf.guardrails, days=worlds.DAYS)[0].verdict == "not judged"
