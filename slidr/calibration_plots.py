"""Pictures (PNG) of a calibration: where each method's thresholds lie on the curves, and which slices pay for the budget."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from slidr.curves import TOTAL, Curve, pool
from slidr.plots import CHOSEN, CURVE, FIT, GLOBAL, KNEE, MOST_PANELS, legend, save, tidy
from slidr.thresholds import Calibration, SliceThreshold

MARKS = {"bounded": "o", "quadratic": "^", "frontier": "D", "global": "s"}
PAYS, SPARED = "#b3261e", "#4c6a92"  # slices whose FPR at one threshold for all is above the budget, and below
MEASURES = {"fpr": "FPR: invalid / purchasing clicks", "ivr": "IVR: invalid / all clicks", "coverage": "robotic coverage"}


def plot_curves(curves: Mapping[str, Curve], calibration: Calibration, path: Path) -> None:
    """One panel per slice, then one of all slices: IVR against FPR with the published fit, the point of each method, and the knee."""
    drawn = sorted(calibration.slices, key=lambda row: (-row.clicks, row.slice))[:MOST_PANELS]
    panels = len(drawn) + 1
    columns = min(3, panels)
    rows = ceil(panels / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.5 * rows + 0.9), squeeze=False, layout="constrained")
    flat = list(axes.flat)
    for axis, row in zip(flat, drawn, strict=False):
        _draw_slice(axis, curves[row.slice], row, calibration)
    _draw_pooled(flat[len(drawn)], pool(curves), calibration)
    for axis in flat[panels:]:
        axis.set_visible(False)
    left_out = len(calibration.slices) - len(drawn)
    figure.suptitle(
        f"IVR against FPR of the calibration clicks; budget {calibration.fpr_budget:.2%} over all slices; {calibration.method} decides"
        + (f"; {left_out} smaller slices not drawn" if left_out else "")
    )
    legend(figure, flat[:panels])
    save(figure, path)


def plot_fairness(one: pd.DataFrame, own: pd.DataFrame, budget: float, path: Path) -> None:
    """Which slices pay for the budget: FPR, IVR and coverage of each slice under one threshold for all (hollow) and under its own
    (filled, with the interval), those with most purchasing clicks first. Slices whose FPR is above the budget under the one
    threshold are over-calibrated: their people pay; in the others robots go free.

    `one`, `own`: rows of `evaluation.with_shares` by slice.
    """
    named = own[own["slice"] != TOTAL].sort_values(["purchasing", "slice"], ascending=[True, False]).tail(MOST_PANELS + 1)
    before = one.set_index("slice").loc[named["slice"]]
    figure, axes = plt.subplots(1, 3, figsize=(13, 2.2 + 0.42 * len(named)), sharey=True, layout="constrained")
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        _draw_moves(axis, before, named, measure, budget)
        axis.set(title=title, ylim=(-0.6, len(named) - 0.4))
        axis.set_xlim(0, 1.06 * axis.get_xlim()[1])
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        tidy(axis)
    axes[0].axvline(budget, color="#222222", linewidth=1, linestyle=":", label="FPR budget")
    axes[0].set_yticks(range(len(named)), [f"{row.slice}  ({row.purchasing:,} purchasing)" for row in named.itertuples()])
    figure.suptitle("Which slices pay for the budget: from one threshold for all (hollow) to their own (filled); judging clicks")
    legend(figure, list(axes))
    save(figure, path)


def _draw_moves(axis: Axes, before: pd.DataFrame, after: pd.DataFrame, measure: str, budget: float) -> None:
    for place, (old, new) in enumerate(zip(before.itertuples(), after.itertuples(), strict=True)):
        colour = PAYS if old.fpr > budget else SPARED
        word = "above the budget under one threshold: over-calibrated" if old.fpr > budget else "within the budget under one threshold"
        start, end = getattr(old, measure), getattr(new, measure)
        axis.plot([start, end], [place, place], color=colour, linewidth=1.2, alpha=0.6)
        axis.plot(start, place, "o", markerfacecolor="white", markeredgecolor=colour, markersize=7)
        axis.plot(end, place, "o", color=colour, markersize=7, label=word)
        if measure == "fpr" and not np.isnan(end):
            axis.plot([new.fpr_low, new.fpr_high], [place - 0.18] * 2, color=colour, linewidth=0.9, alpha=0.5)


def _draw_slice(axis: Axes, curve: Curve, row: SliceThreshold, calibration: Calibration) -> None:
    axis.set_title(f"{row.slice}\n{row.clicks:,} clicks, {row.purchasing:,} purchasing", fontsize=10)
    if not curve.purchasing or not curve.clicks:
        axis.text(0.5, 0.5, f"no FPR: nobody purchased\nthreshold {row.threshold:.4f}", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    found = {name: next(of for of in solution.slices if of.slice == row.slice) for name, solution in calibration.solutions.items()}
    right = _draw_frontier(axis, curve, 1.3 * max([calibration.fpr_budget, *(of.fpr for of in found.values())]))
    _draw_fit(axis, found.get("quadratic"), min(calibration.fit_fpr, right))
    if row.floor > 0 and np.isfinite(row.floor):
        axis.axvline(row.floor, color=KNEE, linewidth=1, linestyle=":", label="FPR at the minimum coverage")
    for name, of in found.items():
        _draw_point(axis, name, of.fpr, of.ivr, calibration)
    axis.annotate(f" {row.threshold:.4f}", (row.fpr, row.ivr), xytext=(5, -12), textcoords="offset points", fontsize=9, color=CHOSEN)
    axis.text(0.97, 0.05, row.outcome.replace(": ", ":\n", 1), ha="right", fontsize=8, transform=axis.transAxes)
    _label(axis)


def _draw_pooled(axis: Axes, curve: Curve, calibration: Calibration) -> None:
    threshold, fpr, ivr = calibration.knee
    axis.set_title(f"all slices\n{curve.clicks:,} clicks, {curve.purchasing:,} purchasing", fontsize=10)
    _draw_frontier(axis, curve, 1.3 * max([fpr, *(solution.fpr for solution in calibration.solutions.values())]))
    axis.axvline(calibration.fpr_budget, color=CHOSEN, linewidth=1, linestyle=":", label="FPR budget")
    for name, solution in calibration.solutions.items():
        _draw_point(axis, name, solution.fpr, solution.ivr, calibration)
    axis.plot(fpr, ivr, "x", color=KNEE, markersize=8, markeredgewidth=2, label="knee (not used)", zorder=4)
    axis.annotate(f" {threshold:.4f}", (fpr, ivr), xytext=(5, -12), textcoords="offset points", fontsize=9, color=KNEE)
    _label(axis)


def _draw_point(axis: Axes, method: str, fpr: float, ivr: float, calibration: Calibration) -> None:
    decides = method == calibration.method
    colour = CHOSEN if decides else GLOBAL if method == "global" else KNEE
    axis.plot(
        fpr,
        ivr,
        MARKS[method],
        markersize=8,
        markerfacecolor=colour if decides else "none",
        markeredgecolor=colour,
        label=f"{method} (decides)" if decides else method,
        zorder=6 if decides else 4,
    )


def _draw_fit(axis: Axes, row: SliceThreshold | None, right: float) -> None:
    if row is not None and row.fitted:
        f = np.linspace(0, right, 60)
        axis.plot(
            f, row.a * f**2 + row.b * f + row.c, "--", color=FIT, linewidth=1.4, label="published fit, a line where it curves upwards"
        )


def _draw_frontier(axis: Axes, curve: Curve, right: float) -> float:
    """Draws the curve from FPR 0 and returns the right end of the axis."""
    fpr, ivr = curve.frontier()
    right = min(max(right, 1e-6), 1.0)
    shown = fpr <= right
    axis.step(np.append(fpr[shown], right), np.append(ivr[shown], ivr[shown][-1]), where="post", color=CURVE, label="empirical curve")
    axis.set_xlim(-0.02 * right, right)
    axis.set_ylim(0, max(float(ivr[shown][-1]) * 1.15, 0.01))
    return right


def _label(axis: Axes) -> None:
    axis.set(xlabel="FPR: invalid / purchasing clicks", ylabel="IVR: invalid / all clicks")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    tidy(axis)
