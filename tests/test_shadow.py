"""Shadow decisions are what each version would have decided alone, and are compared with the first decisions click by click."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from pyspark.sql import functions as F

from slidr import data_files, deciding, shadow
from slidr.errors import InputError
from slidr.features import counters
from slidr.lake import Lake
from slidr.slice_spec import SlicePart, SliceSpec
from slidr.tables import CLICKS, CURRENT_DECISIONS, DECISIONS, SHADOW_DECISIONS, features_table
from slidr.version import Version
from tests import expressions, worlds
from tests.worlds import DAYS, END, FIRST, SPEC

BUSY = SliceSpec((SlicePart("ip_clicks_1h", cuts=(2.0,)),))


def versions() -> list:
    """Two that slice by device and login, one by a feature."""
    one = worlds.version("1")
    busy = replace(one, number="9", bundle=replace(one.bundle, slices=BUSY, thresholds={BUSY.parts[0].bands[0]: 0.9}))
    return [worlds.version("2"), worlds.version("3"), busy]


def score(lake: Lake, others: Sequence[Version]) -> deciding.Decided:
    return deciding.decide(lake, worlds.version("1"), FIRST, END, run_id="r", decided_time=worlds.NOW, shadows=others)


def test_each_version_says_what_it_would_alone(world: Lake) -> None:
    alone = score(world, [])
    assert (alone.new, alone.shadows) == (3, 0)
    before = worlds.versions_of(world, DECISIONS, CURRENT_DECISIONS)
    done = score(world, versions())
    assert (done.new, done.shadows) == (0, 3 * 32)
    commit = world.version(SHADOW_DECISIONS)
    assert score(world, versions()[::-1]).shadows == 0
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


def test_a_run_decides_and_compares_in_one_pass(world: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file of features is read once, however many versions score it; versions of another spec read theirs beside it."""
    other = replace(worlds.revised(spec=replace(SPEC, logged_in=False)), number="7")
    rows = world.read(features_table(SPEC)).drop("logged_in")
    world.append(rows, features_table(other.bundle.spec))
    run, works = deciding._run, []
    monkeypatch.setattr(deciding, "_run", lambda lake, work: (works.append(work), run(lake, work))[1])
    done = score(world, [*versions(), other])
    assert (done.new, done.shadows) == (3, 4 * 32)
    reads = Counter(read.file.path for read in works[0].reads if read.kind.startswith(("then", "logged")))
    assert set(reads.values()) == {1}
    assert len(reads) == sum(len(data_files.of(world, features_table(v.bundle.spec), DAYS).files) for v in (worlds.version("1"), other))
    stored = counters.prefer_logged(rows)
    alone = expressions.score_clicks(world.read(CLICKS), stored, other.bundle).select("click_id", "score", "is_invalid")
    kept = world.read(SHADOW_DECISIONS).where("model_version = '7'").select("click_id", "score", "is_invalid")
    assert sorted(map(tuple, kept.collect())) == sorted(map(tuple, alone.collect()))


def test_a_version_whose_features_are_missing_is_refused_before_anything_is_written(world: Lake) -> None:
    other = worlds.revised(spec=replace(SPEC, logged_in=False))
    before = worlds.versions_of(world, DECISIONS, CURRENT_DECISIONS)
    with pytest.raises(InputError, match="expected features of spec"):
        score(world, [other])
    assert worlds.versions_of(world, DECISIONS, CURRENT_DECISIONS) == before


def test_a_version_that_said_some_says_the_rest(world: Lake) -> None:
    three = versions()
    score(world, three[:1])
    assert score(world, three[:2]).shadows == 32
    counted = world.read(SHADOW_DECISIONS).groupBy("model_version").count().collect()
    assert sorted(map(tuple, counted)) == [("2", 32), ("3", 32)]
