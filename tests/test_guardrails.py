"""Each check passes on good numbers and fails on those that it is about. No Spark; the counts themselves: test_guardrails_counts.py."""

import math
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from slidr import config
from slidr.curves import TOTAL, Curve, Lead, curves
from slidr.errors import GuardrailError, InputError
from slidr.evaluation import Judgement
from slidr.guardrails import (
    Check,
    Measured,
    Others,
    beside,
    check_champion,
    check_model,
    check_replay,
    check_training_data,
    reference_of,
    require,
    rows,
)
from slidr.guardrails.champion import COUNTS, Alike
from slidr.guardrails.checks import poisson_at_least, poisson_at_most
from slidr.guardrails.data import CONFLICT
from slidr.guardrails.drift import psi
from slidr.guardrails.hours import by_week, check_densities, dispersion, pooled_hours
from slidr.guardrails.queries import FEATURE_BY_DAY, LABELS_BY_DAY, query
from slidr.ingest import settle
from slidr.run import Job, _attempt
from slidr.tally import bins_of
from slidr.thresholds import Calibration, SliceThreshold, Solution

BOUNDS = config.load(config.shipped("local.yaml")).guardrails
DENSITY = {"min_hour_clicks": 100, "min_density": 0.2}
FIRST = date(2026, 1, 5)  # a Monday


def days_from(first: date, count: int) -> list[date]:
    return [first + timedelta(days=offset) for offset in range(count)]


def hours(days: int = 7, clicks: int = 1000, humans: float = 0.1, purchasing: float = 0.04, seed: int = 0) -> pd.DataFrame:
    """Counts by hour of the given shares; all of it is chance of single clicks."""
    random = np.random.default_rng(seed)
    made = [(day, hour, int(random.poisson(clicks))) for day in days_from(FIRST, days) for hour in range(24)]
    table = pd.DataFrame(made, columns=["day", "hour", "clicks"])
    bought, rfm = (random.binomial(table["clicks"], part) for part in (purchasing, humans - purchasing))
    rest = {"no_user": random.binomial(table["clicks"], 0.5), "no_address": 0, "late": random.binomial(table["clicks"], 0.01)}
    return table.assign(humans=bought + rfm, purchasing=bought, high_rfm=rfm, **rest)


def histogram(days: list[date], shift: int = 0, clicks: int = 10_000) -> pd.DataFrame:
    """Two features by bin: `a` moves by `shift` bins, `b` never, `weekday_sin` differs from day to day."""
    shape = np.array([0.4, 0.3, 0.2, 0.1])
    made = [(day, "a", number + shift, int(clicks * part)) for day in days for number, part in enumerate(shape)]
    made += [(day, "b", number, int(clicks * part)) for day in days for number, part in enumerate(shape)]
    made += [(day, "weekday_sin", day.weekday(), clicks) for day in days]
    return pd.DataFrame(made, columns=["day", "feature", "bin", "clicks"])


def measured(table: pd.DataFrame | None = None, **changes: Any) -> Measured:
    """A good week, with two weeks of clicks before it; `changes` replace parts of it."""
    table = hours() if table is None else table
    days = sorted(set(table["day"]))
    before = [table.assign(day=[day - timedelta(weeks=week) for day in table["day"]]) for week in (1, 2)]
    others = {
        "clicks": pd.concat([*before, table])[["day", "hour", "clicks"]],
        "orders": table[["day", "hour"]].assign(orders=table["purchasing"]),
        "rejects": pd.DataFrame([("no id", 10), (CONFLICT, 5)], columns=["reason", "rejected"]),
        "kept": int(table["clicks"].sum()),
        "first_day": FIRST - timedelta(weeks=3),
        "look_back_days": 7,
        "spec_id": "abc",
    }
    given = {name: changes.pop(name) for name in list(changes) if name in others}
    whole = {"days": tuple(days), "training_days": tuple(days[:4]), "hours": table, "histogram": histogram(days)}
    whole["missing"] = pd.DataFrame({"day": days[:1], "missing": 1})
    return Measured(**{**whole, **changes, "others": Others(**{**others, **given})})


def data_checks(m: Measured | None = None, reference: dict[str, Any] | None = None, **bounds: Any) -> list[Check]:
    return check_training_data(m or measured(), bounds=BOUNDS.model_copy(update=bounds), reference=reference)


def failed(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.passed}


def outage(table: pd.DataFrame, day: int, first: int, last: int) -> pd.DataFrame:
    """Purchase labels missing in some hours: what was labelled by purchase is human no more, high RFM still is."""
    hit = (table["day"] == FIRST + timedelta(days=day)) & table["hour"].between(first, last)
    return table.assign(
        humans=table["humans"].where(~hit, table["humans"] - table["purchasing"]), purchasing=table["purchasing"].where(~hit, 0)
    )


