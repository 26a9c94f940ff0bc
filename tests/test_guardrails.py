import math
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from slidr.curves import TOTAL
from slidr.errors import GuardrailError, InputError
from slidr.guardrails import (
    Check,
    _poisson_at_most,
    check_model,
    check_replay,
    check_training_data,
    hour_density,
    pooled_hours,
    require,
)

DATA = {"min_hour_clicks": 100, "min_human_density": 0.2, "min_purchasing": 200}


def hours(days: int = 7, clicks: int = 1000, humans: float = 0.1, purchasing: float = 0.04, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = [(f"2026-01-{day + 1:02d}", hour, int(random.poisson(clicks))) for day in range(days) for hour in range(24)]
    table = pd.DataFrame(rows, columns=["day", "hour", "clicks"])
    bought = random.binomial(table["clicks"], purchasing)
    return table.assign(humans=bought + random.binomial(table["clicks"], humans - purchasing), purchasing=bought)


def failed(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.passed}


def outage(table: pd.DataFrame, day: str, first: int, last: int) -> pd.DataFrame:
    """Purchase labels missing in some hours: what was labelled by purchase is human no more, high RFM still is."""
    hit = (table["day"] == day) & table["hour"].between(first, last)
    return table.assign(
        humans=table["humans"].where(~hit, table["humans"] - table["purchasing"]), purchasing=table["purchasing"].where(~hit, 0)
    )


def test_good_hours_pass() -> None:
    assert failed(check_training_data(hours(), **DATA)) == {}


def test_missing_purchase_labels_are_found_though_high_rfm_hides_them_from_human_density() -> None:
    checks = failed(check_training_data(outage(hours(), "2026-01-03", 5, 7), **DATA))
    assert list(checks) == ["purchase density of an hour"]
    assert checks["purchase density of an hour"].observed == 0
    for hour in ("05h", "06h", "07h"):
        assert f"2026-01-03 {hour} UTC: 0 of " in checks["purchase density of an hour"].advice
    assert "04h" not in checks["purchase density of an hour"].advice


def test_missing_humans_are_found_and_the_hours_named() -> None:
    table = outage(hours(humans=0.04), "2026-01-02", 20, 22)
    checks = failed(check_training_data(table, **DATA))
    assert set(checks) == {"human density of an hour", "purchase density of an hour"}
    assert "2026-01-02 20h UTC" in checks["human density of an hour"].advice


def test_a_density_just_above_the_bound_passes_and_just_below_fails() -> None:
    table = hours(clicks=50_000)
    density = table["humans"].sum() / table["clicks"].sum()
    for factor, passes in ((0.25, True), (0.15, False)):
        low = table.copy()
        low.loc[30, "humans"] = int(factor * density * low.loc[30, "clicks"])
        check = next(check for check in check_training_data(low, **DATA) if check.name == "human density of an hour")
        assert check.passed is passes
        assert check.observed == pytest.approx(factor, abs=0.01)


def test_sparse_conversions_do_not_stop_by_chance() -> None:
    """227 conversions over 72 hours: about 3 an hour, so single hours say nothing."""
    stops = 0
    for seed in range(200):
        table = hours(days=3, clicks=1389, humans=0.00227, purchasing=0.00227, seed=seed)
        stops += bool(failed(check_training_data(table, **DATA | {"min_purchasing": 50})))
    assert stops <= 2


def test_many_hours_that_are_just_large_enough_do_not_stop_by_chance() -> None:
    """168 hours with 10 humans expected each: one with 1 or 2 is chance, one with none is not."""
    tables = [hours(clicks=1050, humans=0.0105, purchasing=0.0105, seed=seed) for seed in range(60)]
    assert sum(bool(failed(check_training_data(table, **DATA))) for table in tables) <= 1
    assert failed(check_training_data(outage(tables[0], "2026-01-02", 6, 8), **DATA))


def test_an_outage_of_sparse_conversions_is_found_in_the_pool() -> None:
    table = hours(days=3, clicks=1389, humans=0.006, purchasing=0.006, seed=1)
    checks = failed(check_training_data(outage(table, "2026-01-02", 6, 11), **DATA | {"min_purchasing": 50}))
    assert "2026-01-02" in checks["purchase density of an hour"].advice


def test_small_hours_are_pooled_within_their_day_and_the_rest_joins_the_last_pool() -> None:
    rows = [("Mon", 0, 60, 6), ("Mon", 1, 60, 6), ("Mon", 2, 500, 50), ("Mon", 3, 60, 6), ("Tue", 0, 60, 6)]
    table = pd.DataFrame(rows, columns=["day", "hour", "clicks", "humans"])
    found = pooled_hours(table, count="humans", min_hour_clicks=100)
    assert found["name"].tolist() == ["Mon 02h UTC", "Mon 00h, 01h, 03h UTC"]  # Tuesday has no pool: not judged
    assert found["clicks"].tolist() == [500, 180]
    assert found["expected"].tolist() == pytest.approx([50, 18])
    assert found["ratio"].tolist() == pytest.approx([1, 1])


def test_no_purchases_at_all_stop_with_a_clear_message() -> None:
    checks = check_training_data(hours(purchasing=0.0), **DATA)
    assert list(failed(checks)) == ["purchasing clicks"]
    with pytest.raises(GuardrailError, match="purchasing clicks: observed 0, bound 200; train on more days") as stopped:
        require(checks, None)
    assert stopped.value.exit_code == 4


def test_no_hours_at_all_stop() -> None:
    assert list(failed(check_training_data(hours().head(0), **DATA))) == ["purchasing clicks"]


def test_poisson_tail() -> None:
    assert _poisson_at_most(0, 10.0) == pytest.approx(math.exp(-10))
    assert _poisson_at_most(2, 3.0) == pytest.approx(math.exp(-3) * (1 + 3 + 4.5))
    assert 0 <= _poisson_at_most(20_000, 100_000.0) < 1e-12


def metrics(fpr: float, ivr: float) -> pd.DataFrame:
    return pd.DataFrame([{"slice": TOTAL, "fpr": fpr, "ivr": ivr, "purchasing": 100, "purchasing_invalid": 3}])


@pytest.mark.parametrize(
    ("fpr", "ivr", "names"),
    [
        (0.03, 0.2, []),
        (0.05, 0.2, ["judging FPR"]),
        (math.nan, 0.2, ["judging FPR"]),
        (0.03, 0.7, ["judging IVR, at most"]),
        (0.03, 0.0, ["judging IVR, at least"]),
        (0.03, math.nan, ["judging IVR, at most", "judging IVR, at least"]),
    ],
)
def test_model(fpr: float, ivr: float, names: list[str]) -> None:
    assert list(failed(check_model(metrics(fpr, ivr), max_fpr=0.04, max_ivr=0.6, min_ivr=0.001))) == names


def replay(**changes: object) -> list[Check]:
    good = {
        "clicks": 1000,
        "changed": 100,
        "money": {"USD": 900, "EUR": 10},
        "advertisers": pd.DataFrame(
            [("x", "USD", 500), ("y", "USD", 400), ("x", "EUR", 10)], columns=["advertiser_id", "currency", "money_micros"]
        ),
        "purchasing": 100,
        "purchasing_invalid": 5,
    }
    bounds = {"max_changed_share": 0.3, "max_money_micros": 1000, "max_advertiser_micros": 600, "max_fpr": 0.05}
    return check_replay(**good | bounds | changes)


def test_replay_within_its_bounds_passes() -> None:
    assert failed(replay()) == {}


def test_replay_money_is_judged_by_currency_and_by_advertiser() -> None:
    assert list(failed(replay(money={"USD": 900, "EUR": 1001}))) == ["money in EUR, micro-units"]
    large = pd.DataFrame([("x", "USD", 601), ("y", "EUR", 700), ("z", "EUR", 800)], columns=["advertiser_id", "currency", "money_micros"])
    found = failed(replay(advertisers=large))
    assert list(found) == ["money of one advertiser in EUR, micro-units", "money of one advertiser in USD, micro-units"]
    assert "2 above the bound, first z, y" in found["money of one advertiser in EUR, micro-units"].advice


def test_replay_share_and_fpr() -> None:
    assert list(failed(replay(changed=301))) == ["changed share"]
    assert list(failed(replay(purchasing_invalid=6))) == ["FPR of the new decisions"]
    unknown = replay(purchasing=0, purchasing_invalid=0)
    assert failed(unknown) == {}
    assert math.isnan(next(check for check in unknown if check.name.startswith("FPR")).observed)
    assert failed(replay(clicks=0, changed=0)) == {}


def test_require_lists_every_failure_unless_overridden_with_a_reason() -> None:
    checks = [Check("one", 0.5, 0.2, False, "do this"), Check("two", 3, 9, True, ""), Check("three", 7, 6, False, "do that")]
    with pytest.raises(GuardrailError) as stopped:
        require(checks, None)
    for part in ("2 of 3", "one: observed 0.5, bound 0.2; do this", "three: observed 7, bound 6; do that", "--override"):
        assert part in str(stopped.value)
    assert "two" not in str(stopped.value)
    with pytest.raises(GuardrailError):
        require(checks, "  ")
    require(checks, "ticket 17")
    require(checks[1:2], None)


def test_hours_are_counted_in_utc(spark: SparkSession) -> None:
    rows = [
        (datetime(2026, 1, 4, 23, 59), True, True),
        (datetime(2026, 1, 4, 23, 0), True, False),
        (datetime(2026, 1, 5, 0, 0), False, False),
        (datetime(2026, 1, 11, 23, 30), False, False),
    ]
    labelled = spark.createDataFrame(rows, "click_time timestamp, is_human boolean, is_purchase boolean")
    schema = "day string, hour int, clicks bigint, humans bigint, purchasing bigint"
    by_hour = spark.createDataFrame([("2026-01-04", 23, 2, 2, 1), ("2026-01-05", 0, 1, 0, 0), ("2026-01-11", 23, 1, 0, 0)], schema)
    by_week = spark.createDataFrame([("Sun", 23, 3, 2, 1), ("Mon", 0, 1, 0, 0)], schema)
    assert_df_equality(hour_density(labelled, per="observed_hour"), by_hour, ignore_row_order=True, ignore_nullable=True)
    assert_df_equality(hour_density(labelled, per="hour_of_week"), by_week, ignore_row_order=True, ignore_nullable=True)
    with pytest.raises(InputError, match="hour_of_week"):
        hour_density(labelled, per="day")
