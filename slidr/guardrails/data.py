"""Checks on the training data: labels by hour, clicks, orders, features, rejects. Counts in, checks out; no Spark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd

from slidr.config import GuardrailsConf
from slidr.curves import share
from slidr.guardrails.checks import Check, at_least, at_most, left_out
from slidr.guardrails.drift import check_day_drift, check_drift
from slidr.guardrails.hours import check_densities, check_missing, check_purchase_outage, check_volume
from slidr.guardrails.queries import CLICKS_BY_DAY, LABELS_BY_DAY, LATE_BY_DAY, REJECTS, WITHOUT_FEATURES, query

CONFLICT = "conflicting_duplicate"  # the reason that ingest gives it


@dataclass(frozen=True)
class Others:
    """Counts of whole tables around the window, the days of a training run.

    clicks: day, hour, clicks of all clicks, from the look-back and the earlier weeks on. orders: day, hour, orders. rejects:
    reason, rejected, since the first day of the window; `kept` are the rows of clicks and purchases since then.
    first_day: the lake's first day of clicks. look_back_days: of the longest counter.
    """

    clicks: pd.DataFrame
    orders: pd.DataFrame
    rejects: pd.DataFrame
    kept: int
    first_day: date
    look_back_days: int
    spec_id: str


@dataclass(frozen=True)
class Measured:
    """What the checks on data are made of: `days` are all days of the run, `training_days` those that it learns from.

    hours: day, hour, clicks, humans, purchasing, high_rfm, no_user, no_address, late of the labelled clicks with features. histogram: day,
    feature, bin, clicks. missing: day, missing, labelled clicks without features.
    """

    days: tuple[date, ...]
    training_days: tuple[date, ...]
    hours: pd.DataFrame
    histogram: pd.DataFrame
    missing: pd.DataFrame
    others: Others


def check_training_data(measured: Measured, *, bounds: GuardrailsConf, reference: Mapping[str, Any] | None) -> list[Check]:
    """All checks on data. `reference` is what the champion's bundle keeps of its features, if there is a champion."""
    m, hours, others, small = measured, measured.hours, measured.others, bounds.min_hour_clicks
    return [
        _signs("purchasing clicks", "purchasing", hours, m.days, bounds.min_purchasing),
        _signs("high-RFM clicks", "high_rfm", hours, m.days, bounds.min_high_rfm),
        *check_densities(hours, min_hour_clicks=small, min_density=bounds.min_human_density),
        check_purchase_outage(hours, others.orders, min_hour_clicks=small, max_hours=bounds.max_purchase_outage_hours),
        _single_class(hours, bounds.max_single_class_days),
        *check_volume(others.clicks, days=m.days, first_day=others.first_day, bounds=bounds),
        check_missing(hours, missing="no_user", what="user", min_hour_clicks=small, max_share=bounds.max_missing_users),
        check_missing(hours, missing="no_address", what="address", min_hour_clicks=small, max_share=bounds.max_missing_addresses),
        *check_drift(m.histogram, reference, training_days=m.training_days, days=m.days, max_drift=bounds.max_drift),
        *check_day_drift(m.histogram, days=m.days, max_drift=bounds.max_day_drift),
        *_rejects(m, max_share=bounds.max_reject_share, max_conflicts=bounds.max_conflict_share),
        _late(hours, minutes=bounds.late_minutes, max_share=bounds.max_late_share),
        _without_features(m, max_share=bounds.max_missing_features),
        _missing_days(m, max_days=bounds.max_missing_days),
    ]


def _signs(name: str, sign: str, hours: pd.DataFrame, days: Sequence[date], bound: int) -> Check:
    few = f"train on more days, or check that purchases were ingested for them and before; guardrails.min_{sign} is the bound"
    found = int(hours[sign].sum())
    advice = few if found < bound else f"of {int(hours['clicks'].sum())} labelled clicks"
    return at_least(name, found, bound, advice, query(LABELS_BY_DAY, days))