def test_a_good_week_passes_every_check() -> None:
    checks = data_checks()
    assert failed(checks) == {}
    assert {check.verdict for check in checks} == {"passed"}
    assert all(check.query.startswith("SELECT ") for check in checks)


# Densities by hour.


def test_missing_purchase_labels_are_found_though_high_rfm_hides_them_from_human_density() -> None:
    found = failed(check_densities(outage(hours(), 2, 5, 7), **DENSITY))
    assert list(found) == ["purchase density of an hour"]
    check = found["purchase density of an hour"]
    assert check.observed == 0
    assert [f"2026-01-07 {hour} UTC: 0 purchase" in check.advice for hour in ("05h", "06h", "07h")] == [True] * 3
    assert "04h" not in check.advice
    assert "DATE'2026-01-07'" in check.query


def test_missing_high_rfm_labels_are_found_though_purchases_hide_them() -> None:
    table = hours(purchasing=0.06)
    hit = (table["day"] == FIRST) & (table["hour"] == 9)
    table = table.assign(humans=table["humans"].where(~hit, table["purchasing"]), high_rfm=table["high_rfm"].where(~hit, 0))
    assert list(failed(check_densities(table, **DENSITY))) == ["high-RFM density of an hour"]


def test_missing_humans_are_found_and_the_hours_named() -> None:
    found = failed(check_densities(outage(hours(humans=0.04), 1, 20, 22), **DENSITY))
    assert set(found) == {"human density of an hour", "purchase density of an hour"}
    assert "2026-01-06 20h UTC" in found["human density of an hour"].advice


def test_folding_over_weeks_hides_an_outage_of_hours_and_finds_one_of_the_same_hours_every_week() -> None:
    once = failed(check_densities(outage(hours(days=28), 2, 5, 7), **DENSITY))
    assert list(once) == ["purchase density of an hour"]
    # Few clicks an hour: only all weeks together are enough to see it.
    weekly = hours(days=28, clicks=200, humans=0.02, purchasing=0.02)
    for week in range(4):
        weekly = outage(weekly, 7 * week, 6, 6)
    assert "purchase density of an hour of the week" in failed(check_densities(weekly, **DENSITY))
    assert not any("of the week" in check.name for check in check_densities(hours(days=7), **DENSITY))


def test_a_density_just_above_the_bound_passes_and_just_below_fails() -> None:
    table = hours(clicks=50_000)
    density = table["humans"].sum() / table["clicks"].sum()
    for factor, passes in ((0.25, True), (0.15, False)):
        low = table.copy()
        low.loc[30, "humans"] = int(factor * density * low.loc[30, "clicks"])
        check = next(check for check in check_densities(low, **DENSITY) if check.name == "human density of an hour")
        assert check.passed is passes
        assert check.observed == pytest.approx(factor, abs=0.01)


def test_sparse_conversions_do_not_stop_by_chance() -> None:
    """227 conversions over 72 hours: about 3 an hour, so single hours say nothing."""
    tables = [hours(days=3, clicks=1389, humans=0.00227, purchasing=0.00227, seed=seed) for seed in range(100)]
    assert sum(bool(failed(check_densities(table, **DENSITY))) for table in tables) <= 1


def test_many_hours_that_are_just_large_enough_do_not_stop_by_chance() -> None:
    """168 hours with 10 humans expected each: one with 1 or 2 is chance, one with none is not."""
    tables = [hours(clicks=1050, humans=0.0105, purchasing=0.0105, seed=seed) for seed in range(60)]
    assert sum(bool(failed(check_densities(table, **DENSITY))) for table in tables) <= 1
    assert failed(check_densities(outage(tables[0], 1, 6, 8), **DENSITY))


def test_clicks_of_few_people_at_a_time_do_not_stop_by_chance_but_an_outage_does() -> None:
    """People's clicks come in visits of about 8, so that hours vary far more than single clicks would."""
    stops = 0
    for seed in range(15):
        table = hours(days=10, clicks=330, humans=0.04, purchasing=0.04, seed=seed)
        visits = 8 * np.random.default_rng(seed).poisson(table["clicks"] * 0.13 / 8)
        table = table.assign(high_rfm=visits, humans=table["purchasing"] + visits)
        stops += bool(failed(check_densities(table, **DENSITY)))
    assert stops <= 1
    big = table.assign(clicks=table["clicks"] * 20, high_rfm=table["high_rfm"] * 20 + 1, humans=table["humans"] * 20 + 1)
    big.loc[30:32, ["high_rfm", "humans"]] = 0
    assert "high-RFM density of an hour" in failed(check_densities(big, **DENSITY))


def test_dispersion_is_of_the_usual_hours_and_bounded() -> None:
    random = np.random.default_rng(1)
    plain = pd.DataFrame({"found": random.poisson(50, 500), "expected": 50.0})
    assert dispersion(plain) == pytest.approx(1.0, abs=0.25)
    visits = pd.DataFrame({"found": 5 * random.poisson(10, 500), "expected": 50.0})
    assert dispersion(visits) == pytest.approx(5.0, abs=1.5)
    assert dispersion(visits.assign(found=visits["found"].where(visits.index > 100, 0))) < 10
    assert dispersion(visits.assign(found=0)) == 10


