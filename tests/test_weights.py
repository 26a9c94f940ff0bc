from dataclasses import replace
from datetime import datetime
from itertools import product

import numpy as np
import pandas as pd
import pytest
from chispa import assert_df_equality
from pyspark.sql import SparkSession

from slidr.errors import GuardrailError, InputError
from slidr.weights import CELL, rake, weight_cells, with_weights
from tests.oracles_calibration import naive_rake

SETTINGS = {"dimensions": list(CELL), "max_weight": 50.0, "max_sweeps": 500, "tolerance": 1e-9, "min_cell": 100, "small_cells": "stop"}
ZONES = {"US": "America/New_York", "JP": "Asia/Tokyo"}
LABELLED = "click_id string, click_time timestamp, marketplace string, logged_in boolean, is_human boolean"


def cells(seed: int = 0) -> pd.DataFrame:
    """Skewed counts: fewer clicks at night, few humans, few logged in."""
    random = np.random.default_rng(seed)
    rows = []
    for hour, weekday, logged_in, label in product(range(24), range(7), (False, True), (False, True)):
        size = 200 * (1.2 + np.sin(hour / 24 * 6.28)) * (0.3 if logged_in else 1) * (0.2 if label else 1)
        rows.append((hour, weekday, logged_in, label, int(random.poisson(size))))
    return pd.DataFrame(rows, columns=[*CELL, "clicks"])


def test_weighted_marginals_are_equal_and_the_mean_weight_is_one() -> None:
    raking = rake(cells(), **SETTINGS)
    mass = raking.weights["weight"] * raking.weights["clicks"]
    for name in CELL:
        sums = mass.groupby(raking.weights[name]).sum()
        assert sums.to_numpy() == pytest.approx(sums.mean(), rel=1e-9)
    assert mass.sum() / raking.weights["clicks"].sum() == pytest.approx(1, rel=1e-12)
    assert raking.dropped == ()


def test_weights_are_those_of_the_textbook_loop_and_its_shares() -> None:
    small = cells()[lambda rows: rows["hour"] < 4]
    raking = rake(small, **SETTINGS)
    expected = naive_rake(raking.weights, list(CELL), sweeps=60)
    assert raking.weights["weight"].to_numpy() == pytest.approx(expected, rel=1e-8)
    one_by_one = np.repeat(expected, raking.weights["clicks"])
    assert raking.effective_share == pytest.approx(one_by_one.sum() ** 2 / (len(one_by_one) * (one_by_one**2).sum()))
    assert raking.largest_weight == pytest.approx(one_by_one.max())
    assert 0 < raking.sweeps < 100


def test_order_of_the_cells_changes_nothing() -> None:
    pd.testing.assert_frame_equal(rake(cells().sample(frac=1, random_state=1), **SETTINGS).weights, rake(cells(), **SETTINGS).weights)


def test_a_dimension_with_one_value_leaves_and_is_reported() -> None:
    guests = cells()[lambda rows: ~rows["logged_in"]]
    raking = rake(guests, **SETTINGS)
    assert raking.dropped == ("logged_in",)
    mass = raking.weights["weight"] * raking.weights["clicks"]
    assert mass.groupby(raking.weights["label"]).sum().to_numpy() == pytest.approx(mass.sum() / 2, rel=1e-9)


def test_cells_without_clicks_change_nothing() -> None:
    more = pd.concat([cells(), pd.DataFrame([(0, 0, True, True, 0)], columns=[*CELL, "clicks"])])
    assert rake(more, **SETTINGS).effective_share == rake(cells(), **SETTINGS).effective_share


def test_even_clicks_weigh_one() -> None:
    raking = rake(cells().assign(clicks=7), **SETTINGS | {"min_cell": 0})
    assert (raking.weights["weight"] == 1).all()
    assert (raking.sweeps, raking.effective_share) == (0, 1.0)


def test_small_and_absent_cells_stop_with_their_name() -> None:
    rare = cells()[lambda rows: rows["logged_in"] | ~rows["label"]]
    with pytest.raises(GuardrailError, match="at least 100 clicks.*label=True, logged_in=False: 0 clicks"):
        rake(rare, **SETTINGS)
    few = pd.concat([rare, cells()[lambda rows: ~rows["logged_in"] & rows["label"]].head(1).assign(clicks=99)])
    with pytest.raises(GuardrailError, match="label=True, logged_in=False: 99 clicks"):
        rake(few, **SETTINGS)
    assert rake(few, **SETTINGS | {"min_cell": 99, "max_weight": 1e6}).largest_weight > 50


def test_a_weight_above_the_bound_stops_with_the_cell() -> None:
    with pytest.raises(
        GuardrailError, match=r"at most 3 for a click, found \d+\.\d in the cell hour=\d+, weekday=\d, logged_in=True, label=True"
    ):
        rake(cells(), **SETTINGS | {"max_weight": 3.0})