def _single_class(hours: pd.DataFrame, bound: int) -> Check:
    name = "days with one class of label"
    by_day = hours.groupby("day")[["clicks", "humans"]].sum()
    if by_day.empty:
        return left_out(name, bound, "there are no labelled clicks")
    single = by_day[(by_day["humans"] == 0) | (by_day["humans"] == by_day["clicks"])]
    named = "; ".join(f"{day}: {int(row['humans'])} of {int(row['clicks'])} clicks human" for day, row in single.head(5).iterrows())
    advice = f"{named}. Ingest the purchases of these days, label them again" if named else f"{len(by_day)} days have both"
    return at_most(name, len(single), bound, advice, query(LABELS_BY_DAY, single.index if named else by_day.index))


def _rejects(m: Measured, *, max_share: float, max_conflicts: float) -> list[Check]:
    """Shares of the rows of clicks and purchases that were refused, of all that came since the window began.

    A reject has no day of its own: one of an earlier day that came in this time counts too, so the share is an upper estimate.
    """
    rejected = int(m.others.rejects["rejected"].sum())
    conflicts = int(m.others.rejects.loc[m.others.rejects["reason"] == CONFLICT, "rejected"].sum())
    first = min(m.days)
    top = m.others.rejects.sort_values("rejected", ascending=False).head(5)
    reasons = ", ".join(f"{row.reason}: {row.rejected}" for row in top.itertuples()) or "none"
    found = query(REJECTS, [first])
    of = f"of {m.others.kept + rejected} rows of clicks and purchases since {first}"
    return [
        at_most(
            "share of rejects", share(rejected, m.others.kept + rejected), max_share, f"{rejected} {of}; {reasons}; see the source", found
        ),
        at_most(
            "share of conflicting duplicates",
            share(conflicts, m.others.kept + rejected),
            max_conflicts,
            f"{conflicts} {of} contradict another row of their id",
            found,
        ),
    ]


def _late(hours: pd.DataFrame, *, minutes: int, max_share: float) -> Check:
    name = "share of late clicks"
    late, clicks = int(hours["late"].sum()), int(hours["clicks"].sum())
    if not clicks:
        return left_out(name, max_share, "there are no labelled clicks")
    advice = f"{late} of {clicks} arrived more than {minutes} minutes after the click; counters as known then miss late clicks"
    worst = hours.sort_values("late", ascending=False)["day"].head(24)
    return at_most(name, share(late, clicks), max_share, advice, query(LATE_BY_DAY, worst))


def _without_features(m: Measured, *, max_share: float) -> Check:
    """The largest share of a day's labelled clicks that have no features of the spec; they can't be learned from."""
    name = "labelled clicks of a day without features"
    missing = dict(zip(m.missing["day"], m.missing["missing"], strict=True))
    present = m.hours.groupby("day")["clicks"].sum().to_dict()
    shares = {day: share(missing.get(day, 0), missing.get(day, 0) + present.get(day, 0)) for day in m.days}
    shares = {day: value for day, value in shares.items() if value == value}
    if not shares:
        return left_out(name, max_share, "there are no labelled clicks")
    worst = max(shares, key=lambda day: shares[day])
    above = sorted(day for day, value in shares.items() if value > max_share)
    advice = f"{missing.get(worst, 0)} on {worst}, spec {m.others.spec_id}"
    if above:
        advice += f"; {len(above)} days above the bound: build features of this spec for them, or configure the spec that they have"
    return at_most(name, shares[worst], max_share, advice, query(WITHOUT_FEATURES, above or [worst]))


def _missing_days(m: Measured, *, max_days: int) -> Check:
    """Days without a click from the look-back of the first day on; days before the lake's first are its boundary, not missing."""
    start = max(min(m.days) - timedelta(days=m.others.look_back_days), m.others.first_day)
    wanted = [start + timedelta(days=offset) for offset in range((max(m.days) - start).days + 1)]
    there = set(m.others.clicks["day"])
    missing = [day for day in wanted if day not in there]
    named = ", ".join(str(day) for day in missing[:5])
    advice = f"no click on {named}: counters that look back there are too low; ingest them, build the features again" if missing else "none"
    return at_most("days missing from the look-back", len(missing), max_days, advice, query(CLICKS_BY_DAY, [wanted[0], wanted[-1]]))