def test_an_outage_of_sparse_conversions_is_found_in_the_pool() -> None:
    table = hours(days=3, clicks=1389, humans=0.006, purchasing=0.006, seed=1)
    found = failed(check_densities(outage(table, 1, 6, 11), **DENSITY))
    assert "2026-01-06" in found["purchase density of an hour"].advice


def test_small_hours_are_pooled_within_their_day_and_the_rest_joins_the_last_pool() -> None:
    rows = [("Mon", 0, 60, 6), ("Mon", 1, 60, 6), ("Mon", 2, 500, 50), ("Mon", 3, 60, 6), ("Tue", 0, 60, 6)]
    table = pd.DataFrame(rows, columns=["day", "hour", "clicks", "humans"])
    found = pooled_hours(table, found="humans", expected=table["clicks"] * 0.1, min_clicks=100, min_expected=10)
    assert found["name"].tolist() == ["Mon 02h UTC", "Mon 00h, 01h, 03h UTC"]  # Tuesday has no pool: not judged
    assert found["clicks"].tolist() == [500, 180]
    assert found["expected"].tolist() == pytest.approx([50, 18])
    assert found["ratio"].tolist() == pytest.approx([1, 1])


def test_hours_of_the_week() -> None:
    table = pd.DataFrame(
        [(FIRST, 3, 5), (FIRST + timedelta(days=7), 3, 6), (FIRST + timedelta(days=6), 3, 7)], columns=["day", "hour", "n"]
    )
    assert by_week(table).sort_values("n")[["day", "hour", "n"]].values.tolist() == [["Sun", 3, 7], ["Mon", 3, 11]]


def test_labels_that_a_source_has_not_are_not_judged() -> None:
    checks = {check.name: check for check in check_densities(hours(humans=0.04), **DENSITY)}
    assert checks["high-RFM density of an hour"].verdict == "not judged"


# The other checks on data.


def test_no_purchases_at_all_stop_with_a_clear_message() -> None:
    checks = data_checks(measured(hours(purchasing=0.0)))
    assert list(failed(checks)) == ["purchasing clicks"]
    with pytest.raises(GuardrailError, match="purchasing clicks: observed 0, bound 200; train on more days") as stopped:
        require(checks, None)
    assert stopped.value.exit_code == 4


def test_no_account_with_a_high_score_stops_where_some_are_expected() -> None:
    gone = measured(hours(humans=0.04))
    assert list(failed(data_checks(gone))) == ["high-RFM clicks"]
    assert failed(data_checks(gone, min_high_rfm=0)) == {}


def test_orders_that_did_not_come_in_are_found_by_their_own_hour() -> None:
    m = measured()
    orders = m.others.orders.copy()
    orders.loc[30:32, "orders"] = 0
    found = failed(data_checks(replace(m, others=replace(m.others, orders=orders))))
    assert list(found) == ["hours without a purchase"]
    assert found["hours without a purchase"].observed == 3
    assert "2026-01-06 06h UTC: 0 orders" in found["hours without a purchase"].advice
    few = replace(m, others=replace(m.others, orders=orders.assign(orders=(orders["orders"] > 45).astype(int))))
    assert failed(data_checks(few)) == {}  # one an hour at most: an hour without one is chance


def test_a_day_with_one_class_is_found() -> None:
    for all_human in (True, False):
        table = hours()
        hit = table["day"] == FIRST + timedelta(days=3)
        table["humans"] = table["humans"].where(~hit, table["clicks"] if all_human else 0)
        found = failed(data_checks(measured(table)))
        assert found["days with one class of label"].observed == 1
        assert "2026-01-08" in found["days with one class of label"].advice


@pytest.mark.parametrize(
    ("factor", "names"),
    [(0.02, ["an hour, lowest"]), (30, ["an hour, highest", "a day, highest"]), (0.3, []), (3, [])],
)
def test_click_volume_of_an_hour_against_earlier_weeks(factor: float, names: list[str]) -> None:
    m = measured()
    clicks = m.others.clicks.copy()
    hit = (clicks["day"] == FIRST + timedelta(days=1)) & (clicks["hour"] == 6)
    clicks["clicks"] = clicks["clicks"].where(~hit, (clicks["clicks"] * factor).astype(int))
    found = failed(data_checks(replace(m, others=replace(m.others, clicks=clicks))))
    assert list(found) == [f"click volume of {name}" for name in names]
    assert all("2026-01-06" in check.advice and "DATE'2025-12-30'" in check.query for check in found.values())


