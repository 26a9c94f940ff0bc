"""How far the distribution of each feature moved: the population stability index (PSI) over fixed bins.

PSI = sum over bins of (p - q) ln(p / q), p and q the shares of the two samples; a bin's share is taken as at least FLOOR.
Customary reading: below 0.1 the same, above 0.25 another population (N. Siddiqi, Credit Risk Scorecards, 2006).
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from slidr.features.spec import TIME_COLUMNS
from slidr.guardrails.checks import Check, at_most, left_out
from slidr.guardrails.queries import FEATURE_BY_DAY, query

REFERENCE = "feature_shares"  # the key of a bundle's metrics that holds the shares of the training days
BINS_REVISION = 1  # another meaning of the bins, `tally.bins_of`, is another revision: shares of two revisions are not compared
FLOOR = 1e-4
# Which weekdays a window holds is the calendar's doing, not the traffic's.
CALENDAR = ("weekday_sin", "weekday_cos")
BOUNDED = (*TIME_COLUMNS, "logged_in")  # in [-1, 1]

Shares = dict[str, dict[str, float]]  # feature -> bin number as text -> share of the clicks


def shares_of(histogram: pd.DataFrame) -> Shares:
    """Shares of the clicks by feature and bin, from rows (feature, bin, clicks)."""
    counts = histogram.groupby(["feature", "bin"])["clicks"].sum()
    whole = counts.groupby(level="feature").sum().to_dict()
    shares: Shares = {str(name): {} for name in whole}
    for (name, number), part in counts.items():
        shares[str(name)][str(number)] = round(float(part) / float(whole[name]), 9)
    return shares


def reference_of(histogram: pd.DataFrame, days: Sequence[date]) -> dict[str, Any]:
    """What a bundle keeps of the features that it was trained on, for the drift check of later trainings: plain JSON."""
    trained = histogram[histogram["day"].isin(list(days))]
    return {"bins": BINS_REVISION, "days": [str(day) for day in days], "shares": shares_of(trained)}


def psi(now: Mapping[str, float], before: Mapping[str, float]) -> float:
    """Population stability index of two sets of shares."""
    bins = sorted({*now, *before})
    p, q = (np.maximum([shares.get(name, 0.0) for name in bins], FLOOR) for shares in (now, before))
    return float(((p - q) * np.log(p / q)).sum())


def drifts(now: Shares, before: Shares) -> dict[str, float]:
    """PSI of each feature that both have, the largest first; the weekday is left out."""
    found = {name: psi(now[name], before[name]) for name in now if name in before and name not in CALENDAR}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def check_drift(
    histogram: pd.DataFrame, reference: Mapping[str, Any] | None, *, training_days: Sequence[date], days: Sequence[date], max_drift: float
) -> list[Check]:
    """The largest PSI, or one row for each feature above the bound: the training days against those that the champion
    learned from; without a champion the second half of the days against the first."""
    if reference and reference.get("bins") == BINS_REVISION:
        now = shares_of(histogram[histogram["day"].isin(list(training_days))])
        before, against = reference["shares"], f"what the champion learned from ({reference['days'][0]} to {reference['days'][-1]})"
    else:
        half = len(days) // 2
        now, before = (shares_of(histogram[histogram["day"].isin(list(part))]) for part in (days[half:], days[:half]))
        against = "the first half of the window (no champion to compare with)"
    found = drifts(now, before)
    if not found:
        return [left_out("drift of a feature", max_drift, f"there is no feature to compare with {against}")]
    return [_row(f"drift of {name}", name, found, max_drift, f"against {against}", days) for name in _named(found, max_drift)]


def check_day_drift(histogram: pd.DataFrame, *, days: Sequence[date], max_drift: float) -> list[Check]:
    """The largest PSI of one day against all the others, or one row for each feature above the bound."""
    worst: dict[str, tuple[float, date]] = {}
    for day in days if len(days) > 1 else ():
        of_day = histogram["day"] == day
        for name, value in drifts(shares_of(histogram[of_day]), shares_of(histogram[~of_day])).items():
            worst[name] = max(worst.get(name, (0.0, day)), (value, day))
    if not worst:
        return [left_out("drift of a feature on one day", max_drift, "there is one day only")]
    found = dict(sorted(((name, value) for name, (value, _) in worst.items()), key=lambda item: -item[1]))
    return [
        _row(f"drift of {name} on one day", name, found, max_drift, f"{worst[name][1]} against the other days", days)
        for name in _named(found, max_drift)
    ]


def _named(found: Mapping[str, float], bound: float) -> list[str]:
    """Features above the bound, else the one that moved most."""
    return [name for name, value in found.items() if value > bound] or list(found)[:1]


def _row(title: str, name: str, found: Mapping[str, float], bound: float, against: str, days: Sequence[date]) -> Check:
    others = ", ".join(f"{other} {value:.3f}" for other, value in list(found.items())[:4] if other != name)
    failed = found[name] > bound
    what = "look at the feature by day: did its source, or the traffic, change? " if failed else ""
    advice = f"{against}. {what}{len(found)} features compared; next: {others}"
    return at_most(title, found[name], bound, advice, query(FEATURE_BY_DAY, days, feature=name))
