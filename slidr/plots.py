"""Pictures (PNG) of hours and features, drawn without a screen, and how all pictures look."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

CURVE, FIT, CHOSEN, GLOBAL, KNEE, SHADE = "#4c6a92", "#c26a1b", "#b3261e", "#2e7d4f", "#8a8a8a", "#f3d6d3"
MOST_PANELS = 11  # slices drawn, those with most clicks first; one more panel shows all slices together
VIEWS = {"first": ("first decisions", CURVE, "-"), "published": ("published, after corrections", FIT, "--")}


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
    legend(figure, list(axes.flat))
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
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
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


def tidy(axis: Axes) -> None:
    """A light grid, and no box around the panel."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, axes: list[Axes]) -> None:
    """One legend below all panels, each entry once."""
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=4, frameon=False, fontsize=9)


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG and forgets it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