def test_click_volume_of_a_day_and_hours_without_a_click() -> None:
    m = measured()
    clicks = m.others.clicks
    half = clicks.assign(clicks=clicks["clicks"].where(clicks["day"] != FIRST, (clicks["clicks"] * 0.4).astype(int)))
    assert list(failed(data_checks(replace(m, others=replace(m.others, clicks=half))))) == ["click volume of a day, lowest"]
    gone = clicks[(clicks["day"] != FIRST) | (clicks["hour"] != 4)]  # an hour without clicks has no row
    found = failed(data_checks(replace(m, others=replace(m.others, clicks=gone))))
    assert found["click volume of an hour, lowest"].observed == 0
    assert "04h" in found["click volume of an hour, lowest"].advice


def test_without_an_earlier_week_volume_is_not_judged_and_says_so() -> None:
    m = measured()
    recent = m.others.clicks[m.others.clicks["day"] >= FIRST]
    checks = data_checks(replace(m, others=replace(m.others, clicks=recent, first_day=FIRST)))
    volume = [check for check in checks if "volume" in check.name]
    assert [(check.verdict, "week before" in check.advice) for check in volume] == [("not judged", True)] * 4
    # The lake's first day may be half a day: nothing is compared with it.
    begins = FIRST - timedelta(weeks=1)
    clicks = m.others.clicks[(m.others.clicks["day"] > begins) | ((m.others.clicks["day"] == begins) & (m.others.clicks["hour"] >= 20))]
    assert failed(data_checks(replace(m, others=replace(m.others, clicks=clicks, first_day=begins)))) == {}
    assert failed(data_checks(replace(m, others=replace(m.others, clicks=clicks, first_day=begins - timedelta(days=1)))))


@pytest.mark.parametrize(("column", "name"), [("no_user", "user"), ("no_address", "address")])
def test_an_hour_that_lost_its_users_or_addresses_is_found(column: str, name: str) -> None:
    table = hours()
    table.loc[50, column] = table.loc[50, "clicks"]
    found = failed(data_checks(measured(table)))
    assert list(found) == [f"clicks of an hour without {name}"]
    assert "2026-01-07 02h UTC" in found[f"clicks of an hour without {name}"].advice


def test_a_feature_that_moved_between_the_halves_is_named() -> None:
    days = days_from(FIRST, 7)
    moved = pd.concat([histogram(days[:3]), histogram(days[3:], shift=2)])
    found = failed(data_checks(measured(histogram=moved), max_day_drift=99))
    assert list(found) == ["drift of a"]
    assert "first half" in found["drift of a"].advice
    assert "max(a)" not in found["drift of a"].query
    assert "avg(a)" in found["drift of a"].query


def test_the_training_days_are_compared_with_what_the_champion_learned_from() -> None:
    days = days_from(FIRST, 7)
    champions = reference_of(histogram(days), days[:4])
    assert champions["days"] == [str(day) for day in days[:4]]
    assert champions["shares"]["a"] == {"0": 0.4, "1": 0.3, "2": 0.2, "3": 0.1}
    moved = measured(histogram=histogram(days, shift=2))  # as a whole: its halves are alike
    assert failed(data_checks(moved)) == {}
    found = failed(data_checks(moved, reference=champions))
    assert list(found) == ["drift of a"]
    assert "the champion learned from (2026-01-05 to 2026-01-08)" in found["drift of a"].advice
    later = pd.concat([histogram(days[:4]), histogram(days[4:], shift=2)])  # only training days count here
    assert failed(data_checks(measured(histogram=later), reference=champions, max_day_drift=99)) == {}
    assert failed(data_checks(moved, reference={**champions, "bins": 0})) == {}  # other bins: the halves are compared


def test_a_feature_that_is_broken_on_one_day_is_named_with_the_day() -> None:
    days = days_from(FIRST, 7)
    broken = pd.concat([histogram(days[:5]), histogram(days[5:6], shift=3), histogram(days[6:])])
    found = failed(data_checks(measured(histogram=broken), max_drift=99))
    assert list(found) == ["drift of a on one day"]
    assert "2026-01-10 against" in found["drift of a on one day"].advice


def test_psi() -> None:
    """(0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5), and a bin that one of them lacks counts with a share of 0.0001."""
    assert psi({"1": 0.6, "2": 0.4}, {"1": 0.5, "2": 0.5}) == pytest.approx(0.1 * math.log(1.2) - 0.1 * math.log(0.8))
    assert psi({"1": 1.0}, {"1": 1.0}) == 0
    assert psi({"1": 0.9, "0": 0.1}, {"1": 1.0}) == pytest.approx(-0.1 * math.log(0.9) + (0.1 - 1e-4) * math.log(0.1 / 1e-4))


def test_bins() -> None:
    counters = np.array([math.nan, 0, 0.5, 1, 1.9, 2, 3, 4, 604_800, 1e30])
    assert bins_of(counters, bounded=False).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 21, 47]
    shares = np.array([math.nan, -1, -0.95, 0, 0.05, 0.99, 1, 0.3, 0.2, 0.1])
    assert bins_of(shares, bounded=True).tolist() == [0, 2, 2, 12, 12, 21, 22, 15, 14, 13]


