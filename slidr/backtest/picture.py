"""Pictures (PNG) of a backtest: FPR, IVR and coverage of each day, and FPR by slice, all variants beside each other."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from slidr import plots

COLOURS = ("#4c6a92", "#c26a1b", "#2e7d4f", "#7a4f9a", "#8a8a8a", "#4a9a9a")
TITLES = {
    "fpr": "FPR of the day: invalid / purchasing clicks. Filled, ringed red: surely over its budget; bars: 95 % intervals",
    "ivr": "IVR of the day: invalid / decided clicks",
    "coverage": "robotic coverage of the day: invalid / clicks of heavy sessions",
}
NOTE = "Each day is decided by a version trained on what was known before it. FPR is a lower estimate of the harm to people."
SPREAD = 0.5  # of a day, over which the variants of a day stand apart


def plot_days(days: Mapping[str, pd.DataFrame], budgets: Mapping[str, float], stopped: Mapping[str, Sequence[date]], path: Path) -> None:
    """Four panels over the days: FPR with its budget, IVR, coverage, and the days on which a guardrail stopped the training.

    `days`: variant -> one row a day (click_date, fpr, fpr_low, fpr_high, purchasing, purchasing_invalid, ivr, coverage, surely_over);
    `stopped`: variant -> days.
    """
    heights = [3.2, 2, 2, 0.5 + 0.22 * len(days)]
    figure, axes = plt.subplots(4, 1, figsize=(12, 9 + 0.2 * len(days)), sharex=True, height_ratios=heights, layout="constrained")
    for place, (name, rows) in enumerate(days.items()):
        colour, shift = COLOURS[place % len(COLOURS)], SPREAD * (place / max(len(days) - 1, 1) - 0.5) * (len(days) > 1)
        _draw_fpr(axes[0], rows, name, colour, shift)
        for axis, measure in zip(axes[1:3], ("ivr", "coverage"), strict=True):
            axis.plot(rows["click_date"], rows[measure], "-o", color=colour, markersize=3, linewidth=1.4)
        axes[3].plot(list(stopped[name]), [place] * len(stopped[name]), "X", color=plots.CHOSEN, markersize=8)
    _draw_budgets(axes[0], budgets)
    points = [rows["fpr"].to_numpy(dtype=float) for rows in days.values()]
    axes[0].set_ylim(*_limits(points, max(budgets.values())))
    for axis, title in zip(axes[:3], TITLES.values(), strict=True):
        axis.set_title(title, loc="left", fontsize=10)
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        plots.tidy(axis)
    for axis in axes[1:3]:
        axis.set_ylim(bottom=0)
    _finish_stops(axes[3], list(days))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.supxlabel(NOTE, fontsize=8, color="#555555")
    plots.save(figure, path)


def _draw_fpr(axis: Axes, rows: pd.DataFrame, name: str, colour: str, shift: float) -> None:
    at = pd.to_datetime(rows["click_date"]) + pd.Timedelta(days=shift)
    axis.vlines(at, rows["fpr_low"], rows["fpr_high"], color=colour, linewidth=1.1, alpha=0.55)
    whole = rows["purchasing_invalid"].sum() / max(rows["purchasing"].sum(), 1)
    axis.plot(at, rows["fpr"], "o", color=colour, markerfacecolor="white", markersize=5, label=f"{name}: {whole:.2%} over all days")
    surely = rows["surely_over"].to_numpy(dtype=bool)
    axis.plot(at[surely], rows["fpr"][surely], "o", color=colour, markeredgecolor=plots.CHOSEN, markeredgewidth=1.5, markersize=8)


def _draw_budgets(axis: Axes, budgets: Mapping[str, float], *, upright: bool = False) -> None:
    """One line for all variants of the same budget; in the variant's own colour where they differ."""
    draw = axis.axvline if upright else axis.axhline
    for budget in sorted(set(budgets.values())):
        same = [name for name, of in budgets.items() if of == budget]
        every = len(same) == len(budgets)
        colour = plots.CHOSEN if every else COLOURS[list(budgets).index(same[0]) % len(COLOURS)]
        label = f"budget {budget:.2%}" + ("" if every else f" of {', '.join(same)}")
        draw(budget, color=colour, linewidth=1.3, linestyle="--", label=label)


def _limits(points: Sequence[NDArray[Any]], budget: float) -> tuple[float, float]:
    """Of an axis of FPR: the upper ends of wide intervals are cut off, since a few purchases say little and must not flatten the rest."""
    known = np.concatenate([*points, [0.0]])
    top = 1.15 * max(float(np.nanmax(known)), 3 * budget)
    return -0.02 * top, top


def _finish_stops(axis: Axes, names: list[str]) -> None:
    axis.set_title("days on which a guardrail stopped the training: the version before decided on", loc="left", fontsize=10)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    locator = AutoDateLocator(minticks=4)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    plots.tidy(axis)


def plot_slices(slices: Mapping[str, Sequence[Mapping[str, Any]]], budgets: Mapping[str, float], path: Path) -> None:
    """FPR of each slice over all days with its interval, the variants below each other; slices in which nobody purchased are left out."""
    rows = {name: {row["slice"]: row for row in found if row["purchasing"]} for name, found in slices.items()}
    points: list[NDArray[Any]] = []
    names = sorted({name for found in rows.values() for name in found}, reverse=True)
    figure, axis = plt.subplots(figsize=(10, 1.8 + (0.3 + 0.16 * len(rows)) * max(len(names), 1)), layout="constrained")
    for place, (variant, found) in enumerate(rows.items()):
        shift = SPREAD * (0.5 - place / max(len(rows) - 1, 1)) * (len(rows) > 1)
        at = np.array([names.index(name) for name in found]) + shift
        value, low, high = (np.array([row[key] for row in found.values()], dtype=float) for key in ("fpr", "fpr_low", "fpr_high"))
        points.append(value)
        axis.errorbar(value, at, xerr=[value - low, high - value], fmt="o", color=COLOURS[place % len(COLOURS)], capsize=3, label=variant)
    _draw_budgets(axis, budgets, upright=True)
    axis.set_yticks(range(len(names)), names)
    axis.set(title="FPR of each slice over all judged days, 95 % intervals; the budget is one of all slices together")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axis.set_xlim(*_limits(points, max(budgets.values())))
    plots.tidy(axis)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    plots.save(figure, path)
