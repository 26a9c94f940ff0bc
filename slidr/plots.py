"""Pictures (PNG) of calibrations and of hours, drawn without a screen."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from slidr.curves import Calibration, Curve, SliceThreshold, pool

CURVE, FIT, CHOSEN, GLOBAL, KNEE, SHADE = "#4c6a92", "#c26a1b", "#b3261e", "#2e7d4f", "#8a8a8a", "#f3d6d3"
MOST_PANELS = 11  # slices drawn, those with most clicks first; one more panel shows all slices together
VIEWS = {"first": ("first decisions", CURVE, "-"), "published": ("published, after corrections", FIT, "--")}


def plot_curves(curves: Mapping[str, Curve], calibration: Calibration, path: Path) -> None:
    """One panel per slice, then one of all slices: IVR against FPR with fit, chosen point, global threshold and knee."""
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
        f"IVR against FPR of the calibration clicks; budget {calibration.fpr_budget:.2%} over all slices ({calibration.method})"
        + (f"; {left_out} smaller slices not drawn" if left_out else "")
    )
    _legend(figure, flat[:panels])
    save(figure, path)


def plot_hours(
    metrics: pd.DataFrame,
    path: Path,
    shaded: Sequence[tuple[datetime, datetime]] = (),
    shade: str = "incident window",
    views: Mapping[str, tuple[str, str, str]] = VIEWS,
) -> None:
    """IVR by hour, one line per view. `metrics` has hour (UTC timestamp), view, ivr in [0, 1]; `views` maps a view to its
    label, colour and line style; `shaded` windows are called `shade` in the legend.
    """
    figure, axis = plt.subplots(figsize=(10, 3.8), layout="constrained")
    _draw_hours(axis, metrics.rename(columns={"ivr": "share"}), shaded, shade, views)
    axis.set(title="Invalidation rate by hour", xlabel="hour of the click, UTC", ylabel="IVR: invalid / all clicks")
    axis.legend(loc="best", frameon=False)
    save(figure, path)


def plot_shares(
    panels: Mapping[str, pd.DataFrame],
    path: Path,
    shaded: Sequence[tuple[datetime, datetime]] = (),
    shade: str = "incident window",
    views: Mapping[str, tuple[str, str, str]] = VIEWS,
) -> None:
    """One panel below the other, named by its share; each with hour (UTC timestamp), view, share in [0, 1], NaN where it is not known."""
    figure, axes = plt.subplots(len(panels), 1, figsize=(10, 2.6 * len(panels) + 0.6), sharex=True, squeeze=False, layout="constrained")
    for axis, (name, metrics) in zip(axes.flat, panels.items(), strict=True):
        _draw_hours(axis, metrics, shaded, shade, views)
        axis.set_title(name, loc="left", fontsize=10)
        if metrics["share"].isna().all():
            axis.text(0.5, 0.5, "not known", ha="center", transform=axis.transAxes)
    axes.flat[-1].set_xlabel("hour of the click, UTC")
    _legend(figure, list(axes.flat))
    save(figure, path)


def _draw_hours(
    axis: Axes, metrics: pd.DataFrame, shaded: Sequence[tuple[datetime, datetime]], shade: str, views: Mapping[str, tuple[str, str, str]]
) -> None:
    """Steps by hour, one line per view, over the shaded windows."""
    for number, window in enumerate(shaded):
        start, end = (mdates.date2num(pd.Timestamp(edge)) for edge in window)
        axis.axvspan(start, end, color=SHADE, linewidth=0, label=None if number else shade, zorder=0)
    for view, (label, colour, style) in views.items():
        rows = metrics[metrics["view"] == view].sort_values("hour")
        if len(rows):
            hours, shares = _without_bridges(pd.to_datetime(rows["hour"]), rows["share"])
            axis.step(hours, shares, style, where="post", color=colour, label=label, linewidth=1.6)
    axis.xaxis.set_major_formatter(mdates.ConciseDateFormatter(axis.xaxis.get_major_locator()))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_ylim(bottom=0)
    tidy(axis)


def plot_consistency(features: Sequence[Mapping[str, object]], hours: Sequence[Mapping[str, object]], path: Path) -> None:
    """Two panels: the share of equal cells of each feature, worst on top; the share of clicks that differ, by hour (UTC)."""
    rows = pd.DataFrame(features).assign(share=lambda frame: frame["equal"] / frame["compared"]).sort_values("share", ascending=False)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 0.6 + 0.2 * max(len(rows), 12)), layout="constrained")
    left.barh(rows["feature"], rows["share"], color=CURVE)
    left.set(title="Equal cells", xlabel="share of the clicks compared", xlim=(0, 1))
    left.tick_params(axis="y", labelsize=8)
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    by_hour = pd.DataFrame(hours)
    right.step(pd.to_datetime(by_hour["hour"]), by_hour["differing"] / by_hour["clicks"], where="post", color=CHOSEN)
    right.xaxis.set_major_formatter(mdates.ConciseDateFormatter(right.xaxis.get_major_locator()))
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    right.set(title="Clicks that differ in any feature", xlabel="hour of the click, UTC", ylim=(0, 1.02))
    for axis in (left, right):
        tidy(axis)
    save(figure, path)


def _without_bridges(hours: pd.Series, shares: pd.Series) -> tuple[pd.DatetimeIndex, pd.Series]:
    """Every hour from the first to the end of the last, NaN where there is none, so that no line runs over missing hours."""
    every = pd.date_range(hours.min(), hours.max() + pd.Timedelta(hours=1), freq="h")
    filled = pd.Series(shares.to_numpy(), index=hours).reindex(every)
    filled.iloc[-1] = filled.iloc[-2]
    return every, filled


def _draw_slice(axis: Axes, curve: Curve, row: SliceThreshold, calibration: Calibration) -> None:
    axis.set_title(f"{row.slice}\n{row.clicks:,} clicks, {row.purchasing:,} purchasing", fontsize=10)
    if not curve.purchasing or not curve.clicks:
        axis.text(0.5, 0.5, f"no FPR: nobody purchased\nglobal threshold {row.threshold:.4f}", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    right = _draw_frontier(axis, curve, 1.3 * max(calibration.fpr_max, row.fpr, curve.at(calibration.default_threshold)["fpr"]))
    if row.fitted:
        f = np.linspace(0, min(calibration.fit_fpr, right), 60)
        axis.plot(f, row.a * f**2 + row.b * f + row.c, "--", color=FIT, linewidth=1.4, label="fit (straight line where it curves upwards)")
    if row.fitted and row.floor > 0:
        axis.axvline(row.floor, color=KNEE, linewidth=1, linestyle=":", label="FPR at the minimum coverage")
    _draw_global(axis, curve, calibration)
    if row.fitted:
        axis.plot(row.fpr, row.ivr, "o", color=CHOSEN, markersize=7, label="chosen threshold", zorder=5)
        axis.annotate(f" {row.threshold:.4f}", (row.fpr, row.ivr), xytext=(5, -12), textcoords="offset points", fontsize=9, color=CHOSEN)
    else:
        axis.text(0.97, 0.05, row.outcome.replace(": ", ":\n", 1), ha="right", fontsize=8, transform=axis.transAxes)
    _label(axis)


def _draw_pooled(axis: Axes, curve: Curve, calibration: Calibration) -> None:
    threshold, fpr, ivr = calibration.knee
    axis.set_title(f"all slices\n{curve.clicks:,} clicks, {curve.purchasing:,} purchasing", fontsize=10)
    _draw_frontier(axis, curve, 1.3 * max(calibration.fpr_max, fpr))
    axis.axvline(calibration.fpr_budget, color=CHOSEN, linewidth=1, linestyle=":", label="FPR budget")
    _draw_global(axis, curve, calibration)
    if calibration.method != "global":
        axis.plot(calibration.fpr, calibration.ivr, "o", color=CHOSEN, markersize=7, label="chosen threshold", zorder=5)
    axis.plot(fpr, ivr, "x", color=KNEE, markersize=8, markeredgewidth=2, label="knee (not used)", zorder=4)
    axis.annotate(f" {threshold:.4f}", (fpr, ivr), xytext=(5, -12), textcoords="offset points", fontsize=9, color=KNEE)
    _label(axis)


def _draw_frontier(axis: Axes, curve: Curve, right: float) -> float:
    """Draws the curve from FPR 0 and returns the right end of the axis."""
    fpr, ivr = curve.frontier()
    right = min(right, 1.0)
    shown = fpr <= right
    axis.step(np.append(fpr[shown], right), np.append(ivr[shown], ivr[shown][-1]), where="post", color=CURVE, label="empirical curve")
    axis.set_xlim(-0.02 * right, right)
    axis.set_ylim(0, max(float(ivr[shown][-1]) * 1.15, 0.01))
    return right


def _draw_global(axis: Axes, curve: Curve, calibration: Calibration) -> None:
    point = curve.at(calibration.default_threshold)
    axis.plot(
        point["fpr"],
        point["ivr"],
        "s",
        markersize=8,
        markerfacecolor="none",
        markeredgecolor=GLOBAL,
        markeredgewidth=1.6,
        label=f"global threshold {calibration.default_threshold:.4f}",
        zorder=4,
    )


def _label(axis: Axes) -> None:
    axis.set(xlabel="FPR: invalid / purchasing clicks", ylabel="IVR: invalid / all clicks")
    axis.xaxis.set_major_formatter(PercentFormatter(1.0))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    tidy(axis)


def tidy(axis: Axes) -> None:
    """A light grid, and no box around the panel."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: list[Axes]) -> None:
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG and forgets it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