@pytest.mark.parametrize(
    ("rejects", "names"),
    [
        ([("no id", 4000)], ["share of rejects"]),
        ([(CONFLICT, 1800)], ["share of conflicting duplicates"]),
        ([("no id", 1000), (CONFLICT, 1000)], []),
        ([], []),
    ],
)
def test_rejects_and_conflicting_duplicates(rejects: list[tuple[str, int]], names: list[str]) -> None:
    found = failed(data_checks(measured(rejects=pd.DataFrame(rejects, columns=["reason", "rejected"]))))
    assert list(found) == names
    assert CONFLICT == settle.CONFLICT


def test_late_clicks() -> None:
    table = hours()
    assert list(failed(data_checks(measured(table.assign(late=table["clicks"] // 8))))) == ["share of late clicks"]


def test_labelled_clicks_without_features_of_the_spec() -> None:
    days = days_from(FIRST, 7)
    missing = pd.DataFrame({"day": [days[1], days[4]], "missing": [100, 5000]})
    found = failed(data_checks(measured(missing=missing)))
    assert list(found) == ["labelled clicks of a day without features"]
    assert "5000 on 2026-01-09, spec abc; 1 days" in found["labelled clicks of a day without features"].advice
    table = hours()
    nothing = measured(table[table["day"] != days[2]], days=tuple(days), missing=pd.DataFrame({"day": [days[2]], "missing": [9]}))
    assert failed(data_checks(nothing))["labelled clicks of a day without features"].observed == 1


def test_days_missing_from_the_look_back() -> None:
    m = measured()
    gap = m.others.clicks[m.others.clicks["day"] != FIRST - timedelta(days=7)]
    found = failed(data_checks(replace(m, others=replace(m.others, clicks=gap))))
    assert list(found) == ["days missing from the look-back"]
    assert "2025-12-29" in found["days missing from the look-back"].advice
    for other in (
        {"look_back_days": 6},
        {"first_day": FIRST - timedelta(days=6)},
    ):  # further back than a counter looks; the lake's boundary
        assert failed(data_checks(replace(m, others=replace(m.others, clicks=gap, **other)))) == {}


def test_no_clicks_at_all_stop() -> None:
    empty = measured(hours().head(0), days=tuple(days_from(FIRST, 7)))
    assert "purchasing clicks" in failed(data_checks(empty))


# The model.


def metrics(fpr: float = 0.03, ivr: float = 0.2, **slices: dict[str, float]) -> pd.DataFrame:
    base = {
        "clicks": 10_000,
        "purchasing": 1000,
        "purchasing_invalid": 30,
        "fpr": 0.03,
        "heavy": 1000,
        "heavy_invalid": 400,
        "coverage": 0.4,
    }
    made = [{**base, "slice": name, **given} for name, given in ({"desktop/guest": {}, "mobile/login": {}} | slices).items()]
    bought = {"purchasing": 0, "purchasing_invalid": 0} if math.isnan(fpr) else {"purchasing_invalid": round(fpr * base["purchasing"])}
    return pd.DataFrame([*made, {**base, **bought, "slice": TOTAL, "fpr": fpr, "ivr": ivr}])


def curve(invalid: int, purchasing_invalid: int = 20) -> Curve:
    """1000 of 10,000 clicks purchase. Of those scored 0.9 and above, `purchasing_invalid` do; 3000 more clicks, 500 of them
    purchasing, are scored 0.5."""
    bins = [(9000, invalid, purchasing_invalid), (5000, 3000, 500), (1000, 7000 - invalid, 500 - purchasing_invalid)]
    rows = [("desktop", number, clicks, bought, 0, 0) for number, clicks, bought in bins]
    return curves(pd.DataFrame(rows, columns=["slice", "bin", "clicks", "purchasing", "high_rfm", "heavy"]))["desktop"]


def calibrated(status: str = "optimal", **outcomes: str) -> Calibration:
    slices = tuple(SliceThreshold(name, *[0] * 10, outcome=outcome) for name, outcome in outcomes.items())
    solution = Solution("quadratic", slices, 0.5, 0.0, 0.0, (0.0, 0.0), "CLARABEL", status)
    shares = dict.fromkeys(("fpr_max", "min_coverage", "fit_fpr", "effective", "resolution"), 0.0)
    kept = {"solutions": {"quadratic": solution}, "refused": {}, "purchasing": 0, "confidence": 0.95}
    return Calibration("quadratic", fpr_budget=0.02, knee=(0.0, 0.0, 0.0), **kept, **shares)


FITTED = {"desktop/guest": "quadratic", "mobile/login": "linear"}


def lead(**made: Curve) -> Lead | None:
    methods = {name: {"desktop": found} for name, found in made.items()}
    return Judgement("mlp", calibrated(**FITTED), {"judging": methods}, pd.DataFrame(), pd.DataFrame(), None, "").lead()


def model_checks(table: pd.DataFrame | None = None, **given: Any) -> list[Check]:
    ivr = {"mlp": 2500, "logistic": 1500, "champion": 4000}
    usual = {"lead": lead(**{name: curve(count) for name, count in ivr.items()}), "calibration": calibrated(**FITTED)}
    return check_model(metrics() if table is None else table, **{**usual, **given}, bounds=BOUNDS, days=[FIRST])


@pytest.mark.parametrize(
    ("fpr", "ivr", "names"),
    [
        (0.03, 0.2, []),
        (0.045, 0.2, []),  # 45 of 1000: 95% interval 3.3 to 6.0 %
        (0.06, 0.2, ["judging FPR, lower end of its 95% interval"]),  # 4.6 to 7.7 %
        (math.nan, 0.2, ["purchasing clicks of the judging days", "judging FPR, lower end of its 95% interval"]),
        (0.03, 0.7, ["judging IVR, highest"]),
        (0.03, 0.0, ["judging IVR, lowest"]),
        (0.03, math.nan, ["judging IVR, highest", "judging IVR, lowest"]),
    ],
)
def test_model(fpr: float, ivr: float, names: list[str]) -> None:
    assert list(failed(model_checks(metrics(fpr, ivr)))) == names


def test_fpr_of_a_slice() -> None:
    bad = {"purchasing_invalid": 300, "fpr": 0.3}
    assert list(failed(model_checks(metrics(**{"phone/guest": bad, "tablet/guest": bad})))) == ["FPR of phone/guest", "FPR of tablet/guest"]
    few = {"purchasing": 20, "purchasing_invalid": 15, "fpr": 0.75}
    chance = {"purchasing": 60, "purchasing_invalid": 11, "fpr": 11 / 60}  # 9 are allowed
    assert failed(model_checks(metrics(**{"phone/guest": few, "tablet/guest": chance}))) == {}
    shown = next(
        check for check in model_checks(metrics(**{"phone/guest": {"purchasing_invalid": 90, "fpr": 0.09}})) if "FPR of" in check.name
    )
    assert (shown.name, shown.observed) == ("FPR of phone/guest", 0.09)


def test_an_fpr_of_few_purchasing_clicks_says_nothing() -> None:
    few = metrics(fpr=0.1).replace({"purchasing": {1000: 40}, "purchasing_invalid": {100: 4}})  # 4 of 40: the interval begins at 2.8 %
    assert list(failed(model_checks(few))) == ["purchasing clicks of the judging days"]


def test_coverage_of_a_slice() -> None:
    bad = {"heavy_invalid": 10, "coverage": 0.01}
    assert list(failed(model_checks(metrics(**{"phone/guest": bad})))) == ["robotic coverage of phone/guest"]
    none, few = {"heavy": 0, "heavy_invalid": 0, "coverage": math.nan}, {"heavy": 100, "heavy_invalid": 0, "coverage": 0.0}
    assert failed(model_checks(metrics(**{"phone/guest": none, "tablet/guest": few}))) == {}


def test_slices_that_calibration_did_not_fit() -> None:
    outcomes = {"desktop/guest": "global: 3 purchasing clicks, 30 are needed", "mobile/login": "linear"}
    assert failed(model_checks(calibration=calibrated(**outcomes))) == {}  # half of the clicks
    found = failed(model_checks(calibration=calibrated(**{**outcomes, "mobile/login": "global: the curve has 1 point"})))
    assert list(found) == ["clicks of slices that calibration did not fit"]
    assert "3 purchasing clicks" in found["clicks of slices that calibration did not fit"].advice
    assert failed(model_checks(calibration=calibrated()))["clicks of slices that calibration did not fit"].observed == 1


def test_a_solver_that_did_not_find_its_optimum_stops() -> None:
    assert list(failed(model_checks(calibration=calibrated("optimal_inaccurate", **FITTED)))) == ["calibration solved to its optimum"]
    assert failed(model_checks(calibration=calibrated("not needed", **FITTED))) == {}


def test_a_baseline_that_beats_the_network_stops() -> None:
    def checks(**made: Curve) -> list[Check]:
        return model_checks(lead=lead(**made))

    found = failed(checks(mlp=curve(2000), logistic=curve(1000), velocity=curve(2100)))
    assert list(found) == ["lead of the best baseline over the network, in IVR"]
    assert "20 of 1000 purchasing clicks invalid, velocity has IVR 0.2100, the network 0.2000: a baseline beats" in str(found)
    # One purchasing click more than the budget allows, and the network would be far ahead: that is chance.
    by_chance = checks(mlp=curve(2200, purchasing_invalid=21), velocity=curve(2100))
    assert failed(by_chance) == {}
    assert "the network 0.0000, which may be chance" in str(by_chance)
    without = checks(mlp=curve(2000), champion=curve(2100))
    assert next(check for check in without if "baseline" in check.name).verdict == "not judged"


# The champion.


def counts(**given: int) -> dict[str, int]:
    usual = {"clicks": 10_000, "changed": 500, "old_invalid": 2000, "new_invalid": 2100, "cost_micros": 10**9, "changed_micros": 5 * 10**7}
    return {**usual, "credited_micros": 3 * 10**7, "charged_micros": 2 * 10**7, **given}


def alike(slices: dict[str, Any] | None = None, money: dict[str, Any] | None = None, **advertiser: int) -> Alike:
    def table(names: list[str], *made: dict[str, Any]) -> pd.DataFrame:
        return pd.DataFrame(list(made), columns=[*names, *COUNTS])

    return Alike(
        "7",
        table(["slice"], {"slice": "desktop", **counts()}, {"slice": "phone", **counts(**slices or {})}),
        table(["currency"], {"currency": "EUR", **counts()}, {"currency": "USD", **counts(**money or {})}),
        table(
            ["advertiser_id", "currency"],
            {"advertiser_id": "x", "currency": "USD", **counts()},
            {"advertiser_id": "y", "currency": "USD", **counts(**advertiser)},
        ),
        undecided=3,
    )


def champion_checks(found: Alike | None, **bounds: Any) -> list[Check]:
    return check_champion(
        found, champion=found.version if found else None, why="there is no champion", bounds=BOUNDS.model_copy(update=bounds), days=[FIRST]
    )


def test_a_model_like_the_champion_passes() -> None:
    checks = champion_checks(alike())
    assert failed(checks) == {}
    assert "3 more lack features" in next(check for check in checks if check.name.startswith("clicks decided")).advice


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"slices": {"new_invalid": 5500}}, ["IVR jump of phone"]),
        ({"slices": {"new_invalid": 0, "old_invalid": 3100}}, ["IVR jump of phone"]),
        ({"slices": {"new_invalid": 400, "old_invalid": 0, "clicks": 400}}, []),  # a small slice
        ({"slices": {"changed": 5000}}, ["clicks decided otherwise than by the champion"]),
        ({"money": {"changed_micros": 3 * 10**8}}, ["money decided otherwise in USD, share"]),
        (
            {"money": {"changed_micros": 6 * 10**10, "cost_micros": 10**12}},
            ["money decided otherwise in USD, micro-units"],
        ),
        ({"changed": 5100}, ["one advertiser's clicks decided otherwise"]),
        ({"changed": 150, "clicks": 150}, []),  # a small advertiser
        ({"changed_micros": 6 * 10**8}, ["one advertiser's money decided otherwise in USD, share"]),
    ],
)
def test_disagreement_in_clicks_and_money(changes: dict[str, Any], names: list[str]) -> None:
    found = failed(champion_checks(alike(**changes)))
    assert list(found) == names
    assert all("y" in check.advice for check in found.values() if "advertiser" in check.name)


def test_each_slice_whose_ivr_jumps_is_a_row_and_the_largest_jump_is_shown_where_none_does() -> None:
    def jumps(desktop: int, phone: int) -> list[tuple[str, float]]:
        found = alike(slices={"new_invalid": phone})
        found.slices.loc[0, "new_invalid"] = desktop
        return [(check.name, round(check.observed, 2)) for check in champion_checks(found) if "jump" in check.name]

    assert jumps(6000, 7000) == [("IVR jump of desktop", 0.4), ("IVR jump of phone", 0.5)]
    assert jumps(1000, 2100) == [("IVR jump of desktop", 0.1)]


def test_a_champion_that_cannot_be_compared_stops_where_it_must_be() -> None:
    def stopped(found: Alike | None, bound: float) -> dict[str, Check]:
        bounds = BOUNDS.model_copy(update={"min_compared": bound})
        return failed(check_champion(found, champion="7", why="champion 7: no features", bounds=bounds, days=[FIRST]))

    assert stopped(None, 0.0) == {}
    assert "champion 7: no features; build features" in stopped(None, 0.5)["judging clicks that the champion decides too"].advice
    few = replace(alike(), undecided=1_000_000)
    assert list(stopped(few, 0.5)) == ["judging clicks that the champion decides too"]
    assert stopped(alike(), 0.5) == {}


def test_without_a_champion_its_checks_are_left_out_and_say_so() -> None:
    checks = champion_checks(None)
    assert {(check.verdict, check.advice) for check in checks} == {("not judged", "there is no champion")}
    assert len(checks) == 6
    nothing = replace(alike(), slices=alike().slices.head(0))
    assert {check.verdict for check in champion_checks(nothing, min_compared=0.0)[1:]} == {"not judged"}
    free = replace(alike(), currencies=alike().currencies.assign(cost_micros=0))
    assert [check.verdict for check in champion_checks(free) if check.name == "money decided otherwise"] == ["not judged"]


# What comes of it.


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
        "since_close": 30.0,
    }
    bounds = {"max_changed_share": 0.3, "max_money_micros": 1000, "max_advertiser_micros": 600, "max_fpr": 0.05, "max_days_after_close": 60}
    return check_replay(**good | changes, bounds=config.load(config.shipped("local.yaml")).replay.model_copy(update=bounds))


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


