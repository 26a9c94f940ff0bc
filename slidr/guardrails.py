"""What may stop a training run, a promotion or a replay: measurements against bounds, all of them listed at once."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from slidr.curves import TOTAL, share
from slidr.errors import GuardrailError, InputError

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# An hour is judged only where so many humans are expected that their absence is no chance: with 10, the chance of seeing
# none is 0.00005. Below, it is pooled with the next small hours of its day.
MIN_EXPECTED = 10.0
# Chance that all hours together stop a run although every hour has the overall density.
FALSE_STOPS = 0.01


@dataclass(frozen=True)
class Check:
    """One measurement against its bound; `advice` says where it failed and what to do."""

    name: str
    observed: float
    bound: float
    passed: bool
    advice: str


def hour_density(labelled: DataFrame, *, per: str) -> DataFrame:
    """One row per hour: day, hour (0-23), clicks, humans, purchasing. One aggregation, at most 24 rows a day.

    `per` is `observed_hour` (day is the UTC date as text) or `hour_of_week` (day is Mon … Sun). Hours are UTC, not local: a
    label outage is an outage of a pipeline, and strikes all marketplaces at one instant. Needs click_time, is_human,
    is_purchase. Raises InputError for another `per`.
    """
    days = {
        "observed_hour": F.date_format("click_time", "yyyy-MM-dd"),
        "hour_of_week": F.element_at(F.array(*[F.lit(day) for day in WEEKDAYS]), F.weekday("click_time") + 1),
    }
    if per not in days:
        raise InputError(f"expected density_per to be one of {', '.join(days)}, found {per!r}")
    return labelled.groupBy(days[per].alias("day"), F.hour("click_time").alias("hour")).agg(
        F.count(F.lit(1)).alias("clicks"),
        F.count_if("is_human").alias("humans"),
        F.count_if("is_purchase").alias("purchasing"),
    )


def check_training_data(hours: pd.DataFrame, *, min_hour_clicks: int, min_human_density: float, min_purchasing: int) -> list[Check]:
    """Purchasing clicks, and in every hour the density of humans and of purchasing clicks relative to all hours.

    `hours` is the result of `hour_density`. Purchasing clicks are judged apart, since high-RFM clicks would hide that
    purchases are missing. See `pooled_hours` for hours that are too small.
    """
    purchasing = int(hours["purchasing"].sum())
    return [
        Check(
            "purchasing clicks",
            purchasing,
            min_purchasing,
            purchasing >= min_purchasing,
            "train on more days, or check that purchases were ingested for these days; guardrails.min_purchasing is the bound",
        ),
        *(
            _check_density(hours, count, min_hour_clicks=min_hour_clicks, min_density=min_human_density)
            for count in ("humans", "purchasing")
        ),
    ]


def pooled_hours(hours: pd.DataFrame, *, count: str, min_hour_clicks: int) -> pd.DataFrame:
    """One row per judged group of hours: name, clicks, count, expected (clicks x overall density), ratio.

    An hour with at least `min_hour_clicks` clicks and MIN_EXPECTED expected stands alone. The other hours of the same day
    are pooled in order until both are reached; what is left over joins the last pool of its day, or is not judged where
    the day has none.
    """
    density = share(int(hours[count].sum()), int(hours["clicks"].sum()))
    rows = []
    for _, day in hours.sort_values(["day", "hour"]).groupby("day", sort=False):
        for positions in _pool_day(day["clicks"].tolist(), density, min_hour_clicks):
            rows.append(_group_row(day, positions, count, density))
    return pd.DataFrame(rows, columns=["name", "clicks", count, "expected", "ratio"])


def check_model(metrics: pd.DataFrame, *, max_fpr: float, max_ivr: float, min_ivr: float) -> list[Check]:
    """FPR and IVR of all slices on the judging days; `metrics` is the result of `evaluation.slice_metrics`."""
    total = metrics[metrics["slice"] == TOTAL].iloc[0]
    fpr, ivr = float(total["fpr"]), float(total["ivr"])
    return [
        Check(
            "judging FPR",
            fpr,
            max_fpr,
            fpr <= max_fpr,  # NaN, without purchasing clicks, does not pass
            f"{total['purchasing_invalid']} of {total['purchasing']} purchasing clicks would be invalidated; the thresholds do not hold "
            "on newer days: look at the slices, and at the labels of the training days",
        ),
        Check(
            "judging IVR, at most", ivr, max_ivr, ivr <= max_ivr, "the model invalidates too much; look at the labels of the training days"
        ),
        Check("judging IVR, at least", ivr, min_ivr, ivr >= min_ivr, "the model invalidates next to nothing; look at its curves"),
    ]


def check_replay(
    *,
    clicks: int,
    changed: int,
    money: Mapping[str, int],
    advertisers: pd.DataFrame,
    purchasing: int,
    purchasing_invalid: int,
    max_changed_share: float,
    max_money_micros: int,
    max_advertiser_micros: int,
    max_fpr: float,
) -> list[Check]:
    """Share of clicks changed, money per currency in total and by advertiser, FPR of the new decisions.

    `money` is currency -> sum of |delta| in micro-units; `advertisers` has advertiser_id, currency, money_micros (the same
    by advertiser; the largest of each currency are enough). A window without labelled purchasing clicks has no FPR: it
    passes, and the check's `observed` is NaN.
    """
    fpr = share(purchasing_invalid, purchasing)
    narrower = "narrow the window or the filter"
    checks = [
        Check("changed share", share(changed, clicks), max_changed_share, changed <= max_changed_share * clicks, narrower),
        Check(
            "FPR of the new decisions",
            fpr,
            max_fpr,
            not fpr > max_fpr,
            f"{purchasing_invalid} of {purchasing} purchasing clicks of the window would be invalid; choose another version"
            if purchasing
            else "no purchasing clicks are labelled in the window, so FPR is not known",
        ),
    ]
    checks += [
        Check(f"money in {currency}, micro-units", total, max_money_micros, total <= max_money_micros, narrower)
        for currency, total in sorted(money.items())
    ]
    for currency, rows in advertisers.groupby("currency"):
        top = rows.loc[rows["money_micros"].idxmax()]
        over = rows[rows["money_micros"] > max_advertiser_micros].sort_values("money_micros", ascending=False)
        named = ", ".join(str(name) for name in over["advertiser_id"].head(5))
        observed = int(top["money_micros"])
        advice = f"{len(over)} above the bound, first {named}; leave them out or look at them apart" if named else narrower
        checks.append(Check(f"money of one advertiser in {currency}, micro-units", observed, max_advertiser_micros, over.empty, advice))
    return checks


def require(checks: list[Check], override: str | None) -> list[Check]:
    """The failed checks. Raises GuardrailError that lists them, unless a reason to override is given (the caller records it)."""
    failed = [check for check in checks if not check.passed]
    if not failed or (override and override.strip()):
        return failed
    lines = [f"  {check.name}: observed {check.observed:.6g}, bound {check.bound:.6g}; {check.advice}" for check in failed]
    raise GuardrailError(
        f"stopped by {len(failed)} of {len(checks)} guardrails, nothing was published:\n"
        + "\n".join(lines)
        + '\nmend the cause, or run again with --override "reason", which is put on record'
    )


def _check_density(hours: pd.DataFrame, count: str, *, min_hour_clicks: int, min_density: float) -> Check:
    groups = pooled_hours(hours, count=count, min_hour_clicks=min_hour_clicks)
    below = groups[groups["ratio"] < min_density].sort_values("ratio")
    chances = [_poisson_at_most(int(row[count]), float(row["expected"])) for _, row in below.iterrows()]
    low = below[np.array(chances, dtype=float) < FALSE_STOPS / max(len(groups), 1)]
    # Observed is the lowest density that chance does not explain, where there is one; else the lowest of all.
    shown = low if len(low) else groups
    observed = float(shown["ratio"].min()) if len(shown) else float("nan")
    found = "; ".join(f"{row['name']}: {row[count]} of {row['clicks']} clicks, {row['expected']:.1f} expected" for _, row in low.iterrows())
    advice = f"low in {found}. Labels may be missing there: ingest the purchases, label the days again"
    if low.empty:
        advice = f"{len(groups)} hours or pools of small hours judged, {len(below)} of them below the bound by chance"
    name = "human density of an hour" if count == "humans" else "purchase density of an hour"
    return Check(name, observed, min_density, low.empty, advice)


def _pool_day(clicks: list[int], density: float, min_hour_clicks: int) -> list[list[int]]:
    """Positions of the day's hours that are judged together."""

    def enough(positions: list[int]) -> bool:
        total = sum(clicks[position] for position in positions)
        return total >= min_hour_clicks and total * density >= MIN_EXPECTED

    alone = [[position] for position in range(len(clicks)) if enough([position])]
    pools: list[list[int]] = []
    small: list[int] = []
    for position in range(len(clicks)):
        if not enough([position]):
            small.append(position)
        if enough(small):
            pools.append(small)
            small = []
    if pools:
        pools[-1] = pools[-1] + small
    return alone + pools


def _group_row(day: pd.DataFrame, positions: list[int], count: str, density: float) -> dict[str, object]:
    names, clicks, found = (day[column].to_numpy()[positions] for column in ("hour", "clicks", count))
    hours = ", ".join(f"{hour:02d}h" for hour in names)
    expected = clicks.sum() * density
    return {
        "name": f"{day['day'].iloc[0]} {hours} UTC",
        "clicks": int(clicks.sum()),
        count: int(found.sum()),
        "expected": float(expected),
        "ratio": float(found.sum() / expected),
    }


def _poisson_at_most(found: int, expected: float) -> float:
    """P(X <= found) for X Poisson with mean `expected`, summed from its logarithms; for `found` below the mean."""
    k = np.arange(found + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, found + 1)))])
    return float(np.exp(k * np.log(expected) - expected - log_factorials).sum())
