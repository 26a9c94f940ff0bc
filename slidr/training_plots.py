"""Pictures (PNG) that judge a new version: methods compared, scores by label, slices and hours of the week with intervals."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from slidr import plots
from slidr.curves import Curve, pool
from slidr.evaluation import label_histogram

COLOURS = ("#4c6a92", "#c26a1b", "#8a8a8a", "#7a4f9a", "#4a9a9a")  # of methods, the new version first
CHAMPION = "champion"
DECIDERS = {"champion": ("champion", "#2e7d4f", "s"), "new": ("new version", "#4c6a92", "o")}
LABELS = {"purchasing": ("purchasing", "#2e7d4f"), "high_rfm": ("high RFM, no purchase", "#c26a1b"), "other": ("neither sign", "#4c6a92")}
MEASURES = {"ivr": "IVR: invalid / all clicks", "fpr": "FPR: invalid / purchasing clicks", "coverage": "robotic coverage"}
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
NOTE = "FPR is a lower estimate of the harm to people: about half of it in simulation. Bars and bands: 95 % Clopper–Pearson intervals."
HOURS = 168


def plot_methods(curves: Mapping[str, Mapping[str, Curve]], budget: float, path: Path) -> None:
    """IVR against FPR of all methods on the same clicks: all slices together, then slice by slice, those with most clicks first;
    slices in which nobody purchased have no FPR and are left out.

    `curves`: method -> slice -> curve; a cross marks each method at one global threshold of the FPR budget.
    """
    pooled = {method: pool(by_slice) for method, by_slice in curves.items()}
    bought = {name: curve for name, curve in next(iter(curves.values())).items() if curve.purchasing}
    slices = _largest(bought)
    figure, panels = _panels(len(slices) + 1)
    _draw_methods(panels[0], pooled, "all slices", budget, {method: curve.threshold_at_fpr(budget) for method, curve in pooled.items()})
    for axis, name in zip(panels[1:], slices, strict=False):
        _draw_methods(axis, {method: by_slice[name] for method, by_slice in curves.items() if name in by_slice}, name, budget, {})
    title = f"IVR against FPR of the judging clicks; × marks one global threshold at an FPR of at most {budget:.2%}"
    figure.suptitle(f"{title}\n{NOTE.partition(' Bars')[0]}", fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    plots.save(figure, path)


def plot_histograms(curves: Mapping[str, Curve], thresholds: Mapping[str, float], default: float, path: Path) -> None:
    """Score histograms by label, a panel per slice, counts on a logarithmic axis; a line marks the slice's threshold."""
    slices = _largest(curves)
    figure, panels = _panels(len(slices))
    for axis, name in zip(panels, slices, strict=False):
        table, threshold = label_histogram(curves[name]), thresholds.get(name, default)
        edges = np.append(table["score"], 1.0)
        for column, (label, colour) in LABELS.items():
            axis.stairs(table[column], edges, color=colour, label=label, linewidth=1.4)
        axis.axvline(threshold, color=plots.CHOSEN, linestyle=":", label="threshold: invalid to the right")
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(bottom=0)
        axis.set(xlabel="score, higher = more robotic", ylabel="clicks (log)", xlim=(0, 1))
        axis.set_title(f"{name}\nthreshold {threshold:.4f}", fontsize=10)
        plots.tidy(axis)
    figure.suptitle("Scores of the judging clicks by weak label")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    plots.save(figure, path)


def plot_slices(decided: pd.DataFrame, path: Path) -> None:
    """IVR, FPR and coverage of each slice with intervals, the champion beside the new version.

    `decided` has method (`new`, `champion`), slice, and each of MEASURES with `_low` and `_high`.
    """
    names = sorted(decided["slice"].unique(), reverse=True)
    figure, axes = plt.subplots(1, 3, figsize=(13, 1.9 + 0.42 * len(names)), sharey=True, layout="constrained")
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for offset, (method, (label, colour, marker)) in zip((-0.14, 0.14), DECIDERS.items(), strict=True):
            rows = decided[(decided["method"] == method) & decided[measure].notna()].set_index("slice")
            at = np.array([names.index(name) for name in rows.index]) + offset
            if len(rows):
                axis.errorbar(rows[measure], at, xerr=_bars(rows, measure), fmt=marker, color=colour, label=label, capsize=3, markersize=5)
        axis.set(title=title, ylim=(-0.6, len(names) - 0.4))
        axis.set_yticks(range(len(names)), names)
        axis.set_xlim(left=0)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0))
        plots.tidy(axis)
    _finish(figure, axes[0], "Judging clicks by slice, each version at its own thresholds", path)