def test_replay_age_against_the_billing() -> None:
    assert list(failed(replay(since_close=60.5))) == ["days since the billing of the oldest month"]
    assert failed(replay(since_close=-3.0)) == failed(replay(since_close=math.nan)) == {}


def test_require_lists_every_failure_unless_overridden_with_a_reason() -> None:
    checks = [
        Check("one", 0.5, 0.2, False, "do this", query="SELECT 1"),
        Check("two", 3, 9, True, ""),
        Check("three", 7, 8, False, "do that", True),
    ]
    with pytest.raises(GuardrailError) as stopped:
        require(checks, None)
    for part in ("one: observed 0.5, bound 0.2; do this", "three: observed 7, bound 8; do that", 'slidr sql "SELECT 1"', "--override"):
        assert part in str(stopped.value)
    assert "two" not in str(stopped.value)
    with pytest.raises(GuardrailError):
        require(checks, "  ")
    assert require(checks, "ticket 17") == [checks[0], checks[2]]
    assert require(checks[1:2], None) == []


def test_the_reason_is_on_the_first_line() -> None:
    checks = [Check("one", 0.5, 0.2, False, "do this"), Check("three", 7, 8, False, "do that", True)]
    with pytest.raises(GuardrailError) as stopped:
        require(checks, None)
    first = str(stopped.value).splitlines()[0]
    assert first.endswith("nothing was published: one is 0.5, must be at most 0.2; three is 7, must be at least 8")