def test_small_cells_are_pooled_where_the_configuration_says_so() -> None:
    """The log-in leaves, hours are weighted in the smallest blocks that hold the bound; what is left is still balanced."""
    rare = cells()[lambda rows: rows["logged_in"] | ~rows["label"]]
    alone = rake(rare, **SETTINGS | {"min_cell": 0, "dimensions": ["hour", "weekday", "label"], "max_weight": 1e6})
    bound = {"small_cells": "pool", "max_weight": alone.largest_weight * 0.9}
    raking = rake(rare, **SETTINGS | bound)
    assert raking.pooled == ("logged_in", f"hours in blocks of {raking.block}")
    assert raking.largest_weight <= bound["max_weight"]
    finer = {block for block in (1, 2, 3, 4, 6, 8, 12) if block < raking.block}
    for block in finer:
        coarse = rare.assign(hour=rare["hour"] // block * block).groupby(list(CELL), as_index=False)["clicks"].sum()
        settings = SETTINGS | {"min_cell": 0, "dimensions": ["hour", "weekday", "label"], "max_weight": 1e6}
        assert rake(coarse, **settings).largest_weight > bound["max_weight"]
    mass = raking.weights["weight"] * raking.weights["clicks"]
    for name in ("hour", "weekday", "label"):
        sums = mass.groupby(raking.weights[name]).sum()
        assert sums.max() / sums.min() - 1 < 1e-8
    with pytest.raises(GuardrailError, match="at most 1.1 for a click"):
        rake(rare, **SETTINGS | bound | {"max_weight": 1.1})


def test_no_convergence_stops_with_the_distance() -> None:
    with pytest.raises(GuardrailError, match="after 2 sweeps, found .* off by 0.0"):
        rake(cells(), **SETTINGS | {"max_sweeps": 2, "tolerance": 1e-12})
    apart = pd.DataFrame([(0, 0, False, False, 500), (1, 0, True, True, 500), (1, 0, False, True, 500)], columns=[*CELL, "clicks"])
    with pytest.raises(GuardrailError, match="never occur together"):
        rake(apart, **SETTINGS | {"min_cell": 0, "dimensions": ["hour", "logged_in"], "max_sweeps": 50, "max_weight": 1e9})


def test_hours_that_no_sweep_can_balance_are_pooled_too() -> None:
    table = cells()
    only_at_five = table[~table["label"] | (table["hour"] == 5)]  # humans carry half of the loss, an hour a 24th of it
    with pytest.raises(GuardrailError, match="marginals equal"):
        rake(only_at_five, **{**SETTINGS, "max_weight": 1e6})
    raking = rake(only_at_five, **{**SETTINGS, "max_weight": 1e6, "small_cells": "pool"})
    assert raking.pooled == ("hours in blocks of 24",)


def test_unknown_parts_and_no_clicks_are_refused() -> None:
    with pytest.raises(InputError, match="found 9 clicks without"):
        rake(pd.concat([cells(), pd.DataFrame([(None, 0, True, True, 9)], columns=[*CELL, "clicks"])]), **SETTINGS)
    with pytest.raises(InputError, match="found none"):
        rake(cells().head(0), **SETTINGS)


def test_cells_are_in_local_time_across_a_daylight_saving_change(spark: SparkSession) -> None:
    rows = [
        ("1", datetime(2026, 3, 8, 6, 59), "US", True, False),  # Sunday 01:59 EST
        ("2", datetime(2026, 3, 8, 7, 0), "US", True, False),  # 03:00 EDT: 02:00 does not exist
        ("3", datetime(2026, 3, 8, 7, 30), "US", True, False),
        ("4", datetime(2026, 3, 8, 15, 0), "JP", False, True),  # Monday 00:00
    ]
    found = weight_cells(spark.createDataFrame(rows, LABELLED), zones=ZONES)
    expected = spark.createDataFrame(
        [(1, 6, True, False, 1), (3, 6, True, False, 2), (0, 0, False, True, 1)],
        "hour int, weekday int, logged_in boolean, label boolean, clicks bigint",
    )
    assert_df_equality(found, expected, ignore_row_order=True, ignore_nullable=True)


def test_each_click_gets_the_weight_of_its_cell(spark: SparkSession) -> None:
    rows = [
        ("1", datetime(2026, 3, 8, 6, 0), "US", True, False),
        ("2", datetime(2026, 3, 8, 6, 1), "US", True, False),
        ("3", datetime(2026, 3, 8, 6, 2), "US", True, True),
    ]
    labelled = spark.createDataFrame(rows, LABELLED)
    raking = rake(weight_cells(labelled, zones=ZONES).toPandas(), **SETTINGS | {"min_cell": 0})
    assert raking.dropped == ("hour", "weekday", "logged_in")
    expected = spark.createDataFrame(
        [(*row, weight) for row, weight in zip(rows, (0.75, 0.75, 1.5), strict=True)], LABELLED + ", weight double"
    )
    found = with_weights(labelled, raking, zones=ZONES)
    assert_df_equality(found, expected, ignore_row_order=True, ignore_nullable=True)


def test_a_click_gets_the_weight_of_its_block_of_hours(spark: SparkSession) -> None:
    times = [datetime(2026, 3, 8, 15, 30), datetime(2026, 3, 8, 18, 30), datetime(2026, 3, 9, 4, 0)]  # 0:30, 3:30, 13:00 in Tokyo
    rows = [(str(number), time, "JP", True, False) for number, time in enumerate(times)]
    labelled = spark.createDataFrame(rows, LABELLED)
    raking = rake(weight_cells(labelled, zones=ZONES).toPandas(), **SETTINGS | {"min_cell": 0})
    blocks = pd.DataFrame([(0, 0, True, False, 2, 1.5), (12, 0, True, False, 1, 3.0)], columns=[*CELL, "clicks", "weight"])
    found = with_weights(labelled, replace(raking, weights=blocks, block=6), zones=ZONES)
    assert sorted((row["click_id"], row["weight"]) for row in found.collect()) == [("0", 1.5), ("1", 1.5), ("2", 3.0)]


def test_a_click_of_no_raked_cell_fails(spark: SparkSession) -> None:
    labelled = spark.createDataFrame([("1", datetime(2026, 3, 8, 6, 0), "US", True, False)], LABELLED)
    other = rake(cells(), **SETTINGS)
    other = rake(other.weights[other.weights["hour"] == 12], **SETTINGS | {"min_cell": 0})
    with pytest.raises(Exception, match="has no sample weight"):
        with_weights(labelled, other, zones=ZONES).collect()
