"""Checks on a trained and calibrated model, on the judging rows: pandas in, checks out."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pandas as pd

from slidr.config import GuardrailsConf
from slidr.curves import TOTAL, Lead, share
from slidr.guardrails.checks import FALSE_STOPS, Check, at_least, at_most, left_out, poisson_at_least, poisson_at_most
from slidr.guardrails.queries import SLICES, query
from slidr.intervals import interval
from slidr.thresholds import Calibration

SOLVED = ("optimal", "not needed")


def check_model(
    metrics: pd.DataFrame,
    *,
    lead: Lead | None,
    calibration: Calibration,
    bounds: GuardrailsConf,
    days: Sequence[date],
) -> list[Check]:
    """FPR, IVR and coverage of all slices and of each, how calibration ended, and the baselines.

    `metrics` is the result of `evaluation.slice_metrics` of the judging days, `lead` the best baseline beside the network on the
    same clicks; None where they cannot be compared.
    """
    behind = query(SLICES, days)
    slices = metrics[metrics["slice"] != TOTAL]
    outcomes = {row.slice: row.outcome for row in calibration.slices}
    return [
        _judging_purchases(metrics[metrics["slice"] == TOTAL].iloc[0], bounds.min_judging_purchases, behind),
        *_totals(metrics[metrics["slice"] == TOTAL].iloc[0], bounds, behind),
        *_slice_fpr(slices, bounds, behind),
        *_slice_coverage(slices, bounds, behind),
        _solved(calibration),
        _calibration(slices, outcomes, bounds.max_global_slices, behind),
        _baselines(lead, bounds.max_baseline_lead, behind),
    ]


def _judging_purchases(total: "pd.Series[Any]", bound: int, behind: str) -> Check:
    """With fewer the interval of the FPR is so wide that it shows nothing."""
    advice = f"of {int(total['clicks'])} judging clicks; the FPR is a share of these: judge on more days, or on more of the users"
    return at_least("purchasing clicks of the judging days", int(total["purchasing"]), bound, advice, behind)


def _totals(total: "pd.Series[Any]", bounds: GuardrailsConf, behind: str) -> list[Check]:
    hold = (
        f"{total['purchasing_invalid']} of {total['purchasing']} purchasing clicks would be invalidated; the thresholds do not hold "
        "on newer days: look at the slices, and at the labels of the training days"
    )
    low = float(interval(total["purchasing_invalid"], total["purchasing"])[0])  # NaN, without purchasing clicks, does not pass
    ivr = float(total["ivr"])
    much = "the model invalidates too much; look at the labels of the training days"
    return [
        at_most("judging FPR, lower end of its 95% interval", low, bounds.max_judging_fpr, hold, behind),
        at_most("judging IVR, highest", ivr, bounds.max_judging_ivr, much, behind),
        at_least("judging IVR, lowest", ivr, bounds.min_judging_ivr, "the model invalidates next to nothing; look at its curves", behind),
    ]


def _slice_fpr(slices: pd.DataFrame, bounds: GuardrailsConf, behind: str) -> list[Check]:
    """The highest FPR of a slice, or one row for each slice above the bound, chance apart."""
    bound = bounds.max_slice_fpr
    judged = slices[slices["purchasing"] >= bounds.min_slice_purchases]
    if judged.empty:
        return [left_out("FPR of a slice", bound, f"no slice has {bounds.min_slice_purchases} purchasing clicks")]
    chance = [poisson_at_least(int(row.purchasing_invalid), row.purchasing * bound) for row in judged.itertuples()]
    high = judged[(judged["fpr"] > bound) & (pd.Series(chance, index=judged.index) < FALSE_STOPS / len(judged))]
    within = judged[judged["fpr"] <= bound]
    shown = high if len(high) else within.nlargest(1, "fpr")
    if shown.empty:
        return [left_out("FPR of a slice", bound, f"all {len(judged)} slices are above it by so little that it may be chance")]
    return [
        at_most(
            f"FPR of {row.slice}",
            row.fpr,
            bound,
            f"{row.purchasing_invalid} of {row.purchasing} purchasing clicks; {len(judged)} of {len(slices)} slices judged",
            behind,
        )
        for row in shown.itertuples()
    ]


def _slice_coverage(slices: pd.DataFrame, bounds: GuardrailsConf, behind: str) -> list[Check]:
    """The lowest robotic coverage of a slice, or one row for each slice below the bound, chance apart."""
    bound = bounds.min_slice_coverage
    judged = slices[slices["heavy"] >= bounds.min_slice_clicks]
    if judged.empty:
        why = f"no slice has {bounds.min_slice_clicks} clicks of heavy sessions"
        return [left_out("robotic coverage of a slice", bound, why, minimum=True)]
    chance = [poisson_at_most(int(row.heavy_invalid), row.heavy * bound) for row in judged.itertuples()]
    low = judged[(judged["coverage"] < bound) & (pd.Series(chance, index=judged.index) < FALSE_STOPS / len(judged))]
    within = judged[judged["coverage"] >= bound]
    shown = low if len(low) else within.nsmallest(1, "coverage")
    if shown.empty:
        why = f"all {len(judged)} slices are below it by so little that it may be chance"
        return [left_out("robotic coverage of a slice", bound, why, minimum=True)]
    return [
        at_least(
            f"robotic coverage of {row.slice}",
            row.coverage,
            bound,
            f"{row.heavy_invalid} of {row.heavy} clicks of heavy sessions; {len(judged)} of {len(slices)} slices judged",
            behind,
        )
        for row in shown.itertuples()
    ]


def _solved(calibration: Calibration) -> Check:
    """1 if the solver found its optimum, or no slice needed it."""
    chosen = calibration.chosen
    return at_least(
        "calibration solved to its optimum", chosen.status in SOLVED, 1, f"{calibration.method}, solver {chosen.solver}: {chosen.status}"
    )


def _calibration(slices: pd.DataFrame, outcomes: Mapping[str, str], bound: float, behind: str) -> Check:
    """Share of the judging clicks whose slice calibration could not fit, or does not know. A solver that finds no optimum
    stops the run by itself."""
    unfitted = {str(name) for name in slices["slice"] if outcomes.get(str(name), "global: not seen").startswith("global:")}
    clicks = int(slices.loc[slices["slice"].isin(unfitted), "clicks"].sum())
    named = "; ".join(f"{name}: {outcomes.get(name, 'not seen in the calibration days')}" for name in sorted(unfitted)[:5])
    advice = f"{len(unfitted)} of {len(slices)} slices take the global threshold" + (f": {named}" if named else "")
    return at_most("clicks of slices that calibration did not fit", share(clicks, int(slices["clicks"].sum())), bound, advice, behind)


def _baselines(lead: Lead | None, bound: float, behind: str) -> Check:
    """How far the best baseline's IVR is above the network's, at the same FPR on the same clicks, beyond chance."""
    name = "lead of the best baseline over the network, in IVR"
    if lead is None:
        return left_out(name, bound, "there are no purchasing clicks to compare at the same FPR, or there is no baseline")
    advice = (
        f"with {lead.allowed} of {lead.purchasing} purchasing clicks invalid, {lead.baseline} has IVR {lead.ivr:.4f}, "
        f"the network {lead.network_ivr:.4f}"
    )
    if lead.beyond_chance > bound:
        advice += ": a baseline beats the network; train longer, on more days, or look at the labels"
    elif lead.ivr > lead.network_ivr:
        advice += ", which may be chance"
    return at_most(name, lead.beyond_chance, bound, advice, behind)