def test_rows_are_a_table_failed_checks_first() -> None:
    table = rows([Check("a", 1, 2, True, "x"), Check("b", math.nan, 2, True, "none"), Check("c", 3.0, 2, False, "do", True, "SELECT 1")])
    assert table[0] == {
        "check": "c",
        "observed": 3.0,
        "must be": "at least",
        "bound": 2.0,
        "verdict": "failed",
        "why": "do",
        "query": "SELECT 1",
    }
    assert [(row["check"], row["observed"], row["verdict"]) for row in table[1:]] == [("a", 1.0, "passed"), ("b", None, "not judged")]


def test_the_table_reaches_the_user_when_a_guardrail_stops_the_run() -> None:
    checks = [Check("a", 1, 2, True, "x"), Check("c", 3.0, 2, False, "do")]

    def action(_job: Job) -> Any:
        require(checks, None)

    outcome, message = _attempt(action, None, verbose=False)
    assert outcome.exit_code == 4
    assert message.startswith("stopped by 1 of 2 guardrails")
    assert outcome.summary == {"guardrails": rows(checks)}
    assert outcome.shown == {"Guardrails": rows(checks)}


def test_a_guardrail_of_training_itself_stops_with_the_table_and_a_row_of_its_own() -> None:
    checks = [Check("a", 1, 2, True, "x")]
    with pytest.raises(GuardrailError, match="a finite training loss") as stopped, beside(checks, "training"):
        raise GuardrailError("expected a finite training loss, found nan in epoch 3")
    assert [(row["check"], row["verdict"]) for row in stopped.value.rows] == [("training", "failed"), ("a", "passed")]
    with pytest.raises(InputError), beside(checks, "training"):
        raise InputError("another error goes its own way")


def test_poisson_tails() -> None:
    assert poisson_at_most(0, 10.0) == pytest.approx(math.exp(-10))
    assert poisson_at_most(2, 3.0) == pytest.approx(math.exp(-3) * (1 + 3 + 4.5))
    assert 0 <= poisson_at_most(20_000, 100_000.0) < 1e-12
    assert poisson_at_least(3, 3.0) == pytest.approx(1 - math.exp(-3) * (1 + 3 + 4.5))
    assert poisson_at_least(0, 3.0) == 1


def test_queries_hold_only_days_and_names() -> None:
    week = days_from(FIRST, 7)
    assert "click_date BETWEEN DATE'2026-01-05' AND DATE'2026-01-11' GROUP" in query(LABELS_BY_DAY, week)
    assert "click_date = DATE'2026-01-05' GROUP" in query(LABELS_BY_DAY, week[:1])
    assert "click_date IN (DATE'2026-01-05', DATE'2026-01-07') GROUP" in query(LABELS_BY_DAY, [week[2], week[0], week[0]])
    for days, feature in (([], ""), (["2026-01-05"], ""), (week, "x; DROP"), (week, "x'")):
        with pytest.raises(InputError):
            query(FEATURE_BY_DAY, days, feature=feature)