def plot_hours_of_week(decided: pd.DataFrame, path: Path) -> None:
    """IVR, FPR and coverage by hour of the week (local time), with intervals; hours without such clicks are left open.

    `decided` has method, hour_of_week (0 = Monday, 0 h), and each of MEASURES with `_low` and `_high`.
    """
    figure, axes = plt.subplots(3, 1, figsize=(13, 8.4), sharex=True, layout="constrained")
    days = sorted({hour // 24 for hour in decided["hour_of_week"]})
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for method, (label, colour, _) in DECIDERS.items():
            rows = decided[decided["method"] == method].set_index("hour_of_week").reindex(range(HOURS))
            if rows["clicks"].notna().any():
                _draw_hours(axis, rows, measure, label, colour, days)
        axis.set_title(title, fontsize=10, loc="left")
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_ylim(bottom=0)
        plots.tidy(axis)
    axes[-1].set_xticks([place * 24 + hour for place in range(len(days)) for hour in (0, 6, 12, 18)])
    axes[-1].set_xticklabels([f"{DAYS[day]} 0 h" if hour == 0 else str(hour) for day in days for hour in (0, 6, 12, 18)])
    axes[-1].set(xlabel="hour of the click, local time of the marketplace", xlim=(0, 24 * len(days)))
    _finish(figure, axes[0], "Judging clicks by hour of the week, each version at its own thresholds", path)


def _draw_methods(axis: Axes, curves: Mapping[str, Curve], title: str, budget: float, marked: Mapping[str, float]) -> None:
    clicks, purchasing = (max(getattr(curve, name) for curve in curves.values()) for name in ("clicks", "purchasing"))
    axis.set_title(f"{title}\n{clicks:,} clicks, {purchasing:,} purchasing", fontsize=10)
    right = min(5 * budget, 1.0)
    for (method, curve), colour in zip(curves.items(), _colours(list(curves)), strict=True):
        fpr, ivr = curve.frontier()
        within = fpr <= right
        style = "--" if method == CHAMPION else "-"
        axis.step(np.append(fpr[within], right), np.append(ivr[within], ivr[within][-1]), style, where="post", color=colour, label=method)
        if method in marked:
            point = curve.at(marked[method])
            axis.plot(point["fpr"], point["ivr"], "x", color=colour, markersize=9, markeredgewidth=2)
    axis.axvline(budget, color=plots.CHOSEN, linewidth=1, linestyle=":", label="FPR budget")
    axis.set(xlabel=MEASURES["fpr"], ylabel=MEASURES["ivr"], xlim=(-0.02 * right, right))
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    plots.tidy(axis)


def _draw_hours(axis: Axes, rows: pd.DataFrame, measure: str, label: str, colour: str, days: Sequence[int]) -> None:
    """One line with its band over the days that hold clicks, set side by side; no line runs over hours without."""
    hours = np.concatenate([np.arange(day * 24, day * 24 + 24) for day in days])
    edges = np.arange(len(hours) + 1)
    value, low, high = (rows[name].to_numpy(dtype=float)[hours] for name in (measure, f"{measure}_low", f"{measure}_high"))
    axis.stairs(high, edges, baseline=np.nan_to_num(low), fill=True, color=colour, alpha=0.16)
    axis.stairs(value, edges, baseline=None, color=colour, label=label, linewidth=1.5)


def _bars(rows: pd.DataFrame, measure: str) -> NDArray[Any]:
    """Lengths of the error bars, 2 x rows."""
    found: NDArray[Any] = np.abs(np.stack([rows[measure] - rows[f"{measure}_low"], rows[f"{measure}_high"] - rows[measure]]))
    return found


def _colours(methods: Sequence[str]) -> list[str]:
    plain = [method for method in methods if method != CHAMPION]
    return [DECIDERS[CHAMPION][1] if method == CHAMPION else COLOURS[plain.index(method) % len(COLOURS)] for method in methods]


def _largest(curves: Mapping[str, Curve]) -> list[str]:
    return sorted(curves, key=lambda name: (-curves[name].clicks, name))[: plots.MOST_PANELS]


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    columns = min(3, number)
    rows = ceil(number / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.4 * rows + 0.9), squeeze=False, layout="constrained")
    flat = list(axes.flat)
    for axis in flat[number:]:
        axis.set_visible(False)
    return figure, flat[:number]


def _finish(figure: Figure, axis: Axes, title: str, path: Path) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle(title)
    figure.supxlabel(NOTE, fontsize=8, color="#555555")
    plots.save(figure, path)
