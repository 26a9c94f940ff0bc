"""Shadow decisions are what each version would have decided alone, and are compared with the first decisions click by click."""

from collections import Counter
from dataclasses import replace

import pytest
from pyspark.sql import functions as F

from slidr import shadow
from slidr.errors import InputError
from slidr.features import counters
from slidr.lake import Lake
from slidr.slice_spec import SlicePart, SliceSpec
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, SHADOW_DECISIONS, features_table
from tests import expressions, worlds
from tests.worlds import DAYS, SPEC

BUSY = SliceSpec((SlicePart("ip_clicks_1h", cuts=(2.0,)),))


def versions() -> list:
    """Two that slice by device and login, one by a feature."""
    one = worlds.version("1")
    busy = replace(one, number="9", bundle=replace(one.bundle, slices=BUSY, thresholds={BUSY.parts[0].bands[0]: 0.9}))
    return [worlds.version("2"), worlds.version("3"), busy]


def shadows(lake: Lake):
    stored = counters.prefer_logged(lake.read(features_table(SPEC)))
    return shadow.shadow_decisions(lake.read(CLICKS), stored, versions(), run_id="r", decided_time=worlds.NOW)


def test_each_version_decides_as_it_would_alone(world: Lake) -> None:
    world.create(SHADOW_DECISIONS)
    before = worlds.versions_of(world, DECISIONS, CURRENT_DECISIONS)
    assert shadow.write(world, shadows(world), DAYS) == 3 * 32
    commit = world.version(SHADOW_DECISIONS)
    assert shadow.write(world, shadows(world), DAYS) == 0
    assert world.version(SHADOW_DECISIONS) == commit
    assert worlds.versions_of(world, DECISIONS, CURRENT_DECISIONS) == before
    stored = counters.prefer_logged(world.read(features_table(SPEC)))
    columns = ("click_id", "slice", "score", "threshold", "is_invalid", "basis")
    for version in versions():
        alone = expressions.score_clicks(world.read(CLICKS), stored, version.bundle).select(*columns)
        kept = world.read(SHADOW_DECISIONS).where(F.col("model_version") == version.number).select(*columns)
        assert sorted(map(tuple, kept.collect())) == sorted(map(tuple, alone.collect()))
    found = {row[0] for row in world.read(SHADOW_DECISIONS).select("basis").collect()}
    assert found == {"model", "unseen_slice", "upstream", "no_features"}
    differences_are_those_counted_by_hand(world)


def differences_are_those_counted_by_hand(world: Lake) -> None:
    inside = F.col("click_date") == F.lit(DAYS[0])
    rows = shadow.differences(world, DAYS, inside, ["2", "3"])
    decided = {row["click_id"]: row for row in world.read(DECISIONS).where(inside).collect()}
    expected: Counter = Counter()
    for row in world.read(SHADOW_DECISIONS).where(inside & F.col("model_version").isin("2", "3")).collect():
        first = decided.get(row["click_id"])
        if first:
            both = {(False, False): 0, (True, True): 1, (True, False): 2, (False, True): 3}[first["is_invalid"], row["is_invalid"]]
            at = (row["model_version"], first["report_slice"], first["advertiser_id"], first["currency"])
            expected[at, shadow.KINDS[both]] += 1
            if both > 1:
                expected[at, f"cost_only_{('decided', 'shadow')[both - 2]}"] += first["cost_micros"] or 0
    numbers = [*shadow.KINDS, "cost_only_decided", "cost_only_shadow"]
    found = Counter({(tuple(row[name] for name in ("model_version", *shadow.BY)), name): row[name] for row in rows for name in numbers})
    assert +found == +expected
    assert {kind for _, kind in +found} == set(numbers) - ({"cost_only_decided", "only_decided_invalid"} - {kind for _, kind in +expected})
    totals = shadow.summed(rows, ["model_version"])
    assert not {name for row in totals for name in row} & set(shadow.MONEY)  # sums are per currency
    for row in shadow.summed(rows, ["model_version", "currency"]):
        at = [key for key, _ in found if (key[0], key[3]) == (row["model_version"], row["currency"])]
        assert [row[name] for name in shadow.MONEY] == [sum(found[key, name] for key in set(at)) for name in shadow.MONEY]
    assert [row["clicks"] for row in totals] == [len(decided)] * 2
    for row in totals:
        apart = sum(found[at, kind] for at, kind in found if at[0] == row["model_version"] and kind.startswith("only_"))
        assert row["differ"] == pytest.approx(apart / len(decided))
    assert totals == sorted(totals, key=lambda row: -row["differ"])


def test_versions_of_two_specs_are_refused(world: Lake) -> None:
    other = worlds.revised(spec=replace(SPEC, logged_in=False))
    with pytest.raises(InputError, match="one feature spec"):
        shadow.shadow_decisions(world.read(CLICKS), world.read(CLICKS), [worlds.version("1"), other], run_id="r", decided_time=worlds.NOW)
